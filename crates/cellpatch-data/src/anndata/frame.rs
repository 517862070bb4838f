//! Data frames: groups of columns since AnnData 0.7, one compound dataset before.

use crate::error::{Error, Result};
use crate::h5::{Array, Attribute, Container, Element, Member, ObjectKind, to_f64, to_integer, to_strings};
use crate::source::CellNames;

use super::column::{Column, ColumnValues};
use super::labels::Labels;

/// The names in a frame; its values are read when asked for.
pub(super) struct Frame {
    name: String,
    index: String,
    columns: Vec<String>,
    n_rows: usize,
    compound: bool,
}

impl Frame {
    /// Reads the names of a frame.
    pub(super) fn open(container: &dyn Container, name: &str) -> Result<Self> {
        match container.kind(name)? {
            Some(ObjectKind::Group) => Self::open_group(container, name),
            Some(ObjectKind::Array) => Self::open_compound(container, name),
            None => Err(Error::Missing {
                path: container.path().to_path_buf(),
                what: "group",
                name: name.to_string(),
                available: container.members("/")?,
            }),
        }
    }

    fn open_group(container: &dyn Container, name: &str) -> Result<Self> {
        let members = container.members(name)?;
        let named = match container.attribute(name, "_index")? {
            Some(Attribute::Text(index)) => Some(index),
            _ => ["_index", "index"].map(str::to_string).into_iter().find(|index| members.contains(index)),
        };
        let index = named.filter(|index| members.contains(index)).ok_or_else(|| Error::Missing {
            path: container.path().to_path_buf(),
            what: "index",
            name: name.to_string(),
            available: members.clone(),
        })?;
        let is_column = |column: &String| *column != index && column != "__categories";
        let columns = match container.attribute(name, "column-order")? {
            Some(Attribute::Texts(order)) => {
                order.into_iter().filter(|column| members.contains(column)).collect()
            }
            _ => members.into_iter().filter(is_column).collect(),
        };
        let n_rows = column_len(container, &format!("{name}/{index}"))?;
        Ok(Self { name: name.to_string(), index, columns, n_rows, compound: false })
    }

    fn open_compound(container: &dyn Container, name: &str) -> Result<Self> {
        let array = container.array(name)?;
        let Element::Compound { members, .. } = array.element() else {
            return Err(
                array.invalid(format!("it holds {}, expected a data frame", array.element().describe()))
            );
        };
        // pandas' to_records puts the index first, whatever its name.
        let mut names = members.iter().map(|member| member.name.clone());
        let index = names.next().ok_or_else(|| array.invalid("its records have no fields"))?;
        let columns = names.collect();
        Ok(Self { name: name.to_string(), index, columns, n_rows: array.n_rows(), compound: true })
    }

    /// The frame's name in the file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Name of the column with the row names.
    pub(super) fn index_name(&self) -> &str {
        &self.index
    }

    /// How many rows it has.
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Its columns, without the index.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The row names.
    pub(super) fn index(&self, container: &dyn Container) -> Result<Vec<String>> {
        let index = self.read(container, &self.index)?;
        Ok(index.texts().into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The row names one after the other. Texts in one array are read a few thousand at a time.
    pub(super) fn index_names(&self, container: &dyn Container) -> Result<CellNames> {
        const ROWS: usize = 1 << 12;
        let name = format!("{}/{}", self.name, self.index);
        if !self.compound && container.kind(&name)? == Some(ObjectKind::Array) {
            let mut array = container.array(&name)?;
            let is_text = matches!(array.element(), Element::VariableText | Element::FixedText { .. });
            if is_text && array.shape() == [self.n_rows] {
                let n_rows = self.n_rows;
                let pieces = (0..n_rows).step_by(ROWS);
                let pieces = pieces.map(move |start| array.read_texts_of(start, ROWS.min(n_rows - start)));
                return Ok(Box::new(pieces.flat_map(|texts| match texts {
                    Ok(texts) => texts.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                })));
            }
        }
        Ok(Box::new(self.index(container)?.into_iter().map(Ok)))
    }

    /// One column.
    pub(super) fn column(&self, container: &dyn Container, name: &str) -> Result<Column> {
        if !self.columns.iter().any(|column| column == name) && name != self.index {
            return Err(Error::Missing {
                path: container.path().to_path_buf(),
                what: if self.name == "obs" { "obs column" } else { "var column" },
                name: name.to_string(),
                available: self.columns.clone(),
            });
        }
        self.read(container, name)
    }

    fn read(&self, container: &dyn Container, column: &str) -> Result<Column> {
        let values = if self.compound {
            self.read_field(container, column)?
        } else {
            self.read_member(container, column)?
        };
        let column = Column { name: column.to_string(), values };
        if column.len() != self.n_rows {
            return Err(Error::Invalid {
                path: container.path().to_path_buf(),
                dataset: format!("{}/{}", self.name, column.name),
                reason: format!("it has {} rows, the index has {}", column.len(), self.n_rows),
            });
        }
        Ok(column)
    }

    fn read_member(&self, container: &dyn Container, column: &str) -> Result<ColumnValues> {
        let name = format!("{}/{column}", self.name);
        if container.kind(&name)? == Some(ObjectKind::Group) {
            return read_encoded(container, &name);
        }
        let mut array = container.array(&name)?;
        let categories = format!("{}/__categories/{column}", self.name);
        if matches!(array.element(), Element::Integer { .. }) && container.kind(&categories)?.is_some() {
            return read_codes(container, array.as_mut(), &categories);
        }
        read_array(array.as_mut())
    }

    /// A field of every record. Categories of a column `c` are the dataset `uns/c_categories`.
    fn read_field(&self, container: &dyn Container, column: &str) -> Result<ColumnValues> {
        const ROWS: usize = 1 << 14;
        let mut array = container.array(&self.name)?;
        let Element::Compound { size, members } = array.element().clone() else {
            return Err(array.invalid("it is not a data frame any more"));
        };
        let Some(Member { offset, element, .. }) = members.into_iter().find(|member| member.name == column)
        else {
            return Err(array.invalid(format!("it has no field {column:?}")));
        };
        let mut field = Vec::new();
        for start in (0..self.n_rows).step_by(ROWS) {
            let records = array.read_rows(start, ROWS.min(self.n_rows - start))?;
            for record in records.chunks_exact(size) {
                field.extend_from_slice(&record[offset..offset + element.size()]);
            }
        }
        let values = decode(array.as_mut(), &element, &field)?;
        let categories = format!("uns/{column}_categories");
        match values {
            ColumnValues::Integers(codes) if container.kind(&categories)? == Some(ObjectKind::Array) => {
                let categories = read_array(container.array(&categories)?.as_mut())?;
                labels(array.as_ref(), codes.into_iter().map(|code| code.unwrap_or(-1)), categories)
            }
            values => Ok(values),
        }
    }
}

/// How many rows a column has, without reading it.
fn column_len(container: &dyn Container, name: &str) -> Result<usize> {
    let stored = match container.kind(name)? {
        Some(ObjectKind::Group) => {
            let part = ["codes", "values"].map(|part| format!("{name}/{part}"));
            let mut found = None;
            for part in part {
                if container.kind(&part)? == Some(ObjectKind::Array) {
                    found = Some(part);
                    break;
                }
            }
            found.unwrap_or_else(|| name.to_string())
        }
        _ => name.to_string(),
    };
    Ok(container.array(&stored)?.n_rows())
}

/// A column that is a group: categorical or nullable.
fn read_encoded(container: &dyn Container, name: &str) -> Result<ColumnValues> {
    if container.kind(&format!("{name}/codes"))?.is_some() {
        let mut codes = container.array(&format!("{name}/codes"))?;
        return read_codes(container, codes.as_mut(), &format!("{name}/categories"));
    }
    if container.kind(&format!("{name}/values"))?.is_none() {
        return Err(Error::Invalid {
            path: container.path().to_path_buf(),
            dataset: name.to_string(),
            reason: "it is a group with neither codes nor values".into(),
        });
    }
    let mut values = read_array(container.array(&format!("{name}/values"))?.as_mut())?;
    if container.kind(&format!("{name}/mask"))?.is_some() {
        let mut mask = container.array(&format!("{name}/mask"))?;
        let length = mask.n_rows();
        let missing = mask.read_integers(0, length)?;
        let n_values = Column { name: String::new(), values: values.clone() }.len();
        if length != n_values {
            return Err(mask.invalid(format!("it has {length} rows for {n_values} values")));
        }
        hide(&mut values, &missing);
    }
    Ok(values)
}

/// Makes the values missing where the mask is not 0.
fn hide(values: &mut ColumnValues, mask: &[i64]) {
    let rows = mask.iter().enumerate().filter(|&(_, &missing)| missing != 0).map(|(row, _)| row);
    for row in rows {
        match values {
            ColumnValues::Categories(labels) => labels.codes[row] = None,
            ColumnValues::Texts(values) => values[row] = None,
            ColumnValues::Integers(values) => values[row] = None,
            ColumnValues::Numbers(values) => values[row] = f64::NAN,
            ColumnValues::Booleans(values) => values[row] = None,
        }
    }
}

fn read_codes(container: &dyn Container, codes: &mut dyn Array, categories: &str) -> Result<ColumnValues> {
    let n_rows = codes.n_rows();
    let rows = codes.read_integers(0, n_rows)?;
    let categories = match container.kind(categories)? {
        Some(ObjectKind::Group) => read_encoded(container, categories)?,
        _ => read_array(container.array(categories)?.as_mut())?,
    };
    labels(codes, rows.into_iter(), categories)
}

/// Codes and categories as labels; -1 is missing.
fn labels(
    codes: &dyn Array,
    rows: impl Iterator<Item = i64>,
    categories: ColumnValues,
) -> Result<ColumnValues> {
    let categories: Vec<String> = Column { name: String::new(), values: categories }
        .texts()
        .into_iter()
        .map(Option::unwrap_or_default)
        .collect();
    let codes = rows
        .enumerate()
        .map(|(row, code)| match u32::try_from(code) {
            Ok(code) if (code as usize) < categories.len() => Ok(Some(code)),
            Err(_) if code == -1 => Ok(None),
            _ => Err(codes.invalid(format!("row {row} has code {code} of {} categories", categories.len()))),
        })
        .collect::<Result<_>>()?;
    Ok(ColumnValues::Categories(Labels { categories, codes }))
}

/// A column that is one plain array.
fn read_array(array: &mut dyn Array) -> Result<ColumnValues> {
    if array.shape().len() > 1 {
        return Err(array.invalid(format!("its shape is {:?}, expected one dimension", array.shape())));
    }
    if *array.element() == Element::VariableText {
        return Ok(ColumnValues::Texts(array.read_texts()?.into_iter().map(Some).collect()));
    }
    let n_rows = array.n_rows();
    let bytes = array.read_rows(0, n_rows)?;
    let element = array.element().clone();
    decode(array, &element, &bytes)
}

fn decode(array: &mut dyn Array, element: &Element, bytes: &[u8]) -> Result<ColumnValues> {
    let invalid = |reason| array.invalid(reason);
    Ok(match element {
        Element::VariableText => {
            ColumnValues::Texts(array.dereference(bytes)?.into_iter().map(Some).collect())
        }
        Element::FixedText { .. } => {
            ColumnValues::Texts(to_strings(element, bytes).map_err(invalid)?.into_iter().map(Some).collect())
        }
        Element::Boolean => ColumnValues::Booleans(bytes.iter().map(|&value| Some(value != 0)).collect()),
        Element::Float { .. } | Element::Integer { size: 8, signed: false, .. } => {
            ColumnValues::Numbers(to_f64(element, bytes).map_err(invalid)?)
        }
        _ => ColumnValues::Integers(
            to_integer(element, bytes).map_err(invalid)?.into_iter().map(Some).collect(),
        ),
    })
}
