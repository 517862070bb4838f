//! Partitions of labelled cells: what each rule promises.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cellpatch_data::{Error, Existing, Fractions, Labels, Part, Partition};
use proptest::prelude::*;

/// Labels from the number of cells of each class, the classes in turn as long as they last.
fn labels(n_of_class: &[usize]) -> Labels {
    let mut codes = Vec::new();
    for round in 0..n_of_class.iter().copied().max().unwrap_or(0) {
        let with_more = (0..n_of_class.len()).filter(|&class| n_of_class[class] > round);
        codes.extend(with_more.map(|class| Some(class as u32)));
    }
    Labels { categories: (0..n_of_class.len()).map(|class| format!("class {class}")).collect(), codes }
}

/// Cells of each class in each part.
fn counts(partition: &Partition, labels: &Labels) -> Vec<[usize; 3]> {
    let mut counts = vec![[0; 3]; labels.categories.len()];
    for (part, label) in partition.parts().iter().zip(&labels.codes) {
        if let (Some(part), Some(label)) = (part, label) {
            counts[*label as usize][Part::ALL.iter().position(|other| other == part).unwrap()] += 1;
        }
    }
    counts
}

proptest! {
    #[test]
    fn every_class_with_three_cells_is_in_every_part(
        n_of_class in prop::collection::vec(0usize..40, 1..12),
        seed in any::<u64>(),
    ) {
        let labels = labels(&n_of_class);
        let Ok(partition) = Partition::stratified(&labels, Fractions::default(), seed) else {
            prop_assert!(n_of_class.iter().all(|&n_cells| n_cells < 3));
            return Ok(());
        };
        for (&n_cells, [train, validation, test]) in n_of_class.iter().zip(counts(&partition, &labels)) {
            prop_assert_eq!(train + validation + test, n_cells);
            if n_cells >= 3 {
                prop_assert!(train > 0 && validation > 0 && test > 0);
                prop_assert!(validation.abs_diff(test) == 0 && validation <= (n_cells / 10).max(1) + 1);
            } else {
                prop_assert_eq!(train, n_cells);
            }
        }
    }

    #[test]
    fn no_group_is_in_two_parts_and_every_part_has_a_group(
        of_cell in prop::collection::vec((0u32..4, 0u32..9), 20..200),
        seed in any::<u64>(),
    ) {
        let names = |n: u32| (0..n).map(|name| format!("name {name}")).collect();
        let labels = Labels { categories: names(4), codes: of_cell.iter().map(|cell| Some(cell.0)).collect() };
        let groups = Labels { categories: names(9), codes: of_cell.iter().map(|cell| Some(cell.1)).collect() };
        let n_groups = groups.codes.iter().collect::<BTreeSet<_>>().len();
        prop_assume!(n_groups >= 3);
        let partition = Partition::by_group(&labels, &groups, Fractions::default(), seed).unwrap();
        let mut part_of = BTreeMap::new();
        for (part, group) in partition.parts().iter().zip(&groups.codes) {
            prop_assert_eq!(*part_of.entry(group).or_insert(part), part);
        }
        let parts: BTreeSet<&str> = part_of.values().map(|part| part.unwrap().name()).collect();
        prop_assert_eq!(parts.len(), 3);
    }
}

#[test]
fn shares_are_met_and_the_seed_decides() {
    let labels = labels(&[1000, 500, 100]);
    let stratified = |seed| Partition::stratified(&labels, Fractions::default(), seed).unwrap();
    assert_eq!(counts(&stratified(1), &labels), [[800, 100, 100], [400, 50, 50], [80, 10, 10]]);
    assert_eq!(stratified(1), stratified(1));
    assert_ne!(stratified(1), stratified(2));
    let random = Partition::random(&labels, Fractions::default(), 1).unwrap();
    assert_eq!(random.rows(Part::Train).len(), 1280);
    assert_eq!(random.rows(Part::Validation).len(), 160);
    assert_ne!(counts(&random, &labels)[0], [800, 100, 100]);
    // A class's cells go where they go whatever the other classes are.
    let mut fewer = labels.clone();
    fewer.codes.iter_mut().filter(|code| **code == Some(1)).for_each(|code| *code = None);
    let (all, fewer) = (stratified(1), Partition::stratified(&fewer, Fractions::default(), 1).unwrap());
    let of_others = |partition: &Partition| -> Vec<Option<Part>> {
        let rows = partition.parts().iter().zip(&labels.codes).filter(|(_, code)| **code != Some(1));
        rows.map(|(part, _)| *part).collect()
    };
    assert_eq!(of_others(&all), of_others(&fewer));
}

#[test]
fn two_parts_are_enough_where_the_third_has_no_share() {
    let labels = labels(&[10, 2, 1]);
    let fractions = Fractions { train: 0.5, validation: 0.5, test: 0.0 };
    let partition = Partition::stratified(&labels, fractions, 7).unwrap();
    assert_eq!(counts(&partition, &labels), [[5, 5, 0], [1, 1, 0], [1, 0, 0]]);
    let split = partition.split();
    assert_eq!((split.train.len(), split.validation.len()), (7, 6));
}

#[test]
fn donors_go_where_they_balance_the_classes() {
    // Ten donors of 100 cells: the rare class is in two of them only, so training and one other part must share it.
    let mut of_cell = Vec::new();
    for donor in 0..10u32 {
        of_cell.extend((0..100).map(|cell| (u32::from(cell < 20 && donor < 2), donor)));
    }
    let names = |n: u32| (0..n).map(|name| name.to_string()).collect();
    let labels = Labels { categories: names(2), codes: of_cell.iter().map(|cell| Some(cell.0)).collect() };
    let groups = Labels { categories: names(10), codes: of_cell.iter().map(|cell| Some(cell.1)).collect() };
    for seed in 0..20 {
        let partition = Partition::by_group(&labels, &groups, Fractions::default(), seed).unwrap();
        let counts = counts(&partition, &labels);
        let sizes = [0, 1, 2].map(|part| counts[0][part] + counts[1][part]);
        assert_eq!(sizes, [800, 100, 100], "seed {seed}");
        assert!(counts[1][0] >= 20, "seed {seed}: the rare class cannot be learnt: {counts:?}");
    }
}

#[test]
fn cells_without_label_or_group_are_for_nothing_and_reported() {
    let labels = Labels {
        categories: vec!["a".into(), "b".into(), "rare".into()],
        codes: vec![Some(0), Some(0), Some(0), Some(1), None, Some(2), Some(1), Some(1)],
    };
    let groups = Labels {
        categories: vec!["d1".into(), "d2".into(), "d3".into()],
        codes: vec![Some(0), Some(1), Some(2), Some(0), Some(0), None, Some(1), Some(2)],
    };
    let partition = Partition::by_group(&labels, &groups, Fractions::default(), 1).unwrap();
    assert_eq!((partition.parts()[4], partition.parts()[5]), (None, None));
    let report = partition.report(&labels).unwrap();
    assert_eq!((report.n_unlabelled, report.n_left_out), (1, 1));
    assert_eq!(report.rare, ["rare"]);
    assert_eq!((report.total.train, report.total.validation, report.total.test), (2, 2, 2));
    let partition = Partition::from_parts(
        [0, 0, 1, 1, 0, 0, 1, 1].map(|test| Some(if test == 1 { Part::Test } else { Part::Train })).to_vec(),
    );
    let report = partition.report(&labels).unwrap();
    assert_eq!(report.missing_from_training, ["b"]);
    let text = report.to_string();
    assert!(text.contains("not trained on: b") && text.contains("cells without a label: 1"), "{text}");
}

#[test]
fn what_cannot_be_divided_says_why() {
    let few = labels(&[2, 2]);
    assert!(matches!(
        Partition::stratified(&few, Fractions::default(), 1),
        Err(Error::CannotPartition { .. })
    ));
    assert!(matches!(
        Partition::random(&labels(&[2]), Fractions::default(), 1),
        Err(Error::CannotPartition { .. })
    ));
    let groups = Labels { categories: vec!["only".into()], codes: vec![Some(0); 4] };
    let error = Partition::by_group(&few, &groups, Fractions::default(), 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot divide the cells: there are 1 groups with labelled cells for 3 parts"
    );
    for (train, validation, test) in
        [(0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (f64::NAN, 0.5, 0.5)]
    {
        let wrong = Partition::random(&few, Fractions { train, validation, test }, 1);
        assert!(matches!(wrong, Err(Error::BadOption { option: "fractions", .. })));
    }
}

fn ids(n_cells: usize) -> Vec<String> {
    (0..n_cells).map(|cell| format!("cell,{cell}")).collect()
}

#[test]
fn a_saved_partition_reads_back_for_cells_in_another_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut labels = labels(&[30, 20]);
    labels.codes[7] = None;
    let partition = Partition::stratified(&labels, Fractions::default(), 3).unwrap();
    for name in ["parts.tsv", "parts.csv"] {
        let path = folder.path().join(name);
        partition.save(&path, Existing::Keep, &ids(50)).unwrap();
        let read = Partition::from_table(&path, &ids(50)).unwrap();
        assert_eq!((read.n_matched, read.n_unlisted, read.n_unknown), (49, 1, 0));
        assert_eq!(read.partition, partition);
        let mut reversed = ids(50);
        reversed.reverse();
        reversed.push("another".into());
        let read = Partition::from_table(&path, &reversed).unwrap();
        assert_eq!((read.n_matched, read.n_unlisted), (49, 2));
        assert!(read.partition.parts()[..50].iter().eq(partition.parts().iter().rev()));
    }
}

fn read(text: &str, cell_ids: &[&str]) -> cellpatch_data::Result<Partition> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parts");
    fs::write(&path, text).unwrap();
    let cell_ids: Vec<String> = cell_ids.iter().map(|cell_id| (*cell_id).to_string()).collect();
    Ok(Partition::from_table(&path, &cell_ids)?.partition)
}

#[test]
fn tables_of_other_programs_are_understood_and_mistakes_have_a_line() {
    let parts =
        read("\u{feff}barcode\tsplit\r\na\tVal\tmore\r\n\r\nb\tTRAINING\r\n", &["a", "b", "c"]).unwrap();
    assert_eq!(parts.parts(), [Some(Part::Validation), Some(Part::Train), None]);
    assert_eq!(read("a,test\n", &["a"]).unwrap().parts(), [Some(Part::Test)]);
    for (text, line) in [("a,train\na,test\n", "line 2"), ("x,part\na,new\n", "line 2"), ("a\n", "line 1")] {
        match read(text, &["a", "b"]).unwrap_err() {
            Error::Invalid { dataset, .. } => assert_eq!(dataset, line),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(read("z,train\n", &["a"]), Err(Error::CannotPartition { .. })));
    assert!(matches!(read("a,train\n", &["a", "a"]), Err(Error::CannotPartition { .. })));
}

#[test]
fn lists_of_cells_make_a_partition() {
    let folder = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let (train, test) = (list("train.txt", "a\nb\n"), list("test.txt", "c\nunknown\n"));
    let cell_ids = ["c", "a", "b", "d"].map(String::from);
    let lists: [(Part, &Path); 2] = [(Part::Train, &train), (Part::Test, &test)];
    let read = Partition::from_lists(&lists, &cell_ids).unwrap();
    assert_eq!(read.partition.parts(), [Some(Part::Test), Some(Part::Train), Some(Part::Train), None]);
    assert_eq!((read.n_matched, read.n_unlisted, read.n_unknown), (3, 1, 1));
    let both = list("both.txt", "a\n");
    let lists: [(Part, &Path); 2] = [(Part::Train, &train), (Part::Test, &both)];
    assert!(matches!(Partition::from_lists(&lists, &cell_ids), Err(Error::Invalid { .. })));
}
