use std::fs;
use std::path::Path;

use crate::bad_input::fails;
use crate::http_server::{Fault, Server};
use crate::{SMALL, json, run};

/// Writes a manifest of one file.
fn write_manifest(folder: &Path, url: &str, more: &str) {
    let text = format!(
        r#"
        name = "mine"
        title = "My cells"
        organism = "Homo sapiens"
        technology = "10x Chromium"
        licence = "CC0"
        citation = "none"
        label-column = "cell_type"
        [[files]]
        name = "cells.bin"
        url = "{url}"
        {more}
        "#
    );
    fs::write(folder.join("mine.toml"), text).unwrap();
}

#[test]
fn known_data_sets_are_listed_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let listed = json(&run(folder.path(), ["datasets", "list", "--json"]));
    let datasets = listed["datasets"].as_array().unwrap();
    assert!(datasets.iter().any(|dataset| dataset["name"] == "zheng68k"));
    let text = String::from_utf8(run(folder.path(), ["datasets", "list"]).stdout).unwrap();
    assert_eq!(text.lines().count(), datasets.len());
    for dataset in datasets {
        let name = dataset["name"].as_str().unwrap();
        let text = String::from_utf8(run(folder.path(), ["datasets", "describe", name]).stdout).unwrap();
        for word in ["licence", "cite", "labels", dataset["licence"].as_str().unwrap()] {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
    }
    fails(folder.path(), 2, &["zheng86k", "zheng68k"], ["datasets", "describe", "zheng86k"]);
    fails(folder.path(), 2, &["synthetic", "pretrain"], ["datasets", "fetch", "synthetic"]);
    fs::write(folder.path().join("bad.toml"), "name = 3").unwrap();
    fails(folder.path(), 3, &["bad.toml", "formats.md"], ["datasets", "fetch", "bad.toml"]);
}

#[test]
fn a_data_set_of_ones_own_is_fetched_and_what_could_not_be_verified_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    server.put("cells", vec![7; 100_000]);
    write_manifest(folder.path(), &server.url("cells"), "");
    server.fail([Fault::CutAfter(30_000)]);
    let fetch = ["datasets", "fetch", "mine.toml"];
    let output = run(folder.path(), fetch);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for word in ["data/mine/cells.bin", "could not be verified", "CC0"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert_eq!(fs::read(folder.path().join("data/mine/cells.bin")).unwrap(), vec![7; 100_000]);
    let again = json(&run(folder.path(), fetch.into_iter().chain(["--json"])));
    assert_eq!(
        (&again["files"][0]["state"], &again["files"][0]["verified"]),
        (&"present".into(), &false.into())
    );

    let wrong = format!("sha256 = \"{}\"", "0".repeat(64));
    write_manifest(folder.path(), &server.url("cells"), &wrong);
    let elsewhere = ["datasets", "fetch", "mine.toml", "--output", "b", "--retries", "0"];
    fails(folder.path(), 3, &["SHA-256", &"0".repeat(64)], elsewhere);
    write_manifest(folder.path(), &server.url("nothing"), "");
    fails(folder.path(), 3, &["/nothing", "404"], elsewhere);
    server.always("cells", Fault::Status(503));
    write_manifest(folder.path(), &server.url("cells"), "");
    fails(folder.path(), 4, &["503"], elsewhere);
}

#[test]
fn cellxgene_is_searched_and_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let dataset = |id: &str, tissue: &str| {
        serde_json::json!({
            "dataset_id": id, "dataset_version_id": format!("{id}-1"), "title": "Cells", "cell_count": 10,
            "tissue": [{ "label": tissue, "ontology_term_id": "UBERON:1" }], "organism": null,
            "assets": [{ "filetype": "H5AD", "filesize": 9, "url": server.url(id) }],
        })
    };
    let all = serde_json::to_string(&[dataset("a", "lung"), dataset("b", "blood")]).unwrap();
    server.put("v1/datasets", all);
    server.put("a", "123456789");
    let api = server.url("v1");
    let search = ["datasets", "cellxgene", "--tissue", "lung", "--api", &api];
    let text = String::from_utf8(run(folder.path(), search).stdout).unwrap();
    assert!(
        text.contains("a-1") && !text.contains("b-1") && text.contains("1 data sets, 10 cells"),
        "{text}"
    );
    let download = search.into_iter().chain(["--download", "cells", "--json"]);
    let found = json(&run(folder.path(), download));
    assert_eq!(found["files"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(folder.path().join("cells/a-1.h5ad")).unwrap(), b"123456789");
    server.always("v1", Fault::Status(404));
    fails(folder.path(), 3, &["404"], search);
}

#[test]
fn a_shard_set_on_a_server_is_inspected_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), SMALL.into_iter().chain(["--epochs", "1"])).status.success());
    let server = Server::start();
    server.put_folder("set", &folder.path().join("run/shards"));
    let url = server.url("set");
    let inspected = json(&run(folder.path(), ["inspect", &url, "--verify", "--cache", "cache", "--json"]));
    assert_eq!(inspected["kind"], "shard-set");
    let here = SMALL.into_iter().chain(["--data", "run/shards", "--run-dir", "here"]);
    let there = SMALL.into_iter().chain([
        "--data",
        &url,
        "--cache",
        "cache",
        "--cache-size",
        "100M",
        "--run-dir",
        "there",
    ]);
    for arguments in [here.collect::<Vec<_>>(), there.collect()] {
        let output = run(folder.path(), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let model = |run: &str| fs::read(folder.path().join(run).join("model.safetensors")).unwrap();
    assert!(model("here") == model("there"), "the same cells, the same weights");

    let pretrain =
        |url: &'static str| ["pretrain", "--quiet", "--data", url, "--cache", "cache", "--device", "cpu"];
    fails(folder.path(), 2, &["ftp"], pretrain("ftp://host/set"));
    server.remove("set/manifest.json");
    fails(folder.path(), 3, &["/set", "manifest.json"], ["inspect", &url, "--cache", "cache"]);
    fails(folder.path(), 2, &["shard set"], ["shard", "--data", &url, "--out", "out"]);
}
