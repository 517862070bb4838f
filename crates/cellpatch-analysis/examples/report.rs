//! Writes the report of a run that never was, to look at while changing how reports look:
//! `cargo run --release -p cellpatch-analysis --example report -- report.html`

use std::path::Path;

use cellpatch_analysis::{
    CellMap, ConfigurationSection, CurvePoint, DataFacts, DropOut, Fact, NextStep, Pca, PretrainingReport,
    Result, RunFile, Source, Validation,
};

/// Labels with their share of the cells; the last is not one a sane person would write.
const CELL_TYPES: [(&str, f64); 9] = [
    ("CD4-positive, alpha-beta T cell", 0.28),
    ("classical monocyte", 0.2),
    ("CD8-positive, alpha-beta memory T cell", 0.15),
    ("B cell", 0.12),
    ("natural killer cell", 0.1),
    ("", 0.05),
    ("non-classical monocyte", 0.05),
    ("plasmacytoid dendritic cell", 0.03),
    ("<script>alert('platelet')</script>", 0.02),
];

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "report.html".to_owned());
    report(&mut Noise(7))?.write(Path::new(&path))
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

fn report(noise: &mut Noise) -> Result<PretrainingReport> {
    let (n_epochs, steps_per_epoch) = (12, 190);
    let level =
        |step: u64| 0.41 + 0.9 * (-(step as f64) / 90.0).exp() + 0.13 * (-(step as f64) / 900.0).exp();
    let training_loss = (1..=n_epochs * steps_per_epoch)
        .map(|step| CurvePoint { step, loss: level(step) * (1.0 + 0.06 * noise.normal()) })
        .collect();
    let validation_loss: Vec<_> = (1..=n_epochs)
        .map(|epoch| epoch * steps_per_epoch)
        .map(|step| CurvePoint { step, loss: level(step) * 0.985 + 0.003 * noise.normal() })
        .collect();
    Ok(PretrainingReport {
        title: "CellPatch pretraining: pbmc-demo".into(),
        command_line: "cellpatch pretrain --data blood.h5ad --data lung.h5ad --preset paper --epochs 12"
            .into(),
        summary: vec![
            Fact::new("device", "cpu"),
            Fact::new("cells per second", "412"),
            Fact::new("epochs", 12),
            Fact::new("optimizer steps", "2,280"),
            Fact::new("time", "4 min 12 s"),
        ],
        data: data(noise),
        configuration: configuration(),
        validation: validation_loss.last().map(|last| Validation {
            n_cells: 1_024,
            loss: last.loss,
            gene_mean_loss: 0.655,
        }),
        training_loss,
        validation_loss,
        cell_map: Some(cell_map(noise, 1_024)?),
        files: [
            ("model.safetensors", "the weights, under the names of the released model"),
            ("model.json", "what shape of model they belong to"),
            ("vocabulary.parquet", "which gene has which token"),
            ("config.toml", "the resolved configuration: pass it to --config to repeat the run"),
            ("metrics.jsonl", "one line a step and one an epoch"),
            ("checkpoints/", "where the run can be resumed"),
            ("summary.json", "the numbers of this page, for programs"),
        ]
        .map(|(path, content)| RunFile { path: path.into(), content: content.into() })
        .to_vec(),
        next_steps: [
            (
                "Train for longer, from where this run ended:",
                "cellpatch pretrain --resume runs/pbmc-demo --epochs 50",
            ),
            ("Look at the run and its checkpoints:", "cellpatch inspect runs/pbmc-demo"),
        ]
        .map(|(purpose, command)| NextStep { purpose: purpose.into(), command: command.into() })
        .to_vec(),
    })
}

fn data(noise: &mut Noise) -> DataFacts {
    let sources = [
        ("blood.h5ad", 9_412, 9_120, 33_178, 32_880, 298),
        ("lung_atlas_10x_2021.h5ad", 6_008, 5_310, 27_998, 26_204, 0),
        ("kidney.h5ad", 810, 809, 60_664, 60_664, 0),
    ];
    let sources = sources.map(|(name, n_cells, n_cells_kept, n_genes, n_genes_matched, n_genes_new)| {
        Source { name: name.into(), n_cells, n_cells_kept, n_genes, n_genes_matched, n_genes_new }
    });
    DataFacts {
        n_cells_training: 14_215,
        n_cells_validation: 1_024,
        split: "at random".into(),
        n_genes: 58_604,
        vocabulary_size: 60_962,
        sources: sources.to_vec(),
        drop_outs: vec![
            DropOut { rule: "cells with fewer than 200 genes".into(), n_dropped: 991, n_total: 16_230 },
            DropOut { rule: "genes seen in fewer than 3 cells".into(), n_dropped: 11_302, n_total: 58_604 },
        ],
        genes_per_cell: (0..15_239).map(|_| (7.2 + 0.45 * noise.normal()).exp() as u32 + 200).collect(),
    }
}

fn configuration() -> Vec<ConfigurationSection> {
    let section = |name: &str, fields: &[(&str, &str)]| ConfigurationSection {
        name: name.into(),
        fields: fields.iter().map(|(name, value)| Fact::new(*name, value)).collect(),
    };
    vec![
        section(
            "model",
            &[
                ("preset", "paper"),
                ("d", "32"),
                ("patch_tokens", "64"),
                ("heads", "2"),
                ("capacity", "70000"),
                ("expression", "continuous"),
                ("dropout", "0.1"),
            ],
        ),
        section(
            "optimizer",
            &[
                ("learning_rate", "1e-4"),
                ("weight_decay", "5e-5"),
                ("batch_size", "64"),
                ("warmup_steps", "100"),
                ("schedule", "cosine"),
            ],
        ),
        section(
            "masking",
            &[
                ("share_of_nonzero", "0.3"),
                ("zeros_per_nonzero", "0.5"),
                ("most_inputs", "3000"),
                ("most_targets", "1000"),
            ],
        ),
        section("run", &[("seed", "42"), ("epochs", "12"), ("device", "cpu")]),
    ]
}

/// Cells of each type around a centre of its own in 32 dimensions.
fn cell_map(noise: &mut Noise, n_cells: usize) -> Result<CellMap> {
    const N_FEATURES: usize = 32;
    let centres: Vec<Vec<f64>> =
        CELL_TYPES.iter().map(|_| (0..N_FEATURES).map(|_| 1.1 * noise.normal()).collect()).collect();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n_cells {
        let mut left = noise.even();
        let kind = CELL_TYPES.iter().position(|(_, share)| {
            left -= share;
            left <= 0.0
        });
        let kind = kind.unwrap_or(0);
        values.extend(centres[kind].iter().map(|centre| (centre + 0.8 * noise.normal()) as f32));
        labels.push(Some(CELL_TYPES[kind].0.to_owned()));
    }
    Ok(CellMap::from_pca(&Pca::fit(&values, n_cells, N_FEATURES, 2)?, "cell_type", &labels))
}
