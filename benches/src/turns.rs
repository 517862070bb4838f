//! Sides of a comparison, each a process, that do their task in turn.

use serde_json::Value;

use crate::Result;
use crate::process::Process;

/// One side, and what it said of each turn.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    process: Process,
    turns: Vec<Value>,
}

/// What the turns of a side came to.
pub(crate) struct Turns {
    pub(crate) name: &'static str,
    turns: Vec<Value>,
    pub(crate) peak_bytes: f64,
}

impl Side {
    pub(crate) fn new(name: &'static str, process: Process) -> Self {
        Self { name, process, turns: Vec::new() }
    }
}

/// Has each side do its task once to warm up, then all in turn, and ends them.
pub(crate) fn take_turns(mut sides: Vec<Side>, n_turns: usize) -> Result<Vec<Turns>> {
    for side in &mut sides {
        side.process.turn()?;
    }
    for _ in 0..n_turns {
        for side in &mut sides {
            side.turns.push(side.process.turn()?);
        }
    }
    let end = |Side { name, process, turns }| Ok(Turns { name, turns, peak_bytes: process.peak_bytes()? });
    sides.into_iter().map(end).collect()
}

impl Turns {
    /// The median of what each turn said under a name.
    pub(crate) fn median(&self, name: &str) -> Result<f64> {
        Ok(median(self.numbers(name)?))
    }

    /// The median of one number of each turn divided by another of the same turn.
    pub(crate) fn median_ratio(&self, name: &str, to: &str) -> Result<f64> {
        let ratios = self.numbers(name)?.into_iter().zip(self.numbers(to)?).map(|(number, to)| number / to);
        Ok(median(ratios.collect()))
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        let number = |turn: &Value| turn[name].as_f64().ok_or_else(|| format!("an answer without {name}"));
        Ok(self.turns.iter().map(number).collect::<std::result::Result<_, _>>()?)
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
