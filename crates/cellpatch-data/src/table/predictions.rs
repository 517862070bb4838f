//! Predicted labels, one row a cell.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float32Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::file::{TableFile, TableFormat, TableSummary};
use crate::error::{Error, Result};
use crate::unfinished_file::Existing;

/// Cells that become a batch of rows.
const BATCH: usize = 4096;

/// Which columns a [`PredictionTable`] has beside `cell_id`, `label` and `confidence`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredictionColumns {
    /// The classes' names, in the order of the probabilities.
    pub classes: Vec<String>,
    /// How many of the most probable classes are listed: `top_1`, `top_1_probability`, `top_2`, ...
    pub n_top: usize,
    /// Whether every class has a column of its own, `probability_<class>`.
    pub probabilities: bool,
}

/// What a model says about one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellPrediction<'a> {
    /// The cell's name.
    pub cell_id: &'a str,
    /// The class, as a position in [`PredictionColumns::classes`]; `None` for a cell left without a label.
    pub label: Option<u32>,
    /// How sure the model is, from 0 to 1.
    pub confidence: f32,
    /// One per class.
    pub probabilities: &'a [f32],
}

/// Writes predictions as CSV, TSV or Parquet.
pub struct PredictionTable {
    file: TableFile,
    schema: SchemaRef,
    columns: PredictionColumns,
    categories: ArrayRef,
    cell_ids: Vec<String>,
    labels: Vec<Option<i32>>,
    confidences: Vec<f32>,
    /// [cells of the batch, classes].
    probabilities: Vec<f32>,
}

impl std::fmt::Debug for PredictionTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PredictionTable").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl PredictionTable {
    /// Begins a table in the format its name asks for.
    ///
    /// More top classes than there are classes are as many as there are.
    ///
    /// # Errors
    /// [`Error::BadOption`] if the name asks for no format or a class occurs twice; [`Error::FileExists`]; [`Error::Io`].
    pub fn create(path: &Path, existing: Existing, mut columns: PredictionColumns) -> Result<Self> {
        let format = TableFormat::of(path)?;
        let mut sorted: Vec<&String> = columns.classes.iter().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let (value, reason) = (twice[0].clone(), "it occurs twice".into());
            return Err(Error::BadOption { option: "class", value, reason });
        }
        columns.n_top = columns.n_top.min(columns.classes.len());
        let class = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut fields = vec![
            Field::new("cell_id", DataType::Utf8, false),
            Field::new("label", class(), true),
            Field::new("confidence", DataType::Float32, false),
        ];
        for rank in 1..=columns.n_top {
            fields.push(Field::new(format!("top_{rank}"), class(), false));
            fields.push(Field::new(format!("top_{rank}_probability"), DataType::Float32, false));
        }
        if columns.probabilities {
            let named = |class: &String| Field::new(format!("probability_{class}"), DataType::Float32, false);
            fields.extend(columns.classes.iter().map(named));
        }
        let schema = Arc::new(Schema::new(fields));
        let file = TableFile::create(path, existing, format, &schema, 64 + 4 * schema.fields().len())?;
        let categories = Arc::new(StringArray::from_iter_values(&columns.classes));
        Ok(Self {
            file,
            schema,
            columns,
            categories,
            cell_ids: Vec::new(),
            labels: Vec::new(),
            confidences: Vec::new(),
            probabilities: Vec::new(),
        })
    }

    /// Adds a cell.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if there is not one probability per class; [`Error::BadOption`] if the label is no class;
    /// [`Error::Io`].
    pub fn push(&mut self, cell: &CellPrediction<'_>) -> Result<()> {
        let n_classes = self.columns.classes.len();
        if cell.probabilities.len() != n_classes {
            let what = format!("the prediction of cell {:?}", cell.cell_id);
            let found = cell.probabilities.len();
            return Err(Error::WrongLength { what, of: "probabilities", found, expected: n_classes });
        }
        if let Some(label) = cell.label.filter(|&label| label as usize >= n_classes) {
            let reason = format!("cell {:?} has it, there are {n_classes} classes", cell.cell_id);
            return Err(Error::BadOption { option: "label", value: label.to_string(), reason });
        }
        self.cell_ids.push(cell.cell_id.to_string());
        self.labels.push(cell.label.map(|label| label as i32));
        self.confidences.push(cell.confidence);
        self.probabilities.extend_from_slice(cell.probabilities);
        if self.cell_ids.len() >= BATCH { self.write_batch() } else { Ok(()) }
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::FileExists`] if a file of this name has appeared meanwhile and may not be replaced.
    pub fn finish(mut self) -> Result<TableSummary> {
        self.write_batch()?;
        self.file.finish()
    }

    fn write_batch(&mut self) -> Result<()> {
        let cell_ids = std::mem::take(&mut self.cell_ids);
        let n_cells = cell_ids.len();
        if n_cells == 0 {
            return Ok(());
        }
        let labels = std::mem::take(&mut self.labels);
        let confidences = std::mem::take(&mut self.confidences);
        let probabilities = std::mem::take(&mut self.probabilities);
        let n_classes = self.columns.classes.len();
        let batch = || {
            let class = |codes: Int32Array| -> Result<ArrayRef, arrow::error::ArrowError> {
                Ok(Arc::new(DictionaryArray::try_new(codes, Arc::clone(&self.categories))?))
            };
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(&cell_ids)),
                class(Int32Array::from(labels))?,
                Arc::new(Float32Array::from(confidences)),
            ];
            let tops = top_classes(&probabilities, n_classes, self.columns.n_top);
            for rank in 0..self.columns.n_top {
                let of_rank = || tops.iter().skip(rank).step_by(self.columns.n_top).copied();
                columns.push(class(of_rank().map(|class| class as i32).collect::<Vec<_>>().into())?);
                let of_cell =
                    of_rank().enumerate().map(|(cell, class)| probabilities[cell * n_classes + class]);
                columns.push(Arc::new(Float32Array::from(of_cell.collect::<Vec<_>>())));
            }
            if self.columns.probabilities {
                for class in 0..n_classes {
                    let of_class: Vec<f32> =
                        probabilities.iter().skip(class).step_by(n_classes).copied().collect();
                    columns.push(Arc::new(Float32Array::from(of_class)));
                }
            }
            RecordBatch::try_new(Arc::clone(&self.schema), columns)
        };
        let batch =
            batch().map_err(|error| Error::io("write", self.file.path(), std::io::Error::other(error)))?;
        self.file.write(&batch)
    }
}

/// The `n_top` most probable classes of every cell, the most probable first, then in the classes' order. NaN comes last.
fn top_classes(probabilities: &[f32], n_classes: usize, n_top: usize) -> Vec<usize> {
    let mut tops = Vec::new();
    if n_top == 0 {
        return tops;
    }
    let mut order: Vec<usize> = Vec::with_capacity(n_classes);
    for cell in probabilities.chunks_exact(n_classes) {
        let key = |class: usize| if cell[class].is_nan() { f32::NEG_INFINITY } else { cell[class] };
        order.clear();
        order.extend(0..n_classes);
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        tops.extend_from_slice(&order[..n_top]);
    }
    tops
}
