//! Spots where they lie in the tissue, coloured by a label or a value.

use super::axis::Range;
use super::category::{Category, Columns, Legend};
use super::frame::{BELOW_TITLE, LEFT, title};
use super::palette::strength_colour;
use super::scatter::ScatterPoint;
use super::svg::{Anchor, Role, Svg, WIDTH, text_width};
use crate::number::significant;

/// Panels side by side, at most.
const MOST_COLUMNS: usize = 3;
/// Between two panels, across and down.
const BETWEEN: f64 = 20.0;
/// Tissue is not drawn higher than this, nor lower.
const HIGHEST: f64 = 560.0;
const LOWEST: f64 = 90.0;
/// Room for a panel's name above it, and between a panel and its legend.
const NAME_ROOM: f64 = 22.0;
const LEGEND_ROOM: f64 = 8.0;
/// Colours that values are rounded to: with as many paths a picture of 100,000 spots stays small.
const N_SHADES: usize = 32;
const BAR_HEIGHT: f64 = 10.0;

/// A spot with a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValuedSpot {
    /// Place from the left.
    pub x: f64,
    /// Place from the top. A spot with a coordinate that is not finite is not drawn.
    pub y: f64,
    /// What its colour shows. A spot whose value is not finite is grey.
    pub value: f64,
}

/// What a panel's spots are coloured by.
#[derive(Debug, Clone, PartialEq)]
pub enum SpatialSpots {
    /// A label: a domain, a layer, a cell type. `y` counts from the top.
    Labelled {
        /// What the labels are, the legend's heading.
        label_name: String,
        /// Labels that come first, in that order, so that two panels give matching labels the same colour. The others
        /// follow from the most to the least frequent.
        label_order: Vec<String>,
        /// The spots.
        spots: Vec<ScatterPoint>,
    },
    /// A number: the expression of a gene, a score.
    Valued {
        /// What the value is, with its unit.
        value_name: String,
        /// The values of the first and the last colour; by default the lowest and the highest.
        limits: Option<(f64, f64)>,
        /// The spots.
        spots: Vec<ValuedSpot>,
    },
}

/// One picture of a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct SpatialPanel {
    /// What it shows: "annotated layers", "domains".
    pub name: String,
    /// The spots.
    pub spots: SpatialSpots,
}

/// Slices of tissue side by side, to the same scale in both directions, with y downwards as in the microscope's image.
///
/// Every panel shows all of its own spots, a label of more than 20,000 by the squares they fall into. The forty most
/// frequent labels of each get a mark of their own, as in a [`Scatter`](super::Scatter).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpatialMap {
    /// What the figure shows.
    pub title: String,
    /// What a point is, in the plural: "spots", "cells".
    pub point_name: String,
    /// The panels, up to three in a row.
    pub panels: Vec<SpatialPanel>,
}

impl SpatialMap {
    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        let mut bottom = BELOW_TITLE;
        if self.panels.is_empty() {
            svg.text(WIDTH / 2.0, bottom + 40.0, Anchor::Middle, Role::Aside, "nothing to draw");
            return svg.finish(bottom + 80.0, &self.title);
        }
        // Four are two rows of two rather than three and a lonely one.
        let n_columns = if self.panels.len() == 4 { 2 } else { self.panels.len().min(MOST_COLUMNS) };
        let width = (WIDTH - 2.0 * LEFT - BETWEEN * (n_columns - 1) as f64) / n_columns as f64;
        for row in self.panels.chunks(n_columns) {
            let extents: Vec<Extent> = row.iter().map(Extent::of).collect();
            let height = extents
                .iter()
                .map(|extent| width * extent.aspect())
                .fold(0.0, f64::max)
                .clamp(LOWEST, HIGHEST);
            let top = bottom + NAME_ROOM;
            for (at, (panel, extent)) in row.iter().zip(&extents).enumerate() {
                let left = LEFT + at as f64 * (width + BETWEEN);
                svg.text_within(left, top - 8.0, width, Role::AxisName, &panel.name);
                svg.push(format_args!(
                    r##"<rect class="cp-panel" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" fill="#f5f7f9"/>"##
                ));
                let view = View::new(extent, left, top, width, height);
                bottom = bottom.max(self.draw_panel(&mut svg, panel, &view));
            }
            bottom += BETWEEN;
        }
        svg.finish(bottom, &self.title)
    }

    /// Draws spots and legend, and returns where the legend ends.
    fn draw_panel(&self, svg: &mut Svg, panel: &SpatialPanel, view: &View) -> f64 {
        if view.n_spots == 0 {
            let (x, y) = (view.left + view.width / 2.0, view.top + view.height / 2.0);
            svg.text(x, y, Anchor::Middle, Role::Aside, "nothing to draw");
            return view.bottom();
        }
        match &panel.spots {
            SpatialSpots::Labelled { label_name, label_order, spots } => {
                let categories = Category::of(spots, label_order);
                for category in categories.iter().rev() {
                    category.draw(svg, |spot| view.place(spot.x, spot.y), view.radius, 1.0);
                }
                let columns = legend_columns(&categories, view);
                Legend { label_name, point_name: &self.point_name, columns: &columns }.draw(svg, &categories)
            }
            SpatialSpots::Valued { value_name, limits, spots } => {
                let given = limits.filter(|(low, high)| low.is_finite() && high.is_finite());
                let range = match given {
                    Some((low, high)) => Range { low, high },
                    None => Range::of(spots.iter().map(|spot| spot.value))
                        .unwrap_or(Range { low: 0.0, high: 0.0 }),
                };
                draw_values(svg, spots, range, view);
                draw_bar(svg, value_name, range, view)
            }
        }
    }
}

/// As many columns as names fit beside each other, below the panel.
fn legend_columns(categories: &[Category<'_>], view: &View) -> Columns {
    let widest =
        categories.iter().map(|category| text_width(&category.name, Role::Entry.size())).fold(0.0, f64::max);
    let n =
        ((view.width + 20.0) / (widest + 90.0)).clamp(1.0, 4.0).floor().min(categories.len().max(1) as f64);
    Columns {
        left: view.left,
        top: view.bottom() + LEGEND_ROOM,
        width: (view.width - 20.0 * (n - 1.0)) / n,
        n: n as usize,
    }
}

fn draw_values(svg: &mut Svg, spots: &[ValuedSpot], range: Range, view: &View) {
    let mut shades = vec![String::new(); N_SHADES];
    let mut without = String::new();
    for spot in spots.iter().filter(|spot| spot.x.is_finite() && spot.y.is_finite()) {
        let (x, y) = view.place(spot.x, spot.y);
        let strength = (spot.value - range.low) / (range.high - range.low);
        let path = if spot.value.is_finite() {
            // Equal values have no range to lie in.
            let strength = if strength.is_finite() { strength.clamp(0.0, 1.0) } else { 0.0 };
            &mut shades[((strength * N_SHADES as f64) as usize).min(N_SHADES - 1)]
        } else {
            &mut without
        };
        path.push_str(&format!("M{x:.1},{y:.1}h0"));
    }
    let width = view.radius * 2.0;
    let grey = super::palette::GREY.to_owned();
    // The highest values lie on top.
    let shades = shades.iter().enumerate().map(|(at, path)| (path, shade(at)));
    for (path, colour) in std::iter::once((&without, grey)).chain(shades).filter(|(path, _)| !path.is_empty())
    {
        svg.push(format_args!(
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1}" stroke-linecap="round"/>"#
        ));
    }
}

/// The colour of a step of the scale.
fn shade(at: usize) -> String {
    strength_colour(at as f64 / (N_SHADES - 1) as f64)
}

fn draw_bar(svg: &mut Svg, value_name: &str, range: Range, view: &View) -> f64 {
    let y = view.bottom() + LEGEND_ROOM + 4.0;
    let step = view.width / N_SHADES as f64;
    for at in 0..N_SHADES {
        svg.push(format_args!(
            r#"<rect x="{:.2}" y="{y:.1}" width="{:.2}" height="{BAR_HEIGHT}" fill="{}"/>"#,
            view.left + at as f64 * step,
            step + 0.3,
            shade(at),
        ));
    }
    let below = y + BAR_HEIGHT + 15.0;
    let (low, high) = (significant(range.low, 3), significant(range.high, 3));
    svg.text(view.left, below, Anchor::Start, Role::Tick, &low);
    svg.text(view.left + view.width, below, Anchor::End, Role::Tick, &high);
    let beside = text_width(&low, Role::Tick.size()).max(text_width(&high, Role::Tick.size())) + 8.0;
    let room = view.width - 2.0 * beside;
    let name = super::svg::fit(value_name, Role::Aside.size(), room.max(20.0));
    svg.text(view.left + view.width / 2.0, below, Anchor::Middle, Role::Aside, &name);
    below + 6.0
}

/// What the spots of a panel take up.
#[derive(Debug, Clone, Copy)]
struct Extent {
    x: Range,
    y: Range,
    n_spots: usize,
}

impl Extent {
    fn of(panel: &SpatialPanel) -> Self {
        let places: Vec<(f64, f64)> = match &panel.spots {
            SpatialSpots::Labelled { spots, .. } => spots.iter().map(|spot| (spot.x, spot.y)).collect(),
            SpatialSpots::Valued { spots, .. } => spots.iter().map(|spot| (spot.x, spot.y)).collect(),
        };
        let finite = || places.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let none = Range { low: 0.0, high: 0.0 };
        let widened = |range: Option<Range>| range.unwrap_or(none).widened(0.03);
        Self {
            x: widened(Range::of(finite().map(|(x, _)| *x))),
            y: widened(Range::of(finite().map(|(_, y)| *y))),
            n_spots: finite().count(),
        }
    }

    /// Height over width.
    fn aspect(&self) -> f64 {
        let aspect = (self.y.high - self.y.low) / (self.x.high - self.x.low);
        if aspect.is_finite() { aspect } else { 1.0 }
    }
}

/// From places in the tissue to places in the figure.
#[derive(Debug)]
struct View {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    /// Units of the figure for one of the tissue, in both directions.
    scale: f64,
    middle: (f64, f64),
    radius: f64,
    n_spots: usize,
}

impl View {
    fn new(extent: &Extent, left: f64, top: f64, width: f64, height: f64) -> Self {
        let (across, down) = (extent.x.high - extent.x.low, extent.y.high - extent.y.low);
        let scale = (width / across).min(height / down);
        let scale = if scale.is_finite() { scale } else { 1.0 };
        let area = (across * scale).max(1.0) * (down * scale).max(1.0);
        // Spots that fill the area just touch; a few stay dots.
        let radius = 0.48 * (area / extent.n_spots.max(1) as f64).sqrt();
        Self {
            left,
            top,
            width,
            height,
            scale,
            middle: (f64::midpoint(extent.x.low, extent.x.high), f64::midpoint(extent.y.low, extent.y.high)),
            radius: radius.clamp(0.5, 6.0),
            n_spots: extent.n_spots,
        }
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + self.width / 2.0 + (x - self.middle.0) * self.scale,
            self.top + self.height / 2.0 + (y - self.middle.1) * self.scale,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(spots: &[(f64, f64, &str)]) -> SpatialPanel {
        let spot = |&(x, y, label): &(f64, f64, &str)| ScatterPoint { x, y, label: Some(label.to_owned()) };
        SpatialPanel {
            name: "domains".into(),
            spots: SpatialSpots::Labelled {
                label_name: "domain".into(),
                label_order: Vec::new(),
                spots: spots.iter().map(spot).collect(),
            },
        }
    }

    fn valued(values: &[f64]) -> SpatialPanel {
        let spot = |(at, &value): (usize, &f64)| ValuedSpot { x: at as f64, y: (at % 3) as f64, value };
        SpatialPanel {
            name: "gene".into(),
            spots: SpatialSpots::Valued {
                value_name: "expression".into(),
                limits: None,
                spots: values.iter().enumerate().map(spot).collect(),
            },
        }
    }

    fn svg(panels: Vec<SpatialPanel>) -> String {
        SpatialMap { title: "A slice".into(), point_name: "spots".into(), panels }.to_svg()
    }

    #[test]
    fn both_directions_have_the_same_scale_and_y_goes_down() {
        let panel = labelled(&[(0.0, 0.0, "a"), (100.0, 0.0, "a"), (0.0, 300.0, "b")]);
        let extent = Extent::of(&panel);
        let view = View::new(&extent, 10.0, 20.0, 400.0, 500.0);
        let [(x, y), (right, _), (_, below)] =
            [view.place(0.0, 0.0), view.place(100.0, 0.0), view.place(0.0, 300.0)];
        assert!(below > y && right > x);
        assert!(((below - y) / (right - x) - 3.0).abs() < 1e-9);
        assert!(y >= 20.0 && below <= 520.0 && x >= 10.0 && right <= 410.0);
    }

    #[test]
    fn panels_stand_side_by_side_and_then_below_each_other() {
        let panel = || labelled(&[(0.0, 0.0, "a"), (1.0, 1.0, "b")]);
        let places = |n: usize| {
            let document = svg((0..n).map(|_| panel()).collect());
            let panels = document.split(r#"<rect class="cp-panel" x=""#).skip(1);
            panels.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(places(2).len(), 2);
        assert_ne!(places(2)[0], places(2)[1]);
        let four = places(4);
        assert_eq!((&four[0], &four[1]), (&four[2], &four[3]));
        let five = places(5);
        assert_eq!((&five[0], &five[1]), (&five[3], &five[4]));
    }

    #[test]
    fn values_have_colours_and_those_that_are_missing_are_grey() {
        let document = svg(vec![valued(&[0.0, 1.0, 5.0, f64::NAN])]);
        assert!(document.contains(&shade(0)) && document.contains(&shade(N_SHADES - 1)));
        assert!(document.contains(super::super::palette::GREY) && !document.contains("NaN"));
        let equal = svg(vec![valued(&[2.0, 2.0])]);
        assert!(!equal.contains("NaN") && !equal.contains("inf"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out_and_said() {
        let nothing =
            [vec![], vec![labelled(&[])], vec![valued(&[])], vec![labelled(&[(f64::NAN, 1.0, "a")])]];
        for panels in nothing {
            let document = svg(panels);
            assert!(document.contains("nothing to draw") && !document.contains("NaN"), "{document}");
        }
        let one = svg(vec![labelled(&[(5.0, 5.0, "<b>")])]);
        assert!(one.contains("&lt;b&gt;") && !one.contains("NaN") && !one.contains("inf"), "{one}");
    }

    #[test]
    fn a_million_spots_are_a_picture_that_can_be_opened() {
        let spot = |at: usize| {
            let (x, y) = (at % 1_000, at / 1_000);
            (x as f64, y as f64, if x < 500 { "left" } else { "right" })
        };
        let many: Vec<_> = (0..1_000_000).map(spot).collect();
        let svg = svg(vec![labelled(&many)]);
        assert!(svg.len() < 20_000_000, "{} bytes", svg.len());
        assert!(svg.contains("left (500,000)"), "the legend counts all of them");
    }
}
