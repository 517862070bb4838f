//! Attributes of groups and arrays.

use hdf5_pure::AttrValue;

/// An attribute, reduced to what AnnData writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute {
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Other,
}

impl From<&AttrValue> for Attribute {
    fn from(value: &AttrValue) -> Self {
        if let Some(text) = value.as_str() {
            return Attribute::Text(text.to_string());
        }
        if let Some(texts) = value.as_strings() {
            return Attribute::Texts(texts.to_vec());
        }
        match value.to_i64s() {
            Some(integers) => Attribute::Integers(integers),
            None => Attribute::Other,
        }
    }
}
