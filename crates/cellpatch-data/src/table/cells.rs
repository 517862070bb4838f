//! Columns of any kind, one row a cell.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Field, Schema};

use super::file::{TableFile, TableFormat, TableSummary};
use crate::anndata::NewValues;
use crate::error::{Error, Result};
use crate::unfinished_file::Existing;

/// Writes named columns beside the names of cells as CSV, TSV or Parquet, by the file's name. Missing values are empty.
///
/// - `columns`: one value a cell each
///
/// # Errors
/// [`Error::BadOption`] for a name that asks for no format; [`Error::WrongLength`] for a column of other length;
/// [`Error::FileExists`]; [`Error::Io`].
pub fn write_cell_table(
    path: &Path,
    existing: Existing,
    cell_ids: &[String],
    columns: &[(String, NewValues)],
) -> Result<TableSummary> {
    let format = TableFormat::of(path)?;
    let mut arrays: Vec<(&str, ArrayRef)> =
        vec![("cell_id", Arc::new(StringArray::from_iter_values(cell_ids)))];
    for (name, values) in columns {
        if values.len() != cell_ids.len() {
            let what = format!("column {name:?}");
            let (found, expected) = (values.len(), cell_ids.len());
            return Err(Error::WrongLength { what, of: "values", found, expected });
        }
        arrays.push((name, array(values)));
    }
    let fields: Vec<Field> =
        arrays.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut file = TableFile::create(path, existing, format, &schema, 16 * arrays.len())?;
    let batch = RecordBatch::try_new(schema, arrays.into_iter().map(|(_, array)| array).collect())
        .map_err(|error| Error::io("write", path, std::io::Error::other(error)))?;
    file.write(&batch)?;
    file.finish()
}

fn array(values: &NewValues) -> ArrayRef {
    match values {
        NewValues::Categories(labels) => {
            let name = |code: &Option<u32>| code.and_then(|code| labels.categories.get(code as usize));
            Arc::new(labels.codes.iter().map(name).collect::<StringArray>())
        }
        NewValues::Texts(values) => Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>()),
        NewValues::Integers(values) => Arc::new(Int64Array::from(values.clone())),
        NewValues::Float32(values) => {
            Arc::new(values.iter().map(|&value| (!value.is_nan()).then_some(value)).collect::<Float32Array>())
        }
        NewValues::Float64(values) => {
            Arc::new(values.iter().map(|&value| (!value.is_nan()).then_some(value)).collect::<Float64Array>())
        }
        NewValues::Booleans(values) => Arc::new(BooleanArray::from(values.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_every_column_and_leaves_missing_values_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cells.csv");
        let cells = ["a".to_owned(), "b".to_owned()];
        let columns = [
            ("domain".to_owned(), NewValues::Texts(vec![Some("1".into()), None])),
            ("x".to_owned(), NewValues::Float64(vec![f64::NAN, 2.5])),
        ];
        let written = write_cell_table(&path, Existing::Keep, &cells, &columns).unwrap();
        assert_eq!(written.n_rows, 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cell_id,domain,x\na,1,\nb,,2.5\n");
        let refused = write_cell_table(&path, Existing::Replace, &cells[..1], &columns);
        assert!(matches!(refused, Err(Error::WrongLength { .. })));
    }
}
