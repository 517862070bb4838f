//! Matrices of `obsm`.

use super::frame::Frame;
use crate::error::{Error, Result};
use crate::h5::{Container, ObjectKind};

/// Numbers for every cell: an embedding, coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct ObsMatrix {
    /// Numbers of a cell.
    pub n_columns: usize,
    /// [cells, n_columns], row-major.
    pub values: Vec<f64>,
}

/// See [`AnnDataFile::obsm`](super::AnnDataFile::obsm).
pub(super) fn read(
    container: &dyn Container,
    name: &str,
    available: &[String],
    n_cells: usize,
) -> Result<ObsMatrix> {
    let path = container.path();
    if !available.iter().any(|known| known == name) {
        return Err(Error::Missing {
            path: path.to_path_buf(),
            what: "obsm matrix",
            name: name.to_owned(),
            available: available.to_vec(),
        });
    }
    let dataset = format!("obsm/{name}");
    let invalid =
        |reason: String| Error::Invalid { path: path.to_path_buf(), dataset: dataset.clone(), reason };
    let is_frame = container.kind(&dataset)? == Some(ObjectKind::Group);
    if is_frame && container.attribute(&dataset, "column-order")?.is_none() {
        return Err(invalid("it is a group that is no data frame; sparse matrices are not read here".into()));
    }
    let matrix = if is_frame { of_frame(container, &dataset)? } else { of_array(container, &dataset)? };
    let n_rows = matrix.values.len() / matrix.n_columns.max(1);
    if n_rows != n_cells || matrix.n_columns == 0 {
        return Err(invalid(format!(
            "its shape is [{n_rows}, {}], obs has {n_cells} cells",
            matrix.n_columns
        )));
    }
    Ok(matrix)
}

fn of_array(container: &dyn Container, dataset: &str) -> Result<ObsMatrix> {
    let mut array = container.array(dataset)?;
    let &[n_rows, n_columns] = array.shape() else {
        let shape = array.shape().to_vec();
        return Err(array.invalid(format!("its shape is {shape:?}, expected two dimensions")));
    };
    Ok(ObsMatrix { n_columns, values: array.read_numbers(0, n_rows)? })
}

fn of_frame(container: &dyn Container, dataset: &str) -> Result<ObsMatrix> {
    let frame = Frame::open(container, dataset)?;
    let mut columns = Vec::new();
    for name in frame.columns() {
        let column = frame.column(container, name)?;
        columns.push(column.numbers().ok_or_else(|| Error::Invalid {
            path: container.path().to_path_buf(),
            dataset: format!("{dataset}/{name}"),
            reason: "it does not hold numbers".into(),
        })?);
    }
    let rows = 0..frame.n_rows();
    let values = rows.flat_map(|row| columns.iter().map(move |column| column[row])).collect();
    Ok(ObsMatrix { n_columns: columns.len(), values })
}
