//! What the reports of all runs have in common.

use super::page::{Align, command, paragraph, table};
use super::{ConfigurationSection, CurvePoint, NextStep, RunFile};
use crate::figure::{Series, SeriesStyle, smoothed};
use crate::markup::escape;

/// The curves of the loss: of many training steps as they are and smoothed, of validation as dots.
pub(super) fn loss_series(training: &[CurvePoint], validation: &[CurvePoint]) -> Vec<Series> {
    let points =
        |curve: &[CurvePoint]| curve.iter().map(|point| (point.step as f64, point.loss)).collect::<Vec<_>>();
    let (training, validation) = (points(training), points(validation));
    // A fiftieth of the run shows its trend; a run of few steps needs no smoothing.
    let window = training.len() / 50;
    let mut series = Vec::new();
    if window >= 3 {
        let smooth = smoothed(&training, window);
        series.push(Series {
            name: "training, each step".into(),
            style: SeriesStyle::Faint,
            points: training,
        });
        series.push(Series { name: "training, smoothed".into(), style: SeriesStyle::Line, points: smooth });
    } else if !training.is_empty() {
        series.push(Series { name: "training".into(), style: SeriesStyle::Line, points: training });
    }
    if !validation.is_empty() {
        series.push(Series { name: "validation".into(), style: SeriesStyle::Dots, points: validation });
    }
    series
}

/// The configuration's tables, two side by side.
pub(super) fn configuration(sections: &[ConfigurationSection]) -> String {
    let mut markup = String::new();
    for section in sections.iter().filter(|section| !section.fields.is_empty()) {
        let rows: Vec<_> =
            section.fields.iter().map(|field| [field.name.clone(), field.value.clone()]).collect();
        let table = table([("field", Align::Code), ("value", Align::Code)], &rows, false);
        markup.push_str(&format!("<div><h3>{}</h3>\n{table}</div>\n", escape(&section.name)));
    }
    if markup.is_empty() { markup } else { format!("<div class=\"columns\">\n{markup}</div>\n") }
}

/// What a run wrote.
pub(super) fn files(files: &[RunFile]) -> String {
    let rows: Vec<_> = files.iter().map(|file| [file.path.clone(), file.content.clone()]).collect();
    table([("file", Align::Code), ("content", Align::Text)], &rows, false)
}

/// What can be done with a run.
pub(super) fn next_steps(steps: &[NextStep]) -> String {
    steps.iter().map(|step| paragraph(&step.purpose) + &command(&step.command)).collect()
}
