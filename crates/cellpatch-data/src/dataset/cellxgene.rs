//! Data sets of CELLxGENE Discover, found through its curation API.
//!
//! `GET {api}/datasets` answers with a list of all public data sets (the API's `curation-api.yml`, in the repository
//! chanzuckerberg/single-cell-data-portal); it cannot filter by what they hold, so that is done here.

use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::{DatasetFile, DatasetManifest, fetch::FetchOptions, manifest::is_plain_name};
use crate::error::{Error, Result};
use crate::remote::{Refusal, Wanted, get};
use crate::transfer_failure::TransferFailure;

/// The public server.
pub const CELLXGENE_API: &str = "https://api.cellxgene.cziscience.com/curation/v1";

/// The list of all data sets has some ten megabytes; what is larger than this is not it.
const MOST_BYTES: u64 = 1 << 30;

/// Which data sets are wanted.
///
/// A text fits a label that contains it, whatever the case (`lung` fits `lung parenchyma`), or an ontology term that equals it
/// (`UBERON:0002048`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellxgeneQuery {
    /// Species.
    pub organism: Option<String>,
    /// Tissue.
    pub tissue: Option<String>,
    /// How the cells were measured.
    pub assay: Option<String>,
    /// Disease; `normal` where there is none.
    pub disease: Option<String>,
    /// Fewest cells.
    pub min_cells: Option<u64>,
    /// Most cells.
    pub max_cells: Option<u64>,
    /// Most data sets.
    pub limit: Option<usize>,
}

/// A term of an ontology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Its name.
    pub label: String,
    /// Its identifier.
    #[serde(default)]
    pub ontology_term_id: Option<String>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// `H5AD`, `RDS`, `ATAC_FRAGMENT`, ...
    pub filetype: String,
    /// Bytes.
    #[serde(default)]
    pub filesize: Option<u64>,
    /// Where it is.
    pub url: String,
}

/// What the server says of a data set, as far as it is of use here; fields under the server's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellxgeneDataset {
    /// Stays the same from version to version.
    pub dataset_id: String,
    /// Names this version.
    pub dataset_version_id: String,
    /// What its authors call it.
    #[serde(default)]
    pub title: Option<String>,
    /// Cells.
    #[serde(default)]
    pub cell_count: Option<u64>,
    /// Cells that no other data set has too.
    #[serde(default)]
    pub primary_cell_count: Option<u64>,
    /// The collection it belongs to.
    #[serde(default)]
    pub collection_name: Option<String>,
    /// That collection's publication.
    #[serde(default)]
    pub collection_doi: Option<String>,
    /// What to cite.
    #[serde(default)]
    pub citation: Option<String>,
    /// Version of the CELLxGENE schema.
    #[serde(default)]
    pub schema_version: Option<String>,
    /// Species.
    #[serde(default, deserialize_with = "some_or_none")]
    pub organism: Vec<Term>,
    /// Tissues.
    #[serde(default, deserialize_with = "some_or_none")]
    pub tissue: Vec<Term>,
    /// How the cells were measured.
    #[serde(default, deserialize_with = "some_or_none")]
    pub assay: Vec<Term>,
    /// Diseases, `normal` among them.
    #[serde(default, deserialize_with = "some_or_none")]
    pub disease: Vec<Term>,
    /// Its files.
    #[serde(default, deserialize_with = "some_or_none")]
    pub assets: Vec<Asset>,
}

/// The server writes `null` where it has nothing.
fn some_or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl CellxgeneQuery {
    /// Asks the server at `api` (such as [`CELLXGENE_API`]) for its data sets and keeps those that fit, the newest first.
    ///
    /// # Errors
    /// [`Error::Transfer`] if the server cannot be asked, or answers something else.
    pub fn run(&self, api: &str, options: &FetchOptions) -> Result<Vec<CellxgeneDataset>> {
        let url = format!("{}/datasets", api.trim_end_matches('/'));
        let text = read(&url, options)?;
        let found: Vec<CellxgeneDataset> = serde_json::from_slice(&text).map_err(|error| {
            Error::Transfer { url, failure: TransferFailure::BadAnswer { reason: error.to_string() } }
        })?;
        let fitting = found.into_iter().filter(|dataset| self.fits(dataset));
        Ok(fitting.take(self.limit.unwrap_or(usize::MAX)).collect())
    }

    fn fits(&self, dataset: &CellxgeneDataset) -> bool {
        let texts = [
            (&self.organism, &dataset.organism),
            (&self.tissue, &dataset.tissue),
            (&self.assay, &dataset.assay),
            (&self.disease, &dataset.disease),
        ];
        let n_cells = dataset.cell_count.unwrap_or(0);
        texts.into_iter().all(|(wanted, terms)| wanted.as_deref().is_none_or(|text| any_fits(text, terms)))
            && self.min_cells.is_none_or(|least| n_cells >= least)
            && self.max_cells.is_none_or(|most| n_cells <= most)
    }
}

fn any_fits(text: &str, terms: &[Term]) -> bool {
    let text = text.to_lowercase();
    terms.iter().any(|term| {
        let id = term.ontology_term_id.as_deref().unwrap_or_default();
        term.label.to_lowercase().contains(&text) || id.to_lowercase() == text
    })
}

impl CellxgeneDataset {
    /// Its `.h5ad`, if it has one.
    pub fn h5ad(&self) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.filetype.eq_ignore_ascii_case("H5AD"))
    }

    /// A manifest for [`fetch`](super::fetch()) of its `.h5ad`, which is called after the version.
    ///
    /// # Errors
    /// [`Error::Transfer`] if it has none, or the server's names are none for files.
    pub fn manifest(&self) -> Result<DatasetManifest> {
        let bad = |url: &str, reason: &str| Error::Transfer {
            url: url.to_owned(),
            failure: TransferFailure::BadAnswer { reason: reason.to_owned() },
        };
        let asset = self.h5ad().ok_or_else(|| bad(&self.dataset_id, "the data set has no H5AD file"))?;
        if !is_plain_name(&self.dataset_version_id) || !asset.url.starts_with("http") {
            return Err(bad(&asset.url, "its name or address is none of a file"));
        }
        let labels =
            |terms: &[Term]| terms.iter().map(|term| term.label.as_str()).collect::<Vec<_>>().join(", ");
        Ok(DatasetManifest {
            name: self.dataset_version_id.clone(),
            title: self.title.clone().unwrap_or_default(),
            organism: labels(&self.organism),
            technology: labels(&self.assay),
            cells: self.cell_count,
            genes: None,
            licence: "CC BY 4.0 (CELLxGENE Discover)".to_owned(),
            citation: self.citation.clone().unwrap_or_default(),
            home: None,
            label_column: Some("cell_type".to_owned()),
            label_note: None,
            donor_column: Some("donor_id".to_owned()),
            split: None,
            notes: None,
            files: vec![DatasetFile {
                name: format!("{}.h5ad", self.dataset_version_id),
                url: asset.url.clone(),
                sha256: None,
                bytes: asset.filesize,
                unpack: None,
            }],
            synthetic_cells: None,
            pretrain: None,
        })
    }
}

/// The whole answer of a server, asked again where the connection breaks.
fn read(url: &str, options: &FetchOptions) -> Result<Vec<u8>> {
    let fail = |failure| Error::Transfer { url: url.to_owned(), failure };
    let mut n_failed = 0;
    loop {
        let failure = match get(Wanted { url, rest: None }) {
            Ok(answer) => match answer.refusal() {
                Some(Refusal::ForNow(failure)) => failure,
                Some(Refusal::ForGood(failure)) => return Err(fail(failure)),
                None => {
                    let (total, mut text) = (answer.total, Vec::new());
                    match answer.take(MOST_BYTES).read_to_end(&mut text) {
                        Ok(_) => return Ok(text),
                        Err(error) => TransferFailure::Interrupted {
                            received: text.len() as u64,
                            expected: total,
                            reason: error.to_string(),
                        },
                    }
                }
            },
            Err(Error::Transfer { failure: failure @ TransferFailure::Unreachable { .. }, .. }) => failure,
            Err(error) => return Err(error),
        };
        n_failed += 1;
        if n_failed > options.retries {
            return Err(fail(failure));
        }
        std::thread::sleep(options.pause_before(n_failed));
    }
}

#[cfg(test)]
#[path = "cellxgene_tests.rs"]
mod tests;
