use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::backend::Flex;
use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
use cellpatch_data::{AnnDataFile, Existing, Gene, GeneVocabulary, H5adAnnotator, NewValues};
use cellpatch_model::weights::{config_metadata, save_safetensors};
use cellpatch_model::{CellPatch, Preset};
use serde_json::Value;

use crate::bad_input::fails;
use crate::{cellpatch, json, run};

const N_SPOTS: usize = 150;

const SPATIAL: [&str; 13] = [
    "spatial",
    "--quiet",
    "--json",
    "--device",
    "cpu",
    "--preset",
    "tiny",
    "--hidden-dim",
    "24",
    "--label",
    "cell_type",
    "--epochs",
    "12",
];

/// Writes a slice on whose grid cells of one type lie side by side; some spots have no label.
fn slice(folder: &Path, name: &str, seed: u64, place: impl Fn(usize) -> [f32; 2]) {
    let (plain, out) = (folder.join("plain.h5ad"), folder.join(name));
    let config = SyntheticConfig { n_cells: N_SPOTS, n_genes: 500, seed, ..Default::default() };
    write_h5ad(&config, &plain).unwrap();
    let mut file = H5adAnnotator::create(&plain, &out, Existing::Replace).unwrap();
    let labels = file.input().obs_column("cell_type").unwrap().labels();
    let mut order: Vec<usize> = (0..N_SPOTS).collect();
    order.sort_by_key(|&spot| labels.codes[spot]);
    let mut places = vec![0.0; 2 * N_SPOTS];
    for (at, &spot) in order.iter().enumerate() {
        places[2 * spot..2 * spot + 2].copy_from_slice(&place(at));
    }
    let matrix = file.obsm("spatial", 2).unwrap();
    file.write_rows(matrix, 0, &places).unwrap();
    let mut texts: Vec<Option<String>> =
        labels.codes.iter().map(|code| Some(labels.categories[code.unwrap() as usize].clone())).collect();
    texts[..7].fill(None);
    file.obs_column("layer", NewValues::Texts(texts)).unwrap();
    file.finish().unwrap();
    fs::remove_file(plain).unwrap();
}

fn grid(at: usize) -> [f32; 2] {
    [(at % 10) as f32, (at / 10) as f32]
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    slice(folder.path(), "slice.h5ad", 5, grid);
    folder
}

fn succeeds<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    json(&output)
}

fn spatial<'a>(folder: &Path, more: impl IntoIterator<Item = &'a str>) -> Value {
    succeeds(folder, SPATIAL.into_iter().chain(more))
}

/// The files of a run that must not depend on anything but its settings.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors" || e == "csv" || e == "svg"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn a_slice_gets_domains_an_embedding_and_pictures() {
    let folder = folder();
    let folder = folder.path();
    let data = ["--data", "slice.h5ad", "--k", "4", "--run-dir", "run", "--label", "layer"];
    let out = ["--output", "domains.h5ad", "--refine", "5", "--denoised"];
    let summary = spatial(folder, data.into_iter().chain(out));
    for name in ["ari", "nmi", "loss", "epochs", "seconds", "spots", "genes", "edges", "chaos", "pas"] {
        assert!(summary[name].is_number(), "{name} is not in {summary}");
    }
    assert_eq!((&summary["spots"], &summary["genes"]), (&150.into(), &500.into()));
    assert_eq!((&summary["edges"], &summary["epochs"]), (&(5 * 150).into(), &12.into()));
    assert!(summary["ari"].as_f64().unwrap() > 0.0, "{summary}");
    let stored: Value = serde_json::from_slice(&fs::read(folder.join("run/summary.json")).unwrap()).unwrap();
    assert_eq!(stored, summary);
    for name in [
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "report.html",
        "domains-slice.csv",
        "domains-slice.svg",
    ] {
        assert!(folder.join("run").join(name).exists(), "{name} is missing");
    }
    let page = fs::read_to_string(folder.join("run/report.html")).unwrap();
    assert!(page.contains("7 spots have no label") && page.contains("UMAP 1"));

    let file = AnnDataFile::open(&folder.join("domains.h5ad")).unwrap();
    let n_labels = file.obs_column("layer").unwrap().labels().categories.len();
    let domains = file.obs_column("stagate_domain").unwrap().labels();
    assert_eq!((domains.n_labelled(), domains.categories.len()), (N_SPOTS, n_labels));
    assert_eq!(file.obs_column("stagate_domain_refined").unwrap().labels().n_labelled(), N_SPOTS);
    let embedding = file.obsm("X_stagate").unwrap();
    assert_eq!((embedding.n_columns, embedding.values.len()), (30, 30 * N_SPOTS));
    assert_eq!(file.obsm("X_stagate_denoised").unwrap().n_columns, 500);
    let inspected = succeeds(folder, ["inspect", "--json", "run"]);
    assert_eq!(inspected["epochs"].as_array().unwrap().len(), 12);
}

#[test]
fn a_table_has_domains_and_embedding_of_every_spot() {
    let folder = folder();
    let folder = folder.path();
    let leiden = ["--data", "slice.h5ad", "--leiden", "1", "--umap", "false", "--run-dir", "run"];
    let summary = spatial(folder, leiden.into_iter().chain(["--output", "domains.csv", "--latent-dim", "3"]));
    assert!(summary["domains"].as_u64().unwrap() >= 2);
    let table = fs::read_to_string(folder.join("domains.csv")).unwrap();
    assert_eq!(table.lines().count(), N_SPOTS + 1);
    assert!(table.starts_with("cell_id,x,y,label,stagate_domain,stagate_1,stagate_2,stagate_3\n"), "{table}");
    let again = ["--data", "slice.h5ad", "--output", "domains.csv", "--run-dir", "again"];
    fails(folder, 2, &["domains.csv", "already exists", "--overwrite"], SPATIAL.into_iter().chain(again));
    assert!(!folder.join("again").exists());
}

#[test]
fn several_trainings_vote_for_domains() {
    let folder = folder();
    let folder = folder.path();
    let with = |run: &str, more: &[&str]| {
        let out = format!("{run}.h5ad");
        let settings = ["--data", "slice.h5ad", "--umap", "false", "--denoised", "--latent-dim", "4"];
        let own = ["--run-dir", run, "--output", &out];
        spatial(folder, settings.into_iter().chain(own).chain(more.iter().copied()))
    };
    let single = with("single", &[]);
    let summary = with("several", &["--ensemble", "3", "--repeats", "2"]);
    assert_eq!((&single["ensemble"], &summary["ensemble"]), (&1.into(), &3.into()));
    let seeds: Vec<u64> =
        summary["repeats"].as_array().unwrap().iter().map(|row| row["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [42, 45]);
    for seed in 42..48 {
        let model = format!("several/slice-stagate-seed-{seed}/model.safetensors");
        assert!(folder.join(&model).is_file(), "{model} is missing");
    }
    let obsm = |file: &str, name: &str| AnnDataFile::open(&folder.join(file)).unwrap().obsm(name).unwrap();
    // The embedding is that of one of the trainings.
    let embedding = obsm("several.h5ad", "X_stagate");
    assert_eq!((embedding.n_columns, embedding.values.len()), (4, 4 * N_SPOTS));
    assert_eq!(obsm("several.h5ad", "X_stagate_denoised").n_columns, 500);
    let domains = |file: &str| AnnDataFile::open(&folder.join(file)).unwrap().obs_column("stagate_domain");
    let n_domains = |file: &str| domains(file).unwrap().labels().categories.len();
    // Votes make no domain that no training found.
    assert!((1..=n_domains("single.h5ad")).contains(&n_domains("several.h5ad")));
    let none = ["--data", "slice.h5ad", "--ensemble", "0", "--run-dir", "none"];
    assert_eq!(run(folder, SPATIAL.into_iter().chain(none)).status.code(), Some(2));
}

#[test]
fn smoothing_makes_domains_continuous_and_leaves_the_embedding_as_it_is() {
    let folder = folder();
    let folder = folder.path();
    let with = |rounds: &str| {
        let (run, out) = (format!("run-{rounds}"), format!("domains-{rounds}.h5ad"));
        let settings = ["--data", "slice.h5ad", "--domains", "5", "--smooth", rounds, "--umap", "false"];
        let summary = spatial(folder, settings.into_iter().chain(["--run-dir", &run, "--output", &out]));
        let embedding = AnnDataFile::open(&folder.join(out)).unwrap().obsm("X_stagate").unwrap().values;
        (summary["pas"].as_f64().unwrap(), embedding)
    };
    let (as_it_is, once, often) = (with("0"), with("1"), with("4"));
    assert!(as_it_is.1 == once.1 && once.1 == often.1);
    assert!(often.0 < as_it_is.0, "{} is not below {}", often.0, as_it_is.0);
    let both = ["--data", "slice.h5ad", "--leiden", "1", "--mixture-starts", "3", "--run-dir", "none"];
    assert_eq!(run(folder, SPATIAL.into_iter().chain(both)).status.code(), Some(2));
}

#[test]
fn numbers_do_not_depend_on_the_number_of_threads() {
    let folder = folder();
    let folder = folder.path();
    let results = ["1", "3"].map(|threads| {
        let arguments = ["--data", "slice.h5ad", "--compare", "--run-dir", threads, "--refine", "5"];
        let output = cellpatch(folder, SPATIAL.into_iter().chain(arguments))
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = json(&output);
        let numbers: Vec<(Value, Value, Value)> = summary["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["method"].clone(), row["loss"].clone(), row["ari"].clone()))
            .collect();
        let folder = folder.join(threads);
        let units =
            ["stagate", "cellpatch_stagate"].map(|method| folder.join(format!("slice-{method}-seed-42")));
        (numbers, contents(&folder), units.map(|unit| contents(&unit)))
    });
    assert!(results[0].1.len() == 2 && results[0].2.iter().all(|unit| unit.len() == 1));
    assert!(results[0] == results[1]);
}

#[test]
fn a_run_that_goes_on_ends_as_one_that_never_stopped() {
    let folder = folder();
    let folder = folder.path();
    let method = ["--data", "slice.h5ad", "--method", "cellpatch", "--run-dir"];
    let whole = spatial(folder, method.into_iter().chain(["whole"]));
    spatial(folder, method.into_iter().chain(["cut", "--epochs", "5"]));
    let cut = ["spatial", "--quiet", "--json", "--resume", "--run-dir", "cut", "--epochs", "12"];
    let cut = succeeds(folder, cut);
    assert_eq!((&cut["epochs"], &cut["loss"], &cut["ari"]), (&12.into(), &whole["loss"], &whole["ari"]));
    assert!(contents(&folder.join("cut")) == contents(&folder.join("whole")));
}

#[test]
fn methods_are_compared_over_slices_and_seeds() {
    let folder = folder();
    let folder = folder.path();
    slice(folder, "other.h5ad", 6, grid);
    let two = ["--data", "slice.h5ad", "--data", "other.h5ad", "--compare", "--umap", "false"];
    let summary =
        spatial(folder, two.into_iter().chain(["--repeats", "2", "--run-dir", "run", "--epochs", "4"]));
    let results = summary["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for result in results {
        assert_eq!(result["repeats"].as_array().unwrap().len(), 2);
        assert!(result["ari_half_width"].is_number(), "{result}");
    }
    let comparison = &summary["comparison"];
    assert_eq!((&comparison["pairs_of"], &comparison["pairs"]), (&"slices".into(), &2.into()));
    assert!(comparison["signed_rank_p"].is_number() && comparison["ari_difference"].is_number());
    assert!(folder.join("run/other-stagate-seed-43/model.safetensors").is_file());

    let one = ["--data", "slice.h5ad", "--compare", "--umap", "false", "--repeats", "3", "--epochs", "2"];
    let summary = spatial(folder, one.into_iter().chain(["--run-dir", "seeds"]));
    let comparison = &summary["comparison"];
    assert_eq!((&comparison["pairs_of"], &comparison["pairs"]), (&"seeds".into(), &3.into()));
}

#[test]
fn a_pretrained_model_reads_the_genes_it_knows() {
    let folder = folder();
    let folder = folder.path();
    let config = SyntheticConfig { n_cells: 120, n_genes: 480, seed: 9, ..Default::default() };
    write_h5ad(&config, folder.join("cells.h5ad")).unwrap();
    let pretrain =
        ["pretrain", "--quiet", "--json", "--device", "cpu", "--preset", "tiny", "--data", "cells.h5ad"];
    let more = ["--epochs", "1", "--gene-capacity", "1000", "--run-dir", "pretrained", "--batch-size", "32"];
    succeeds(folder, pretrain.into_iter().chain(more));
    let arguments =
        ["--data", "slice.h5ad", "--method", "cellpatch", "--init", "pretrained", "--run-dir", "run"];
    let summary = spatial(folder, arguments.into_iter().chain(["--output", "out.h5ad", "--umap", "false"]));
    let known = summary["patch_genes"].as_u64().unwrap();
    assert!(known > 0 && known < 500, "{summary}");
    assert_eq!(summary["genes"], 500);
    let card: Value = serde_json::from_slice(&fs::read(folder.join("run/model.json")).unwrap()).unwrap();
    assert_eq!(card["tokens"].as_array().unwrap().len() as u64, known);
    let file = AnnDataFile::open(&folder.join("out.h5ad")).unwrap();
    assert_eq!(file.obsm("X_cellpatch_stagate").unwrap().n_columns, 30);

    let fresh = ["--data", "slice.h5ad", "--method", "cellpatch", "--run-dir", "fresh", "--umap", "false"];
    assert_ne!(spatial(folder, fresh)["loss"], summary["loss"], "the weights play a part");
    let stagate = ["--data", "slice.h5ad", "--init", "pretrained"];
    fails(folder, 2, &["STAGATE", "--method cellpatch"], SPATIAL.into_iter().chain(stagate));
}

#[test]
fn what_is_no_slice_is_refused_with_a_suggestion() {
    let folder = folder();
    let folder = folder.path();
    let fails = |code: i32, words: &[&str], more: &[&str]| {
        fails(folder, code, words, SPATIAL.into_iter().chain(more.iter().copied()));
        assert!(!folder.join("runs/spatial-1").exists(), "a run that could not begin leaves nothing");
    };
    let slice_of = |name: &str, place: &dyn Fn(usize) -> [f32; 2]| slice(folder, name, 5, place);
    fails(2, &["no slice", "--data"], &[]);
    fails(3, &["nowhere.h5ad"], &["--data", "nowhere.h5ad"]);
    fails(2, &["within radius 0.01", "a radius of"], &["--data", "slice.h5ad", "--radius", "0.01"]);
    fails(2, &["neighbours within radius 90", "a radius of"], &["--data", "slice.h5ad", "--radius", "90"]);
    fails(3, &["slice.h5ad: there are 150 spots where 201"], &["--data", "slice.h5ad", "--k", "200"]);
    fails(2, &["a radius of -1", "a radius above 0"], &["--data", "slice.h5ad", "--radius", "-1"]);
    fails(2, &["nearest spots of 0", "1 or more"], &["--data", "slice.h5ad", "--k", "0"]);
    fails(3, &["no obs column \"nothing\""], &["--data", "slice.h5ad", "--label", "nothing"]);
    fails(2, &["151 domains", "150 spots"], &["--data", "slice.h5ad", "--domains", "151"]);
    fails(3, &["no obsm matrix \"umap\"", "spatial"], &["--data", "slice.h5ad", "--coordinates", "umap"]);
    fails(2, &["out.xyz", ".h5ad"], &["--data", "slice.h5ad", "--output", "out.xyz"]);
    slice_of("nan.h5ad", &|at| if at == 3 { [f32::NAN, 0.0] } else { grid(at) });
    fails(3, &["(NaN, 0)", "nan.h5ad"], &["--data", "nan.h5ad"]);
    let config = SyntheticConfig { n_cells: 40, n_genes: 500, ..Default::default() };
    write_h5ad(&config, folder.join("cells.h5ad")).unwrap();
    fails(3, &["does not say where its cells lie", "--coordinates"], &["--data", "cells.h5ad"]);
}

#[test]
fn a_model_of_other_genes_is_refused() {
    let folder = folder();
    let folder = folder.path();
    let model = Preset::Tiny.config().with_gene_capacity(10);
    let mut vocabulary = GeneVocabulary::new(10);
    vocabulary.extend(&[Gene::new(None, Some("not-a-gene"))], folder).unwrap();
    fs::create_dir(folder.join("model")).unwrap();
    vocabulary.write_parquet(&folder.join("model/vocabulary.parquet")).unwrap();
    let model: CellPatch<Flex> = model.init(&Default::default());
    let metadata = config_metadata(&Preset::Tiny.config().with_gene_capacity(10));
    save_safetensors(&model, folder.join("model/model.safetensors"), &metadata).unwrap();
    let arguments = ["--data", "slice.h5ad", "--method", "cellpatch", "--init", "model"];
    fails(
        folder,
        3,
        &["knows none of the 500 genes", "--mouse-genes orthologs"],
        SPATIAL.into_iter().chain(arguments),
    );
}

#[test]
fn neighbours_of_another_type_count_less() {
    let folder = folder();
    let folder = folder.path();
    let data = ["--data", "slice.h5ad", "--k", "4", "--domains", "3", "--umap", "false"];
    let loss = |run, more: &[&'static str]| {
        let arguments = data.into_iter().chain(["--run-dir", run]).chain(more.iter().copied());
        spatial(folder, arguments)["loss"].as_f64().unwrap()
    };
    let plain = loss("plain", &[]);
    // The attention is drawn anew for types, so that a share of 0 is another model than none.
    let [little, half] = ["0.01", "0.5"].map(|share| {
        let run = if share == "0.5" { "half" } else { "little" };
        loss(run, &["--types", "layer", "--type-share", share])
    });
    assert!(plain != half && little != half, "{plain} {little} {half}");
    assert_eq!(half, loss("default", &["--types", "layer"]));
    let fails = |code, words: &[&str], more: [&'static str; 2]| {
        fails(folder, code, words, SPATIAL.into_iter().chain(data).chain(more));
    };
    fails(2, &["--types"], ["--type-share", "0.5"]);
    fails(3, &["no_such"], ["--types", "no_such"]);
}

/// Writes the slice as a stack of three sections of one frame: by a column, and by z in `obsm["stack"]`.
fn stack(folder: &Path) {
    let mut file =
        H5adAnnotator::create(&folder.join("slice.h5ad"), &folder.join("stack.h5ad"), Existing::Keep)
            .unwrap();
    let places = file.input().obsm("spatial").unwrap();
    let section = |spot: usize| (places.values[2 * spot + 1] / 5.0).floor();
    let values: Vec<f32> = (0..N_SPOTS)
        .flat_map(|spot| {
            let [x, y] = [0, 1].map(|axis| places.values[2 * spot + axis]);
            [x as f32, (y - 5.0 * section(spot)) as f32, 7.0 * section(spot) as f32]
        })
        .collect();
    let names = (0..N_SPOTS).map(|spot| Some(format!("section {}", 8.0 + section(spot)))).collect();
    let matrix = file.obsm("stack", 3).unwrap();
    file.write_rows(matrix, 0, &values).unwrap();
    file.obs_column("section", NewValues::Texts(names)).unwrap();
    file.finish().unwrap();
}

#[test]
fn sections_of_a_stack_are_joined_to_the_next_ones() {
    let folder = folder();
    let folder = folder.path();
    stack(folder);
    let data = ["--data", "stack.h5ad", "--radius", "1", "--refine", "5", "--umap", "false"];
    let run = |more: &[&'static str]| {
        spatial(folder, data.into_iter().chain(["--coordinates", "stack"]).chain(more.iter().copied()))
    };
    let apart = run(&["--run-dir", "apart", "--sections", "section"]);
    // Three grids of 10 by 5: a spot itself, and up to four neighbours.
    let within = 3 * (50 + 2 * (9 * 5 + 10 * 4));
    assert_eq!(apart["edges"], within);
    let joined = run(&["--run-dir", "joined", "--sections", "section", "--between-radius", "0.5"]);
    // Every spot has one above and below, where there are sections.
    assert_eq!(joined["edges"], within + 4 * 50);
    run(&["--run-dir", "by-height", "--between-radius", "0.5"]);
    let table = |run: &str| fs::read_to_string(folder.join(run).join("domains-stack.csv")).unwrap();
    let by_name = table("joined");
    assert!(by_name.lines().nth(1).unwrap().contains("section "), "{by_name}");
    let by_height = ["z = 0", "z = 7", "z = 14"]
        .iter()
        .zip(["section 8", "section 9", "section 10"])
        .fold(table("by-height"), |text, (height, name)| {
            text.replace(&format!(",{height},"), &format!(",{name},"))
        });
    assert_eq!(by_height, by_name);
    let picture = fs::read_to_string(folder.join("joined/domains-stack.svg")).unwrap();
    assert!(picture.contains("section 8, section 9, section 10"), "the picture says what lies where");
    let refused = |words: &[&str], more: [&'static str; 4]| {
        fails(folder, 3, words, SPATIAL.into_iter().chain(data).chain(more));
    };
    refused(&["no_such"], ["--run-dir", "none", "--sections", "no_such"]);
    refused(&["no third coordinate", "--sections"], ["--coordinates", "spatial", "--between-radius", "1"]);
}

#[test]
fn domains_without_a_number_are_refused() {
    let folder = folder();
    let folder = folder.path();
    let arguments = ["spatial", "--quiet", "--device", "cpu", "--data", "slice.h5ad"];
    fails(folder, 2, &["how many domains", "--leiden"], arguments);
}

#[test]
fn what_is_odd_about_a_slice_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Two pieces of tissue, and a spot by itself.
    slice(folder, "pieces.h5ad", 5, |at| match at {
        0 => [900.0, 900.0],
        _ => [grid(at)[0], grid(at)[1] + if at < 70 { 0.0 } else { 50.0 }],
    });
    let arguments = ["--data", "pieces.h5ad", "--radius", "1", "--genes", "9000", "--umap", "false"];
    let output = run(folder, SPATIAL.into_iter().chain(arguments).chain(["--epochs", "2"]));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for words in
        ["1 spots have no neighbour", "falls into 3 parts", "9000 genes were asked for", "on average"]
    {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
}
