//! A slice as a source of batches.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use cellpatch_train::{BatchIterator, BatchSource};

use super::config::SpatialTrainingConfig;
use crate::cellpatch_stagate::CellPatchInput;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::graph::{Position, SpatialGraph};
use crate::input::{Slice, SpatialInput};
use crate::tiles::Tiles;

/// What CellPatch's patches read of spots: the genes that have a row in its gene table.
///
/// These need not be the genes of the autoencoder: a gene that CellPatch has never seen is left to the autoencoder, and one
/// that is not variable enough for the autoencoder may be read here.
#[derive(Debug, Clone)]
pub struct PatchGenes {
    expression: Expression,
    tokens: Arc<[u32]>,
}

impl PatchGenes {
    /// - expression: [spots, genes with a token]
    /// - tokens: row of the gene table of each of its genes; no two are equal and none is 0, the padding
    /// - gene_capacity: rows of the table
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there is not a token for each gene, [`Error::BadExpression`] if a token is no gene's or two
    /// genes share one.
    pub fn new(expression: Expression, tokens: impl Into<Arc<[u32]>>, gene_capacity: usize) -> Result<Self> {
        let tokens = tokens.into();
        let (n_spots, n_genes) = (expression.n_spots(), expression.n_genes());
        if tokens.len() != n_genes {
            let (found, expected) = (tokens.len(), n_genes);
            return Err(Error::Disagreement { what: "tokens of genes", found, expected });
        }
        let bad = |reason| Error::BadExpression { n_spots, n_genes, reason };
        if tokens.iter().any(|&token| token == 0 || token as usize >= gene_capacity) {
            return Err(bad("a token is not in the gene table"));
        }
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(bad("two genes have one token"));
        }
        Ok(Self { expression, tokens })
    }

    /// What the patches read: [spots, genes with a token].
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Row of the gene table of each gene.
    pub fn tokens(&self) -> &Arc<[u32]> {
        &self.tokens
    }

    fn of_spots(&self, spots: &[u32]) -> Result<Self> {
        Ok(Self { expression: self.expression.of_spots(spots)?, tokens: Arc::clone(&self.tokens) })
    }
}

/// A slice with everything a training needs to know of it.
#[derive(Debug, Clone)]
pub struct SliceData {
    slice: Slice,
    positions: Arc<[Position]>,
    patch_genes: Option<PatchGenes>,
}

impl SliceData {
    /// - positions: of the graph's spots
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there is not a position and a row of expression for each spot.
    pub fn new(
        graph: SpatialGraph,
        expression: Expression,
        positions: impl Into<Arc<[Position]>>,
    ) -> Result<Self> {
        let positions = positions.into();
        let (found, expected) = (positions.len(), graph.n_spots());
        if found != expected {
            return Err(Error::Disagreement { what: "positions", found, expected });
        }
        Ok(Self { slice: Slice::new(graph, expression)?, positions, patch_genes: None })
    }

    /// The same for CellPatch+STAGATE.
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if the patches' genes are not those of as many spots.
    pub fn with_patch_genes(mut self, genes: PatchGenes) -> Result<Self> {
        let (found, expected) = (genes.expression.n_spots(), self.slice.graph().n_spots());
        if found != expected {
            return Err(Error::Disagreement { what: "spots with genes for patches", found, expected });
        }
        self.patch_genes = Some(genes);
        Ok(self)
    }

    /// The same with a pruned graph: see [`Slice::with_pruned`].
    ///
    /// # Errors
    ///
    /// As [`Slice::with_pruned`].
    pub fn with_pruned(mut self, kept: Arc<[bool]>) -> Result<Self> {
        self.slice = self.slice.with_pruned(kept)?;
        Ok(self)
    }

    /// Neighbours and expression.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What patches read, where there are any.
    pub fn patch_genes(&self) -> Option<&PatchGenes> {
        self.patch_genes.as_ref()
    }

    /// The batches of a training.
    ///
    /// # Errors
    ///
    /// As [`Tiles::new`], for a slice that is larger than a batch.
    pub fn batches(&self, config: &SpatialTrainingConfig) -> Result<SliceBatches> {
        let n_spots = self.slice.graph().n_spots();
        if n_spots <= config.whole_slice_spots {
            let batch = SliceBatch { slice: self.slice.clone(), patch_genes: self.patch_genes.clone() };
            return Ok(SliceBatches { n_spots, plan: Plan::Whole(batch) });
        }
        let (graph, expression) = (self.slice.graph().clone(), self.slice.expression().clone());
        let (per_tile, per_batch) = (config.spots_per_tile, config.tiles_per_batch);
        let mut tiles = Tiles::new(graph, expression, &self.positions, per_tile, per_batch)?;
        if let Some(kept) = self.slice.pruned() {
            tiles = tiles.with_pruned(Arc::clone(kept))?;
        }
        let plan =
            Plan::Tiles { tiles: Arc::new(tiles), patch_genes: self.patch_genes.clone(), seed: config.seed };
        Ok(SliceBatches { n_spots, plan })
    }

    /// A number that differs, in all likelihood, between slices that differ in anything a training reads.
    pub(super) fn digest(&self) -> u64 {
        let mut digest = Digest(self.slice.graph().n_spots() as u64);
        for (source, target) in self.slice.graph().edges() {
            digest.add(u64::from(source) << 32 | u64::from(target));
        }
        digest.add_expression(self.slice.expression());
        for &kept in self.slice.pruned().map_or(&[][..], |kept| kept) {
            digest.add(u64::from(kept));
        }
        if let Some(genes) = &self.patch_genes {
            digest.add_expression(&genes.expression);
            genes.tokens.iter().for_each(|&token| digest.add(u64::from(token)));
        }
        for position in self.positions.iter() {
            position.iter().for_each(|x| digest.add(x.to_bits()));
        }
        digest.0
    }
}

/// The finaliser of SplitMix64 over a running exclusive or.
struct Digest(u64);

impl Digest {
    fn add(&mut self, value: u64) {
        let mut z = (self.0 ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.0 = z ^ (z >> 31);
    }

    fn add_expression(&mut self, expression: &Expression) {
        self.add(expression.n_genes() as u64);
        for spot in 0..expression.n_spots() {
            let (genes, values) = expression.matrix().row(spot);
            self.add(genes.len() as u64);
            for (&gene, &value) in genes.iter().zip(values) {
                self.add(u64::from(gene) << 32 | u64::from(value.to_bits()));
            }
        }
    }
}

/// Spots of a step, on no backend yet. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SliceBatch {
    slice: Slice,
    patch_genes: Option<PatchGenes>,
}

impl SliceBatch {
    /// Neighbours and expression; the spots that count come first.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What a STAGATE model takes.
    pub fn stagate_input<B: Backend>(&self, device: &B::Device) -> SpatialInput<B> {
        SpatialInput::of_slice(self.slice.clone(), device)
    }

    /// What a CellPatch+STAGATE model takes; none if nothing was said of genes for patches.
    pub fn cellpatch_input<B: Backend>(&self, device: &B::Device) -> Option<CellPatchInput<B>> {
        let genes = self.patch_genes.clone()?;
        Some(CellPatchInput::of_genes(self.stagate_input(device), genes))
    }
}

/// The batches of a slice: itself, or tiles of it in an order that is a function of seed and epoch.
#[derive(Debug, Clone)]
pub struct SliceBatches {
    n_spots: usize,
    plan: Plan,
}

#[derive(Debug, Clone)]
enum Plan {
    Whole(SliceBatch),
    Tiles { tiles: Arc<Tiles>, patch_genes: Option<PatchGenes>, seed: u64 },
}

impl SliceBatches {
    /// The batches of an epoch, each with the numbers of the spots that count, in the order of its rows.
    pub(super) fn with_spots(
        &self,
        epoch: u64,
        first_batch: usize,
    ) -> Box<dyn Iterator<Item = Result<(SliceBatch, Vec<u32>)>> + Send + '_> {
        match &self.plan {
            Plan::Whole(batch) => {
                let all = (0..self.n_spots as u32).collect();
                Box::new(std::iter::once(Ok((batch.clone(), all))).skip(first_batch))
            }
            Plan::Tiles { tiles, patch_genes, seed } => {
                let batches = tiles.epoch(*seed, epoch).into_iter().skip(first_batch);
                Box::new(batches.map(move |own| {
                    let batch = tiles.batch(&own)?;
                    let patch_genes =
                        patch_genes.as_ref().map(|genes| genes.of_spots(&batch.spots)).transpose()?;
                    Ok((SliceBatch { slice: batch.slice, patch_genes }, own))
                }))
            }
        }
    }
}

impl BatchSource for SliceBatches {
    type Cells = SliceBatch;

    fn n_batches(&self) -> usize {
        match &self.plan {
            Plan::Whole(_) => 1,
            Plan::Tiles { tiles, .. } => tiles.n_batches(),
        }
    }

    fn n_cells(&self) -> usize {
        self.n_spots
    }

    fn read(&self, epoch: u64, first_batch: usize) -> BatchIterator<'_, SliceBatch> {
        let failed = |error: Error| cellpatch_train::Error::Batch(Box::new(error));
        Box::new(
            self.with_spots(epoch, first_batch)
                .map(move |batch| batch.map(|(batch, _)| batch).map_err(failed)),
        )
    }

    fn cells_in(batch: &SliceBatch) -> usize {
        batch.slice.n_core()
    }
}
