//! Tensors as files hold them, without a tensor library: a name, a shape and the numbers in row-major order.

use crate::error::{Error, Result};

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamedTensor<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) values: &'a [f32],
}

impl<'a> NamedTensor<'a> {
    /// A tensor, if there are as many values as the shape says.
    pub(super) fn new(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Result<Self> {
        let n_elements = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        if n_elements != Some(values.len()) {
            return Err(Error::WrongLength {
                name: name.to_string(),
                n_values: values.len(),
                shape: shape.to_vec(),
            });
        }
        Ok(Self { name, shape, values })
    }

    /// How many elements apart neighbours along each dimension are, as PyTorch counts: as if no size were 0.
    pub(super) fn strides(&self) -> Vec<usize> {
        row_major_strides(self.shape)
    }

    /// The values, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

/// Strides of a tensor without gaps.
pub(super) fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension].saturating_mul(shape[dimension].max(1));
    }
    strides
}
