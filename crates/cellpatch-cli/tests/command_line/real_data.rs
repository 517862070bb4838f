use crate::{json, real_data, run};

#[test]
fn real_cells_pretrain_from_the_file() {
    let Some(path) = real_data("cells/kang_muscat_example.h5ad") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        [
            "pretrain",
            "--data",
            path.to_str().unwrap(),
            "--device",
            "cpu",
            "--json",
            "--quiet",
            "--epochs",
            "1",
            "--max-cells",
            "400",
            "--batch-size",
            "32",
            "--validation-by",
            "donor_id",
            "--gene-capacity",
            "2000",
            "--label",
            "condition",
            "--run-dir",
            "run",
        ],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = json(&output);
    assert_eq!(summary["cells_train"].as_u64().unwrap() + summary["cells_validation"].as_u64().unwrap(), 400);
    assert_eq!(summary["genes"], 1267, "every gene of the file gets a token");
}

#[test]
fn shards_of_a_folder_share_one_vocabulary() {
    let Some(path) = real_data("cellxgene") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        folder.path(),
        ["shard", "--data", path.to_str().unwrap(), "--out", "shards", "--json", "--quiet"],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result = json(&output);
    let sources = result["manifest"]["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 10);
    let new: u64 = sources.iter().map(|source| source["n_new"].as_u64().unwrap()).sum();
    assert_eq!(result["genes"].as_u64(), Some(new), "a gene of two files has one token");
    let raw = |name: &str| sources.iter().any(|source| source["name"] == name && source["matrix"] == "raw/X");
    assert!(raw("baron_h1"), "counts come from raw.X where X is normalised");
}
