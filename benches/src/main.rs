//! Benchmarks, each printing a comparable table.
//!
//! `compare` runs every task against PyTorch, taking turns, and writes docs/benchmarks.md; `card` does so on a GPU; `account` says
//! where a training step's time goes against what the machine can do; `loading` sets the loader against the training it
//! feeds, `loader` against datasets in Python; `sharding` sets
//! `shard` against scanpy; `subject` is one task on request, which is what `compare` starts.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![cfg_attr(feature = "models", expect(clippy::print_stderr, reason = "and how it goes"))]

#[cfg(feature = "models")]
mod account;
#[cfg(feature = "models")]
mod annotation;
#[cfg(feature = "models")]
mod arithmetic;
#[cfg(feature = "models")]
mod card;
#[cfg(feature = "models")]
mod cells;
#[cfg(feature = "models")]
mod compare;
#[cfg(feature = "models")]
mod device;
mod document;
mod loader;
mod loader_account;
#[cfg(feature = "models")]
mod loading;
mod process;
mod sharding;
#[cfg(feature = "models")]
mod slices;
#[cfg(feature = "models")]
mod subject;
#[cfg(feature = "models")]
mod training;
mod turns;

use std::error::Error;
#[cfg(feature = "models")]
use std::path::PathBuf;

use cellpatch_kernels::allocator;
#[cfg(feature = "models")]
use clap::Args;
use clap::{Parser, Subcommand};

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
    #[cfg(feature = "models")]
    Compare(compare::Options),
    /// Pretraining and inference on a GPU against PyTorch on the same, and against the card's limits.
    #[cfg(feature = "models")]
    Card(card::Options),
    /// The operations of a training step, part by part, against the machine's peaks.
    #[cfg(feature = "models")]
    Account,
    /// Annotation of real cells beside logistic regression on the same splits.
    #[cfg(feature = "models")]
    Annotation(Box<annotation::Options>),
    /// Loading against training on a device, and how long training waits.
    #[cfg(feature = "models")]
    Loading(loading::Options),
    /// The loader against datasets in Python, cells a second.
    Loader(loader::Options),
    /// Loading, once for each line of standard input.
    #[command(hide = true)]
    LoaderSubject(loader::Subject),
    /// Sharding against scanpy's pipeline, and its memory.
    Sharding(sharding::Options),
    /// The losses of training steps by kernels and by plain operations.
    #[cfg(feature = "models")]
    Curves(Steps),
    /// The losses of training steps.
    #[command(hide = true)]
    #[cfg(feature = "models")]
    Losses(Steps),
    /// A file of synthetic cells.
    #[command(hide = true)]
    SyntheticCells(sharding::Cells),
    /// Sharding, once for each line of standard input.
    #[command(hide = true)]
    ShardSubject(sharding::Subject),
    /// One task, once for each line of standard input.
    #[command(hide = true)]
    #[cfg(feature = "models")]
    Subject(subject::Options),
}

#[cfg(feature = "models")]
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
    #[cfg(feature = "models")]
    device::take_cuda_headers()?;
    let command = Arguments::parse().command;
    // As the commands that they measure.
    match command {
        Command::ShardSubject(_) => allocator::keep_little(),
        _ => allocator::keep_large_blocks(),
    }
    match command {
        #[cfg(feature = "models")]
        Command::Compare(options) => compare::run(&options),
        #[cfg(feature = "models")]
        Command::Card(options) => card::run(&options),
        #[cfg(feature = "models")]
        Command::Account => {
            print!("{}", account::table()?);
            Ok(())
        }
        #[cfg(feature = "models")]
        Command::Annotation(options) => annotation::run(&options),
        #[cfg(feature = "models")]
        Command::Loading(options) => loading::run(&options),
        Command::Loader(options) => loader::run(&options),
        Command::LoaderSubject(options) => loader::load(&options),
        Command::Sharding(options) => sharding::run(&options),
        Command::SyntheticCells(options) => sharding::write_cells(&options),
        Command::ShardSubject(options) => sharding::shard(&options),
        #[cfg(feature = "models")]
        Command::Curves(Steps { shards, steps }) => training::compare_losses(&shards, steps),
        #[cfg(feature = "models")]
        Command::Losses(Steps { shards, steps }) => {
            println!("{}", serde_json::to_string(&training::losses(&shards, steps)?)?);
            Ok(())
        }
        #[cfg(feature = "models")]
        Command::Subject(options) => subject::run(&options),
    }
}
