//! From a path to a slice that can be trained on.

use std::path::{Path, PathBuf};

use cellpatch_data::{
    CellFormat, CellSource, ChosenGenes, Coordinates, Gene, Labels, Sections, humanize, open_cells,
    orthologs, variable_columns, visium_matrix,
};
use cellpatch_model::Checkpoint;
use cellpatch_spatial::Expression;
use cellpatch_spatial::graph::{build, build_sections};
use cellpatch_spatial::training::{PatchGenes, SliceData};

use super::options::SpatialOptions;
use crate::failure::{Category, Failure};
use crate::model::NamedModel;
use crate::terminal::Terminal;

/// Genes without a token that are named in a note.
const N_EXAMPLES: usize = 10;

/// A slice with all that is known of it.
pub(super) struct LoadedSlice {
    /// What it is called in tables and folders.
    pub name: String,
    /// The file or folder with the values.
    pub path: PathBuf,
    pub is_h5ad: bool,
    pub cell_ids: Vec<String>,
    pub positions: Vec<[f64; 2]>,
    /// Of a stack: what lies on which section.
    pub sections: Option<Sections>,
    /// Known domains.
    pub labels: Option<Labels>,
    /// Names of the genes.
    pub genes: Vec<String>,
    /// What is trained on.
    pub data: SliceData,
    /// Neighbours of a spot on average.
    pub mean_neighbors: f64,
    /// Genes that CellPatch's first layer reads, where there is one.
    pub n_patch_genes: Option<usize>,
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

/// Where CellPatch's gene table comes from.
pub(super) enum PatchStart {
    /// No method reads patches.
    Unused,
    /// Every gene of the slice gets a fresh row.
    Fresh,
    /// The genes that a model knows.
    Pretrained(Box<NamedModel>),
}

impl PatchStart {
    /// The columns that patches read, and the token of each in the model that was named.
    fn tokens(&self, genes: &[Gene], columns: &[usize]) -> (Vec<usize>, Vec<u32>) {
        match self {
            Self::Unused => (Vec::new(), Vec::new()),
            Self::Fresh => (columns.to_vec(), (1..=columns.len() as u32).collect()),
            Self::Pretrained(model) => model.vocabulary.match_genes(genes).tokens_of(columns),
        }
    }

    /// The weights to start from, their gene table that of a slice's genes.
    ///
    /// - tokens: in the model's own vocabulary
    pub(super) fn weights(&self, tokens: &[u32]) -> Result<Option<Checkpoint>, Failure> {
        let Self::Pretrained(model) = self else { return Ok(None) };
        let mut weights = model.checkpoint.clone();
        weights.keep_gene_rows(tokens)?;
        Ok(Some(weights))
    }
}

/// A slice, and the tokens that the genes of its patches have in the model that was named.
pub(super) struct SliceAndTokens {
    pub slice: LoadedSlice,
    pub model_tokens: Vec<u32>,
}

impl SliceAndTokens {
    /// Reads everything that a training needs.
    pub(super) fn load(
        terminal: &Terminal,
        options: &SpatialOptions,
        given: &Path,
        start: &PatchStart,
    ) -> Result<Self, Failure> {
        let path = visium_matrix(given)?.unwrap_or_else(|| given.to_path_buf());
        let source = open_cells(&path, &options.matrix())?;
        let source = source.as_ref();
        let mut warnings = Vec::new();
        let coordinates = Coordinates::of(source, &options.coordinates())?;
        let sections = sections(options, source, &coordinates)?;
        if sections.is_none() && coordinates.z.as_ref().is_some_and(|z| z.iter().any(|&other| other != z[0]))
        {
            warnings.push(format!(
                "the third coordinate of {} is not used: --between-radius joins sections along it",
                coordinates.origin
            ));
        }
        let built = match &sections {
            None => build(&coordinates.positions, options.neighborhood()),
            Some(Sections { of_cell, .. }) => build_sections(
                &coordinates.positions,
                of_cell,
                options.neighborhood(),
                options.between_radius,
            ),
        };
        let built = built.map_err(|error| Failure::from(error).of(path.display()))?;
        let statistics = built.graph.statistics();
        warnings.extend(built.warnings.iter().map(|warning| {
            let (min, max) = (statistics.min, statistics.max);
            format!("{warning}; spots have {min} to {max} neighbours, {:.2} on average", statistics.mean)
        }));
        let all_genes = source.genes()?;
        if options.genes.is_some_and(|asked| asked > all_genes.len()) {
            warnings.push(format!(
                "{} genes were asked for, and there are {}: all are used",
                options.n_genes(),
                all_genes.len()
            ));
        }
        let columns = variable_columns(source, options.n_genes())?;
        let chosen = ChosenGenes::read(source, &columns)?;
        let (known, model_tokens) = match options.mouse_genes.as_deref() {
            Some("uppercase") => start.tokens(&humanize(&all_genes), &columns),
            Some("orthologs") => start.tokens(&orthologs(&all_genes), &columns),
            _ => start.tokens(&all_genes, &columns),
        };
        let labels = labels(options, source)?;
        let of_one_type = match &options.types {
            Some(column) => Some(built.graph.edges_within(&types(column, options, source)?)?),
            None => None,
        };
        let mut data = SliceData::new(built.graph, expression(&chosen)?, coordinates.positions.clone())?;
        if let Some(edges) = of_one_type {
            data = data.with_pruned(edges)?;
        }
        let mut n_patch_genes = None;
        if !matches!(start, PatchStart::Unused) {
            if known.is_empty() {
                return Err(Failure::new(
                    Category::Input,
                    format!("the model knows none of the {} genes of {}", columns.len(), path.display()),
                )
                .with_help(
                    "give a model that was pretrained on genes of this species; for mouse genes and a model of human ones, try --mouse-genes orthologs",
                ));
            }
            let tokens: Vec<u32> = (1..=known.len() as u32).collect();
            let read = ChosenGenes::read(source, &known)?;
            data = data.with_patch_genes(PatchGenes::new(expression(&read)?, tokens, known.len() + 1)?)?;
            n_patch_genes = Some(known.len());
        }
        let slice = LoadedSlice {
            name: name(given),
            is_h5ad: source.format() == CellFormat::AnnData,
            cell_ids: source.cell_ids()?,
            positions: coordinates.positions,
            sections,
            labels,
            genes: chosen.genes.iter().map(|gene| gene.name().to_owned()).collect(),
            data,
            mean_neighbors: statistics.mean,
            n_patch_genes,
            warnings,
            path,
        };
        slice.describe(terminal, &coordinates.origin, coordinates.spot_diameter, source);
        describe_unknown(terminal, &all_genes, &columns, &known, start);
        slice.warnings.iter().for_each(|warning| terminal.warn(&format!("{}: {warning}", slice.name)));
        Ok(Self { slice, model_tokens })
    }
}

impl LoadedSlice {
    pub(super) fn n_spots(&self) -> usize {
        self.cell_ids.len()
    }

    pub(super) fn n_edges(&self) -> usize {
        self.data.slice().graph().n_edges()
    }

    /// The label of each spot as a number.
    pub(super) fn label_codes(&self) -> Option<Vec<Option<usize>>> {
        let labels = self.labels.as_ref()?;
        Some(labels.codes.iter().map(|code| code.map(|code| code as usize)).collect())
    }

    /// The label of each spot by name.
    pub(super) fn label_names(&self) -> Option<Vec<Option<String>>> {
        let labels = self.labels.as_ref()?;
        let name = |code: &Option<u32>| code.and_then(|code| labels.categories.get(code as usize).cloned());
        Some(labels.codes.iter().map(name).collect())
    }

    /// The section of each spot by name, where there are sections.
    pub(super) fn section_names(&self) -> Option<Vec<Option<String>>> {
        let Sections { names, of_cell } = self.sections.as_ref()?;
        Some(of_cell.iter().map(|&section| names.get(section as usize).cloned()).collect())
    }

    /// Spots of each section; of a slice that is none of several, all.
    pub(super) fn spots_by_section(&self) -> Vec<Vec<usize>> {
        self.sections.as_ref().map_or_else(|| vec![(0..self.n_spots()).collect()], Sections::cells)
    }

    fn describe(
        &self,
        terminal: &Terminal,
        origin: &str,
        spot_diameter: Option<f64>,
        source: &dyn CellSource,
    ) {
        let mut text = format!(
            "{}: {} spots by {origin}, {} genes of {}, {:.2} neighbours a spot",
            self.name,
            self.n_spots(),
            self.genes.len(),
            source.matrix(),
            self.mean_neighbors
        );
        if let Some(sections) = &self.sections {
            text.push_str(&format!(", {} sections", sections.names.len()));
        }
        if let Some(diameter) = spot_diameter {
            text.push_str(&format!(", spots {diameter:.1} across"));
        }
        if let Some(labels) = &self.labels {
            text.push_str(&format!("; {} labels on {} spots", labels.categories.len(), labels.n_labelled()));
        }
        terminal.note(&text);
    }
}

fn describe_unknown(
    terminal: &Terminal,
    genes: &[Gene],
    columns: &[usize],
    known: &[usize],
    start: &PatchStart,
) {
    if !matches!(start, PatchStart::Pretrained(_)) || known.len() == columns.len() {
        return;
    }
    let unknown: Vec<&str> =
        columns.iter().filter(|column| !known.contains(column)).map(|&column| genes[column].name()).collect();
    let more = if unknown.len() > N_EXAMPLES { ", ..." } else { "" };
    terminal.note(&format!(
        "the model knows {} of these genes; the others are read by STAGATE only: {}{more}",
        known.len(),
        unknown[..unknown.len().min(N_EXAMPLES)].join(", ")
    ));
}

fn expression(chosen: &ChosenGenes) -> Result<Expression, Failure> {
    let ChosenGenes { genes, offsets, indices, values, .. } = chosen;
    Ok(Expression::from_sparse(offsets.clone(), indices.clone(), values.clone(), genes.len())?)
}

/// The sections that the user says the file has.
fn sections(
    options: &SpatialOptions,
    source: &dyn CellSource,
    coordinates: &Coordinates,
) -> Result<Option<Sections>, Failure> {
    Ok(match (&options.sections, options.between_radius) {
        (Some(column), _) => Some(Sections::of_column(source, column)?),
        (None, Some(_)) => Some(Sections::of_heights(source, coordinates).map_err(|error| {
            Failure::from(error).with_help(
                "name the obs column with the section of each spot by --sections, or columns of obs by --coordinates X,Y,Z",
            )
        })?),
        (None, None) => None,
    })
}

fn labels(options: &SpatialOptions, source: &dyn CellSource) -> Result<Option<Labels>, Failure> {
    let Some(column) = &options.label else { return Ok(None) };
    let labels = source.labels(column)?.known(&options.missing_names());
    if labels.n_labelled() == 0 {
        return Err(Failure::new(
            Category::Input,
            format!("obs column {column:?} of {} labels no spot", source.path().display()),
        )
        .with_help("name another column by --label, or leave it out"));
    }
    Ok(Some(labels))
}

/// The type of each spot as a number; spots without one have one of their own together.
fn types(column: &str, options: &SpatialOptions, source: &dyn CellSource) -> Result<Vec<u32>, Failure> {
    let labels = source.labels(column)?.known(&options.missing_names());
    Ok(labels.codes.iter().map(|code| code.unwrap_or(u32::MAX)).collect())
}

/// A file's name without its ending, or a folder's.
fn name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    stem.unwrap_or_default().to_string_lossy().into_owned()
}
