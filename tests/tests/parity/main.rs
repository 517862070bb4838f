//! The models' numbers against PyTorch's, on every backend compiled in.
//!
//! `tests/golden` holds what our own PyTorch computed in double precision, and `manifest.json` the tolerances that
//! follow from what single precision does to the same computation there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

mod annotation;
mod checkpoint;
mod device;
mod golden;
mod pretraining;
mod spatial;
mod training;
mod units;

/// The tests of this binary for one backend.
///
/// - `$slack`: how much wider than the manifest's the tolerances are, and why, is said where it is not 1
macro_rules! parity {
    ($module:ident, $backend:ty, $available:expr, $slack:expr) => {
        mod $module {
            type Inner = $backend;

            #[test]
            fn pretraining_with_masked_padding_is_pytorchs() {
                run(|device| crate::pretraining::check::<Inner>("pretrain_mask", device, $slack));
            }

            #[test]
            fn pretraining_with_attended_padding_is_pytorchs() {
                run(|device| crate::pretraining::check::<Inner>("pretrain_nomask", device, $slack));
            }

            #[test]
            fn pretraining_with_binned_expression_is_pytorchs() {
                run(|device| crate::pretraining::check::<Inner>("pretrain_binned", device, $slack));
            }

            #[test]
            fn annotation_from_patches_is_pytorchs() {
                run(|device| crate::annotation::check::<Inner>("annotation_direct", device, $slack));
            }

            #[test]
            fn annotation_through_the_latent_is_pytorchs() {
                run(|device| crate::annotation::check::<Inner>("annotation_project", device, $slack));
            }

            #[test]
            fn a_pytorch_annotation_checkpoint_labels_as_it_did_there() {
                run(|device| crate::annotation::check_checkpoint::<Inner>(device, $slack));
            }

            #[test]
            fn gelu_layer_norm_and_rounding_are_pytorchs() {
                run(|device| crate::units::check_elementwise::<Inner>(device, $slack));
            }

            #[test]
            fn masked_attention_and_its_gradients_are_pytorchs() {
                run(|device| crate::units::check_attention::<Inner>(device, $slack));
            }

            #[test]
            fn clipping_by_the_global_norm_is_pytorchs() {
                run(|device| crate::units::check_clipping::<Inner>(device, $slack));
            }

            #[test]
            fn ten_steps_of_adam_are_pytorchs() {
                run(|device| crate::units::check_adam::<Inner>(device, $slack));
            }

            #[test]
            fn a_pytorch_checkpoint_predicts_what_it_predicted_there() {
                run(|device| crate::checkpoint::check::<Inner>(device, $slack));
            }

            #[test]
            fn stagate_with_tied_weights_is_pytorchs() {
                run(|device| crate::spatial::stagate::check::<Inner>("stagate_tied", device, $slack));
            }

            #[test]
            fn stagate_with_shared_storage_is_pytorchs() {
                run(|device| crate::spatial::stagate::check::<Inner>("stagate_released", device, $slack));
            }

            #[test]
            fn cellpatch_stagate_with_tied_weights_is_pytorchs() {
                run(|device| {
                    crate::spatial::cellpatch_stagate::check::<Inner>(
                        "cellpatch_stagate_tied",
                        device,
                        $slack,
                    )
                });
            }

            #[test]
            fn cellpatch_stagate_with_shared_storage_is_pytorchs() {
                run(|device| {
                    crate::spatial::cellpatch_stagate::check::<Inner>(
                        "cellpatch_stagate_released",
                        device,
                        $slack,
                    )
                });
            }

            fn run(test: impl FnOnce(&burn::tensor::Device<Inner>)) {
                match $available {
                    Ok(()) => test(&Default::default()),
                    Err(reason) => println!("skipped: {reason}"),
                }
            }
        }
    };
}

parity!(flex, burn::backend::Flex, Ok::<(), &str>(()), 1.0);
parity!(ndarray, burn::backend::NdArray, Ok::<(), &str>(()), 1.0);
// A driver is free to sum in another order and to round the error function otherwise. Through Mesa's software Vulkan
// nothing was off by more than the manifest allows, but one sum came within 5 % of it.
parity!(wgpu, burn::backend::Wgpu, crate::device::available::<burn::backend::Wgpu>("wgpu"), 2.0);
parity!(cuda, burn::backend::Cuda, crate::device::available::<burn::backend::Cuda>("cuda"), 10.0);
