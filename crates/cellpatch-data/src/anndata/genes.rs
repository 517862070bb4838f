//! Which columns of `var` say what a gene is called.

use super::frame::Frame;
use crate::error::Result;
use crate::h5::Container;
use crate::vocabulary::{Gene, ensembl_id};

/// Columns that hold Ensembl ids, best first, in lower case without separators.
const ID_COLUMNS: [&str; 9] = [
    "ensemblid",
    "ensemblids",
    "ensembl",
    "ensemblgeneid",
    "geneids",
    "geneid",
    "featureid",
    "ensg",
    "accession",
];
/// Columns that hold symbols, best first.
const SYMBOL_COLUMNS: [&str; 13] = [
    "featurename",
    "genesymbols",
    "genesymbol",
    "symbol",
    "symbols",
    "hgncsymbol",
    "hgnc",
    "genename",
    "genenames",
    "geneshortname",
    "gene",
    "name",
    "features",
];

/// The genes a frame names: from its index and the columns known to hold ids and symbols.
///
/// A list of names counts as Ensembl ids if most of it looks like them.
pub(super) fn genes(container: &dyn Container, frame: &Frame) -> Result<Vec<Gene>> {
    let index: Vec<Option<String>> = frame.index(container)?.into_iter().map(Some).collect();
    let index_has_ids = mostly_ids(&index);
    let mut ids = index_has_ids.then(|| index.clone());
    // An index of 0, 1, 2, ... names nothing: two files would seem to share all their genes.
    let mut symbols = (!index_has_ids && mostly_names(&index)).then_some(index);
    if ids.is_none() {
        ids = first_column(container, frame, &ID_COLUMNS, mostly_ids)?;
    }
    let named =
        first_column(container, frame, &SYMBOL_COLUMNS, |names| !mostly_ids(names) && mostly_names(names))?;
    // An index of symbols may have been made unique ("TBCE-1"); a column beside it was not.
    if named.is_some() {
        symbols = named;
    }
    let n_genes = frame.n_rows();
    let at =
        |names: &Option<Vec<Option<String>>>, row: usize| names.as_ref().and_then(|names| names[row].clone());
    Ok((0..n_genes).map(|row| Gene::new(at(&ids, row).as_deref(), at(&symbols, row).as_deref())).collect())
}

/// The texts of the best-named column that `accept`s.
fn first_column(
    container: &dyn Container,
    frame: &Frame,
    names: &[&str],
    accept: impl Fn(&[Option<String>]) -> bool,
) -> Result<Option<Vec<Option<String>>>> {
    let plain = |column: &str| -> String {
        column.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
    };
    for name in names {
        // "gene_ids-Harvard" and the like, left by concatenation, come after the exact name.
        let exact = frame.columns().iter().filter(|column| plain(column) == *name);
        let suffixed = frame.columns().iter().filter(|column| {
            column.split_once('-').is_some_and(|(stem, suffix)| plain(stem) == *name && !suffix.is_empty())
        });
        for column in exact.chain(suffixed) {
            let texts = frame.column(container, column)?.texts();
            if accept(&texts) {
                return Ok(Some(texts));
            }
        }
    }
    Ok(None)
}

fn mostly_ids(names: &[Option<String>]) -> bool {
    let n_ids = names.iter().flatten().filter(|name| ensembl_id(name).is_some()).count();
    n_ids * 2 > names.len()
}

/// Whether most are texts other than plain numbers: "gene_id" may be 0, 1, 2, ...
fn mostly_names(names: &[Option<String>]) -> bool {
    let n_names =
        names.iter().flatten().filter(|name| !name.is_empty() && name.parse::<f64>().is_err()).count();
    n_names * 2 > names.len()
}
