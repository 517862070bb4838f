//! Result files: what is pushed is what other readers find.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::fs::{self, File};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type};
use cellpatch_data::{
    CellPrediction, EmbeddingTable, Error, Existing, NpyMatrix, PredictionColumns, PredictionTable,
    TableFormat,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn columns() -> PredictionColumns {
    PredictionColumns {
        classes: vec!["B cell".into(), "T cell, CD4".into(), "NK".into()],
        n_top: 2,
        probabilities: true,
    }
}

/// Two cells: one with a tie for the second place, one without a label.
fn write(path: &Path) {
    let mut table = PredictionTable::create(path, Existing::Keep, columns()).unwrap();
    let cells = [
        CellPrediction {
            cell_id: "c\"0",
            label: Some(1),
            confidence: 0.5,
            probabilities: &[0.25, 0.5, 0.25],
        },
        CellPrediction { cell_id: "c1", label: None, confidence: 0.1, probabilities: &[0.1, f32::NAN, 1e-9] },
    ];
    cells.iter().for_each(|cell| table.push(cell).unwrap());
    let summary = table.finish().unwrap();
    assert_eq!((summary.n_rows, summary.file_bytes), (2, fs::metadata(path).unwrap().len()));
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn texts(table: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = cast(table.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect()
}

#[test]
fn predictions_as_text_are_quoted_where_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.csv");
    write(&path);
    let expected = "cell_id,label,confidence,top_1,top_1_probability,top_2,top_2_probability,probability_B cell,\
        \"probability_T cell, CD4\",probability_NK\n\
        \"c\"\"0\",\"T cell, CD4\",0.5,\"T cell, CD4\",0.5,B cell,0.25,0.25,0.5,0.25\n\
        c1,,0.1,B cell,0.1,NK,1e-9,0.1,NaN,1e-9\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let tabs = folder.path().join("cells.tsv");
    write(&tabs);
    assert!(fs::read_to_string(&tabs).unwrap().contains("\tT cell, CD4\t0.5\t"));
}

#[test]
fn predictions_in_parquet_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.parquet");
    write(&path);
    let table = read(&path);
    let some = |text: &str| Some(text.to_string());
    assert_eq!(texts(&table, "cell_id"), [some("c\"0"), some("c1")]);
    assert_eq!(texts(&table, "label"), [some("T cell, CD4"), None]);
    assert_eq!(texts(&table, "top_2"), [some("B cell"), some("NK")]);
    let confidence = table.column_by_name("confidence").unwrap().as_primitive::<Float32Type>();
    assert_eq!(confidence.values().to_vec(), [0.5, 0.1]);
    let last = table.column_by_name("probability_NK").unwrap().as_primitive::<Float32Type>();
    assert_eq!(last.values().to_vec(), [0.25, 1e-9]);
}

#[test]
fn many_cells_keep_their_order_over_batches_and_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.parquet");
    let mut table = PredictionTable::create(&path, Existing::Keep, columns()).unwrap();
    for cell in 0..10_000 {
        let probabilities = [cell as f32, 0.0, -1.0];
        let cell_id = format!("cell {cell}");
        table
            .push(&CellPrediction {
                cell_id: &cell_id,
                label: Some(0),
                confidence: 1.0,
                probabilities: &probabilities,
            })
            .unwrap();
    }
    assert_eq!(table.finish().unwrap().n_rows, 10_000);
    let table = read(&path);
    let values = table.column_by_name("top_1_probability").unwrap().as_primitive::<Float32Type>();
    assert!(values.values().iter().zip(0..).all(|(&value, cell)| value == cell as f32));
    assert_eq!(texts(&table, "cell_id")[9_999].as_deref(), Some("cell 9999"));
}

#[test]
fn embeddings_are_lists_of_fixed_length_beside_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.parquet");
    let mut table = EmbeddingTable::create(&path, Existing::Keep, "cell_id", 3).unwrap();
    assert!(matches!(table.push("short", &[1.0]), Err(Error::WrongLength { found: 1, expected: 3, .. })));
    // More than one batch and one row group.
    let n_cells = 400_000usize;
    for cell in 0..n_cells {
        let value = cell as f32;
        table.push(&cell.to_string(), &[value, value + 0.5, -value]).unwrap();
    }
    assert_eq!(table.finish().unwrap().n_rows, n_cells);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    assert!(reader.metadata().num_row_groups() > 1);
    let table = read(&path);
    let lists = table.column_by_name("embedding").unwrap().as_fixed_size_list();
    assert_eq!(lists.value_length(), 3);
    let last = lists.value(n_cells - 1);
    let value = (n_cells - 1) as f32;
    assert_eq!(last.as_primitive::<Float32Type>().values().to_vec(), [value, value + 0.5, -value]);
    assert_eq!(texts(&table, "cell_id")[n_cells - 1].as_deref(), Some("399999"));
}

#[test]
fn a_numpy_file_has_its_shape_in_the_header_and_rows_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.npy");
    let mut matrix = NpyMatrix::create(&path, Existing::Keep, 2).unwrap();
    matrix.push_rows(&[1.0, 2.0]).unwrap();
    assert!(matches!(matrix.push_rows(&[0.0; 3]), Err(Error::WrongLength { .. })));
    matrix.push_rows(&[3.0, 4.0, 5.0, 6.0]).unwrap();
    assert_eq!(matrix.finish().unwrap().n_rows, 3);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.starts_with(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
    ));
    assert_eq!(bytes[127], b'\n');
    let values: Vec<f32> =
        bytes[128..].chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_table_that_is_not_finished_leaves_nothing_and_an_existing_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.csv");
    let mut table = PredictionTable::create(&path, Existing::Keep, columns()).unwrap();
    let cell = CellPrediction { cell_id: "c", label: Some(3), confidence: 1.0, probabilities: &[0.0; 3] };
    assert!(matches!(table.push(&cell), Err(Error::BadOption { option: "label", .. })));
    assert!(matches!(
        table.push(&CellPrediction { probabilities: &[], ..cell }),
        Err(Error::WrongLength { .. })
    ));
    drop(table);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    write(&path);
    let refused = PredictionTable::create(&path, Existing::Keep, columns());
    assert!(matches!(refused, Err(Error::FileExists { .. })));
    assert!(PredictionTable::create(&path, Existing::Replace, columns()).is_ok());
}

#[test]
fn the_name_says_the_format() {
    assert_eq!(TableFormat::of(Path::new("a/b.CSV")).unwrap(), TableFormat::Csv);
    assert_eq!(TableFormat::of(Path::new("b.parquet")).unwrap(), TableFormat::Parquet);
    assert!(matches!(TableFormat::of(Path::new("b.xlsx")), Err(Error::BadOption { .. })));
}
