//! cellpatch-analysis
