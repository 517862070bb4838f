//! Whether confidences keep what they promise.

use super::axis::{Axis, Range};
use super::frame::{BELOW_TITLE, Frame, LEFT, ROW, SWATCH, title};
use super::palette::ONLY;
use super::svg::{Anchor, Role, Stroke, Svg, WIDTH, text_width};
use crate::metrics::{Calibration, ReliabilityBin};
use crate::number::{decimal, grouped, percent};

/// Heights of the bars' frame and of the histogram's below it.
const BARS: f64 = 250.0;
const COUNTS: f64 = 64.0;
/// Between two panels, and between a panel's two frames.
const BETWEEN: f64 = 26.0;
/// The last tick's label reaches beyond its frame.
const LABEL_ROOM: f64 = 12.0;

/// How a bar is filled.
#[derive(Debug, Clone, Copy)]
struct Shade {
    colour: &'static str,
    opacity: f64,
}

/// A bar up to what is both accuracy and confidence, and what either has beyond the other.
const ACCURACY: Shade = Shade { colour: ONLY, opacity: 0.85 };
const TOO_SURE: Shade = Shade { colour: "#d55e00", opacity: 0.5 };
const NOT_SURE_ENOUGH: Shade = Shade { colour: ONLY, opacity: 0.4 };

/// One set of confidences.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReliabilityPanel {
    /// What it is: "before temperature scaling".
    pub name: String,
    /// Confidence against accuracy.
    pub calibration: Calibration,
}

/// How often predictions of each confidence are right, with how far that is from what they promise and how many there
/// are of each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReliabilityDiagram {
    /// What the figure shows.
    pub title: String,
    /// One or two sets of confidences, side by side; further ones are left out.
    pub panels: Vec<ReliabilityPanel>,
}

impl ReliabilityDiagram {
    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        draw_legend(&mut svg);
        let empty = [ReliabilityPanel::default()];
        let panels =
            if self.panels.is_empty() { &empty[..] } else { &self.panels[..self.panels.len().min(2)] };
        let width = (WIDTH - 2.0 * LEFT - BETWEEN * (panels.len() - 1) as f64) / panels.len() as f64;
        for (at, panel) in panels.iter().enumerate() {
            let left = LEFT + at as f64 * (width + BETWEEN);
            // One panel alone is not stretched over the whole figure: its diagonal would hardly rise.
            draw_panel(&mut svg, panel, left, left + width.min(460.0) - LABEL_ROOM);
        }
        svg.finish(top() + BARS + BETWEEN + COUNTS + 52.0, &self.title)
    }
}

/// Top of the panels' frames, below the legend and the panels' names.
fn top() -> f64 {
    BELOW_TITLE + 2.0 * ROW + 20.0
}

fn draw_legend(svg: &mut Svg) {
    let y = BELOW_TITLE + 10.0;
    let mut x = LEFT;
    for (name, Shade { colour, opacity }) in
        [("accuracy", ACCURACY), ("too sure", TOO_SURE), ("not sure enough", NOT_SURE_ENOUGH)]
    {
        svg.push(format_args!(
            r#"<rect x="{x:.1}" y="{:.1}" width="{SWATCH}" height="10" fill="{colour}" opacity="{opacity}"/>"#,
            y - 9.0
        ));
        svg.text(x + SWATCH + 6.0, y, Anchor::Start, Role::Entry, name);
        x += SWATCH + 26.0 + text_width(name, Role::Entry.size());
    }
    svg.line((x, y - 4.0), (x + SWATCH, y - 4.0), Stroke::Rule);
    svg.text(x + SWATCH + 6.0, y, Anchor::Start, Role::Entry, "as right as sure");
}

fn draw_panel(svg: &mut Svg, panel: &ReliabilityPanel, left: f64, right: f64) {
    let calibration = &panel.calibration;
    let unit = Range { low: 0.0, high: 1.0 };
    let bottom = top() + BARS;
    let frame = Frame::right_of(
        left,
        top(),
        right,
        bottom,
        Axis::linear("", unit, 5, false),
        Axis::linear("accuracy", unit, 5, false).with_labels(percent),
    );
    frame.draw(svg);
    let [inner_left, ..] = frame.edges();
    let n_cells = calibration.n_cells();
    let about = match n_cells {
        0 => panel.name.clone(),
        _ => format!("{} (calibration error {})", panel.name, decimal(calibration.expected_error(), 3)),
    };
    svg.text_within(inner_left, top() - 10.0, right - inner_left, Role::Entry, &about);
    let filled = || calibration.bins.iter().filter(|bin| bin.n_cells > 0);
    for bin in filled() {
        draw_bin(svg, &frame, bin);
    }
    svg.line((frame.x(0.0), frame.y(0.0)), (frame.x(1.0), frame.y(1.0)), Stroke::Rule);
    if n_cells == 0 {
        frame.draw_emptiness(svg, "no confidences");
    }
    let most = filled().map(|bin| bin.n_cells as f64 / n_cells as f64).fold(0.0, f64::max);
    let shares =
        Axis::linear("cells", Range { low: 0.0, high: if most > 0.0 { most } else { 1.0 } }, 2, true);
    let shares = shares.with_labels(percent);
    let below = Frame::right_of(
        left,
        bottom + BETWEEN,
        right,
        bottom + BETWEEN + COUNTS,
        Axis::linear("confidence", unit, 5, false),
        shares,
    )
    .aligned_with(&frame);
    below.draw(svg);
    for bin in filled() {
        let share = bin.n_cells as f64 / n_cells as f64;
        draw_bar(svg, &below, bin, (0.0, share), ACCURACY);
    }
}

fn draw_bin(svg: &mut Svg, frame: &Frame, bin: &ReliabilityBin) {
    svg.open_group(
        &format!(
            "confidence {}: {} right of {} cells",
            decimal(bin.mean_confidence, 3),
            percent(bin.accuracy),
            grouped(bin.n_cells)
        ),
        "",
    );
    draw_bar(svg, frame, bin, (0.0, bin.accuracy.min(bin.mean_confidence)), ACCURACY);
    if bin.accuracy < bin.mean_confidence {
        draw_bar(svg, frame, bin, (bin.accuracy, bin.mean_confidence), TOO_SURE);
    } else {
        draw_bar(svg, frame, bin, (bin.mean_confidence, bin.accuracy), NOT_SURE_ENOUGH);
    }
    svg.close_group();
}

/// A bar over a bin's interval from one value to another.
fn draw_bar(
    svg: &mut Svg,
    frame: &Frame,
    bin: &ReliabilityBin,
    (from, to): (f64, f64),
    Shade { colour, opacity }: Shade,
) {
    let (left, right) = (frame.x(bin.low) + 0.5, frame.x(bin.high) - 0.5);
    let (top, bottom) = (frame.y(to), frame.y(from));
    svg.push(format_args!(
        r#"<rect x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}" fill="{colour}" opacity="{opacity}"/>"#,
        right - left,
        bottom - top
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_written_and_empty_bins_have_no_bar() {
        let calibration = Calibration::new(&[0.95, 0.95, 0.95, 0.41], &[true, true, false, false]).unwrap();
        let panel = ReliabilityPanel { name: "as trained".into(), calibration };
        let svg = ReliabilityDiagram { title: "Reliability".into(), panels: vec![panel] }.to_svg();
        // (3·|2/3 - 0.95| + 1·0.41) / 4
        assert!(svg.contains("as trained (calibration error 0.315)"));
        assert!(svg.contains("67\u{a0}% right of 3 cells"));
        assert_eq!(svg.matches(" right of ").count(), 2);
    }

    #[test]
    fn without_confidences_it_says_so() {
        for panels in [vec![], vec![ReliabilityPanel::default(); 3]] {
            let svg = ReliabilityDiagram { panels, ..ReliabilityDiagram::default() }.to_svg();
            assert!(svg.contains("no confidences") && !svg.contains("NaN"));
        }
    }
}
