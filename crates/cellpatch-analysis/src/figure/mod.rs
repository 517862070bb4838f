//! Figures as SVG documents.
//!
//! SVG is written directly rather than through a plotting library: a figure then follows the reader's light or
//! dark mode, uses the reader's fonts, carries tooltips without scripts, and is the same text on every machine.

mod axis;
mod category;
mod frame;
mod heatmap;
mod histogram;
mod line;
mod palette;
mod reliability;
mod scatter;
mod spatial_map;
mod svg;

pub use heatmap::{Heatmap, HeatmapCell, HeatmapRow};
pub use histogram::Histogram;
pub use line::{LineChart, Reference, Scale, Series, SeriesStyle, smoothed};
pub use reliability::{ReliabilityDiagram, ReliabilityPanel};
pub use scatter::{Scatter, ScatterPoint};
pub use spatial_map::{SpatialMap, SpatialPanel, SpatialSpots, ValuedSpot};
