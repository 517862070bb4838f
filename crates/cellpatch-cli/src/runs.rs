//! Run directories that are numbered: `runs/KIND-1`, `runs/KIND-2`, ...

use std::path::{Path, PathBuf};

use crate::failure::{Category, Failure};

const RUNS: &str = "runs";

fn number(kind: &str, path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(kind)?.strip_prefix('-')?.parse().ok()
}

fn all(kind: &str) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(RUNS) else { return Vec::new() };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut runs: Vec<_> = paths.filter_map(|path| Some((number(kind, &path)?, path))).collect();
    runs.sort();
    runs
}

/// A run directory that does not exist yet.
pub(crate) fn next(kind: &str) -> PathBuf {
    let newest = all(kind).last().map_or(0, |(number, _)| *number);
    Path::new(RUNS).join(format!("{kind}-{}", newest + 1))
}

/// The run directory to go on with: the one that was named, or the newest of a kind.
pub(crate) fn resumed(kind: &str, named: Option<&Path>) -> Result<PathBuf, Failure> {
    named.map_or_else(|| newest(kind), |path| Ok(path.to_path_buf()))
}

fn newest(kind: &str) -> Result<PathBuf, Failure> {
    all(kind).pop().map(|(_, path)| path).ok_or_else(|| {
        Failure::new(Category::Usage, format!("there is no run in {RUNS}/ to go on with"))
            .with_help("name it with --run-dir FOLDER")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_by_kind() {
        assert_eq!(number("pretrain", Path::new("runs/pretrain-12")), Some(12));
        assert_eq!(number("pretrain", Path::new("runs/pretrain-x")), None);
        assert_eq!(number("pretrain", Path::new("runs/mine")), None);
        assert_eq!(number("annotate", Path::new("runs/pretrain-12")), None);
    }
}
