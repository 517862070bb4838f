//! Tensors as PyTorch lays them into a storage.

use crate::weights::fault::TensorFault;
use crate::weights::tensors::row_major_strides;

/// PyTorch's own limit.
const MOST_DIMENSIONS: usize = 64;

/// Which elements of a storage are a tensor's.
pub(super) struct Strided {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
}

impl Strided {
    /// How many elements there are, if each is one of `n_stored`, and none of them twice.
    ///
    /// What this accepts, [`Strided::gather`] can read, and takes no more memory than its storage.
    pub(super) fn check(&self, n_stored: usize) -> Result<usize, TensorFault> {
        if self.strides.len() != self.shape.len() {
            return Err(TensorFault::BadDescription { what: "its strides do not fit its shape" });
        }
        // As if no size were 0, so that nothing computed from the shape later overflows either.
        let n_elements = self.shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size.max(1)));
        if n_elements.is_none_or(|n| n > isize::MAX as usize) || self.shape.len() > MOST_DIMENSIONS {
            return Err(TensorFault::AbsurdShape);
        }
        if self.shape.contains(&0) {
            return Ok(0);
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (&size, &stride)| {
            last.checked_add((size - 1).checked_mul(stride)?)
        });
        if last.is_none_or(|last| last >= n_stored) {
            return Err(TensorFault::BeyondStorage { n_stored });
        }
        if self.overlaps() {
            return Err(TensorFault::Overlapping {
                shape: self.shape.clone(),
                strides: self.strides.clone(),
            });
        }
        Ok(self.shape.iter().product())
    }

    /// Whether a step along some dimension is shorter than what the dimensions with shorter steps span, so that
    /// elements may coincide.
    fn overlaps(&self) -> bool {
        let mut steps: Vec<(usize, usize)> = self
            .strides
            .iter()
            .copied()
            .zip(self.shape.iter().copied())
            .filter(|&(_, size)| size > 1)
            .collect();
        steps.sort_unstable();
        let mut span = 1;
        steps.into_iter().any(|(stride, size)| {
            let short = stride < span;
            span += (size - 1) * stride;
            short
        })
    }

    /// The elements in row-major order, of what [`Strided::check`] has accepted.
    pub(super) fn gather(&self, storage: &[u8], element_size: usize) -> Vec<u8> {
        let n_elements: usize = self.shape.iter().product();
        if n_elements == 0 {
            return Vec::new();
        }
        if self.strides == row_major_strides(&self.shape) {
            return storage[self.offset * element_size..][..n_elements * element_size].to_vec();
        }
        let mut elements = Vec::with_capacity(n_elements * element_size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..n_elements {
            let steps: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            let at = (self.offset + steps) * element_size;
            elements.extend_from_slice(&storage[at..at + element_size]);
            for (digit, &size) in index.iter_mut().zip(&self.shape).rev() {
                *digit += 1;
                if *digit < size {
                    break;
                }
                *digit = 0;
            }
        }
        elements
    }
}
