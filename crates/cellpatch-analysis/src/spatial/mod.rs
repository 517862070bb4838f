//! Domains of tissue: smoothed over neighbouring spots, and how well they hang together in space.

mod continuity;
mod refine;
#[cfg(test)]
mod tests;

pub use continuity::{chaos, percentage_of_abnormal_spots};
pub use refine::refined_domains;
