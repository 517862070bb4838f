//! What is known of one data set, as a TOML file says it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A data set: what it is, where it is, under which conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DatasetManifest {
    /// Short name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// One line on what it is.
    pub title: String,
    /// Species, in Latin.
    pub organism: String,
    /// How the cells were measured.
    pub technology: String,
    /// Cells, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<u64>,
    /// Genes of the files as they come, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genes: Option<u64>,
    /// The licence, or that none is stated.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// A page that describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The column with labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Where the labels are if they are no column, or why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_note: Option<String>,
    /// The column with donors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub donor_column: Option<String>,
    /// How it is divided into training and test cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What one should know before using it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The files; none where cells are made instead of downloaded.
    #[serde(default)]
    pub files: Vec<DatasetFile>,
    /// How synthetic cells are made: see [`SyntheticConfig`](crate::synthetic::SyntheticConfig).
    #[serde(default, rename = "synthetic-cells", skip_serializing_if = "Option::is_none")]
    pub synthetic_cells: Option<toml::Table>,
    /// Settings of a pretraining that suit it: the flags of `pretrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<toml::Table>,
}

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DatasetFile {
    /// The name it gets here.
    pub name: String,
    /// Where it is: `https://`, `http://` or `file://`.
    pub url: String,
    /// SHA-256 in hex of what the server sends, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Bytes of what the server sends, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What to do with it when it is here; nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpack: Option<Unpack>,
}

/// How a file is packed that should not stay so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// One file, compressed by gzip; it loses the `.gz` at the end of its name.
    Gzip,
}

impl DatasetFile {
    /// The name of the file that is here in the end: without `.gz` if it is unpacked.
    pub fn final_name(&self) -> &str {
        match self.unpack {
            Some(Unpack::Gzip) => self.name.strip_suffix(".gz").unwrap_or(&self.name),
            None => &self.name,
        }
    }
}

impl DatasetManifest {
    /// Reads a user's manifest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], or [`Error::BadManifest`] if it does not parse or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
        Self::parse(&text, path)
    }

    /// Reads a manifest from its text; `path` is for errors.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        let bad = |reason: String| Error::BadManifest { path: path.to_path_buf(), reason };
        let manifest: Self =
            toml::from_str(text).map_err(|error| bad(error.to_string().trim().to_owned()))?;
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if !is_plain_name(&self.name) {
            return Err(format!(
                "name {:?} has other characters than letters, digits, -, _ and .",
                self.name
            ));
        }
        if self.label_column.is_none() && self.label_note.is_none() {
            return Err("it has neither label-column nor label-note, which says why not".to_owned());
        }
        for (index, file) in self.files.iter().enumerate() {
            let name = &file.name;
            if !is_plain_name(name) {
                return Err(format!("{name:?} is not a file name of letters, digits, -, _ and ."));
            }
            if self.files[..index].iter().any(|earlier| earlier.final_name() == file.final_name()) {
                return Err(format!("two files are called {}", file.final_name()));
            }
            if !["https://", "http://", "file://"].iter().any(|scheme| file.url.starts_with(scheme)) {
                return Err(format!("the url of {name} begins with none of https://, http:// and file://"));
            }
            let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if file.sha256.as_deref().is_some_and(|sum| !is_hash(sum)) {
                return Err(format!("the sha256 of {name} is not 64 hex digits"));
            }
            if file.unpack.is_some() && !name.ends_with(".gz") {
                return Err(format!("{name} is to be unpacked, but does not end in .gz"));
            }
        }
        Ok(())
    }
}

/// A name from a manifest or a server must not lead out of its folder, nor hide in it.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "mine"
        title = "My cells"
        organism = "Homo sapiens"
        technology = "10x Chromium"
        licence = "CC0"
        citation = "none"
        label-column = "cell_type"
        [[files]]
        name = "a.csv.gz"
        url = "https://example.org/a.csv.gz"
        unpack = "gzip"
    "#;

    fn reason(text: &str) -> String {
        match DatasetManifest::parse(text, Path::new("mine.toml")) {
            Err(Error::BadManifest { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_manifest_is_read() {
        let manifest = DatasetManifest::parse(SMALL, Path::new("mine.toml")).unwrap();
        assert_eq!(manifest.files[0].final_name(), "a.csv");
        assert_eq!(manifest.files[0].sha256, None);
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused_with_the_reason() {
        for (from, to, word) in [
            ("licence = \"CC0\"", "", "licence"),
            ("label-column = \"cell_type\"", "", "label-note"),
            ("label-column", "label-colum", "label-colum"),
            ("a.csv.gz\"\n        url", "../a.csv.gz\"\n        url", "../a.csv.gz"),
            ("https://", "ftp://", "begins with none"),
            ("unpack = \"gzip\"", "sha256 = \"12ab\"", "64 hex"),
            ("a.csv.gz\"\n        url", "a.csv\"\n        url", ".gz"),
            ("unpack = \"gzip\"", "unpack = \"rar\"", "rar"),
        ] {
            let text = SMALL.replace(from, to);
            assert_ne!(text, SMALL);
            assert!(reason(&text).contains(word), "{word}: {}", reason(&text));
        }
        let twice = format!("{SMALL}\n[[files]]\nname = \"a.csv\"\nurl = \"https://example.org/b\"\n");
        assert!(reason(&twice).contains("two files"));
    }
}
