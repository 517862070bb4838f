//! A process that does a task each time it is asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::Result;

/// A task in a process of its own, so that its peak memory is its own.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, input, output })
    }

    /// Has the task done once.
    pub(crate) fn seconds(&mut self) -> Result<f64> {
        Ok(self.turn()?["seconds"].as_f64().ok_or("an answer without seconds")?)
    }

    /// Has the task done once; all that it says of it.
    pub(crate) fn turn(&mut self) -> Result<Value> {
        writeln!(self.input, "run")?;
        self.answer()
    }

    /// Ends the process and asks for its peak memory.
    pub(crate) fn peak_bytes(self) -> Result<f64> {
        let Self { mut child, input, output } = self;
        drop(input);
        let answer = answer(&mut { output })?;
        child.wait()?;
        Ok(answer["peak_bytes"].as_f64().ok_or("an answer without peak memory")?)
    }

    fn answer(&mut self) -> Result<Value> {
        answer(&mut self.output)
    }
}

/// Processor seconds of this process so far, all its threads together.
pub(crate) fn processor_seconds() -> Result<f64> {
    /// Clock ticks a second in /proc, a constant of Linux' interface.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // After the name in parentheses: user and system time are the 12th and 13th field.
    let fields: Vec<&str> =
        text.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1.split_whitespace().collect();
    let ticks =
        |at: usize| -> Result<f64> { Ok(fields.get(at).ok_or("no times in /proc/self/stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// The most memory this process had: unlike `ru_maxrss`, without that of the process that started it.
pub(crate) fn own_peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn answer(output: &mut BufReader<ChildStdout>) -> Result<Value> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(serde_json::from_str(&line).map_err(|error| format!("{error} in the answer {line:?}"))?)
}
