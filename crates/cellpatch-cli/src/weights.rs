//! `cellpatch import` and `cellpatch export`: weights in and out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::backend::Flex;
use cellpatch_model::weights::{ANNOTATOR_KEY, annotator_metadata, config_metadata};
use cellpatch_model::{AnnotatorConfig, CellPatchConfig, Checkpoint, Fit, Padding, PthLayout};
use cellpatch_train::AnnotationCard;
use clap::Args;
use serde_json::json;

use crate::failure::{Category, Failure};
use crate::options::read_vocabulary;
use crate::terminal::Terminal;

/// Settings of `import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportOptions {
    /// A .pth file (a state dict, or a dict that holds one) or a .safetensors file
    pub file: PathBuf,
    /// The folder for model.safetensors and vocabulary.parquet, which other commands take as --init or --model
    #[arg(long, short, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The gene of every token: the gene2tok.json[.gz] the weights were trained with, or a vocabulary.parquet
    #[arg(long, value_name = "PATH")]
    pub vocabulary: Option<PathBuf>,
    /// Of an annotation model: the names of its classes, in the order of its outputs [default: what the file says, else numbers]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub classes: Option<Vec<String>>,
    /// What attention does with padding: masked, or attended as the authors' code does [default: what the file says, else attended]
    #[arg(long, value_name = "masked|attended", value_parser = ["masked", "attended"], hide_possible_values = true)]
    pub padding: Option<String>,
}

/// Settings of `export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportOptions {
    /// A run, or a weights file
    pub model: PathBuf,
    /// The file to write: .safetensors, or .pth for PyTorch
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// How a .pth is arranged: state-dict (tensors alone), model-state-dict (in a dict with metadata) or released (the same with
    /// `module.` before every name)
    #[arg(long, value_name = "LAYOUT", value_parser = ["state-dict", "model-state-dict", "released"], default_value = "state-dict")]
    pub layout: String,
    /// Replace the file if there is one
    #[arg(long)]
    pub overwrite: bool,
}

/// What kind of model a file's tensors make.
enum Kind {
    Pretraining(CellPatchConfig),
    Annotating(AnnotatorConfig),
}

impl Kind {
    fn of(checkpoint: &Checkpoint) -> Result<Self, Failure> {
        match checkpoint.tensors.contains_key("lp_fc3.weight") {
            true => Ok(Self::Annotating(checkpoint.annotator_config()?)),
            false => Ok(Self::Pretraining(checkpoint.config()?)),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Pretraining(_) => "a pretraining model",
            Self::Annotating(_) => "an annotation model",
        }
    }

    fn model(&mut self) -> &mut CellPatchConfig {
        match self {
            Self::Pretraining(config) => config,
            Self::Annotating(config) => &mut config.model,
        }
    }

    /// How the tensors fit a model of this kind.
    fn fit(&self, checkpoint: &Checkpoint) -> Fit {
        let device = Default::default();
        match self {
            Self::Pretraining(config) => checkpoint.fit::<Flex, _>(&config.init::<Flex>(&device)),
            Self::Annotating(config) => checkpoint.fit::<Flex, _>(&config.init::<Flex>(&device)),
        }
    }
}

/// Reads weights, checks every tensor by name and shape, and makes a folder of them.
pub(crate) fn import(terminal: &Terminal, options: &ImportOptions) -> Result<(), Failure> {
    let mut checkpoint = Checkpoint::read(&options.file)?;
    let mut kind = Kind::of(&checkpoint)?;
    match options.padding.as_deref() {
        Some("masked") => kind.model().padding = Padding::Masked,
        Some("attended") => kind.model().padding = Padding::Attended,
        _ => {}
    }
    let fit = kind.fit(&checkpoint);
    if let Some(missing) = fit.missing.first() {
        return Err(Failure::new(
            Category::Input,
            format!(
                "{} has no tensor {:?}, which {} needs",
                options.file.display(),
                missing.name,
                kind.name()
            ),
        )
        .with_help(fit.to_string()));
    }
    if let Some(other) = fit.mismatched.first() {
        return Err(Failure::new(
            Category::Input,
            format!(
                "{} of {} has shape {:?} where {:?} is needed",
                other.name,
                options.file.display(),
                other.found,
                other.expected
            ),
        ));
    }
    let metadata = match &kind {
        Kind::Pretraining(config) => config_metadata(config),
        Kind::Annotating(config) => annotator_metadata(config),
    };
    if matches!(kind, Kind::Pretraining(_)) {
        checkpoint.metadata.remove(ANNOTATOR_KEY);
    }
    checkpoint.metadata.extend(metadata);
    for unused in &fit.unused {
        checkpoint.tensors.remove(&unused.name);
    }
    let capacity = kind.model().gene_capacity;
    let vocabulary = options.vocabulary.as_deref().map(|path| read_vocabulary(path, capacity)).transpose()?;
    if let Some(vocabulary) = &vocabulary {
        if vocabulary.len() >= capacity {
            return Err(Failure::new(
                Category::Input,
                format!(
                    "the vocabulary has {} genes, the weights have rows for {}",
                    vocabulary.len(),
                    capacity - 1
                ),
            )
            .with_help("name the vocabulary the weights were trained with"));
        }
        checkpoint.metadata.insert("cellpatch.vocabulary_hash".into(), vocabulary.hash());
    }
    let weights = options.out.join("model.safetensors");
    if weights.exists() {
        return Err(cellpatch_data::Error::FileExists { path: weights }.into());
    }
    std::fs::create_dir_all(&options.out)
        .map_err(|error| cellpatch_data::Error::io("create", &options.out, error))?;
    if let Some(vocabulary) = &vocabulary {
        vocabulary.write_parquet(&options.out.join("vocabulary.parquet"))?;
    }
    if let Kind::Annotating(config) = &kind {
        let told = AnnotationCard::classes_in(&checkpoint.metadata);
        let genes = AnnotationCard::genes_in(&checkpoint.metadata);
        if told.is_none() {
            terminal.warn(if options.classes.is_none() {
                "nothing says what the classes are called, nor whether cells were reduced to some genes: classes are numbered, and all genes are read"
            } else {
                "nothing says whether cells were reduced to some genes in training: all genes are read"
            });
        }
        let numbered = || (0..config.n_classes).map(|class| format!("class {class}")).collect();
        let classes = options.classes.clone().or(told).unwrap_or_else(numbered);
        let card = AnnotationCard::imported(config.clone(), classes, genes, vocabulary.as_ref())?;
        card.write(&options.out.join("model.json"))?;
    }
    checkpoint.write_safetensors(&weights)?;
    let mut text =
        format!("{} is {}\n{fit}\nwrote {}", options.file.display(), kind.name(), weights.display());
    match &vocabulary {
        Some(vocabulary) => {
            let _ = write!(text, " and the names of {} genes", vocabulary.len());
        }
        None => terminal.warn(
            "nothing says which gene each token is: name the dictionary by --vocabulary here, or wherever the model is used",
        ),
    }
    if kind.model().padding == Padding::Attended {
        terminal.note(
            "padding will be attended, as the authors' code does, so a cell's output depends on its batch; --padding masked mends that",
        );
    }
    let value = json!({
        "command": "import",
        "version": env!("CARGO_PKG_VERSION"),
        "file": options.file,
        "kind": kind.name(),
        "fit": fit,
        "genes": vocabulary.map(|vocabulary| vocabulary.len()),
        "out": weights,
    });
    terminal.result(&text, &value);
    Ok(())
}

/// Writes a model's weights for other programs, bit for bit.
pub(crate) fn export(terminal: &Terminal, options: &ExportOptions) -> Result<(), Failure> {
    let path = match options.model.is_dir() {
        true => options.model.join("model.safetensors"),
        false => options.model.clone(),
    };
    let checkpoint = Checkpoint::read(&path)?;
    let kind = Kind::of(&checkpoint)?;
    if options.out.exists() && !options.overwrite {
        return Err(cellpatch_data::Error::FileExists { path: options.out.clone() }.into());
    }
    write(&checkpoint, &options.out, &options.layout)?;
    let parameters: usize = checkpoint.tensors.values().map(|tensor| tensor.num_elements()).sum();
    let text = format!(
        "wrote {} tensors ({parameters} parameters) of {} to {}",
        checkpoint.tensors.len(),
        kind.name(),
        options.out.display()
    );
    let value = json!({
        "command": "export",
        "version": env!("CARGO_PKG_VERSION"),
        "model": path,
        "kind": kind.name(),
        "tensors": checkpoint.tensors.len(),
        "parameters": parameters,
        "out": options.out,
    });
    terminal.result(&text, &value);
    Ok(())
}

fn write(checkpoint: &Checkpoint, out: &Path, layout: &str) -> Result<(), Failure> {
    match out.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "safetensors" => Ok(checkpoint.write_safetensors(out)?),
        "pth" | "pt" | "bin" => {
            let layout = match layout {
                "released" => PthLayout::Released,
                "model-state-dict" => PthLayout::ModelStateDict,
                _ => PthLayout::StateDict,
            };
            Ok(checkpoint.write_pth(out, layout)?)
        }
        _ => Err(Failure::new(
            Category::Usage,
            format!("{} does not say what kind of file is wanted", out.display()),
        )
        .with_help("end its name in .safetensors or .pth")),
    }
}
