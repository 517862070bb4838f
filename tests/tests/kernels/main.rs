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
