//! Cells in the plane, coloured by a label.

use super::axis::{Axis, Range};
use super::category::{Category, Columns, Legend};
use super::frame::{BELOW_FRAME, BELOW_TITLE, Frame, LEFT, SWATCH, title};
use super::svg::{Anchor, Role, Svg, WIDTH, fit, text_width};

/// Height of the figure's frame in user units.
const FRAME_HEIGHT: f64 = 440.0;
/// Right edge of the frame when the legend stands beside it.
const BESIDE_LEGEND: f64 = 490.0;
/// More entries than fit beside the frame go below it.
const MOST_ENTRIES_BESIDE: usize = 23;
/// Widest name that fits beside the frame, in user units. Longer ones are better read below it than cut.
const NAME_BESIDE: f64 = 175.0;
/// With more categories than this, names among the points would hide them.
const MOST_NAMES_ON_DATA: usize = 12;
/// Widest name among the points, in user units.
const NAME_ON_DATA: f64 = 190.0;

/// A cell in the plane.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterPoint {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate. A point with a coordinate that is not finite is not drawn.
    pub y: f64,
    /// The cell's category. Blank text counts as no label.
    pub label: Option<String>,
}

/// Points coloured by category, with a legend of names and counts.
///
/// The forty most frequent categories get a mark of their own, ten colours in four shapes; the rest are grey, as
/// are points without a label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scatter {
    /// What the figure shows.
    pub title: String,
    /// What x is, with its unit.
    pub x_name: String,
    /// What y is, with its unit.
    pub y_name: String,
    /// What the labels are, the legend's heading.
    pub label_name: String,
    /// What a point is, in the plural: the heading of the legend's counts.
    pub point_name: String,
    /// Labels that come first, in that order, so that two figures of the same cells give a label the same mark.
    /// The others follow from the most to the least frequent.
    pub label_order: Vec<String>,
    /// Whether labels are left to the legend and not written among the points too.
    pub hide_names: bool,
    /// The points.
    pub points: Vec<ScatterPoint>,
}

impl Scatter {
    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let categories = self.categories();
        let has_legend = categories.iter().any(|category| category.is_label);
        let widest = categories
            .iter()
            .map(|category| text_width(&category.name, Role::Entry.size()))
            .fold(0.0, f64::max);
        let beside = categories.len() <= MOST_ENTRIES_BESIDE && widest <= NAME_BESIDE;

        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        let bottom = BELOW_TITLE + FRAME_HEIGHT;
        let right = if has_legend && beside { BESIDE_LEGEND } else { WIDTH - 12.0 };
        let axis = |name: &str, values: Option<Range>| {
            let range = values.unwrap_or(Range { low: 0.0, high: 1.0 });
            Axis::linear(name, range.widened(0.03), 6, false)
        };
        let drawn = || categories.iter().flat_map(|category| &category.points);
        let x = axis(&self.x_name, Range::of(drawn().map(|point| point.x)));
        let y = axis(&self.y_name, Range::of(drawn().map(|point| point.y)));
        let frame = Frame::new(BELOW_TITLE, right, bottom, x, y);
        frame.draw(&mut svg);

        let n_points = drawn().count();
        if n_points == 0 {
            frame.draw_emptiness(&mut svg, "nothing to draw");
        }
        let radius = match n_points {
            0..=300 => 4.0,
            301..=1_500 => 3.0,
            1_501..=6_000 => 2.2,
            _ => 1.6,
        };
        let place = |point: &ScatterPoint| (frame.x(point.x), frame.y(point.y));
        // What has no label lies lowest, then the frequent ones: a rare cell type must not vanish under them.
        for category in categories.iter().rev().filter(|category| !category.is_label) {
            category.draw(&mut svg, place, radius, 0.8);
        }
        let mut labelled: Vec<_> = categories.iter().filter(|category| category.is_label).collect();
        labelled.sort_by_key(|category| std::cmp::Reverse(category.points.len()));
        for category in &labelled {
            category.draw(&mut svg, place, radius, 0.8);
        }
        if labelled.len() <= MOST_NAMES_ON_DATA && !self.hide_names {
            draw_names(&mut svg, &frame, &categories);
        }
        let height = bottom + BELOW_FRAME;
        let height = match (has_legend, beside) {
            (false, _) => height,
            (true, true) => {
                let columns = Columns {
                    left: BESIDE_LEGEND + 20.0,
                    top: BELOW_TITLE + 4.0,
                    width: WIDTH - BESIDE_LEGEND - 28.0,
                    n: 1,
                };
                height.max(self.legend(&columns).draw(&mut svg, &categories))
            }
            (true, false) => {
                let n = ((WIDTH - LEFT) / (widest + SWATCH + 70.0)).clamp(2.0, 4.0);
                let columns = Columns {
                    left: LEFT,
                    top: height + 14.0,
                    width: (WIDTH - 2.0 * LEFT) / n.floor() - 20.0,
                    n: n as usize,
                };
                self.legend(&columns).draw(&mut svg, &categories)
            }
        };
        svg.finish(height, &self.title)
    }

    fn legend<'a>(&'a self, columns: &'a Columns) -> Legend<'a> {
        Legend { label_name: &self.label_name, point_name: &self.point_name, columns }
    }

    fn categories(&self) -> Vec<Category<'_>> {
        Category::of(&self.points, &self.label_order)
    }
}

/// Writes the categories' names at their middles, moved up or down where two would overlap, and leaves out
/// those there is no room for: the legend has them all.
fn draw_names(svg: &mut Svg, frame: &Frame, categories: &[Category<'_>]) {
    let [left, top, right, bottom] = frame.edges();
    let size = Role::OnData.size();
    let mut taken: Vec<[f64; 4]> = Vec::new();
    for category in categories.iter().filter(|category| category.is_label) {
        let name = fit(&category.name, size, NAME_ON_DATA);
        let half = text_width(&name, size) / 2.0 + 2.0;
        let x = frame.x(middle(category.points.iter().map(|point| point.x))).clamp(left + half, right - half);
        let centre = frame.y(middle(category.points.iter().map(|point| point.y)));
        let free = [0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0].into_iter().find_map(|step| {
            let y = centre + step * (size + 3.0);
            let place = [x - half, y - size, x + half, y + 3.0];
            let inside = y - size >= top && y + 3.0 <= bottom;
            (inside && !taken.iter().any(|other| overlap(other, &place))).then_some((y, place))
        });
        if let Some((y, place)) = free {
            taken.push(place);
            svg.text(x, y, Anchor::Middle, Role::OnData, &name);
        }
    }
}

/// Whether two boxes (left, top, right, bottom) share any room.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// The median, which lies among the cells where the mean of two clusters would not.
fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let at = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f64::total_cmp).1 }
}

#[cfg(test)]
mod tests {
    use super::super::palette::ONLY;
    use super::*;

    fn point(at: usize, label: Option<&str>) -> ScatterPoint {
        ScatterPoint { x: (at % 7) as f64, y: (at / 7) as f64, label: label.map(str::to_owned) }
    }

    fn summary(scatter: &Scatter) -> Vec<(String, usize)> {
        scatter.categories().into_iter().map(|category| (category.name, category.points.len())).collect()
    }

    #[test]
    fn categories_are_ranked_by_count_and_blank_labels_are_none() {
        let labels = [Some("NK"), Some("B"), Some("T"), Some("T "), None, Some("  "), Some("B"), Some("T")];
        let points = labels.iter().enumerate().map(|(at, label)| point(at, *label)).collect();
        let scatter = Scatter { points, ..Scatter::default() };
        let expected = [("T", 3), ("B", 2), ("NK", 1), ("no label", 2)];
        assert_eq!(summary(&scatter), expected.map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn a_given_order_of_labels_comes_before_their_frequency() {
        let points = ["wrong", "wrong", "right", "other"].into_iter().enumerate();
        let points = points.map(|(at, label)| point(at, Some(label))).collect();
        let label_order = ["absent", "right"].map(str::to_owned).to_vec();
        let scatter = Scatter { points, label_order, ..Scatter::default() };
        let expected = [("right", 1), ("wrong", 2), ("other", 1)];
        assert_eq!(summary(&scatter), expected.map(|(name, n)| (name.to_owned(), n)));
        let named = scatter.to_svg().matches(">wrong<").count();
        assert_eq!(Scatter { hide_names: true, ..scatter }.to_svg().matches(">wrong<").count(), named - 1);
    }

    #[test]
    fn the_rarest_of_many_labels_share_one_entry() {
        let points = (0..50)
            .flat_map(|kind| (0..=kind).map(move |at| point(at, Some(&format!("type {kind}")))))
            .collect();
        let scatter = Scatter { points, ..Scatter::default() };
        let found = summary(&scatter);
        assert_eq!(found.len(), 41);
        assert_eq!(found[0], ("type 49".to_owned(), 50));
        assert_eq!(found[40], ("10 rarer labels".to_owned(), (1..=10).sum()));
    }

    #[test]
    fn cells_without_any_label_need_no_legend() {
        let svg = Scatter { points: vec![point(0, None), point(8, None)], ..Scatter::default() }.to_svg();
        assert!(svg.contains(ONLY) && !svg.contains("font-weight=\"600\">no label"));
    }

    #[test]
    fn a_hostile_label_stays_text() {
        let svg = Scatter { points: vec![point(0, Some("<script>alert(1)</script>"))], ..Scatter::default() }
            .to_svg();
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn points_that_are_not_finite_are_not_drawn() {
        let nowhere = ScatterPoint { x: f64::NAN, y: 1.0, label: Some("B".into()) };
        let svg = Scatter { points: vec![nowhere], ..Scatter::default() }.to_svg();
        assert!(svg.contains("nothing to draw") && !svg.contains("NaN"));
    }
}
