//! Simple methods on the same cells, values and parts, so that a score can be judged.

use cellpatch_analysis::baseline::{C_GRID, LogisticOptions, Penalty, Selection, nearest_vote};
use cellpatch_analysis::{Cells, Metric, Neighbors, SparseCells, SparsePca};
use cellpatch_data::Loader;

use super::data::AnnotationData;
use crate::Result;

/// Components and neighbours of the nearest-neighbour baseline: what scanpy takes.
const N_COMPONENTS: usize = 50;
const N_NEIGHBORS: usize = 15;

/// What a simple method makes of the test cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselinePrediction {
    /// The method.
    pub name: &'static str,
    /// How it was fitted.
    pub note: String,
    /// The class of each test cell, in the loader's order.
    pub classes: Vec<usize>,
}

/// Cells of a part as sparse rows of normalised expression, with their classes.
struct Rows {
    row_pointers: Vec<usize>,
    genes: Vec<u32>,
    values: Vec<f32>,
    classes: Vec<usize>,
}

impl Rows {
    fn read(cells: &Loader, data: &AnnotationData) -> Result<Self> {
        let mut rows =
            Self { row_pointers: vec![0], genes: Vec::new(), values: Vec::new(), classes: Vec::new() };
        for batch in data.with_all_genes(cells)?.expressions(0, 0) {
            let batch = batch?;
            let before = rows.genes.len();
            rows.row_pointers.extend(batch.offsets[1..].iter().map(|offset| before + offset));
            rows.genes.extend_from_slice(&batch.genes);
            rows.values.extend_from_slice(&batch.values);
            rows.classes.extend(batch.rows.iter().map(|&row| data.class_of(row)));
        }
        Ok(rows)
    }

    fn cells(&self, n_features: usize) -> Result<SparseCells<'_>> {
        Ok(SparseCells::new(&self.row_pointers, &self.genes, &self.values, n_features)?)
    }
}

/// Labels the test cells by L1 and L2 logistic regression, with C chosen on the validation cells, and by the nearest
/// training cells. Nothing if there are no test cells.
///
/// All cells are held in memory.
///
/// # Errors
/// Those of the loader.
pub fn baselines(data: &AnnotationData) -> Result<Vec<BaselinePrediction>> {
    let Some(test) = data.test() else { return Ok(Vec::new()) };
    let n_features = data.shards().manifest().n_genes as usize + 1;
    let n_classes = data.classes().len();
    let (training, validation, test) =
        (Rows::read(data.training(), data)?, Rows::read(data.validation(), data)?, Rows::read(test, data)?);
    let known = training.cells(n_features)?;
    let chosen_on = validation.cells(n_features)?;
    let new = test.cells(n_features)?;
    let mut predictions = Vec::new();
    for (name, penalty) in [("L1 logistic regression", Penalty::L1), ("L2 logistic regression", Penalty::L2)]
    {
        let options = LogisticOptions { penalty, ..LogisticOptions::default() };
        let chosen = Selection::by_validation(
            (known, &training.classes),
            (chosen_on, &validation.classes),
            n_classes,
            &C_GRID,
            &options,
        )?;
        let note = format!("C = {}, chosen on the validation cells", chosen.c);
        predictions.push(BaselinePrediction { name, note, classes: chosen.model.predict(new)? });
    }
    predictions.push(nearest(&training, known, new, n_classes)?);
    Ok(predictions)
}

fn nearest(
    training: &Rows,
    known: SparseCells<'_>,
    new: SparseCells<'_>,
    n_classes: usize,
) -> Result<BaselinePrediction> {
    let most = known.n_cells().min(known.n_features()).saturating_sub(1).max(1);
    let n_components = N_COMPONENTS.min(most);
    let pca = SparsePca::fit(known, n_components, 0)?;
    let (at, of) = (pca.project(new)?, pca.project(known)?);
    let n_neighbors = N_NEIGHBORS.min(known.n_cells());
    let near = Neighbors::between(
        Cells::new(&at, new.n_cells(), n_components)?,
        Cells::new(&of, known.n_cells(), n_components)?,
        n_neighbors,
        Metric::Euclidean,
    )?;
    let votes = nearest_vote(&near, &training.classes, n_classes)?;
    Ok(BaselinePrediction {
        name: "nearest neighbours",
        note: format!("{n_neighbors} by {n_components} principal components"),
        classes: votes.iter().map(|vote| vote.class).collect(),
    })
}
