use std::fs;
use std::path::Path;

use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{AnnDataFile, GeneVocabulary};
use cellpatch_model::Checkpoint;
use serde_json::Value;

use crate::bad_input::fails;
use crate::{json, run};

const TRAIN: [&str; 20] = [
    "annotate",
    "train",
    "--quiet",
    "--json",
    "--device",
    "cpu",
    "--data",
    "cells.h5ad",
    "--preset",
    "tiny",
    "--epochs",
    "3",
    "--learning-rate",
    "1e-2",
    "--warmup-steps",
    "0",
    "--max-input",
    "150",
    "--run-dir",
    "run",
];

/// A folder with labelled cells.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = SyntheticConfig { n_cells: 240, n_genes: 500, n_donors: 4, ..Default::default() };
    write_h5ad(&config, folder.path().join("cells.h5ad")).unwrap();
    folder
}

fn succeeds<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&output)
}

#[test]
fn labels_are_learnt_and_given_to_a_copy_of_the_file() {
    let folder = folder();
    let folder = folder.path();
    let summary = succeeds(folder, TRAIN.into_iter().chain(["--baseline"]));
    let classes = summary["classes"].as_array().unwrap();
    assert!(classes.len() >= 2, "{summary}");
    let names: Vec<&str> = summary["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|method| method["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"CellPatch") && names.contains(&"L1 logistic regression"), "{names:?}");
    for name in [
        "config.toml",
        "vocabulary.parquet",
        "split.tsv",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "summary.json",
        "report.html",
        "confusion.csv",
        "attention.csv",
        "figures/confusion.svg",
        "figures/attention.svg",
        "figures/umap_truth.svg",
        "figures/umap_agreement.svg",
        "figures/reliability.svg",
    ] {
        assert!(folder.join("run").join(name).exists(), "{name} is missing");
    }

    let predict = ["annotate", "predict", "--quiet", "--json", "--device", "cpu", "--model", "run"];
    let more = ["--data", "cells.h5ad", "--label", "cell_type", "--probabilities", "--top", "2"];
    let result = succeeds(folder, predict.into_iter().chain(more).chain(["--out", "labelled.h5ad"]));
    assert_eq!(result["cells"], 240);
    let accuracy = result["accuracy"].as_f64().unwrap();
    assert!(accuracy > 1.5 / classes.len() as f64, "better than chance: {result}");
    assert_eq!(result["per_class"].as_array().unwrap().len(), classes.len());
    let columns = AnnDataFile::open(&folder.join("labelled.h5ad")).unwrap().obs_columns();
    for name in ["cellpatch_label", "cellpatch_confidence", "cellpatch_top_2", "cell_type"] {
        assert!(columns.iter().any(|column| column == name), "{name} is not in {columns:?}");
    }
    succeeds(folder, predict.into_iter().chain(more).chain(["--out", "labels.csv"]));
    let table = fs::read_to_string(folder.join("labels.csv")).unwrap();
    assert_eq!(table.lines().count(), 241);
    let scored = succeeds(folder, ["inspect", "--json", "run"]);
    assert_eq!(scored["epochs"].as_array().unwrap().len(), 3);
}

#[test]
fn the_split_of_a_run_can_be_used_again() {
    let folder = folder();
    let folder = folder.path();
    let by_donor = succeeds(folder, TRAIN.into_iter().chain(["--split-by", "donor_id"]));
    let again = [
        "annotate",
        "train",
        "--quiet",
        "--json",
        "--device",
        "cpu",
        "--data",
        "cells.h5ad",
        "--preset",
        "tiny",
        "--epochs",
        "1",
        "--run-dir",
        "again",
        "--split-file",
        "run/split.tsv",
        "--head",
        "projected",
        "--class-weights",
        "balanced",
        "--label-smoothing",
        "0.1",
    ];
    let again = succeeds(folder, again);
    for part in ["cells_train", "cells_validation", "cells_test"] {
        assert_eq!(by_donor[part], again[part]);
    }
}

#[test]
fn repeats_give_an_interval_and_the_best_model() {
    let folder = folder();
    let folder = folder.path();
    let summary = succeeds(folder, TRAIN.into_iter().chain(["--repeats", "2"]));
    let method = &summary["methods"][0];
    assert_eq!(method["repeats"]["accuracy"].as_array().unwrap().len(), 2);
    assert!(method["accuracy_half_width"].is_number(), "{method}");
    assert!(folder.join("run/model.json").exists() && folder.join("run/repeat-02/model.json").exists());
}

#[test]
fn a_pretrained_encoder_is_taken_on_and_may_be_frozen() {
    let folder = folder();
    let folder = folder.path();
    succeeds(
        folder,
        [
            "pretrain",
            "--quiet",
            "--json",
            "--device",
            "cpu",
            "--data",
            "cells.h5ad",
            "--preset",
            "tiny",
            "--epochs",
            "1",
            "--batch-size",
            "64",
            "--run-dir",
            "pre",
            "--min-genes",
            "10",
        ],
    );
    succeeds(folder, TRAIN.into_iter().chain(["--init", "pre", "--freeze"]));
    let read = |run: &str| Checkpoint::read(folder.join(run).join("model.safetensors")).unwrap();
    let (before, after) = (read("pre"), read("run"));
    assert_eq!(before.tensors["pathway_token"], after.tensors["pathway_token"], "frozen");
    let known = GeneVocabulary::read_parquet(&folder.join("pre/vocabulary.parquet")).unwrap().len() + 1;
    let rows = |checkpoint: &Checkpoint| {
        checkpoint.tensors["gene2vector.weight"].iter::<f32>().take(known * 32).collect::<Vec<_>>()
    };
    assert_eq!(rows(&before), rows(&after), "genes keep their rows");
    let vocabulary = |run: &str| fs::read(folder.join(run).join("vocabulary.parquet")).unwrap();
    fs::write(folder.join("pre/vocabulary.parquet"), vocabulary("run")).unwrap();
    if vocabulary("pre") != vocabulary("run") {
        fails(folder, 3, &["vocabulary"], TRAIN.into_iter().chain(["--init", "pre"]));
    }
}

#[test]
fn cells_and_genes_are_embedded() {
    let folder = folder();
    let folder = folder.path();
    succeeds(folder, TRAIN);
    let embed = ["embed", "--quiet", "--json", "--device", "cpu", "--model", "run", "--data", "cells.h5ad"];
    let more = ["--genes", "genes.parquet", "--label", "cell_type", "--attention", "attention.csv"];
    let result = succeeds(folder, embed.into_iter().chain(more).chain(["--out", "embedded.h5ad"]));
    assert_eq!((&result["cells"]["cells"], &result["cells"]["width"]), (&240.into(), &80.into()));
    for name in ["embedded.h5ad", "genes.parquet", "attention.csv", "attention.svg"] {
        assert!(folder.join(name).exists(), "{name}");
    }
    for (embedding, width) in [("patches", 256), ("mean", 32)] {
        let out = format!("{embedding}.npy");
        let result = succeeds(folder, embed.into_iter().chain(["--embedding", embedding, "--out", &out]));
        assert_eq!(result["cells"]["width"], width);
        let bytes = fs::metadata(folder.join(&out)).unwrap().len();
        assert_eq!(bytes, 128 + 4 * 240 * width);
    }
}

#[test]
fn weights_go_out_and_come_back_bit_for_bit() {
    let folder = folder();
    let folder = folder.path();
    succeeds(folder, TRAIN);
    for layout in ["state-dict", "model-state-dict", "released"] {
        let (file, back) = (format!("{layout}.pth"), format!("{layout}-back"));
        succeeds(folder, ["export", "--json", "run", "--out", &file, "--layout", layout]);
        let vocabulary = "run/vocabulary.parquet";
        succeeds(folder, ["import", "--json", &file, "--out", &back, "--vocabulary", vocabulary]);
        let tensors = |path: &str| Checkpoint::read(folder.join(path)).unwrap().tensors;
        assert_eq!(tensors("run/model.safetensors"), tensors(&format!("{back}/model.safetensors")));
        let labels = format!("{layout}.csv");
        let predict = ["annotate", "predict", "--json", "--quiet", "--data", "cells.h5ad", "--model", &back];
        succeeds(folder, predict.into_iter().chain(["--max-input", "500", "--out", &labels]));
        let told = fs::read_to_string(folder.join(labels)).unwrap();
        let numbered = told.contains(",class ");
        assert_eq!(numbered, layout == "state-dict", "a bare state dict has no names of classes");
        let named = |table: &str| -> Vec<String> {
            let cells = table.lines().map(|line| line.split(',').take(2).collect::<Vec<_>>().join(","));
            cells.collect()
        };
        if layout != "state-dict" {
            let predict =
                ["annotate", "predict", "--json", "--quiet", "--data", "cells.h5ad", "--model", "run"];
            succeeds(
                folder,
                predict.into_iter().chain([
                    "--max-input",
                    "500",
                    "--out",
                    "before.csv",
                    "--overwrite",
                    "--unknown-below",
                    "0",
                ]),
            );
            let before = fs::read_to_string(folder.join("before.csv")).unwrap();
            assert_eq!(named(&before), named(&told), "the genes that cells are reduced to come back as well");
        }
    }
}

#[test]
fn what_cannot_be_annotated_is_refused_with_the_reason() {
    let folder = folder();
    let folder = folder.path();
    let train = ["annotate", "train", "--quiet", "--device", "cpu", "--preset", "tiny", "--epochs", "1"];
    let with = |more: &'static [&'static str]| train.into_iter().chain(more.iter().copied());
    fails(folder, 2, &["--data"], with(&[]));
    fails(folder, 3, &["no_such"], with(&["--data", "cells.h5ad", "--label", "no_such"]));
    let other =
        SyntheticConfig { n_cells: 20, n_genes: 480, n_donors: 1, n_batches: 1, ..Default::default() };
    write_h5ad(&other, folder.join("other.h5ad")).unwrap();
    fails(folder, 3, &["one class"], with(&["--data", "other.h5ad", "--label", "donor_id"]));
    assert!(!folder.join("runs/annotate-1/config.toml").exists(), "nor one that found nothing to learn");
    fails(folder, 2, &["fractions"], with(&["--data", "cells.h5ad", "--fractions", "0.5,0.5"]));
    let output = run(folder, with(&["--data", "cells.h5ad", "--label-smoothing", "2"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("label-smoothing is 2"));
    fails(folder, 3, &["nowhere"], with(&["--data", "cells.h5ad", "--init", "nowhere"]));

    succeeds(folder, TRAIN);
    let predict = ["annotate", "predict", "--quiet", "--device", "cpu", "--model", "run", "--data"];
    let with = |more: &'static [&'static str]| predict.into_iter().chain(more.iter().copied());
    fails(folder, 3, &["no_such"], with(&["cells.h5ad", "--out", "x.csv", "--label", "no_such"]));
    let output = run(folder, with(&["cells.h5ad", "--out", "cells.h5ad"]));
    assert_eq!(output.status.code(), Some(2), "the input is never written to by chance");
    fs::write(folder.join("taken.csv"), "").unwrap();
    fails(folder, 2, &["taken.csv"], with(&["cells.h5ad", "--out", "taken.csv"]));

    let model = folder.join("run/model.safetensors");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    fails(folder, 3, &["model.safetensors"], with(&["cells.h5ad", "--out", "x.csv"]));
    fs::write(&model, &bytes).unwrap();
    fs::remove_file(folder.join("run/vocabulary.parquet")).unwrap();
    fails(folder, 2, &["--vocabulary"], with(&["cells.h5ad", "--out", "x.csv"]));
}

#[test]
fn a_pickle_that_asks_for_a_function_is_refused_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // `os.system("touch harm")`, pickled by hand.
    fs::write(folder.join("harm.pth"), b"\x80\x02cos\nsystem\n(X\x0a\x00\x00\x00touch harm\x85R.").unwrap();
    fails(folder, 3, &["harm.pth"], ["import", "harm.pth", "--out", "model"]);
    assert!(!folder.join("harm").exists() && !folder.join("model").exists());
}
