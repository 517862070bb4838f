//! The features of a 10x matrix: which of them are genes, and of which genome.

use std::collections::BTreeMap;
use std::path::Path;

use crate::counts::CountBlock;
use crate::error::{Error, Result};
use crate::vocabulary::{Gene, ensembl_id};

/// The type of features that are genes; others are antibodies, guides, peaks.
const GENES: &str = "Gene Expression";

/// One feature as the file describes it; what a file does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) genome: String,
}

impl Feature {
    /// The genome: as stated, else what stands before the Ensembl id, as in `GRCh38_ENSG00000141510`.
    fn genome(&self) -> &str {
        if !self.genome.is_empty() {
            return &self.genome;
        }
        match self.id.rsplit_once('_') {
            Some((genome, id)) if ensembl_id(id).is_some() => genome.trim_end_matches('_'),
            _ => "",
        }
    }

    /// The gene without the genome that files of several genomes put before its names.
    fn gene(&self) -> Gene {
        let genome = self.genome();
        let bare = |name: &'_ str| -> String {
            let rest = name.strip_prefix(genome).filter(|rest| !genome.is_empty() && rest.starts_with('_'));
            rest.map_or(name, |rest| rest.trim_start_matches('_')).to_string()
        };
        let (id, name) = (bare(&self.id), bare(&self.name));
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let symbol = if name.is_empty() && !is_number { &id } else { &name };
        Gene::new(Some(&id), Some(symbol))
    }
}

/// The features that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeptFeatures {
    /// One per column that is left.
    pub(crate) genes: Vec<Gene>,
    /// For every column of the file, its column among those that are left; `None` if all are.
    columns: Option<Vec<Option<u32>>>,
    /// Features of other types, by type.
    pub(crate) left_out: BTreeMap<String, usize>,
    /// Genomes among the genes of the file.
    pub(crate) genomes: Vec<String>,
}

impl KeptFeatures {
    /// Keeps genes, and of several genomes those of the one that was chosen.
    ///
    /// # Errors
    /// [`Error::SeveralGenomes`] if none was chosen, [`Error::Missing`] for a genome or a feature type that is not there.
    pub(crate) fn select(path: &Path, features: &[Feature], genome: Option<&str>) -> Result<Self> {
        let is_gene = |feature: &&Feature| feature.kind.is_empty() || feature.kind == GENES;
        let missing = |what, name: &str, available| {
            let (path, name) = (path.to_path_buf(), name.to_string());
            Err(Error::Missing { path, what, name, available })
        };
        let mut left_out = BTreeMap::new();
        for feature in features.iter().filter(|feature| !is_gene(feature)) {
            *left_out.entry(feature.kind.clone()).or_insert(0) += 1;
        }
        if features.iter().all(|feature| !is_gene(&feature)) && !features.is_empty() {
            return missing("feature type", GENES, left_out.into_keys().collect());
        }
        let mut genomes: Vec<String> =
            features.iter().filter(is_gene).map(|feature| feature.genome().to_string()).collect();
        genomes.sort();
        genomes.dedup();
        genomes.retain(|genome| !genome.is_empty());
        match genome {
            None if genomes.len() > 1 => {
                return Err(Error::SeveralGenomes { path: path.to_path_buf(), genomes });
            }
            // A file that does not say which genome it is of is taken at the user's word.
            Some(genome) if !genomes.is_empty() && !genomes.iter().any(|known| known == genome) => {
                return missing("genome", genome, genomes);
            }
            _ => {}
        }
        let chosen = |feature: &&Feature| {
            is_gene(feature) && genome.is_none_or(|genome| genomes.is_empty() || feature.genome() == genome)
        };
        let genes: Vec<Gene> = features.iter().filter(chosen).map(Feature::gene).collect();
        let columns = (genes.len() < features.len()).then(|| {
            let mut next = 0..;
            features.iter().map(|feature| chosen(&feature).then(|| next.next()).flatten()).collect()
        });
        Ok(Self { genes, columns, left_out, genomes })
    }

    /// Where a column of the file went, `None` if it was left out.
    pub(crate) fn column(&self, column: u32) -> Option<u32> {
        match &self.columns {
            None => Some(column),
            Some(columns) => columns.get(column as usize).copied().flatten(),
        }
    }

    /// Takes the columns that are left out of a tidy block.
    pub(crate) fn apply(&self, block: &mut CountBlock) {
        if self.columns.is_some() {
            block.retain_columns(|column| self.column(column));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(id: &str, name: &str, kind: &str, genome: &str) -> Feature {
        let [id, name, kind, genome] = [id, name, kind, genome].map(str::to_string);
        Feature { id, name, kind, genome }
    }

    fn select(features: &[Feature], genome: Option<&str>) -> Result<KeptFeatures> {
        KeptFeatures::select(Path::new("cells.h5"), features, genome)
    }

    #[test]
    fn antibodies_are_left_out_and_counted() {
        let features = [
            feature("ENSG00000141510", "TP53", GENES, "GRCh38"),
            feature("CD3", "CD3_TotalSeqB", "Antibody Capture", ""),
            feature("ENSG00000153563", "CD8A", GENES, "GRCh38"),
        ];
        let kept = select(&features, None).unwrap();
        assert_eq!(kept.genes.iter().map(Gene::name).collect::<Vec<_>>(), ["TP53", "CD8A"]);
        assert_eq!([0, 1, 2, 3].map(|column| kept.column(column)), [Some(0), None, Some(1), None]);
        assert_eq!(kept.left_out, BTreeMap::from([("Antibody Capture".into(), 1)]));
        let error = select(&features[1..2], None).unwrap_err();
        assert!(matches!(error, Error::Missing { what: "feature type", .. }), "{error}");
    }

    #[test]
    fn of_two_genomes_one_must_be_chosen_and_its_prefix_goes() {
        let stated = [
            feature("GRCh38_ENSG00000141510", "GRCh38_TP53", GENES, "GRCh38"),
            feature("mm10___ENSMUSG00000059552", "mm10___Trp53", GENES, "mm10"),
        ];
        let unstated = stated.clone().map(|feature| Feature { genome: String::new(), ..feature });
        for features in [stated, unstated] {
            let error = select(&features, None).unwrap_err();
            assert!(
                matches!(&error, Error::SeveralGenomes { genomes, .. } if genomes == &["GRCh38", "mm10"])
            );
            let kept = select(&features, Some("mm10")).unwrap();
            assert_eq!(kept.genes, [Gene::new(Some("ENSMUSG00000059552"), Some("Trp53"))]);
            assert_eq!((kept.column(0), kept.column(1)), (None, Some(0)));
            let error = select(&features, Some("hg19")).unwrap_err();
            assert!(
                matches!(&error, Error::Missing { what: "genome", available, .. } if available.len() == 2)
            );
        }
    }

    #[test]
    fn ids_that_are_no_ensembl_ids_stand_in_for_missing_names() {
        let kept = select(&[feature("DSCAM", "", "", ""), feature("574405", "", "", "")], None).unwrap();
        assert_eq!(kept.genes[0].name(), "DSCAM");
        assert_eq!(kept.genes[1], Gene::default());
    }
}
