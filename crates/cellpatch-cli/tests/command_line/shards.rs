use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use serde_json::Value;

use crate::bad_input::fails;
use crate::{cellpatch, json, real_data, run};

/// Writes `data/cells-0.h5ad`, ... of synthetic cells.
fn write_cells(folder: &Path, sizes: &[usize], n_genes: usize) {
    fs::create_dir(folder.join("data")).unwrap();
    for (seed, &n_cells) in (0..).zip(sizes) {
        let config = SyntheticConfig { seed, ..SyntheticConfig::with_size(n_cells, n_genes) };
        write_h5ad(&config, folder.join(format!("data/cells-{seed}.h5ad"))).unwrap();
    }
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn succeeds<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let output = run(folder, arguments.into_iter().chain(["--json", "--quiet"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&output)
}

#[test]
fn parts_merge_into_the_bytes_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    write_cells(folder.path(), &[120, 80, 100], 500);
    let shard = ["shard", "--data", "data", "--min-genes", "1", "--vocabulary", "human", "--min-match", "0"];
    let whole = shard.into_iter().chain(["--known-genes-only", "--out", "whole"]);
    assert_eq!(succeeds(folder.path(), whole)["cells"], 300);
    for (part, out) in [("1/2", "one"), ("2/2", "two")] {
        let part = shard.into_iter().chain(["--out", out, "--part", part]);
        assert!(succeeds(folder.path(), part)["manifest"]["part"].is_object());
    }
    let merged = succeeds(folder.path(), ["merge", "two", "one", "--out", "merged"]);
    assert_eq!((merged["command"].as_str(), merged["cells"].as_u64()), (Some("merge"), Some(300)));
    assert!(contents(&folder.path().join("merged")) == contents(&folder.path().join("whole")));

    let sample = ["merge", "one", "two", "--out", "few", "--max-cells", "30", "--stratify", "cell_type"];
    assert_eq!(succeeds(folder.path(), sample)["cells"], 30);
    fails(folder.path(), 3, &["2", "--part 2/2"], ["merge", "one", "--out", "half"]);
    fails(folder.path(), 3, &["whole", "--part"], ["merge", "whole", "--out", "half"]);
    let sampled_part = shard.into_iter().chain(["--out", "x", "--part", "1/2", "--max-cells", "9"]);
    fails(folder.path(), 2, &["merge"], sampled_part);
    assert!(!folder.path().join("half").exists() && !folder.path().join("x").exists());
}

#[test]
fn a_damaged_byte_is_found_by_verify() {
    let folder = tempfile::tempdir().unwrap();
    write_cells(folder.path(), &[60], 500);
    succeeds(folder.path(), ["shard", "--data", "data", "--min-genes", "1", "--out", "set"]);
    let verified = succeeds(folder.path(), ["inspect", "set", "--verify"]);
    assert_eq!((verified["kind"].as_str(), verified["verified"].as_bool()), (Some("shard-set"), Some(true)));
    let file = folder.path().join("set/cells-00000.parquet");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fails(folder.path(), 3, &["cells-00000.parquet", "SHA-256"], ["inspect", "set", "--verify"]);
}

#[test]
fn sources_with_the_same_cells_are_shown_in_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(first), Some(second)) =
        (real_data("cellxgene/zheng_frozen_a.h5ad"), real_data("cellxgene/baron_h1.h5ad"))
    else {
        return;
    };
    let copy = folder.path().join("copy.h5ad");
    fs::copy(&first, &copy).unwrap();
    let paths = [first, copy, second].map(|path| path.to_str().unwrap().to_owned());
    let data = paths.iter().flat_map(|path| ["--data", path]);
    let output = run(folder.path(), ["shard", "--quiet", "--out", "set"].into_iter().chain(data));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("cells in common"), "{text}");
    let row = ["zheng_frozen_a", "copy", "2896", "2896", "2896"];
    assert!(text.lines().any(|line| line.split_whitespace().eq(row)), "{text}");
    let described = succeeds(folder.path(), ["inspect", "set"]);
    assert_eq!(described["manifest"]["shared_cells"].as_array().unwrap().len(), 1);
}

#[test]
fn inspect_shows_how_genes_are_matched() {
    let folder = tempfile::tempdir().unwrap();
    write_cells(folder.path(), &[30], 500);
    let arguments = ["inspect", "data/cells-0.h5ad", "--vocabulary", "human"];
    let text = String::from_utf8(run(folder.path(), arguments).stdout).unwrap();
    assert!(text.contains("by Ensembl id") && text.contains("unmatched"), "{text}");
    let found = succeeds(folder.path(), arguments);
    let rows = found["gene_match"]["rows"].as_array().unwrap();
    let total: u64 = rows[..8].iter().map(|row| row["genes"].as_u64().unwrap()).sum();
    assert_eq!(total, found["gene_match"]["genes"].as_u64().unwrap(), "{rows:?}");
}

#[test]
fn sizes_and_parts_that_make_no_sense_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    write_cells(folder.path(), &[30], 500);
    for bad in [
        &["--max-memory", "5 potatoes"][..],
        &["--max-memory", "1M"],
        &["--part", "0/2"],
        &["--part", "3"],
        &["--part", "2/3"],
        &["--stratify", "cell_type"],
    ] {
        let arguments = ["shard", "--data", "data", "--out", "set"].into_iter().chain(bad.iter().copied());
        let output = run(folder.path(), arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
    assert!(!folder.path().join("set").exists());
}

#[test]
fn a_shard_killed_ten_times_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    write_cells(folder.path(), &[400, 300, 500, 200], 2_000);
    let shard = |out| ["shard", "--data", "data", "--quiet", "--max-memory", "16M", "--out", out];
    let began = Instant::now();
    succeeds(folder.path(), shard("whole"));
    let took = began.elapsed();
    let (mut n_killed, mut n_unfinished) = (0, 0);
    // Later and later, so that a slower machine is killed at other moments, but killed.
    for round in 1..=10u32 {
        let out = folder.path().join("killed");
        let mut child = cellpatch(folder.path(), shard("killed"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(took.mul_f64(f64::from(round) / 11.0).max(Duration::from_millis(5)));
        n_killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let whole = out.join("manifest.json").exists();
        let inspected = run(folder.path(), ["inspect", "killed", "--verify", "--json"]);
        assert_eq!(inspected.status.success(), whole, "{}", String::from_utf8_lossy(&inspected.stderr));
        n_unfinished += u32::from(!whole);
    }
    assert!(n_killed > 0 && n_unfinished > 0, "{n_killed} kills, {n_unfinished} of them in the middle");
    succeeds(folder.path(), shard("killed"));
    assert!(contents(&folder.path().join("killed")) == contents(&folder.path().join("whole")));
}
