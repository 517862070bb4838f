//! Attention to genes by cell type: the table and the figure.

use cellpatch_analysis::{Heatmap, HeatmapCell, HeatmapRow};
use cellpatch_data::{GeneToken, GeneVocabulary};
use cellpatch_train::AttentionByClass;

/// Genes shown for each class.
pub(crate) const TOP_GENES: usize = 10;

/// Genes of each class that are drawn.
const DRAWN_GENES: usize = 5;

/// One row a gene and class: attention in units of the cell's average gene, and how many cells express the gene.
pub(crate) fn csv(attention: &AttentionByClass, classes: &[String], vocabulary: &GeneVocabulary) -> String {
    let quoted = |name: &str| {
        if name.contains([',', '"', '\n']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.to_owned()
        }
    };
    let mut text = String::from("gene,ensembl_id,class,attention,cells_expressing,cells\n");
    for token in attention.genes() {
        let Some(gene) = vocabulary.gene(GeneToken(token)) else { continue };
        for (class, (name, n_cells)) in (0..).zip(classes.iter().zip(attention.n_cells())) {
            let found = attention.of(token, class);
            if found.n_expressing > 0 {
                text.push_str(&format!(
                    "{},{},{},{:.6},{},{n_cells}\n",
                    quoted(gene.name()),
                    gene.ensembl_id.as_deref().unwrap_or_default(),
                    quoted(name),
                    found.mean,
                    found.n_expressing,
                ));
            }
        }
    }
    text
}

/// The genes that each class is attended by most, against all classes; nothing without cells.
pub(crate) fn heatmap(
    attention: &AttentionByClass,
    classes: &[String],
    vocabulary: &GeneVocabulary,
) -> Option<Heatmap> {
    let seen: Vec<u32> =
        (0..classes.len() as u32).filter(|&class| attention.n_cells()[class as usize] > 0).collect();
    let mut genes: Vec<u32> = Vec::new();
    for &class in &seen {
        for (gene, _) in attention.top(class, DRAWN_GENES) {
            if !genes.contains(&gene) {
                genes.push(gene);
            }
        }
    }
    let row = |&gene: &u32| HeatmapRow {
        name: vocabulary.gene(GeneToken(gene)).map_or(String::new(), |gene| gene.name().to_owned()),
        cells: (seen.iter())
            .map(|&class| {
                let found = attention.of(gene, class);
                let value = if found.n_expressing > 0 { found.mean } else { f64::NAN };
                HeatmapCell { value, text: String::new() }
            })
            .collect(),
    };
    (!genes.is_empty()).then(|| Heatmap {
        title: "Attention to genes by class".into(),
        x_name: "class".into(),
        y_name: "gene".into(),
        value_name: "attention, in units of a cell's average gene".into(),
        columns: seen.iter().map(|&class| classes[class as usize].clone()).collect(),
        rows: genes.iter().map(row).collect(),
        limits: None,
    })
}
