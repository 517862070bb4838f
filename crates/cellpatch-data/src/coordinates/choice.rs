//! Where coordinates are looked for.

use std::path::PathBuf;

/// Where coordinates are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CoordinateChoice {
    /// `obsm["spatial"]`, then `obsm["X_spatial"]`, then a Visium `spatial` folder beside the matrix.
    #[default]
    Usual,
    /// A matrix of `obsm`, of two or three columns.
    Obsm(String),
    /// Columns of `obs`.
    ObsColumns {
        /// The first coordinate.
        x: String,
        /// The second.
        y: String,
        /// The third, where there is one.
        z: Option<String>,
    },
    /// A Visium `spatial` folder, or one that holds it.
    Folder(PathBuf),
}
