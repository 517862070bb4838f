//! # cellpatch-cli
//!
//! The `cellpatch` command tree and everything it says to a user. There is no science in here: each command reads its
//! settings (`options`), chooses a device (`device`), calls the crates below and renders what comes back.
//!
//! Results go to stdout, everything else to stderr. Errors say what happened, where and what to do next; the exit code is
//! 0 when done, 2 for a request that makes no sense, 3 for bad input, 4 for a machine that cannot, and 130 after Ctrl-C
//! (once a checkpoint was saved).
//!
//! ```
//! use std::process::ExitCode;
//!
//! // What `cellpatch doctor --help` does.
//! let code = cellpatch_cli::run(["cellpatch", "doctor", "--help"]);
//! assert_eq!(code, ExitCode::SUCCESS);
//! ```

mod annotate;
mod arguments;
mod attention;
mod builtin;
mod cache;
#[cfg(feature = "cuda")]
mod cuda_toolkit;
mod datasets;
mod device;
mod doctor;
mod embed;
mod failure;
mod inputs;
mod inspect;
mod interrupt;
mod memory_size;
mod merge;
mod model;
mod options;
mod pretrain;
mod ranks;
mod report;
mod runs;
mod settings;
mod shard;
mod sources;
mod spatial;
mod terminal;
mod weights;

use std::ffi::OsString;
use std::process::ExitCode;

use cellpatch_kernels::allocator;
use clap::Parser as _;

use crate::arguments::{Annotate, Arguments, Command};
use crate::terminal::Terminal;

/// Runs one command and returns its exit code.
///
/// - `arguments`: the program's name and its arguments.
pub fn run<A>(arguments: impl IntoIterator<Item = A>) -> ExitCode
where
    A: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results, the rest are usage errors; clap knows where each goes.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    #[cfg(feature = "cuda")]
    cuda_toolkit::stand_in();
    match arguments.command {
        // They promise a memory, which blocks that are kept when they are given back would exceed.
        Command::Shard(_) | Command::Merge(_) => allocator::keep_little(),
        _ => allocator::keep_large_blocks(),
    }
    let terminal = Terminal { quiet: arguments.output.quiet, json: arguments.output.json };
    let result = match arguments.command {
        Command::Pretrain(arguments) => pretrain::run(&terminal, *arguments),
        Command::Shard(arguments) => shard::run(&terminal, &arguments),
        Command::Merge(arguments) => merge::run(&terminal, &arguments),
        Command::Annotate(Annotate::Train(arguments)) => annotate::train(&terminal, *arguments),
        Command::Annotate(Annotate::Predict(options)) => annotate::predict(&terminal, &options),
        Command::Spatial(arguments) => spatial::run(&terminal, *arguments),
        Command::Embed(options) => embed::run(&terminal, &options),
        Command::Import(options) => weights::import(&terminal, &options),
        Command::Export(options) => weights::export(&terminal, &options),
        Command::Datasets(command) => datasets::run(&terminal, &command),
        Command::Inspect(arguments) => inspect::run(&terminal, &arguments),
        Command::Doctor(arguments) => match arguments.probe {
            Some(device) => doctor::answer_probe(&terminal, device),
            None => doctor::run(&terminal),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal.failure(&failure);
            ExitCode::from(failure.category().exit_code())
        }
    }
}
