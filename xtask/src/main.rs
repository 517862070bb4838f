//! Developer entry: every `cellpatch` command, and `ci`, `bench` and `docs`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_else(|| "cargo xtask".into());
    let rest: Vec<_> = arguments.collect();
    let given = |from: usize| rest.get(from..).unwrap_or_default().iter();
    match rest.first().and_then(|name| name.to_str()) {
        Some("ci") => start(Command::new("bash").arg(".ci/run")),
        Some("bench") => {
            // By its name alone, not its package: so dependencies have the features of the whole workspace and are built once.
            let run = ["run", "--release", "--quiet", "--bin", "cellpatch-bench", "--"];
            start(Command::new("cargo").args(run).args(given(1)))
        }
        Some("docs") => {
            start(Command::new("cargo").args(["doc", "--release", "--workspace", "--no-deps"]).args(given(1)))
        }
        _ => cellpatch_cli::run(std::iter::once(program).chain(rest)),
    }
}

/// Runs a program in this one's place and hands on its exit code.
fn start(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(_) => ExitCode::from(4),
    }
}
