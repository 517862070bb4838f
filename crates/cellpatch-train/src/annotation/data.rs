//! The cells of a finetuning.

use std::sync::Arc;

use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_data::{
    GeneSelection, Labels, Loader, LoaderOptions, Masking, Part, Partition, RowSelection, ShardSet,
};

use super::config::{AnnotationConfig, usual_epochs};
use super::markers::marker_genes;
use crate::{Error, Result};

/// Labelled cells, divided and ready to be read.
#[derive(Debug)]
pub struct AnnotationData {
    shards: Arc<ShardSet>,
    partition: Partition,
    classes: Vec<String>,
    unseen: Vec<String>,
    class_of_row: Arc<[Option<u32>]>,
    n_training: Vec<usize>,
    genes: Option<GeneSelection>,
    training: Arc<Loader>,
    validation: Arc<Loader>,
    test: Option<Arc<Loader>>,
    test_rows: RowSelection,
}

/// The classes that training cells have, in the order of their labels, and those that only others have.
fn classes_of(labels: &Labels, partition: &Partition) -> (Vec<usize>, Vec<usize>) {
    let mut has = vec![[false; 2]; labels.categories.len()];
    for (label, part) in labels.codes.iter().zip(partition.parts()) {
        if let (Some(label), Some(part)) = (label, part) {
            has[*label as usize][usize::from(*part != Part::Train)] = true;
        }
    }
    let trained = (0..has.len()).filter(|&class| has[class][0]).collect();
    (trained, (0..has.len()).filter(|&class| has[class] == [false, true]).collect())
}

impl AnnotationData {
    /// The names of the classes a partition trains on, as [`AnnotationData::classes`] will be.
    ///
    /// # Errors
    /// [`Error::TooFewClasses`] if there are fewer than two.
    pub fn classes_to_train(labels: &Labels, partition: &Partition) -> Result<Vec<String>> {
        let (trained, _) = classes_of(labels, partition);
        let classes: Vec<String> =
            trained.into_iter().map(|class| labels.categories[class].clone()).collect();
        if classes.len() < 2 {
            return Err(Error::TooFewClasses { classes });
        }
        Ok(classes)
    }

    /// Opens the parts of a partition.
    ///
    /// Validation cells of classes that are not trained on are left out of the validation; test cells of such classes are
    /// kept and count as errors.
    ///
    /// - `labels`: of every row of the shard set
    ///
    /// # Errors
    /// [`Error::TooFewClasses`]; [`Error::NoCellsFor`] where a part that is needed is empty; [`Error::BadOption`] when the
    /// vocabulary does not fit the model; otherwise those of the loader.
    pub fn open(
        shards: Arc<ShardSet>,
        labels: &Labels,
        partition: Partition,
        config: &AnnotationConfig,
    ) -> Result<Self> {
        let needed = shards.manifest().n_genes as usize + 1;
        let capacity = config.model.model.gene_capacity;
        if needed > capacity {
            return Err(Error::BadOption {
                option: "gene-capacity",
                value: capacity.to_string(),
                reason: format!("the data's vocabulary needs {needed} rows, padding included"),
            });
        }
        let classes = Self::classes_to_train(labels, &partition)?;
        let (trained, unseen) = classes_of(labels, &partition);
        // Classes that cannot be predicted come after those that can.
        let mut position = vec![None; labels.categories.len()];
        for (index, class) in trained.iter().chain(&unseen).enumerate() {
            position[*class] = Some(index as u32);
        }
        let class_of_row: Arc<[Option<u32>]> = (labels.codes.iter().zip(partition.parts()))
            .map(|(label, part)| part.and(*label).and_then(|label| position[label as usize]))
            .collect();
        let mut n_training = vec![0; classes.len()];
        for (class, part) in class_of_row.iter().zip(partition.parts()) {
            if let (Some(class), Some(Part::Train)) = (class, part) {
                n_training[*class as usize] += 1;
            }
        }
        let rows = |part: Part, most: usize| {
            let is_in = |row: &u64| class_of_row[*row as usize].is_some_and(|class| (class as usize) < most);
            let n_rows = shards.n_cells() as u64;
            RowSelection::from_rows(n_rows, partition.rows(part).iter().filter(is_in))
        };
        let mut options = LoaderOptions {
            batch_size: config.batch_size,
            seed: config.seed,
            length_buckets: false,
            masking: Masking { max_input: config.max_input, ..Masking::default() },
            ..LoaderOptions::default()
        };
        let genes = match config.genes_per_class {
            Some(per_class) => {
                let (selection, all) = (rows(Part::Train, classes.len()), options.clone());
                let cells =
                    Loader::new(Arc::clone(&shards), selection, LoaderOptions { shuffle: false, ..all })?;
                let class_of = |row: u64| class_of_row[row as usize].unwrap_or_default() as usize;
                Some(marker_genes(&cells, class_of, classes.len(), needed, per_class)?)
            }
            None => None,
        };
        options.genes.clone_from(&genes);
        let open = |part: Part, selection: RowSelection, shuffle: bool| {
            if selection.is_empty() {
                return Err(Error::NoCellsFor { part: part.name() });
            }
            // A short last batch would be a poor sample for the feature norm; other cells are left out each epoch.
            let drop_last = shuffle && selection.len() > config.batch_size;
            let options = LoaderOptions { shuffle, drop_last, ..options.clone() };
            Ok(Arc::new(Loader::new(Arc::clone(&shards), selection, options)?))
        };
        let training = open(Part::Train, rows(Part::Train, classes.len()), true)?;
        let validation = open(Part::Validation, rows(Part::Validation, classes.len()), false)?;
        let test = rows(Part::Test, usize::MAX);
        let test_rows = test.clone();
        let test = if test.is_empty() { None } else { Some(open(Part::Test, test, false)?) };
        let unseen = unseen.into_iter().map(|class| labels.categories[class].clone()).collect();
        Ok(Self {
            shards,
            partition,
            classes,
            unseen,
            class_of_row,
            n_training,
            genes,
            training,
            validation,
            test,
            test_rows,
        })
    }

    /// The shard set.
    pub fn shards(&self) -> &Arc<ShardSet> {
        &self.shards
    }

    /// Which cell is for what.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The classes the model learns.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Classes of validation or test cells that no training cell has.
    pub fn unseen_classes(&self) -> &[String] {
        &self.unseen
    }

    /// The class of each row that is for something: a position in `classes`, or beyond them in `unseen_classes`.
    pub fn class_of_row(&self) -> &Arc<[Option<u32>]> {
        &self.class_of_row
    }

    /// The class of a row that is for something; see [`AnnotationData::class_of_row`].
    pub fn class_of(&self, row: u64) -> usize {
        self.class_of_row.get(row as usize).copied().flatten().map_or(0, |class| class as usize)
    }

    /// The test cells by class and prediction, unseen classes last; nothing without test cells.
    ///
    /// - predicted: the class of each test cell, in the loader's order
    ///
    /// # Errors
    /// [`Error::Analysis`] if there is not one prediction for each test cell.
    pub fn confusion(&self, predicted: &[usize]) -> Result<Option<ConfusionMatrix>> {
        if self.test.is_none() {
            return Ok(None);
        }
        let truth: Vec<usize> = self.test_rows.iter().map(|row| self.class_of(row)).collect();
        let names: Vec<String> = self.classes.iter().chain(&self.unseen).cloned().collect();
        Ok(Some(ConfusionMatrix::new(&names, &truth, predicted)?))
    }

    /// The genes that cells are reduced to; none for all.
    pub fn genes(&self) -> Option<&GeneSelection> {
        self.genes.as_ref()
    }

    /// Cells of one of the loaders with all their genes, in row order.
    ///
    /// # Errors
    /// Those of the loader.
    pub fn with_all_genes(&self, cells: &Loader) -> Result<Loader> {
        let options =
            LoaderOptions { genes: None, shuffle: false, drop_last: false, ..cells.options().clone() };
        Ok(Loader::new(Arc::clone(&self.shards), cells.selection().clone(), options)?)
    }

    /// Training cells of each class.
    pub fn n_training(&self) -> &[usize] {
        &self.n_training
    }

    /// Epochs where nobody asked for another number: the paper's 50, or as many as 1,000 steps take. Few labelled cells make
    /// few steps an epoch, and 50 epochs of them end before the model has learnt what they can teach (docs/benchmarks.md).
    pub fn usual_epochs(&self) -> usize {
        usual_epochs(self.training.n_batches())
    }

    /// The training cells.
    pub fn training(&self) -> &Arc<Loader> {
        &self.training
    }

    /// The validation cells, in row order.
    pub fn validation(&self) -> &Arc<Loader> {
        &self.validation
    }

    /// The test cells, in row order, if there are any.
    pub fn test(&self) -> Option<&Arc<Loader>> {
        self.test.as_ref()
    }
}
