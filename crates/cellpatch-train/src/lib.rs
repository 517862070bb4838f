//! cellpatch-train
