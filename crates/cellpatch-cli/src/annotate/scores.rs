//! How well cells were labelled, as numbers and as text.

use cellpatch_analysis::metrics::{ConfusionMatrix, MeanInterval};
use serde_json::{Value, json};

use crate::failure::Failure;

/// The scores of one method over repeats.
#[derive(Debug, Clone)]
pub(super) struct MethodScores {
    pub name: String,
    pub note: String,
    pub accuracy: Vec<f64>,
    pub macro_f1: Vec<f64>,
}

impl MethodScores {
    /// Adds a repeat's scores to those of its method.
    pub(super) fn add(methods: &mut Vec<Self>, name: &str, note: &str, confusion: &ConfusionMatrix) {
        let at = methods.iter().position(|method| method.name == name).unwrap_or_else(|| {
            methods.push(Self {
                name: name.into(),
                note: note.into(),
                accuracy: Vec::new(),
                macro_f1: Vec::new(),
            });
            methods.len() - 1
        });
        methods[at].accuracy.push(confusion.accuracy());
        methods[at].macro_f1.push(confusion.macro_f1());
    }

    pub(super) fn intervals(&self) -> Result<(MeanInterval, MeanInterval), Failure> {
        Ok((MeanInterval::of(&self.accuracy)?, MeanInterval::of(&self.macro_f1)?))
    }

    pub(super) fn text(&self) -> Result<String, Failure> {
        let (accuracy, macro_f1) = self.intervals()?;
        Ok(format!("{:26} accuracy {:15} macro-F1 {}", self.name, accuracy.to_text(3), macro_f1.to_text(3)))
    }

    pub(super) fn json(&self) -> Result<Value, Failure> {
        let (accuracy, macro_f1) = self.intervals()?;
        Ok(json!({
            "name": self.name,
            "note": self.note,
            "accuracy": accuracy.mean,
            "accuracy_half_width": accuracy.half_width,
            "macro_f1": macro_f1.mean,
            "macro_f1_half_width": macro_f1.half_width,
            "repeats": { "accuracy": self.accuracy, "macro_f1": self.macro_f1 },
        }))
    }
}

/// The scores of every class that occurs.
pub(super) fn per_class(confusion: &ConfusionMatrix) -> Value {
    let classes = confusion.classes().into_iter().filter(|class| class.support + class.n_predicted > 0);
    classes
        .map(|class| {
            json!({
                "class": class.name,
                "cells": class.support,
                "predicted": class.n_predicted,
                "precision": class.precision,
                "recall": class.recall,
                "f1": class.f1,
            })
        })
        .collect()
}

/// The same as lines.
pub(super) fn per_class_text(confusion: &ConfusionMatrix) -> String {
    let classes: Vec<_> =
        confusion.classes().into_iter().filter(|class| class.support + class.n_predicted > 0).collect();
    let width = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text =
        format!("{:width$} {:>7} {:>10} {:>7} {:>7}", "class", "cells", "precision", "recall", "F1");
    for class in classes {
        text.push_str(&format!(
            "\n{:width$} {:>7} {:>10.3} {:>7.3} {:>7.3}",
            class.name, class.support, class.precision, class.recall, class.f1
        ));
    }
    text
}

/// The confusion matrix as a table, truth down.
pub(super) fn confusion_csv(confusion: &ConfusionMatrix) -> String {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let names: Vec<String> = confusion.class_names().iter().map(quoted).collect();
    let mut text = format!("truth,{}\n", names.join(","));
    for (truth, name) in names.iter().enumerate() {
        let row: Vec<String> =
            (0..names.len()).map(|predicted| confusion.count(truth, predicted).to_string()).collect();
        text.push_str(&format!("{name},{}\n", row.join(",")));
    }
    text
}
