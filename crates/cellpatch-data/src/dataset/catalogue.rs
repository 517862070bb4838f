//! The manifests that are part of the program.

use std::path::{Path, PathBuf};

use super::DatasetManifest;
use crate::error::{Error, Result};

/// Each with the name of its file in `datasets/`.
const MANIFESTS: [(&str, &str); 11] = [
    ("baron.toml", include_str!("../../../../datasets/baron.toml")),
    ("dlpfc.toml", include_str!("../../../../datasets/dlpfc.toml")),
    ("lawlor.toml", include_str!("../../../../datasets/lawlor.toml")),
    ("muraro.toml", include_str!("../../../../datasets/muraro.toml")),
    ("myeloid.toml", include_str!("../../../../datasets/myeloid.toml")),
    ("pbmc68k-reduced.toml", include_str!("../../../../datasets/pbmc68k-reduced.toml")),
    ("segerstolpe.toml", include_str!("../../../../datasets/segerstolpe.toml")),
    ("starmap-mpfc.toml", include_str!("../../../../datasets/starmap-mpfc.toml")),
    ("synthetic.toml", include_str!("../../../../datasets/synthetic.toml")),
    ("xin.toml", include_str!("../../../../datasets/xin.toml")),
    ("zheng68k.toml", include_str!("../../../../datasets/zheng68k.toml")),
];

/// The data sets that the program knows, by name.
///
/// # Errors
/// [`Error::BadManifest`], which a test keeps from happening.
pub fn catalogue() -> Result<Vec<DatasetManifest>> {
    let parse =
        |&(file, text): &(&str, &str)| DatasetManifest::parse(text, &Path::new("datasets").join(file));
    MANIFESTS.iter().map(parse).collect()
}

/// The data set of that name, or the manifest at that path.
///
/// # Errors
/// [`Error::UnknownDataset`] for a name that is not known and no file; otherwise as [`DatasetManifest::read`].
pub fn find_dataset(name: &str) -> Result<DatasetManifest> {
    let known = catalogue()?;
    if let Some(manifest) = known.iter().find(|manifest| manifest.name == name) {
        return Ok(manifest.clone());
    }
    let path = PathBuf::from(name);
    if path.is_file() || name.ends_with(".toml") || name.contains(['/', '\\']) {
        return DatasetManifest::read(&path);
    }
    let available = known.into_iter().map(|manifest| manifest.name).collect();
    Err(Error::UnknownDataset { name: name.to_owned(), available })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_manifest_of_the_folder_is_in_the_program_and_states_its_conditions() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| name.into_string().unwrap());
        let there: BTreeSet<String> = names.filter(|name| name.ends_with(".toml")).collect();
        assert_eq!(there, MANIFESTS.iter().map(|(file, _)| (*file).to_owned()).collect());

        for (manifest, (file, _)) in catalogue().unwrap().iter().zip(MANIFESTS) {
            assert_eq!(format!("{}.toml", manifest.name), file);
            for text in [&manifest.title, &manifest.organism, &manifest.technology, &manifest.licence] {
                assert!(!text.trim().is_empty(), "{file}");
            }
            assert!(manifest.citation.contains("doi:") || manifest.files.is_empty(), "{file}");
            assert!(manifest.label_column.is_some() != manifest.label_note.is_some(), "{file}");
            assert!(!manifest.files.is_empty() || manifest.synthetic_cells.is_some(), "{file}");
            assert!(manifest.files.iter().all(|file| file.url.starts_with("https://")), "{file}");
            assert!(manifest.notes.as_deref().unwrap_or_default().lines().count() <= 1, "{file}");
        }
    }

    #[test]
    fn a_data_set_is_found_by_name_or_by_path() {
        assert_eq!(find_dataset("baron").unwrap().name, "baron");
        let Err(Error::UnknownDataset { available, .. }) = find_dataset("barron") else { panic!() };
        assert!(available.contains(&"baron".to_owned()));
        assert!(matches!(find_dataset("no/such.toml"), Err(Error::NotFound { .. })));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/xin.toml");
        assert_eq!(find_dataset(path.to_str().unwrap()).unwrap(), find_dataset("xin").unwrap());
    }
}
