//! The `cellpatch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    cellpatch_cli::run(std::env::args_os())
}
