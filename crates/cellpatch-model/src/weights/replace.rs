//! Files that are either whole or not there.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Files written by this process so far, so that no two siblings have one name.
static N_WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Writes a file beside its place, waits until it is on the disk, and renames it.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    let n_written = N_WRITTEN.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{n_written}.partial", std::process::id()));
    let sibling = path.with_file_name(name);
    let file = File::create(&sibling).map_err(|source| Error::io("create", path, source))?;
    let mut out = BufWriter::new(file);
    let written = write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all())
        .map_err(|source| Error::io("write", path, source))
        .and_then(|()| std::fs::rename(&sibling, path).map_err(|source| Error::io("rename", path, source)));
    if written.is_err() {
        // What went wrong is already known; a sibling that cannot be removed either adds nothing to it.
        let _ = std::fs::remove_file(&sibling);
    }
    written
}
