//! Attention among neighbours.

use std::sync::Arc;

use burn::tensor::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::buffer::Buffer;
use cellpatch_gpu::graph;
use cellpatch_kernels::graph::Adjacency;
use cellpatch_model::backend::cube::{CubeInputs, CubeKernel, buffer};

use crate::resident::Resident;

fn on_device<R: CubeRuntime>(
    adjacency: &Resident<Adjacency>,
    tensor: &CubeTensor<R>,
) -> Arc<graph::Adjacency> {
    adjacency.copy().on(&tensor.device, || graph::Adjacency::new(&tensor.client, adjacency))
}

#[derive(Debug)]
pub(super) struct CubeWeights {
    pub(super) adjacency: Arc<Resident<Adjacency>>,
    pub(super) kept: Option<Arc<Resident<Arc<[bool]>>>>,
}

/// What a call of [`CubeWeights`] reads.
struct Call {
    adjacency: Arc<graph::Adjacency>,
    kept: Option<Arc<graph::Edges>>,
    rows: Buffer<f32>,
    source: Buffer<f32>,
    target: Buffer<f32>,
}

impl Call {
    fn vectors(&self) -> graph::AttentionVectors<'_> {
        let kept = self.kept.as_deref().unwrap_or(self.adjacency.all());
        graph::AttentionVectors { source: &self.source, target: &self.target, kept }
    }
}

impl CubeWeights {
    fn call<R: CubeRuntime>(&self, inputs: &CubeInputs<R>) -> Call {
        let rows = &inputs.floats[0];
        let copy = |kept: &Resident<Arc<[bool]>>| {
            kept.copy().on(&rows.device, || graph::Edges::new(&rows.client, kept))
        };
        Call {
            adjacency: on_device(&self.adjacency, rows),
            kept: self.kept.as_deref().map(copy),
            rows: inputs.buffer(0),
            source: inputs.buffer(1),
            target: inputs.buffer(2),
        }
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeWeights {
    fn shapes(&self, _inputs: &[Shape], keep: bool) -> Vec<Shape> {
        let mut shapes = vec![Shape::new([self.adjacency.n_edges()])];
        shapes.extend(keep.then(|| Shape::new([self.adjacency.n_spots(), 2])));
        shapes
    }

    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>> {
        let (call, client) = (self.call(inputs), &inputs.floats[0].client);
        let found = graph::attention_weights(client, &call.adjacency, &call.rows, call.vectors());
        let mut computed = vec![inputs.tensor(found.weights, [self.adjacency.n_edges()])];
        computed.extend(keep.then(|| inputs.tensor(found.products, [self.adjacency.n_spots(), 2])));
        computed
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let call = self.call(inputs);
        let computed =
            graph::AttentionWeights { weights: buffer(&computed[0]), products: buffer(&computed[1]) };
        let gradients = graph::attention_weights_backward(
            &gradient.client,
            &call.adjacency,
            &call.rows,
            call.vectors(),
            &computed,
            &buffer(&gradient),
        );
        vec![
            inputs.like(gradients.rows, 0),
            inputs.like(gradients.source, 1),
            inputs.like(gradients.target, 2),
        ]
    }
}

#[derive(Debug)]
pub(super) struct CubeGather {
    pub(super) adjacency: Arc<Resident<Adjacency>>,
}

impl<R: CubeRuntime> CubeKernel<R> for CubeGather {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        vec![inputs[0].clone()]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let ([_, d], rows) = (inputs.dims(0), &inputs.floats[0]);
        let adjacency = on_device(&self.adjacency, rows);
        let output = graph::gather(&rows.client, &adjacency, &inputs.buffer(0), &inputs.buffer(1), d);
        vec![inputs.like(output, 0)]
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let [_, d] = inputs.dims(0);
        let gradients = graph::gather_backward(
            &gradient.client,
            &on_device(&self.adjacency, &gradient),
            &inputs.buffer(0),
            &inputs.buffer(1),
            (&buffer(&computed[0]), &buffer(&gradient)),
            d,
        );
        vec![inputs.like(gradients.rows, 0), inputs.like(gradients.weights, 1)]
    }
}
