//! What trainings led to, by slice and method.

use std::fmt::Write as _;
use std::path::Path;

use cellpatch_analysis::metrics::{MeanInterval, PairedComparison};
use cellpatch_analysis::{MethodComparison, SpatialScores};
use serde_json::{Value, json};

use super::job::{Job, Unit};
use super::method::Method;
use crate::failure::Failure;

/// All trainings of a job.
pub(super) struct Results {
    pub units: Vec<Unit>,
    /// Scores by slice and method, in the order they were run.
    pub scores: Vec<SpatialScores>,
    pub comparison: Option<MethodComparison>,
}

impl Results {
    pub(super) fn new(job: &Job<'_>, units: Vec<Unit>) -> Result<Self, Failure> {
        let mut scores = Vec::new();
        for (slice, method) in groups(job) {
            let of = |value: &dyn Fn(&Unit) -> f64| {
                MeanInterval::of(&units_of(&units, slice, method).map(value).collect::<Vec<_>>())
            };
            let agreement = |value: &dyn Fn(&Unit) -> Option<f64>| {
                let values: Option<Vec<f64>> = units_of(&units, slice, method).map(value).collect();
                values.map(|values| MeanInterval::of(&values)).transpose()
            };
            scores.push(SpatialScores {
                slice: job.slices[slice].name.clone(),
                method: method.name().into(),
                ari: agreement(&ari)?,
                nmi: agreement(&nmi)?,
                chaos: of(&|unit| unit.domains.chaos)?,
                pas: of(&|unit| unit.domains.pas)?,
                loss: of(&|unit| unit.loss)?,
                seconds: of(&|unit| unit.seconds)?,
            });
        }
        let comparison = comparison(job, &units, &scores)?;
        Ok(Self { units, scores, comparison })
    }

    /// The training whose domains are written: of several seeds the one with the lowest loss, which knows nothing of labels.
    pub(super) fn chosen(&self, slice: usize, method: Method) -> Option<&Unit> {
        units_of(&self.units, slice, method).min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// For people.
    pub(super) fn text(&self, job: &Job<'_>, written: Option<&Path>) -> String {
        let mut text = String::new();
        let width = self.scores.iter().map(|row| row.slice.chars().count()).max().unwrap_or(0);
        let value = |interval: &Option<MeanInterval>| {
            interval.as_ref().map_or("–".to_owned(), |interval| interval.to_text(3))
        };
        for row in &self.scores {
            let _ = writeln!(
                text,
                "{:width$}  {:17}  ARI {}  NMI {}  CHAOS {}  PAS {}  loss {}  {} s",
                row.slice,
                row.method,
                value(&row.ari),
                value(&row.nmi),
                row.chaos.to_text(3),
                row.pas.to_text(3),
                row.loss.to_text(4),
                row.seconds.to_text(1),
            );
        }
        if let Some(MethodComparison { first, second, pairs_of, tests }) = &self.comparison {
            let _ = writeln!(
                text,
                "\nARI of {first} less that of {second}: {} over {} {pairs_of} (higher on {}, lower on {}; signed-rank test p = {:.4})",
                tests.difference.to_text(3),
                tests.difference.n_repeats,
                tests.n_higher,
                tests.n_lower,
                tests.signed_rank.p_value,
            );
        }
        text.push('\n');
        if let Some(path) = written {
            let _ = writeln!(text, "domains    {}", path.display());
        }
        let _ = write!(
            text,
            "summary    {}\nreport     {}",
            job.run.summary().display(),
            job.run.report().display()
        );
        text
    }

    /// For programs.
    pub(super) fn json(&self, job: &Job<'_>, written: Option<&Path>) -> Result<Value, Failure> {
        let mut results = Vec::new();
        for ((slice, method), scores) in groups(job).into_iter().zip(&self.scores) {
            let repeats: Vec<Value> = units_of(&self.units, slice, method).map(unit_json).collect();
            let Some(chosen) = self.chosen(slice, method) else { continue };
            results.push(json!({
                "slice": scores.slice,
                "method": method.key(),
                "ari": scores.ari.map(|ari| ari.mean),
                "ari_half_width": scores.ari.and_then(|ari| ari.half_width),
                "nmi": scores.nmi.map(|nmi| nmi.mean),
                "chaos": scores.chaos.mean,
                "pas": scores.pas.mean,
                "loss": scores.loss.mean,
                "epochs": chosen.epochs,
                "seconds": scores.seconds.mean,
                "domains": chosen.domains.n_domains(),
                "spots": job.slices[slice].n_spots(),
                "genes": job.slices[slice].genes.len(),
                "patch_genes": job.slices[slice].n_patch_genes,
                "edges": job.slices[slice].n_edges(),
                "mean_neighbors": job.slices[slice].mean_neighbors,
                "chosen_seed": chosen.seed,
                "repeats": repeats,
            }));
        }
        let mut value = json!({
            "command": "spatial",
            "version": env!("CARGO_PKG_VERSION"),
            "device": job.device.to_string(),
            "seed": job.options.seed(),
            "ensemble": job.options.ensemble(),
            "label": job.options.label,
            "output": written,
            "comparison": self.comparison.as_ref().map(comparison_json),
            "report": job.run.report(),
            "run_dir": job.run.path(),
        });
        if let (Value::Object(all), Some(Value::Object(first))) = (&mut value, results.first()) {
            // One result's numbers stand at the top too, where nobody has to look for them.
            if results.len() == 1 {
                all.extend(first.clone());
            }
            all.insert("results".into(), Value::Array(results));
        }
        Ok(value)
    }
}

/// Slices and methods in the order they were run.
pub(super) fn groups(job: &Job<'_>) -> Vec<(usize, Method)> {
    let methods = job.options.methods();
    (0..job.slices.len()).flat_map(|slice| methods.iter().map(move |&method| (slice, method))).collect()
}

fn units_of(units: &[Unit], slice: usize, method: Method) -> impl Iterator<Item = &Unit> {
    units.iter().filter(move |unit| unit.slice == slice && unit.method == method)
}

fn ari(unit: &Unit) -> Option<f64> {
    unit.domains.agreement.map(|agreement| agreement.adjusted_rand_index)
}

fn nmi(unit: &Unit) -> Option<f64> {
    unit.domains.agreement.map(|agreement| agreement.normalized_mutual_information)
}

fn unit_json(unit: &Unit) -> Value {
    json!({
        "seed": unit.seed,
        "ari": ari(unit),
        "nmi": nmi(unit),
        "chaos": unit.domains.chaos,
        "pas": unit.domains.pas,
        "loss": unit.loss,
        "epochs": unit.epochs,
        "seconds": unit.seconds,
        "run_dir": unit.run.path(),
    })
}

/// CellPatch+STAGATE against STAGATE: over slices where there are several, else over the seeds of one.
fn comparison(
    job: &Job<'_>,
    units: &[Unit],
    scores: &[SpatialScores],
) -> Result<Option<MethodComparison>, Failure> {
    let (first, second) = (Method::CellPatchStagate, Method::Stagate);
    if job.options.methods().len() < 2 {
        return Ok(None);
    }
    let by_slice = job.slices.len() > 1;
    let values = |method: Method| -> Option<Vec<f64>> {
        match by_slice {
            true => {
                let rows = scores.iter().filter(|row| row.method == method.name());
                rows.map(|row| row.ari.map(|ari| ari.mean)).collect()
            }
            false => units_of(units, 0, method).map(ari).collect(),
        }
    };
    let (Some(of_first), Some(of_second)) = (values(first), values(second)) else { return Ok(None) };
    Ok(Some(MethodComparison {
        first: first.name().into(),
        second: second.name().into(),
        pairs_of: if by_slice { "slices" } else { "seeds" }.into(),
        tests: PairedComparison::of(&of_first, &of_second)?,
    }))
}

fn comparison_json(comparison: &MethodComparison) -> Value {
    let MethodComparison { first, second, pairs_of, tests } = comparison;
    json!({
        "first": first,
        "second": second,
        "pairs_of": pairs_of,
        "pairs": tests.difference.n_repeats,
        "ari_difference": tests.difference.mean,
        "ari_difference_half_width": tests.difference.half_width,
        "ari_difference_median": tests.median_difference,
        "higher": tests.n_higher,
        "lower": tests.n_lower,
        "signed_rank_p": tests.signed_rank.p_value,
        "t_test_p": tests.t_test.map(|test| test.p_value),
    })
}
