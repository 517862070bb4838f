//! Axes: where a value goes, and at which round values the ticks stand.

use crate::number::{decimal, significant};

/// A labelled place on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// The value it stands at.
    pub(crate) value: f64,
    /// How the value is written.
    pub(crate) label: String,
}

/// One axis of a figure.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    name: String,
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<Tick>,
}

impl Axis {
    /// An axis in equal steps that covers the values, with about `n_ticks` ticks at 1, 2 or 5 times a power of
    /// ten. With `round_ends` it reaches to the ticks beyond the values.
    pub(crate) fn linear(name: &str, values: Range, n_ticks: usize, round_ends: bool) -> Self {
        let Range { mut low, mut high } = values;
        if high - low <= low.abs().max(high.abs()) * 1e-9 {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let step = nice_step((high - low) / n_ticks.max(1) as f64);
        // A hair of slack, so that an end which is a tick but for rounding counts as one.
        let (first, last) = if round_ends {
            ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil())
        } else {
            ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor())
        };
        if round_ends {
            (low, high) = (first * step, last * step);
        }
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let mut ticks = Vec::new();
        let mut at = first;
        while at <= last {
            let value = at * step;
            ticks.push(Tick { value, label: decimal(value, decimals) });
            at += 1.0;
        }
        Self { name: name.to_owned(), from: low, to: high, logarithmic: false, ticks }
    }

    /// An axis in equal ratios that covers the values, all of them positive.
    pub(crate) fn logarithmic(name: &str, values: Range) -> Self {
        let (low, high) = (values.low / 1.08, values.high * 1.08);
        let decades = (high / low).log10();
        let factors: &[f64] = match decades {
            _ if decades <= 1.2 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            _ if decades <= 3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let mut ticks = Vec::new();
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        // Very many decades get every second, third, ... power.
        let stride = ((last - first) / 8 + 1) as usize;
        for exponent in (first..=last).step_by(stride) {
            for factor in factors {
                let value = factor * 10_f64.powi(exponent);
                if (low..=high).contains(&value) {
                    ticks.push(Tick { value, label: significant(value, if *factor == 1.5 { 2 } else { 1 }) });
                }
            }
        }
        Self { name: name.to_owned(), from: low, to: high, logarithmic: true, ticks }
    }

    /// The same axis with its ticks written in another way.
    pub(crate) fn with_labels(mut self, label: impl Fn(f64) -> String) -> Self {
        for tick in &mut self.ticks {
            tick.label = label(tick.value);
        }
        self
    }

    /// What the axis shows, with its unit.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The ticks in ascending order.
    pub(crate) fn ticks(&self) -> &[Tick] {
        &self.ticks
    }

    /// Where a value stands: 0 at the axis's start, 1 at its end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

/// The smallest and the largest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Range {
    /// The range of the values that are finite, or nothing where none is.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        values.into_iter().filter(|value| value.is_finite()).fold(None, |range, value| {
            Some(range.map_or(Self { low: value, high: value }, |Self { low, high }| Self {
                low: low.min(value),
                high: high.max(value),
            }))
        })
    }

    /// The range with `share` of its length added at both ends.
    pub(crate) fn widened(self, share: f64) -> Self {
        let room = (self.high - self.low) * share;
        Self { low: self.low - room, high: self.high + room }
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `rough`.
pub(crate) fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    if !power.is_normal() {
        return 1.0;
    }
    let factor =
        [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks().iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_stand_at_round_values() {
        let axis = Axis::linear("", Range { low: 0.0, high: 9_700.0 }, 5, false);
        assert_eq!(labels(&axis), ["0", "2,000", "4,000", "6,000", "8,000"]);
        let axis = Axis::linear("", Range { low: 0.31, high: 0.74 }, 5, true);
        assert_eq!(labels(&axis), ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]);
        let axis = Axis::linear("", Range { low: -1.2, high: 2.9 }, 5, false);
        assert_eq!(labels(&axis), ["\u{2212}1", "0", "1", "2"]);
        let axis = Axis::logarithmic("", Range { low: 0.03, high: 2.1 });
        assert_eq!(labels(&axis), ["0.05", "0.1", "0.2", "0.5", "1", "2"]);
    }

    #[test]
    fn an_axis_runs_from_zero_to_one_over_its_values() {
        let axis = Axis::linear("", Range { low: 10.0, high: 20.0 }, 5, false);
        assert_eq!([10.0, 15.0, 20.0].map(|value| axis.place(value)), [0.0, 0.5, 1.0]);
        let axis = Axis::logarithmic("", Range { low: 1.0, high: 100.0 });
        assert!((axis.place(10.0) - 0.5).abs() < 1e-12);
        assert!(axis.place(1.0) > 0.0 && axis.place(100.0) < 1.0);
    }

    #[test]
    fn equal_and_extreme_values_still_make_an_axis() {
        for value in [0.0, 5.0, -3e-9, 1e30, f64::MAX / 4.0, 1e-300] {
            let axis = Axis::linear("", Range { low: value, high: value }, 5, true);
            assert!((0.0..=1.0).contains(&axis.place(value)), "{value}");
            assert!(axis.ticks().len() < 30, "{value}: {} ticks", axis.ticks().len());
        }
        let axis = Axis::logarithmic("", Range { low: 1e-30, high: 1e30 });
        assert!((3..12).contains(&axis.ticks().len()));
    }
}
