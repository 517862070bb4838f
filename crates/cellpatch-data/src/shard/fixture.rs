//! Sources in memory for tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

use super::{ShardOptions, ShardProgress, ShardSet, writer::write_sources};
use crate::{
    BlockReader, CellBlocks, CellFormat, CellSource, CountBlock, Gene, Labels, MatrixInfo, MatrixStorage,
    QualityFilter, Result, ValueKind,
    random::{Purpose, stream},
};

/// Cells in memory, as if from a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemorySource {
    pub(crate) genes: Vec<Gene>,
    /// Columns and counts of each cell.
    pub(crate) cells: Vec<Vec<(u32, f32)>>,
    pub(crate) obs: Vec<(String, Labels)>,
    pub(crate) is_log1p: bool,
    pub(crate) path: PathBuf,
    pub(crate) prefix: &'static str,
    /// Names of the cells; empty for numbers after the prefix.
    pub(crate) ids: Vec<String>,
    /// How often all cells were read.
    pub(crate) n_reads: Arc<AtomicUsize>,
}

impl MemorySource {
    /// Cells with 2 to `n_genes / 2` genes of `n_genes`, their donors in turn `a`, `b`, `c`, `d` or unknown.
    pub(crate) fn random(n_cells: usize, n_genes: u32, seed: u64) -> Self {
        let cell = |cell: usize| {
            let mut random = stream(seed, Purpose::Synthesis, 0, cell as u64);
            let mut columns: Vec<u32> = (0..n_genes).collect();
            let n = 2 + random.below(n_genes / 2 - 1) as usize;
            random.partial_shuffle(&mut columns, n);
            columns.truncate(n);
            columns.sort_unstable();
            columns.into_iter().map(|column| (column, (1 + random.below(40)) as f32)).collect()
        };
        let categories = ["a", "b", "c", "d"].map(String::from).to_vec();
        let codes = (0..n_cells as u32).map(|cell| Some(cell % 5).filter(|&code| code < 4)).collect();
        Self {
            genes: (0..n_genes).map(|gene| symbol(&format!("G{gene}"))).collect(),
            cells: (0..n_cells).map(cell).collect(),
            obs: vec![("donor_id".into(), Labels { categories, codes })],
            ..Self::default()
        }
    }
}

pub(crate) fn symbol(name: &str) -> Gene {
    Gene { ensembl_id: None, symbol: Some(name.into()) }
}

impl CellSource for MemorySource {
    fn matrix(&self) -> String {
        "X".into()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> CellFormat {
        CellFormat::AnnData
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn matrix_info(&self) -> Result<MatrixInfo> {
        Ok(MatrixInfo {
            n_cells: self.cells.len(),
            n_genes: self.genes.len(),
            storage: MatrixStorage::Csr,
            dtype: "float32".into(),
            n_stored: self.cells.iter().map(Vec::len).sum(),
        })
    }

    fn value_kind(&self) -> &ValueKind {
        if self.is_log1p { &ValueKind::Log1p { target_sum: None } } else { &ValueKind::Counts }
    }

    fn n_cells(&self) -> usize {
        self.cells.len()
    }

    fn genes(&self) -> Result<Vec<Gene>> {
        Ok(self.genes.clone())
    }

    fn cell_ids(&self) -> Result<Vec<String>> {
        match self.ids.is_empty() {
            true => Ok((0..self.cells.len()).map(|cell| format!("{}{cell}", self.prefix)).collect()),
            false => Ok(self.ids.clone()),
        }
    }

    fn obs_columns(&self) -> Vec<String> {
        self.obs.iter().map(|(name, _)| name.clone()).collect()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        Ok(self.obs.iter().find(|(name, _)| name == column).unwrap().1.clone())
    }

    fn blocks(&self, _: usize) -> Result<CellBlocks> {
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        let blocks: Vec<_> = self
            .cells
            .chunks(7)
            .enumerate()
            .map(|(index, cells)| {
                let mut block =
                    CountBlock { first_row: index * 7, offsets: vec![0], ..CountBlock::default() };
                for &(column, value) in cells.iter().flatten() {
                    block.columns.push(column);
                    block.values.push(value);
                }
                block.offsets.extend(cells.iter().scan(0, |end, cell| {
                    *end += cell.len();
                    Some(*end)
                }));
                Ok(block)
            })
            .collect();
        Ok(Box::new(FixtureBlocks(blocks.into_iter())))
    }
}

struct FixtureBlocks(std::vec::IntoIter<Result<CountBlock>>);

impl Iterator for FixtureBlocks {
    type Item = Result<CountBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl BlockReader for FixtureBlocks {}

/// No quality control, small row groups, donors kept.
pub(crate) fn options() -> ShardOptions {
    ShardOptions {
        quality: QualityFilter::OFF,
        row_group_cells: 16,
        obs_columns: vec!["donor_id".into()],
        ..ShardOptions::default()
    }
}

/// In-memory sources as if they were the files `s0`, `s1`, ...
pub(crate) struct Inputs {
    _folder: TempDir,
    paths: Vec<PathBuf>,
    sources: Vec<MemorySource>,
}

impl Inputs {
    pub(crate) fn new(sources: &[MemorySource]) -> Self {
        let folder = TempDir::new().unwrap();
        let paths: Vec<PathBuf> =
            (0..sources.len()).map(|index| folder.path().join(format!("s{index}.mem"))).collect();
        let contents = |source: &MemorySource| format!("{:?}", (&source.genes, &source.cells, &source.obs));
        paths.iter().zip(sources).for_each(|(path, source)| std::fs::write(path, contents(source)).unwrap());
        Self { _folder: folder, paths, sources: sources.to_vec() }
    }

    /// Shards them into `out`, reading all twice.
    pub(crate) fn write(
        &self,
        out: &Path,
        options: &ShardOptions,
        progress: &mut dyn FnMut(ShardProgress),
    ) -> Result<ShardSet> {
        self.write_keeping(0, out, options, progress)
    }

    /// Shards them into `out`, keeping cells of the first pass that take at most `keep_bytes`.
    pub(crate) fn write_keeping(
        &self,
        keep_bytes: usize,
        out: &Path,
        options: &ShardOptions,
        progress: &mut dyn FnMut(ShardProgress),
    ) -> Result<ShardSet> {
        let open = |path: &Path| -> Result<Box<dyn CellSource>> {
            let index = self.paths.iter().position(|input| input == path).unwrap();
            Ok(Box::new(MemorySource { path: path.to_path_buf(), ..self.sources[index].clone() }))
        };
        write_sources(&self.paths, &open, out, options, keep_bytes, progress)
    }

    /// How often all cells of a source were read, over all sources.
    pub(crate) fn n_reads(&self) -> usize {
        self.sources.iter().map(|source| source.n_reads.load(Ordering::Relaxed)).sum()
    }
}

/// Shards in-memory sources, `s0`, `s1`, ..., into `out`.
pub(crate) fn write(sources: &[MemorySource], out: &Path, options: &ShardOptions) -> Result<ShardSet> {
    Inputs::new(sources).write(out, options, &mut |_| {})
}

/// Every file of a folder: its name and contents.
pub(crate) fn contents_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// A shard set of `n_cells` random cells with 60 genes, and the folder it is in.
pub(crate) fn shards(n_cells: usize) -> (TempDir, ShardSet) {
    let folder = TempDir::new().unwrap();
    let set = write(&[MemorySource::random(n_cells, 60, 1)], &folder.path().join("set"), &options()).unwrap();
    (folder, set)
}
