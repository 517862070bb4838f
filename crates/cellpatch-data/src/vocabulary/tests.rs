use super::*;

fn gene(id: &str, symbol: &str) -> Gene {
    Gene::new(Some(id), Some(symbol))
}

const TP53: &str = "ENSG00000141510";
const CD8A: &str = "ENSG00000153563";
const PATH: &str = "cells.h5ad";

#[test]
fn files_of_ids_and_of_symbols_meet_whichever_is_first() {
    let (symbols, ids, both) = ([gene("", "TP53")], [gene(TP53, "")], [gene(TP53, "TP53")]);
    let orders: [[&[Gene]; 3]; 4] =
        [[&symbols, &both, &ids], [&ids, &both, &symbols], [&both, &symbols, &ids], [&both, &ids, &symbols]];
    for order in orders {
        let mut vocabulary = GeneVocabulary::new(10);
        let tokens: Vec<_> =
            order.iter().map(|genes| vocabulary.extend(genes, Path::new(PATH)).unwrap().tokens[0]).collect();
        assert_eq!(tokens, [Some(GeneToken(1)); 3]);
        assert_eq!(vocabulary.len(), 1);
        assert_eq!(vocabulary.gene(GeneToken(1)), Some(&both[0]));
    }
}

#[test]
fn one_symbol_of_two_ids_is_two_genes() {
    let mut vocabulary = GeneVocabulary::new(10);
    let genes = [gene(TP53, "SAME"), gene(CD8A, "SAME")];
    let matched = vocabulary.extend(&genes, Path::new(PATH)).unwrap();
    assert_eq!((matched.new, matched.duplicates, vocabulary.len()), (2, 0, 2));
    assert_eq!(vocabulary.match_genes(&genes).tokens, [Some(GeneToken(1)), Some(GeneToken(2))]);
    assert_eq!(vocabulary.match_genes(&[gene("", "SAME")]).tokens, [Some(GeneToken(1))]);
}

#[test]
fn a_symbol_with_its_id_appended_meets_the_plain_one_whichever_is_first() {
    let (plain, shared) = (gene("", "C3"), gene("", "C3_ENSG00000125730"));
    let sure = || gene("", "TP53");
    let more = || gene("", "CD8A");
    for (first, second) in [(&plain, &shared), (&shared, &plain)] {
        let mut vocabulary = GeneVocabulary::new(10);
        vocabulary.extend(&[sure(), more(), first.clone()], Path::new(PATH)).unwrap();
        let matched = vocabulary.extend(&[sure(), more(), second.clone()], Path::new(PATH)).unwrap();
        assert_eq!((matched.tokens[2], matched.by_symbol, vocabulary.len()), (Some(GeneToken(3)), 3, 3));
    }
    let mut vocabulary = GeneVocabulary::new(10);
    let genes = [sure(), gene("", "C3_ENSG00000125730"), gene("", "C3_ENSG00000125731"), plain];
    vocabulary.extend(&genes, Path::new(PATH)).unwrap();
    assert_eq!(vocabulary.len(), 4);
    let again: Vec<_> =
        vocabulary.match_genes(&genes).tokens.into_iter().flatten().map(|token| token.0).collect();
    assert_eq!(again, [1, 2, 3, 4]);
}

#[test]
fn two_columns_of_one_gene_are_duplicates() {
    let mut vocabulary = GeneVocabulary::new(10);
    let genes = [gene("", "A"), gene("", "B"), gene("", "A")];
    let first = vocabulary.extend(&genes, Path::new(PATH)).unwrap();
    assert_eq!((first.new, first.duplicates), (3, 1));
    assert_eq!(first.tokens[0], first.tokens[2]);
    let second = vocabulary.match_genes(&genes);
    assert_eq!((second.by_symbol, second.duplicates, second.new), (3, 1, 0));
}

#[test]
fn other_capitals_match_a_few_genes_but_not_another_species() {
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&["C1orf112", "TP53", "CD8A"].map(|symbol| gene("", symbol)), Path::new(PATH)).unwrap();
    let matched = vocabulary.match_genes(&["C1ORF112", "TP53", "CD8A"].map(|symbol| gene("", symbol)));
    assert_eq!((matched.by_symbol, matched.by_folded_symbol), (2, 1));
    let mouse = vocabulary.match_genes(&["Tp53", "Cd8a"].map(|symbol| gene("", symbol)));
    assert_eq!(mouse.misses, [0, 1]);
}

#[test]
fn a_full_vocabulary_says_so_and_stays_as_it_was() {
    let mut vocabulary = GeneVocabulary::new(3);
    vocabulary.extend(&[gene("", "A")], Path::new(PATH)).unwrap();
    let before = vocabulary.clone();
    let error = vocabulary.extend(&[gene("", "B"), gene("", "C")], Path::new(PATH)).unwrap_err();
    assert!(matches!(error, Error::VocabularyFull { new: 2, used: 2, capacity: 3, .. }), "{error}");
    assert_eq!(vocabulary, before);
    vocabulary.extend(&[gene("", "B")], Path::new(PATH)).unwrap();
}

#[test]
fn parquet_gives_back_the_same_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.parquet");
    let mut vocabulary = GeneVocabulary::new(100);
    let genes = [gene(TP53, "TP53"), gene(CD8A, ""), gene("", "MT-CO1"), gene("", "MATR3_ENSG00000015479")];
    vocabulary.extend(&genes, Path::new(PATH)).unwrap();
    vocabulary.write_parquet(&path).unwrap();
    let read = GeneVocabulary::read_parquet(&path).unwrap();
    assert_eq!(read, vocabulary);
    assert_eq!(read.hash(), vocabulary.hash());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    vocabulary.extend(&[gene("", "NEW")], Path::new(PATH)).unwrap();
    assert_ne!(read.hash(), vocabulary.hash());
}

#[test]
fn a_dictionary_with_gaps_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gene2tok.json");
    std::fs::write(&path, r#"{"A": 1, "B": 3}"#).unwrap();
    let error = GeneVocabulary::from_gene2tok(&path, 10).unwrap_err();
    assert!(error.to_string().contains("token 3, expected 2"), "{error}");
    std::fs::write(&path, r#"{"B": 2, "A": 1}"#).unwrap();
    assert_eq!(GeneVocabulary::from_gene2tok(&path, 10).unwrap().gene(GeneToken(2)).unwrap().name(), "B");
}

#[test]
fn a_vocabulary_of_symbols_knows_ids_by_the_table_of_human_genes() {
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&["TP53", "C5orf38", "CD4"].map(|name| gene("", name)), Path::new(PATH)).unwrap();
    let versioned = Gene::new(Some("ENSG00000141510.16"), None);
    let matched = vocabulary.match_genes(&[versioned, gene(CD8A, "")]);
    assert_eq!((matched.tokens[0], matched.by_id, &*matched.misses), (Some(GeneToken(1)), 1, &[1][..]));
    // The newer name of the second, and one that nothing has.
    let names = ["TP53", "IRX2-DT", "NOTHING", "CD4"];
    let renamed = vocabulary.match_genes(&names.map(|name| gene("", name)));
    assert_eq!((renamed.tokens[1], renamed.by_alias, &*renamed.misses), (Some(GeneToken(2)), 1, &[2][..]));
}

#[test]
fn a_renamed_family_matches_by_either_name_but_not_twice() {
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&["MARCHF1", "SEPTIN2", "CD4"].map(|name| gene("", name)), Path::new(PATH)).unwrap();
    let old = ["MARCH1", "SEPTIN2", "CD4"].map(|name| gene("", name));
    assert_eq!(vocabulary.match_genes(&old).tokens[0], Some(GeneToken(1)));
    let both = ["MARCH1", "MARCHF1", "CD4"].map(|name| gene("", name));
    assert_eq!(vocabulary.match_genes(&both).misses, [0]);
}

#[test]
fn dates_are_repaired_only_where_one_gene_can_be_meant() {
    let vocabulary = GeneVocabulary::reference(70_000).unwrap();
    let names = ["TP53", "CD8A", "CD4", "LYZ", "2-Sep", "1-Mar", "Dec-01", "9-Mar"];
    let genes = names.map(|name| gene("", name));
    let matched = vocabulary.match_genes(&genes);
    let repaired: Vec<(&str, &str)> =
        matched.repaired.iter().map(|repair| (repair.name.as_str(), repair.symbol.as_str())).collect();
    assert_eq!(repaired, [("2-Sep", "SEPTIN2"), ("Dec-01", "DELEC1"), ("9-Mar", "MARCHF9")]);
    assert_eq!((matched.ambiguous.as_slice(), matched.misses.as_slice()), (&[5][..], &[5][..]));
    let report = matched.report(&genes, None).to_string();
    assert!(
        report.contains("2-Sep = SEPTIN2") && report.contains("dates that may be several genes"),
        "{report}"
    );
}

#[test]
fn the_largest_misses_come_first() {
    let vocabulary = GeneVocabulary::reference(70_000).unwrap();
    let genes = ["TP53", "small", "large", "CD4"].map(|name| gene("", name));
    let report = vocabulary.match_genes(&genes).report(&genes, Some(&[9.0, 1.0, 5.0, 9.0]));
    let unmatched = report.rows.iter().find(|row| row.what == "unmatched").unwrap();
    assert_eq!(unmatched.examples, ["large", "small"]);
    assert!(GeneVocabulary::reference(100).is_err());
}

#[test]
fn a_gene_without_a_symbol_anywhere_is_a_miss() {
    let mut genes = GeneReference::human().genes().iter();
    let id = genes.find(|gene| gene.symbol.starts_with(gene.ensembl_id)).unwrap().ensembl_id;
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&[gene("", "TP53")], Path::new(PATH)).unwrap();
    assert_eq!(vocabulary.match_genes(&[gene("", "TP53"), gene(id, "")]).misses, [1]);
}

#[test]
fn a_gene_is_found_by_an_older_name_whichever_side_has_it() {
    let sure = ["TP53", "CD8A", "CD4"].map(|name| gene("", name));
    for (known, found) in [("KMT2A", "MLL"), ("MLL", "KMT2A"), ("POU5F1", "OCT-4"), ("OCT-4", "POU5F1")] {
        let mut vocabulary = GeneVocabulary::new(10);
        let with = |name| [&sure[..], &[gene("", name)]].concat();
        vocabulary.extend(&with(known), Path::new(PATH)).unwrap();
        let matched = vocabulary.match_genes(&with(found));
        assert_eq!((matched.tokens[3], matched.by_alias), (Some(GeneToken(4)), 1), "{found} for {known}");
        // A file with both names means two genes.
        let both = [&with(known)[..], &[gene("", found)]].concat();
        assert_eq!(vocabulary.match_genes(&both).misses, [4], "{found} beside {known}");
    }
}
