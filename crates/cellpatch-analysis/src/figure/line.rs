//! Curves over training steps.

use super::axis::{Axis, Range};
use super::frame::{BELOW_FRAME, BELOW_TITLE, Frame, LEFT, ROW, SWATCH, title};
use super::palette::line_colour;
use super::svg::{Role, Stroke, Svg, WIDTH, text_width};
use crate::number::significant;

/// Height of the figure's frame in user units.
const FRAME_HEIGHT: f64 = 290.0;

/// Beyond this ratio of the largest to the smallest value, the smaller ones are lost on a linear axis.
const LOGARITHMIC_FROM: f64 = 10.0;

/// How the y axis divides its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Logarithmic where all values are positive and span more than a factor of ten, else linear.
    #[default]
    Auto,
    /// Equal steps.
    Linear,
    /// Equal ratios; linear all the same where a value is not positive.
    Logarithmic,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesStyle {
    /// A pale line in the colour of the next series: the raw values behind their smoothed curve.
    Faint,
    /// A line.
    Line,
    /// Dots with a thin line through them, each with its values as a tooltip.
    Dots,
}

/// Some values over x.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// How it is drawn.
    pub style: SeriesStyle,
    /// `(x, y)` in ascending x. A point that is not finite interrupts the line.
    pub points: Vec<(f64, f64)>,
}

/// A dashed horizontal line to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Name in the legend, where the value follows it.
    pub name: String,
    /// Where the line lies on the y axis.
    pub value: f64,
}

/// Lines and dots over a common x axis, with a legend above them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LineChart {
    /// What the figure shows.
    pub title: String,
    /// What x is, with its unit.
    pub x_name: String,
    /// What y is, with its unit.
    pub y_name: String,
    /// How the y axis divides its range.
    pub y_scale: Scale,
    /// The curves, from back to front.
    pub series: Vec<Series>,
    /// The lines to compare with.
    pub references: Vec<Reference>,
}

impl LineChart {
    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        let top = self.draw_legend(&mut svg) + 20.0;
        let bottom = top + FRAME_HEIGHT;
        let frame = Frame::new(top, WIDTH - 12.0, bottom, self.x_axis(), self.y_axis());
        frame.draw(&mut svg);
        if self.drawable().next().is_none() {
            frame.draw_emptiness(&mut svg, "no values yet");
        }
        for reference in self.references.iter().filter(|reference| reference.value.is_finite()) {
            frame.rule_across(&mut svg, reference.value);
        }
        for (series, colour) in self.coloured() {
            draw_series(&mut svg, &frame, series, colour);
        }
        svg.finish(bottom + BELOW_FRAME, &self.title)
    }

    fn drawable(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| &series.points).copied().filter(is_finite)
    }

    fn x_axis(&self) -> Axis {
        let mut range = Range::of(self.drawable().map(|(x, _)| x)).unwrap_or(Range { low: 0.0, high: 1.0 });
        // A run that starts at step 1 starts at 0 on paper, where a reader looks for its beginning.
        if range.low > 0.0 && range.low < range.high * 0.05 {
            range.low = 0.0;
        }
        Axis::linear(&self.x_name, range, 8, false)
    }

    fn y_axis(&self) -> Axis {
        let references = self.references.iter().map(|reference| reference.value);
        let range = Range::of(self.drawable().map(|(_, y)| y).chain(references));
        let range = range.unwrap_or(Range { low: 0.0, high: 1.0 });
        let logarithmic = match self.y_scale {
            Scale::Auto => range.high > range.low * LOGARITHMIC_FROM,
            Scale::Linear => false,
            Scale::Logarithmic => true,
        };
        if logarithmic && range.low > 0.0 {
            Axis::logarithmic(&self.y_name, range)
        } else {
            Axis::linear(&self.y_name, range, 5, true)
        }
    }

    /// The series with their colours: a faint one shares that of the series after it.
    fn coloured(&self) -> impl Iterator<Item = (&Series, &'static str)> {
        let mut rank = 0;
        self.series.iter().map(move |series| {
            let colour = line_colour(rank);
            rank += usize::from(series.style != SeriesStyle::Faint);
            (series, colour)
        })
    }

    /// Draws the legend in as many rows as it needs and returns where it ends.
    fn draw_legend(&self, svg: &mut Svg) -> f64 {
        let (mut x, mut y) = (LEFT, BELOW_TITLE + 10.0);
        let mut place = |name: &str| {
            let width = SWATCH + 6.0 + text_width(name, Role::Entry.size()) + 20.0;
            if x > LEFT && x + width > WIDTH {
                (x, y) = (LEFT, y + ROW);
            }
            x += width;
            (x - width, y)
        };
        for (series, colour) in self.coloured() {
            let (x, y) = place(&series.name);
            let (middle, end) = (y - 4.0, x + SWATCH);
            match series.style {
                SeriesStyle::Faint => svg.push(format_args!(
                    r#"<path d="M{x:.1},{middle:.1}H{end:.1}" stroke="{colour}" stroke-width="5" opacity="0.35"/>"#
                )),
                SeriesStyle::Line => svg.push(format_args!(
                    r#"<path d="M{x:.1},{middle:.1}H{end:.1}" stroke="{colour}" stroke-width="2.5"/>"#
                )),
                SeriesStyle::Dots => svg.push(format_args!(
                    r#"<g fill="{colour}" stroke="{colour}"><path d="M{x:.1},{middle:.1}H{end:.1}"/><circle cx="{:.1}" cy="{middle:.1}" r="4"/></g>"#,
                    x + SWATCH / 2.0
                )),
            }
            svg.text_within(end + 6.0, y, WIDTH - end - 6.0, Role::Entry, &series.name);
        }
        for reference in &self.references {
            let name = format!("{} ({})", reference.name, significant(reference.value, 4));
            let (x, y) = place(&name);
            svg.line((x, y - 4.0), (x + SWATCH, y - 4.0), Stroke::Rule);
            svg.text_within(x + SWATCH + 6.0, y, WIDTH - x - SWATCH - 6.0, Role::Entry, &name);
        }
        y
    }
}

/// The points with each y replaced by the mean of the `window` points around it; at the two ends, where the
/// neighbourhood is one-sided, by the line of least squares through it, so that a falling curve does not bend.
/// Values that are not finite are left out.
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let half = window / 2;
    let mut sums = Vec::with_capacity(points.len() + 1);
    let (mut sum, mut n) = (0.0, 0_usize);
    sums.push((sum, n));
    for (_, y) in points {
        if y.is_finite() {
            (sum, n) = (sum + y, n + 1);
        }
        sums.push((sum, n));
    }
    let level = |at: usize, x: f64| {
        let (from, to) = (at.saturating_sub(half), (at + half + 1).min(points.len()));
        if to - from < 2 * half + 1 {
            return line_of_least_squares(&points[from..to], x);
        }
        let ((sum_before, n_before), (sum, n)) = (sums[from], sums[to]);
        (sum - sum_before) / (n - n_before) as f64
    };
    points.iter().enumerate().map(|(at, &(x, _))| (x, level(at, x))).collect()
}

/// The value at `x` of the straight line that fits the points best.
fn line_of_least_squares(points: &[(f64, f64)], x: f64) -> f64 {
    let finite = || points.iter().filter(|point| is_finite(point));
    let n = finite().count() as f64;
    let (mean_x, mean_y) =
        (finite().map(|(x, _)| x).sum::<f64>() / n, finite().map(|(_, y)| y).sum::<f64>() / n);
    let spread: f64 = finite().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let joint: f64 = finite().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    if spread > 0.0 { mean_y + joint / spread * (x - mean_x) } else { mean_y }
}

fn is_finite((x, y): &(f64, f64)) -> bool {
    x.is_finite() && y.is_finite()
}

fn draw_series(svg: &mut Svg, frame: &Frame, series: &Series, colour: &str) {
    let look = match series.style {
        SeriesStyle::Faint => r#"stroke-width="1" opacity="0.35""#,
        SeriesStyle::Line => r#"stroke-width="2.5""#,
        SeriesStyle::Dots => r#"stroke-width="1""#,
    };
    let mut path = String::new();
    for run in series.points.split(|point| !is_finite(point)) {
        for (at, (x, y)) in thinned(run).into_iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            path.push_str(&format!("{command}{:.1},{:.1}", frame.x(x), frame.y(y)));
        }
    }
    svg.push(format_args!(
        r#"<path d="{path}" fill="none" stroke="{colour}" stroke-linejoin="round" {look}/>"#
    ));
    if series.style != SeriesStyle::Dots {
        return;
    }
    for &(x, y) in series.points.iter().filter(|point| is_finite(point)) {
        let (cx, cy) = (frame.x(x), frame.y(y));
        svg.open_group(&format!("{}: {} at {}", series.name, significant(y, 4), significant(x, 4)), "");
        svg.push(format_args!(r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="4" fill="{colour}"/>"#));
        svg.close_group();
    }
}

/// Of a line with many more points than the figure has columns, the lowest and the highest of each column: it
/// looks the same and takes a page, not a book.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let per_column = points.len().div_ceil(WIDTH as usize);
    if per_column <= 2 {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(2 * WIDTH as usize);
    for column in points.chunks(per_column) {
        let by_y = |&a: &usize, &b: &usize| column[a].1.total_cmp(&column[b].1);
        let (lowest, highest) = ((0..column.len()).min_by(by_y), (0..column.len()).max_by(by_y));
        let (Some(lowest), Some(highest)) = (lowest, highest) else { continue };
        kept.push(column[lowest.min(highest)]);
        kept.push(column[lowest.max(highest)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        let series = vec![Series { name: "training".into(), style: SeriesStyle::Line, points }];
        LineChart { title: "Loss".into(), series, ..LineChart::default() }
    }

    #[test]
    fn smoothing_keeps_straight_lines_and_averages_noise() {
        let straight: Vec<_> = (0..20).map(|x| (f64::from(x), 7.0 - 3.0 * f64::from(x))).collect();
        for ((_, found), (_, expected)) in smoothed(&straight, 7).into_iter().zip(&straight) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        let zigzag: Vec<_> = (0..60).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        assert!(smoothed(&zigzag, 21).iter().all(|(_, y)| (y - 0.5).abs() < 0.1));
        let gap = smoothed(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)], 3);
        assert_eq!(gap[1], (1.0, 2.0));
        assert_eq!(smoothed(&[(0.0, 1.0), (1.0, 5.0)], 0), [(0.0, 1.0), (1.0, 5.0)]);
        assert!(smoothed(&[], 5).is_empty());
    }

    #[test]
    fn thinning_keeps_every_spike() {
        let mut points: Vec<_> = (0..100_000).map(|x| (f64::from(x), 1.0)).collect();
        points[56_789].1 = 9.0;
        points[3].1 = -4.0;
        let kept = thinned(&points);
        assert!(kept.len() < 2_000, "{}", kept.len());
        assert!(kept.contains(&points[56_789]) && kept.contains(&points[3]));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn a_wide_range_of_losses_gets_a_logarithmic_axis() {
        let wide = chart(vec![(0.0, 40.0), (1.0, 0.4)]);
        assert!((wide.y_axis().place(4.0) - 0.5).abs() < 1e-9);
        let narrow = chart(vec![(0.0, 1.0), (1.0, 0.4)]);
        assert!((narrow.y_axis().place(0.7) - 0.5).abs() < 1e-9);
        let with_zero = chart(vec![(0.0, 40.0), (1.0, 0.0)]);
        assert!((with_zero.y_axis().place(20.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_range_reaches_to_the_reference() {
        let mut chart = chart(vec![(0.0, 1.0), (1.0, 0.4)]);
        chart.references.push(Reference { name: "gene means".into(), value: 1.9 });
        assert!((0.0..=1.0).contains(&chart.y_axis().place(1.9)));
        assert!(chart.to_svg().contains("gene means (1.900)"));
    }

    #[test]
    fn points_that_are_not_finite_leave_a_gap_and_nothing_else() {
        let nan = f64::NAN;
        let svg = chart(vec![(0.0, 1.0), (1.0, 2.0), (2.0, nan), (3.0, 1.5), (4.0, f64::INFINITY)]).to_svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for points in [vec![], vec![(0.0, nan)]] {
            let svg = chart(points).to_svg();
            assert!(svg.contains("no values yet") && !svg.contains("NaN"));
        }
    }
}
