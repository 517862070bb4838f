//! Settings that a run is made of: flags over a configuration file, over those of the run it goes on with.

use std::path::Path;

use cellpatch_train::RunDirectory;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::annotate::usage;
use crate::failure::{Category, Failure};
use crate::terminal::Terminal;

/// Settings as flags give them, and elsewhere a configuration file, if there is one.
///
/// - `known`: the keys there are, for suggestions
pub(crate) fn with_file<T: Serialize + DeserializeOwned + Clone>(
    terminal: &Terminal,
    flags: &T,
    file: Option<&Path>,
    known: &[String],
) -> Result<T, Failure> {
    let Some(path) = file else { return Ok(flags.clone()) };
    let (file, warnings) = read_config(path, known)?;
    warnings.iter().for_each(|warning| terminal.warn(warning));
    overlay(flags, &file)
}

/// Settings as given, and elsewhere those of the run in a folder, which has settled what was left open then.
pub(crate) fn with_run<T: Serialize + DeserializeOwned>(
    given: &T,
    folder: &Path,
    known: &[String],
) -> Result<T, Failure> {
    let (stored, _) = read_config(&folder.join(RunDirectory::CONFIG), known)?;
    overlay(given, &stored)
}

/// Writes the settings of a run where [`with_run`] finds them.
pub(crate) fn write<T: Serialize>(run: &RunDirectory, settings: &T) -> Result<(), Failure> {
    let text = toml::to_string(settings).map_err(|error| usage(error.to_string()))?;
    Ok(run.write(&run.config(), text.as_bytes())?)
}

/// Settings of `over` where it has them, of `under` elsewhere.
pub(crate) fn overlay<T: Serialize + DeserializeOwned>(over: &T, under: &T) -> Result<T, Failure> {
    let table = |options: &T| toml::Table::try_from(options).map_err(|error| usage(error.to_string()));
    let mut merged = table(under)?;
    merged.extend(table(over)?);
    merged.try_into().map_err(|error: toml::de::Error| usage(error.to_string()))
}

/// Reads a configuration file and the warnings about it.
///
/// `known` are the keys there are, for suggestions.
fn read_config<T: DeserializeOwned>(path: &Path, known: &[String]) -> Result<(T, Vec<String>), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Category::Input, format!("could not read {}: {error}", path.display()))
    })?;
    parse_config(&text, known).map_err(|reason| {
        Failure::new(Category::Usage, format!("{} is not a valid configuration: {reason}", path.display()))
            .with_help("every key is a flag of the command without its dashes, such as batch-size = 64")
    })
}

fn parse_config<T: DeserializeOwned>(text: &str, known: &[String]) -> Result<(T, Vec<String>), String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut warnings = Vec::new();
    let mut kept = toml::Table::new();
    for (key, value) in table {
        if known.contains(&key) {
            kept.insert(key, value);
            continue;
        }
        let near = known
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, &key).total_cmp(&strsim::jaro_winkler(b, &key)));
        let suggestion = near
            .filter(|near| strsim::jaro_winkler(near, &key) > 0.75)
            .map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        warnings.push(format!("unknown key {key:?} in the configuration is ignored{suggestion}"));
    }
    let options = kept.try_into().map_err(|error: toml::de::Error| error.to_string())?;
    Ok((options, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PretrainOptions;

    fn known() -> Vec<String> {
        ["batch-size", "epochs", "learning-rate", "min-genes"].map(String::from).to_vec()
    }

    #[test]
    fn flags_win_over_the_file() {
        let (file, warnings) =
            parse_config::<PretrainOptions>("epochs = 3\nbatch-size = 64\nmin-genes = 5", &known()).unwrap();
        assert!(warnings.is_empty());
        let flags = PretrainOptions { epochs: Some(9), ..Default::default() };
        let merged = overlay(&flags, &file).unwrap();
        assert_eq!((merged.epochs, merged.batch_size, merged.data.min_genes), (Some(9), Some(64), Some(5)));
    }

    #[test]
    fn an_unknown_key_is_warned_about_with_a_suggestion() {
        let (_, warnings) = parse_config::<PretrainOptions>("batchsize = 64\nzzz = 1", &known()).unwrap();
        assert!(warnings[0].contains("\"batch-size\""), "{warnings:?}");
        assert!(warnings[1].contains("\"zzz\"") && !warnings[1].contains("mean"), "{warnings:?}");
    }

    #[test]
    fn a_wrong_type_says_which_key() {
        let reason = parse_config::<PretrainOptions>("epochs = \"many\"", &known()).unwrap_err();
        assert!(reason.contains("epochs"), "{reason}");
    }
}
