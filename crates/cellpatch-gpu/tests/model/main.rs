//! The model's kernels on a real device against `cellpatch-kernels` on the CPU, or against the formula in double precision.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod adam;
mod attention;
mod block;
mod device;
mod genes;
mod output;
