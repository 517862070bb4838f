//! Figures and reports on what CellPatch learned.
//!
//! A training run ends with numbers in files. This crate turns them into something a person can judge at a
//! glance: did the model learn more than the mean of each gene, do cells of one type lie together, was the data
//! what it was thought to be? It takes plain numbers and gives back strings; it knows nothing of the deep-learning
//! framework, of single-cell files, or of the terminal, so it can be used on the output of any model.
//!
//! # Principal components
//!
//! [`Pca`] looks at embeddings in two dimensions without a method of its own to tune: it is exact, has no random
//! start, runs on one thread and settles the sign that the mathematics leaves open. Two runs on one machine draw
//! the same picture, so a difference between two pictures is a difference between two models.
//!
//! # Figures
//!
//! [`LineChart`], [`Scatter`] and [`Histogram`] each hold their data and turn into an SVG document by `to_svg`.
//! They cannot fail. Inputs are typed so that they cannot disagree (a point carries its own label), values that
//! cannot be drawn are left out, and a figure without any says so. They stay legible with the data people have:
//! forty cell types get ten colours in four shapes, since nobody tells forty colours apart; long names move the
//! legend below the picture; 200,000 training steps become the lowest and the highest of each column of pixels.
//! Colours are chosen to be told apart by all kinds of colour vision and seen in light and dark mode.
//!
//! # The report
//!
//! [`PretrainingReport`] is one HTML file that can be mailed, printed and opened in ten years: no network, no
//! script, nothing beside it. Cell types and file names come from strangers' files, so every text is escaped, and
//! the page carries a content security policy under which a script would not run even if one got in. It is written
//! through a sibling that is renamed, so a reader never sees half a page.
//!
//! # Example
//!
//! Two kinds of cells in four features, seen along the direction that tells them apart:
//!
//! ```
//! use cellpatch_analysis::{CellMap, CurvePoint, Pca, PretrainingReport, Validation};
//!
//! # fn main() -> cellpatch_analysis::Result<()> {
//! let embeddings: [f32; 16] = [
//!     5.0, 0.1, 0.0, 1.0, // a B cell
//!     4.8, 0.0, 0.2, 1.0, // a B cell
//!     0.1, 3.0, 0.1, 1.0, // a T cell
//!     0.0, 3.2, 0.0, 1.0, // a T cell
//! ];
//! let pca = Pca::fit(&embeddings, 4, 4, 2)?;
//! assert!(pca.explained_variance_ratio()[0] > 0.99);
//!
//! let labels = ["B cell", "B cell", "T cell", "T cell"].map(|label| Some(label.to_owned()));
//! let report = PretrainingReport {
//!     title: "A very small run".into(),
//!     training_loss: vec![CurvePoint { step: 1, loss: 1.2 }, CurvePoint { step: 2, loss: 0.7 }],
//!     validation: Some(Validation { n_cells: 4, loss: 0.6, gene_mean_loss: 0.8 }),
//!     cell_map: Some(CellMap::from_pca(&pca, "cell_type", &labels)),
//!     ..PretrainingReport::default()
//! };
//! assert!(report.render().contains("R² = 0.250"));
//! # Ok(())
//! # }
//! ```

pub mod baseline;
mod cells;
mod eigen;
mod error;
mod figure;
mod markup;
pub mod metrics;
mod neighbors;
mod noise;
mod number;
mod parallel;
mod pca;
mod report;
mod sparse;
mod sparse_pca;
mod umap;

pub use cells::Cells;
pub use error::{Error, Result};
pub use figure::{
    Heatmap, HeatmapCell, HeatmapRow, Histogram, LineChart, Reference, ReliabilityDiagram, ReliabilityPanel,
    Scale, Scatter, ScatterPoint, Series, SeriesStyle, smoothed,
};
pub use neighbors::{Metric, Neighbors};
pub use pca::Pca;
pub use report::{
    AnnotationMap, AnnotationReport, AttendedGenes, CalibrationFacts, CellMap, ClassCells,
    ConfigurationSection, CurvePoint, DataFacts, DropOut, Fact, GeneScore, MappedCell, NextStep,
    PretrainingReport, RunFile, ScoredMethod, Source, SplitPart, TrainingCurves, Validation, Warning,
};
pub use sparse::SparseCells;
pub use sparse_pca::SparsePca;
pub use umap::{Start, Umap, UmapOptions};
