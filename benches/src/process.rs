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
        writeln!(self.input, "run")?;
        let answer = self.answer()?;
        Ok(answer["seconds"].as_f64().ok_or("an answer without seconds")?)
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

fn answer(output: &mut BufReader<ChildStdout>) -> Result<Value> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(serde_json::from_str(&line).map_err(|error| format!("{error} in the answer {line:?}"))?)
}
