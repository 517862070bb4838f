//! The `.h5` files of Cell Ranger: one group per genome (version 2), or one `matrix` with typed features (version 3).

use std::path::Path;
use std::sync::Arc;

use super::features::{Feature, KeptFeatures};
use crate::error::{Error, Result};
use crate::h5::{Container, ObjectKind};
use crate::matrix::{self, CountBlocks, Matrix, MatrixInfo, ValueKind};

/// The group of a version 3 file.
const MATRIX: &str = "matrix";

/// An open `.h5` file of 10x Genomics, its genome chosen.
#[derive(Clone)]
pub(crate) struct TenxFile {
    container: Arc<dyn Container>,
    group: String,
    pub(crate) features: KeptFeatures,
    info: MatrixInfo,
}

impl std::fmt::Debug for TenxFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TenxFile").field("path", &self.container.path()).finish_non_exhaustive()
    }
}

/// The groups that are matrices: `matrix`, or the genomes of a version 2 file. Empty for a file of another kind.
pub(crate) fn groups(container: &dyn Container) -> Result<Vec<String>> {
    let is_array = |name: String| Ok::<_, Error>(container.kind(&name)? == Some(ObjectKind::Array));
    if container.kind(MATRIX)? == Some(ObjectKind::Group) && is_array(format!("{MATRIX}/barcodes"))? {
        return Ok(vec![MATRIX.into()]);
    }
    let mut found = Vec::new();
    for group in container.members("/")? {
        if is_array(format!("{group}/barcodes"))? && is_array(format!("{group}/genes"))? {
            found.push(group);
        }
    }
    found.sort();
    Ok(found)
}

impl TenxFile {
    /// Opens the matrix of the chosen genome, or of the only one.
    ///
    /// # Errors
    /// [`Error::SeveralGenomes`] if none was chosen, [`Error::Missing`] for a genome that is not there,
    /// [`Error::Invalid`] if the parts of the matrix contradict each other.
    pub(crate) fn open(container: Arc<dyn Container>, genome: Option<&str>) -> Result<Self> {
        let path = container.path().to_path_buf();
        let groups = groups(container.as_ref())?;
        let is_typed = groups == [MATRIX];
        let group = match (groups.as_slice(), genome) {
            ([], _) => {
                let (what, available) = ("matrix", container.members("/")?);
                return Err(Error::Missing { path, what, name: MATRIX.into(), available });
            }
            ([only], _) if is_typed => only.clone(),
            (genomes, Some(genome)) => match genomes.iter().find(|known| *known == genome) {
                Some(group) => group.clone(),
                None => {
                    let name = genome.to_string();
                    return Err(Error::Missing { path, what: "genome", name, available: groups });
                }
            },
            ([only], None) => only.clone(),
            (_, None) => return Err(Error::SeveralGenomes { path, genomes: groups }),
        };
        let features = if is_typed { typed(container.as_ref())? } else { plain(container.as_ref(), &group)? };
        let matrix = Matrix::open_tenx(container.as_ref(), &group)?;
        let info = matrix.info();
        if features.len() != info.n_genes {
            return Err(matrix.values().invalid(format!(
                "it has {} columns, {} features are named",
                info.n_genes,
                features.len()
            )));
        }
        let n_barcodes = container.array(&format!("{group}/barcodes"))?.n_rows();
        if n_barcodes != info.n_cells {
            return Err(matrix
                .values()
                .invalid(format!("it has {} cells, {n_barcodes} barcodes are named", info.n_cells)));
        }
        let genome = genome.filter(|_| is_typed);
        let features = KeptFeatures::select(&path, &features, genome)?;
        Ok(Self { container, group, features, info })
    }

    pub(crate) fn path(&self) -> &Path {
        self.container.path()
    }

    /// What messages call the matrix.
    pub(crate) fn matrix(&self) -> &str {
        &self.group
    }

    /// Shape and storage, features that are left out not counted as genes.
    pub(crate) fn info(&self) -> MatrixInfo {
        MatrixInfo { n_genes: self.features.genes.len(), ..self.info.clone() }
    }

    pub(crate) fn value_kind(&self) -> Result<ValueKind> {
        matrix::detect(Matrix::open_tenx(self.container.as_ref(), &self.group)?)
    }

    pub(crate) fn barcodes(&self) -> Result<Vec<String>> {
        self.container.array(&format!("{}/barcodes", self.group))?.read_texts()
    }

    /// Cells in blocks, with every feature of the file.
    pub(crate) fn blocks(&self, max_bytes: usize, expected: &ValueKind) -> Result<CountBlocks> {
        let matrix = Matrix::open_tenx(self.container.as_ref(), &self.group)?;
        CountBlocks::new(matrix, max_bytes, Some(expected.clone()))
    }
}

/// The features of a version 3 file.
fn typed(container: &dyn Container) -> Result<Vec<Feature>> {
    let column = |name: &str| container.array(&format!("{MATRIX}/features/{name}"))?.read_texts();
    let optional = |name: &str| match container.kind(&format!("{MATRIX}/features/{name}"))? {
        Some(ObjectKind::Array) => column(name).map(Some),
        _ => Ok(None),
    };
    let (ids, names) = (column("id")?, column("name")?);
    zip(container, MATRIX, ids, names, optional("feature_type")?, optional("genome")?)
}

/// The genes of a version 2 file.
fn plain(container: &dyn Container, group: &str) -> Result<Vec<Feature>> {
    let ids = container.array(&format!("{group}/genes"))?.read_texts()?;
    let names = container.array(&format!("{group}/gene_names"))?.read_texts()?;
    zip(container, group, ids, names, None, None)
}

fn zip(
    container: &dyn Container,
    group: &str,
    ids: Vec<String>,
    names: Vec<String>,
    kinds: Option<Vec<String>>,
    genomes: Option<Vec<String>>,
) -> Result<Vec<Feature>> {
    let n_features = ids.len();
    let absent = || vec![String::new(); n_features];
    let (kinds, genomes) = (kinds.unwrap_or_else(absent), genomes.unwrap_or_else(absent));
    if [&names, &kinds, &genomes].iter().any(|column| column.len() != n_features) {
        return Err(Error::Invalid {
            path: container.path().to_path_buf(),
            dataset: group.to_string(),
            reason: format!(
                "its features have {n_features} ids, {} names, {} types and {} genomes",
                names.len(),
                kinds.len(),
                genomes.len()
            ),
        });
    }
    let features = ids.into_iter().zip(names).zip(kinds).zip(genomes);
    Ok(features.map(|(((id, name), kind), genome)| Feature { id, name, kind, genome }).collect())
}
