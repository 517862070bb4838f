//! The gene tokens of a padded batch.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use cellpatch_kernels::block::PaddedRows;
use cellpatch_kernels::genes::GeneIndex;

use crate::lengths::GeneLengths;
use crate::operation::Genes;

/// Gene tokens of a padded batch on the host, and which slots each gene has.
///
/// Gradients are summed by gene, which takes the slots in the order of genes. Sorting them costs about as much as a fast card's
/// whole step, so a loader does it on its own threads ([`HostTokens::sort`]); otherwise it is done when first needed. Cloning is
/// cheap, and clones share what was sorted.
#[derive(Debug, Clone)]
pub struct HostTokens(Arc<Padded>);

#[derive(Debug)]
struct Padded {
    tokens: Vec<u32>,
    shape: [usize; 2],
    /// Lengths of cells, or none where padding counts, and the slots in order.
    sorted: Mutex<Vec<(Option<GeneLengths>, Arc<GeneIndex>)>>,
}

impl HostTokens {
    /// - tokens: [cells, genes] in row-major order, 0 where there is no gene; what is missing is 0, what is too much is left
    ///   out
    pub fn new(mut tokens: Vec<u32>, shape: [usize; 2]) -> Self {
        tokens.resize(shape[0] * shape[1], 0);
        Self(Arc::new(Padded { tokens, shape, sorted: Mutex::default() }))
    }

    /// The tokens: [cells, genes] in row-major order.
    pub fn tokens(&self) -> &[u32] {
        &self.0.tokens
    }

    /// Cells, and slots of each.
    pub fn dims(&self) -> [usize; 2] {
        self.0.shape
    }

    /// Sorts slots by gene now rather than when they are first needed.
    ///
    /// - lengths: of cells where padding does not count, as attention reads them; none where it does, as targets are embedded
    pub fn sort(&self, lengths: Option<&GeneLengths>) {
        let capacity = self.0.tokens.iter().max().map_or(0, |&token| token as usize + 1);
        self.index(lengths, capacity);
    }

    /// Slots by gene.
    ///
    /// # Panics
    /// When a token is not below the capacity.
    pub(crate) fn index(&self, lengths: Option<&GeneLengths>, capacity: usize) -> Arc<GeneIndex> {
        let Padded { tokens, shape: [_, n_genes], sorted } = &*self.0;
        // Where no cell is shorter than others, nobody's padding counts.
        let lengths = lengths.filter(|lengths| lengths.is_padded());
        let mut sorted = sorted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, index)) = sorted.iter().find(|(of, _)| of.as_ref() == lengths) {
            let highest = index.genes().last().map_or(0, |&gene| gene as usize);
            assert!(highest < capacity.max(1), "gene {highest} in a table of {capacity}");
            return Arc::clone(index);
        }
        let slots = PaddedRows { padded: *n_genes, lengths: lengths.map(GeneLengths::n_genes) };
        let index = Arc::new(GeneIndex::new(tokens, slots, capacity));
        sorted.push((lengths.cloned(), Arc::clone(&index)));
        index
    }
}

/// Gene tokens of a padded batch: a tensor on the device, and the same numbers on the host that made it.
///
/// Gradients are summed by gene, which takes the tokens in order. A host that still knows them need not ask the device, which
/// would make it wait. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct GeneTokens<B: Backend> {
    tensor: Tensor<B, 2, Int>,
    host: Option<HostTokens>,
}

impl<B: Backend> GeneTokens<B> {
    /// - tokens: [cells, genes] in row-major order, 0 where there is no gene; what is missing is 0, what is too much is left
    ///   out
    pub fn new(tokens: Vec<u32>, shape: [usize; 2], device: &B::Device) -> Self {
        Self::from_host(HostTokens::new(tokens, shape), device)
    }

    /// Tokens that a host has made ready.
    pub fn from_host(host: HostTokens, device: &B::Device) -> Self {
        let numbers: Vec<i32> = host.tokens().iter().map(|&token| token as i32).collect();
        let tensor = Tensor::from_data(TensorData::new(numbers, host.dims()), device);
        Self { tensor, host: Some(host) }
    }

    /// The tokens: [cells, genes].
    pub fn tensor(&self) -> Tensor<B, 2, Int> {
        self.tensor.clone()
    }

    /// The same on the host, if it knows them.
    pub fn host(&self) -> Option<&HostTokens> {
        self.host.as_ref()
    }

    /// Cells, and slots of each.
    pub fn dims(&self) -> [usize; 2] {
        self.tensor.dims()
    }

    /// As an operation reads them.
    pub(crate) fn genes(&self) -> Genes<burn::tensor::ops::IntTensor<B>> {
        Genes { tensor: self.tensor().into_primitive(), host: self.host.clone() }
    }
}

/// Tokens that the device alone knows: a kernel that needs them in order reads them back.
impl<B: Backend> From<Tensor<B, 2, Int>> for GeneTokens<B> {
    fn from(tensor: Tensor<B, 2, Int>) -> Self {
        Self { tensor, host: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> HostTokens {
        HostTokens::new(vec![3, 1, 0, 1, 2], [2, 3])
    }

    #[test]
    fn what_was_sorted_ahead_is_what_is_sorted_when_needed() {
        let lengths = GeneLengths::new([2, 3]);
        for lengths in [None, Some(&lengths)] {
            let ahead = tokens();
            ahead.sort(lengths);
            let (ahead, later) = (ahead.index(lengths, 9), tokens().index(lengths, 9));
            assert_eq!(ahead.genes(), later.genes());
            assert_eq!((ahead.rows(), ahead.slots()), (later.rows(), later.slots()));
            assert_eq!(ahead.starts(), later.starts());
        }
        let both = tokens();
        both.sort(None);
        both.sort(Some(&lengths));
        assert_eq!(both.index(None, 4).slots().len(), 6, "padding counts");
        assert_eq!(both.index(Some(&lengths), 4).slots().len(), 5);
        assert!(Arc::ptr_eq(&both.index(None, 4), &both.clone().index(None, 4)), "sorted once");
    }

    #[test]
    #[should_panic(expected = "gene 3 in a table of 3")]
    fn a_token_beyond_the_table_is_found_though_it_was_sorted() {
        let tokens = tokens();
        tokens.sort(None);
        tokens.index(None, 3);
    }
}
