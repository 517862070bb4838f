//! Whether a backend finds a device here.

use std::panic::catch_unwind;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Multiplies two numbers on the backend's default device; the error says why the tests are skipped.
///
/// With `CELLPATCH_REQUIRE` naming the backend, a missing device fails the test: CI installs a driver and means it.
pub(crate) fn available<B: Backend>(name: &str) -> Result<(), String> {
    let works = catch_unwind(|| {
        let two = Tensor::<B, 1>::from_floats([2.0], &Default::default());
        (two.clone() * two).into_data().iter::<f32>().next() == Some(4.0)
    });
    match works {
        Ok(true) => Ok(()),
        _ => {
            let required = std::env::var("CELLPATCH_REQUIRE").unwrap_or_default();
            assert!(required != name, "{name} is required and finds no working device");
            Err(format!("{name} finds no working device here"))
        }
    }
}
