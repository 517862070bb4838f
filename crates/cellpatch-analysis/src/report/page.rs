//! The document around the sections, and the few elements they are made of.

use std::path::Path;

use super::Fact;
use crate::error::{Error, Result};
use crate::markup::escape;

/// No script and nothing from elsewhere can run even if a text slipped through unescaped.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = include_str!("page.css");

/// A complete page. The title is escaped here, the sections are markup already.
pub(super) fn document(title: &str, sections: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{sections}</main>\n</body>\n</html>\n"
    )
}

/// Writes a page to a file, through a sibling that is renamed, so that a reader never sees half of it.
pub(super) fn write(page: &str, path: &Path) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    std::fs::write(partial, page).map_err(|source| Error::io("write", partial, source))?;
    std::fs::rename(partial, path).map_err(|source| Error::io("rename", path, source))
}

/// The top of the page: its heading, the outcome in a sentence, the command, and numbers to see first. All are text,
/// and what is empty is left out.
pub(super) fn page_header(title: &str, lead: &str, command_line: &str, numbers: &[Fact]) -> String {
    let mut markup = format!("<header>\n<h1>{}</h1>\n", escape(title));
    if !lead.is_empty() {
        markup.push_str(&format!("<p class=\"lead\">{}</p>\n", escape(lead)));
    }
    if !command_line.is_empty() {
        markup.push_str(&command(command_line));
    }
    if !numbers.is_empty() {
        markup.push_str("<dl class=\"numbers\">\n");
        for Fact { name, value } in numbers {
            markup.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value)));
        }
        markup.push_str("</dl>\n");
    }
    markup.push_str("</header>\n");
    markup
}

/// A headed part of the page, or nothing where it has no content. The content is markup.
pub(super) fn section(heading: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{}</h2>\n{content}</section>\n", escape(heading))
}

/// A figure with its caption. The SVG is markup, the caption is text.
pub(super) fn figure(svg: &str, caption: &str) -> String {
    let caption = if caption.is_empty() {
        String::new()
    } else {
        format!("<figcaption>{}</figcaption>\n", escape(caption))
    };
    format!("<figure>\n{svg}{caption}</figure>\n")
}

/// A paragraph of text.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Sentences one below the other, or nothing where there is none.
pub(super) fn list(sentences: &[String]) -> String {
    if sentences.is_empty() {
        return String::new();
    }
    let items: String = sentences.iter().map(|sentence| format!("<li>{}</li>\n", escape(sentence))).collect();
    format!("<ul class=\"meaning\">\n{items}</ul>\n")
}

/// A command as it would be typed.
pub(super) fn command(text: &str) -> String {
    format!("<pre><code>{}</code></pre>\n", escape(text))
}

/// How a column's cells are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Text, from the left.
    Text,
    /// Numbers, to the right.
    Number,
    /// File names and the like, from the left in a fixed-width font.
    Code,
}

impl Align {
    fn class(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::Number => " class=\"number\"",
            Self::Code => " class=\"code\"",
        }
    }
}

/// A table, or nothing where it has no rows. Headings and cells are text; rows are as long as the headings.
/// With `total`, the last row is set apart.
pub(super) fn table<const N: usize>(
    headings: [(&str, Align); N],
    rows: &[[String; N]],
    total: bool,
) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut markup = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (heading, align) in headings {
        let class = align.class();
        markup.push_str(&format!("<th{class} scope=\"col\">{}</th>", escape(heading)));
    }
    markup.push_str("</tr></thead>\n<tbody>\n");
    for (at, row) in rows.iter().enumerate() {
        markup.push_str(if total && at + 1 == rows.len() { "<tr class=\"total\">" } else { "<tr>" });
        for (cell, (_, align)) in row.iter().zip(headings) {
            markup.push_str(&format!("<td{}>{}</td>", align.class(), escape(cell)));
        }
        markup.push_str("</tr>\n");
    }
    markup.push_str("</tbody>\n</table></div>\n");
    markup
}
