//! How many genes each cell of a batch really has.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

/// The true number of genes of every cell in a padded batch, known on the host.
///
/// Real genes come first in a row, padding after them. Knowing the lengths on the host lets a kernel skip
/// padding altogether, and makes masks without asking the device anything. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneLengths {
    n_genes: Arc<[usize]>,
    longest: usize,
}

impl GeneLengths {
    /// Lengths of cells padded to the longest of them (to 1 if all are empty: tensors have no empty rows).
    pub fn new(n_genes: impl Into<Arc<[usize]>>) -> Self {
        let n_genes = n_genes.into();
        let longest = n_genes.iter().copied().max().unwrap_or(0).max(1);
        Self { n_genes, longest }
    }

    /// The same cells in rows of at least `width` slots, for batches padded to a rounded length.
    pub fn padded_to(mut self, width: usize) -> Self {
        self.longest = self.longest.max(width);
        self
    }

    /// Cells in the batch.
    pub fn n_cells(&self) -> usize {
        self.n_genes.len()
    }

    /// Slots of a padded row: what the batch's tensors have as their second dimension.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Genes of each cell.
    pub fn n_genes(&self) -> &[usize] {
        &self.n_genes
    }

    /// Genes of all cells together.
    pub fn total(&self) -> usize {
        self.n_genes.iter().sum()
    }

    /// Whether any row has an empty slot.
    pub fn is_padded(&self) -> bool {
        self.n_genes.iter().any(|&n| n < self.longest)
    }

    /// Slots of a cell that attention looks at: its genes, or, for a cell without any, its first empty slot,
    /// because a softmax over nothing is undefined.
    pub fn attended(&self, cell: usize) -> usize {
        self.n_genes[cell].max(1)
    }

    /// 1 at real genes and 0 at padding.
    ///
    /// - output: [cells, longest]
    pub fn real<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let shape = [self.n_cells(), self.longest];
        let lengths: Vec<i32> = self.n_genes.iter().map(|&n| n as i32).collect();
        let lengths = TensorData::new(lengths, [self.n_cells(), 1]);
        // Only lengths go to the device: slots are many.
        let lengths = Tensor::<B, 2, Int>::from_data(lengths, device).expand(shape);
        let slots = Tensor::<B, 1, Int>::arange(0..self.longest as i64, device).unsqueeze_dim::<2>(0);
        slots.expand(shape).lower(lengths).float()
    }

    /// A value for every slot of the padded batch.
    ///
    /// - output: [cells, longest]
    pub(crate) fn per_slot<B: Backend>(
        &self,
        device: &B::Device,
        value: impl Fn(usize, usize) -> f32,
    ) -> Tensor<B, 2> {
        let slots = |cell| (0..self.longest).map(move |slot| (cell, slot));
        let values: Vec<f32> =
            (0..self.n_cells()).flat_map(slots).map(|(cell, slot)| value(cell, slot)).collect();
        Tensor::from_data(TensorData::new(values, [self.n_cells(), self.longest]), device)
    }
}
