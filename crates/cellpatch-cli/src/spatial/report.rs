//! `report.html`, and the maps as files of their own.

use cellpatch_analysis::{
    Cells, ConfigurationSection, CurvePoint, Fact, NextStep, RunFile, Scatter, ScatterPoint, SlicePictures,
    SpatialMap, SpatialPanel, SpatialReport, SpatialSpots, Umap, UmapOptions,
};
use cellpatch_spatial::graph::Neighborhood;
use cellpatch_train::{MetricRecord, RunDirectory, read_metrics};

use super::domains::names;
use super::job::{Job, Unit};
use super::output::{table_name, units_of};
use super::scores::Results;
use super::slice::LoadedSlice;
use crate::failure::Failure;

/// From one section to the next in a picture, in widths of the largest extent.
const SECTION_PITCH: f64 = 1.1;

/// Writes the report, and a map of each slice beside it.
pub(super) fn write(job: &Job<'_>, results: &Results) -> Result<(), Failure> {
    let mut slices = Vec::new();
    for (index, slice) in job.slices.iter().enumerate() {
        let units = units_of(job, results, index);
        let pictures = pictures(job, slice, &units)?;
        let path = job.run.path().join(map_name(slice));
        job.run.write(&path, pictures.map.to_svg().as_bytes())?;
        slices.push(pictures);
    }
    let report = SpatialReport {
        title: format!("Spatial domains: {}", job.run.path().display()),
        command_line: std::iter::once("cellpatch".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        summary: summary(job, results),
        warnings: warnings(job),
        scores: results.scores.clone(),
        comparison: results.comparison.clone(),
        slices,
        configuration: configuration(job),
        files: files(job),
        next_steps: next_steps(job),
    };
    job.run.write(&job.run.report(), report.render().as_bytes())?;
    Ok(())
}

fn map_name(slice: &LoadedSlice) -> String {
    format!("domains-{}.svg", slice.name)
}

fn summary(job: &Job<'_>, results: &Results) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let [slice] = job.slices.as_slice() {
        facts.push(Fact::new("spots", slice.n_spots()));
        facts.push(Fact::new("genes", slice.genes.len()));
        facts.push(Fact::new("neighbours a spot", format!("{:.2}", slice.mean_neighbors)));
    } else {
        facts.push(Fact::new("slices", job.slices.len()));
    }
    let seconds: f64 = results.units.iter().map(|unit| unit.seconds).sum();
    facts.push(Fact::new("training", format!("{seconds:.0} s")));
    facts.push(Fact::new("device", job.device));
    facts
}

fn warnings(job: &Job<'_>) -> Vec<String> {
    let of_slice = |slice: &LoadedSlice| {
        let unlabelled = slice.labels.as_ref().map_or(0, |labels| slice.n_spots() - labels.n_labelled());
        let mut warnings: Vec<String> =
            slice.warnings.iter().map(|warning| format!("{}: {warning}.", slice.name)).collect();
        if unlabelled > 0 {
            warnings.push(format!(
                "{}: {unlabelled} spots have no label and are left out of the scores.",
                slice.name
            ));
        }
        warnings
    };
    job.slices.iter().flat_map(of_slice).collect()
}

fn configuration(job: &Job<'_>) -> Vec<ConfigurationSection> {
    let neighborhood = match job.options.neighborhood() {
        Neighborhood::Radius(radius) => format!("all spots within {radius}"),
        Neighborhood::Nearest(k) => format!("the {k} nearest"),
    };
    let domains = match (job.options.leiden, job.options.domains) {
        (Some(resolution), _) => format!("Leiden at resolution {resolution}"),
        (None, Some(n)) => format!("mixture of {n} with one covariance (mclust's EEE)"),
        (None, None) => "mixture of as many as there are labels (mclust's EEE)".to_owned(),
    };
    let text = toml::to_string(job.options).unwrap_or_default();
    let settings = text.lines().filter_map(|line| line.split_once(" = "));
    vec![
        ConfigurationSection {
            name: "Domains".into(),
            fields: vec![
                Fact::new("Neighbours", neighborhood),
                Fact::new(
                    "Across sections",
                    job.options
                        .between_radius
                        .map_or("none".to_owned(), |radius| format!("all spots within {radius}")),
                ),
                Fact::new(
                    "Embedding averaged over neighbours",
                    match job.options.smooth() {
                        0 => "not".to_owned(),
                        1 => "once".to_owned(),
                        n => format!("{n} times"),
                    },
                ),
                Fact::new("Domains", domains),
                Fact::new(
                    "Refined by",
                    job.options.refine.map_or("nothing".to_owned(), |n| format!("the {n} nearest spots")),
                ),
            ],
        },
        ConfigurationSection {
            name: "As given".into(),
            fields: settings.map(|(name, value)| Fact::new(name, value)).collect(),
        },
    ]
}

fn files(job: &Job<'_>) -> Vec<RunFile> {
    let file = |path: String, content: &str| RunFile { path, content: content.into() };
    let mut files: Vec<RunFile> = job
        .slices
        .iter()
        .flat_map(|slice| {
            [
                file(table_name(slice), "the domain of every spot"),
                file(map_name(slice), "the map on this page"),
            ]
        })
        .collect();
    files.extend([
        file(
            "model.safetensors, model.json".into(),
            "weights, and what they are; of several trainings in a folder each",
        ),
        file("metrics.jsonl".into(), "one object a step and epoch"),
        file("config.toml".into(), "every setting, for --config"),
        file("summary.json".into(), "the numbers on this page"),
    ]);
    files
}

fn next_steps(job: &Job<'_>) -> Vec<NextStep> {
    let run = job.run.path().display();
    let step = |purpose: &str, command: String| NextStep { purpose: purpose.into(), command };
    vec![
        step("Train for more epochs", format!("cellpatch spatial --resume --run-dir {run} --epochs N")),
        step(
            "See how much depends on the seed",
            format!("cellpatch spatial --config {run}/config.toml --repeats 5"),
        ),
    ]
}

fn pictures(job: &Job<'_>, slice: &LoadedSlice, units: &[&Unit]) -> Result<SlicePictures, Failure> {
    let label_order = slice.labels.as_ref().map(|labels| labels.categories.clone()).unwrap_or_default();
    let label_name = job.options.label.clone().unwrap_or_default();
    let truth = slice.label_names();
    let mut panels = Vec::new();
    if let Some(truth) = &truth {
        panels.push(panel(slice, &label_name, &label_name, &label_order, truth));
    }
    let mut umaps = Vec::new();
    let mut loss = Vec::new();
    for unit in units {
        let method = unit.method.name();
        let order = in_order_of_labels(slice, unit.domains.last());
        panels.push(panel(slice, method, "domain", &order, &names(&unit.domains.of_embedding)));
        if let Some(refined) = &unit.domains.refined {
            panels.push(panel(slice, &format!("{method}, refined"), "domain", &order, &names(refined)));
        }
        if job.options.umap.unwrap_or(true) {
            umaps.extend(umap(slice, unit, &order, truth.as_deref(), &label_name, &label_order)?);
        }
        loss.push((method.to_owned(), curve(&unit.run)?));
    }
    let title = match &slice.sections {
        None => format!("Domains of {}", slice.name),
        Some(sections) => format!("Domains of {}: {}", slice.name, sections.names.join(", ")),
    };
    let map = SpatialMap { title, point_name: "spots".into(), panels };
    Ok(SlicePictures { name: slice.name.clone(), map, umaps, loss })
}

/// Places in a picture: sections side by side in rows, in the order of their names.
fn laid_out(slice: &LoadedSlice) -> Vec<[f64; 2]> {
    let mut places = slice.positions.clone();
    let sections = slice.spots_by_section();
    let n_columns = (sections.len() as f64).sqrt().ceil() as usize;
    let pitch = [0, 1].map(|axis| {
        let values = || slice.positions.iter().map(|position| position[axis]);
        SECTION_PITCH * (values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min))
    });
    for (at, spots) in sections.iter().enumerate() {
        for &spot in spots {
            places[spot][0] += (at % n_columns) as f64 * pitch[0];
            places[spot][1] += (at / n_columns) as f64 * pitch[1];
        }
    }
    places
}

fn panel(
    slice: &LoadedSlice,
    name: &str,
    label_name: &str,
    order: &[String],
    labels: &[Option<String>],
) -> SpatialPanel {
    let point =
        |([x, y], label): (&[f64; 2], &Option<String>)| ScatterPoint { x: *x, y: *y, label: label.clone() };
    SpatialPanel {
        name: name.into(),
        spots: SpatialSpots::Labelled {
            label_name: label_name.into(),
            label_order: order.to_vec(),
            spots: laid_out(slice).iter().zip(labels).map(point).collect(),
        },
    }
}

/// Domains so that each comes at the place of the label it shares most spots with, which gives both one colour.
fn in_order_of_labels(slice: &LoadedSlice, domains: &[usize]) -> Vec<String> {
    let n_domains = domains.iter().max().map_or(0, |most| most + 1);
    let mut left: Vec<usize> = (0..n_domains).collect();
    let mut order = Vec::new();
    let labels = slice.label_codes().unwrap_or_default();
    for label in 0..slice.labels.as_ref().map_or(0, |labels| labels.categories.len()) {
        let shared = |domain: usize| {
            domains.iter().zip(&labels).filter(|(found, of)| **found == domain && **of == Some(label)).count()
        };
        let Some(best) = (0..left.len()).max_by_key(|&at| (shared(left[at]), usize::MAX - at)) else { break };
        order.push(left.remove(best));
    }
    order.extend(left);
    order.into_iter().map(|domain| (domain + 1).to_string()).collect()
}

/// The embedding in the plane, by domain and by label.
fn umap(
    slice: &LoadedSlice,
    unit: &Unit,
    domain_order: &[String],
    truth: Option<&[Option<String>]>,
    label_name: &str,
    label_order: &[String],
) -> Result<Vec<Scatter>, Failure> {
    let width = unit.embedding.len() / slice.n_spots().max(1);
    let cells = Cells::new(&unit.embedding, slice.n_spots(), width)?;
    let map = Umap::fit(cells, &UmapOptions::default())?;
    let method = unit.method.name();
    let scatter = |what: &str, name: &str, order: &[String], labels: &[Option<String>]| Scatter {
        title: format!("Embedding of {method} by {what}"),
        x_name: "UMAP 1".into(),
        y_name: "UMAP 2".into(),
        label_name: name.into(),
        point_name: "spots".into(),
        label_order: order.to_vec(),
        hide_names: false,
        points: map
            .coordinates()
            .iter()
            .zip(labels)
            .map(|([x, y], label)| ScatterPoint { x: f64::from(*x), y: f64::from(*y), label: label.clone() })
            .collect(),
    };
    let mut scatters = vec![scatter("domain", "domain", domain_order, &names(unit.domains.last()))];
    scatters.extend(truth.map(|truth| scatter("label", label_name, label_order, truth)));
    Ok(scatters)
}

fn curve(run: &RunDirectory) -> Result<Vec<CurvePoint>, Failure> {
    let records = read_metrics(&run.metrics())?;
    let point = |record| match record {
        MetricRecord::Step(step) => Some(CurvePoint { step: step.step, loss: step.loss }),
        MetricRecord::Epoch(_) => None,
    };
    Ok(records.into_iter().filter_map(point).collect())
}
