//! `cellpatch spatial`: domains of tissue.

mod domains;
mod job;
mod method;
mod options;
mod output;
mod report;
mod scores;
mod slice;

pub(crate) use job::run;
pub(crate) use options::SpatialOptions;
