//! The parts of the report of a pretraining, each a piece of markup, empty where the run has nothing to show for it.

use super::page::{Align, figure, list, page_header, paragraph, section, table};
use super::parts::{configuration, files, loss_series, next_steps};
use super::{DataFacts, Fact, PretrainingReport, Validation};
use crate::figure::{Histogram, LineChart, Reference, Scatter};
use crate::number::{decimal, grouped, percent, percent_with_decimal, significant};

/// The whole report.
pub(super) fn all(report: &PretrainingReport) -> String {
    [
        header(report),
        section("Training", &training(report)),
        section("What the cells look like to the model", &cell_map(report)),
        section("Data", &data(&report.data)),
        section("Configuration", &configuration(&report.configuration)),
        section("Files of this run", &files(&report.files)),
        section("What to do next", &next_steps(&report.next_steps)),
    ]
    .concat()
}

fn header(report: &PretrainingReport) -> String {
    let mut numbers = Vec::new();
    if let Some(validation) = &report.validation {
        let r2 = validation.r2().map_or("undefined".to_owned(), |r2| decimal(r2, 3));
        numbers.push(Fact::new("R² against the gene means", r2));
        numbers.push(Fact::new("validation loss", significant(validation.loss, 4)));
        numbers.push(Fact::new("loss of the gene means", significant(validation.gene_mean_loss, 4)));
    }
    numbers.extend(report.summary.iter().cloned());
    let lead = report.validation.as_ref().map_or("", verdict);
    page_header(&report.title, lead, &report.command_line, &numbers)
}

/// The outcome in one sentence. Below 2 % of the variation, a model that learned only the means looks the same.
fn verdict(validation: &Validation) -> &'static str {
    match validation.r2() {
        Some(r2) if r2 >= 0.02 => "The model learned more than how much of each gene to expect in any cell.",
        Some(r2) if r2 > -0.02 => {
            "So far the model does about as well as always predicting the mean of each gene."
        }
        Some(_) => "The model does not yet predict as well as the mean of each gene.",
        None => "The validation loss cannot be compared with that of the gene means.",
    }
}

fn training(report: &PretrainingReport) -> String {
    let mut markup = String::new();
    if !report.training_loss.is_empty() || !report.validation_loss.is_empty() {
        let caption = "Each step's loss is that of one batch; the heavy line is their moving average. Training drops out \
                       part of the network and validation does not, so the two need not agree.";
        markup.push_str(&figure(&loss_chart(report).to_svg(), caption));
    }
    if let Some(validation) = &report.validation {
        markup.push_str(&list(&meaning(validation)));
    }
    markup
}

fn loss_chart(report: &PretrainingReport) -> LineChart {
    let reference =
        |validation: &Validation| Reference { name: "gene means".into(), value: validation.gene_mean_loss };
    LineChart {
        title: "Loss during training".into(),
        x_name: "optimizer step".into(),
        y_name: "mean squared error (log1p expression)".into(),
        series: loss_series(&report.training_loss, &report.validation_loss),
        references: report.validation.iter().map(reference).collect(),
        ..LineChart::default()
    }
}

/// What the three numbers say, a sentence each.
fn meaning(validation: &Validation) -> [String; 3] {
    let r2 = match validation.r2() {
        Some(r2) if r2 > 0.0 => format!(
            "R² = {}: of the variation that the gene means leave unexplained, the model explains {} from the \
             other genes of the cell.",
            decimal(r2, 3),
            percent(r2)
        ),
        Some(r2) => format!(
            "R² = {}: a value of 0 or below means that the gene means predict as well or better, so the model has not \
             yet learned what sets one cell apart from another. Train for longer, or raise the learning rate.",
            decimal(r2, 3)
        ),
        None => "R² against the gene means is undefined for these losses.".to_owned(),
    };
    [
        format!(
            "Validation loss {}: the mean squared error of the model's predictions for the masked genes of {} cells that it \
             was not trained on.",
            significant(validation.loss, 4),
            grouped(validation.n_cells)
        ),
        format!(
            "Gene-mean loss {}: the error on the same genes of predicting each gene's mean over the training cells, which is \
             as far as one gets without looking at the cell.",
            significant(validation.gene_mean_loss, 4)
        ),
        r2,
    ]
}

fn cell_map(report: &PretrainingReport) -> String {
    let Some(map) = &report.cell_map else { return String::new() };
    let n_cells = grouped(map.points.len() as u64);
    let title = match map.label_name.as_str() {
        "" => format!("{n_cells} cells"),
        label => format!("{n_cells} cells by {label}"),
    };
    let scatter = Scatter {
        title,
        x_name: map.x_name.clone(),
        y_name: map.y_name.clone(),
        label_name: map.label_name.clone(),
        point_name: "cells".into(),
        points: map.points.clone(),
        ..Scatter::default()
    };
    figure(&scatter.to_svg(), &map.caption)
}

fn data(data: &DataFacts) -> String {
    let n_cells = data.n_cells_training + data.n_cells_validation;
    if n_cells == 0 && data.sources.is_empty() {
        return String::new();
    }
    let split = if data.split.is_empty() { String::new() } else { format!(", chosen {}", data.split) };
    let mut markup = paragraph(&format!(
        "{} cells to train on and {} to validate on{split}; {} genes, in a vocabulary of {} tokens.",
        grouped(data.n_cells_training),
        grouped(data.n_cells_validation),
        grouped(data.n_genes),
        grouped(data.vocabulary_size)
    ));
    markup.push_str(&sources(data));
    let drop_outs: Vec<_> = data
        .drop_outs
        .iter()
        .map(|drop| {
            [
                drop.rule.clone(),
                grouped(drop.n_dropped),
                grouped(drop.n_total),
                share(drop.n_dropped, drop.n_total),
            ]
        })
        .collect();
    if !drop_outs.is_empty() {
        markup.push_str("<h3>Quality control</h3>\n");
    }
    let headings = [
        ("rule", Align::Text),
        ("taken out", Align::Number),
        ("of", Align::Number),
        ("share", Align::Number),
    ];
    markup.push_str(&table(headings, &drop_outs, false));
    if !data.genes_per_cell.is_empty() {
        let histogram = Histogram {
            title: "Genes per cell".into(),
            x_name: "genes with a count above zero".into(),
            y_name: "cells".into(),
            values: data.genes_per_cell.iter().map(|&genes| f64::from(genes)).collect(),
        };
        markup.push_str(&figure(&histogram.to_svg(), ""));
    }
    markup
}

fn sources(data: &DataFacts) -> String {
    let mut rows: Vec<_> = data
        .sources
        .iter()
        .map(|source| {
            [
                source.name.clone(),
                grouped(source.n_cells),
                grouped(source.n_cells_kept),
                share(source.n_cells_kept, source.n_cells),
                grouped(source.n_genes),
                grouped(source.n_genes_matched),
                share(source.n_genes_matched, source.n_genes),
                grouped(source.n_genes_new),
            ]
        })
        .collect();
    let has_total = rows.len() > 1;
    if has_total {
        let (read, kept) = data
            .sources
            .iter()
            .fold((0, 0), |(read, kept), source| (read + source.n_cells, kept + source.n_cells_kept));
        let blank = String::new;
        rows.push([
            "all sources".to_owned(),
            grouped(read),
            grouped(kept),
            share(kept, read),
            blank(),
            blank(),
            blank(),
            blank(),
        ]);
    }
    let headings = [
        ("source", Align::Text),
        ("cells", Align::Number),
        ("kept", Align::Number),
        ("share", Align::Number),
        ("genes", Align::Number),
        ("matched", Align::Number),
        ("share", Align::Number),
        ("new tokens", Align::Number),
    ];
    table(headings, &rows, has_total)
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { percent_with_decimal(part as f64 / whole as f64) }
}
