//! From the paths a user gives to a shard set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cellpatch_data::{
    ExpressionReader, ShardOptions, ShardProgress, ShardSet, ShardStage, cell_inputs, open_cells,
    write_shards,
};

use crate::cache::address;
use crate::failure::{Category, Failure};
use crate::options::{DataOptions, USUAL_COLUMNS};
use crate::terminal::{Progress, Terminal};

/// What `--data` names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// A finished shard set, in a folder or on a server.
    Shards(PathBuf),
    /// Files to be sharded, in a fixed order.
    Files(Vec<PathBuf>),
}

/// Finds the files behind the paths: folders stand for the inputs in them, by name.
///
/// # Errors
/// A path that does not exist, a folder without data, or shard sets mixed with files.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Input, Failure> {
    if let [path] = paths
        && is_shard_set(path)
    {
        return Ok(Input::Shards(path.clone()));
    }
    let mut files = Vec::new();
    for path in paths {
        if is_shard_set(path) {
            return Err(Failure::new(
                Category::Usage,
                format!("{} is a shard set among other inputs", path.display()),
            )
            .with_help("give one shard set alone, or the files it was made from"));
        }
        if !path.exists() {
            return Err(cellpatch_data::Error::NotFound { path: path.clone() }.into());
        }
        files.extend(cell_inputs(path)?);
    }
    Ok(Input::Files(files))
}

/// Whether this is the folder of a shard set, or an address, where nothing else is read from.
pub(crate) fn is_shard_set(path: &Path) -> bool {
    address(path).is_some() || path.is_dir() && path.join("manifest.json").is_file()
}

/// How files are to be sharded.
///
/// - `wanted`: `obs` columns that must be there.
pub(crate) fn shard_options(
    files: &[PathBuf],
    options: &DataOptions,
    capacity: usize,
    wanted: &[String],
) -> Result<ShardOptions, Failure> {
    let mut shard_options = options.shard_options(capacity, wanted)?;
    if options.obs_columns.is_none() {
        add_usual_columns(files, &mut shard_options)?;
    }
    Ok(shard_options)
}

/// Shards files with a progress bar.
pub(crate) fn write(
    terminal: &Terminal,
    files: &[PathBuf],
    out: &Path,
    options: &ShardOptions,
) -> Result<Arc<ShardSet>, Failure> {
    Ok(Arc::new(write_shards(files, out, options, &mut progress_bars(terminal))?))
}

/// A bar for each stage of making a shard set.
pub(crate) fn progress_bars(terminal: &Terminal) -> impl FnMut(ShardProgress) {
    let mut current: Option<(ShardStage, Progress)> = None;
    move |progress: ShardProgress| {
        let bar = match &current {
            Some((stage, bar)) if *stage == progress.stage => bar,
            _ => {
                let bar = terminal.progress(stage_name(progress.stage), progress.total as u64, "cells");
                &current.insert((progress.stage, bar)).1
            }
        };
        bar.update(progress.done as u64, "");
    }
}

fn stage_name(stage: ShardStage) -> &'static str {
    match stage {
        ShardStage::Survey => "counting genes",
        ShardStage::Permute => "shuffling",
        ShardStage::Write => "writing shards",
    }
}

fn add_usual_columns(files: &[PathBuf], options: &mut ShardOptions) -> Result<(), Failure> {
    let mut found = Vec::new();
    for file in files {
        found.extend(open_cells(file, &options.choice)?.obs_columns());
    }
    let usual = USUAL_COLUMNS.iter().map(ToString::to_string);
    let missing = usual.filter(|column| found.contains(column) && !options.obs_columns.contains(column));
    let missing: Vec<String> = missing.collect();
    options.obs_columns.extend(missing);
    Ok(())
}

/// Says how a file's genes were found in a model's vocabulary, and which were not.
pub(crate) fn describe_genes(terminal: &Terminal, reader: &ExpressionReader) -> Result<(), Failure> {
    let matched = reader.genes();
    let mut text = format!(
        "{}: {} cells, {} of {} genes known to the model ({} by id, {} by symbol); {} of the {} genes it reads are not in the file",
        reader.source().matrix(),
        reader.n_cells(),
        matched.n_matched(),
        matched.tokens.len(),
        matched.by_id,
        matched.by_symbol + matched.by_folded_symbol,
        reader.n_absent(),
        reader.n_wanted(),
    );
    if !matched.misses.is_empty() {
        let genes = reader.source().genes()?;
        let names: Vec<&str> = matched.misses.iter().take(10).map(|&column| genes[column].name()).collect();
        let more = if matched.misses.len() > names.len() { ", ..." } else { "" };
        text.push_str(&format!("\nunknown genes: {}{more}", names.join(", ")));
    }
    terminal.note(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_h5ad_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.h5ad", "a.h5ad", "notes.txt"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let Input::Files(files) = find(&[folder.path().to_path_buf()]).unwrap() else {
            panic!("files were given")
        };
        assert_eq!(files, [folder.path().join("a.h5ad"), folder.path().join("b.h5ad")]);
    }

    #[test]
    fn a_path_that_is_not_there_is_bad_input() {
        let failure = find(&["no/such.h5ad".into()]).unwrap_err();
        assert_eq!(failure.category(), Category::Input);
        assert!(failure.render().contains("no/such.h5ad"), "{}", failure.render());
    }

    #[test]
    fn an_address_is_a_shard_set_and_stands_alone() {
        let url = PathBuf::from("https://host/set");
        assert_eq!(find(std::slice::from_ref(&url)).unwrap(), Input::Shards(url.clone()));
        assert_eq!(find(&[url, "a.h5ad".into()]).unwrap_err().category(), Category::Usage);
    }

    #[test]
    fn a_folder_without_data_is_bad_input() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(&[folder.path().to_path_buf()]).unwrap_err().category(), Category::Input);
    }
}
