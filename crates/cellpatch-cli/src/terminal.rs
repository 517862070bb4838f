//! What is said where: results on stdout, everything else on stderr.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the one place that talks to the user"
)]

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Seconds between two plain progress lines where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Where a command's output goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Say nothing but results and errors.
    pub quiet: bool,
    /// One JSON value on stdout, and nothing else there.
    pub json: bool,
}

impl Terminal {
    /// Something the user may want to know while waiting.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Something the user should know.
    pub(crate) fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }

    /// The result: text for people, or the value with `--json`.
    pub(crate) fn result(&self, text: &str, value: &serde_json::Value) {
        if self.json {
            println!("{value:#}");
        } else {
            println!("{text}");
        }
    }

    /// What another process printed as its result.
    pub(crate) fn hand_on(&self, output: &[u8]) {
        print!("{}", String::from_utf8_lossy(output));
    }

    /// The end of a command that failed.
    pub(crate) fn failure(&self, failure: &crate::failure::Failure) {
        if self.json {
            println!("{:#}", failure.to_json());
        }
        eprintln!("{}", failure.render());
    }

    /// Starts a bar for work that counts `unit`s.
    pub(crate) fn progress(&self, title: &str, total: u64, unit: &str) -> Progress {
        let drawn = !self.quiet && std::io::stderr().is_terminal();
        let bar = if drawn {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8))
        } else {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
        };
        let counts = match unit {
            "bytes" => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}".to_owned(),
            _ => format!("{{human_pos}}/{{human_len}} {unit} {{per_sec}}"),
        };
        let template = format!("{{prefix}} [{{bar:28}}] {counts} eta {{eta}} {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(title.to_owned());
        Progress {
            bar,
            title: title.to_owned(),
            unit: unit.to_owned(),
            plain: (!self.quiet && !drawn).then(|| Mutex::new(Instant::now())),
            quiet: self.quiet,
        }
    }
}

/// Progress of one piece of work: a bar on a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    title: String,
    unit: String,
    plain: Option<Mutex<Instant>>,
    quiet: bool,
}

impl Progress {
    /// Moves to `done`, with a word on how it goes.
    pub(crate) fn update(&self, done: u64, message: &str) {
        let resumed = self.bar.position() == 0 && done > 1;
        self.bar.set_position(done);
        if resumed {
            // What was done before must not count into rate and remaining time.
            self.bar.reset_eta();
        }
        self.bar.set_message(message.to_owned());
        let Some(last) = &self.plain else { return };
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= PLAIN_INTERVAL {
            *last = Instant::now();
            let eta = self.bar.eta().as_secs();
            let total = self.bar.length().unwrap_or_default();
            eprintln!("{} {done}/{total} {} eta {eta} s {message}", self.title, self.unit);
        }
    }

    /// There is more or less to do than it seemed.
    pub(crate) fn set_total(&self, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
    }

    /// A line above the bar.
    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// A warning above the bar.
    pub(crate) fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("warning: {text}"));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
