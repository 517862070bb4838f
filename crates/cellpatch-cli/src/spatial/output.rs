//! Domains and embeddings in files.

use std::path::{Path, PathBuf};

use cellpatch_data::{Existing, H5adAnnotator, Labels, NewValues, TableFormat, UnsValue, write_cell_table};

use super::domains::names;
use super::job::{Job, Unit};
use super::options::SpatialOptions;
use super::scores::{Results, groups};
use super::slice::LoadedSlice;
use crate::annotate::usage;
use crate::failure::Failure;

fn is_h5ad(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("h5ad"))
}

fn existing(options: &SpatialOptions) -> Existing {
    if options.overwrite.unwrap_or(false) { Existing::Replace } else { Existing::Keep }
}

/// What can be wrong with the output before anything is read.
pub(super) fn check(options: &SpatialOptions) -> Result<(), Failure> {
    let Some(path) = &options.output else {
        if options.denoised.unwrap_or(false) {
            return Err(usage("denoised expression goes into an .h5ad, and none was named".into())
                .with_help("name one by --output FILE.h5ad"));
        }
        return Ok(());
    };
    if !is_h5ad(path) {
        if options.denoised.unwrap_or(false) {
            return Err(usage(format!(
                "denoised expression goes into an .h5ad, and the output is {}",
                path.display()
            ))
            .with_help("end the name of --output in .h5ad, or leave --denoised out"));
        }
        TableFormat::of(path).map_err(|_| {
            usage(format!("{} does not say what kind of file is wanted", path.display()))
                .with_help("end its name in .h5ad, .csv, .tsv or .parquet")
        })?;
    }
    if path.exists() && existing(options) == Existing::Keep {
        return Err(Failure::from(cellpatch_data::Error::FileExists { path: path.clone() })
            .with_help("name another file by --output, or give --overwrite"));
    }
    Ok(())
}

/// What can be wrong with the output for a slice.
pub(super) fn check_slice(options: &SpatialOptions, slice: &LoadedSlice) -> Result<(), Failure> {
    match &options.output {
        Some(path) if is_h5ad(path) && !slice.is_h5ad => {
            Err(usage(format!("an .h5ad can be made of an .h5ad only, and {} is none", slice.path.display()))
                .with_help("end the name of --output in .csv, .tsv or .parquet"))
        }
        _ => Ok(()),
    }
}

/// Writes a table of every slice into the run, and the output that was named; returns the latter.
pub(super) fn write(job: &Job<'_>, results: &Results) -> Result<Option<PathBuf>, Failure> {
    for (index, slice) in job.slices.iter().enumerate() {
        let units = units_of(job, results, index);
        let path = job.run.path().join(table_name(slice));
        write_cell_table(&path, Existing::Replace, &slice.cell_ids, &columns(slice, &units, false))?;
    }
    let (Some(path), [slice]) = (&job.options.output, job.slices.as_slice()) else { return Ok(None) };
    let units = units_of(job, results, 0);
    if is_h5ad(path) {
        write_h5ad(job, slice, &units, path)?;
    } else {
        write_cell_table(path, existing(job.options), &slice.cell_ids, &columns(slice, &units, true))?;
    }
    Ok(Some(path.clone()))
}

/// The table of a slice in the run directory.
pub(super) fn table_name(slice: &LoadedSlice) -> String {
    format!("domains-{}.csv", slice.name)
}

/// The chosen training of each method on a slice.
pub(super) fn units_of<'a>(job: &Job<'_>, results: &'a Results, slice: usize) -> Vec<&'a Unit> {
    let of_slice = groups(job).into_iter().filter(|group| group.0 == slice);
    of_slice.filter_map(|(slice, method)| results.chosen(slice, method)).collect()
}

fn categories(domains: &[usize]) -> Labels {
    let n = domains.iter().max().map_or(0, |most| most + 1);
    Labels {
        categories: (1..=n).map(|domain| domain.to_string()).collect(),
        codes: domains.iter().map(|&domain| Some(domain as u32)).collect(),
    }
}

fn columns(slice: &LoadedSlice, units: &[&Unit], with_embedding: bool) -> Vec<(String, NewValues)> {
    let axis = |axis: usize| NewValues::Float64(slice.positions.iter().map(|place| place[axis]).collect());
    let mut columns = vec![("x".to_owned(), axis(0)), ("y".to_owned(), axis(1))];
    columns.extend(slice.section_names().map(|names| ("section".to_owned(), NewValues::Texts(names))));
    columns.extend(slice.label_names().map(|names| ("label".to_owned(), NewValues::Texts(names))));
    for unit in units {
        let key = unit.method.key();
        let domains = &unit.domains;
        columns.push((format!("{key}_domain"), NewValues::Texts(names(&domains.of_embedding))));
        if let Some(refined) = &domains.refined {
            columns.push((format!("{key}_domain_refined"), NewValues::Texts(names(refined))));
        }
        if with_embedding {
            let width = unit.embedding.len() / slice.n_spots().max(1);
            columns.extend((0..width).map(|index| {
                let values = unit.embedding.iter().copied().skip(index).step_by(width).collect();
                (format!("{key}_{}", index + 1), NewValues::Float32(values))
            }));
        }
    }
    columns
}

fn write_h5ad(job: &Job<'_>, slice: &LoadedSlice, units: &[&Unit], path: &Path) -> Result<(), Failure> {
    let mut file = H5adAnnotator::create(&slice.path, path, existing(job.options))?;
    for unit in units {
        let key = unit.method.key();
        file.obs_column(&format!("{key}_domain"), categories(&unit.domains.of_embedding))?;
        if let Some(refined) = &unit.domains.refined {
            file.obs_column(&format!("{key}_domain_refined"), categories(refined))?;
        }
        let width = unit.embedding.len() / slice.n_spots().max(1);
        let matrix = file.obsm(&format!("X_{key}"), width)?;
        file.write_rows(matrix, 0, &unit.embedding)?;
        let mut entries = vec![
            ("version", UnsValue::Text(env!("CARGO_PKG_VERSION").into())),
            ("seed", UnsValue::Integer(unit.seed as i64)),
            ("ensemble", UnsValue::Integer(job.options.ensemble() as i64)),
            ("epochs", UnsValue::Integer(unit.epochs as i64)),
            ("loss", UnsValue::Number(unit.loss)),
            ("genes", UnsValue::Texts(slice.genes.clone())),
        ];
        if let Some(agreement) = &unit.domains.agreement {
            entries.push(("ari", UnsValue::Number(agreement.adjusted_rand_index)));
        }
        if let Some(denoised) = &unit.denoised {
            let matrix = file.obsm(&format!("X_{key}_denoised"), slice.genes.len())?;
            file.write_rows(matrix, 0, denoised)?;
        }
        file.uns(key, &entries)?;
    }
    file.finish()?;
    Ok(())
}
