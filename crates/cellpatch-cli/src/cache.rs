//! Where files of shard sets on servers are kept.

use std::path::{Path, PathBuf};

use cellpatch_data::{CacheOptions, ShardSet};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::memory_size::MemorySize;

/// The cache of shard sets on servers.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Data")]
pub(crate) struct CacheChoice {
    /// Keep the files of a shard set on a server in this folder [default: cellpatch/shards in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Keep at most this much there, such as 500M or 20G; what was not used for longest is removed [default: 20G]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_size: Option<MemorySize>,
}

impl CacheChoice {
    fn options(&self) -> Result<CacheOptions, Failure> {
        let mut options = match &self.cache {
            Some(folder) => CacheOptions { folder: folder.clone(), max_bytes: CacheOptions::MAX_BYTES },
            None => CacheOptions::usual()?,
        };
        if let Some(size) = self.cache_size {
            options.max_bytes = size.bytes as u64;
        }
        Ok(options)
    }

    /// Opens a shard set in a folder or on a server.
    pub(crate) fn open(&self, path: &Path) -> Result<ShardSet, Failure> {
        match address(path) {
            Some(url) => Ok(ShardSet::open_url(url, self.options()?)?),
            None => Ok(ShardSet::open(path)?),
        }
    }
}

/// The address, if what a user gave is one and no path.
pub(crate) fn address(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_from_a_path() {
        for url in ["https://host/set", "s3://bucket/a/b", "file:///tmp/set", "ftp://host"] {
            assert_eq!(address(Path::new(url)), Some(url));
        }
        for path in ["set", "/data/set", "C:\\set", "../a://b", "odd:name"] {
            assert_eq!(address(Path::new(path)), None, "{path}");
        }
    }
}
