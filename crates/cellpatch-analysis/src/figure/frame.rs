//! The rectangle data are drawn in: title, grid, ticks and the names of the axes.

use super::axis::Axis;
use super::svg::{Anchor, Role, Stroke, Svg, WIDTH, text_width};

/// Where the title's base line stands.
const TITLE_Y: f64 = 24.0;
/// Top of what follows the title.
pub(crate) const BELOW_TITLE: f64 = 38.0;
/// Room under the frame for ticks and the axis's name.
pub(crate) const BELOW_FRAME: f64 = 52.0;
/// Where everything begins on the left.
pub(crate) const LEFT: f64 = 8.0;
/// Height of a row of a legend.
pub(crate) const ROW: f64 = 18.0;
/// From the left end of a legend's entry to its text.
pub(crate) const SWATCH: f64 = 24.0;

/// Writes the title, cut to the figure's width.
pub(crate) fn title(svg: &mut Svg, title: &str) {
    svg.text_within(LEFT, TITLE_Y, WIDTH - 2.0 * LEFT, Role::Title, title);
}

/// The data's rectangle in user units, with the axes that fill it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    outside: f64,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
}

impl Frame {
    /// A frame between `top`, `right` and `bottom`; on the left it leaves what the y axis's labels need.
    pub(crate) fn new(top: f64, right: f64, bottom: f64, x: Axis, y: Axis) -> Self {
        Self::right_of(LEFT, top, right, bottom, x, y)
    }

    /// [`Frame::new`] for one that does not begin where the figure does.
    pub(crate) fn right_of(outside: f64, top: f64, right: f64, bottom: f64, x: Axis, y: Axis) -> Self {
        let widest =
            y.ticks().iter().map(|tick| text_width(&tick.label, Role::Tick.size())).fold(0.0, f64::max);
        Self { outside, left: outside + 26.0 + widest, top, right, bottom, x, y }
    }

    /// The frame with the left edge of another, whose labels are wider or narrower.
    pub(crate) fn aligned_with(self, other: &Self) -> Self {
        Self { left: other.left, ..self }
    }

    /// Draws grid, ticks and names.
    pub(crate) fn draw(&self, svg: &mut Svg) {
        let &Self { left, top, right, bottom, .. } = self;
        for tick in self.y.ticks() {
            let y = self.y(tick.value);
            svg.line((left, y), (right, y), Stroke::Grid);
            svg.text(left - 7.0, y + 4.0, Anchor::End, Role::Tick, &tick.label);
        }
        let mut free_from = f64::NEG_INFINITY;
        for tick in self.x.ticks() {
            let (x, half) = (self.x(tick.value), text_width(&tick.label, Role::Tick.size()) / 2.0);
            svg.line((x, top), (x, bottom), Stroke::Grid);
            if x - half >= free_from && x + half <= WIDTH {
                svg.text(x, bottom + 18.0, Anchor::Middle, Role::Tick, &tick.label);
                free_from = x + half + 6.0;
            }
        }
        svg.line((left, bottom), (right, bottom), Stroke::Axis);
        svg.text((left + right) / 2.0, bottom + 40.0, Anchor::Middle, Role::AxisName, self.x.name());
        svg.text_upwards(self.outside + 10.0, (top + bottom) / 2.0, Role::AxisName, self.y.name());
    }

    /// Says in the middle that there is nothing to see.
    pub(crate) fn draw_emptiness(&self, svg: &mut Svg, text: &str) {
        let (x, y) = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        svg.text(x, y, Anchor::Middle, Role::Aside, text);
    }

    /// Draws a dashed line across at a value of the y axis.
    pub(crate) fn rule_across(&self, svg: &mut Svg, value: f64) {
        let y = self.y(value);
        svg.line((self.left, y), (self.right, y), Stroke::Rule);
    }

    /// Draws a dashed line upwards at a value of the x axis.
    pub(crate) fn rule_up(&self, svg: &mut Svg, value: f64) {
        let x = self.x(value);
        svg.line((x, self.bottom), (x, self.top), Stroke::Rule);
    }

    /// Horizontal place of a value.
    pub(crate) fn x(&self, value: f64) -> f64 {
        self.left + self.x.place(value) * (self.right - self.left)
    }

    /// Vertical place of a value.
    pub(crate) fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.place(value) * (self.bottom - self.top)
    }

    /// Left, top, right and bottom in user units.
    pub(crate) fn edges(&self) -> [f64; 4] {
        [self.left, self.top, self.right, self.bottom]
    }
}
