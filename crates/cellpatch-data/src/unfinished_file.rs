//! A file that appears under its name only when it is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// What to do when a file of the name is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// Stop with [`Error::FileExists`].
    #[default]
    Keep,
    /// Replace it, at the moment the new one is complete.
    Replace,
}

/// A sibling of the file to be. Dropped without [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub(crate) struct UnfinishedFile {
    target: PathBuf,
    existing: Existing,
    sibling: NamedTempFile,
}

impl UnfinishedFile {
    /// Makes an empty sibling of `target`, so that the file never has to cross disks.
    pub(crate) fn create(target: &Path, existing: Existing) -> Result<Self> {
        if existing == Existing::Keep && fs::symlink_metadata(target).is_ok() {
            return Err(Error::FileExists { path: target.to_path_buf() });
        }
        let name = target.file_name().ok_or_else(|| {
            Error::io("create", target, std::io::Error::other("the path does not end in a file name"))
        })?;
        let prefix = format!(".{}.unfinished-", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // As any new file: what the user's mask leaves, not the owner-only rights of temporary files.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let sibling =
            builder.tempfile_in(folder_of(target)).map_err(|source| Error::io("create", target, source))?;
        Ok(Self { target: target.to_path_buf(), existing, sibling })
    }

    /// The name the file will have.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The sibling, for writing. Its position is shared with every other handle given.
    pub(crate) fn handle(&self) -> Result<File> {
        self.sibling.as_file().try_clone().map_err(|source| Error::io("write", &self.target, source))
    }

    /// Gives the sibling its name without waiting for the disk: it outlives this process, and maybe not the machine. For
    /// what is checked when it is read and can be done without.
    pub(crate) fn commit_unsynced(self) -> Result<()> {
        let target = self.target;
        let named = self.sibling.persist(&target);
        named.map(drop).map_err(|error| Error::io("rename", &target, error.error))
    }

    /// Brings the sibling to the disk and gives it its name.
    pub(crate) fn commit(self) -> Result<()> {
        let Self { target, existing, sibling } = self;
        sibling.as_file().sync_all().map_err(|source| Error::io("write", &target, source))?;
        let named = match existing {
            Existing::Replace => sibling.persist(&target),
            Existing::Keep => sibling.persist_noclobber(&target),
        };
        match named {
            Ok(_) => sync_folder(folder_of(&target)),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::FileExists { path: target })
            }
            Err(error) => Err(Error::io("rename", &target, error.error)),
        }
    }
}

/// The folder a path is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in a folder to the disk. That can be asked for on Unix only; elsewhere renames are as durable as the
/// system makes them.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| Error::io("sync", folder, source))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_committed_and_leaves_nothing_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("cells.csv");
        let file = UnfinishedFile::create(&target, Existing::Keep).unwrap();
        file.handle().unwrap().write_all(b"half").unwrap();
        assert!(!target.exists());
        drop(file);
        assert!(names(folder.path()).is_empty());

        let file = UnfinishedFile::create(&target, Existing::Keep).unwrap();
        file.handle().unwrap().write_all(b"whole").unwrap();
        file.commit().unwrap();
        assert_eq!(names(folder.path()), ["cells.csv"]);
        assert_eq!(fs::read(&target).unwrap(), b"whole");
    }

    #[test]
    fn an_existing_file_is_kept_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("cells.csv");
        let late = UnfinishedFile::create(&target, Existing::Keep).unwrap();
        fs::write(&target, "mine").unwrap();
        assert!(matches!(UnfinishedFile::create(&target, Existing::Keep), Err(Error::FileExists { .. })));
        // Nor is one overwritten that appeared in the meantime.
        assert!(matches!(late.commit(), Err(Error::FileExists { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        UnfinishedFile::create(&target, Existing::Replace).unwrap().commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(names(folder.path()), ["cells.csv"]);
    }
}
