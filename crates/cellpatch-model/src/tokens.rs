//! The gene tokens of a padded batch.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use cellpatch_kernels::block::PaddedRows;
use cellpatch_kernels::genes::GeneIndex;

use crate::backend::ModelBackend;
use crate::lengths::GeneLengths;
use crate::operation::Genes;
use crate::sent::Sent;

/// Gene tokens of a padded batch on the host, and which slots each gene has.
///
/// Gradients are summed by gene, which takes the slots in the order of genes. Sorting them costs about as much as a fast card's
/// whole step, so a loader does it on its own threads ([`ModelBackend::index_ahead`]); otherwise it is done when first needed.
/// Cloning is cheap, and clones share what was sorted.
#[derive(Debug, Clone)]
pub struct HostTokens(Arc<Padded>);

#[derive(Debug)]
struct Padded {
    tokens: Vec<u32>,
    shape: [usize; 2],
    sorted: Mutex<Vec<Sorted>>,
}

/// Slots in the order of genes.
#[derive(Debug)]
struct Sorted {
    /// Of cells; none where padding counts.
    lengths: Option<GeneLengths>,
    index: Arc<GeneIndex>,
    /// The same as a device's kernels take it.
    on_devices: Vec<Arc<dyn Any + Send + Sync>>,
}

/// What reads a batch's tokens.
#[derive(Debug, Clone, Copy)]
pub enum TokenUse<'a> {
    /// Attention does, as keys: up to these lengths, or padding and all.
    Keys(Option<&'a GeneLengths>),
    /// They are embedded, padding and all.
    Embedded,
}

impl<'a> TokenUse<'a> {
    /// Where padding does not count.
    pub(crate) fn lengths(self) -> Option<&'a GeneLengths> {
        match self {
            Self::Keys(lengths) => lengths,
            Self::Embedded => None,
        }
    }
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

    /// The tokens as a tensor of integers takes them: [cells, genes].
    pub fn data(&self) -> TensorData {
        let numbers: Vec<i32> = self.tokens().iter().map(|&token| token as i32).collect();
        TensorData::new(numbers, self.dims())
    }

    /// Slots by gene, sorted once.
    ///
    /// - lengths: of cells where padding does not count, as attention reads them; none where it does, as targets are embedded
    ///
    /// # Panics
    /// When a token is not below the capacity.
    pub(crate) fn index(&self, lengths: Option<&GeneLengths>, capacity: usize) -> Arc<GeneIndex> {
        self.sorted(lengths, capacity, |sorted| Arc::clone(&sorted.index))
    }

    /// Slots by gene as a device's kernels take them, made once.
    ///
    /// - is: whether this is the one that is wanted
    ///
    /// # Panics
    /// When a token is not below the capacity.
    #[cfg(feature = "cube")]
    pub(crate) fn on_device<T: Send + Sync + 'static>(
        &self,
        lengths: Option<&GeneLengths>,
        capacity: usize,
        is: impl Fn(&T) -> bool,
        make: impl FnOnce(&GeneIndex) -> T,
    ) -> Arc<T> {
        self.sorted(lengths, capacity, |sorted| {
            let mut made = sorted.on_devices.iter().filter_map(|one| Arc::clone(one).downcast::<T>().ok());
            if let Some(made) = made.find(|one| is(one)) {
                return made;
            }
            let new = Arc::new(make(&sorted.index));
            sorted.on_devices.push(new.clone());
            new
        })
    }

    fn sorted<T>(
        &self,
        lengths: Option<&GeneLengths>,
        capacity: usize,
        read: impl FnOnce(&mut Sorted) -> T,
    ) -> T {
        let Padded { tokens, shape: [_, n_genes], sorted } = &*self.0;
        // Where no cell is shorter than others, nobody's padding counts.
        let lengths = lengths.filter(|lengths| lengths.is_padded());
        let mut sorted = sorted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sorted.iter_mut().find(|one| one.lengths.as_ref() == lengths) {
            let highest = known.index.genes().last().map_or(0, |&gene| gene as usize);
            assert!(highest < capacity.max(1), "gene {highest} in a table of {capacity}");
            return read(known);
        }
        let slots = PaddedRows { padded: *n_genes, lengths: lengths.map(GeneLengths::n_genes) };
        let index = Arc::new(GeneIndex::new(tokens, slots, capacity));
        let mut new = Sorted { lengths: lengths.cloned(), index, on_devices: Vec::new() };
        let read = read(&mut new);
        sorted.push(new);
        read
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
        let host = HostTokens::new(tokens, shape);
        Self { tensor: Tensor::from_data(host.data(), device), host: Some(host) }
    }

    /// Tokens that a loader's thread has made ready.
    ///
    /// - sent: [`HostTokens::data`]
    pub fn taken(host: HostTokens, sent: Sent, device: &B::Device) -> Self
    where
        B: ModelBackend,
    {
        Self { tensor: sent.integers(device), host: Some(host) }
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
            ahead.index(lengths, 4);
            let (ahead, later) = (ahead.index(lengths, 9), tokens().index(lengths, 9));
            assert_eq!(ahead.genes(), later.genes());
            assert_eq!((ahead.rows(), ahead.slots()), (later.rows(), later.slots()));
            assert_eq!(ahead.starts(), later.starts());
        }
        let both = tokens();
        both.index(None, 4);
        both.index(Some(&lengths), 4);
        assert_eq!(both.index(None, 4).slots().len(), 6, "padding counts");
        assert_eq!(both.index(Some(&lengths), 4).slots().len(), 5);
        assert!(Arc::ptr_eq(&both.index(None, 4), &both.clone().index(None, 4)), "sorted once");
    }

    #[test]
    #[should_panic(expected = "gene 3 in a table of 3")]
    fn a_token_beyond_the_table_is_found_though_it_was_sorted() {
        let tokens = tokens();
        tokens.index(None, 4);
        tokens.index(None, 3);
    }
}
