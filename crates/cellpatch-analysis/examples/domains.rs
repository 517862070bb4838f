//! Takes domains from an embedding and draws them, to hold them against other programs':
//! `cargo run --release -p cellpatch-analysis --example domains -- cells.csv N_DOMAINS map.svg [most_cells]`
//!
//! The input has one spot a line and no heading: x, y, a label (empty where there is none) and the embedding, separated by
//! commas. Prints how well domains agree with labels, how continuous they are, and what took how long.

use std::error::Error;
use std::time::Instant;

use cellpatch_analysis::metrics::LabelAgreement;
use cellpatch_analysis::spatial::{chaos, percentage_of_abnormal_spots, refined_domains};
use cellpatch_analysis::{
    Cells, GaussianMixture, Leiden, LeidenOptions, Metric, MixtureOptions, MixtureStart, NeighborGraph,
    Neighbors, ScatterPoint, SpatialMap, SpatialPanel, SpatialSpots, ValuedSpot,
};

/// Spots that vote on a domain.
const N_VOTERS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(n_domains), Some(output)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: domains SPOTS.csv N_DOMAINS MAP.svg [MOST_CELLS]".into());
    };
    let mut options = MixtureOptions::default();
    if let Some(most_cells) = arguments.next() {
        options.start = MixtureStart::Hierarchical { most_cells: most_cells.parse()?, seed: 0 };
    }
    let (mut places, mut embedding, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for line in std::fs::read_to_string(input)?.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [x, y, label, values @ ..] = fields.as_slice() else { return Err("a line is too short".into()) };
        places.extend([x.parse::<f32>()?, y.parse()?]);
        labels.push((!label.is_empty()).then(|| (*label).to_owned()));
        for value in values {
            embedding.push(value.parse::<f32>()?);
        }
    }
    let n_domains = n_domains.parse()?;
    let n_spots = labels.len();
    let cells = Cells::new(&embedding, n_spots, embedding.len() / n_spots.max(1))?;
    let places = Cells::new(&places, n_spots, 2)?;

    let mixture = timed("mixture", || GaussianMixture::fit(cells, n_domains, &options))?;
    let refined = timed("refinement", || refined_domains(mixture.labels(), places, N_VOTERS))?;
    let leiden = timed("Leiden", || {
        let graph = NeighborGraph::of(&Neighbors::within(cells, 14, Metric::Euclidean)?);
        Leiden::fit(&graph, &LeidenOptions::default())
    })?;
    let mut known: Vec<&String> = labels.iter().flatten().collect();
    known.sort();
    known.dedup();
    let numbers: Vec<Option<usize>> =
        labels.iter().map(|label| known.binary_search(&label.as_ref()?).ok()).collect();
    let mut panels = vec![panel("annotation", labels.iter().cloned(), places)];
    for (name, domains) in [("mixture", mixture.labels()), ("refined", &refined), ("Leiden", leiden.labels())]
    {
        let (chaos, abnormal) = (chaos(domains, places)?, percentage_of_abnormal_spots(domains, places)?);
        let agreement = LabelAgreement::of(domains, &numbers);
        let index = agreement.map_or(f64::NAN, |agreement| agreement.adjusted_rand_index);
        report(&format!("{name}: ARI {index:.4}, CHAOS {chaos:.4}, PAS {abnormal:.4}"));
        panels.push(panel(name, domains.iter().map(|domain| Some((domain + 1).to_string())), places));
    }
    let valued = |(place, cell): (&[f32], &[f32])| ValuedSpot {
        x: place[0].into(),
        y: place[1].into(),
        value: cell[0].into(),
    };
    let spots = SpatialSpots::Valued {
        value_name: "first coordinate".into(),
        limits: None,
        spots: places.iter().zip(cells.iter()).map(valued).collect(),
    };
    panels.push(SpatialPanel { name: "embedding".into(), spots });
    let title = format!("{} domains of {n_spots} spots", mixture.n_components());
    std::fs::write(output, SpatialMap { title, point_name: "spots".into(), panels }.to_svg())?;
    Ok(())
}

fn panel(name: &str, labels: impl Iterator<Item = Option<String>>, places: Cells<'_>) -> SpatialPanel {
    let spots = labels.zip(places.iter());
    let spots = spots.map(|(label, place)| ScatterPoint { x: place[0].into(), y: place[1].into(), label });
    SpatialPanel {
        name: name.to_owned(),
        spots: SpatialSpots::Labelled {
            label_name: "domain".into(),
            label_order: Vec::new(),
            spots: spots.collect(),
        },
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    report(&format!("{what}: {:.2} s", started.elapsed().as_secs_f64()));
    result
}

#[allow(clippy::print_stdout, reason = "what the example is for")]
fn report(line: &str) {
    println!("{line}");
}
