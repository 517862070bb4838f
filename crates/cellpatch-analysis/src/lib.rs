//! Measures, maps, baselines, figures and reports on what CellPatch learned.
//!
//! A training run ends with numbers in files. This crate turns them into something a person can judge at a
//! glance: did the model learn more than the mean of each gene, do cells of one type lie together, are cells labelled
//! better than a linear model would label them? It takes plain numbers and gives back numbers and strings; it knows
//! nothing of the deep-learning framework, of single-cell files, or of the terminal, so it can be used on the output
//! of any model.
//!
//! Whatever is computed on several threads is the same on any number of them: two runs on one machine give the same
//! numbers and draw the same picture, so a difference between two pictures is a difference between two models.
//!
//! # How well cells are labelled
//!
//! [`metrics`] has the scores a paper reports, as scikit-learn defines them ([`metrics::ConfusionMatrix`], adjusted Rand
//! index, normalised mutual information), whether a confidence keeps what it promises ([`metrics::Calibration`]), the one
//! number that makes it do so ([`metrics::Temperature`]), when to say "unknown" ([`metrics::UnknownThreshold`]), and what
//! several repeats say together ([`metrics::MeanInterval`]).
//!
//! [`baseline`] labels cells without a deep network, by a penalised linear model or by the nearest labelled cells. A
//! score means little without what these reach on the same cells.
//!
//! # Maps of cells
//!
//! [`Pca`] looks at embeddings in two dimensions without a method of its own to tune: it is exact and has no random
//! start, and it settles the sign that the mathematics leaves open. [`SparsePca`] does the same for cells as they are
//! stored, rows of the few genes they express. [`Umap`] keeps each cell's neighbours beside it instead, on top of
//! [`Neighbors`], which are exact: with tens of thousands of cells an approximate index saves little and costs a
//! reason to trust the result. Its random choices come from a seed.
//!
//! # Groups of cells and domains of tissue
//!
//! [`GaussianMixture`] is mclust's mixture of one covariance for all components, which domains are commonly taken by: it
//! starts from a model-based agglomeration of the cells, so that nothing is left to chance, and gives mclust's likelihoods
//! to ten digits. [`Leiden`] groups cells of a [`NeighborGraph`] where their number is not known. [`spatial`] smooths
//! domains over neighbouring spots and says how continuous they are; [`metrics::LabelAgreement`] holds them against labels
//! that some spots lack, and [`metrics::PairedComparison`] one method against another on the same slices.
//!
//! # Figures
//!
//! [`LineChart`], [`Scatter`], [`SpatialMap`], [`Histogram`], [`Heatmap`] and [`ReliabilityDiagram`] each hold their data
//! and turn into an SVG document by `to_svg`. They cannot fail. Inputs are typed so that they cannot disagree (a point carries its own label), values that
//! cannot be drawn are left out, and a figure without any says so. They stay legible with the data people have:
//! forty cell types get ten colours in four shapes, since nobody tells forty colours apart; long names move the
//! legend below the picture; 200,000 training steps become the lowest and the highest of each column of pixels.
//! Colours are chosen to be told apart by all kinds of colour vision and seen in light and dark mode.
//!
//! # The reports
//!
//! [`PretrainingReport`], [`AnnotationReport`] and [`SpatialReport`] are each one HTML file that can be mailed, printed and opened in ten
//! years: no network, no script, nothing beside it. Cell types and file names come from strangers' files, so every text
//! is escaped, and the page carries a content security policy under which a script would not run even if one got in. It
//! is written through a sibling that is renamed, so a reader never sees half a page. Parts without data are left out.
//!
//! # Examples
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
//!
//! Cells labelled by their two genes, and how well:
//!
//! ```
//! use cellpatch_analysis::baseline::{LogisticOptions, LogisticRegression};
//! use cellpatch_analysis::metrics::ConfusionMatrix;
//! use cellpatch_analysis::{AnnotationReport, SparseCells};
//!
//! # fn main() -> cellpatch_analysis::Result<()> {
//! // The first three cells express gene 0, the others gene 1.
//! let (row_pointers, genes) = ([0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]);
//! let cells = SparseCells::new(&row_pointers, &genes, &[1.2, 0.9, 1.1, 2.0, 1.7, 1.5], 2)?;
//! let labels = [0, 0, 0, 1, 1, 1];
//! let model = LogisticRegression::fit(cells, &labels, 2, &LogisticOptions::default())?;
//!
//! let class_names = ["B cell", "T cell"].map(str::to_owned);
//! let confusion = ConfusionMatrix::new(&class_names, &labels, &model.predict(cells)?)?;
//! assert_eq!(confusion.macro_f1(), 1.0);
//! let report = AnnotationReport { confusion: Some(confusion), ..AnnotationReport::default() };
//! assert!(report.render().contains("labels 100.0\u{a0}% of the test cells"));
//! # Ok(())
//! # }
//! ```

pub mod baseline;
mod cells;
mod consensus;
mod distance;
mod eigen;
mod error;
mod figure;
mod graph;
mod leiden;
mod markup;
pub mod metrics;
mod mixture;
mod neighbors;
mod noise;
mod number;
mod parallel;
mod pca;
mod report;
mod sparse;
mod sparse_pca;
pub mod spatial;
mod sums;
mod umap;

pub use cells::Cells;
pub use consensus::Consensus;
pub use error::{Error, Result};
pub use figure::{
    Heatmap, HeatmapCell, HeatmapRow, Histogram, LineChart, Reference, ReliabilityDiagram, ReliabilityPanel,
    Scale, Scatter, ScatterPoint, Series, SeriesStyle, SpatialMap, SpatialPanel, SpatialSpots, ValuedSpot,
    smoothed,
};
pub use graph::NeighborGraph;
pub use leiden::{Leiden, LeidenOptions, Quality};
pub use mixture::{GaussianMixture, MixtureChoice, MixtureOptions, MixtureStart, ScoredComponents};
pub use neighbors::{KdTree, Metric, NearPlace, Neighbors};
pub use pca::Pca;
pub use report::{
    AnnotationMap, AnnotationReport, AttendedGenes, CalibrationFacts, CellMap, ClassCells,
    ConfigurationSection, CurvePoint, DataFacts, DropOut, Fact, GeneScore, MappedCell, MethodComparison,
    NextStep, PretrainingReport, RunFile, ScoredMethod, SlicePictures, Source, SpatialReport, SpatialScores,
    SplitPart, TrainingCurves, Validation, Warning,
};
pub use sparse::SparseCells;
pub use sparse_pca::SparsePca;
pub use umap::{Start, Umap, UmapOptions};
