//! Reading Parquet files that may be damaged.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};

/// A Parquet file with all its columns, of which batches have not been read yet.
pub(crate) fn open_parquet(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))
}

/// What a Parquet reader gives, errors as this crate's; ends after the first.
pub(crate) fn record_batches(
    builder: ParquetRecordBatchReaderBuilder<File>,
    path: PathBuf,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let mut reader = Some(guarded(&path, || builder.build())?);
    Ok(std::iter::from_fn(move || {
        let open = reader.as_mut()?;
        let next = guarded(&path, || open.next().transpose()).transpose();
        if next.as_ref().is_none_or(Result::is_err) {
            reader = None;
        }
        next
    }))
}

/// Some damaged pages and footers make the library panic, which becomes an error like any other.
pub(crate) fn guarded<T, E: ToString>(path: &Path, read: impl FnOnce() -> Result<T, E>) -> Result<T> {
    let damaged = |reason: String| Error::Parquet { path: path.to_path_buf(), reason };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|source| damaged(source.to_string())),
        Err(_) => Err(damaged("a page is damaged".into())),
    }
}
