//! The report of an annotation: how well cells were labelled, and what to make of it.

use std::path::Path;

use super::{ConfigurationSection, CurvePoint, Fact, NextStep, RunFile, annotation_sections, page};
use crate::error::Result;
use crate::figure::Heatmap;
use crate::metrics::{Calibration, ConfusionMatrix, MeanInterval, Temperature, UnknownThreshold};

/// Everything the report of an annotation shows, as plain data.
///
/// Parts that are empty are left out of the page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnnotationReport {
    /// The page's heading.
    pub title: String,
    /// The command that started the run, as it would be typed.
    pub command_line: String,
    /// What a reader wants to know besides the scores: device, time, ...
    pub summary: Vec<Fact>,
    /// What to beware of; shown at the top.
    pub warnings: Vec<Warning>,
    /// The model's scores; read off the confusion matrix where they are not given.
    pub model: Option<ScoredMethod>,
    /// What simpler methods reach on the same cells.
    pub baselines: Vec<ScoredMethod>,
    /// The test cells by true and predicted class.
    pub confusion: Option<ConfusionMatrix>,
    /// The test cells in the plane.
    pub cell_map: Option<AnnotationMap>,
    /// How far the confidences can be trusted.
    pub calibration: Option<CalibrationFacts>,
    /// The genes each class was recognised by.
    pub attended_genes: Vec<AttendedGenes>,
    /// Scores of genes by class, as a figure.
    pub attention: Option<Heatmap>,
    /// How training went.
    pub training: TrainingCurves,
    /// How the cells were divided: in words, "by donor, 20 % to test on".
    pub split: String,
    /// The parts they were divided into.
    pub split_parts: Vec<SplitPart>,
    /// Cells of each class in each part.
    pub class_cells: Vec<ClassCells>,
    /// The resolved configuration, section by section.
    pub configuration: Vec<ConfigurationSection>,
    /// What the run wrote.
    pub files: Vec<RunFile>,
    /// What can be done with it now.
    pub next_steps: Vec<NextStep>,
}

/// How well a method labels the test cells.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredMethod {
    /// Its name: "L1 logistic regression".
    pub name: String,
    /// Share of the cells labelled correctly.
    pub accuracy: MeanInterval,
    /// Mean F1 over classes.
    pub macro_f1: MeanInterval,
    /// How it was fitted: "C = 1, chosen on the validation cells".
    pub note: String,
}

/// What a reader must know before believing a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Classes with few cells to learn from: their scores say little.
    RareClasses {
        /// Their names.
        names: Vec<String>,
        /// Fewer training cells than this count as few.
        fewest: u64,
    },
    /// Classes of test cells that no training cell has: none of their cells can be labelled correctly.
    UnseenClasses {
        /// Their names.
        names: Vec<String>,
        /// Test cells of these classes.
        n_cells: u64,
    },
    /// Cells without a label, which were left out.
    MissingLabels {
        /// How many there are.
        n_cells: u64,
    },
    /// Anything else, as a sentence.
    Other(String),
}

/// The test cells in the plane.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnnotationMap {
    /// What was mapped and how, in a sentence for the captions.
    pub caption: String,
    /// Name of the first coordinate: "UMAP 1".
    pub x_name: String,
    /// Name of the second coordinate.
    pub y_name: String,
    /// The cells.
    pub cells: Vec<MappedCell>,
}

/// A cell on the map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MappedCell {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate.
    pub y: f64,
    /// What the cell is, where that is known.
    pub truth: Option<String>,
    /// What it was labelled.
    pub predicted: Option<String>,
}

/// How far confidences can be trusted, all measured on test cells but the two settings chosen on validation cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CalibrationFacts {
    /// The model as trained.
    pub before: Calibration,
    /// With its logits divided by the temperature.
    pub after: Option<Calibration>,
    /// The temperature.
    pub temperature: Option<Temperature>,
    /// Below which confidence a cell is called unknown.
    pub threshold: Option<UnknownThreshold>,
}

/// The genes a class was recognised by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttendedGenes {
    /// The class.
    pub class: String,
    /// Its genes, the most attended first.
    pub genes: Vec<GeneScore>,
}

/// How much a gene was attended to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GeneScore {
    /// The gene's name.
    pub gene: String,
    /// Its score.
    pub score: f64,
}

/// How training went, each curve in ascending order of the step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingCurves {
    /// Training loss of steps.
    pub training_loss: Vec<CurvePoint>,
    /// Validation loss, usually one point an epoch.
    pub validation_loss: Vec<CurvePoint>,
    /// `(step, macro-F1)` on the validation cells.
    pub validation_macro_f1: Vec<(u64, f64)>,
    /// The step whose weights were kept.
    pub best_step: Option<u64>,
}

/// A part the cells were divided into.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitPart {
    /// What it is for: "training", "validation", "test".
    pub name: String,
    /// Its cells.
    pub n_cells: u64,
    /// Classes they belong to.
    pub n_classes: u64,
    /// Where they come from: "donors 1, 2 and 5"; may be empty.
    pub source: String,
}

/// Cells of one class in each part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassCells {
    /// The class.
    pub class: String,
    /// Cells to train on.
    pub n_training: u64,
    /// Cells to choose settings on.
    pub n_validation: u64,
    /// Cells to test on.
    pub n_test: u64,
}

impl AnnotationReport {
    /// The report as an HTML document that loads nothing and runs no script.
    ///
    /// It follows the reader's light or dark mode, prints, and escapes all text it was given.
    pub fn render(&self) -> String {
        page::document(&self.title, &annotation_sections::all(self))
    }

    /// Writes the report to a file, through a sibling that is renamed, so that a reader never sees half a page.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) with the path where the file cannot be written or renamed.
    pub fn write(&self, path: &Path) -> Result<()> {
        page::write(&self.render(), path)
    }

    /// The model's scores, those of the confusion matrix where there are no others.
    pub fn model_scores(&self) -> Option<ScoredMethod> {
        let from_matrix = |matrix: &ConfusionMatrix| ScoredMethod {
            name: "this model".into(),
            accuracy: MeanInterval::single(matrix.accuracy()),
            macro_f1: MeanInterval::single(matrix.macro_f1()),
            note: String::new(),
        };
        self.model.clone().or_else(|| self.confusion.as_ref().map(from_matrix))
    }
}
