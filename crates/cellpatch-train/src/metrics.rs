//! What a run reports about itself: one object a step and one an epoch, in `metrics.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::EpochLosses;
use crate::files::AtPath as _;
use crate::{Error, Result};

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer steps taken, this one included.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: usize,
    /// Batches of this epoch done, this one included.
    pub batch: usize,
    /// Batches in an epoch.
    pub batches: usize,
    /// The batch's loss: mean squared error over its targets in squared log1p units, or mean cross-entropy of its cells.
    pub loss: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Cells seen since the run began, over all epochs.
    pub cells: u64,
    /// Seconds of training since the run began, pauses between resumes left out.
    pub seconds: f64,
}

/// One epoch with its validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Epochs asked for.
    pub epochs: usize,
    /// Optimizer steps taken.
    pub step: u64,
    /// The loss over the epoch's training cells, each measured when it was trained on.
    pub train_loss: f64,
    /// The loss over all validation cells, after the epoch; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Of a pretraining: the loss when each gene's training mean is predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss_gene_mean: Option<f64>,
    /// Of a pretraining: `1 - validation_loss / validation_loss_gene_mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_r2: Option<f64>,
    /// Of an annotation: how the validation cells were classified.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub validation_scores: Option<ClassificationScores>,
    /// Whether these are the best validation results so far.
    pub best: bool,
    /// Seconds of training and validation since the run began.
    pub seconds: f64,
}

impl EpochRecord {
    /// An epoch that is the best so far and has no gene means to be compared with.
    pub(crate) fn new(epoch: usize, epochs: usize, step: u64, losses: EpochLosses, seconds: f64) -> Self {
        Self {
            epoch,
            epochs,
            step,
            train_loss: losses.train,
            validation_loss: losses.validation,
            validation_loss_gene_mean: None,
            validation_r2: None,
            validation_scores: losses.scores,
            best: true,
            seconds,
        }
    }
}

/// How well cells were classified, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassificationScores {
    /// Share of cells given their class.
    #[serde(rename = "validation_accuracy")]
    pub accuracy: f64,
    /// Mean over the classes of the F1 of each.
    #[serde(rename = "validation_macro_f1")]
    pub macro_f1: f64,
}

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MetricRecord {
    /// An optimizer step.
    Step(StepRecord),
    /// The end of an epoch.
    Epoch(EpochRecord),
}

/// Who wants to see a training as it goes: a progress bar, a log, a notebook.
pub trait Observer: Send + Sync {
    /// Some optimizer steps were taken; called now and then with the newest.
    fn on_step(&self, _record: &StepRecord) {}
    /// The validation of `done` of `cells` cells is under way.
    fn on_validation(&self, _done: usize, _cells: usize) {}
    /// An epoch ended.
    fn on_epoch(&self, _record: &EpochRecord) {}
    /// A checkpoint was committed.
    fn on_checkpoint(&self, _step: u64, _folder: &Path) {}
    /// Something the user should know that does not stop the training.
    fn on_warning(&self, _message: &str) {}
}

/// Nobody watches.
impl Observer for () {}

/// `metrics.jsonl`, which only ever grows from where the last checkpoint left it.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    path: PathBuf,
    /// None on a rank that writes nothing.
    file: Option<File>,
    length: u64,
}

impl MetricsFile {
    /// Opens the file and drops what was written after `length` bytes: lines of steps that will be taken again.
    pub(crate) fn open(path: &Path, length: u64) -> Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .at("open", path)?;
        let found = file.metadata().at("read", path)?.len();
        if found < length {
            let reason = format!("{found} bytes are left of the {length} the checkpoint knows of");
            return Err(Error::Format { action: "read", path: path.to_path_buf(), reason });
        }
        file.set_len(length).at("write", path)?;
        file.seek(SeekFrom::Start(length)).at("write", path)?;
        Ok(Self { path: path.to_path_buf(), file: Some(file), length })
    }

    /// Takes records and writes none.
    pub(crate) fn nowhere() -> Self {
        Self { path: PathBuf::new(), file: None, length: 0 }
    }

    /// Appends records.
    pub(crate) fn append(&mut self, records: &[MetricRecord]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|error| Error::Format {
                action: "written",
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
            lines.push(b'\n');
        }
        file.write_all(&lines).at("write", &self.path)?;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Bytes written so far, after making sure that they are on the disk.
    pub(crate) fn synced_length(&mut self) -> Result<u64> {
        if let Some(file) = &self.file {
            file.sync_data().at("write", &self.path)?;
        }
        Ok(self.length)
    }
}

/// Reads a run's `metrics.jsonl`. A last line that was cut by a kill is left out.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] when a whole line is not a record.
pub fn read_metrics(path: &Path) -> Result<Vec<MetricRecord>> {
    let mut text = String::new();
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).at("read", path)?;
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole
        .lines()
        .enumerate()
        .map(|(line, text)| {
            serde_json::from_str(text).map_err(|error| Error::Format {
                action: "read",
                path: path.to_path_buf(),
                reason: format!("line {}: {error}", line + 1),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(epoch: usize) -> MetricRecord {
        MetricRecord::Epoch(EpochRecord {
            epoch,
            epochs: 3,
            step: 7,
            train_loss: 0.1 + 0.2,
            validation_loss: Some(1.0 / 3.0),
            validation_loss_gene_mean: Some(0.5),
            validation_r2: Some(1.0 - (1.0 / 3.0) / 0.5),
            validation_scores: (epoch == 2)
                .then_some(ClassificationScores { accuracy: 2.0 / 3.0, macro_f1: 0.1 + 0.2 }),
            best: true,
            seconds: 1.5,
        })
    }

    #[test]
    fn what_was_written_after_the_checkpoint_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.append(&[epoch(1)]).unwrap();
        let length = file.synced_length().unwrap();
        file.append(&[epoch(2), epoch(3)]).unwrap();
        drop(file);

        let mut file = MetricsFile::open(&path, length).unwrap();
        file.append(&[epoch(2)]).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [epoch(1), epoch(2)]);
        assert!(matches!(MetricsFile::open(&path, 1 << 20), Err(Error::Format { .. })));
    }

    #[test]
    fn a_line_cut_by_a_kill_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        file.append(&[epoch(1), epoch(2)]).unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [epoch(1)]);
    }
}
