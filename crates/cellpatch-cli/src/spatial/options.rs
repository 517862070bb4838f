//! The settings of `spatial`.

use std::path::{Path, PathBuf};

use cellpatch_analysis::{MixtureOptions, MixtureStart};
use cellpatch_data::{CoordinateChoice, MatrixChoice, MissingNames, ValuePolicy};
use cellpatch_model::CellPatchConfig;
use cellpatch_spatial::graph::Neighborhood;
use cellpatch_spatial::training::{SpatialModelConfig, SpatialTrainingConfig};
use cellpatch_spatial::{CellPatchStagateConfig, GenesRead, StagateConfig};
use cellpatch_train::CheckpointPolicy;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::method::Method;
use crate::annotate::usage;
use crate::device::DeviceChoice;
use crate::failure::Failure;
use crate::options::PretrainOptions;

/// Genes of a slice where nothing else was asked for.
const GENES: usize = 3_000;
/// Neighbours of a spot where nothing else was asked for: those of a hexagonal grid.
const NEAREST: usize = 6;
/// Share of the attention within a type in cell-type-aware STAGATE, as published.
const TYPE_SHARE: f64 = 0.5;
/// Nearest spots that vote in a refinement, as in STAGATE.
const VOTERS: &str = "50";
/// Rounds of smoothing where nothing else was asked for.
const SMOOTH: usize = 2;
/// Starts of the mixture beside the agglomeration where nothing else was asked for.
const STARTS: usize = 30;
/// Spots that the mixture's start looks at, at most: all of a Visium slice.
const AGGLOMERATED: usize = 5_000;

/// Settings of `spatial`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Data")]
pub(crate) struct SpatialOptions {
    /// A slice: an .h5ad file, a 10x .h5 file or matrix folder, or a folder of Space Ranger; repeat for more slices
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<PathBuf>>,
    /// Where spots lie: a matrix of obsm, columns of obs (X,Y or X,Y,Z), or a Visium spatial folder [default: obsm spatial or X_spatial, else the spatial folder beside the matrix]
    #[arg(long, value_name = "NAME|X,Y|X,Y,Z|FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<String>,
    /// Read counts from this layer [default: raw/X if it holds counts, else X]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Read the cells of this genome, where a 10x input has several
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genome: Option<String>,
    /// Whether the values are counts, or log1p-normalised already and used as they are [default: counts]
    #[arg(long, value_name = "counts|normalized", value_parser = ["counts", "normalized"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// How many of the most variable genes are used [default: 3000, or all where there are fewer]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes: Option<usize>,
    /// Neighbours are all spots not further away than this, in the unit of the coordinates
    #[arg(
        long,
        value_name = "DISTANCE",
        allow_negative_numbers = true,
        conflicts_with = "k",
        help_heading = "Neighbours"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub radius: Option<f64>,
    /// Neighbours are so many nearest spots [default: 6]
    #[arg(long, value_name = "N", help_heading = "Neighbours")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// The file is a stack of sections in one frame: the obs column with the section of each spot, in order along z [default: by the third coordinate, where --between-radius is given]
    #[arg(long, value_name = "COLUMN", help_heading = "Neighbours")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sections: Option<String>,
    /// Spots of adjacent sections are neighbours up to this distance, both looked at along z [default: sections are not joined]
    #[arg(long, value_name = "DISTANCE", help_heading = "Neighbours")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between_radius: Option<f64>,
    /// Cell-type-aware: the obs column with a type or cluster of each spot; neighbours of another count less
    #[arg(long, value_name = "COLUMN", help_heading = "Neighbours")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
    /// With --types: the share of a spot's attention that goes to neighbours of its own type only, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE", help_heading = "Neighbours")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_share: Option<f64>,
    /// stagate, or cellpatch: STAGATE behind CellPatch's first layer [default: stagate]
    #[arg(long, value_name = "stagate|cellpatch", value_parser = ["stagate", "cellpatch"], hide_possible_values = true, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Run both methods and test which does better
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", conflicts_with = "method", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<bool>,
    /// Where CellPatch's first layer starts: a run, a .safetensors or .pth file, or none [default: none]
    #[arg(long, visible_alias = "model", value_name = "RUN|FILE|none", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Gene tokens of --init: a vocabulary.parquet or gene2tok.json[.gz] [default: what lies beside it]
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
    /// With --init: what becomes of mouse genes where the model knows human ones, refuse, orthologs, or uppercase (their symbols in capitals, an approximation) [default: refuse]
    #[arg(long, value_name = "refuse|orthologs|uppercase", value_parser = ["refuse", "orthologs", "uppercase"], hide_possible_values = true, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mouse_genes: Option<String>,
    /// Without --init: the model, paper or tiny [default: paper]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Which of a spot's genes CellPatch's first layer reads: those it expresses (non-zero) or all, zeros too [default: non-zero]
    #[arg(long, value_name = "non-zero|all", value_parser = ["non-zero", "all"], hide_possible_values = true, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes_read: Option<String>,
    /// Train what comes after CellPatch's first layer only
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
    /// Numbers of a spot's embedding [default: 30]
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent_dim: Option<usize>,
    /// Width of the layers before and after the embedding [default: 512]
    #[arg(long, value_name = "N", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dim: Option<usize>,
    /// Passes over the spots [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Adam's step size [default: 1e-3, for cellpatch 1e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// L2, coupled into the gradient [default: 1e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Clip the norm over all gradients together; 0 for no clipping [default: 5, for cellpatch 0.1]
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Most spots of a slice that is trained on at once; larger ones come in tiles [default: 20000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole_slice_spots: Option<usize>,
    /// How many domains [default: as many as --label has labels]
    #[arg(long, value_name = "N", conflicts_with = "leiden", help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<usize>,
    /// Find the number of domains by Leiden, at this resolution; 1 is common
    #[arg(long, value_name = "RESOLUTION", help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leiden: Option<f64>,
    /// Average the embedding over each spot and its neighbours before domains are made of it, so many times; 0 for as it is [default: 2]
    #[arg(long, value_name = "ROUNDS", help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smooth: Option<usize>,
    /// Starts of the mixture by k-means, beside mclust's, of all of which the likeliest mixture counts; 0 for mclust's alone [default: 30]
    #[arg(long, value_name = "N", conflicts_with = "leiden", help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixture_starts: Option<usize>,
    /// Give each spot the domain of most of its nearest spots, so many of them
    #[arg(long, value_name = "SPOTS", num_args = 0..=1, default_missing_value = VOTERS, help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refine: Option<usize>,
    /// The obs column with known domains, to score against
    #[arg(long, value_name = "COLUMN", help_heading = "Domains")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Names in that column that mean no label, beside empty ones and nan; repeat for more
    #[arg(long = "missing-label", value_name = "NAME", help_heading = "Domains")]
    #[serde(rename = "missing-label", skip_serializing_if = "Option::is_none")]
    pub missing_labels: Option<Vec<String>>,
    /// Where domains and embedding go: an .h5ad (a copy of the input), or a .csv, .tsv or .parquet
    #[arg(long, short, value_name = "FILE", help_heading = "Result")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Replace the output file if there is one
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Result")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// Also write the expression the model reconstructs to the .h5ad's obsm: X_METHOD_denoised
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Result")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denoised: Option<bool>,
    /// Draw the embedding in the plane [default: true]
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Result")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umap: Option<bool>,
    /// Train this many times, with other seeds, and report mean and 95 % interval [default: 1]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<usize>,
    /// Train so many models, with other seeds, and give each spot the domain that most of them find [default: 1]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<usize>,
    /// Decides everything random [default: 42]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Steps between two checkpoints [default: only by time, every five minutes]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<u64>,
    /// auto, cpu, wgpu, cuda, cuda:N or ndarray [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
}

impl SpatialOptions {
    pub(crate) fn matrix(&self) -> MatrixChoice {
        let normalized = self.values.as_deref() == Some("normalized");
        MatrixChoice {
            layer: self.layer.clone(),
            genome: self.genome.clone(),
            values: if normalized { ValuePolicy::Normalized } else { ValuePolicy::Counts },
        }
    }

    pub(crate) fn coordinates(&self) -> CoordinateChoice {
        let Some(text) = &self.coordinates else { return CoordinateChoice::Usual };
        if Path::new(text).is_dir() {
            return CoordinateChoice::Folder(text.into());
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.as_slice() {
            [x, y] => CoordinateChoice::ObsColumns { x: x.clone(), y: y.clone(), z: None },
            [x, y, z] => CoordinateChoice::ObsColumns { x: x.clone(), y: y.clone(), z: Some(z.clone()) },
            _ => CoordinateChoice::Obsm(text.clone()),
        }
    }

    pub(crate) fn neighborhood(&self) -> Neighborhood {
        match (self.radius, self.k) {
            (Some(radius), _) => Neighborhood::Radius(radius),
            (None, k) => Neighborhood::Nearest(k.unwrap_or(NEAREST)),
        }
    }

    pub(crate) fn n_genes(&self) -> usize {
        self.genes.unwrap_or(GENES)
    }

    /// Rounds of averaging the embedding over neighbours before domains are made of it.
    pub(crate) fn smooth(&self) -> usize {
        self.smooth.unwrap_or(SMOOTH)
    }

    /// How the mixture is fitted.
    pub(crate) fn mixture(&self) -> MixtureOptions {
        let (most_cells, seed) = (AGGLOMERATED, 0);
        let start = match self.mixture_starts.unwrap_or(STARTS) {
            0 => MixtureStart::Hierarchical { most_cells, seed },
            n_starts => MixtureStart::Likeliest { most_cells, n_starts, seed },
        };
        MixtureOptions { start, ..MixtureOptions::default() }
    }

    pub(crate) fn methods(&self) -> Vec<Method> {
        match (self.compare.unwrap_or(false), self.method.as_deref()) {
            (true, _) => vec![Method::Stagate, Method::CellPatchStagate],
            (false, Some("cellpatch")) => vec![Method::CellPatchStagate],
            (false, _) => vec![Method::Stagate],
        }
    }

    /// The weights CellPatch's first layer starts from.
    pub(crate) fn init(&self) -> Option<&Path> {
        self.init.as_deref().filter(|path| *path != Path::new("none"))
    }

    pub(crate) fn missing_names(&self) -> MissingNames {
        MissingNames::default().and(self.missing_labels.iter().flatten())
    }

    pub(crate) fn repeats(&self) -> usize {
        self.repeats.unwrap_or(1).max(1)
    }

    /// Trainings whose domains become one.
    pub(crate) fn ensemble(&self) -> usize {
        self.ensemble.unwrap_or(1)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or(42)
    }

    pub(crate) fn checkpoints(&self) -> CheckpointPolicy {
        let every_steps = self.checkpoint_steps.filter(|&steps| steps > 0);
        CheckpointPolicy { every_steps, keep: 1, ..CheckpointPolicy::default() }
    }

    /// The model of a run without `--init`.
    pub(crate) fn cell_patch(&self) -> Result<CellPatchConfig, Failure> {
        PretrainOptions { preset: self.preset.clone(), ..PretrainOptions::default() }.model()
    }

    /// What a training computes.
    ///
    /// - cell_patch: the model whose first layer is used; its gene table is as long as it has to be
    pub(crate) fn training(
        &self,
        method: Method,
        n_genes: usize,
        cell_patch: CellPatchConfig,
        seed: u64,
    ) -> Result<SpatialTrainingConfig, Failure> {
        let model = match method {
            Method::Stagate => {
                let mut model = StagateConfig::new(n_genes);
                model.latent_dim = self.latent_dim.unwrap_or(model.latent_dim);
                model.hidden_dim = self.hidden_dim.unwrap_or(model.hidden_dim);
                model.pruned_share = self.type_share();
                SpatialModelConfig::Stagate(model)
            }
            Method::CellPatchStagate => {
                let mut model = CellPatchStagateConfig::new(cell_patch, n_genes);
                model.latent_dim = self.latent_dim.unwrap_or(model.latent_dim);
                model.hidden_dim = self.hidden_dim.unwrap_or(model.hidden_dim);
                model.pruned_share = self.type_share();
                model.genes_read = match self.genes_read.as_deref() {
                    Some("all") => GenesRead::All,
                    _ => GenesRead::NonZero,
                };
                SpatialModelConfig::CellPatchStagate(model)
            }
        };
        let mut config = SpatialTrainingConfig::new(model);
        config.seed = seed;
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
        config.clip_norm = self.clip_norm.map_or(config.clip_norm, |norm| (norm != 0.0).then_some(norm));
        config.freeze_patches = self.freeze.unwrap_or(false);
        config.whole_slice_spots = self.whole_slice_spots.unwrap_or(config.whole_slice_spots);
        config.validate()?;
        Ok(config)
    }

    /// Share of the attention that stays within a type; 0 where no types were named.
    fn type_share(&self) -> f64 {
        self.types.as_ref().map_or(0.0, |_| self.type_share.unwrap_or(TYPE_SHARE))
    }

    /// What can be wrong without reading anything.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let n_slices = self.data.as_ref().map_or(0, Vec::len);
        if n_slices == 0 {
            return Err(usage("there is no slice to work on".into())
                .with_help("name one by --data: an .h5ad file, or a folder of Space Ranger"));
        }
        if self.domains.is_none() && self.leiden.is_none() && self.label.is_none() {
            return Err(usage("it is not said how many domains there are".into()).with_help(
                "give --domains N, or --leiden 1 to find their number, or --label COLUMN for as many as there are labels",
            ));
        }
        if self.domains == Some(0) {
            return Err(usage("domains is 0: at least one is needed".into())
                .with_help("leave --domains out and give --leiden 1 to find their number"));
        }
        if self.genes == Some(0) {
            return Err(usage("genes is 0: at least one is needed".into())
                .with_help("leave --genes out for the 3,000 most variable"));
        }
        if self.ensemble == Some(0) {
            return Err(usage("ensemble is 0: at least one model must be trained".into()));
        }
        if self.refine == Some(0) {
            return Err(usage("refine is 0: at least one neighbour must vote".into())
                .with_help("leave --refine out for domains as they come from the embedding"));
        }
        if self.leiden.is_some_and(|resolution| !(resolution.is_finite() && resolution > 0.0)) {
            return Err(usage(format!(
                "leiden is {}: the resolution must be above 0",
                self.leiden.unwrap_or_default()
            ))
            .with_help("1 is common; higher ones give more domains"));
        }
        if self.output.is_some() && n_slices > 1 {
            return Err(usage(format!("one output file was named for {n_slices} slices"))
                .with_help("leave --output out: every slice's domains are written into the run directory"));
        }
        if self.type_share.is_some() && self.types.is_none() {
            return Err(usage("a share of attention within a type was given, and no types".into())
                .with_help("name the obs column with types by --types, or leave --type-share out"));
        }
        let only_stagate = self.methods() == [Method::Stagate];
        if only_stagate && self.init().is_some() {
            return Err(usage("STAGATE starts from nothing, and --init was given".into())
                .with_help("ask for --method cellpatch or --compare, or leave --init out"));
        }
        for method in self.methods() {
            self.training(method, 1, self.cell_patch()?, 0)?;
        }
        Ok(())
    }
}
