//! How often values occur.

use super::axis::{Axis, Range, nice_step};
use super::frame::{BELOW_FRAME, BELOW_TITLE, Frame, LEFT, ROW, SWATCH, title};
use super::palette::ONLY;
use super::svg::{Anchor, Role, Stroke, Svg, WIDTH};
use crate::number::{decimal, grouped};

/// Height of the figure's frame in user units.
const FRAME_HEIGHT: f64 = 200.0;
/// How many bars there should be, more or less.
const N_BARS: f64 = 40.0;

/// Counts of values in bins of equal, round width, and their median.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// What the figure shows.
    pub title: String,
    /// What the values are, with their unit.
    pub x_name: String,
    /// What is counted.
    pub y_name: String,
    /// The values; those that are not finite are left out.
    pub values: Vec<f64>,
}

impl Histogram {
    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        let bins = Bins::of(&self.values);
        let most = bins.counts.iter().copied().max().unwrap_or(1);
        let top = BELOW_TITLE + ROW + 12.0;
        let bottom = top + FRAME_HEIGHT;
        let x = Axis::linear(&self.x_name, bins.range(), 8, false);
        // Ticks between whole counts would say nothing.
        let y = Axis::linear(&self.y_name, Range { low: 0.0, high: most as f64 }, most.min(4) as usize, true);
        let frame = Frame::new(top, WIDTH - 12.0, bottom, x, y);
        frame.draw(&mut svg);
        for (at, &count) in bins.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let Range { low, high } = bins.bin(at);
            let (left, right, height) = (frame.x(low), frame.x(high), bottom - frame.y(count as f64));
            svg.open_group(&format!("{} to {}: {}", decimal(low, 0), decimal(high, 0), grouped(count)), "");
            svg.push(format_args!(
                r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{height:.1}" fill="{ONLY}" opacity="0.85"/>"#,
                left + 0.5,
                bottom - height,
                (right - left - 1.0).max(0.5),
            ));
            svg.close_group();
        }
        match median(&self.values) {
            Some(median) => {
                frame.rule_up(&mut svg, median);
                let y = BELOW_TITLE + 10.0;
                svg.line((LEFT, y - 4.0), (LEFT + SWATCH, y - 4.0), Stroke::Rule);
                let text = format!("median {}", decimal(median, 0));
                svg.text(LEFT + SWATCH + 6.0, y, Anchor::Start, Role::Entry, &text);
            }
            None => frame.draw_emptiness(&mut svg, "no values"),
        }
        svg.finish(bottom + BELOW_FRAME, &self.title)
    }
}

/// The middle of the values that are finite.
fn median(values: &[f64]) -> Option<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let (low, high) = (finite.get(finite.len().saturating_sub(1) / 2)?, finite.get(finite.len() / 2)?);
    Some(low.midpoint(*high))
}

/// Bins of equal width, each with its lower edge and without its upper one.
#[derive(Debug)]
struct Bins {
    first: f64,
    width: f64,
    counts: Vec<u64>,
}

impl Bins {
    fn of(values: &[f64]) -> Self {
        let Some(Range { low, high }) = Range::of(values.iter().copied()) else {
            return Self { first: 0.0, width: 1.0, counts: vec![0] };
        };
        // Half a bar's width or more, so that equal values make one bar of some width.
        let width = nice_step(((high - low) / N_BARS).max(low.abs() * 1e-6).max(f64::MIN_POSITIVE));
        let width = if values.iter().all(|value| value.fract() == 0.0) { width.max(1.0) } else { width };
        let first = (low / width).floor();
        let bin_of = |value: f64| ((value / width).floor() - first) as usize;
        let mut counts = vec![0; bin_of(high) + 1];
        for &value in values.iter().filter(|value| value.is_finite()) {
            counts[bin_of(value)] += 1;
        }
        Self { first, width, counts }
    }

    fn bin(&self, at: usize) -> Range {
        let from = self.first + at as f64;
        Range { low: from * self.width, high: (from + 1.0) * self.width }
    }

    fn range(&self) -> Range {
        Range { low: self.bin(0).low, high: self.bin(self.counts.len() - 1).high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        for values in [vec![3.0; 5], vec![0.0, 0.1, 0.2, 1.0], (0..977).map(|x| f64::from(x * x)).collect()] {
            let bins = Bins::of(&values);
            assert_eq!(bins.counts.iter().sum::<u64>(), values.len() as u64);
            assert!((1..=100).contains(&bins.counts.len()), "{} bars", bins.counts.len());
            let Range { low, high } = bins.range();
            assert!(values.iter().all(|value| (low..high).contains(value)));
        }
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, f64::NAN, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn no_values_make_an_empty_figure() {
        for values in [vec![], vec![f64::NAN]] {
            let svg = Histogram { values, ..Histogram::default() }.to_svg();
            assert!(svg.contains("no values") && !svg.contains("NaN"));
        }
    }
}
