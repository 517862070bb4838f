//! Models that a user names: a run, or a weights file with its vocabulary.

use std::path::{Path, PathBuf};

use cellpatch_data::{GeneSelection, GeneVocabulary};
use cellpatch_model::Checkpoint;
use cellpatch_train::AnnotationCard;

use crate::failure::{Category, Failure};
use crate::options::read_vocabulary;

/// Where weights' metadata hold the hash of the vocabulary they were trained with.
const VOCABULARY_HASH: &str = "cellpatch.vocabulary_hash";

/// Weights and the genes of their tokens.
#[derive(Debug)]
pub(crate) struct NamedModel {
    /// The weights file.
    pub weights: PathBuf,
    /// What is in it.
    pub checkpoint: Checkpoint,
    /// Which gene each row of the gene table is.
    pub vocabulary: GeneVocabulary,
    /// The genes that cells were reduced to when the model was trained; none for all.
    pub genes: Option<GeneSelection>,
}

impl NamedModel {
    /// Opens a run directory, or a weights file beside its `vocabulary.parquet` or with the vocabulary that was named.
    ///
    /// # Errors
    /// Files that are missing or damaged; a vocabulary that is not the one of the weights.
    pub(crate) fn open(path: &Path, vocabulary: Option<&Path>) -> Result<Self, Failure> {
        if !path.exists() {
            return Err(cellpatch_data::Error::NotFound { path: path.to_path_buf() }.into());
        }
        let weights = if path.is_dir() { path.join("model.safetensors") } else { path.to_path_buf() };
        if !weights.is_file() {
            return Err(Failure::new(
                Category::Input,
                format!("{} holds no model.safetensors", path.display()),
            )
            .with_help("give the folder of a run that has finished an epoch, or a weights file"));
        }
        let checkpoint = Checkpoint::read(&weights)?;
        let config = checkpoint.config()?;
        let beside = weights.with_file_name("vocabulary.parquet");
        let vocabulary = match vocabulary {
            Some(path) => read_vocabulary(path, config.gene_capacity)?,
            None if beside.is_file() => GeneVocabulary::read_parquet(&beside)?,
            None => {
                return Err(Failure::new(
                    Category::Usage,
                    format!("{} does not say which gene each of its tokens is", weights.display()),
                )
                .with_help(
                    "name its genes by --vocabulary: a vocabulary.parquet, or the gene2tok.json it was trained with",
                ));
            }
        };
        let genes = AnnotationCard::genes_in(&checkpoint.metadata);
        let model = Self { weights, checkpoint, vocabulary, genes };
        model.check(config.gene_capacity)?;
        Ok(model)
    }

    fn check(&self, capacity: usize) -> Result<(), Failure> {
        let expected = self.checkpoint.metadata.get(VOCABULARY_HASH);
        if let Some(expected) = expected.filter(|expected| **expected != self.vocabulary.hash()) {
            return Err(Failure::new(
                Category::Input,
                format!(
                    "the vocabulary is not the one {} was trained with: its hash is {}, not {expected}",
                    self.weights.display(),
                    self.vocabulary.hash()
                ),
            )
            .with_help("use the vocabulary.parquet of the run that wrote the weights"));
        }
        if self.vocabulary.len() >= capacity {
            return Err(Failure::new(
                Category::Input,
                format!(
                    "the vocabulary has {} genes, but {} has rows for {} only",
                    self.vocabulary.len(),
                    self.weights.display(),
                    capacity - 1
                ),
            )
            .with_help("use the vocabulary the weights were trained with"));
        }
        Ok(())
    }
}
