//! Files made here: every element type and layout of a matrix, and broken ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may"
)]

use std::path::{Path, PathBuf};

use cellpatch_data::{
    AnnDataFile, CountBlock, Error, MatrixChoice, MatrixLocation, MatrixStorage, Result, ValueKind,
};
use half::f16;
use hdf5_pure::{
    AttrValue, CompoundTypeBuilder, Datatype, DatatypeByteOrder, FileBuilder, FixedPointLayout,
    FloatingPointLayout,
};

const N_CELLS: usize = 4;
const N_GENES: usize = 5;
/// The matrix every valid file holds: cells x genes.
const COUNTS: [[u8; N_GENES]; N_CELLS] = [[0, 3, 0, 1, 0], [0; 5], [7, 0, 0, 0, 2], [1, 1, 1, 1, 1]];

fn text(value: &str) -> AttrValue {
    AttrValue::VarLenString(value.into())
}

/// A file with `obs` and `var`, to which a test adds its matrix.
fn builder() -> FileBuilder {
    let mut builder = FileBuilder::new();
    for (name, index) in [
        ("obs", ["c0", "c1", "c2", "c3"].as_slice()),
        ("var", ["TP53", "CD8A", "MS4A1", "NKG7", "LYZ"].as_slice()),
    ] {
        let mut group = builder.create_group(name);
        group.set_attr("_index", text("_index"));
        group.set_attr("encoding-type", text("dataframe"));
        group.create_dataset("_index").with_vlen_strings(index);
        if name == "obs" {
            group.create_dataset("n").with_i64_data(&[4, 0, 9, 5]);
        }
        let group = group.finish();
        builder.add_group(group);
    }
    builder
}

fn save(builder: FileBuilder, folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, builder.finish().unwrap()).unwrap();
    path
}

fn integer(size: u32, signed: bool, byte_order: DatatypeByteOrder) -> Datatype {
    let layout = FixedPointLayout { signed, bit_offset: 0, bit_precision: size as u16 * 8 };
    Datatype::FixedPoint { size, byte_order, layout }
}

fn half_float() -> Datatype {
    let layout = FloatingPointLayout {
        bit_offset: 0,
        bit_precision: 16,
        exponent_location: 10,
        exponent_size: 5,
        mantissa_location: 0,
        mantissa_size: 10,
        exponent_bias: 15,
    };
    Datatype::FloatingPoint { size: 2, byte_order: DatatypeByteOrder::LittleEndian, layout }
}

fn dense(datatype: Datatype, encode: impl Fn(u8) -> Vec<u8>) -> FileBuilder {
    let mut builder = builder();
    let bytes: Vec<u8> = COUNTS.iter().flatten().flat_map(|&count| encode(count)).collect();
    let shape = [N_CELLS as u64, N_GENES as u64];
    builder.create_dataset("X").with_raw_data(datatype, bytes, (N_CELLS * N_GENES) as u64).with_shape(&shape);
    builder
}

/// A sparse `X` of 4 x 5 from its parts, as they are.
fn sparse(format: &str, indptr: &[i64], indices: &[i32], data: &[f32]) -> FileBuilder {
    let mut builder = builder();
    let mut group = builder.create_group("X");
    group.set_attr("encoding-type", text(format));
    group.set_attr("shape", AttrValue::I64Array(vec![N_CELLS as i64, N_GENES as i64]));
    group.create_dataset("indptr").with_i64_data(indptr);
    group.create_dataset("indices").with_i32_data(indices).with_chunks(&[3]).with_deflate(4);
    group.create_dataset("data").with_f32_data(data).with_chunks(&[3]).with_shuffle().with_deflate(4);
    let group = group.finish();
    builder.add_group(group);
    builder
}

const CSR: (&[i64], &[i32], &[f32]) =
    (&[0, 2, 2, 4, 9], &[1, 3, 0, 4, 0, 1, 2, 3, 4], &[3.0, 1.0, 7.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]);

fn read(path: &Path, max_block_bytes: usize) -> Result<Vec<CountBlock>> {
    let file = AnnDataFile::open(path)?;
    let chosen = file.choose_matrix(&MatrixChoice::default())?;
    assert_eq!(chosen.kind, ValueKind::Counts);
    file.chosen_blocks(&chosen, max_block_bytes)?.collect()
}

fn assert_counts(path: &Path) {
    for max_block_bytes in [0, 40, 1 << 20] {
        let blocks =
            read(path, max_block_bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut dense = Vec::new();
        for block in blocks {
            assert_eq!(block.first_row, dense.len());
            for cell in 0..block.n_cells() {
                let mut row = [0; N_GENES];
                let (columns, values) = block.cell(cell);
                columns.iter().zip(values).for_each(|(&column, &value)| row[column as usize] = value as u8);
                dense.push(row);
            }
        }
        assert_eq!(dense, COUNTS, "{} in blocks of {max_block_bytes}", path.display());
    }
}

#[test]
fn every_element_type_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (little, big) = (DatatypeByteOrder::LittleEndian, DatatypeByteOrder::BigEndian);
    let files = [
        ("float16", dense(half_float(), |count| f16::from(count).to_le_bytes().to_vec())),
        ("int8", dense(integer(1, true, little), |count| vec![count])),
        ("uint8", dense(integer(1, false, little), |count| vec![count])),
        ("int16", dense(integer(2, true, big), |count| i16::from(count).to_be_bytes().to_vec())),
        ("uint16", dense(integer(2, false, little), |count| u16::from(count).to_le_bytes().to_vec())),
        ("int32", dense(integer(4, true, big), |count| i32::from(count).to_be_bytes().to_vec())),
        ("uint32", dense(integer(4, false, little), |count| u32::from(count).to_le_bytes().to_vec())),
        ("int64", dense(integer(8, true, little), |count| i64::from(count).to_le_bytes().to_vec())),
        ("uint64", dense(integer(8, false, little), |count| u64::from(count).to_le_bytes().to_vec())),
    ];
    for (dtype, builder) in files {
        let path = save(builder, folder.path(), dtype);
        assert_eq!(AnnDataFile::open(&path).unwrap().matrix_info(&MatrixLocation::X).unwrap().dtype, dtype);
        assert_counts(&path);
    }
}

#[test]
fn rows_columns_disorder_and_duplicates_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (indptr, indices, data) = CSR;
    let files = [
        ("csr", sparse("csr_matrix", indptr, indices, data), MatrixStorage::Csr),
        (
            "unsorted",
            sparse(
                "csr_matrix",
                indptr,
                &[3, 1, 4, 0, 4, 3, 2, 1, 0],
                &[1.0, 3.0, 2.0, 7.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            ),
            MatrixStorage::Csr,
        ),
        (
            "duplicates",
            sparse(
                "csr_matrix",
                &[0, 4, 4, 6, 11],
                &[1, 3, 1, 2, 0, 4, 0, 1, 2, 3, 4],
                &[1.0, 1.0, 2.0, 0.0, 7.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            ),
            MatrixStorage::Csr,
        ),
        (
            "csc",
            sparse(
                "csc_matrix",
                &[0, 2, 4, 5, 7, 9],
                &[2, 3, 0, 3, 3, 0, 3, 2, 3],
                &[7.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0],
            ),
            MatrixStorage::Csc,
        ),
    ];
    for (name, builder, storage) in files {
        let path = save(builder, folder.path(), name);
        assert_eq!(
            AnnDataFile::open(&path).unwrap().matrix_info(&MatrixLocation::X).unwrap().storage,
            storage
        );
        assert_counts(&path);
    }
}

#[test]
fn a_file_from_before_anndata_0_7_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = FileBuilder::new();
    let record = |name: &str, code: i8| -> Vec<u8> {
        name.bytes().chain(std::iter::repeat(0)).take(4).chain([code as u8]).collect()
    };
    let fixed = Datatype::String {
        size: 4,
        padding: hdf5_pure::StringPadding::NullPad,
        charset: hdf5_pure::CharacterSet::Ascii,
    };
    let datatype =
        || CompoundTypeBuilder::new().field("index", fixed.clone()).i8_field("kind").build().unwrap();
    let obs: Vec<u8> = [record("a", 1), record("b", -1), record("c", 0), record("d", 1)].concat();
    let var: Vec<u8> = ["A", "B", "C", "D", "E"].iter().flat_map(|name| record(name, 0)).collect();
    builder.create_dataset("obs").with_raw_data(datatype(), obs, 4);
    builder.create_dataset("var").with_raw_data(datatype(), var, 5);
    let mut uns = builder.create_group("uns");
    uns.create_dataset("kind_categories").with_vlen_strings(&["B cell", "T cell"]);
    let uns = uns.finish();
    builder.add_group(uns);
    let mut group = builder.create_group("X");
    group.set_attr("h5sparse_format", text("csr"));
    group.set_attr("h5sparse_shape", AttrValue::I64Array(vec![4, 5]));
    group.create_dataset("indptr").with_i64_data(CSR.0);
    group.create_dataset("indices").with_i32_data(CSR.1);
    group.create_dataset("data").with_f32_data(CSR.2);
    let group = group.finish();
    builder.add_group(group);
    let path = save(builder, folder.path(), "legacy");
    assert_counts(&path);
    let file = AnnDataFile::open(&path).unwrap();
    assert_eq!(file.cell_ids().unwrap(), ["a", "b", "c", "d"]);
    let labels = file.obs_column("kind").unwrap().labels();
    assert_eq!(labels.categories, ["B cell", "T cell"]);
    assert_eq!(labels.codes, [Some(1), None, Some(0), Some(1)]);
}

#[test]
fn columns_with_a_mask_have_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = FileBuilder::new();
    let mut obs = builder.create_group("obs");
    obs.set_attr("_index", text("name"));
    let mut add = |name: &str, fill: &dyn Fn(&mut hdf5_pure::GroupBuilder)| {
        let mut group = obs.create_group(name);
        fill(&mut group);
        group.create_dataset("mask").with_u8_data(&[0, 1, 0]);
        let group = group.finish();
        obs.add_group(group);
    };
    // AnnData's nullable-string-array, which an index may be too.
    add("name", &|group| {
        group.create_dataset("values").with_vlen_strings(&["a", "", "c"]);
    });
    add("donor", &|group| {
        group.create_dataset("values").with_vlen_strings(&["d2", "", "d1"]);
    });
    add("age", &|group| {
        group.create_dataset("values").with_i32_data(&[40, 0, 7]);
    });
    let mut kind = obs.create_group("kind");
    kind.create_dataset("codes").with_i8_data(&[1, -1, 0]);
    kind.create_dataset("categories").with_ascii_strings(&["B", "T"]).unwrap();
    let kind = kind.finish();
    obs.add_group(kind);
    let mut bad = obs.create_group("bad");
    bad.create_dataset("codes").with_i8_data(&[1, 2, 0]);
    bad.create_dataset("categories").with_vlen_strings(&["B", "T"]);
    let bad = bad.finish();
    obs.add_group(bad);
    let obs = obs.finish();
    builder.add_group(obs);
    let file = AnnDataFile::open(&save(builder, folder.path(), "columns")).unwrap();
    assert_eq!(file.cell_ids().unwrap(), ["a", "", "c"]);
    for (name, categories) in [("donor", ["d1", "d2"]), ("age", ["7", "40"]), ("kind", ["B", "T"])] {
        let labels = file.obs_column(name).unwrap().labels();
        assert_eq!(labels.categories, categories);
        assert_eq!(labels.codes, [Some(1), None, Some(0)], "{name}");
    }
    let error = file.obs_column("bad").unwrap_err().to_string();
    assert!(error.contains("row 1 has code 2 of 2 categories"), "{error}");
    let error = file.obs_column("celltype").unwrap_err();
    assert!(error.help().unwrap().contains("donor"), "{error}");
}

#[test]
fn genes_are_named_by_the_columns_that_hold_names() {
    let folder = tempfile::tempdir().unwrap();
    let genes = |index: [&str; 2], columns: &[(&str, [&str; 2])]| {
        let mut builder = FileBuilder::new();
        for (name, names) in [("obs", ["c0", "c1"]), ("var", index)] {
            let mut group = builder.create_group(name);
            group.create_dataset("_index").with_vlen_strings(&names);
            for (column, names) in columns.iter().filter(|_| name == "var") {
                group.create_dataset(column).with_vlen_strings(names);
            }
            let group = group.finish();
            builder.add_group(group);
        }
        builder.create_dataset("X").with_u8_data(&[1, 2, 3, 4]).with_shape(&[2, 2]);
        let file = AnnDataFile::open(&save(builder, folder.path(), "genes")).unwrap();
        let genes = file.genes(&MatrixLocation::X).unwrap();
        genes.into_iter().map(|gene| (gene.ensembl_id, gene.symbol)).collect::<Vec<_>>()
    };
    let (ids, symbols) = (["ENSG00000141510.3", "ENSG00000153563"], ["TP53", "CD8A"]);
    let both = [("ENSG00000141510", "TP53"), ("ENSG00000153563", "CD8A")]
        .map(|(id, symbol)| (Some(id.to_string()), Some(symbol.to_string())));
    assert_eq!(genes(ids, &[("feature_name", symbols)]), both);
    assert_eq!(genes(ids, &[("n_cells", ["1", "2"]), ("SYMBOL", symbols)]), both);
    assert_eq!(genes(symbols, &[("gene_ids", ids)]), both);
    assert_eq!(genes(["TP53-1", "CD8A"], &[("ENSEMBL", ids), ("gene_name", symbols)]), both);
    assert_eq!(
        genes(["0", "1"], &[("gene_id", ["5", "6"]), ("ensembl_id", ids), ("gene_symbols", symbols)]),
        both
    );
    assert_eq!(genes(["0", "1"], &[]), [(None, None), (None, None)]);
}

#[test]
fn broken_matrices_are_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let (indptr, indices, data) = CSR;
    let with = |at: usize, value: f32| {
        let mut data = data.to_vec();
        data[at] = value;
        sparse("csr_matrix", indptr, indices, &data)
    };
    let refused = |builder: FileBuilder| {
        let path = save(builder, folder.path(), "broken");
        read(&path, 1 << 20).expect_err("a broken file was read").to_string()
    };
    for (builder, reason) in [
        (sparse("csr_matrix", &[1, 2, 2, 4, 9], indices, data), "begins at 1"),
        (sparse("csr_matrix", &[0, 2, 1, 4, 9], indices, data), "descends from 2 to 1"),
        (sparse("csr_matrix", &[0, 2, 2, 4, 8], indices, data), "ends at 8, 9 entries"),
        (sparse("csr_matrix", &[0, 2, 4, 9], indices, data), "expected [5]"),
        (sparse("csr_matrix", indptr, &indices[1..], data), "expected [9]"),
        (
            sparse("csr_matrix", indptr, &[1, 3, 0, 5, 0, 1, 2, 3, 4], data),
            "cell 2 has an entry at column 5 of 5",
        ),
        (sparse("csr_matrix", indptr, &[1, 3, 0, -1, 0, 1, 2, 3, 4], data), "column -1"),
        (sparse("csc_matrix", &[0, 2, 4, 5, 7, 9], &[2, 3, 0, 3, 3, 0, 3, 2, 4], data), "row 4 of 4"),
        (sparse("coo_matrix", indptr, indices, data), "coo_matrix"),
        (with(3, f32::NAN), "holds NaN at cell 2, gene column 4"),
        (with(3, f32::INFINITY), "holds inf at cell 2, gene column 4"),
        (with(0, -1.0), "scaled values with negatives"),
        (with(0, 1.5), "log1p-normalised"),
    ] {
        let error = refused(builder);
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
}

#[test]
fn a_filter_we_do_not_know_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = builder();
    let counts: Vec<i32> = COUNTS.iter().flatten().map(|&count| i32::from(count)).collect();
    let array = builder.create_dataset("X").with_i32_data(&counts).with_shape(&[4, 5]).with_chunks(&[2, 5]);
    array.with_scale_offset(hdf5_pure::ScaleOffset::Integer(0));
    let error = read(&save(builder, folder.path(), "filter"), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("compressed with scale-offset"), "{error}");
}

#[test]
fn readers_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<AnnDataFile>();
    is_send::<cellpatch_data::CountBlocks>();
}

#[test]
fn values_a_sample_missed_are_caught_by_reading() {
    let folder = tempfile::tempdir().unwrap();
    let mut data = CSR.2.to_vec();
    let mut refused = |at: usize, value: f32, kind: ValueKind| {
        let kept = std::mem::replace(&mut data[at], value);
        let path = save(sparse("csr_matrix", CSR.0, CSR.1, &data), folder.path(), "missed");
        data[at] = kept;
        let file = AnnDataFile::open(&path).unwrap();
        let chosen = cellpatch_data::ChosenMatrix { location: MatrixLocation::X, kind };
        file.chosen_blocks(&chosen, 1).unwrap().collect::<Result<Vec<_>>>().unwrap_err()
    };
    let error = refused(2, 0.5, ValueKind::Counts);
    assert!(
        matches!(&error, Error::NotCounts { found, .. } if found == "0.5 at cell 2, gene column 0"),
        "{error}"
    );
    let error = refused(2, -1.0, ValueKind::Log1p { target_sum: None });
    assert!(matches!(error, Error::BadValue { row: 2, column: 0, .. }), "{error}");
}
