//! Lines of delimited fields, with quotes where they are needed (RFC 4180).

use std::borrow::Cow;

/// Appends a row and its end to `line`.
pub(crate) fn write_row<'f>(line: &mut String, delimiter: char, fields: impl Iterator<Item = &'f str>) {
    for (position, field) in fields.enumerate() {
        if position > 0 {
            line.push(delimiter);
        }
        if field.contains([delimiter, '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&field.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(field);
        }
    }
    line.push('\n');
}

/// The fields of one line without its end, or `None` if a quote is not closed.
pub(crate) fn fields(line: &str, delimiter: char) -> Option<Vec<Cow<'_, str>>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(delimiter).unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(delimiter) {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// A field up to its closing quote, and what follows.
fn quoted_field(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(next) = rest.strip_prefix('"') else { return Some((Cow::Owned(field), rest)) };
        field.push('"');
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_reads_as_it_was_written(row in prop::collection::vec("[a-z,;\"\t µ]{0,8}", 1..6)) {
            for delimiter in [',', '\t'] {
                let mut line = String::new();
                write_row(&mut line, delimiter, row.iter().map(String::as_str));
                let line = line.strip_suffix('\n').unwrap();
                prop_assert_eq!(fields(line, delimiter).unwrap(), row.clone());
            }
        }
    }

    #[test]
    fn a_quote_that_does_not_close_is_no_row() {
        assert_eq!(fields("\"a,b", ','), None);
        assert_eq!(fields("\"a\"b,c", ','), None);
        assert_eq!(fields("a\"b,", ',').unwrap(), ["a\"b", ""]);
    }
}
