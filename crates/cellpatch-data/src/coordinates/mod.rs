//! Where the spots of a slice lie.

mod choice;
mod sections;
mod visium;

use std::path::Path;

pub use choice::CoordinateChoice;
pub use sections::Sections;
pub use visium::visium_matrix;

use crate::anndata::AnnDataFile;
use crate::error::{Error, Result};
use crate::source::{CellFormat, CellSource};

/// Matrices of `obsm` that are taken for coordinates where none is named, the first that is there.
const USUAL_NAMES: [&str; 2] = ["spatial", "X_spatial"];

/// The places of a slice's spots, one a cell of its file, in the file's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Coordinates {
    /// x and y, in the unit of the file: pixels of the full-resolution image in Visium data.
    pub positions: Vec<[f64; 2]>,
    /// A third coordinate, where there is one.
    pub z: Option<Vec<f64>>,
    /// Where they are from: `obsm["spatial"]`, a file.
    pub origin: String,
    /// Diameter of a spot in the same unit, where the scale factors of a Visium slide say it.
    pub spot_diameter: Option<f64>,
}

impl Coordinates {
    /// Reads the places of a source's cells.
    ///
    /// # Errors
    /// [`Error::NoCoordinates`] if there are none where they were looked for; [`Error::Missing`] for a matrix, column or file
    /// that was named and is not there; [`Error::Invalid`] if they are not two or three numbers for each cell;
    /// [`Error::BadCoordinate`] for NaN and infinite ones; [`Error::BadLine`] for a damaged table of positions.
    pub fn of(source: &dyn CellSource, choice: &CoordinateChoice) -> Result<Self> {
        let coordinates = match (choice, source.format()) {
            (CoordinateChoice::Folder(folder), _) => visium::read(folder, source)?,
            (_, CellFormat::AnnData) => {
                let file = AnnDataFile::open(source.path())?;
                match choice {
                    CoordinateChoice::Obsm(name) => of_obsm(&file, name)?,
                    CoordinateChoice::ObsColumns { x, y, z } => of_columns(&file, x, y, z.as_deref())?,
                    _ => match USUAL_NAMES.iter().find(|name| file.obsm_names().iter().any(|n| n == *name)) {
                        Some(name) => of_obsm(&file, name)?,
                        None => beside(source, &file)?,
                    },
                }
            }
            (CoordinateChoice::Usual, _) => match visium::folder_beside(source.path()) {
                Some(folder) => visium::read(&folder, source)?,
                None => return Err(none(source.path(), &["a spatial folder beside the matrix"], Vec::new())),
            },
            (CoordinateChoice::Obsm(name), _) => {
                return Err(missing(source.path(), "obsm matrix", name, &[]));
            }
            (CoordinateChoice::ObsColumns { x, .. }, _) => {
                return Err(missing(source.path(), "obs column", x, &[]));
            }
        };
        coordinates.check(source)?;
        Ok(coordinates)
    }

    fn check(&self, source: &dyn CellSource) -> Result<()> {
        let (path, dataset) = (source.path().to_path_buf(), self.origin.clone());
        let (found, expected) = (self.positions.len(), source.n_cells());
        if found != expected {
            let reason = format!("it has {found} rows, there are {expected} cells");
            return Err(Error::Invalid { path, dataset, reason });
        }
        let is_bad = |[x, y]: &[f64; 2]| !(x.is_finite() && y.is_finite());
        let Some(cell) = self.positions.iter().position(is_bad) else { return Ok(()) };
        let n_bad = self.positions.iter().filter(|position| is_bad(position)).count();
        let [x, y] = self.positions[cell];
        let name = source.cell_ids()?.into_iter().nth(cell).unwrap_or_default();
        Err(Error::BadCoordinate { path, dataset, row: cell, cell: name, x, y, n_bad })
    }
}

/// What an `.h5ad` without the usual matrices has beside it.
fn beside(source: &dyn CellSource, file: &AnnDataFile) -> Result<Coordinates> {
    match visium::folder_beside(source.path()) {
        Some(folder) => visium::read(&folder, source),
        None => {
            let looked_for = ["obsm[\"spatial\"]", "obsm[\"X_spatial\"]", "a spatial folder beside the file"];
            let mut available: Vec<String> =
                file.obsm_names().iter().map(|name| format!("obsm[{name:?}]")).collect();
            available.extend(file.obs_columns().iter().map(|name| format!("obs[{name:?}]")));
            Err(none(source.path(), &looked_for, available))
        }
    }
}

fn of_obsm(file: &AnnDataFile, name: &str) -> Result<Coordinates> {
    let matrix = file.obsm(name)?;
    let origin = format!("obsm[{name:?}]");
    if !(2..=3).contains(&matrix.n_columns) {
        return Err(Error::Invalid {
            path: file.path().to_path_buf(),
            dataset: origin,
            reason: format!("it has {} columns, expected x and y, or x, y and z", matrix.n_columns),
        });
    }
    let rows = matrix.values.chunks_exact(matrix.n_columns);
    Ok(Coordinates {
        positions: rows.clone().map(|row| [row[0], row[1]]).collect(),
        z: (matrix.n_columns == 3).then(|| rows.map(|row| row[2]).collect()),
        origin,
        spot_diameter: None,
    })
}

fn of_columns(file: &AnnDataFile, x: &str, y: &str, z: Option<&str>) -> Result<Coordinates> {
    let numbers = |name: &str| -> Result<Vec<f64>> {
        let column = file.obs_column(name)?;
        column.numbers().ok_or_else(|| Error::Invalid {
            path: file.path().to_path_buf(),
            dataset: format!("obs[{name:?}]"),
            reason: "it does not hold numbers".into(),
        })
    };
    let third = z.map_or(String::new(), |z| format!(", obs[{z:?}]"));
    Ok(Coordinates {
        positions: numbers(x)?.into_iter().zip(numbers(y)?).map(|(x, y)| [x, y]).collect(),
        z: z.map(numbers).transpose()?,
        origin: format!("obs[{x:?}], obs[{y:?}]{third}"),
        spot_diameter: None,
    })
}

fn none(path: &Path, looked_for: &[&str], available: Vec<String>) -> Error {
    let looked_for = looked_for.iter().map(ToString::to_string).collect();
    Error::NoCoordinates { path: path.to_path_buf(), looked_for, available }
}

fn missing(path: &Path, what: &'static str, name: &str, available: &[String]) -> Error {
    Error::Missing { path: path.to_path_buf(), what, name: name.to_owned(), available: available.to_vec() }
}
