//! All processes of a training on one machine, started and watched by another.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use burn::train::Interrupter;

use crate::failure::{Category, Failure};
use crate::terminal::Terminal;

/// How often it is looked which processes have ended.
const LOOK: Duration = Duration::from_millis(50);

/// Starts `n` ranks of a run that has its configuration and its shards, and waits for them.
///
/// - run_dir: the run
/// - config: a file with the settings that all of them take
///
/// # Errors
/// When one of them ends with an error; what it was, the process has said itself.
pub(crate) fn launch(
    terminal: &Terminal,
    n: NonZeroUsize,
    run_dir: &Path,
    config: &Path,
    interrupter: &Interrupter,
) -> Result<(), Failure> {
    let rendezvous = free_address()?;
    let mut ranks = Vec::with_capacity(n.get());
    for rank in 0..n.get() {
        let mut command = command(terminal, n, rank)?;
        command.args(["--rendezvous", &rendezvous, "--resume", "--run-dir"]).arg(run_dir);
        command.arg("--config").arg(config);
        ranks.push(Running::start(command, rank)?);
    }
    let first_failure = watch(&mut ranks, interrupter);
    let output = ranks[0].output();
    let go_on = format!("pretrain --resume --run-dir {} --processes {n}", run_dir.display());
    match first_failure {
        None => {
            terminal.hand_on(&output);
            Ok(())
        }
        Some((_, status)) if status.code() == Some(i32::from(Category::Interrupted.exit_code())) => {
            Err(Failure::new(Category::Interrupted, "all processes have ended")
                .with_help(format!("go on with: {go_on}")))
        }
        Some((rank, status)) => {
            let message = format!("rank {rank} of {n} processes ended with {status}, and so did the others");
            let category = status.code().and_then(|code| u8::try_from(code).ok()).map(Category::of_exit_code);
            Err(Failure::new(category.unwrap_or(Category::Environment), message).with_help(format!(
                "what it said stands above; if the run had a checkpoint, go on with: {go_on}"
            )))
        }
    }
}

/// Sets off an interrupter when standard input ends.
pub(crate) fn follow(interrupter: Interrupter) {
    thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = io::stdin().read_to_end(&mut rest);
        interrupter.stop(Some("the process that started this one is gone"));
    });
}

/// This program as one of the ranks.
fn command(terminal: &Terminal, n: NonZeroUsize, rank: usize) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Category::Environment, format!("this program cannot find itself: {error}"))
    })?;
    let mut command = Command::new(program);
    command.args(["pretrain", "--follow", "--world-size", &n.to_string(), "--rank", &rank.to_string()]);
    if terminal.json {
        command.arg("--json");
    }
    if terminal.quiet {
        command.arg("--quiet");
    }
    // Otherwise each would work with as many threads as there are cores.
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        command.env("RAYON_NUM_THREADS", OsString::from((cores / n).max(1).to_string()));
    }
    command.stdin(Stdio::piped());
    command.stdout(if rank == 0 { Stdio::piped() } else { Stdio::null() });
    Ok(command)
}

/// A port of this machine that nobody has at the moment.
fn free_address() -> Result<String, Failure> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_or_else(
        |error| Err(Failure::new(Category::Environment, format!("this machine has no free port: {error}"))),
        |address| Ok(address.to_string()),
    )
}

/// A process that was started.
struct Running {
    child: Child,
    /// It ends when this is closed.
    leash: Option<ChildStdin>,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
    status: Option<ExitStatus>,
}

impl Running {
    fn start(mut command: Command, rank: usize) -> Result<Self, Failure> {
        let mut child = command.spawn().map_err(|error| {
            Failure::new(Category::Environment, format!("could not start rank {rank}: {error}"))
        })?;
        let leash = child.stdin.take();
        let stdout = child.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stdout.read_to_end(&mut text);
                text
            })
        });
        Ok(Self { child, leash, stdout, status: None })
    }

    /// How it ended, if it did only now.
    fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_some() {
            return None;
        }
        self.status = self.child.try_wait().ok().flatten();
        self.status
    }

    /// What it printed.
    fn output(&mut self) -> Vec<u8> {
        self.stdout.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its leash is gone by now; whoever does not heed that has no work left to save.
        self.leash = None;
        if self.status.is_none() {
            let _ = self.child.wait();
        }
    }
}

/// Waits until all have ended; the first of them that failed. An error of one ends the others, who hear of it by themselves.
fn watch(ranks: &mut [Running], interrupter: &Interrupter) -> Option<(usize, ExitStatus)> {
    let mut first_failure = None;
    while ranks.iter().any(|rank| rank.status.is_none()) {
        if interrupter.should_stop() {
            ranks.iter_mut().for_each(|rank| rank.leash = None);
        }
        for (rank, running) in ranks.iter_mut().enumerate() {
            if let Some(status) = running.ended().filter(|status| !status.success()) {
                first_failure.get_or_insert((rank, status));
            }
        }
        thread::sleep(LOOK);
    }
    first_failure
}
