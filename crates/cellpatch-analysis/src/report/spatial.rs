//! The report of spatial domains: where they lie, how they agree with labels, and which method does better.

use std::path::Path;

use super::page::{Align, document, figure, list, page_header, paragraph, section, table, write};
use super::parts::{configuration, files, loss_series, next_steps};
use super::{ConfigurationSection, CurvePoint, Fact, NextStep, RunFile};
use crate::error::Result;
use crate::figure::{LineChart, Scatter, SpatialMap};
use crate::metrics::{MeanInterval, PairedComparison};
use crate::number::{decimal, grouped};

/// Everything the report of spatial domains shows, as plain data.
///
/// Parts that are empty are left out of the page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpatialReport {
    /// The page's heading.
    pub title: String,
    /// The command that started the run, as it would be typed.
    pub command_line: String,
    /// What a reader wants to know first: spots, genes, neighbours, device, time.
    pub summary: Vec<Fact>,
    /// What to beware of, as sentences.
    pub warnings: Vec<String>,
    /// Scores by method and slice.
    pub scores: Vec<SpatialScores>,
    /// One method against the other, where both were run.
    pub comparison: Option<MethodComparison>,
    /// What is drawn of each slice.
    pub slices: Vec<SlicePictures>,
    /// The resolved configuration, section by section.
    pub configuration: Vec<ConfigurationSection>,
    /// What the run wrote.
    pub files: Vec<RunFile>,
    /// What can be done with it now.
    pub next_steps: Vec<NextStep>,
}

/// How good the domains of one method on one slice are, over repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct SpatialScores {
    /// The slice.
    pub slice: String,
    /// The method: "STAGATE".
    pub method: String,
    /// Adjusted Rand index against the labels, where there are labels.
    pub ari: Option<MeanInterval>,
    /// Normalised mutual information with the labels.
    pub nmi: Option<MeanInterval>,
    /// The spatial chaos score, the lower the more continuous.
    pub chaos: MeanInterval,
    /// Share of spots of which most neighbours are of another domain.
    pub pas: MeanInterval,
    /// Mean squared error of the reconstruction at the end of training.
    pub loss: MeanInterval,
    /// Seconds of training.
    pub seconds: MeanInterval,
}

/// One method against another, by adjusted Rand index.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodComparison {
    /// The method whose scores come first in the differences.
    pub first: String,
    /// The other.
    pub second: String,
    /// What pairs are of: "slices", "seeds".
    pub pairs_of: String,
    /// The tests.
    pub tests: PairedComparison,
}

/// Pictures of a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicePictures {
    /// The slice.
    pub name: String,
    /// Domains beside labels.
    pub map: SpatialMap,
    /// The embedding in the plane.
    pub umaps: Vec<Scatter>,
    /// Training loss of steps in ascending order, one curve a method.
    pub loss: Vec<(String, Vec<CurvePoint>)>,
}

impl SpatialReport {
    /// The report as an HTML document that loads nothing and runs no script.
    pub fn render(&self) -> String {
        document(&self.title, &self.sections())
    }

    /// Writes the report to a file, through a sibling that is renamed, so that a reader never sees half a page.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) with the path where the file cannot be written or renamed.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(&self.render(), path)
    }

    fn sections(&self) -> String {
        let comparison = self.comparison.as_ref().map(compared).unwrap_or_default();
        [
            page_header(&self.title, &self.verdict(), &self.command_line, &self.summary),
            section("What to beware of", &list(&self.warnings)),
            section("Scores", &(scores(&self.scores) + &comparison)),
            self.slices.iter().map(pictures).collect(),
            section("Configuration", &configuration(&self.configuration)),
            section("Files of this run", &files(&self.files)),
            section("What to do next", &next_steps(&self.next_steps)),
        ]
        .concat()
    }

    /// The outcome in a sentence.
    fn verdict(&self) -> String {
        if let Some(comparison) = &self.comparison {
            return verdict(comparison);
        }
        match self.scores.iter().find_map(|scores| Some((scores, scores.ari?))) {
            Some((scores, ari)) => format!(
                "The domains of {} agree with the labels at an adjusted Rand index of {} (1 is full agreement, 0 is \
                 what chance gives).",
                scores.method,
                ari.to_text(3)
            ),
            None => "There were no labels to hold the domains against.".into(),
        }
    }
}

/// A difference whose test says that chance gives it often is no difference.
fn verdict(comparison: &MethodComparison) -> String {
    let MethodComparison { first, second, pairs_of, tests } = comparison;
    let n = tests.difference.n_repeats;
    let by = decimal(tests.difference.mean.abs(), 3);
    let p = tests.signed_rank.p_value;
    let way = if tests.difference.mean > 0.0 { "higher" } else { "lower" };
    let sure = if p < 0.05 { "" } else { ", which chance alone gives often enough" };
    format!(
        "Over {n} {pairs_of}, the adjusted Rand index of {first} is {way} than that of {second} by {by} on average (signed-rank \
         test: p = {}{sure}).",
        decimal(p, 4)
    )
}

fn scores(scores: &[SpatialScores]) -> String {
    let value = |interval: &Option<MeanInterval>| {
        interval.as_ref().map_or("–".to_owned(), |interval| interval.to_text(3))
    };
    let rows: Vec<_> = scores
        .iter()
        .map(|row| {
            [
                row.slice.clone(),
                row.method.clone(),
                value(&row.ari),
                value(&row.nmi),
                row.chaos.to_text(3),
                row.pas.to_text(3),
                row.loss.to_text(4),
                row.seconds.to_text(1),
            ]
        })
        .collect();
    let headings = [
        ("slice", Align::Text),
        ("method", Align::Text),
        ("ARI", Align::Number),
        ("NMI", Align::Number),
        ("CHAOS", Align::Number),
        ("PAS", Align::Number),
        ("loss", Align::Number),
        ("seconds", Align::Number),
    ];
    let meaning = "ARI and NMI: agreement with the labels, the higher the better; spots without a label are left out. CHAOS \
                   and PAS: how scattered domains are, the lower the more continuous. ± is the 95 % interval of the mean over \
                   repeats with other seeds.";
    let table = table(headings, &rows, false);
    if table.is_empty() { table } else { table + &paragraph(meaning) }
}

fn compared(comparison: &MethodComparison) -> String {
    let MethodComparison { first, second, pairs_of, tests } = comparison;
    let mut rows = vec![
        ["difference, mean".into(), tests.difference.to_text(3)],
        ["difference, median".into(), decimal(tests.median_difference, 3)],
        [format!("{pairs_of} on which {first} is higher"), grouped(tests.n_higher as u64)],
        [format!("{pairs_of} on which {second} is higher"), grouped(tests.n_lower as u64)],
        ["Wilcoxon signed-rank test, p".into(), decimal(tests.signed_rank.p_value, 4)],
    ];
    if let Some(test) = &tests.t_test {
        rows.push(["paired t test, p".into(), decimal(test.p_value, 4)]);
    }
    let heading = format!("ARI of {first} less that of {second}");
    table([(heading.as_str(), Align::Text), ("", Align::Number)], &rows, false)
}

fn pictures(slice: &SlicePictures) -> String {
    let mut markup = figure(&slice.map.to_svg(), "");
    for umap in &slice.umaps {
        markup.push_str(&figure(&umap.to_svg(), ""));
    }
    for (method, loss) in slice.loss.iter().filter(|(_, loss)| !loss.is_empty()) {
        let chart = LineChart {
            title: format!("Loss of {method} during training"),
            x_name: "optimizer step".into(),
            y_name: "mean squared error".into(),
            series: loss_series(loss, &[]),
            ..LineChart::default()
        };
        markup.push_str(&figure(&chart.to_svg(), ""));
    }
    section(&slice.name, &markup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(values: &[f64]) -> MeanInterval {
        MeanInterval::of(values).unwrap()
    }

    fn scores(method: &str, ari: &[f64]) -> SpatialScores {
        SpatialScores {
            slice: "<151675>".into(),
            method: method.into(),
            ari: Some(interval(ari)),
            nmi: None,
            chaos: interval(&[0.1]),
            pas: interval(&[0.02]),
            loss: interval(&[0.3]),
            seconds: interval(&[12.0]),
        }
    }

    #[test]
    fn a_report_says_which_method_does_better_and_how_sure_that_is() {
        let (first, second) = ([0.6, 0.62, 0.64, 0.66, 0.68, 0.7], [0.5, 0.53, 0.53, 0.56, 0.6, 0.55]);
        let comparison = |first: &[f64], second: &[f64]| MethodComparison {
            first: "CellPatch+STAGATE".into(),
            second: "STAGATE".into(),
            pairs_of: "slices".into(),
            tests: PairedComparison::of(first, second).unwrap(),
        };
        let report = SpatialReport {
            scores: vec![scores("STAGATE", &second), scores("CellPatch+STAGATE", &first)],
            comparison: Some(comparison(&first, &second)),
            ..SpatialReport::default()
        };
        let page = report.render();
        assert!(page.contains("is higher than that of STAGATE by 0.105"), "{page}");
        assert!(!page.contains("which chance alone"));
        assert!(page.contains("&lt;151675&gt;") && !page.contains("<151675>"));
        let unsure =
            SpatialReport { comparison: Some(comparison(&first[..2], &second[..2])), ..report.clone() };
        assert!(unsure.render().contains("which chance alone gives often enough"));
        let single = SpatialReport { comparison: None, ..report };
        assert!(single.render().contains("agree with the labels at an adjusted Rand index of 0.545"));
        assert!(SpatialReport::default().render().contains("no labels"));
    }
}
