//! Writes synthetic cells as an AnnData file.

use std::path::{Path, PathBuf};

use hdf5_pure::{
    AttrValue, BufferedAppender, Dataset, DatasetBuilder, File, FileAccessProperties, FileCreateProperties,
    Group, MaxExtent, StagedGroup, SyncPolicy,
};

use super::cell_type::CELL_TYPES;
use super::cells::{SyntheticBlock, SyntheticCells};
use super::config::SyntheticConfig;
use super::gene::SyntheticGene;
use super::model::SyntheticCell;
use crate::{Error, Result};

/// Cells drawn at a time: at 4,000 genes a cell, 16 MB.
const CELLS_PER_BLOCK: usize = 512;
/// Elements of one HDF5 chunk: 128 KiB of the matrix before compression. From 65,536 on, HDF5 2.0 refuses how
/// hdf5-pure 0.47 stores chunk lengths (in 4 bytes where 3 do).
const CHUNK: u64 = 32_768;
/// Deflate level, AnnData's default.
const DEFLATE: u32 = 4;

/// What was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SyntheticSummary {
    /// The file.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Number of cells.
    pub n_cells: usize,
    /// Number of genes.
    pub n_genes: usize,
    /// Number of stored counts.
    pub n_nonzero: usize,
    /// Sum of all counts.
    pub total_counts: f64,
    /// Median over cells of the number of genes with a count.
    pub median_genes_per_cell: usize,
    /// Median over cells of the total count.
    pub median_counts_per_cell: f64,
    /// Cells of each type, in the order of [`CELL_TYPES`].
    pub cells_per_type: Vec<usize>,
}

impl SyntheticSummary {
    /// Share of the matrix that is zero.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.n_nonzero as f64 / (self.n_cells as f64 * self.n_genes as f64)
    }
}

/// Draws the cells of a configuration and writes them to `path` as `.h5ad`, laid out as CELLxGENE distributes
/// files: raw counts in `X` (CSR, float32, gzip), `obs` with the truth about each cell (type, donor, batch, assay,
/// tissue, disease, sex, expected library size, programme activities), `var` indexed by Ensembl id with
/// `feature_name` and the `role` each gene plays.
///
/// Memory is bounded by the number of cells and one block of counts, not by the matrix. The file appears under its
/// name only when it is complete; an existing file is replaced.
///
/// # Errors
/// [`Error::BadOption`] if the configuration is not valid, [`Error::Io`] or [`Error::Hdf5Write`] if the file cannot
/// be written.
pub fn write_h5ad(config: &SyntheticConfig, path: impl AsRef<Path>) -> Result<SyntheticSummary> {
    let path = path.as_ref();
    let cells = SyntheticCells::generate(config)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new()
        .prefix(".synthetic-")
        .tempdir_in(folder)
        .map_err(|source| Error::io("create", path, source))?;
    let partial = temporary.path().join("partial.h5ad");
    // The width has to be chosen before the counts are known, so by the most there can be.
    let wide = config.n_cells as u64 * config.n_genes as u64 > i32::MAX as u64;
    let contents = write_contents(&cells, &partial, wide).map_err(|error| write_error(path, error))?;
    std::fs::rename(&partial, path).map_err(|source| Error::io("rename", path, source))?;
    let file_bytes = std::fs::metadata(path).map_err(|source| Error::io("read", path, source))?.len();
    Ok(contents.summary(path.to_path_buf(), file_bytes, config.n_genes))
}

fn write_error(path: &Path, error: hdf5_pure::Error) -> Error {
    match error {
        hdf5_pure::Error::Io(source) => Error::io("write", path, source),
        other => Error::Hdf5Write { path: path.to_path_buf(), reason: other.to_string() },
    }
}

/// What the writer remembers of the cells whose counts it has written.
#[derive(Debug, Default)]
struct Contents {
    offsets: Vec<i64>,
    totals: Vec<f64>,
    cells: Vec<SyntheticCell>,
}

impl Contents {
    fn push(&mut self, block: SyntheticBlock) {
        let base = self.offsets.last().copied().unwrap_or_default();
        self.offsets.extend(block.counts.offsets.iter().skip(1).map(|&offset| base + offset as i64));
        let total = |cell| block.counts.cell(cell).1.iter().copied().map(f64::from).sum();
        self.totals.extend((0..block.counts.n_cells()).map(|cell| -> f64 { total(cell) }));
        self.cells.extend(block.cells);
    }

    fn summary(mut self, path: PathBuf, file_bytes: u64, n_genes: usize) -> SyntheticSummary {
        let n_cells = self.cells.len();
        let total_counts = self.totals.iter().sum();
        let mut n_genes_seen: Vec<i64> = self.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        n_genes_seen.sort_unstable();
        self.totals.sort_unstable_by(f64::total_cmp);
        let mut cells_per_type = vec![0; CELL_TYPES.len()];
        self.cells.iter().for_each(|cell| cells_per_type[cell.cell_type] += 1);
        SyntheticSummary {
            path,
            file_bytes,
            n_cells,
            n_genes,
            n_nonzero: self.offsets.last().copied().unwrap_or_default() as usize,
            total_counts,
            median_genes_per_cell: n_genes_seen[n_cells / 2] as usize,
            median_counts_per_cell: self.totals[n_cells / 2],
            cells_per_type,
        }
    }
}

/// Creates the file with an empty matrix, streams the counts into it, and adds what is only known afterwards.
///
/// `wide` indices have 64 bits; SciPy wants `indices` and `indptr` of one width.
fn write_contents(cells: &SyntheticCells, path: &Path, wide: bool) -> Result<Contents, hdf5_pure::Error> {
    let access = FileAccessProperties::new().with_sync_policy(SyncPolicy::OnClose);
    let file = File::create_with_options(path, FileCreateProperties::new(), access)?;
    let root = file.root();
    root.set_attr("encoding-type", text("anndata"))?;
    root.set_attr("encoding-version", text("0.1.0"))?;
    let matrix = root.create_group_with("X", |group| {
        encoded(group, "csr_matrix", "0.1.0");
        let shape = vec![cells.n_cells() as i64, cells.genes().len() as i64];
        group.set_attr("shape", AttrValue::I64Array(shape));
        group.create_dataset("data", |dataset| growing(dataset.with_f32_data(&[])));
        group.create_dataset("indices", |dataset| {
            growing(if wide { dataset.with_i64_data(&[]) } else { dataset.with_i32_data(&[]) });
        });
    })?;
    file.commit()?;
    let contents = write_counts(cells, &mut matrix.dataset("data")?, &mut matrix.dataset("indices")?, wide)?;
    matrix.create_dataset("indptr", |dataset| {
        let narrow = || contents.offsets.iter().map(|&offset| offset as i32).collect::<Vec<_>>();
        let dataset =
            if wide { dataset.with_i64_data(&contents.offsets) } else { dataset.with_i32_data(&narrow()) };
        dataset.with_chunks(&[CHUNK]).with_deflate(DEFLATE);
    })?;
    write_obs(&root, cells, &contents.cells)?;
    write_var(&root, cells.genes())?;
    root.create_group_with("uns", |group| {
        encoded(group, "dict", "0.1.0");
        group.create_dataset("title", |dataset| {
            dataset.with_vlen_strings(&["Synthetic human blood and pancreas"]).with_shape(&[]);
            dataset.set_attr("encoding-type", text("string")).set_attr("encoding-version", text("0.2.0"));
        });
    })?;
    for name in ["layers", "obsm", "obsp", "varm", "varp"] {
        root.create_group_with(name, |group| encoded(group, "dict", "0.1.0"))?;
    }
    file.commit()?;
    file.close()?;
    Ok(contents)
}

/// Streams all counts. The next block is drawn while one is compressed and written.
fn write_counts(
    cells: &SyntheticCells,
    data: &mut Dataset,
    indices: &mut Dataset,
    wide: bool,
) -> Result<Contents, hdf5_pure::Error> {
    let (mut data, mut indices) = (data.buffered_appender()?, indices.buffered_appender()?);
    let mut contents = Contents { offsets: vec![0], ..Contents::default() };
    let mut block = cells.block(0, CELLS_PER_BLOCK);
    while !block.cells.is_empty() {
        let next_row = block.counts.first_row + block.cells.len();
        let (written, next) = rayon::join(
            || append(&block, &mut data, &mut indices, wide),
            || cells.block(next_row, CELLS_PER_BLOCK),
        );
        written?;
        contents.push(std::mem::replace(&mut block, next));
    }
    data.finish()?;
    indices.finish()?;
    Ok(contents)
}

fn append(
    block: &SyntheticBlock,
    data: &mut BufferedAppender<'_>,
    indices: &mut BufferedAppender<'_>,
    wide: bool,
) -> Result<(), hdf5_pure::Error> {
    let columns = &block.counts.columns;
    data.append(&block.counts.values)?;
    if wide {
        indices.append(&columns.iter().map(|&column| i64::from(column)).collect::<Vec<_>>())
    } else {
        indices.append(&columns.iter().map(|&column| column as i32).collect::<Vec<_>>())
    }
}

/// An empty dataset that appends make longer.
fn growing(dataset: &mut DatasetBuilder) {
    let dataset = dataset.with_shape(&[0]).with_maxshape(&[MaxExtent::Unlimited]);
    dataset.with_chunks(&[CHUNK]).with_deflate(DEFLATE);
}

fn write_obs(root: &Group, cells: &SyntheticCells, truth: &[SyntheticCell]) -> Result<(), hdf5_pure::Error> {
    let (donors, batches) = (cells.donors(), cells.batches());
    let columns: Vec<(&str, Vec<String>)> = vec![
        ("cell_type", of_each(truth, |cell| CELL_TYPES[cell.cell_type].name.into())),
        ("cell_type_ontology_term_id", of_each(truth, |cell| CELL_TYPES[cell.cell_type].ontology_id.into())),
        ("donor_id", of_each(truth, |cell| format!("donor_{:02}", cell.donor + 1))),
        ("batch", of_each(truth, |cell| format!("batch_{:02}", cell.batch + 1))),
        ("assay", of_each(truth, |cell| batches[cell.batch].assay.into())),
        ("tissue", of_each(truth, |cell| CELL_TYPES[cell.cell_type].tissue.into())),
        ("disease", of_each(truth, |cell| donors[cell.donor].disease().into())),
        ("sex", of_each(truth, |cell| donors[cell.donor].sex().into())),
    ];
    let numbers: [(&str, Vec<f32>); 4] = [
        ("library_size", of_each(truth, |cell| cell.library_size)),
        ("cell_cycle_activity", of_each(truth, |cell| cell.cell_cycle)),
        ("interferon_activity", of_each(truth, |cell| cell.interferon)),
        ("stress_activity", of_each(truth, |cell| cell.stress)),
    ];
    let names = columns.iter().map(|(name, _)| *name).chain(numbers.iter().map(|(name, _)| *name));
    let barcodes: Vec<String> = truth.iter().zip(0..).map(|(cell, row)| barcode(row, cell.batch)).collect();
    root.create_group_with("obs", |group| {
        data_frame(group, "barcode", names);
        strings(group, "barcode", &barcodes);
        for (name, labels) in &columns {
            categorical(group, name, labels);
        }
        for (name, values) in &numbers {
            group.create_dataset(name, |dataset| {
                dataset.with_f32_data(values).with_chunks(&[CHUNK]).with_deflate(DEFLATE);
                dataset.set_attr("encoding-type", text("array")).set_attr("encoding-version", text("0.2.0"));
            });
        }
    })?;
    Ok(())
}

fn write_var(root: &Group, genes: &[SyntheticGene]) -> Result<(), hdf5_pure::Error> {
    let ids: Vec<String> = genes.iter().map(|gene| gene.ensembl_id.clone()).collect();
    let symbols: Vec<String> = genes.iter().map(|gene| gene.symbol.clone()).collect();
    let role = |gene: &SyntheticGene| match gene.roles.as_slice() {
        [] => "background".to_owned(),
        roles => roles.iter().map(|role| role.name).collect::<Vec<_>>().join(", "),
    };
    let roles: Vec<String> = genes.iter().map(role).collect();
    root.create_group_with("var", |group| {
        data_frame(group, "ensembl_id", ["feature_name", "role"].into_iter());
        strings(group, "ensembl_id", &ids);
        strings(group, "feature_name", &symbols);
        categorical(group, "role", &roles);
    })?;
    Ok(())
}

fn of_each<T>(cells: &[SyntheticCell], value: impl Fn(&SyntheticCell) -> T) -> Vec<T> {
    cells.iter().map(value).collect()
}

/// A 16-base barcode that is unique for each of the first 2^32 rows, with the batch as its suffix.
fn barcode(row: u32, batch: usize) -> String {
    // Multiplying by an odd number permutes the 32-bit numbers; two bits make a base.
    let bits = row.wrapping_add(1).wrapping_mul(0x9E37_79B1);
    let base = |position: u32| char::from(b"ACGT"[(bits >> (2 * position) & 3) as usize]);
    format!("{}-{}", (0..16).map(base).collect::<String>(), batch + 1)
}

fn text(value: &str) -> AttrValue {
    AttrValue::VarLenString(value.to_owned())
}

fn encoded(group: &mut StagedGroup<'_>, kind: &str, version: &str) {
    group.set_attr("encoding-type", text(kind)).set_attr("encoding-version", text(version));
}

fn data_frame<'a>(group: &mut StagedGroup<'_>, index: &str, columns: impl Iterator<Item = &'a str>) {
    encoded(group, "dataframe", "0.2.0");
    group.set_attr("_index", text(index));
    group.set_attr("column-order", AttrValue::VarLenStringArray(columns.map(str::to_owned).collect()));
}

fn strings(group: &mut StagedGroup<'_>, name: &str, values: &[impl AsRef<str>]) {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    group.create_dataset(name, |dataset| {
        dataset.with_vlen_strings(&values);
        dataset.set_attr("encoding-type", text("string-array")).set_attr("encoding-version", text("0.2.0"));
    });
}

/// A column of labels as sorted categories and codes of the narrowest signed integer, as AnnData writes it.
fn categorical(group: &mut StagedGroup<'_>, name: &str, labels: &[String]) {
    let mut categories: Vec<&str> = labels.iter().map(String::as_str).collect();
    categories.sort_unstable();
    categories.dedup();
    let codes: Vec<i16> = labels
        .iter()
        .map(|label| categories.partition_point(|category| *category < label.as_str()) as i16)
        .collect();
    group.create_group_with(name, |column| {
        encoded(column, "categorical", "0.2.0");
        column.set_attr("ordered", AttrValue::U8(0));
        strings(column, "categories", &categories);
        column.create_dataset("codes", |dataset| {
            match i8::try_from(categories.len()) {
                Ok(_) => dataset.with_i8_data(&codes.iter().map(|&code| code as i8).collect::<Vec<_>>()),
                Err(_) => dataset.with_i16_data(&codes),
            };
            dataset.with_chunks(&[CHUNK]).with_deflate(DEFLATE);
            dataset.set_attr("encoding-type", text("array")).set_attr("encoding-version", text("0.2.0"));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_indices_hold_what_narrow_ones_hold() {
        let folder = tempfile::tempdir().unwrap();
        let config = SyntheticConfig { n_cells: 60, n_genes: 600, ..SyntheticConfig::default() };
        let cells = SyntheticCells::generate(&config).unwrap();
        let indices = |wide: bool| {
            let path = folder.path().join(format!("{wide}.h5ad"));
            write_contents(&cells, &path, wide).unwrap();
            let file = File::open(&path).unwrap();
            ["X/indices", "X/indptr"].map(|name| {
                let dataset = file.dataset(name).unwrap();
                if wide {
                    dataset.read_i64().unwrap()
                } else {
                    dataset.read_i32().unwrap().into_iter().map(i64::from).collect()
                }
            })
        };
        assert_eq!(indices(true), indices(false));
    }

    #[test]
    fn barcodes_are_sixteen_bases_and_a_batch() {
        let one = barcode(0, 1);
        assert!(one.len() == 18 && one.ends_with("-2"), "{one}");
        assert!(one.bytes().take(16).all(|base| b"ACGT".contains(&base)), "{one}");
        assert_ne!(barcode(1, 1), one);
    }
}
