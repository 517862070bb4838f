//! Points by label, and the legend of the labels.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::ROW;
use super::palette::{Mark, N_MARKS, ONLY, Shape};
use super::scatter::ScatterPoint;
use super::svg::{Anchor, Role, Svg, text_width};
use crate::number::grouped;

/// More points of a category than this are drawn on a grid of the figure's unit, each square once: nobody sees finer, and a
/// picture of a million cells stays a few megabytes.
const MOST_MARKS: usize = 20_000;
/// Radius of a mark that covers its square.
const SQUARE: f64 = 0.71;

/// Some points that look alike.
#[derive(Debug)]
pub(super) struct Category<'a> {
    pub(super) name: String,
    pub(super) mark: Mark,
    /// Whether it is one label rather than the rest, which has no place to write a name at.
    pub(super) is_label: bool,
    pub(super) points: Vec<&'a ScatterPoint>,
}

impl<'a> Category<'a> {
    /// The labels in their order, then what is left over and what has none.
    pub(super) fn of(all: &'a [ScatterPoint], label_order: &[String]) -> Vec<Self> {
        let mut by_label = BTreeMap::<&str, Vec<&ScatterPoint>>::new();
        let mut unlabelled = Vec::new();
        for point in all.iter().filter(|point| point.x.is_finite() && point.y.is_finite()) {
            match point.label.as_deref().map(str::trim) {
                Some(label) if !label.is_empty() => by_label.entry(label).or_default().push(point),
                _ => unlabelled.push(point),
            }
        }
        let mut ranked: Vec<_> = by_label.into_iter().collect();
        // Stable, so that equally frequent labels stay in alphabetical order.
        let place = |label: &str| label_order.iter().position(|first| first.trim() == label);
        ranked.sort_by_cached_key(|(label, points)| {
            (place(label).unwrap_or(usize::MAX), std::cmp::Reverse(points.len()))
        });
        let rest = ranked.split_off(ranked.len().min(N_MARKS));
        let has_labels = !ranked.is_empty();
        let mut categories: Vec<_> = ranked
            .into_iter()
            .enumerate()
            .map(|(rank, (label, points))| Self {
                name: label.to_owned(),
                mark: Mark::of_rank(rank),
                is_label: true,
                points,
            })
            .collect();
        if !rest.is_empty() {
            let name = format!("{} rarer labels", grouped(rest.len() as u64));
            let points = rest.into_iter().flat_map(|(_, points)| points).collect();
            categories.push(Self { name, mark: Mark::NONE, is_label: false, points });
        }
        if !unlabelled.is_empty() {
            let mark = if has_labels { Mark::NONE } else { Mark { colour: ONLY, shape: Shape::Circle } };
            categories.push(Self { name: "no label".to_owned(), mark, is_label: false, points: unlabelled });
        }
        categories
    }

    /// Draws the points at the places they get in the figure.
    pub(super) fn draw(
        &self,
        svg: &mut Svg,
        place: impl Fn(&ScatterPoint) -> (f64, f64),
        radius: f64,
        opacity: f64,
    ) {
        let places = self.points.iter().map(|point| place(point));
        let (path, radius): (String, f64) = if self.points.len() > MOST_MARKS {
            let radius = radius.max(SQUARE);
            let squares: BTreeSet<_> = places.map(|(x, y)| (x.floor() as i32, y.floor() as i32)).collect();
            let mark = |(x, y)| self.mark.shape.path(f64::from(x) + 0.5, f64::from(y) + 0.5, radius);
            (squares.into_iter().map(mark).collect(), radius)
        } else {
            (places.map(|(x, y)| self.mark.shape.path(x, y, radius)).collect(), radius)
        };
        svg.open_group(
            &format!("{} ({})", self.name, grouped(self.points.len() as u64)),
            &format!(r#"opacity="{opacity}""#),
        );
        svg.push(format_args!(r#"<path d="{path}" {}/>"#, self.mark.attributes(radius)));
        svg.close_group();
    }
}

/// Where a legend's columns stand.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) n: usize,
}

/// What marks stand for.
#[derive(Debug)]
pub(super) struct Legend<'a> {
    /// What the labels are.
    pub(super) label_name: &'a str,
    /// What a point is, in the plural.
    pub(super) point_name: &'a str,
    pub(super) columns: &'a Columns,
}

impl Legend<'_> {
    /// Draws it, filled column by column, and returns where it ends.
    pub(super) fn draw(&self, svg: &mut Svg, categories: &[Category<'_>]) -> f64 {
        let columns = self.columns;
        let size = Role::Entry.size();
        let n_rows = categories.len().div_ceil(columns.n);
        for (at, category) in categories.iter().enumerate() {
            let left = columns.left + (at / n_rows) as f64 * (columns.width + 20.0);
            let right = left + columns.width;
            if at.is_multiple_of(n_rows) {
                svg.text_within(left, columns.top + 8.0, columns.width - 50.0, Role::Aside, self.label_name);
                svg.text(right, columns.top + 8.0, Anchor::End, Role::Aside, self.point_name);
            }
            let y = columns.top + 8.0 + (at % n_rows + 1) as f64 * ROW;
            let count = grouped(category.points.len() as u64);
            let path = category.mark.shape.path(left + 6.0, y - 4.0, 4.5);
            svg.push(format_args!(r#"<path d="{path}" {}/>"#, category.mark.attributes(4.5)));
            let room = right - left - 18.0 - text_width(&count, size) - 8.0;
            svg.text_within(left + 18.0, y, room, Role::Entry, &category.name);
            svg.text(right, y, Anchor::End, Role::Aside, &count);
        }
        columns.top + 8.0 + (n_rows + 1) as f64 * ROW
    }
}
