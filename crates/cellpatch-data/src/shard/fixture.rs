//! Sources in memory for tests.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{ShardOptions, ShardSet, writer::write_sources};
use crate::{
    CellBlocks, CellFormat, CellSource, CountBlock, Gene, Labels, MatrixInfo, MatrixStorage, QualityFilter,
    Result, ValueKind,
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
            is_log1p: false,
            path: PathBuf::new(),
            prefix: "",
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
        Ok((0..self.cells.len()).map(|cell| format!("{}{cell}", self.prefix)).collect())
    }

    fn obs_columns(&self) -> Vec<String> {
        self.obs.iter().map(|(name, _)| name.clone()).collect()
    }

    fn labels(&self, column: &str) -> Result<Labels> {
        Ok(self.obs.iter().find(|(name, _)| name == column).unwrap().1.clone())
    }

    fn blocks(&self, _: usize) -> Result<CellBlocks> {
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
        Ok(Box::new(blocks.into_iter()))
    }
}

/// No quality control, small row groups, donors kept.
pub(crate) fn options() -> ShardOptions {
    ShardOptions {
        quality: QualityFilter::OFF,
        row_group_cells: 16,
        obs_columns: vec!["donor_id".into()],
        ..ShardOptions::default()
    }
}

/// Shards in-memory sources, `s0`, `s1`, ..., into `out`.
pub(crate) fn write(sources: &[MemorySource], out: &Path, options: &ShardOptions) -> Result<ShardSet> {
    let folder = TempDir::new().unwrap();
    let inputs: Vec<PathBuf> =
        (0..sources.len()).map(|index| folder.path().join(format!("s{index}.mem"))).collect();
    inputs.iter().for_each(|path| std::fs::write(path, b"cells").unwrap());
    let open = |path: &Path| -> Result<Box<dyn CellSource>> {
        let index = inputs.iter().position(|input| input == path).unwrap();
        Ok(Box::new(MemorySource { path: path.to_path_buf(), ..sources[index].clone() }))
    };
    write_sources(&inputs, &open, out, options, &mut |_| {})
}

/// A shard set of `n_cells` random cells with 60 genes, and the folder it is in.
pub(crate) fn shards(n_cells: usize) -> (TempDir, ShardSet) {
    let folder = TempDir::new().unwrap();
    let set = write(&[MemorySource::random(n_cells, 60, 1)], &folder.path().join("set"), &options()).unwrap();
    (folder, set)
}
