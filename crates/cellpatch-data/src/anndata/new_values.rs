//! New columns and entries, in the encodings AnnData 0.8 and later write.

use super::column::ColumnValues;
use super::labels::Labels;
use crate::error::{Error, Result};
use crate::h5::edit::{Address, Editor, NewAttribute, NewType};

/// One value per cell, to become a column of `obs`.
#[derive(Debug, Clone, PartialEq)]
pub enum NewValues {
    /// Values out of a fixed list of distinct names: pandas' `category`.
    Categories(Labels),
    /// Text. Without missing values a plain string column, else categories in ascending order, as AnnData itself does.
    Texts(Vec<Option<String>>),
    /// 64-bit whole numbers; with missing values pandas' nullable `Int64`.
    Integers(Vec<Option<i64>>),
    /// 32-bit floating-point numbers; NaN is missing.
    Float32(Vec<f32>),
    /// 64-bit floating-point numbers; NaN is missing.
    Float64(Vec<f64>),
    /// True or false; with missing values pandas' nullable `boolean`.
    Booleans(Vec<Option<bool>>),
}

impl From<ColumnValues> for NewValues {
    fn from(values: ColumnValues) -> Self {
        match values {
            ColumnValues::Categories(labels) => Self::Categories(labels),
            ColumnValues::Texts(values) => Self::Texts(values),
            ColumnValues::Integers(values) => Self::Integers(values),
            ColumnValues::Numbers(values) => Self::Float64(values),
            ColumnValues::Booleans(values) => Self::Booleans(values),
        }
    }
}

impl From<Labels> for NewValues {
    fn from(labels: Labels) -> Self {
        Self::Categories(labels)
    }
}

impl From<Vec<f32>> for NewValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Float32(values)
    }
}

impl NewValues {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Categories(labels) => labels.codes.len(),
            Self::Texts(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Float32(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Booleans(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the column.
    pub(super) fn write(&self, name: &str, editor: &mut Editor) -> Result<Address> {
        match self {
            Self::Categories(labels) => write_labels(name, labels, editor),
            Self::Texts(values) => match values.iter().map(Option::as_deref).collect::<Option<Vec<_>>>() {
                Some(texts) => write_texts(&texts, editor),
                None => write_labels(name, &Labels::of_texts(values), editor),
            },
            Self::Float32(values) => {
                write_plain(NewType::Float32, &bytes_of(values, f32::to_le_bytes), values.len(), editor)
            }
            Self::Float64(values) => {
                write_plain(NewType::Float64, &bytes_of(values, f64::to_le_bytes), values.len(), editor)
            }
            Self::Integers(values) => {
                let bytes = |value: Option<i64>| value.unwrap_or_default().to_le_bytes();
                write_nullable("nullable-integer", NewType::Signed(8), values, bytes, editor)
            }
            Self::Booleans(values) => {
                let bytes = |value: Option<bool>| [u8::from(value.unwrap_or_default())];
                write_nullable("nullable-boolean", NewType::Boolean, values, bytes, editor)
            }
        }
    }
}

/// An entry of a dictionary in `uns`.
#[derive(Debug, Clone, PartialEq)]
pub enum UnsValue {
    /// One text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A number.
    Number(f64),
    /// A whole number.
    Integer(i64),
    /// A list of numbers.
    Numbers(Vec<f64>),
}

impl UnsValue {
    pub(super) fn write(&self, editor: &mut Editor) -> Result<Address> {
        match self {
            Self::Text(text) => {
                let encoding = encoding(editor, "string", "0.2.0")?;
                let data = editor.write_texts([text.as_str()].into_iter())?;
                editor.write_array(NewType::Text, &[], &data, &encoding)
            }
            Self::Texts(texts) => write_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>(), editor),
            Self::Number(number) => {
                let encoding = encoding(editor, "numeric-scalar", "0.2.0")?;
                editor.write_array(NewType::Float64, &[], &number.to_le_bytes(), &encoding)
            }
            Self::Integer(number) => {
                let encoding = encoding(editor, "numeric-scalar", "0.2.0")?;
                editor.write_array(NewType::Signed(8), &[], &number.to_le_bytes(), &encoding)
            }
            Self::Numbers(values) => {
                write_plain(NewType::Float64, &bytes_of(values, f64::to_le_bytes), values.len(), editor)
            }
        }
    }
}

/// The two attributes that tell AnnData how to read an object.
pub(super) fn encoding(editor: &mut Editor, kind: &str, version: &str) -> Result<[NewAttribute; 2]> {
    Ok([editor.text_attribute("encoding-type", kind)?, editor.text_attribute("encoding-version", version)?])
}

fn bytes_of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

fn write_plain(of: NewType, data: &[u8], n_values: usize, editor: &mut Editor) -> Result<Address> {
    let encoding = encoding(editor, "array", "0.2.0")?;
    editor.write_array(of, &[n_values as u64], data, &encoding)
}

fn write_texts(texts: &[&str], editor: &mut Editor) -> Result<Address> {
    let encoding = encoding(editor, "string-array", "0.2.0")?;
    let data = editor.write_texts(texts.iter().copied())?;
    editor.write_array(NewType::Text, &[texts.len() as u64], &data, &encoding)
}

/// A plain array, or values and a mask if some are missing.
fn write_nullable<T: Copy, const N: usize>(
    kind: &str,
    of: NewType,
    values: &[Option<T>],
    bytes: impl Fn(Option<T>) -> [u8; N],
    editor: &mut Editor,
) -> Result<Address> {
    let data = write_plain(of, &bytes_of(values, bytes), values.len(), editor)?;
    if values.iter().all(Option::is_some) {
        return Ok(data);
    }
    let mask: Vec<u8> = values.iter().map(|value| u8::from(value.is_none())).collect();
    let mask = write_plain(NewType::Boolean, &mask, values.len(), editor)?;
    let encoding = encoding(editor, kind, "0.1.0")?;
    editor.write_group(&[("values", data), ("mask", mask)], &encoding)
}

/// Categories and codes of the narrowest signed integer; -1 is missing.
fn write_labels(name: &str, labels: &Labels, editor: &mut Editor) -> Result<Address> {
    let n_categories = labels.categories.len();
    let refuse = |reason: String| Error::BadOption { option: "obs column", value: name.to_string(), reason };
    let mut sorted: Vec<&str> = labels.categories.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("the category {:?} occurs twice", twice[0])));
    }
    if let Some(code) = labels.codes.iter().flatten().find(|&&code| code as usize >= n_categories) {
        return Err(refuse(format!("code {code} is not one of {n_categories} categories")));
    }
    let codes = labels.codes.iter().map(|code| code.map_or(-1, i64::from));
    let (of, data): (_, Vec<u8>) = match n_categories {
        0..=0x7f => (NewType::Signed(1), codes.flat_map(|code| (code as i8).to_le_bytes()).collect()),
        0x80..=0x7fff => (NewType::Signed(2), codes.flat_map(|code| (code as i16).to_le_bytes()).collect()),
        _ => (NewType::Signed(4), codes.flat_map(|code| (code as i32).to_le_bytes()).collect()),
    };
    let codes = write_plain(of, &data, labels.codes.len(), editor)?;
    let names: Vec<&str> = labels.categories.iter().map(String::as_str).collect();
    let categories = write_texts(&names, editor)?;
    let mut attributes = encoding(editor, "categorical", "0.2.0")?.to_vec();
    attributes.push(editor.boolean_attribute("ordered", false));
    editor.write_group(&[("categories", categories), ("codes", codes)], &attributes)
}
