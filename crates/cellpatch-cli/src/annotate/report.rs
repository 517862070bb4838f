//! The page and the figures of an annotation.

use cellpatch_analysis::metrics::{Calibration, Temperature, UnknownThreshold};
use cellpatch_analysis::{
    AnnotationMap, AnnotationReport, AttendedGenes, CalibrationFacts, Cells, ClassCells,
    ConfigurationSection, CurvePoint, Fact, GeneScore, Heatmap, MappedCell, NextStep, ReliabilityDiagram,
    ReliabilityPanel, RunFile, Scatter, ScatterPoint, ScoredMethod, SplitPart, TrainingCurves, Umap,
    UmapOptions, Warning,
};
use cellpatch_data::{GeneToken, GeneVocabulary, PartitionReport};
use cellpatch_model::{Annotator, ModelBackend};
use cellpatch_train::{
    AnnotationCard, AnnotationData, AttentionByClass, MetricRecord, RunDirectory, patch_features,
    read_metrics,
};

use super::options::TrainOptions;
use super::scores::{self, MethodScores};
use super::train::{Repeat, describe_start};
use crate::attention::{self, TOP_GENES};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// At most this many test cells are mapped, and read for their attention.
const CELLS_MAPPED: usize = 3_000;

/// Fewer training cells than this are few.
const FEW_CELLS: u64 = 20;

/// What a reader must know before believing the scores.
pub(super) fn warnings(report: &PartitionReport, data: &AnnotationData) -> Vec<String> {
    let mut warnings = Vec::new();
    if !report.rare.is_empty() {
        warnings.push(format!(
            "classes with one or two cells, which are only trained on: {}",
            report.rare.join(", ")
        ));
    }
    if !data.unseen_classes().is_empty() {
        let names = data.unseen_classes().join(", ");
        warnings.push(format!("classes without training cells, whose cells all count as errors: {names}"));
    }
    if report.n_unlabelled > 0 {
        warnings.push(format!("{} cells without a label were left out", report.n_unlabelled));
    }
    if report.n_left_out > 0 {
        warnings.push(format!("{} labelled cells are in no part", report.n_left_out));
    }
    warnings
}

/// Writes `report.html`, `confusion.csv`, `attention.csv` and the figures into the run.
#[expect(clippy::too_many_arguments, reason = "a report is about everything there is")]
pub(super) fn write<B: ModelBackend>(
    terminal: &Terminal,
    options: &TrainOptions,
    best: &Repeat<B>,
    model: &Annotator<B>,
    card: &AnnotationCard,
    methods: &[MethodScores],
    run: &RunDirectory,
    device: &B::Device,
) -> Result<(), Failure> {
    terminal.note("drawing the report");
    let data = &best.data;
    let vocabulary = data.shards().vocabulary()?;
    let partition = data.partition().report(&labels_of(data))?;
    let cell_map = cell_map(best, model, card, device)?;
    let attention = attention_of(data, model, device)?;
    let heatmap = attention::heatmap(&attention, &card.classes, &vocabulary);
    let calibration = calibration(best, card)?;
    let folder = run.path().join("figures");
    std::fs::create_dir_all(&folder).map_err(|error| cellpatch_data::Error::io("create", &folder, error))?;
    let figure = |name: &str, svg: String| run.write(&folder.join(name), svg.as_bytes());
    if let Some(heatmap) = &heatmap {
        figure("attention.svg", heatmap.to_svg())?;
    }
    if let Some(confusion) = &best.confusion {
        figure(
            "confusion.svg",
            Heatmap::of_confusion("Test cells by true and predicted class", confusion).to_svg(),
        )?;
        run.write(&run.path().join("confusion.csv"), scores::confusion_csv(confusion).as_bytes())?;
    }
    if let Some(map) = &cell_map {
        for (name, colour) in [("umap_truth.svg", 0), ("umap_prediction.svg", 1), ("umap_agreement.svg", 2)] {
            figure(name, scatter(map, colour).to_svg())?;
        }
    }
    if let Some(facts) = &calibration {
        figure("reliability.svg", reliability(facts).to_svg())?;
    }
    let table = attention::csv(&attention, &card.classes, &vocabulary);
    run.write(&run.path().join("attention.csv"), table.as_bytes())?;
    let report = AnnotationReport {
        title: format!("CellPatch annotation: {}", run.path().display()),
        command_line: std::iter::once("cellpatch".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        summary: vec![
            Fact::new("Time", format!("{:.0} s", best.outcome.seconds)),
            Fact::new("Epochs", best.outcome.epochs),
            Fact::new("Best epoch", card.epoch),
            Fact::new("Start", describe_start(options)),
        ],
        warnings: page_warnings(&partition, best),
        model: scored(methods.iter().find(|method| method.name == "CellPatch"))?,
        baselines: methods
            .iter()
            .filter(|method| method.name != "CellPatch")
            .filter_map(|method| scored(Some(method)).transpose())
            .collect::<Result<_, _>>()?,
        confusion: best.confusion.clone(),
        cell_map,
        calibration,
        attended_genes: attended_genes(&attention, card, &vocabulary),
        attention: heatmap,
        training: curves(&best.run, card)?,
        split: best.split.clone(),
        split_parts: split_parts(&partition, data),
        class_cells: partition
            .classes
            .iter()
            .map(|class| ClassCells {
                class: class.name.clone(),
                n_training: class.train as u64,
                n_validation: class.validation as u64,
                n_test: class.test as u64,
            })
            .collect(),
        configuration: configuration(best),
        files: files(),
        next_steps: next_steps(run),
    };
    run.write(&run.report(), report.render().as_bytes())?;
    Ok(())
}

/// The labels of the rows that are for something, as the partition knows them.
fn labels_of(data: &AnnotationData) -> cellpatch_data::Labels {
    let categories = data.classes().iter().chain(data.unseen_classes()).cloned().collect();
    cellpatch_data::Labels { categories, codes: data.class_of_row().to_vec() }
}

fn scored(method: Option<&MethodScores>) -> Result<Option<ScoredMethod>, Failure> {
    let Some(method) = method else { return Ok(None) };
    let (accuracy, macro_f1) = method.intervals()?;
    Ok(Some(ScoredMethod { name: method.name.clone(), accuracy, macro_f1, note: method.note.clone() }))
}

fn page_warnings<B: ModelBackend>(partition: &PartitionReport, best: &Repeat<B>) -> Vec<Warning> {
    let few = partition.classes.iter().filter(|class| (1..FEW_CELLS as usize).contains(&class.train));
    let names: Vec<String> = few.map(|class| class.name.clone()).collect();
    let mut warnings = Vec::new();
    if !names.is_empty() {
        warnings.push(Warning::RareClasses { names, fewest: FEW_CELLS });
    }
    let unseen = best.data.unseen_classes();
    if !unseen.is_empty() {
        let is_unseen = |name: &String| unseen.contains(name);
        let n_cells = partition.classes.iter().filter(|class| is_unseen(&class.name)).map(|class| class.test);
        warnings
            .push(Warning::UnseenClasses { names: unseen.to_vec(), n_cells: n_cells.sum::<usize>() as u64 });
    }
    let n_rows = best.data.class_of_row().len();
    let n_missing = n_rows - best.data.class_of_row().iter().flatten().count();
    if n_missing > 0 {
        warnings.push(Warning::MissingLabels { n_cells: n_missing as u64 });
    }
    warnings
}

/// The test cells, or the validation cells where there are none, by UMAP of their patches.
fn cell_map<B: ModelBackend>(
    best: &Repeat<B>,
    model: &Annotator<B>,
    card: &AnnotationCard,
    device: &B::Device,
) -> Result<Option<AnnotationMap>, Failure> {
    let data = &best.data;
    let (cells, which) = match data.test() {
        Some(test) => (test, "test"),
        None => (data.validation(), "validation"),
    };
    let features = patch_features(model.encoder(), cells, CELLS_MAPPED, device)?;
    let n_cells = features.rows.len();
    if n_cells < 10 {
        return Ok(None);
    }
    let logits = match data.test() {
        Some(_) => best.logits.clone(),
        None => cellpatch_train::annotation::CellLogits::of_loader(model, cells, device)?,
    };
    let n_neighbors = UmapOptions::default().n_neighbors.min(n_cells - 1);
    let options = UmapOptions { n_neighbors, ..UmapOptions::default() };
    let umap = Umap::fit(Cells::new(&features.values, n_cells, features.n_features)?, &options)?;
    let name = |class: usize| {
        let classes = data.classes().iter().chain(data.unseen_classes());
        classes.clone().nth(class).cloned()
    };
    let cells = (umap.coordinates().iter().zip(&features.rows)).zip(logits.classes());
    Ok(Some(AnnotationMap {
        caption: format!(
            "UMAP of the {which} cells' patches ({n_neighbors} neighbours). Neighbourhoods mean something here, distances \
             between groups do not."
        ),
        x_name: "UMAP 1".into(),
        y_name: "UMAP 2".into(),
        cells: cells
            .map(|(([x, y], &row), predicted)| MappedCell {
                x: (*x).into(),
                y: (*y).into(),
                truth: name(data.class_of(row)),
                predicted: card.classes.get(predicted).cloned(),
            })
            .collect(),
    }))
}

/// A map as a figure of its own: coloured by truth (0), prediction (1) or agreement (2).
fn scatter(map: &AnnotationMap, colour: usize) -> Scatter {
    let label = |cell: &MappedCell| match colour {
        0 => cell.truth.clone(),
        1 => cell.predicted.clone(),
        _ => Some(if cell.truth == cell.predicted { "agrees" } else { "differs" }.to_owned()),
    };
    Scatter {
        title: ["True cell type", "Predicted cell type", "Agreement"][colour.min(2)].into(),
        x_name: map.x_name.clone(),
        y_name: map.y_name.clone(),
        label_name: ["cell type", "predicted", "prediction"][colour.min(2)].into(),
        point_name: "cells".into(),
        points: map
            .cells
            .iter()
            .map(|cell| ScatterPoint { x: cell.x, y: cell.y, label: label(cell) })
            .collect(),
        ..Scatter::default()
    }
}

fn reliability(facts: &CalibrationFacts) -> ReliabilityDiagram {
    let pairs = [("as trained", Some(&facts.before)), ("with the temperature", facts.after.as_ref())];
    let panel = |(name, calibration): (&str, Option<&Calibration>)| {
        Some(ReliabilityPanel { name: name.into(), calibration: calibration?.clone() })
    };
    ReliabilityDiagram {
        title: "How often test cells of each confidence are labelled correctly".into(),
        panels: pairs.into_iter().filter_map(panel).collect(),
    }
}

/// Confidences on the test cells.
fn calibration<B: ModelBackend>(
    best: &Repeat<B>,
    card: &AnnotationCard,
) -> Result<Option<CalibrationFacts>, Failure> {
    let (Some(confidence), Some(_)) = (card.confidence, best.data.test()) else { return Ok(None) };
    let n_classes = card.classes.len();
    let truth: Vec<usize> = best.logits.rows.iter().map(|&row| best.data.class_of(row)).collect();
    let temperature = Temperature { value: confidence.temperature, loss_before: 0.0, loss_after: 0.0 };
    let measure = |temperature: &Temperature| -> (Vec<f64>, Vec<bool>) {
        let cells = best.logits.values.chunks_exact(n_classes).zip(&truth);
        cells
            .map(|(logits, &truth)| {
                let probabilities = temperature.probabilities(logits);
                let best = (0..n_classes).fold(0, |best, class| {
                    if probabilities[class] > probabilities[best] { class } else { best }
                });
                (probabilities[best], best == truth)
            })
            .unzip()
    };
    let (before, correct) = measure(&Temperature { value: 1.0, ..temperature });
    let (after, _) = measure(&temperature);
    let is_kept = |confidence: &&f64| **confidence >= confidence_threshold(card);
    let kept = after.iter().zip(&correct).filter(|(confidence, _)| is_kept(confidence));
    let (n_kept, n_right) =
        kept.fold((0, 0), |(n, right), (_, &correct)| (n + 1, right + u64::from(correct)));
    let n_errors = correct.iter().filter(|correct| !**correct).count() as f64;
    let kept_errors = (n_kept - n_right) as f64;
    Ok(Some(CalibrationFacts {
        before: Calibration::new(&before, &correct)?,
        after: Some(Calibration::new(&after, &correct)?),
        temperature: Some(temperature),
        threshold: Some(UnknownThreshold {
            confidence: confidence.unknown_threshold,
            coverage: n_kept as f64 / correct.len().max(1) as f64,
            kept_accuracy: if n_kept == 0 { 0.0 } else { n_right as f64 / n_kept as f64 },
            rejected_errors: if n_errors == 0.0 { 0.0 } else { 1.0 - kept_errors / n_errors },
        }),
    }))
}

fn confidence_threshold(card: &AnnotationCard) -> f64 {
    card.confidence.map_or(0.0, |confidence| confidence.unknown_threshold)
}

/// What the patches attend in test cells (else validation cells) of each class.
fn attention_of<B: ModelBackend>(
    data: &AnnotationData,
    model: &Annotator<B>,
    device: &B::Device,
) -> Result<AttentionByClass, Failure> {
    let mut attention = AttentionByClass::new(data.classes().len());
    let mut n_cells = 0;
    for batch in data.test().unwrap_or(data.validation()).expressions(0, 0) {
        let batch = batch?;
        let known = |&row: &u64| {
            Some(data.class_of(row) as u32).filter(|&class| (class as usize) < data.classes().len())
        };
        let classes: Vec<Option<u32>> = batch.rows.iter().map(known).collect();
        attention.add(model.encoder(), &batch, &classes, device)?;
        n_cells += batch.n_cells();
        if n_cells >= CELLS_MAPPED {
            break;
        }
    }
    Ok(attention)
}

fn attended_genes(
    attention: &AttentionByClass,
    card: &AnnotationCard,
    vocabulary: &GeneVocabulary,
) -> Vec<AttendedGenes> {
    let name =
        |gene: u32| vocabulary.gene(GeneToken(gene)).map_or(String::new(), |gene| gene.name().to_owned());
    let of_class = |(class, name_of_class): (u32, &String)| AttendedGenes {
        class: name_of_class.clone(),
        genes: (attention.top(class, TOP_GENES).into_iter())
            .map(|(gene, score)| GeneScore { gene: name(gene), score })
            .collect(),
    };
    (0..).zip(&card.classes).map(of_class).filter(|class| !class.genes.is_empty()).collect()
}

fn curves(run: &RunDirectory, card: &AnnotationCard) -> Result<TrainingCurves, Failure> {
    let mut curves = TrainingCurves { best_step: None, ..TrainingCurves::default() };
    for record in read_metrics(&run.metrics())? {
        match record {
            MetricRecord::Step(step) => {
                curves.training_loss.push(CurvePoint { step: step.step, loss: step.loss });
            }
            MetricRecord::Epoch(epoch) => {
                let point = |loss| CurvePoint { step: epoch.step, loss };
                curves.validation_loss.extend(epoch.validation_loss.map(point));
                if let Some(scores) = epoch.validation_scores {
                    curves.validation_macro_f1.push((epoch.step, scores.macro_f1));
                }
                if epoch.epoch == card.epoch {
                    curves.best_step = Some(epoch.step);
                }
            }
        }
    }
    Ok(curves)
}

fn split_parts(partition: &PartitionReport, data: &AnnotationData) -> Vec<SplitPart> {
    let sources: Vec<&str> =
        data.shards().manifest().sources.iter().map(|source| source.name.as_str()).collect();
    let part = |name: &str, n_cells: usize, count: fn(&cellpatch_data::ClassCounts) -> usize| SplitPart {
        name: name.into(),
        n_cells: n_cells as u64,
        n_classes: partition.classes.iter().filter(|class| count(class) > 0).count() as u64,
        source: sources.join(", "),
    };
    vec![
        part("training", partition.total.train, |class| class.train),
        part("validation", partition.total.validation, |class| class.validation),
        part("test", partition.total.test, |class| class.test),
    ]
}

fn configuration<B: ModelBackend>(best: &Repeat<B>) -> Vec<ConfigurationSection> {
    let config = &best.config;
    let section = |name: &str, fields: Vec<Fact>| ConfigurationSection { name: name.into(), fields };
    vec![
        section(
            "Model",
            vec![
                Fact::new("Head", format!("{:?}", config.model.head)),
                Fact::new("Head's layers", format!("{:?}", config.model.hidden)),
                Fact::new("Head's dropout", config.model.dropout),
                Fact::new("Encoder", if config.freeze_encoder { "frozen" } else { "finetuned" }),
                Fact::new("Patch tokens", config.model.model.n_patches),
                Fact::new("Embedding width", config.model.model.embedding_dim),
            ],
        ),
        section(
            "Training",
            vec![
                Fact::new("Epochs asked for", config.epochs),
                Fact::new("Cells a step", config.batch_size),
                Fact::new("Learning rate", config.learning_rate),
                Fact::new(
                    "Schedule",
                    format!("{:?}, {} warm-up steps", config.schedule, config.warmup_steps),
                ),
                Fact::new("L2", config.weight_decay),
                Fact::new(
                    "Clipping",
                    config.clip_norm.map_or("none".to_owned(), |norm| format!("norm {norm}")),
                ),
                Fact::new(
                    "Genes of each class",
                    config.genes_per_class.map_or("all".to_owned(), |n| n.to_string()),
                ),
                Fact::new("Genes left out", format!("{:.0} %", 100.0 * config.gene_dropout)),
                Fact::new("Class weights", format!("{:?}", config.class_weights)),
                Fact::new("Label smoothing", config.label_smoothing),
                Fact::new("Most genes a cell", config.max_input),
                Fact::new("Seed", config.seed),
            ],
        ),
    ]
}

fn files() -> Vec<RunFile> {
    let file = |path: &str, content: &str| RunFile { path: path.into(), content: content.into() };
    vec![
        file("model.safetensors", "weights of the best epoch, under the released checkpoints' names"),
        file("model.json", "what the weights are: classes, configuration, temperature, threshold"),
        file("vocabulary.parquet", "the gene of every token"),
        file("split.tsv", "which cell was for what, for --split-file"),
        file("confusion.csv", "test cells by true and predicted class"),
        file("attention.csv", "attention to every gene in every class"),
        file("figures/", "the figures of this page as SVG"),
        file("metrics.jsonl", "one object a step and epoch"),
        file("config.toml", "every setting, for --config"),
        file("summary.json", "the numbers on this page"),
    ]
}

fn next_steps(run: &RunDirectory) -> Vec<NextStep> {
    let run = run.path().display();
    let step = |purpose: &str, command: String| NextStep { purpose: purpose.into(), command };
    vec![
        step(
            "Label another file",
            format!("cargo xtask annotate predict --model {run} --data FILE.h5ad --out LABELLED.h5ad"),
        ),
        step(
            "Embed its cells",
            format!("cargo xtask embed --model {run} --data FILE.h5ad --out EMBEDDED.h5ad"),
        ),
        step(
            "Repeat it over seeds",
            format!("cargo xtask annotate train --config {run}/config.toml --repeats 10"),
        ),
    ]
}
