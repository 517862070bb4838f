//! The crate's one error type.

use cellpatch_data::ErrorCategory;

use crate::graph::NeighborStatistics;

/// What went wrong while making a graph, a model or a batch.
///
/// `Display` says what happened and where; [`Error::help`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A spot has no place.
    #[error("the position of spot {spot} is ({x}, {y})")]
    NonFinitePosition {
        /// The spot's number, from 0.
        spot: usize,
        /// Its first coordinate.
        x: f64,
        /// Its second.
        y: f64,
    },
    /// There are too few spots for a graph.
    #[error("there {} where {needed} are needed", if *n_spots == 1 { "is 1 spot".to_owned() } else { format!("are {n_spots} spots") })]
    TooFewSpots {
        /// How many there are.
        n_spots: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A neighbourhood that no spot can have.
    #[error("neighbours cannot be chosen by {what} {value}")]
    BadNeighborhood {
        /// "a radius of" or "a number of nearest spots of".
        what: &'static str,
        /// What it was set to.
        value: f64,
    },
    /// No spot has a neighbour.
    #[error("no spot has a neighbour within radius {radius}")]
    NoNeighbors {
        /// The radius.
        radius: f64,
        /// One within which the median spot has six.
        suggested_radius: f64,
    },
    /// Spots have so many neighbours that the radius cannot be meant.
    #[error(
        "a spot has {:.1} neighbours within radius {radius} on average ({} to {}), more than {limit}",
        statistics.mean, statistics.min, statistics.max
    )]
    TooManyNeighbors {
        /// The radius.
        radius: f64,
        /// The highest mean that is taken as meant.
        limit: usize,
        /// Neighbours of a sample of spots.
        statistics: Box<NeighborStatistics>,
        /// A radius within which the median spot has six.
        suggested_radius: f64,
    },
    /// An edge names a spot that is not there, or lists are out of order.
    #[error("the graph's lists are not those of {n_spots} spots")]
    BadGraph {
        /// Spots.
        n_spots: usize,
    },
    /// An expression matrix whose lists are out of order or hold what is no number.
    #[error("the expression matrix of {n_spots} spots and {n_genes} genes is not one: {reason}")]
    BadExpression {
        /// Spots.
        n_spots: usize,
        /// Genes.
        n_genes: usize,
        /// Why not.
        reason: &'static str,
    },
    /// Things that belong to one slice are of different sizes.
    #[error("{what}: {found} where {expected} are needed")]
    Disagreement {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// A configuration has a value that no model can have.
    #[error("{field} is {value}: {reason}")]
    BadConfig {
        /// The field.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// A model with patches was given a slice that says nothing of genes for them.
    #[error("CellPatch+STAGATE needs genes with a token")]
    NoPatchGenes,
    /// Training, or its run directory.
    #[error(transparent)]
    Train(#[from] cellpatch_train::Error),
    /// The patches' part of the model.
    #[error(transparent)]
    Model(#[from] cellpatch_model::Error),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NonFinitePosition { .. } => "leave spots without a position out".into(),
            Self::NoNeighbors { suggested_radius, .. } | Self::TooManyNeighbors { suggested_radius, .. } => {
                format!(
                    "a radius of {suggested_radius:.4} gives the median spot six neighbours; k nearest neighbours need no radius"
                )
            }
            Self::TooFewSpots { .. } => {
                "check that the slice is the one meant, or ask for fewer neighbours".into()
            }
            Self::BadNeighborhood { .. } => {
                "give a radius above 0, or 1 or more nearest spots; 6 are those of a hexagonal grid".into()
            }
            Self::Model(error) => return error.help(),
            Self::Train(error) => return error.help(),
            _ => return None,
        })
    }

    /// Whose fault it is.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::BadNeighborhood { .. }
            | Self::NoNeighbors { .. }
            | Self::TooManyNeighbors { .. }
            | Self::BadConfig { .. }
            | Self::NoPatchGenes => ErrorCategory::Usage,
            Self::Train(error) => error.category(),
            Self::Model(error) => match error.category() {
                cellpatch_model::ErrorCategory::Usage => ErrorCategory::Usage,
                cellpatch_model::ErrorCategory::Input => ErrorCategory::Input,
                cellpatch_model::ErrorCategory::Environment => ErrorCategory::Environment,
            },
            _ => ErrorCategory::Input,
        }
    }

    /// The same as what a training ends with.
    pub(crate) fn into_train(self) -> cellpatch_train::Error {
        match self {
            Self::Train(error) => error,
            Self::Model(error) => cellpatch_train::Error::Model(error),
            other => cellpatch_train::Error::Batch(Box::new(other)),
        }
    }
}
