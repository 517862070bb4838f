//! Kernels of the GPU backends against plain operations of the same backend: the same models, the same numbers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

#[path = "../parity/device.rs"]
mod device;
mod graph;
mod model;
mod product;

/// The tests of this binary for one backend.
macro_rules! kernels {
    ($module:ident, $backend:ty) => {
        mod $module {
            type Inner = $backend;

            #[test]
            fn graph_attention_by_kernels_is_that_of_plain_operations() {
                run(crate::graph::check_stagate::<Inner>);
            }

            #[test]
            fn kernels_answer_unless_they_are_switched_off() {
                run(crate::graph::check_switch::<Inner>);
            }

            #[test]
            fn the_model_by_kernels_is_that_of_plain_operations_with_every_gradient() {
                run(crate::model::check_gradients::<Inner>);
            }

            #[test]
            fn expression_has_a_gradient_through_the_first_block() {
                run(crate::model::check_values::<Inner>);
            }

            #[test]
            fn gradients_are_summed_by_the_tokens_that_the_host_knows() {
                run(crate::model::check_tokens::<Inner>);
            }

            #[test]
            fn what_one_thread_sends_ahead_is_what_another_takes() {
                run(crate::model::check_ahead::<Inner>);
            }

            #[test]
            fn the_output_layer_drops_the_same_in_both_passes() {
                run(crate::model::check_output_layer::<Inner>);
            }

            #[test]
            fn blocks_compute_in_every_precision_that_the_device_has() {
                run(crate::model::check_precision::<Inner>);
            }

            #[test]
            fn products_keep_32_bits() {
                run(crate::product::check_product::<Inner>);
            }

            fn run(test: impl FnOnce()) {
                match crate::device::available::<Inner>(stringify!($module)) {
                    Ok(()) => test(),
                    Err(reason) => println!("skipped: {reason}"),
                }
            }
        }
    };
}

kernels!(wgpu, burn::backend::Wgpu);
kernels!(cuda, burn::backend::Cuda);
