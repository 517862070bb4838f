//! The cell types that synthetic cells belong to.

/// One human cell type of the synthetic tissue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CellType {
    /// Name in the Cell Ontology.
    pub name: &'static str,
    /// Term in the Cell Ontology.
    pub ontology_id: &'static str,
    /// Where it is found: "blood" or "pancreas".
    pub tissue: &'static str,
    /// Lineages from broad to narrow, the type's own role last. Genes of these roles are expressed.
    pub roles: &'static [&'static str],
    /// Expected share of all cells; the shares of all types sum to 1.
    pub proportion: f64,
    /// Library size relative to the average cell.
    pub size: f64,
    /// Share of its cells that divide.
    pub cycling: f64,
    /// Mean activity of the ribosomal programme, in natural log units.
    pub translation: f64,
}

/// Every cell type, the most frequent kinds of blood first. Proportions follow what droplet experiments on blood and
/// on pancreas find, in about equal parts of immune variety and solid tissue; plasmacytoid dendritic cells are the
/// rare type.
pub const CELL_TYPES: [CellType; 14] = [
    CellType {
        name: "CD4-positive, alpha-beta T cell",
        ontology_id: "CL:0000624",
        tissue: "blood",
        roles: &["leukocyte", "lymphocyte", "t_or_nk", "t_cell", "cd4_t"],
        proportion: 0.21,
        size: 0.85,
        cycling: 0.01,
        translation: 0.4,
    },
    CellType {
        name: "CD8-positive, alpha-beta T cell",
        ontology_id: "CL:0000625",
        tissue: "blood",
        roles: &["leukocyte", "lymphocyte", "t_or_nk", "t_cell", "cytotoxic", "cd8_t"],
        proportion: 0.13,
        size: 0.85,
        cycling: 0.04,
        translation: 0.2,
    },
    CellType {
        name: "natural killer cell",
        ontology_id: "CL:0000623",
        tissue: "blood",
        roles: &["leukocyte", "lymphocyte", "t_or_nk", "cytotoxic", "nk"],
        proportion: 0.09,
        size: 0.85,
        cycling: 0.04,
        translation: 0.0,
    },
    CellType {
        name: "B cell",
        ontology_id: "CL:0000236",
        tissue: "blood",
        roles: &["leukocyte", "lymphocyte", "antigen_presenting", "b_lineage", "b_cell"],
        proportion: 0.10,
        size: 0.85,
        cycling: 0.02,
        translation: 0.35,
    },
    CellType {
        name: "plasma cell",
        ontology_id: "CL:0000786",
        tissue: "blood",
        roles: &["leukocyte", "b_lineage", "plasma_cell"],
        proportion: 0.02,
        size: 1.2,
        cycling: 0.12,
        translation: 0.1,
    },
    CellType {
        name: "classical monocyte",
        ontology_id: "CL:0000860",
        tissue: "blood",
        roles: &["leukocyte", "antigen_presenting", "myeloid", "classical_monocyte"],
        proportion: 0.14,
        size: 1.05,
        cycling: 0.0,
        translation: -0.3,
    },
    CellType {
        name: "non-classical monocyte",
        ontology_id: "CL:0000875",
        tissue: "blood",
        roles: &["leukocyte", "antigen_presenting", "myeloid", "nonclassical_monocyte"],
        proportion: 0.035,
        size: 1.05,
        cycling: 0.0,
        translation: -0.25,
    },
    CellType {
        name: "conventional dendritic cell",
        ontology_id: "CL:0000990",
        tissue: "blood",
        roles: &["leukocyte", "antigen_presenting", "myeloid", "dendritic"],
        proportion: 0.02,
        size: 1.2,
        cycling: 0.06,
        translation: 0.0,
    },
    CellType {
        name: "plasmacytoid dendritic cell",
        ontology_id: "CL:0000784",
        tissue: "blood",
        roles: &["leukocyte", "antigen_presenting", "plasmacytoid_dendritic"],
        proportion: 0.006,
        size: 1.1,
        cycling: 0.02,
        translation: 0.0,
    },
    CellType {
        name: "endothelial cell",
        ontology_id: "CL:0000115",
        tissue: "pancreas",
        roles: &["stromal", "endothelial"],
        proportion: 0.05,
        size: 1.2,
        cycling: 0.02,
        translation: 0.0,
    },
    CellType {
        name: "fibroblast",
        ontology_id: "CL:0000057",
        tissue: "pancreas",
        roles: &["stromal", "fibroblast"],
        proportion: 0.06,
        size: 1.25,
        cycling: 0.03,
        translation: 0.05,
    },
    CellType {
        name: "type B pancreatic cell",
        ontology_id: "CL:0000169",
        tissue: "pancreas",
        roles: &["epithelial", "endocrine", "beta"],
        proportion: 0.059,
        size: 1.4,
        cycling: 0.005,
        translation: -0.2,
    },
    CellType {
        name: "pancreatic A cell",
        ontology_id: "CL:0000171",
        tissue: "pancreas",
        roles: &["epithelial", "endocrine", "alpha"],
        proportion: 0.04,
        size: 1.3,
        cycling: 0.005,
        translation: -0.2,
    },
    CellType {
        name: "pancreatic ductal cell",
        ontology_id: "CL:0002079",
        tissue: "pancreas",
        roles: &["epithelial", "ductal"],
        proportion: 0.04,
        size: 1.35,
        cycling: 0.05,
        translation: 0.1,
    },
];

/// Every role of every cell type, once each, in order of first mention.
pub(super) fn cell_type_roles() -> Vec<&'static str> {
    let mut roles = Vec::new();
    for role in CELL_TYPES.iter().flat_map(|cell_type| cell_type.roles) {
        if !roles.contains(role) {
            roles.push(*role);
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportions_sum_to_one_and_one_type_is_rare() {
        let total: f64 = CELL_TYPES.iter().map(|cell_type| cell_type.proportion).sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        assert!(CELL_TYPES.iter().any(|cell_type| cell_type.proportion < 0.01));
    }

    #[test]
    fn names_and_terms_are_unique() {
        for (index, one) in CELL_TYPES.iter().enumerate() {
            assert!(one.ontology_id.len() == 10 && one.ontology_id.starts_with("CL:"));
            for other in &CELL_TYPES[index + 1..] {
                assert!(one.name != other.name && one.ontology_id != other.ontology_id);
                assert_ne!(one.roles.last(), other.roles.last());
            }
        }
    }
}
