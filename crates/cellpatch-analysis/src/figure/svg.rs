//! Writing SVG: elements with escaped text, colours that follow the reader's light or dark mode.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::markup::escape;

/// Width of every figure in SVG user units; one is a pixel when the figure is shown at its natural size.
pub(crate) const WIDTH: f64 = 760.0;

/// Dark mode repaints what carries one of these classes; anything that knows no CSS shows the light colours,
/// which are ordinary attributes. Data colours are chosen to be seen on both and stay as they are, but for the dark blue
/// that single series have.
const STYLE: &str = "<style>@media screen and (prefers-color-scheme:dark){\
.cp-page{fill:#15181d}.cp-text{fill:#e6e9ee}.cp-muted{fill:#a3abb8}\
.cp-halo{fill:#e6e9ee;stroke:#15181d}.cp-panel{fill:#1d2229}.cp-grid{stroke:#2a3039}.cp-axis{stroke:#5b6472}.cp-rule{stroke:#c3c9d3}\
[fill='#0072b2']{fill:#2f8be6}[stroke='#0072b2']{stroke:#2f8be6}}</style>";

/// What a piece of text is for, which decides its size, weight and colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The figure's title.
    Title,
    /// What an axis shows.
    AxisName,
    /// A number at a tick.
    Tick,
    /// A legend's entry.
    Entry,
    /// A legend's heading and its counts.
    Aside,
    /// A name written among the points, readable over them.
    OnData,
    /// A number in a pale cell of a table of colours.
    InPaleCell,
    /// A number in a strong one.
    InStrongCell,
}

impl Role {
    /// Font size in user units.
    pub(crate) fn size(self) -> f64 {
        match self {
            Self::Title => 16.0,
            Self::AxisName => 13.0,
            Self::Tick | Self::Entry | Self::Aside | Self::OnData => 12.0,
            Self::InPaleCell | Self::InStrongCell => 11.0,
        }
    }

    fn attributes(self) -> &'static str {
        match self {
            Self::Title => r##"class="cp-text" fill="#1b1f24" font-weight="600""##,
            Self::AxisName | Self::Entry | Self::InPaleCell => r##"class="cp-text" fill="#1b1f24""##,
            Self::InStrongCell => r##"fill="#ffffff""##,
            Self::Tick | Self::Aside => r##"class="cp-muted" fill="#59616d""##,
            Self::OnData => {
                r##"class="cp-halo" fill="#1b1f24" stroke="#ffffff" stroke-width="3" stroke-linejoin="round" paint-order="stroke" font-weight="600""##
            }
        }
    }
}

/// Which point of a text its coordinates name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// Lines that belong to the figure and not to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// Behind the data, hardly there.
    Grid,
    /// The frame's base line.
    Axis,
    /// A dashed line at a value to compare with.
    Rule,
}

impl Stroke {
    fn attributes(self) -> &'static str {
        match self {
            Self::Grid => r##"class="cp-grid" stroke="#e7eaee" stroke-width="1""##,
            Self::Axis => r##"class="cp-axis" stroke="#9aa3af" stroke-width="1""##,
            Self::Rule => r##"class="cp-rule" stroke="#3f4752" stroke-width="1.5" stroke-dasharray="6 4""##,
        }
    }
}

/// An SVG document being written, from back to front.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    /// Writes a line of text with its base line at `y`.
    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, role: Role, text: &str) {
        self.place_text(&format!(r#"x="{x:.1}" y="{y:.1}""#), anchor, role, text);
    }

    /// Writes a line of text that reads upwards, centred at the point.
    pub(crate) fn text_upwards(&mut self, x: f64, y: f64, role: Role, text: &str) {
        self.text_rising(x, y, 90.0, Anchor::Middle, role, text);
    }

    /// Writes a line of text that rises to the right by so many degrees, from, around or to the point.
    pub(crate) fn text_rising(
        &mut self,
        x: f64,
        y: f64,
        degrees: f64,
        anchor: Anchor,
        role: Role,
        text: &str,
    ) {
        let place = format!(r#"transform="translate({x:.1} {y:.1}) rotate(-{degrees})""#);
        self.place_text(&place, anchor, role, text);
    }

    /// Writes a line of text cut to `max_width`, with the whole of it as a tooltip where it was cut.
    pub(crate) fn text_within(&mut self, x: f64, y: f64, max_width: f64, role: Role, text: &str) {
        match fit(text, role.size(), max_width) {
            Cow::Borrowed(whole) => self.text(x, y, Anchor::Start, role, whole),
            Cow::Owned(cut) => {
                self.open_group(text, "");
                self.text(x, y, Anchor::Start, role, &cut);
                self.close_group();
            }
        }
    }

    fn place_text(&mut self, place: &str, anchor: Anchor, role: Role, text: &str) {
        let (size, attributes, anchor) = (role.size(), role.attributes(), anchor.name());
        let text = escape(text);
        self.push(format_args!(
            r#"<text {place} text-anchor="{anchor}" font-size="{size}" {attributes}>{text}</text>"#
        ));
    }

    /// Draws a straight line from one point to another.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        let ((x1, y1), (x2, y2), attributes) = (from, to, stroke.attributes());
        self.push(format_args!(r#"<path d="M{x1:.1},{y1:.1}L{x2:.1},{y2:.1}" fill="none" {attributes}/>"#));
    }

    /// Opens a group whose parts share `attributes` (trusted) and, where it is not empty, a tooltip (escaped).
    pub(crate) fn open_group(&mut self, tooltip: &str, attributes: &str) {
        self.push(format_args!("<g {attributes}>"));
        if !tooltip.is_empty() {
            let tooltip = escape(tooltip);
            self.push(format_args!("<title>{tooltip}</title>"));
        }
    }

    /// Closes the group opened last.
    pub(crate) fn close_group(&mut self) {
        self.push(format_args!("</g>"));
    }

    /// Appends trusted markup.
    pub(crate) fn push(&mut self, markup: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{markup}");
    }

    /// The finished document of [`WIDTH`] x `height` user units, which scales to the width it is given.
    /// The description is read out in place of the picture.
    pub(crate) fn finish(self, height: f64, description: &str) -> String {
        let (body, description) = (self.body, escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" style=\"max-width:100%;height:auto\" role=\"img\" aria-label=\"{description}\" \
             font-family=\"system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif\">\n\
             {STYLE}\n<rect class=\"cp-page\" width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// The width a text will take, near enough to lay out by. The font is the reader's, so the estimate leans to
/// the wide side.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|character| match character {
            'i' | 'j' | 'l' | 'I' | '.' | ',' | '\'' | '|' | ':' | ';' | '!' => 0.31,
            'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '-' | ' ' | '/' | '\u{a0}' => 0.40,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.92,
            'A'..='Z' => 0.70,
            '\u{1100}'.. if character > '\u{2e80}' => 1.05,
            _ => 0.60,
        })
        .sum();
    ems * size
}

/// The text, cut and ended by an ellipsis where it is wider than `max_width`.
pub(crate) fn fit(text: &str, size: f64, max_width: f64) -> Cow<'_, str> {
    if text_width(text, size) <= max_width {
        return Cow::Borrowed(text);
    }
    let mut cut = String::new();
    for character in text.chars() {
        cut.push(character);
        if text_width(&cut, size) + size > max_width {
            cut.pop();
            break;
        }
    }
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_is_not_cut_and_a_cut_one_fits() {
        assert_eq!(fit("B cell", 12.0, 100.0), "B cell");
        let long = "CD8-positive, alpha-beta memory T cell";
        let cut = fit(long, 12.0, 120.0);
        assert!(cut.ends_with('…') && text_width(&cut, 12.0) <= 120.0, "{cut}");
        assert!(cut.chars().count() > 12, "{cut}");
    }

    #[test]
    fn user_text_is_escaped_wherever_it_goes() {
        let mut svg = Svg::default();
        svg.text(0.0, 0.0, Anchor::Start, Role::Entry, "<script>");
        svg.text_within(0.0, 0.0, 30.0, Role::Entry, "<script>alert(1)</script>");
        let document = svg.finish(10.0, "\"<script>");
        assert!(!document.contains("<script>"), "{document}");
    }
}
