//! The genes of a synthetic data set: curated human genes and a background.

use super::cell_type::CellType;

/// Symbols (HGNC), Ensembl gene ids and roles, one gene a line under a heading. A role is a cell type, a lineage, a
/// gene programme or a sex; `role=2` doubles the usual level. Which gene marks what is textbook knowledge; ids are
/// those of GENCODE release 44.
const TABLE: &str = include_str!("genes.tsv");

/// Average expression, in counts per 10,000, of a marker in the cells it marks.
const MARKER_LEVEL: f64 = 9.0;
/// Average expression, in counts per 10,000, of a marker anywhere else.
const MARKER_LEAK: f64 = 0.12;

/// One gene of a synthetic data set.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SyntheticGene {
    /// Ensembl gene id; `SYNG` and 11 digits for a background gene.
    pub ensembl_id: String,
    /// HGNC symbol; `SYN` and 5 or more digits for a background gene.
    pub symbol: String,
    /// What the gene is for, with a level relative to others of that role. Empty for a background gene.
    pub roles: Vec<GeneRole>,
}

/// A gene's part in a cell type, a lineage, a programme or a sex.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct GeneRole {
    /// Name of the role, such as "b_cell", "cytotoxic" or "ribosomal".
    pub name: &'static str,
    /// Expression relative to the other genes of the role.
    pub level: f64,
}

impl SyntheticGene {
    /// The first `n_genes` genes: every curated gene, then background genes.
    pub(super) fn catalogue(n_genes: usize) -> Vec<Self> {
        let background = (1..).map(|number: usize| Self {
            ensembl_id: format!("SYNG{number:011}"),
            symbol: format!("SYN{number:05}"),
            roles: Vec::new(),
        });
        curated_genes().chain(background).take(n_genes).collect()
    }

    /// Whether the gene has the role.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.iter().any(|role| role.name == name)
    }

    /// Whether the gene is one of the anonymous background.
    pub fn is_background(&self) -> bool {
        self.roles.is_empty()
    }

    /// Average expression in a cell type, in counts per 10,000, of a curated gene.
    ///
    /// Genes of a programme have the programme's level in every type; markers are high in the types of their role.
    pub(super) fn level(&self, cell_type: &CellType) -> f64 {
        let level = |role: &GeneRole| match role.name {
            "ribosomal" => 20.0 * role.level,
            "mitochondrial" => 30.0 * role.level,
            "housekeeping" => 14.0 * role.level,
            "cell_cycle" => 0.4 * role.level,
            "interferon" => 1.2 * role.level,
            "stress" => 3.5 * role.level,
            "hypoxia" => 2.5 * role.level,
            "female" | "male" => 4.0 * role.level,
            name if cell_type.roles.contains(&name) => MARKER_LEVEL * role.level,
            _ => MARKER_LEAK,
        };
        self.roles.iter().map(level).fold(MARKER_LEAK, f64::max)
    }
}

/// The curated genes, in the table's order. Lines that are no genes are passed over.
pub(super) fn curated_genes() -> impl Iterator<Item = SyntheticGene> {
    TABLE.lines().skip(1).filter_map(|line| {
        let mut fields = line.split('\t');
        let (symbol, ensembl_id, roles) = (fields.next()?, fields.next()?, fields.next()?);
        let role = |text: &'static str| match text.split_once('=') {
            Some((name, level)) => level.parse().ok().map(|level| GeneRole { name, level }),
            None => Some(GeneRole { name: text, level: 1.0 }),
        };
        let roles = roles.split(',').filter_map(role).collect();
        Some(SyntheticGene { ensembl_id: ensembl_id.into(), symbol: symbol.into(), roles })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::cell_type::{CELL_TYPES, cell_type_roles};
    use super::super::program::NAMED_PROGRAMS;
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_gene_with_a_known_role() {
        assert_eq!(curated_genes().count(), TABLE.lines().count() - 1);
        let mut known = cell_type_roles();
        known.extend(NAMED_PROGRAMS.iter().map(|program| program.role));
        known.extend(["housekeeping", "female", "male"]);
        for (gene, line) in curated_genes().zip(TABLE.lines().skip(1)) {
            let roles = line.split('\t').nth(2).unwrap().split(',').count();
            assert_eq!(gene.roles.len(), roles, "{line}");
            for role in &gene.roles {
                assert!(known.contains(&role.name), "{line}");
                assert!(role.level > 0.0 && role.level < 20.0, "{line}");
            }
        }
    }

    #[test]
    fn symbols_and_ensembl_ids_are_well_formed_and_unique() {
        let genes = SyntheticGene::catalogue(3_000);
        let ids: HashSet<_> = genes.iter().map(|gene| &gene.ensembl_id).collect();
        let symbols: HashSet<_> = genes.iter().map(|gene| &gene.symbol).collect();
        assert_eq!((ids.len(), symbols.len()), (3_000, 3_000));
        for gene in &genes {
            let digits =
                gene.ensembl_id.trim_start_matches(if gene.is_background() { "SYNG" } else { "ENSG" });
            assert!(digits.len() == 11 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{gene:?}");
            let name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(gene.symbol.bytes().all(name), "{gene:?}");
        }
    }

    #[test]
    fn every_cell_type_has_at_least_six_markers_of_its_own() {
        for cell_type in &CELL_TYPES {
            let own = cell_type.roles.last().unwrap();
            let markers = curated_genes().filter(|gene| gene.has_role(own)).count();
            assert!((6..=15).contains(&markers), "{}: {markers}", cell_type.name);
        }
    }
}
