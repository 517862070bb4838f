//! Benchmarks: `cargo xtask bench`. Each prints a table with ratios against something measured in the same run.
