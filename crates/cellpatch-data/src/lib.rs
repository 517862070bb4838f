//! cellpatch-data
