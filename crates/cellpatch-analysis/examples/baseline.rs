//! Fits the baselines to cells from plain files, to hold them against other programs':
//! `cargo run --release -p cellpatch-analysis --example baseline -- train.svm validation.svm l1 0.01,0.1,1`
//!
//! The files are in the svmlight format, features counted from 0, one cell a line: `class feature:value feature:value`.
//! Class and feature numbers mean the same in both.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::Instant;

use cellpatch_analysis::baseline::{LogisticOptions, LogisticRegression, Penalty, Selection, nearest_vote};
use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_analysis::{Cells, Metric, Neighbors, SparseCells, SparsePca};

/// As many components and neighbours as are usually taken.
const N_COMPONENTS: usize = 50;
const N_NEIGHBORS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [training, validation, penalty, grid, tolerance @ ..] = arguments.as_slice() else {
        return Err("usage: baseline TRAINING.svm VALIDATION.svm l1|l2 C[,C...] [TOLERANCE]".into());
    };
    let penalty = if penalty == "l2" { Penalty::L2 } else { Penalty::L1 };
    let grid = grid.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let mut options = LogisticOptions { penalty, ..LogisticOptions::default() };
    if let [tolerance] = tolerance {
        options.tolerance = tolerance.parse()?;
    }
    let (training, validation) = (Rows::read(training)?, Rows::read(validation)?);
    let n_features = training.n_features.max(validation.n_features);
    let n_classes = training.labels.iter().chain(&validation.labels).max().map_or(0, |last| last + 1);
    let (cells, new_cells) = (training.cells(n_features)?, validation.cells(n_features)?);

    for &c in &grid {
        let start = Instant::now();
        let options = LogisticOptions { c, ..options };
        let model = LogisticRegression::fit(cells, &training.labels, n_classes, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let scores = scores(n_classes, &validation.labels, &model.predict(new_cells)?)?;
        println!(
            "C {c}: objective {:.6}, {scores}, {} features, {} steps, converged {}, {seconds:.1} s",
            model.objective(),
            model.n_used_features(),
            model.n_iterations(),
            model.has_converged()
        );
    }
    let start = Instant::now();
    let (known, new) = ((cells, &*training.labels), (new_cells, &*validation.labels));
    let selection = Selection::by_validation(known, new, n_classes, &grid, &options)?;
    println!("selected C {}, {:.1} s for the grid", selection.c, start.elapsed().as_secs_f64());

    let start = Instant::now();
    let pca = SparsePca::fit(cells, N_COMPONENTS, 0)?;
    let (known, new) = (pca.project(cells)?, pca.project(new_cells)?);
    let near = Neighbors::between(
        Cells::new(&new, validation.labels.len(), N_COMPONENTS)?,
        Cells::new(&known, training.labels.len(), N_COMPONENTS)?,
        N_NEIGHBORS,
        Metric::Euclidean,
    )?;
    let votes = nearest_vote(&near, &training.labels, n_classes)?;
    let predicted: Vec<usize> = votes.iter().map(|vote| vote.class).collect();
    let scores = scores(n_classes, &validation.labels, &predicted)?;
    println!("nearest neighbours: {scores}, {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn scores(n_classes: usize, truth: &[usize], predicted: &[usize]) -> Result<String, Box<dyn Error>> {
    let names: Vec<String> = (0..n_classes).map(|class| class.to_string()).collect();
    let matrix = ConfusionMatrix::new(&names, truth, predicted)?;
    Ok(format!("accuracy {:.4}, macro-F1 {:.4}", matrix.accuracy(), matrix.macro_f1()))
}

/// Labelled sparse cells.
struct Rows {
    row_pointers: Vec<usize>,
    features: Vec<u32>,
    values: Vec<f32>,
    labels: Vec<usize>,
    n_features: usize,
}

impl Rows {
    fn read(path: &str) -> Result<Self, Box<dyn Error>> {
        let mut rows = Self {
            row_pointers: vec![0],
            features: Vec::new(),
            values: Vec::new(),
            labels: Vec::new(),
            n_features: 0,
        };
        for line in std::fs::read_to_string(path)?.lines() {
            let mut fields = line.split_whitespace();
            rows.labels.push(fields.next().ok_or("an empty line")?.parse()?);
            for field in fields {
                let (feature, value) = field.split_once(':').ok_or("a field without a colon")?;
                let feature: u32 = feature.parse()?;
                rows.features.push(feature);
                rows.values.push(value.parse()?);
                rows.n_features = rows.n_features.max(feature as usize + 1);
            }
            rows.row_pointers.push(rows.values.len());
        }
        Ok(rows)
    }

    fn cells(&self, n_features: usize) -> cellpatch_analysis::Result<SparseCells<'_>> {
        SparseCells::new(&self.row_pointers, &self.features, &self.values, n_features)
    }
}
