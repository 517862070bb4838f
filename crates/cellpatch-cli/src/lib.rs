//! cellpatch-cli
