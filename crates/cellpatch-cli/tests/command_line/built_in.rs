use std::fs;

use crate::{SMALL, cellpatch, json, run};

#[test]
fn a_run_leaves_everything_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), SMALL);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = json(&output);
    for key in [
        "command",
        "version",
        "device",
        "cells_train",
        "cells_validation",
        "genes",
        "vocabulary_size",
        "epochs",
        "steps",
        "seconds",
        "cells_per_second",
        "train_loss",
        "validation_loss",
        "validation_loss_gene_mean",
        "validation_r2",
        "checkpoint",
        "model",
    ] {
        assert!(!summary[key].is_null(), "{key} is missing in {summary}");
    }
    assert_eq!(summary["epochs"], 2);
    assert_eq!(summary["cells_train"].as_u64().unwrap() + summary["cells_validation"].as_u64().unwrap(), 240);
    let run = folder.path().join("run");
    for name in [
        "config.toml",
        "vocabulary.parquet",
        "metrics.jsonl",
        "checkpoints",
        "model.safetensors",
        "model.json",
        "summary.json",
        "report.html",
    ] {
        assert!(run.join(name).exists(), "{name} is missing");
    }
    let stored = fs::read_to_string(run.join("summary.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), summary);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=\"http"), "one file with figures and no network");
}

#[test]
fn every_thing_a_run_writes_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), SMALL).status.success());
    let kinds = [
        ("run", "run"),
        ("run/shards", "shard-set"),
        ("run/model.safetensors", "weights"),
        ("run/vocabulary.parquet", "vocabulary"),
    ];
    for (path, kind) in kinds {
        let output = run(folder.path(), ["inspect", "--json", "--verify", path]);
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(json(&output)["kind"], kind);
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, seed: &str| {
        let mut command = cellpatch(folder.path(), SMALL.into_iter().take(13));
        let output = command.args(["--run-dir", name, "--seed", seed]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(folder.path().join(name).join("model.safetensors")).unwrap()
    };
    let first = weights("first", "1");
    assert!(first == weights("again", "1"), "equal seeds must give equal bits");
    assert!(first != weights("other", "2"));
}

#[test]
fn the_stored_configuration_repeats_the_run() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), SMALL).status.success());
    let again = ["pretrain", "--quiet", "--json", "--config", "run/config.toml", "--run-dir", "again"];
    let output = run(folder.path(), again);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = |run: &str| fs::read(folder.path().join(run).join("model.safetensors")).unwrap();
    assert!(model("run") == model("again"));
}

#[test]
fn doctor_finds_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&run(folder.path(), ["doctor", "--json"]));
    let cpu = &report["devices"][0];
    assert_eq!((cpu["device"].as_str(), cpu["works"].as_bool()), (Some("cpu"), Some(true)));
    for device in report["devices"].as_array().unwrap() {
        let explained =
            device["works"] == true || device["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        assert!(explained, "{device}");
    }
}
