//! `cellpatch annotate predict`: labels for the cells of a file.

use std::path::{Path, PathBuf};

use cellpatch_analysis::metrics::{Calibration, ConfusionMatrix};
use cellpatch_data::{
    CellPrediction, Existing, ExpressionReader, H5adAnnotator, Labels, MatrixSlot, MissingNames,
    PredictionColumns, PredictionTable, UnsValue,
};
use cellpatch_model::{Annotator, ModelBackend};
use cellpatch_train::AnnotationCard;
use cellpatch_train::annotation::{ConfidenceCard, classify};
use serde_json::{Value, json};

use super::options::{PredictOptions, usage};
use super::scores;
use crate::device::{DeviceChoice, on_device};
use crate::failure::Failure;
use crate::inputs;
use crate::model::NamedModel;
use crate::terminal::Terminal;

/// The name of a label that is none.
const UNKNOWN: &str = "unknown";

/// Labels every cell of a file.
pub(crate) fn run(terminal: &Terminal, options: &PredictOptions) -> Result<(), Failure> {
    let named = NamedModel::open(&options.model, options.read.vocabulary.as_deref())?;
    let card = AnnotationCard::read(&named.weights.with_file_name("model.json")).map_err(|error| {
        Failure::from(error).with_help("give the run of an `annotate train`, or name its model.safetensors")
    })?;
    let read = options.read.expressions(&named, card.max_input)?;
    let reader = ExpressionReader::open(&options.data, &named.vocabulary, read)?;
    inputs::describe_genes(terminal, &reader)?;
    let truth = options.label.as_deref().map(|column| truth(&reader, column, &card)).transpose()?;
    let device = options.device.unwrap_or_default().resolve(terminal)?;
    let job = Job { terminal, options, named: &named, card: &card, device };
    on_device!(device, |B, backend_device| job.run::<B>(&backend_device, reader, truth))
}

/// The true classes of a file's cells.
struct Truth {
    /// The model's classes, and after them those it does not know.
    names: Vec<String>,
    codes: Vec<Option<u32>>,
}

fn truth(reader: &ExpressionReader, column: &str, card: &AnnotationCard) -> Result<Truth, Failure> {
    let labels = reader.source().labels(column)?.known(&MissingNames::default());
    let mut names = card.classes.clone();
    let mut code_of = Vec::with_capacity(labels.categories.len());
    for category in &labels.categories {
        let at = names.iter().position(|name| name == category).unwrap_or_else(|| {
            names.push(category.clone());
            names.len() - 1
        });
        code_of.push(at as u32);
    }
    let codes = labels.codes.iter().map(|code| code.map(|code| code_of[code as usize])).collect();
    Ok(Truth { names, codes })
}

struct Job<'a> {
    terminal: &'a Terminal,
    options: &'a PredictOptions,
    named: &'a NamedModel,
    card: &'a AnnotationCard,
    device: DeviceChoice,
}

/// What was found for every cell.
struct Predictions {
    classes: Vec<u32>,
    confidences: Vec<f32>,
    known: Vec<bool>,
}

/// Where probabilities go while they come.
enum Sink {
    File(Box<H5adAnnotator>, Option<MatrixSlot>),
    Table(Box<PredictionTable>, Vec<String>),
}

impl Job<'_> {
    fn run<B: ModelBackend>(
        &self,
        device: &B::Device,
        reader: ExpressionReader,
        truth: Option<Truth>,
    ) -> Result<(), Failure> {
        let started = std::time::Instant::now();
        let (model, _) =
            self.named.checkpoint.load_into(self.card.annotator.init::<B>(device)).map_err(Failure::from)?;
        let n_cells = reader.n_cells();
        let facts = json!({
            "genes": reader.genes().tokens.len(),
            "genes_matched": reader.genes().n_matched(),
            "genes_absent": reader.n_absent(),
            "matrix": reader.source().matrix(),
        });
        let (predictions, written) = self.predict(&model, device, reader)?;
        let seconds = started.elapsed().as_secs_f64();
        let n_unknown = predictions.known.iter().filter(|known| !**known).count();
        let mut text = format!(
            "\n{n_cells} cells labelled in {seconds:.1} s ({:.0} cells/s on {})",
            n_cells as f64 / seconds.max(f64::MIN_POSITIVE),
            self.device
        );
        let counts = self.counts(&predictions);
        for (name, count) in &counts {
            text.push_str(&format!("\n{count:>8}  {name}"));
        }
        if n_unknown > 0 {
            text.push_str(&format!("\n{n_unknown:>8}  {UNKNOWN} (confidence below {:.3})", self.threshold()));
        }
        let mut value = json!({
            "command": "annotate predict",
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device.to_string(),
            "model": self.named.weights,
            "data": self.options.data,
            "cells": n_cells,
            "unknown": n_unknown,
            "unknown_below": self.threshold(),
            "input": facts,
            "predicted": counts.iter().map(|(name, count)| json!({"class": name, "cells": count})).collect::<Vec<_>>(),
            "seconds": seconds,
            "cells_per_second": n_cells as f64 / seconds.max(f64::MIN_POSITIVE),
            "out": written,
        });
        if let Some(truth) = truth {
            text.push_str(&self.score(&truth, &predictions, &mut value)?);
        }
        text.push_str(&format!("\n\nwrote {}", written.display()));
        self.terminal.result(&text, &value);
        Ok(())
    }

    fn threshold(&self) -> f64 {
        let chosen = self.card.confidence.map_or(0.0, |confidence| confidence.unknown_threshold);
        self.options.unknown_below.unwrap_or(chosen)
    }

    /// A model whose training was cut off has no temperature yet.
    fn confidence(&self) -> ConfidenceCard {
        self.card.confidence.unwrap_or(ConfidenceCard {
            temperature: 1.0,
            unknown_threshold: 0.0,
            calibration_error_before: f64::NAN,
            calibration_error: f64::NAN,
        })
    }

    /// Reads, computes and writes batch by batch.
    fn predict<B: ModelBackend>(
        &self,
        model: &Annotator<B>,
        device: &B::Device,
        reader: ExpressionReader,
    ) -> Result<(Predictions, PathBuf), Failure> {
        let n_classes = self.card.classes.len();
        let n_top = self.options.top.min(n_classes);
        let mut sink = self.open(&reader)?;
        let n_cells = reader.n_cells();
        let mut predictions = Predictions { classes: Vec::new(), confidences: Vec::new(), known: Vec::new() };
        let mut tops: Vec<(Vec<Option<u32>>, Vec<f32>)> = vec![(Vec::new(), Vec::new()); n_top];
        let (confidence, threshold) = (self.confidence(), self.threshold());
        let bar = self.terminal.progress("labelling", n_cells as u64, "cells");
        let mut first_row = 0;
        for batch in reader {
            let batch = batch?;
            let logits = classify(model, &batch, device)?;
            let mut probabilities: Vec<f32> = Vec::with_capacity(logits.len());
            for (cell, logits) in logits.chunks_exact(n_classes).enumerate() {
                let of_cell: Vec<f32> = confidence
                    .probabilities(logits)
                    .into_iter()
                    .map(|probability| probability as f32)
                    .collect();
                let mut order: Vec<usize> = (0..n_classes).collect();
                order.sort_by(|&a, &b| of_cell[b].total_cmp(&of_cell[a]).then(a.cmp(&b)));
                let known = f64::from(of_cell[order[0]]) >= threshold;
                predictions.classes.push(order[0] as u32);
                predictions.confidences.push(of_cell[order[0]]);
                predictions.known.push(known);
                for (rank, (classes, values)) in tops.iter_mut().enumerate() {
                    classes.push(Some(order[rank] as u32));
                    values.push(of_cell[order[rank]]);
                }
                if let Sink::Table(table, cell_ids) = &mut sink {
                    table.push(&CellPrediction {
                        cell_id: &cell_ids[batch.rows[cell] as usize],
                        label: known.then_some(order[0] as u32),
                        confidence: of_cell[order[0]],
                        probabilities: &of_cell,
                    })?;
                }
                probabilities.extend(of_cell);
            }
            if let Sink::File(file, Some(slot)) = &mut sink {
                file.write_rows(*slot, first_row, &probabilities)?;
            }
            first_row += batch.n_cells();
            bar.update(first_row as u64, "");
        }
        bar.finish();
        let written = self.finish(sink, &predictions, tops)?;
        Ok((predictions, written))
    }

    fn existing(&self) -> Existing {
        if self.options.overwrite { Existing::Replace } else { Existing::Keep }
    }

    fn open(&self, reader: &ExpressionReader) -> Result<Sink, Failure> {
        let is_h5ad = |path: &Path| path.extension().is_some_and(|extension| extension == "h5ad");
        let annotator = match &self.options.out {
            None => H5adAnnotator::create_in_place(&self.options.data)?,
            Some(out) if is_h5ad(out) => H5adAnnotator::create(&self.options.data, out, self.existing())?,
            Some(out) => {
                let columns = PredictionColumns {
                    classes: self.card.classes.clone(),
                    n_top: self.options.top,
                    probabilities: self.options.probabilities,
                };
                let table = PredictionTable::create(out, self.existing(), columns)?;
                return Ok(Sink::Table(Box::new(table), reader.source().cell_ids()?));
            }
        };
        let mut annotator = Box::new(annotator);
        let name = format!("{}_probabilities", self.options.prefix);
        let slot = match self.options.probabilities {
            true => Some(annotator.obsm(&name, self.card.classes.len())?),
            false => None,
        };
        Ok(Sink::File(annotator, slot))
    }

    fn finish(
        &self,
        sink: Sink,
        predictions: &Predictions,
        tops: Vec<(Vec<Option<u32>>, Vec<f32>)>,
    ) -> Result<PathBuf, Failure> {
        let mut file = match sink {
            Sink::Table(table, _) => return Ok(table.finish()?.path),
            Sink::File(file, _) => file,
        };
        let prefix = &self.options.prefix;
        let mut categories = self.card.classes.clone();
        // A class of that name stays one; only cells that are left without a label need the name.
        let unknown = categories.iter().position(|class| class == UNKNOWN).unwrap_or(categories.len());
        if unknown == categories.len() && predictions.known.contains(&false) {
            categories.push(UNKNOWN.into());
        }
        let codes = predictions.classes.iter().zip(&predictions.known);
        let codes = codes.map(|(&class, &known)| Some(if known { class } else { unknown as u32 })).collect();
        file.obs_column(&format!("{prefix}_label"), Labels { categories, codes })?;
        file.obs_column(&format!("{prefix}_confidence"), predictions.confidences.clone())?;
        for (rank, (classes, probabilities)) in (1..).zip(tops) {
            let labels = Labels { categories: self.card.classes.clone(), codes: classes };
            file.obs_column(&format!("{prefix}_top_{rank}"), labels)?;
            file.obs_column(&format!("{prefix}_top_{rank}_probability"), probabilities)?;
        }
        let confidence = self.confidence();
        file.uns(
            prefix,
            &[
                ("classes", UnsValue::Texts(self.card.classes.clone())),
                ("label_column", UnsValue::Text(self.card.label.clone())),
                ("temperature", UnsValue::Number(confidence.temperature)),
                ("unknown_below", UnsValue::Number(self.threshold())),
                ("version", UnsValue::Text(env!("CARGO_PKG_VERSION").into())),
            ],
        )?;
        Ok(file.finish()?.path)
    }

    /// Known cells of each class, the most frequent first.
    fn counts(&self, predictions: &Predictions) -> Vec<(String, usize)> {
        let mut counts = vec![0; self.card.classes.len()];
        for (&class, &known) in predictions.classes.iter().zip(&predictions.known) {
            counts[class as usize] += usize::from(known);
        }
        let named = self.card.classes.iter().cloned().zip(counts);
        let mut counts: Vec<(String, usize)> = named.filter(|&(_, count)| count > 0).collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts
    }

    /// Scores of the most probable classes, unknown or not, against the truth.
    fn score(&self, truth: &Truth, predictions: &Predictions, value: &mut Value) -> Result<String, Failure> {
        let cells: Vec<usize> = (0..truth.codes.len()).filter(|&cell| truth.codes[cell].is_some()).collect();
        let code = |&cell: &usize| truth.codes[cell].unwrap_or_default() as usize;
        let expected: Vec<usize> = cells.iter().map(code).collect();
        let predicted: Vec<usize> = cells.iter().map(|&cell| predictions.classes[cell] as usize).collect();
        if cells.is_empty() {
            return Err(usage("no cell of the label column has a label to score against".into()));
        }
        let confusion = ConfusionMatrix::new(&truth.names, &expected, &predicted)?;
        let confidences: Vec<f64> =
            cells.iter().map(|&cell| f64::from(predictions.confidences[cell])).collect();
        let correct: Vec<bool> = expected.iter().zip(&predicted).map(|(a, b)| a == b).collect();
        let calibration = Calibration::new(&confidences, &correct)?;
        let kept: Vec<bool> = cells
            .iter()
            .zip(&correct)
            .filter(|&(&cell, _)| predictions.known[cell])
            .map(|(_, &correct)| correct)
            .collect();
        let right = kept.iter().filter(|correct| **correct).count();
        let unseen: Vec<&String> = truth.names[self.card.classes.len()..].iter().collect();
        if let Value::Object(fields) = value {
            fields.insert("cells_scored".into(), json!(cells.len()));
            fields.insert("accuracy".into(), json!(confusion.accuracy()));
            fields.insert("macro_f1".into(), json!(confusion.macro_f1()));
            fields.insert("per_class".into(), scores::per_class(&confusion));
            fields.insert("calibration_error".into(), json!(calibration.expected_error()));
            fields.insert("unseen_classes".into(), json!(unseen));
            fields.insert(
                "accuracy_of_known".into(),
                json!((!kept.is_empty()).then(|| right as f64 / kept.len() as f64)),
            );
        }
        let mut text = format!(
            "\n\naccuracy {:.3}, macro-F1 {:.3}, calibration error {:.3} on {} labelled cells\n{}",
            confusion.accuracy(),
            confusion.macro_f1(),
            calibration.expected_error(),
            cells.len(),
            scores::per_class_text(&confusion)
        );
        if !kept.is_empty() && kept.len() < cells.len() {
            text.push_str(&format!(
                "\nof the {} that are not {UNKNOWN}, {:.3} are right",
                kept.len(),
                right as f64 / kept.len() as f64
            ));
        }
        if !unseen.is_empty() {
            let names: Vec<&str> = unseen.iter().map(|name| name.as_str()).collect();
            self.terminal.warn(&format!("the model was not trained on: {}", names.join(", ")));
        }
        Ok(text)
    }
}
