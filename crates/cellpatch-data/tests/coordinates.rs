//! Where spots lie, and the genes that are read of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{
    ChosenGenes, CoordinateChoice, Coordinates, Error, Existing, GeneVocabulary, H5adAnnotator, Labels,
    MatrixChoice, NewValues, Result, Sections, normalize, open_cells, variable_columns, visium_matrix,
};

const N_CELLS: usize = 30;

/// A file of cells with a matrix of `obsm` and two columns of `obs`.
fn slice(folder: &Path, name: &str, width: usize, value: impl Fn(usize, usize) -> f32) -> PathBuf {
    let (plain, out) = (folder.join("plain.h5ad"), folder.join("slice.h5ad"));
    if !plain.exists() {
        let config = SyntheticConfig { n_cells: N_CELLS, n_genes: 480, ..Default::default() };
        write_h5ad(&config, &plain).unwrap();
    }
    let mut file = H5adAnnotator::create(&plain, &out, Existing::Replace).unwrap();
    let matrix = file.obsm(name, width).unwrap();
    let values: Vec<f32> = (0..N_CELLS)
        .flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(r, c)| value(r, c))
        .collect();
    file.write_rows(matrix, 0, &values).unwrap();
    let column = |shift: f32| NewValues::Float32((0..N_CELLS).map(|row| row as f32 + shift).collect());
    file.obs_column("x", column(0.5)).unwrap();
    file.obs_column("y", column(-2.0)).unwrap();
    file.finish().unwrap();
    out
}

fn coordinates(path: &Path, choice: &CoordinateChoice) -> Result<Coordinates> {
    Coordinates::of(open_cells(path, &MatrixChoice::default())?.as_ref(), choice)
}

#[test]
fn coordinates_are_found_under_their_usual_names_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = |row: usize, column: usize| (10 * row + column) as f32;
    for name in ["spatial", "X_spatial"] {
        let file = slice(folder.path(), name, 2, place);
        let found = coordinates(&file, &CoordinateChoice::Usual).unwrap();
        assert_eq!((found.positions[3], found.z.is_none()), ([30.0, 31.0], true));
        assert_eq!((found.positions.len(), found.origin), (N_CELLS, format!("obsm[{name:?}]")));
    }
    let file = slice(folder.path(), "umap", 3, place);
    let found = coordinates(&file, &CoordinateChoice::Obsm("umap".into())).unwrap();
    assert_eq!((found.positions[1], found.z.unwrap()[1]), ([10.0, 11.0], 12.0));
    assert_eq!(coordinates(&file, &columns("x", "y", None)).unwrap().positions[4], [4.5, 2.0]);
    let found = coordinates(&file, &columns("y", "y", Some("x"))).unwrap();
    assert_eq!((found.positions[4], found.z.unwrap()[4]), ([2.0, 2.0], 4.5));
}

fn columns(x: &str, y: &str, z: Option<&str>) -> CoordinateChoice {
    CoordinateChoice::ObsColumns { x: x.into(), y: y.into(), z: z.map(Into::into) }
}

#[test]
fn sections_come_in_their_order_along_z() {
    let folder = tempfile::tempdir().unwrap();
    let plain = slice(folder.path(), "spatial", 3, |row, column| match column {
        2 => [20.0, 0.0, -10.0][row % 3],
        _ => row as f32,
    });
    let out = folder.path().join("sections.h5ad");
    let mut file = H5adAnnotator::create(&plain, &out, Existing::Replace).unwrap();
    let text = |row: usize| Some(format!("slice {}", 9 + row % 3));
    file.obs_column("section", NewValues::Texts((0..N_CELLS).map(text).collect())).unwrap();
    let by_hand = Labels {
        categories: ["top", "unused", "bottom"].map(String::from).to_vec(),
        codes: (0..N_CELLS).map(|row| Some([2, 0][row % 2])).collect(),
    };
    file.obs_column("by_hand", by_hand).unwrap();
    let holes = (0..N_CELLS).map(|row| (row != 4).then(|| "one".to_owned())).collect();
    file.obs_column("holes", NewValues::Texts(holes)).unwrap();
    file.finish().unwrap();

    let source = open_cells(&out, &MatrixChoice::default()).unwrap();
    let of_column = |name: &str| Sections::of_column(source.as_ref(), name);
    let sections = of_column("section").unwrap();
    assert_eq!(sections.names, ["slice 9", "slice 10", "slice 11"]);
    assert_eq!(sections.of_cell[..5], [0, 1, 2, 0, 1]);
    assert_eq!(sections.cells()[1][..2], [1, 4]);
    let sections = of_column("by_hand").unwrap();
    assert_eq!(
        (sections.names, &sections.of_cell[..3]),
        (vec!["top".into(), "bottom".into()], &[1, 0, 1][..])
    );
    let error = of_column("holes").unwrap_err();
    assert!(error.to_string().contains("cell 4"), "{error}");
    assert!(matches!(of_column("nothing"), Err(Error::Missing { .. })));

    let coordinates = Coordinates::of(source.as_ref(), &CoordinateChoice::Usual).unwrap();
    let sections = Sections::of_heights(source.as_ref(), &coordinates).unwrap();
    assert_eq!(sections.names, ["z = -10", "z = 0", "z = 20"]);
    assert_eq!(sections.of_cell[..4], [2, 1, 0, 2]);
    let flat = Coordinates { z: None, ..coordinates };
    assert!(matches!(Sections::of_heights(source.as_ref(), &flat), Err(Error::Invalid { .. })));
}

#[test]
fn a_slice_without_places_says_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = slice(folder.path(), "X_umap", 2, |_, _| 0.0);
    let error = coordinates(&file, &CoordinateChoice::Usual).unwrap_err();
    assert!(matches!(&error, Error::NoCoordinates { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("obsm[\"X_umap\"]"), "{:?}", error.help());
    let error = coordinates(&file, &CoordinateChoice::Obsm("other".into())).unwrap_err();
    assert!(matches!(error, Error::Missing { what: "obsm matrix", .. }));
    assert!(matches!(coordinates(&file, &columns("cell_type", "y", None)), Err(Error::Invalid { .. })));
}

#[test]
fn what_is_no_place_is_refused_with_the_cell() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        slice(folder.path(), "spatial", 2, |row, _| if row == 7 || row == 9 { f32::NAN } else { row as f32 });
    let error = coordinates(&file, &CoordinateChoice::Usual).unwrap_err();
    assert!(matches!(&error, Error::BadCoordinate { row: 7, n_bad: 2, .. }), "{error:?}");
    let file = slice(folder.path(), "spatial", 5, |_, _| 1.0);
    let error = coordinates(&file, &CoordinateChoice::Usual).unwrap_err();
    assert!(error.to_string().contains("5 columns"), "{error}");
}

/// What Space Ranger writes: a matrix folder of three spots beside `spatial`.
fn visium(table: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (matrix, spatial) = (folder.path().join("filtered_feature_bc_matrix"), folder.path().join("spatial"));
    fs::create_dir_all(&matrix).unwrap();
    fs::create_dir_all(&spatial).unwrap();
    let counts = "%%MatrixMarket matrix coordinate integer general\n3 3 3\n2 1 3\n3 1 1\n1 3 7\n";
    let features = "ENSG00000141510\tTP53\tGene Expression\nENSG00000153563\tCD8A\tGene Expression\n\
        ENSG00000105374\tNKG7\tGene Expression\n";
    for (name, text) in
        [("matrix.mtx", counts), ("features.tsv", features), ("barcodes.tsv", "AAA-1\nCCC-1\nGGG-1\n")]
    {
        fs::write(matrix.join(name), text).unwrap();
    }
    fs::write(spatial.join(table), text).unwrap();
    fs::write(spatial.join("scalefactors_json.json"), r#"{"spot_diameter_fullres": 96.4}"#).unwrap();
    folder
}

const ROWS: &str = "TTT-1,0,9,9,1,2\nGGG-1,1,0,2,300,31\nAAA-1,1,0,0,100,11\nCCC-1,1,0,1,200,21.5\n";

#[test]
fn a_visium_folder_is_read_with_and_without_a_header() {
    let header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n";
    for (name, text) in [
        ("tissue_positions_list.csv", ROWS.to_owned()),
        ("tissue_positions.csv", format!("{header}{ROWS}").replace('\n', "\r\n")),
    ] {
        let folder = visium(name, &text);
        let matrix = visium_matrix(folder.path()).unwrap().unwrap();
        assert!(matrix.ends_with("filtered_feature_bc_matrix"));
        let inside = CoordinateChoice::Folder(folder.path().join("spatial"));
        for choice in [CoordinateChoice::Usual, CoordinateChoice::Folder(folder.path().into()), inside] {
            let found = coordinates(&matrix, &choice).unwrap();
            // x counts columns of pixels, y rows.
            assert_eq!(found.positions, [[11.0, 100.0], [21.5, 200.0], [31.0, 300.0]]);
            assert_eq!(found.spot_diameter, Some(96.4));
        }
    }
    assert_eq!(visium_matrix(tempfile::tempdir().unwrap().path()).unwrap(), None);
}

#[test]
fn a_damaged_table_of_positions_names_the_line() {
    let read = |text: &str| {
        let folder = visium("tissue_positions.csv", text);
        coordinates(&folder.path().join("filtered_feature_bc_matrix"), &CoordinateChoice::Usual).unwrap_err()
    };
    assert!(matches!(read(&ROWS.replace("200,21.5", "200")), Error::BadLine { line: 4, .. }));
    assert!(matches!(read(&ROWS.replace("100,11", "x,11")), Error::BadLine { line: 3, .. }));
    assert!(matches!(read(&format!("{ROWS}AAA-1,1,0,0,1,1\n")), Error::BadLine { line: 5, .. }));
    assert!(matches!(read(&ROWS.replace("100,11", "NaN,11")), Error::BadCoordinate { row: 0, .. }));
    let error = read(&ROWS.replace("CCC-1", "XXX-1"));
    assert!(error.to_string().contains("CCC-1"), "{error}");
}

#[test]
fn chosen_genes_are_normalised_over_all_genes() {
    let folder = visium("tissue_positions.csv", ROWS);
    let source =
        open_cells(&folder.path().join("filtered_feature_bc_matrix"), &MatrixChoice::default()).unwrap();
    let chosen = ChosenGenes::read(source.as_ref(), &[1]).unwrap();
    let mut expected = Vec::new();
    normalize(&[3.0], 4.0, &mut expected);
    assert_eq!((chosen.offsets, chosen.values), (vec![0, 1, 1, 1], expected));
    assert_eq!(chosen.genes[0].name(), source.genes().unwrap()[1].name());
    for columns in [&[1, 1][..], &[2, 1], &[3]] {
        assert!(matches!(ChosenGenes::read(source.as_ref(), columns), Err(Error::BadOption { .. })));
    }
    assert_eq!(variable_columns(source.as_ref(), 3_000).unwrap(), [0, 1, 2]);

    let file = slice(folder.path(), "spatial", 2, |_, _| 0.0);
    let source = open_cells(&file, &MatrixChoice::default()).unwrap();
    let columns = variable_columns(source.as_ref(), 40).unwrap();
    assert_eq!(columns.len(), 40);
    let chosen = ChosenGenes::read(source.as_ref(), &columns).unwrap();
    let all = ChosenGenes::read(source.as_ref(), &(0..480).collect::<Vec<_>>()).unwrap();
    for cell in 0..N_CELLS {
        let row = |of: &ChosenGenes| -> Vec<(usize, f32)> {
            let entries = of.offsets[cell]..of.offsets[cell + 1];
            entries.map(|entry| (of.columns[of.indices[entry] as usize], of.values[entry])).collect()
        };
        let wanted: Vec<_> = row(&all).into_iter().filter(|entry| columns.contains(&entry.0)).collect();
        assert_eq!(row(&chosen), wanted);
    }
}

#[test]
fn genes_with_one_token_are_read_once_and_unknown_ones_not_at_all() {
    let folder = visium("tissue_positions.csv", ROWS);
    let source =
        open_cells(&folder.path().join("filtered_feature_bc_matrix"), &MatrixChoice::default()).unwrap();
    let genes = source.genes().unwrap();
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&[genes[2].clone(), genes[0].clone()], folder.path()).unwrap();
    let mut matched = vocabulary.match_genes(&genes);
    assert_eq!(matched.tokens_of(&[0, 1, 2]), (vec![0, 2], vec![2, 1]));
    matched.tokens[1] = matched.tokens[0];
    assert_eq!(matched.tokens_of(&[0, 1, 2]), (vec![0, 2], vec![2, 1]));
    assert_eq!(matched.tokens_of(&[1]), (vec![1], vec![2]));
}
