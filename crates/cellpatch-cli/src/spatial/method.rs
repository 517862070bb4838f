//! The two methods and what their results are called.

/// A way to embed spots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Stagate,
    CellPatchStagate,
}

impl Method {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stagate => "STAGATE",
            Self::CellPatchStagate => "CellPatch+STAGATE",
        }
    }

    /// In names of columns, matrices and folders.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Stagate => "stagate",
            Self::CellPatchStagate => "cellpatch_stagate",
        }
    }
}
