//! Benchmarks, each printing a comparable table.
//!
//! `compare` runs every task against PyTorch, taking turns, and writes docs/benchmarks.md; `card` does so on a GPU; `account` says
//! where a training step's time goes against what the machine can do; `loading` sets the loader against the training it
//! feeds, `loader` against datasets in Python; `sharding` sets
//! `shard` against scanpy; `subject` is one task on request, which is what `compare` starts.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its table, and how it goes"
)]

mod account;
mod annotation;
mod arithmetic;
mod card;
mod cells;
mod compare;
mod device;
mod document;
mod loader;
mod loading;
mod process;
mod sharding;
mod slices;
mod subject;
mod training;

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What a benchmark fails with.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "Benchmarks of CellPatch, each printing a comparable table")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every task against PyTorch in the same run, taking turns; writes a document of the results.
    Compare(compare::Options),
    /// Pretraining and inference on a GPU against PyTorch on the same, and against the card's limits.
    Card(card::Options),
    /// The operations of a training step, part by part, against the machine's peaks.
    Account,
    /// Annotation of real cells beside logistic regression on the same splits.
    Annotation(Box<annotation::Options>),
    /// Loading against training on a device, and how long training waits.
    Loading(loading::Options),
    /// The loader against datasets in Python, cells a second.
    Loader(loader::Options),
    /// Loading, once for each line of standard input.
    #[command(hide = true)]
    LoaderSubject(loader::Subject),
    /// Sharding against scanpy's pipeline, and its memory.
    Sharding(sharding::Options),
    /// The losses of training steps by kernels and by plain operations.
    Curves(Steps),
    /// The losses of training steps.
    #[command(hide = true)]
    Losses(Steps),
    /// A file of synthetic cells.
    #[command(hide = true)]
    SyntheticCells(sharding::Cells),
    /// Sharding, once for each line of standard input.
    #[command(hide = true)]
    ShardSubject(sharding::Subject),
    /// One task, once for each line of standard input.
    #[command(hide = true)]
    Subject(subject::Options),
}

#[derive(Args)]
struct Steps {
    /// A shard set.
    #[arg(long)]
    shards: PathBuf,
    /// How many steps.
    #[arg(long, default_value_t = 200)]
    steps: usize,
}

fn main() -> Result<()> {
    cellpatch_kernels::allocator::keep_large_blocks();
    match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Card(options) => card::run(&options),
        Command::Account => {
            print!("{}", account::table()?);
            Ok(())
        }
        Command::Annotation(options) => annotation::run(&options),
        Command::Loading(options) => loading::run(&options),
        Command::Loader(options) => loader::run(&options),
        Command::LoaderSubject(options) => loader::load(&options),
        Command::Sharding(options) => sharding::run(&options),
        Command::SyntheticCells(options) => sharding::write_cells(&options),
        Command::ShardSubject(options) => sharding::shard(&options),
        Command::Curves(Steps { shards, steps }) => training::compare_losses(&shards, steps),
        Command::Losses(Steps { shards, steps }) => {
            println!("{}", serde_json::to_string(&training::losses(&shards, steps)?)?);
            Ok(())
        }
        Command::Subject(options) => subject::run(&options),
    }
}
