//! The page of measurements: each measurement writes its own section and leaves the others alone.

use std::fs;
use std::path::Path;

use crate::Result;

/// Puts a section of its own into a page, in place of what it said before, or at the end.
///
/// - heading: without the `## `
/// - text: without headings of the same depth
pub(crate) fn write_section(path: &Path, heading: &str, text: &str) -> Result<()> {
    let page = if path.exists() { fs::read_to_string(path)? } else { "# Benchmarks\n".to_owned() };
    Ok(fs::write(path, with_section(&page, heading, text))?)
}

fn with_section(page: &str, heading: &str, text: &str) -> String {
    let section = format!("## {heading}\n\n{}\n", text.trim());
    let line = format!("## {heading}\n");
    let Some(start) =
        page.match_indices(&line).map(|(at, _)| at).find(|&at| at == 0 || page.as_bytes()[at - 1] == b'\n')
    else {
        return format!("{}\n\n{section}", page.trim_end());
    };
    let rest = &page[start + line.len()..];
    match rest.find("\n## ") {
        Some(next) => format!("{}{section}{}", &page[..start], &rest[next..]),
        None => format!("{}{section}", &page[..start]),
    }
}
