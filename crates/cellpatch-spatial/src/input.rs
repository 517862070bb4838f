//! A slice, or a part of one, as a model takes it.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::graph::SpatialGraph;
use crate::resident::{Prepared, Resident};

/// Expression and neighbours of spots, on no backend yet. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Slice {
    graph: SpatialGraph,
    expression: Expression,
    pruned: Option<Arc<Resident<Arc<[bool]>>>>,
    n_core: usize,
    sum_of_squares: f64,
    sums_by_gene: Arc<[f32]>,
    plain: Prepared,
}

impl Slice {
    /// A whole slice.
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there is not a row of expression for each spot of the graph.
    pub fn new(graph: SpatialGraph, expression: Expression) -> Result<Self> {
        let n_spots = graph.n_spots();
        Self::of_core(graph, expression, n_spots)
    }

    /// Spots of which only the first ones' reconstruction counts; the others are there to be read.
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there is not a row of expression for each spot of the graph, or not as many spots as are
    /// to count, at least one.
    pub fn of_core(graph: SpatialGraph, expression: Expression, n_core: usize) -> Result<Self> {
        let (found, expected) = (expression.n_spots(), graph.n_spots());
        if found != expected {
            return Err(Error::Disagreement { what: "spots with expression", found, expected });
        }
        if n_core == 0 || n_core > expected {
            return Err(Error::Disagreement { what: "spots that count", found: n_core, expected });
        }
        Ok(Self {
            sum_of_squares: expression.sum_of_squares(n_core),
            sums_by_gene: expression.sums_by_gene(n_core).into(),
            graph,
            expression,
            pruned: None,
            n_core,
            plain: Prepared::default(),
        })
    }

    /// The same with a pruned graph beside it, for cell-type-aware STAGATE.
    ///
    /// - kept: which edges the pruned graph has: [`SpatialGraph::edges_within`]
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if that is not said of every edge.
    pub fn with_pruned(mut self, kept: Arc<[bool]>) -> Result<Self> {
        let (found, expected) = (kept.len(), self.graph.n_edges());
        if found != expected {
            return Err(Error::Disagreement { what: "edges of the pruned graph", found, expected });
        }
        self.pruned = Some(Arc::new(Resident::new(kept)));
        self.plain = Prepared::default();
        Ok(self)
    }

    /// Who reads whom.
    pub fn graph(&self) -> &SpatialGraph {
        &self.graph
    }

    /// What spots express.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Which edges the pruned graph has.
    pub fn pruned(&self) -> Option<&Arc<[bool]>> {
        self.pruned.as_deref().map(|kept| &**kept)
    }

    /// Spots whose reconstruction counts: the first ones.
    pub fn n_core(&self) -> usize {
        self.n_core
    }
}

/// A slice, or a part of one, on a device. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SpatialInput<B: Backend> {
    slice: Slice,
    device: B::Device,
}

/// What plain operations need, which kernels do not.
#[derive(Debug, Clone)]
pub(crate) struct PlainTensors<B: Backend> {
    /// [spots, genes]
    pub(crate) expression: Tensor<B, 2>,
    /// Of each edge the spot that is read: `[edges]`.
    pub(crate) sources: Tensor<B, 1, Int>,
    /// Of each edge the spot that reads: `[edges]`.
    pub(crate) targets: Tensor<B, 1, Int>,
    /// Of each spot the numbers of its edges, lists filled up: [spots, longest list].
    pub(crate) edges: Tensor<B, 2, Int>,
    /// 1 where there is an edge, 0 where the list was filled up: [spots, longest list].
    pub(crate) real: Tensor<B, 2>,
    /// 1 at edges of the pruned graph: `[edges]`.
    pub(crate) pruned: Option<Tensor<B, 1>>,
}

impl<B: Backend> SpatialInput<B> {
    /// A whole slice.
    ///
    /// # Errors
    ///
    /// As [`Slice::new`].
    pub fn new(graph: SpatialGraph, expression: Expression, device: &B::Device) -> Result<Self> {
        Ok(Self::of_slice(Slice::new(graph, expression)?, device))
    }

    /// A slice on a device. What a backend needs beside it is made once for all clones of the slice.
    pub fn of_slice(slice: Slice, device: &B::Device) -> Self {
        Self { slice, device: device.clone() }
    }

    /// The same with a pruned graph beside it, for cell-type-aware STAGATE.
    ///
    /// # Errors
    ///
    /// As [`Slice::with_pruned`].
    pub fn with_pruned(self, kept: Arc<[bool]>) -> Result<Self> {
        Ok(Self { slice: self.slice.with_pruned(kept)?, device: self.device })
    }

    /// Who reads whom.
    pub fn graph(&self) -> &SpatialGraph {
        &self.slice.graph
    }

    /// What spots express.
    pub fn expression(&self) -> &Expression {
        &self.slice.expression
    }

    /// Which edges the pruned graph has.
    pub fn pruned(&self) -> Option<&Arc<[bool]>> {
        self.slice.pruned()
    }

    /// The same as the kernels take it.
    pub(crate) fn resident_pruned(&self) -> Option<&Arc<Resident<Arc<[bool]>>>> {
        self.slice.pruned.as_ref()
    }

    /// Spots whose reconstruction counts: the first ones.
    pub fn n_core(&self) -> usize {
        self.slice.n_core
    }

    /// Sum of squares over the spots that count.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        self.slice.sum_of_squares
    }

    /// Sum of each gene over the spots that count.
    pub(crate) fn sums_by_gene(&self) -> &Arc<[f32]> {
        &self.slice.sums_by_gene
    }

    /// Where tensors are made.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// Made when plain operations first need them on this device.
    pub(crate) fn plain(&self) -> Arc<PlainTensors<B>> {
        self.slice.plain.on(&self.device, || PlainTensors::new(self))
    }
}

impl<B: Backend> PlainTensors<B> {
    fn new(input: &SpatialInput<B>) -> Self {
        let (graph, device) = (input.slice.graph(), input.device());
        let (n_spots, n_genes) = (graph.n_spots(), input.slice.expression.n_genes());
        let ints = |values: Vec<i32>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        let (sources, targets) = graph.edges().map(|(source, target)| (source as i32, target as i32)).unzip();
        let longest = graph.longest_list();
        let (mut edges, mut real) = (vec![0_i32; n_spots * longest], vec![0.0_f32; n_spots * longest]);
        for spot in 0..n_spots {
            for (slot, edge) in graph.adjacency().edges(spot).enumerate() {
                edges[spot * longest + slot] = edge as i32;
                real[spot * longest + slot] = 1.0;
            }
        }
        let dense = TensorData::new(input.slice.expression.to_dense(), [n_spots, n_genes]);
        let pruned = input.pruned().map(|kept| {
            let ones: Vec<f32> = kept.iter().map(|&kept| f32::from(u8::from(kept))).collect();
            let n = ones.len();
            Tensor::from_data(TensorData::new(ones, [n]), device)
        });
        Self {
            expression: Tensor::from_data(dense, device),
            sources: ints(sources),
            targets: ints(targets),
            edges: Tensor::from_data(TensorData::new(edges, [n_spots, longest]), device),
            real: Tensor::from_data(TensorData::new(real, [n_spots, longest]), device),
            pruned,
        }
    }
}
