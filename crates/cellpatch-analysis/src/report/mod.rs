//! The reports of runs: HTML files that need nothing but a browser.

mod annotation;
mod annotation_sections;
#[cfg(test)]
mod annotation_tests;
mod page;
mod parts;
mod sections;
mod spatial;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::error::Result;
use crate::figure::ScatterPoint;

pub use annotation::{
    AnnotationMap, AnnotationReport, AttendedGenes, CalibrationFacts, ClassCells, GeneScore, MappedCell,
    ScoredMethod, SplitPart, TrainingCurves, Warning,
};
pub use spatial::{MethodComparison, SlicePictures, SpatialReport, SpatialScores};

/// Everything the report of a pretraining run shows, as plain data.
///
/// Parts that are empty are left out of the page, so a run that was stopped early still gets a report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PretrainingReport {
    /// The page's heading.
    pub title: String,
    /// The command that started the run, as it would be typed.
    pub command_line: String,
    /// What a reader wants to know first, in that order: device, time, cells per second, ...
    pub summary: Vec<Fact>,
    /// The cells and genes it was trained on.
    pub data: DataFacts,
    /// The resolved configuration, section by section.
    pub configuration: Vec<ConfigurationSection>,
    /// Training loss of steps in ascending order.
    pub training_loss: Vec<CurvePoint>,
    /// Validation loss, usually one point an epoch, in ascending order.
    pub validation_loss: Vec<CurvePoint>,
    /// How well the final model predicts, where there were cells to validate on.
    pub validation: Option<Validation>,
    /// The cells' embeddings in the plane.
    pub cell_map: Option<CellMap>,
    /// What the run wrote.
    pub files: Vec<RunFile>,
    /// What can be done with it now.
    pub next_steps: Vec<NextStep>,
}

/// A name and its value, both ready to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value, with the unit.
    pub value: String,
}

impl Fact {
    /// A fact from anything that can be written out.
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// One table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigurationSection {
    /// Name of the section: "model", "optimizer", ...
    pub name: String,
    /// Its fields.
    pub fields: Vec<Fact>,
}

/// The loss at a moment of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Optimizer steps taken, counted from 1.
    pub step: u64,
    /// The loss in the unit of its report: the squared error of log1p-normalised expression of a pretraining, the
    /// cross-entropy in nats of an annotation. A value that is not finite leaves a gap.
    pub loss: f64,
}

/// The final model against the simplest one that can be called a prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Cells the loss is the mean over, none of them trained on.
    pub n_cells: u64,
    /// The model's mean squared error on the masked genes of these cells.
    pub loss: f64,
    /// The mean squared error of predicting each gene's mean over the training cells.
    pub gene_mean_loss: f64,
}

impl Validation {
    /// `1 - loss / gene_mean_loss`: 1 for a perfect model, 0 for one as good as the gene means, negative for a
    /// worse one. Nothing where a loss is not finite or the gene means are perfect.
    pub fn r2(&self) -> Option<f64> {
        let r2 = 1.0 - self.loss / self.gene_mean_loss;
        (r2.is_finite() && self.gene_mean_loss > 0.0).then_some(r2)
    }
}

/// The cells and genes of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataFacts {
    /// Cells trained on.
    pub n_cells_training: u64,
    /// Cells kept aside.
    pub n_cells_validation: u64,
    /// How the cells to validate on were chosen: "by donor", "at random", ...
    pub split: String,
    /// Genes measured in at least one source.
    pub n_genes: u64,
    /// Tokens in the vocabulary, padding not counted.
    pub vocabulary_size: u64,
    /// The files the cells came from.
    pub sources: Vec<Source>,
    /// What quality control took out over all sources.
    pub drop_outs: Vec<DropOut>,
    /// Genes with a count above zero in each cell, or in a sample of the cells.
    pub genes_per_cell: Vec<u32>,
}

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Its name, or its path where names repeat.
    pub name: String,
    /// Cells in the file.
    pub n_cells: u64,
    /// Cells left after quality control.
    pub n_cells_kept: u64,
    /// Genes in the file.
    pub n_genes: u64,
    /// Genes found in the vocabulary by Ensembl id or symbol.
    pub n_genes_matched: u64,
    /// Genes that got new tokens.
    pub n_genes_new: u64,
}

/// What one rule of quality control took out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropOut {
    /// The rule: "cells with fewer than 200 genes".
    pub rule: String,
    /// How many it took out.
    pub n_dropped: u64,
    /// Of how many.
    pub n_total: u64,
}

/// The cells' embeddings in the plane.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CellMap {
    /// What was embedded and how, in a sentence for the figure's caption.
    pub caption: String,
    /// Name of the first coordinate: "PC 1 (34 % of variance)".
    pub x_name: String,
    /// Name of the second coordinate.
    pub y_name: String,
    /// Name of the label column; empty where there is none.
    pub label_name: String,
    /// The cells.
    pub points: Vec<ScatterPoint>,
}

impl CellMap {
    /// A map of the first two principal components (the second is 0 throughout where only one was taken).
    ///
    /// `labels` go with the cells in their order; cells beyond its end have no label.
    pub fn from_pca(pca: &crate::Pca, label_name: impl Into<String>, labels: &[Option<String>]) -> Self {
        let name = |component: usize| {
            let share = pca.explained_variance_ratio().get(component).copied().unwrap_or(0.0);
            format!("PC {} ({} of variance)", component + 1, crate::number::percent(share))
        };
        let points =
            pca.scores().chunks_exact(pca.n_components()).enumerate().map(|(cell, scores)| ScatterPoint {
                x: f64::from(scores[0]),
                y: scores.get(1).copied().map_or(0.0, f64::from),
                label: labels.get(cell).cloned().flatten(),
            });
        Self {
            caption: "The first two principal components of the cells' patch features. The model never saw the labels: \
                      where cells of one label lie together, it found what they share by itself."
                .to_owned(),
            x_name: name(0),
            y_name: name(1),
            label_name: label_name.into(),
            points: points.collect(),
        }
    }
}

/// A file or folder of the run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFile {
    /// Path relative to the run's folder.
    pub path: String,
    /// What is in it.
    pub content: String,
}

/// Something to do with a finished run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NextStep {
    /// What for.
    pub purpose: String,
    /// The command, as it would be typed.
    pub command: String,
}

impl PretrainingReport {
    /// The report as an HTML document that loads nothing and runs no script.
    ///
    /// It follows the reader's light or dark mode, prints, and escapes all text it was given.
    pub fn render(&self) -> String {
        page::document(&self.title, &sections::all(self))
    }

    /// Writes the report to a file, through a sibling that is renamed, so that a reader never sees half a page.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) with the path where the file cannot be written or renamed.
    pub fn write(&self, path: &Path) -> Result<()> {
        page::write(&self.render(), path)
    }
}
