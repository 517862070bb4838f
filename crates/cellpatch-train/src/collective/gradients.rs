//! From the gradients of every rank's part of a batch to those of the whole batch.

use std::marker::PhantomData;

use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use super::reduce::{BLOCK, UsedBlocks};
use super::{Collective, CollectiveError, Result};

/// What a rank measured on its part of a batch, or all ranks on the whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct StepPart {
    /// Sum of the losses.
    pub(crate) loss_sum: f64,
    /// What it is divided by, as in [`BatchLoss`](crate::BatchLoss).
    pub(crate) weight: f64,
    /// Cells.
    pub(crate) n_cells: u64,
    /// Whether the rank was asked to end, or any of them.
    pub(crate) stops: bool,
    /// Of each cell its class and the one it was given.
    pub(crate) classified: Vec<(u32, u32)>,
}

impl StepPart {
    const FIXED: usize = 33;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::FIXED + 8 * self.classified.len());
        bytes.extend(self.loss_sum.to_le_bytes());
        bytes.extend(self.weight.to_le_bytes());
        bytes.extend(self.n_cells.to_le_bytes());
        bytes.push(u8::from(self.stops));
        bytes.extend((self.classified.len() as u64).to_le_bytes());
        for (class, given) in &self.classified {
            bytes.extend(class.to_le_bytes());
            bytes.extend(given.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`StepPart::to_bytes`] wrote, and what follows it.
    fn from_bytes(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = bytes.split_at_checked(Self::FIXED)?;
        let (numbers, _) = fixed[..24].as_chunks::<8>();
        let n_classified = u64::from_le_bytes(*fixed[25..].first_chunk()?);
        let (pairs, rest) = rest.split_at_checked(usize::try_from(n_classified).ok()?.checked_mul(8)?)?;
        let (pairs, _) = pairs.as_chunks::<8>();
        let pair = |bytes: &[u8; 8]| {
            let both = u64::from_le_bytes(*bytes);
            (both as u32, (both >> 32) as u32)
        };
        let part = Self {
            loss_sum: f64::from_le_bytes(numbers[0]),
            weight: f64::from_le_bytes(numbers[1]),
            n_cells: u64::from_le_bytes(numbers[2]),
            stops: fixed[24] != 0,
            classified: pairs.iter().map(pair).collect(),
        };
        Some((part, rest))
    }

    fn add(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.weight += other.weight;
        self.n_cells += other.n_cells;
        self.stops |= other.stops;
        self.classified.extend(other.classified);
    }
}

/// A batch's gradients and what was measured on it, over all ranks.
#[derive(Debug)]
pub(crate) struct Exchanged {
    /// Of the mean over the whole batch.
    pub(crate) gradients: GradientsParams,
    /// Sums over the whole batch.
    pub(crate) whole: StepPart,
}

impl Collective {
    /// Adds up what the ranks measured, each on its part of a batch.
    ///
    /// # Errors
    /// A rank that is gone, as for all exchanges.
    pub(crate) fn exchange(&self, own: &StepPart) -> Result<StepPart> {
        self.exchange_with(own, Vec::new()).map(|(whole, _)| whole)
    }

    /// The same, with more bytes of every rank, as many from each.
    fn exchange_with(&self, own: &StepPart, more: Vec<u8>) -> Result<(StepPart, Vec<Vec<u8>>)> {
        let n_more = more.len();
        let mut bytes = own.to_bytes();
        bytes.extend(more);
        let (mut whole, mut others) = (StepPart::default(), Vec::with_capacity(self.world_size()));
        for (rank, bytes) in self.all_gather(bytes)?.iter().enumerate() {
            let Some((part, rest)) = StepPart::from_bytes(bytes).filter(|(_, rest)| rest.len() == n_more)
            else {
                let reason = format!("{} bytes are not a step's", bytes.len());
                return Err(CollectiveError::OutOfStep { rank, reason });
            };
            whole.add(part);
            others.push(rest.to_vec());
        }
        Ok((whole, others))
    }

    /// Replaces the gradients of a rank's part of a batch by those of the whole batch.
    ///
    /// A part's gradients are of the mean over its own targets, so each counts by its weight: the sum over ranks of
    /// `weight / total weight` times gradient. Only what is not zero on all ranks is sent: a batch has no gradient for
    /// genes that it does not have.
    ///
    /// - module: whose gradients they are; the same on all ranks
    /// - own: of this rank's part
    pub(crate) fn exchange_gradients<B, M>(
        &self,
        module: &M,
        mut gradients: GradientsParams,
        own: &StepPart,
    ) -> Result<Exchanged>
    where
        B: AutodiffBackend,
        M: AutodiffModule<B>,
    {
        let mut flat = Flatten::<B> {
            gradients: &mut gradients,
            values: Vec::new(),
            present: Vec::new(),
            backend: PhantomData,
        };
        module.visit(&mut flat);
        let Flatten { mut values, mut present, .. } = flat;
        let mut used = UsedBlocks::of(&values);
        let mut more = present.clone();
        more.extend(used.bits());
        let (whole, others) = self.exchange_with(own, more)?;
        for other in &others {
            let (theirs, bits) = other.split_at(present.len());
            present.iter_mut().zip(theirs).for_each(|(any, one)| *any |= one);
            used.join(bits);
        }
        let share = if whole.weight > 0.0 { (own.weight / whole.weight) as f32 } else { 0.0 };
        let mut packed = used.pack(&values);
        packed.iter_mut().for_each(|value| *value *= share);
        self.all_reduce_sum(&mut packed)?;
        used.unpack(&packed, &mut values);
        let mut summed = Unflatten::<B> {
            gradients: GradientsParams::new(),
            values: &values,
            present: &present,
            backend: PhantomData,
        };
        module.visit(&mut summed);
        Ok(Exchanged { gradients: summed.gradients, whole })
    }
}

/// Numbers a parameter takes in the flat vector: its rows share no block with the next one's.
fn padded(n_elements: usize) -> usize {
    n_elements.next_multiple_of(BLOCK)
}

/// Takes the gradients out, one after the other in the order of the module.
struct Flatten<'a, B> {
    gradients: &'a mut GradientsParams,
    values: Vec<f32>,
    /// 1 for a parameter that has a gradient, 0 for one that was not used.
    present: Vec<u8>,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Flatten<'_, B> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let end = self.values.len() + padded(parameter.val().shape().num_elements());
        let gradient = self.gradients.remove::<B::InnerBackend, D>(parameter.id);
        self.present.push(u8::from(gradient.is_some()));
        if let Some(gradient) = gradient {
            let data = gradient.into_data();
            match data.as_slice::<f32>() {
                Ok(values) => self.values.extend_from_slice(values),
                Err(_) => self.values.extend(data.iter::<f32>()),
            }
        }
        self.values.resize(end, 0.0);
    }
}

/// Puts them back.
struct Unflatten<'a, B> {
    gradients: GradientsParams,
    values: &'a [f32],
    present: &'a [u8],
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Unflatten<'_, B> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        let value = parameter.val();
        let shape = value.shape();
        let n_elements = shape.num_elements();
        let (values, rest) = self.values.split_at(padded(n_elements));
        self.values = rest;
        let (present, rest) = self.present.split_at(1);
        self.present = rest;
        if present[0] != 0 {
            let data = TensorData::new(values[..n_elements].to_vec(), shape);
            let gradient = Tensor::<B::InnerBackend, D>::from_data(data, &value.device());
            self.gradients.register(parameter.id, gradient);
        }
    }
}
