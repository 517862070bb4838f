//! `cellpatch datasets`: public data sets, what is known of them and how they get here.

mod cellxgene;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cellpatch_data::dataset::{
    DatasetManifest, FetchOptions, FetchState, FetchedFile, catalogue, fetch, find_dataset,
};
use clap::{Args, Subcommand};
use indicatif::BinaryBytes;
use serde_json::{Value, json};

use self::cellxgene::CellxgeneArguments;
use crate::failure::Failure;
use crate::terminal::{Progress, Terminal};

/// The commands of `datasets`.
#[derive(Debug, Subcommand)]
pub(crate) enum Datasets {
    /// List the data sets that this program knows
    List,
    /// Say what is known of a data set: licence, citation, labels, files
    Describe(DescribeArguments),
    /// Download the files of a data set, going on where an earlier download stopped, and compare their checksums
    Fetch(FetchArguments),
    /// Search CELLxGENE Discover, and download what was found
    Cellxgene(Box<CellxgeneArguments>),
}

/// Arguments of `datasets describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArguments {
    /// A name of `datasets list`, or the path of a manifest
    pub name: String,
}

/// Arguments of `datasets fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArguments {
    /// A name of `datasets list`, or the path of a manifest
    pub name: String,
    /// The folder for the files [default: data/NAME]
    #[arg(long, short, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub tries: Tries,
}

/// How patient a download is.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Tries {
    /// Try again this often, one failure after the other, waiting 1, 2, 4, ... seconds
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: u32,
}

impl Tries {
    fn options(self) -> FetchOptions {
        FetchOptions { retries: self.retries, ..FetchOptions::default() }
    }
}

/// Runs one of the commands.
pub(crate) fn run(terminal: &Terminal, command: &Datasets) -> Result<(), Failure> {
    match command {
        Datasets::List => list(terminal),
        Datasets::Describe(arguments) => describe(terminal, &arguments.name),
        Datasets::Fetch(arguments) => fetch_files(terminal, arguments),
        Datasets::Cellxgene(arguments) => cellxgene::run(terminal, arguments),
    }
}

fn list(terminal: &Terminal) -> Result<(), Failure> {
    let known = catalogue()?;
    let name = known.iter().map(|manifest| manifest.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for manifest in &known {
        let cells = manifest.cells.map_or_else(|| "-".to_owned(), |n_cells| n_cells.to_string());
        let _ = writeln!(text, "{:name$}  {cells:>6}  {}", manifest.name, manifest.title);
    }
    terminal.result(text.trim_end(), &result("datasets list", json!({ "datasets": known })));
    Ok(())
}

fn describe(terminal: &Terminal, name: &str) -> Result<(), Failure> {
    let manifest = find_dataset(name)?;
    let value = result("datasets describe", json!({ "dataset": manifest }));
    terminal.result(description(&manifest).trim_end(), &value);
    Ok(())
}

fn description(manifest: &DatasetManifest) -> String {
    let mut text = format!("{}: {}\n", manifest.name, manifest.title);
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let fields = [
        ("organism", Some(manifest.organism.clone())),
        ("technology", Some(manifest.technology.clone())),
        ("cells", number(manifest.cells)),
        ("genes", number(manifest.genes)),
        ("labels", manifest.label_column.clone().or_else(|| manifest.label_note.clone())),
        ("donors", manifest.donor_column.clone()),
        ("split", manifest.split.clone()),
        ("licence", Some(manifest.licence.clone())),
        ("cite", Some(manifest.citation.clone())),
        ("home", manifest.home.clone()),
        ("notes", manifest.notes.as_deref().map(|notes| notes.trim().to_owned())),
    ];
    for (name, value) in fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _ = writeln!(text, "  {name:<10}  {value}");
    }
    for file in &manifest.files {
        let size = file.bytes.map_or_else(String::new, |bytes| format!(", {}", BinaryBytes(bytes)));
        let sum = if file.sha256.is_some() { "checksum known" } else { "no checksum known" };
        let _ =
            writeln!(text, "  file        {} ({sum}{size})\n              {}", file.final_name(), file.url);
    }
    text
}

fn fetch_files(terminal: &Terminal, arguments: &FetchArguments) -> Result<(), Failure> {
    let manifest = find_dataset(&arguments.name)?;
    let folder = arguments.output.clone().unwrap_or_else(|| Path::new("data").join(&manifest.name));
    let files = download(terminal, &manifest, &folder, arguments.tries.options())?;
    let mut text = files.iter().map(|file| line(file) + "\n").collect::<String>();
    let _ = write!(text, "licence: {}\ncite: {}", manifest.licence, manifest.citation);
    let value = json!({ "dataset": manifest.name, "folder": folder, "files": files });
    terminal.result(&text, &result("datasets fetch", value));
    Ok(())
}

/// Brings the files of a data set into `folder`, with a bar for each.
fn download(
    terminal: &Terminal,
    manifest: &DatasetManifest,
    folder: &Path,
    options: FetchOptions,
) -> Result<Vec<FetchedFile>, Failure> {
    let mut current: Option<(usize, Progress)> = None;
    let files = fetch(manifest, folder, &options, &mut |progress| {
        let bar = match &current {
            Some((index, bar)) if *index == progress.index => bar,
            _ => {
                let title = format!("{} ({}/{})", progress.file, progress.index + 1, progress.n_files);
                &current.insert((progress.index, terminal.progress(&title, 0, "bytes"))).1
            }
        };
        bar.set_total(progress.total.unwrap_or(progress.done));
        bar.update(progress.done, "");
    })?;
    Ok(files)
}

/// What became of a file.
fn line(file: &FetchedFile) -> String {
    let state = match file.state {
        FetchState::Downloaded => "downloaded",
        FetchState::Present => "was here",
    };
    let checked = match (file.verified, file.state) {
        (true, _) => "its checksum is right".to_owned(),
        (false, FetchState::Downloaded) => format!(
            "it could not be verified, for no checksum is known; fetched.json remembers {}",
            &file.sha256[..12.min(file.sha256.len())]
        ),
        (false, FetchState::Present) => {
            "it is what it was when it came, which could not be verified".to_owned()
        }
    };
    format!("{}: {state}, {}, {checked}", file.path.display(), BinaryBytes(file.bytes))
}

/// A result with the fields that all have.
fn result(command: &str, mut value: Value) -> Value {
    value["command"] = command.into();
    value["version"] = env!("CARGO_PKG_VERSION").into();
    value
}
