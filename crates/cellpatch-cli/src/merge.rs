//! `cellpatch merge`.

use std::path::PathBuf;

use cellpatch_data::{MergeOptions, merge_shards};
use clap::Args;

use crate::failure::Failure;
use crate::inputs;
use crate::memory_size::MemorySize;
use crate::shard::report;
use crate::terminal::Terminal;

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The folders that `shard --part 1/N` to `--part N/N` made, in any order
    #[arg(required = true, value_name = "PART")]
    pub parts: Vec<PathBuf>,
    /// The folder for the shard set
    #[arg(long, short, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Take a random sample of this many cells [default: all]
    #[arg(long, value_name = "N")]
    pub max_cells: Option<usize>,
    /// Divide the sample of --max-cells by the labels of this obs column, each in its proportion and at least one cell
    #[arg(long, value_name = "COLUMN", requires = "max_cells")]
    pub stratify: Option<String>,
    /// Memory for cells, such as 512M or 2G [default: 256M]
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<MemorySize>,
}

/// Joins parts into `--out`.
pub(crate) fn run(terminal: &Terminal, arguments: &MergeArguments) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let default = MergeOptions::default();
    let options = MergeOptions {
        max_memory: arguments.max_memory.map_or(default.max_memory, |size| size.bytes),
        max_cells: arguments.max_cells,
        stratify: arguments.stratify.clone(),
    };
    let shards =
        merge_shards(&arguments.parts, &arguments.out, &options, &mut inputs::progress_bars(terminal))?;
    report(terminal, "merge", &shards, started.elapsed());
    Ok(())
}
