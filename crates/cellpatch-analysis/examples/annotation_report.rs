//! Writes the report of an annotation that never was, to look at while changing how reports look:
//! `cargo run --release -p cellpatch-analysis --example annotation_report -- report.html`

use std::path::Path;

use cellpatch_analysis::metrics::{
    Calibration, ConfusionMatrix, KEPT_SHARE, MeanInterval, Temperature, UnknownThreshold,
};
use cellpatch_analysis::{
    AnnotationMap, AnnotationReport, AttendedGenes, CalibrationFacts, Cells, ClassCells,
    ConfigurationSection, CurvePoint, Fact, GeneScore, Heatmap, HeatmapCell, HeatmapRow, MappedCell,
    NextStep, Result, RunFile, ScoredMethod, SplitPart, TrainingCurves, Umap, UmapOptions, Warning,
};

/// Labels, their cells, and what they are alike to.
const CLASSES: [(&str, usize, usize); 11] = [
    ("CD4-positive, alpha-beta T cell", 420, 2),
    ("classical monocyte", 310, 5),
    ("CD8-positive, alpha-beta memory T cell", 230, 0),
    ("B cell", 180, 8),
    ("natural killer cell", 150, 2),
    ("non-classical monocyte", 80, 1),
    ("plasmacytoid dendritic cell", 40, 7),
    ("conventional dendritic cell", 34, 1),
    ("plasma cell", 22, 3),
    ("<script>alert('platelet')</script>", 16, 9),
    ("hematopoietic stem cell", 6, 10),
];
const N_FEATURES: usize = 24;
const GENES: [&str; 14] = [
    "CD3D", "IL7R", "LYZ", "S100A8", "CD8A", "GZMK", "MS4A1", "CD79A", "NKG7", "GNLY", "FCGR3A", "LILRA4",
    "FCER1A", "PPBP",
];

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "annotation.html".to_owned());
    report(&mut Noise(11))?.write(Path::new(&path))
}

/// Random numbers, of no particular quality.
struct Noise(u64);

impl Noise {
    /// Evenly in 0..1.
    fn even(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Around 0 with variance 1, near enough to normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }
}

/// Cells around a centre for each class, and what a model that is too sure of itself makes of them.
struct MadeUp {
    features: Vec<f32>,
    logits: Vec<f32>,
    truth: Vec<usize>,
}

impl MadeUp {
    fn new(noise: &mut Noise) -> Self {
        let mut centres: Vec<Vec<f64>> =
            CLASSES.iter().map(|_| (0..N_FEATURES).map(|_| 1.1 * noise.normal()).collect()).collect();
        for (class, (_, _, alike)) in CLASSES.iter().enumerate() {
            let other = centres[*alike].clone();
            centres[class].iter_mut().zip(other).for_each(|(x, y)| *x = 0.45 * *x + 0.55 * y);
        }
        let (mut features, mut logits, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        for (class, (_, n_cells, _)) in CLASSES.iter().enumerate() {
            for _ in 0..*n_cells {
                let cell: Vec<f64> = centres[class].iter().map(|x| x + 0.75 * noise.normal()).collect();
                let distance =
                    |centre: &Vec<f64>| centre.iter().zip(&cell).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
                logits.extend(centres.iter().map(|c| (-1.1 * distance(c) + 2.4 * noise.normal()) as f32));
                features.extend(cell.into_iter().map(|x| x as f32));
                truth.push(class);
            }
        }
        Self { features, logits, truth }
    }

    /// The most probable class of each cell with its probability.
    fn predictions(&self, temperature: &Temperature) -> Vec<(usize, f64)> {
        let largest = |logits| {
            let probabilities = temperature.probabilities(logits).into_iter().enumerate();
            probabilities.fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best })
        };
        self.logits.chunks(CLASSES.len()).map(largest).collect()
    }

    fn calibration(&self, temperature: &Temperature) -> Result<Calibration> {
        let (confidences, correct) = self.confidences(temperature);
        Calibration::new(&confidences, &correct)
    }

    fn confidences(&self, temperature: &Temperature) -> (Vec<f64>, Vec<bool>) {
        let predictions = self.predictions(temperature).into_iter().zip(&self.truth);
        predictions.map(|((class, confidence), truth)| (confidence, class == *truth)).unzip()
    }
}

fn report(noise: &mut Noise) -> Result<AnnotationReport> {
    let (validation, test) = (MadeUp::new(&mut Noise(11)), MadeUp::new(noise));
    let temperature = Temperature::fit(&validation.logits, CLASSES.len(), &validation.truth)?;
    let as_trained = Temperature { value: 1.0, ..temperature };
    let (confidences, correct) = validation.confidences(&temperature);
    let threshold = UnknownThreshold::choose(&confidences, &correct, KEPT_SHARE)?;
    let predicted: Vec<usize> = test.predictions(&temperature).into_iter().map(|(class, _)| class).collect();
    let names = CLASSES.map(|(name, ..)| name.to_owned());
    let matrix = ConfusionMatrix::new(&names, &test.truth, &predicted)?;
    let model = ScoredMethod {
        name: "CellPatch, fine-tuned".into(),
        accuracy: MeanInterval::of(&[0.006, -0.004, 0.001].map(|x| matrix.accuracy() + x))?,
        macro_f1: MeanInterval::of(&[-0.008, 0.011, 0.002].map(|x| matrix.macro_f1() + x))?,
        note: "best of 30 epochs on the validation cells, 3 seeds".into(),
    };
    let baseline = |name: &str, accuracy: f64, macro_f1: f64, note: &str| ScoredMethod {
        name: name.into(),
        accuracy: MeanInterval::single(accuracy),
        macro_f1: MeanInterval::single(macro_f1),
        note: note.into(),
    };
    Ok(AnnotationReport {
        title: "CellPatch annotation: pbmc-demo".into(),
        command_line: "cellpatch annotate --data blood.h5ad --label cell_type --split-by donor_id".into(),
        summary: vec![Fact::new("device", "cpu"), Fact::new("time", "6 min 40 s")],
        warnings: vec![
            Warning::RareClasses { names: names[9..].to_vec(), fewest: 50 },
            Warning::UnseenClasses { names: vec!["mast cell".into()], n_cells: 4 },
            Warning::MissingLabels { n_cells: 1_213 },
        ],
        baselines: vec![
            baseline("L1 logistic regression", 0.861, 0.744, "C = 1, chosen on the validation cells"),
            baseline("15 nearest neighbours", 0.815, 0.603, "Euclidean, 50 principal components"),
        ],
        model: Some(model),
        cell_map: Some(cell_map(&test, &predicted)?),
        confusion: Some(matrix),
        calibration: Some(CalibrationFacts {
            before: test.calibration(&as_trained)?,
            after: Some(test.calibration(&temperature)?),
            temperature: Some(temperature),
            threshold: Some(threshold),
        }),
        attended_genes: attended_genes(noise),
        attention: Some(attention(noise)),
        training: training(noise),
        split: "by donor_id: no donor is in two parts".into(),
        split_parts: split_parts(),
        class_cells: class_cells(),
        configuration: configuration(),
        files: [
            ("model.safetensors", "the weights of the best epoch"),
            ("predictions.csv", "label and confidence of each cell"),
        ]
        .map(|(path, content)| RunFile { path: path.into(), content: content.into() })
        .to_vec(),
        next_steps: vec![NextStep {
            purpose: "Label cells of another file:".into(),
            command: "cellpatch predict runs/pbmc-demo --data lung.h5ad".into(),
        }],
    })
}

fn cell_map(test: &MadeUp, predicted: &[usize]) -> Result<AnnotationMap> {
    let cells = Cells::new(&test.features, test.truth.len(), N_FEATURES)?;
    let umap = Umap::fit(cells, &UmapOptions::default())?;
    let name = |class: usize| Some(CLASSES[class].0.to_owned());
    let mapped = umap.coordinates().iter().zip(test.truth.iter().zip(predicted));
    Ok(AnnotationMap {
        caption: "UMAP of the test cells' embeddings (15 neighbours, least distance 0.1). Only neighbourhoods mean \
                  something here, not distances between groups."
            .into(),
        x_name: "UMAP 1".into(),
        y_name: "UMAP 2".into(),
        cells: mapped
            .map(|([x, y], (truth, predicted))| MappedCell {
                x: (*x).into(),
                y: (*y).into(),
                truth: name(*truth),
                predicted: name(*predicted),
            })
            .collect(),
    })
}

fn attended_genes(noise: &mut Noise) -> Vec<AttendedGenes> {
    let genes = |noise: &mut Noise, class: usize| {
        let gene = |at: usize| GENES[(class * 2 + at) % GENES.len()].to_owned();
        (0..7)
            .map(|at| GeneScore { gene: gene(at), score: 0.09 / (at + 1) as f64 + 0.003 * noise.even() })
            .collect()
    };
    CLASSES
        .iter()
        .enumerate()
        .map(|(class, (name, ..))| AttendedGenes { class: (*name).into(), genes: genes(noise, class) })
        .collect()
}

fn attention(noise: &mut Noise) -> Heatmap {
    let row = |(at, gene): (usize, &&str)| HeatmapRow {
        name: (*gene).into(),
        cells: (0..CLASSES.len())
            .map(|class| {
                let is_marker = (class * 2) % GENES.len() == at || (class * 2 + 1) % GENES.len() == at;
                let value = 0.01 * noise.even() + if is_marker { 0.06 + 0.03 * noise.even() } else { 0.0 };
                HeatmapCell { value, text: String::new() }
            })
            .collect(),
    };
    Heatmap {
        title: "Mean attention to genes by class".into(),
        x_name: "class".into(),
        y_name: "gene".into(),
        value_name: "mean attention".into(),
        columns: CLASSES.map(|(name, ..)| name.to_owned()).to_vec(),
        rows: GENES.iter().enumerate().map(row).collect(),
        limits: None,
    }
}

fn training(noise: &mut Noise) -> TrainingCurves {
    let (n_epochs, steps_per_epoch) = (30, 44_u64);
    let level = |step: u64| 0.12 + 2.1 * (-(step as f64) / 150.0).exp();
    let mut curves = TrainingCurves { best_step: Some(22 * steps_per_epoch), ..TrainingCurves::default() };
    for step in 1..=n_epochs * steps_per_epoch {
        let loss = level(step) * (1.0 + 0.15 * noise.normal());
        curves.training_loss.push(CurvePoint { step, loss });
        if step % steps_per_epoch == 0 {
            let late = (step as f64 / 1_300.0).powi(3);
            let loss = level(step) * 1.1 + 0.05 + 0.08 * late;
            curves.validation_loss.push(CurvePoint { step, loss });
            curves
                .validation_macro_f1
                .push((step, 0.83 - 0.5 * level(step).min(1.2) + 0.005 * noise.normal()));
        }
    }
    curves
}

fn split_parts() -> Vec<SplitPart> {
    let part = |name: &str, n_cells, n_classes, source: &str| SplitPart {
        name: name.into(),
        n_cells,
        n_classes,
        source: source.into(),
    };
    vec![
        part("training", 11_204, 11, "donors D1, D2, D4 and D6"),
        part("validation", 1_488, 11, "donor D3"),
        part("test", 1_488, 12, "donor D5"),
    ]
}

fn class_cells() -> Vec<ClassCells> {
    CLASSES
        .map(|(name, n_cells, _)| ClassCells {
            class: name.into(),
            n_training: 7 * n_cells as u64,
            n_validation: n_cells as u64,
            n_test: n_cells as u64,
        })
        .to_vec()
}

fn configuration() -> Vec<ConfigurationSection> {
    let section = |name: &str, fields: &[(&str, &str)]| ConfigurationSection {
        name: name.into(),
        fields: fields.iter().map(|(name, value)| Fact::new(*name, value)).collect(),
    };
    vec![
        section("model", &[("preset", "paper"), ("d", "32"), ("pretrained", "runs/pbmc-pretrain")]),
        section("optimizer", &[("learning_rate", "1e-4"), ("weight_decay", "5e-5"), ("batch_size", "64")]),
    ]
}
