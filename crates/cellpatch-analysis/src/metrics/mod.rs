//! How well predicted labels agree with the true ones, and how far a model's confidence can be trusted.
//!
//! Every number is that of scikit-learn where scikit-learn has it; the tests hold them against its output.

mod calibration;
mod confusion;
mod interval;
mod partition;
mod rejection;
mod temperature;
#[cfg(test)]
mod tests;

pub use calibration::{Calibration, ReliabilityBin};
pub use confusion::{ClassScores, ConfusionMatrix};
pub use interval::MeanInterval;
pub use partition::{adjusted_rand_index, normalized_mutual_information};
pub use rejection::{KEPT_SHARE, UnknownThreshold};
pub use temperature::Temperature;
