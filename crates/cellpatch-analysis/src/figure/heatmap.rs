//! A table of numbers as colours.

use super::axis::Range;
use super::frame::{BELOW_TITLE, LEFT, title};
use super::palette::ONLY;
use super::svg::{Anchor, Role, Svg, WIDTH, fit, text_width};
use crate::metrics::ConfusionMatrix;
use crate::number::{grouped, percent, significant};

/// Widest name of a row and of a column, in user units.
const WIDEST_ROW_NAME: f64 = 230.0;
const WIDEST_COLUMN_NAME: f64 = 190.0;
/// A name needs so much room across its line.
const NAME_HEIGHT: f64 = 13.0;
/// Sides of a cell.
const SMALLEST_HEIGHT: f64 = 13.0;
const LARGEST_HEIGHT: f64 = 34.0;
const LARGEST_WIDTH: f64 = 72.0;
/// Room on the right for the colour bar and its labels.
const BAR_ROOM: f64 = 86.0;
const BAR_WIDTH: f64 = 13.0;
const BAR_STEPS: usize = 24;
/// From here on a cell's colour is strong enough for white text.
const STRONG: f64 = 0.55;

/// One cell of a [`Heatmap`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatmapCell {
    /// What the colour shows. A cell whose value is not finite stays blank.
    pub value: f64,
    /// What is written in the cell, where the texts of all cells fit theirs; may be empty.
    pub text: String,
}

/// One row of a [`Heatmap`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeatmapRow {
    /// Its name.
    pub name: String,
    /// Its cells, one a column; those that are missing stay blank, those beyond the columns are left out.
    pub cells: Vec<HeatmapCell>,
}

/// A table of numbers as colours, with names on both sides and a bar that says what the colours mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heatmap {
    /// What the figure shows.
    pub title: String,
    /// What the columns are.
    pub x_name: String,
    /// What the rows are.
    pub y_name: String,
    /// What the colours show, with its unit.
    pub value_name: String,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows from the top.
    pub rows: Vec<HeatmapRow>,
    /// The values of the palest and the strongest colour; by default 0, or the smallest value where that is negative,
    /// and the largest.
    pub limits: Option<(f64, f64)>,
}

impl Heatmap {
    /// A confusion matrix: colours by the share of each true class, counts in the cells. Classes that occur neither as
    /// truth nor as prediction are left out; those without cells of their own are blank rows.
    pub fn of_confusion(title: impl Into<String>, matrix: &ConfusionMatrix) -> Self {
        let classes = matrix.classes();
        let occurs = |class: &usize| classes[*class].support + classes[*class].n_predicted > 0;
        let occurring: Vec<usize> = (0..classes.len()).filter(occurs).collect();
        let row = |&truth: &usize| {
            let cell = |&predicted: &usize| {
                let count = matrix.count(truth, predicted);
                let value = count as f64 / classes[truth].support as f64;
                HeatmapCell { value, text: if count == 0 { String::new() } else { grouped(count) } }
            };
            HeatmapRow { name: classes[truth].name.clone(), cells: occurring.iter().map(cell).collect() }
        };
        Self {
            title: title.into(),
            x_name: "predicted".into(),
            y_name: "true".into(),
            value_name: "share of the true class".into(),
            columns: occurring.iter().map(|class| classes[*class].name.clone()).collect(),
            rows: occurring.iter().map(row).collect(),
            limits: Some((0.0, 1.0)),
        }
    }

    /// The figure as an SVG document, 760 units wide, that scales to the room it gets.
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::default();
        title(&mut svg, &self.title);
        let layout = Layout::of(self);
        if self.rows.is_empty() || self.columns.is_empty() {
            svg.text(WIDTH / 2.0, BELOW_TITLE + 40.0, Anchor::Middle, Role::Aside, "nothing to draw");
            return svg.finish(BELOW_TITLE + 80.0, &self.title);
        }
        let limits = self.limits();
        self.draw_cells(&mut svg, &layout, limits);
        self.draw_names(&mut svg, &layout);
        self.draw_bar(&mut svg, &layout, limits);
        let below_names = layout.bottom() + layout.name_depth + 12.0;
        svg.text(layout.middle(), below_names + 14.0, Anchor::Middle, Role::AxisName, &self.x_name);
        let centre = f64::midpoint(layout.top, layout.bottom());
        svg.text_upwards(LEFT + 10.0, centre, Role::AxisName, &self.y_name);
        svg.finish(below_names + 26.0, &self.title)
    }

    fn cells(&self) -> impl Iterator<Item = (usize, usize, &HeatmapCell)> {
        self.rows.iter().enumerate().flat_map(|(row, cells)| {
            let in_columns = cells.cells.iter().take(self.columns.len()).enumerate();
            in_columns.map(move |(column, cell)| (row, column, cell))
        })
    }

    fn limits(&self) -> Range {
        let range = match self.limits {
            Some((low, high)) if low.is_finite() && high.is_finite() => Some(Range { low, high }),
            _ => Range::of(self.cells().map(|(_, _, cell)| cell.value))
                .map(|range| Range { low: range.low.min(0.0), ..range }),
        };
        range.unwrap_or(Range { low: 0.0, high: 1.0 })
    }

    fn draw_cells(&self, svg: &mut Svg, layout: &Layout, limits: Range) {
        let &Layout { left, top, width, height, .. } = layout;
        let (across, down) = (width * self.columns.len() as f64, height * self.rows.len() as f64);
        svg.push(format_args!(
            r##"<rect class="cp-panel" x="{left:.1}" y="{top:.1}" width="{across:.1}" height="{down:.1}" fill="#f5f7f9"/>"##
        ));
        let size = Role::InPaleCell.size();
        // All or none: numbers in some cells alone would look as if the others had none.
        let has_texts = height >= size + 1.5
            && self.cells().all(|(_, _, cell)| text_width(&cell.text, size) <= width - 3.0);
        let gap = if width.min(height) > 9.0 { 1.0 } else { 0.0 };
        for (row, column, cell) in self.cells() {
            let strength = (cell.value - limits.low) / (limits.high - limits.low);
            // The panel is what the palest cells look like; most cells of a confusion matrix are empty.
            if !cell.value.is_finite() || (strength.is_nan() || strength <= 0.0) && cell.text.is_empty() {
                continue;
            }
            let strength = if strength > 0.0 { strength.clamp(0.03, 1.0) } else { 0.0 };
            let (x, y) = (left + width * column as f64, top + height * row as f64);
            let value = significant(cell.value, 3);
            svg.open_group(&format!("{} | {}: {value}", self.rows[row].name, self.columns[column]), "");
            svg.push(format_args!(
                r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{ONLY}" fill-opacity="{strength:.2}"/>"#,
                width - gap,
                height - gap,
            ));
            let role = if strength >= STRONG { Role::InStrongCell } else { Role::InPaleCell };
            if has_texts {
                svg.text(x + width / 2.0, y + height / 2.0 + 3.9, Anchor::Middle, role, &cell.text);
            }
            svg.close_group();
        }
    }

    fn draw_names(&self, svg: &mut Svg, layout: &Layout) {
        let size = Role::Tick.size();
        for (row, HeatmapRow { name, .. }) in self.rows.iter().enumerate() {
            let y = layout.top + layout.height * (row as f64 + 0.5) + 4.0;
            svg.text(layout.left - 7.0, y, Anchor::End, Role::Tick, &fit(name, size, WIDEST_ROW_NAME));
        }
        let y = layout.bottom() + 8.0;
        for (column, name) in self.columns.iter().enumerate().step_by(layout.names_every) {
            let x = layout.left + layout.width * (column as f64 + 0.5);
            let name = fit(name, size, WIDEST_COLUMN_NAME);
            match layout.degrees {
                0.0 => svg.text(x, y + 9.0, Anchor::Middle, Role::Tick, &name),
                degrees => svg.text_rising(x + 4.0, y + 4.0, degrees, Anchor::End, Role::Tick, &name),
            }
        }
    }

    fn draw_bar(&self, svg: &mut Svg, layout: &Layout, limits: Range) {
        let x = layout.right() + 20.0;
        let height = (layout.bottom() - layout.top).clamp(60.0, 180.0);
        let step = height / BAR_STEPS as f64;
        svg.push(format_args!(
            r##"<rect class="cp-panel" x="{x:.1}" y="{:.1}" width="{BAR_WIDTH}" height="{height:.1}" fill="#f5f7f9"/>"##,
            layout.top
        ));
        for at in 0..BAR_STEPS {
            let strength = (at as f64 + 0.5) / BAR_STEPS as f64;
            svg.push(format_args!(
                r#"<rect x="{x:.1}" y="{:.2}" width="{BAR_WIDTH}" height="{step:.2}" fill="{ONLY}" fill-opacity="{strength:.2}"/>"#,
                layout.top + height - step * (at + 1) as f64,
            ));
        }
        let is_share = limits == Range { low: 0.0, high: 1.0 };
        for place in [0.0, 0.5, 1.0] {
            let value = limits.low + place * (limits.high - limits.low);
            let text = if is_share { percent(value) } else { significant(value, 2) };
            let y = layout.top + height * (1.0 - place) + 4.0;
            svg.text(x + BAR_WIDTH + 5.0, y.max(layout.top + 9.0), Anchor::Start, Role::Tick, &text);
        }
        let name = fit(&self.value_name, Role::Aside.size(), height.max(150.0));
        svg.text_rising(x - 5.0, layout.top, 90.0, Anchor::End, Role::Aside, &name);
    }
}

/// Where the cells stand and how the columns' names lie.
#[derive(Debug)]
struct Layout {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    n_columns: usize,
    n_rows: usize,
    /// How steeply the columns' names rise: 0 where they fit side by side, 90 where columns are narrow.
    degrees: f64,
    /// Which columns have their name written: every one, or of very many every so-manieth.
    names_every: usize,
    /// How far the columns' names reach down.
    name_depth: f64,
}

impl Layout {
    fn of(heatmap: &Heatmap) -> Self {
        let size = Role::Tick.size();
        let widest = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|name| text_width(name, size)).fold(0.0, f64::max)
        };
        let rows = widest(&mut heatmap.rows.iter().map(|row| &row.name)).min(WIDEST_ROW_NAME);
        let columns = widest(&mut heatmap.columns.iter()).min(WIDEST_COLUMN_NAME);
        let (n_columns, n_rows) = (heatmap.columns.len().max(1), heatmap.rows.len());
        let beside_names = LEFT + 26.0 + rows;
        // A name that slants begins left of its column, and the first column's must have room.
        let slant = columns * std::f64::consts::FRAC_1_SQRT_2;
        let width_from = |left: f64| ((WIDTH - BAR_ROOM - left) / n_columns as f64).min(LARGEST_WIDTH);
        let width = width_from(beside_names);
        let (left, width, degrees, name_depth) = if columns + 6.0 <= width {
            (beside_names, width, 0.0, size)
        } else if width >= NAME_HEIGHT * std::f64::consts::SQRT_2 {
            let left = beside_names.max(LEFT + slant - width / 2.0);
            (left, width_from(left), 45.0, slant + size)
        } else {
            (beside_names, width, 90.0, columns)
        };
        Self {
            left,
            top: BELOW_TITLE + 6.0,
            width,
            height: (width * 0.8).clamp(SMALLEST_HEIGHT, LARGEST_HEIGHT),
            n_columns,
            n_rows,
            degrees,
            names_every: (NAME_HEIGHT / width).ceil().max(1.0) as usize,
            name_depth,
        }
    }

    fn right(&self) -> f64 {
        self.left + self.width * self.n_columns as f64
    }

    fn bottom(&self) -> f64 {
        self.top + self.height * self.n_rows as f64
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.left, self.right())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, values: &[f64]) -> HeatmapRow {
        let cell = |&value: &f64| HeatmapCell { value, text: format!("v{value}") };
        HeatmapRow { name: name.into(), cells: values.iter().map(cell).collect() }
    }

    #[test]
    fn a_confusion_matrix_has_counts_in_its_cells_and_only_classes_that_occur() {
        let names = ["B", "T", "absent", "<NK>"].map(str::to_owned);
        let matrix = ConfusionMatrix::new(&names, &[0, 0, 0, 1], &[0, 0, 3, 1]).unwrap();
        let heatmap = Heatmap::of_confusion("Confusion", &matrix);
        assert_eq!(heatmap.columns, ["B", "T", "<NK>"]);
        assert!((heatmap.rows[0].cells[0].value - 2.0 / 3.0).abs() < 1e-12);
        let svg = heatmap.to_svg();
        assert!(svg.contains(">2</text>") && svg.contains("&lt;NK&gt;") && !svg.contains("absent"));
        assert!(!svg.contains("NaN"), "a class that is only predicted has no shares");
    }

    #[test]
    fn missing_and_superfluous_cells_and_values_that_are_not_finite_are_left_out() {
        let heatmap = Heatmap {
            columns: vec!["a".into(), "b".into()],
            rows: vec![row("x", &[1.0]), row("y", &[f64::NAN, f64::INFINITY, 7.0])],
            ..Heatmap::default()
        };
        let svg = heatmap.to_svg();
        assert!(
            svg.contains(">v1<") && !svg.contains(">v7<") && !svg.contains("NaN") && !svg.contains("inf")
        );
        for heatmap in [Heatmap::default(), Heatmap { columns: vec!["a".into()], ..Heatmap::default() }] {
            assert!(heatmap.to_svg().contains("nothing to draw"));
        }
    }

    #[test]
    fn texts_are_left_out_where_not_all_of_them_fit() {
        let names: Vec<String> = (0..20).map(|at| format!("type {at}")).collect();
        let svg = |longest: f64| {
            let mut rows: Vec<_> = names.iter().map(|name| row(name, &[1.0; 20])).collect();
            rows[3] = row("type 3", &[longest; 20]);
            Heatmap { columns: names.clone(), rows, ..Heatmap::default() }.to_svg()
        };
        assert!(svg(1.0).contains(">v1<"));
        assert!(!svg(123_456.0).contains(">v1<"));
    }

    #[test]
    fn equal_values_have_a_colour() {
        let heatmap =
            Heatmap { columns: vec!["a".into()], rows: vec![row("x", &[0.0])], ..Heatmap::default() };
        let svg = heatmap.to_svg();
        assert!(svg.contains(">v0<") && !svg.contains("NaN"), "{svg}");
    }
}
