//! Adds a column of every kind, a matrix and a dictionary to a copy of an `.h5ad`, without touching the rest.
//!
//! `cargo run --release -p cellpatch-data --example annotate_h5ad -- cells.h5ad annotated.h5ad [width]`

use std::path::PathBuf;

use cellpatch_data::{Existing, H5adAnnotator, Labels, NewValues, UnsValue};

/// Rows of the matrix made and written at a time.
const ROWS: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: annotate_h5ad INPUT OUTPUT [WIDTH]";
    let input = PathBuf::from(arguments.next().ok_or(usage)?);
    let output = PathBuf::from(arguments.next().ok_or(usage)?);
    let width: usize = arguments.next().map_or(Ok(32), |width| width.parse())?;

    let mut annotator = H5adAnnotator::create(&input, &output, Existing::Replace)?;
    let n_cells = annotator.n_cells();
    let categories = vec!["B cell".into(), "T cell".into(), "γδ T cell".into()];
    let codes = (0..n_cells).map(|cell| (cell % 4 < 3).then_some((cell % 4) as u32)).collect();
    annotator.obs_column("example_label", Labels { categories, codes })?;
    annotator
        .obs_column("example_confidence", (0..n_cells).map(|cell| cell as f32 * 0.5).collect::<Vec<_>>())?;
    let numbers = (0..n_cells).map(|cell| if cell == 0 { f64::NAN } else { 1.0 / cell as f64 });
    annotator.obs_column("example_number", NewValues::Float64(numbers.collect()))?;
    annotator.obs_column(
        "example_kept",
        NewValues::Booleans((0..n_cells).map(|cell| Some(cell % 2 == 0)).collect()),
    )?;
    let rank = (0..n_cells).map(|cell| Some(cell as i64 - 3));
    annotator.obs_column("example_rank", NewValues::Integers(rank.clone().collect()))?;
    let some = rank.map(|rank| rank.filter(|rank| rank % 5 != 0));
    annotator.obs_column("example_maybe_rank", NewValues::Integers(some.collect()))?;
    let texts =
        (0..n_cells).map(|cell| Some(if cell == 1 { String::new() } else { format!("cell µ{cell}") }));
    annotator.obs_column("example_text", NewValues::Texts(texts.collect()))?;

    let embedding = annotator.obsm("X_example", width)?;
    for first in (0..n_cells).step_by(ROWS) {
        let rows = first..n_cells.min(first + ROWS);
        let values =
            rows.flat_map(|cell| (0..width).map(move |column| (cell * width + column) as f32 * 1e-3));
        annotator.write_rows(embedding, first, &values.collect::<Vec<_>>())?;
    }
    let settings = [
        ("model", UnsValue::Text("example".into())),
        ("classes", UnsValue::Texts(vec!["B cell".into(), "T cell".into()])),
        ("threshold", UnsValue::Number(0.5)),
        ("n_top", UnsValue::Integer(3)),
        ("temperatures", UnsValue::Numbers(vec![1.0, 2.0])),
    ];
    annotator.uns("example", &settings)?;
    let summary = annotator.finish()?;
    #[allow(clippy::print_stdout, reason = "what an example is for")]
    {
        println!("{}: {} bytes", summary.path.display(), summary.file_bytes);
        println!("added {}, replaced {}", summary.added.join(", "), summary.replaced.join(", "));
    }
    Ok(())
}
