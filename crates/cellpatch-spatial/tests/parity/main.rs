//! STAGATE's and CellPatch+STAGATE's numbers against PyTorch's, on every backend compiled in.
//!
//! `tests/golden` holds what our own PyTorch computed in double precision, and `manifest.json` the tolerances that
//! follow from what single precision does to the same computation there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

mod cellpatch_stagate;
mod golden;
mod stagate;
mod training;

/// The tests of this binary for one backend.
///
/// - `$slack`: how much wider than the manifest's the tolerances are
macro_rules! parity {
    ($module:ident, $backend:ty, $slack:expr) => {
        mod $module {
            type Inner = $backend;

            #[test]
            fn stagate_with_tied_weights_is_pytorchs() {
                crate::stagate::check::<Inner>("stagate_tied", &Default::default(), $slack);
            }

            #[test]
            fn stagate_with_shared_storage_is_pytorchs() {
                crate::stagate::check::<Inner>("stagate_released", &Default::default(), $slack);
            }

            #[test]
            fn cellpatch_stagate_with_tied_weights_is_pytorchs() {
                crate::cellpatch_stagate::check::<Inner>(
                    "cellpatch_stagate_tied",
                    &Default::default(),
                    $slack,
                );
            }

            #[test]
            fn cellpatch_stagate_with_shared_storage_is_pytorchs() {
                crate::cellpatch_stagate::check::<Inner>(
                    "cellpatch_stagate_released",
                    &Default::default(),
                    $slack,
                );
            }
        }
    };
}

parity!(flex, burn::backend::Flex, 1.0);
#[cfg(feature = "ndarray")]
parity!(ndarray, burn::backend::NdArray, 1.0);
