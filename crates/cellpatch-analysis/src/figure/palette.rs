//! Colours and shapes that tell categories apart, also for readers who do not see all colours.

/// Ten hues, the first six after Okabe and Ito's set for all kinds of colour vision, of middling lightness so
/// that each is seen on white and on near-black. Their yellow, lost on white, and their black, lost on
/// black, are replaced.
const COLOURS: [&str; 10] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f6bd9", "#9a8f1d", "#8c6247",
    "#d94a7a",
];

/// The colour of what has no category.
pub(crate) const GREY: &str = "#9aa3af";

/// How many marks there are before they would repeat.
pub(crate) const N_MARKS: usize = COLOURS.len() * Shape::ALL.len();

/// The outline of a category's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Triangle,
    Square,
    Diamond,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Circle, Self::Triangle, Self::Square, Self::Diamond];

    /// The shape as a piece of SVG path around a point, of about the area of a circle of that radius.
    pub(crate) fn path(self, x: f64, y: f64, radius: f64) -> String {
        match self {
            // A line of no length with round ends is a dot, and a tenth of the markup of two arcs.
            Self::Circle => format!("M{x:.1},{y:.1}h0"),
            Self::Triangle => {
                let side = radius * 1.35;
                format!("M{x:.1},{:.1}l{side:.1},{:.1}h{:.1}z", y - side, side * 1.8, side * -2.0)
            }
            Self::Square => {
                let side = radius * 0.92;
                format!("M{:.1},{:.1}h{2:.1}v{2:.1}h{3:.1}z", x - side, y - side, side * 2.0, side * -2.0)
            }
            Self::Diamond => {
                let side = radius * 1.3;
                format!("M{x:.1},{:.1}l{side:.1},{side:.1}l{1:.1},{side:.1}l{1:.1},{1:.1}z", y - side, -side)
            }
        }
    }
}

/// How a category's points look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) colour: &'static str,
    pub(crate) shape: Shape,
}

impl Mark {
    /// The mark of a category by its rank. The first ten differ by colour, the next ten have the same colours in
    /// another shape, and so on up to [`N_MARKS`].
    pub(crate) fn of_rank(rank: usize) -> Self {
        let shape = Shape::ALL[rank / COLOURS.len() % Shape::ALL.len()];
        Self { colour: COLOURS[rank % COLOURS.len()], shape }
    }

    /// A grey dot.
    pub(crate) const NONE: Self = Self { colour: GREY, shape: Shape::Circle };

    /// The attributes that draw this mark's paths with that radius.
    pub(crate) fn attributes(self, radius: f64) -> String {
        let colour = self.colour;
        match self.shape {
            Shape::Circle => {
                format!(
                    r#"fill="none" stroke="{colour}" stroke-width="{:.1}" stroke-linecap="round""#,
                    radius * 2.0
                )
            }
            _ => format!(r#"fill="{colour}""#),
        }
    }
}

/// Stops of a scale from dark blue over green to yellow, even to the eye and told apart by all kinds of colour vision
/// (viridis, by Smith and van der Walt).
const SCALE: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];

/// The colour of a value between the lowest, 0, and the highest, 1.
pub(crate) fn strength_colour(strength: f64) -> String {
    let at = strength.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let before = (at as usize).min(SCALE.len() - 2);
    let share = at - before as f64;
    let mix = |from: u8, to: u8| (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8;
    let [red, green, blue] = [0, 1, 2].map(|part| mix(SCALE[before][part], SCALE[before + 1][part]));
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Blue, for what there is one of.
pub(crate) const ONLY: &str = COLOURS[0];

/// The colour of a line by its rank: neighbours differ most.
pub(crate) fn line_colour(rank: usize) -> &'static str {
    const ORDER: [usize; 10] = [0, 5, 2, 3, 1, 6, 4, 8, 7, 9];
    COLOURS[ORDER[rank % ORDER.len()]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_runs_from_dark_blue_to_yellow() {
        assert_eq!([0.0, 0.5, 1.0].map(strength_colour), ["#440154", "#21918c", "#fde725"]);
        assert_eq!(strength_colour(7.0), strength_colour(1.0));
    }

    #[test]
    fn forty_categories_have_forty_marks() {
        let marks: Vec<_> = (0..N_MARKS).map(Mark::of_rank).collect();
        assert_eq!(marks.len(), 40);
        for (at, mark) in marks.iter().enumerate() {
            assert!(!marks[..at].contains(mark), "mark {at} repeats");
        }
    }
}
