use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{SMALL, json, real_data, run};

/// Runs a command that must fail, and checks that it says what, where and what to do, without a panic.
pub(crate) fn fails<'a>(
    folder: &Path,
    code: i32,
    words: &[&str],
    arguments: impl IntoIterator<Item = &'a str>,
) {
    let arguments: Vec<&str> = arguments.into_iter().collect();
    let output = run(folder, arguments.iter().copied().chain(["--json"]));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    for word in words.iter().chain(&["error: ", "help: "]) {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    let error = &json(&output)["error"];
    assert!(error["message"].is_string() && error["help"].is_string(), "{error}");
}

fn pretrain(data: &Path) -> [&str; 6] {
    ["pretrain", "--quiet", "--device", "cpu", "--data", data.to_str().unwrap()]
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fails(folder.path(), 3, &["nowhere.h5ad"], pretrain(Path::new("nowhere.h5ad")));
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_file_that_is_not_hdf5_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("table.h5ad"), "gene,cell\n").unwrap();
    fails(folder.path(), 3, &["table.h5ad", "not an HDF5 file"], pretrain(Path::new("table.h5ad")));
    assert!(!folder.path().join("runs/pretrain-1").exists(), "a run that could not begin leaves nothing");
}

#[test]
fn broken_real_files_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 4] = [
        ("formats/variants/truncated.h5ad", &["truncated.h5ad"]),
        ("formats/variants/not_hdf5.h5ad", &["not_hdf5.h5ad", "not an HDF5 file"]),
        ("formats/variants/index_out_of_range.h5ad", &["index_out_of_range.h5ad"]),
        ("formats/cellxgene/nan.h5ad", &["nan.h5ad", "NaN"]),
    ];
    for (file, words) in cases {
        let Some(path) = real_data(file) else { return };
        fails(folder.path(), 3, words, pretrain(&path));
    }
}

#[test]
fn a_layer_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = real_data("formats/anndataR/example.h5ad") else { return };
    fails(
        folder.path(),
        3,
        &["\"raw_counts\"", "csc_counts"],
        pretrain(&path).into_iter().chain(["--layer", "raw_counts"]),
    );
}

#[test]
fn values_that_are_not_counts_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = real_data("cells/symphony_pbmc_1200.h5ad") else { return };
    fails(folder.path(), 3, &["log1p", "--values normalized"], pretrain(&path));
}

#[test]
fn a_label_column_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = real_data("formats/variants/no_label.h5ad") else { return };
    let arguments = pretrain(&path).into_iter().chain(["--label", "cell_type"]);
    fails(folder.path(), 3, &["\"cell_type\""], arguments);
}

#[test]
fn genes_of_another_species_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(mouse), Some(human)) =
        (real_data("spatial/starmap_mpfc_BZ5.h5ad"), real_data("genes/cellpatch.gene2tok.json.gz"))
    else {
        return;
    };
    let vocabulary = ["--vocabulary", human.to_str().unwrap(), "--min-genes", "1"];
    fails(folder.path(), 3, &["starmap", "--mouse-genes"], pretrain(&mouse).into_iter().chain(vocabulary));
}

#[test]
fn quality_control_that_leaves_nothing_says_which_flag_to_lower() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = SMALL.into_iter().chain(["--min-genes", "100000"]);
    fails(folder.path(), 3, &["no cells", "--min-genes"], arguments);
}

#[test]
fn settings_that_make_no_sense_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let usage = |arguments: &[&str]| {
        let output = run(folder.path(), ["pretrain"].into_iter().chain(arguments.iter().copied()));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    };
    for arguments in [
        &["--epochs", "0"][..],
        &["--batch-size", "0"],
        &["--learning-rate", "-1"],
        &["--learning-rate", "NaN"],
        &["--validation-fraction", "1.5"],
        &["--masked-fraction", "0"],
        &["--max-targets", "0"],
        &["--clip-norm", "0"],
        &["--preset", "huge"],
        &["--device", "tpu"],
        &["--values", "scaled"],
        &["--gene-capacity", "1"],
        &["--nonsense"],
        &["--resume"],
    ] {
        usage(arguments);
    }
    assert!(!folder.path().join("runs").exists(), "a bad request leaves nothing behind");
}

#[test]
fn a_run_directory_that_cannot_be_written_is_an_environment_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let output = run(folder.path(), SMALL.into_iter().take(13).chain(["--run-dir", "file/run"]));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains("file/run"), "{message}");
}

/// A disk of one megabyte, where the process may make one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output().ok()?;
        mounted.status.success().then_some(Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_environment_error_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small");
    let Some(disk) = SmallDisk::mount(&path) else {
        println!("skipped: this process may not mount a small disk");
        return;
    };
    let output = run(folder.path(), SMALL.into_iter().take(13).chain(["--run-dir", "small/run"]));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{message}");
    assert!(message.contains("small/run") && message.contains("disk space"), "{message}");
    let left: Vec<_> = fs::read_dir(path.join("run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|end| end != "partial")), "{left:?}");
    let model = path.join("run/model.safetensors");
    if model.exists() {
        let inspected = run(folder.path(), ["inspect", model.to_str().unwrap()]);
        assert!(inspected.status.success(), "a model that is there is whole");
    }
    drop(disk);
}
