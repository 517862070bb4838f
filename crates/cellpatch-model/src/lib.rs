//! cellpatch-model
