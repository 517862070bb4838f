//! The `cellpatch` command as a user meets it: what it prints, writes and ends with.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

mod annotate;
mod bad_input;
mod built_in;
mod datasets;
#[path = "../../../cellpatch-data/tests/http_server/mod.rs"]
mod http_server;
mod ranks;
mod real_data;
mod resume;
mod shards;
mod spatial;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A command that runs in `folder` with these arguments.
fn cellpatch<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellpatch"));
    command.current_dir(folder).args(arguments);
    command
}

/// Runs a command to its end.
fn run<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Output {
    cellpatch(folder, arguments).output().unwrap()
}

/// The one JSON value a command printed.
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in {text:?}; stderr: {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Real data, or nothing where there is none.
fn real_data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CELLPATCH_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found.canonicalize().unwrap());
    }
    println!("skipped: {path} is not here; set CELLPATCH_DATA to a folder that has it");
    None
}

/// A pretraining of a few seconds on the built-in cells.
const SMALL: [&str; 14] = [
    "pretrain",
    "--quiet",
    "--json",
    "--device",
    "cpu",
    "--max-cells",
    "240",
    "--epochs",
    "2",
    "--batch-size",
    "32",
    "--max-input",
    "150",
    "--run-dir=run",
];
