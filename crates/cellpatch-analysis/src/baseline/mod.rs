//! What labels without a deep network: the numbers a model has to beat.

mod descent;
mod logistic;
mod nearest;
mod objective;
mod selection;
#[cfg(test)]
mod tests;
mod working_set;

pub use logistic::{LogisticOptions, LogisticRegression, Penalty};
pub use nearest::{Vote, nearest_vote};
pub use selection::{C_GRID, Selection, TriedC};
