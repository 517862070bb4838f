//! How well predicted labels agree with the true ones, and how far a model's confidence can be trusted.
//!
//! Every number is that of scikit-learn or scipy where they have it; the tests hold them against their output.

mod calibration;
mod confusion;
mod interval;
mod paired;
#[cfg(test)]
mod paired_tests;
mod partition;
mod rejection;
mod temperature;
#[cfg(test)]
mod tests;

pub use calibration::{Calibration, ReliabilityBin};
pub use confusion::{ClassScores, ConfusionMatrix};
pub use interval::MeanInterval;
pub use paired::{PairedComparison, PairedTTest, SignedRankTest};
pub use partition::{LabelAgreement, adjusted_rand_index, normalized_mutual_information};
pub use rejection::{KEPT_SHARE, UnknownThreshold};
pub use temperature::Temperature;
