//! STAGATE: a graph attention autoencoder (Dong and Zhang 2022).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use cellpatch_model::operation::{primitive, tensor};
use cellpatch_model::product::product;

use std::sync::Arc;

use crate::backend::SpatialBackend;
use crate::config::{StagateConfig, Tying};
use crate::input::SpatialInput;
use crate::layer::{AttentionLayer, AttentionPair, ProjectionLayer};
use crate::operation::{SpatialOperation, SquaredError};
use crate::plain;

/// Encoder `H1 = ELU(GAT(X W1))`, `Z = H1 W2`; decoder `H3 = ELU(GAT(Z W2^T))` with the encoder's attention, `X' = H3 W1^T`.
///
/// Make one with [`StagateConfig::init`]. Fields have the released names.
#[derive(Module, Debug)]
pub struct Stagate<B: Backend> {
    pub(crate) conv1: AttentionLayer<B>,
    pruned: Option<AttentionPair<B>>,
    pub(crate) conv2: ProjectionLayer<B>,
    pub(crate) conv3: Option<ProjectionLayer<B>>,
    pub(crate) conv4: Option<ProjectionLayer<B>>,
    pruned_share: f64,
}

/// What a model makes of a slice.
#[derive(Debug, Clone)]
pub struct StagateOutput<B: Backend> {
    /// The embedding that domains are made of: [spots, latent_dim].
    pub latent: Tensor<B, 2>,
    /// [spots, features]
    pub reconstruction: Tensor<B, 2>,
}

/// Between features and their reconstruction.
pub(crate) struct Pass<B: Backend> {
    pub(crate) weights: Tensor<B, 1>,
    pub(crate) latent: Tensor<B, 2>,
    /// What the decoder's last map is applied to: [spots, hidden_dim].
    pub(crate) hidden: Tensor<B, 2>,
}

impl<B: SpatialBackend> Stagate<B> {
    pub(crate) fn new(config: &StagateConfig, device: &B::Device) -> Self {
        let StagateConfig { n_features, hidden_dim, latent_dim, tying, pruned_share } = *config;
        let released = tying == Tying::Released;
        let model = Self {
            conv1: AttentionLayer::new(n_features, hidden_dim, device),
            pruned: (pruned_share > 0.0).then(|| AttentionPair::new(hidden_dim, device)),
            conv2: ProjectionLayer::new(hidden_dim, latent_dim, released, device),
            conv3: released.then(|| ProjectionLayer::new(latent_dim, hidden_dim, true, device)),
            conv4: released.then(|| ProjectionLayer::new(hidden_dim, n_features, true, device)),
            pruned_share,
        };
        model.with_decoder_of_encoder()
    }

    /// The embedding that domains are made of.
    ///
    /// - output: [spots, latent_dim]
    pub fn latent(&self, input: &SpatialInput<B>) -> Tensor<B, 2> {
        self.pass(input, expression_product(input, self.conv1.lin_src.val())).latent
    }

    /// Embedding and reconstruction. The latter is of every spot and gene: training needs [`Stagate::loss`] only.
    pub fn forward(&self, input: &SpatialInput<B>) -> StagateOutput<B> {
        let pass = self.pass(input, expression_product(input, self.conv1.lin_src.val()));
        let reconstruction = product(pass.hidden, self.decoder().transpose());
        StagateOutput { latent: pass.latent, reconstruction }
    }

    /// Weights of edges, in the order of [`SpatialGraph::edges`](crate::graph::SpatialGraph::edges): those of each spot sum to 1.
    ///
    /// - output: `[edges]`
    pub fn attention(&self, input: &SpatialInput<B>) -> Tensor<B, 1> {
        self.pass(input, expression_product(input, self.conv1.lin_src.val())).weights
    }

    /// Mean squared error of the reconstruction of the spots that count.
    ///
    /// The decoder is linear, so the error and its gradients follow from products of its width; the reconstruction is never
    /// made. With tied weights the product of expression and W1 serves both ends.
    ///
    /// - output: `[1]`
    pub fn loss(&self, input: &SpatialInput<B>) -> Tensor<B, 1> {
        let product = expression_product(input, self.conv1.lin_src.val());
        let pass = self.pass(input, product.clone());
        let decoder = self.decoder();
        let product = match &self.conv4 {
            None => product,
            Some(_) => expression_product(input, decoder.clone()),
        };
        decoder_error(input, product, pass.hidden, decoder, None)
    }

    /// The last map, a row for each feature: [features, hidden_dim].
    pub(crate) fn decoder(&self) -> Tensor<B, 2> {
        match &self.conv4 {
            Some(layer) => layer.lin_src.val().transpose(),
            None => self.conv1.lin_src.val(),
        }
    }

    /// - rows: features times W1, [spots, hidden_dim]
    pub(crate) fn pass(&self, input: &SpatialInput<B>, rows: Tensor<B, 2>) -> Pass<B> {
        let weights = self.weights(input, &rows);
        let hidden = gather(input, rows, weights.clone());
        let latent = product(hidden, self.conv2.lin_src.val());
        let back = match &self.conv3 {
            Some(layer) => layer.lin_src.val(),
            None => self.conv2.lin_src.val().transpose(),
        };
        let hidden = gather(input, product(latent.clone(), back), weights.clone());
        Pass { weights, latent, hidden }
    }

    fn weights(&self, input: &SpatialInput<B>, rows: &Tensor<B, 2>) -> Tensor<B, 1> {
        let AttentionLayer { att_src, att_dst, .. } = &self.conv1;
        let weights = attention_weights(input, rows.clone(), att_src, att_dst, false);
        match &self.pruned {
            Some(pruned) => {
                let pruned = attention_weights(input, rows.clone(), &pruned.att_src, &pruned.att_dst, true);
                weights * (1.0 - self.pruned_share) + pruned * self.pruned_share
            }
            None => weights,
        }
    }

    /// Separate parameters of the decoder take the values of the encoder's.
    pub(crate) fn with_decoder_of_encoder(mut self) -> Self {
        copy_transposed(&self.conv2.lin_src, self.conv3.as_mut().map(|layer| &mut layer.lin_src));
        copy_transposed(&self.conv1.lin_src, self.conv4.as_mut().map(|layer| &mut layer.lin_src));
        self
    }

    /// The encoder takes the values of the decoder's separate parameters.
    pub(crate) fn with_encoder_of_decoder(mut self) -> Self {
        if let (Some(conv3), Some(conv4)) = (&self.conv3, &self.conv4) {
            copy_transposed(&conv3.lin_src, Some(&mut self.conv2.lin_src));
            copy_transposed(&conv4.lin_src, Some(&mut self.conv1.lin_src));
        }
        self
    }
}

fn copy_transposed<B: Backend>(from: &Param<Tensor<B, 2>>, to: Option<&mut Param<Tensor<B, 2>>>) {
    if let Some(to) = to {
        let values = from.val().transpose();
        let shape = values.shape();
        // Reshaping to one dimension puts the elements in row-major order.
        let values: Tensor<B, 2> = values.reshape([shape.num_elements()]).reshape(shape).detach();
        *to = to.clone().map(|old| values.set_require_grad(old.is_require_grad()));
    }
}

/// The expression times a matrix: by the backend's kernel, or by [`plain::expression_product`].
///
/// - matrix: [genes, d]
/// - output: [spots, d]
pub(crate) fn expression_product<B: SpatialBackend>(
    input: &SpatialInput<B>,
    matrix: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let operation =
        SpatialOperation::ExpressionProduct { expression: Arc::clone(input.expression().matrix()) };
    B::spatial_fused(&operation, [primitive(matrix.clone())])
        .map_or_else(|| plain::expression_product(input, matrix), tensor)
}

fn attention_weights<B: SpatialBackend>(
    input: &SpatialInput<B>,
    rows: Tensor<B, 2>,
    source: &Param<Tensor<B, 3>>,
    target: &Param<Tensor<B, 3>>,
    pruned: bool,
) -> Tensor<B, 1> {
    let [_, d] = rows.dims();
    let [source, target] = [source, target].map(|vector| vector.val().reshape([d]));
    let kept = input.resident_pruned().filter(|_| pruned).cloned();
    let operation =
        SpatialOperation::AttentionWeights { adjacency: Arc::clone(input.graph().adjacency()), kept };
    let inputs = [primitive(rows.clone()), primitive(source.clone()), primitive(target.clone())];
    B::spatial_fused(&operation, inputs)
        .map_or_else(|| plain::attention_weights(input, rows, source, target, pruned), tensor)
}

fn gather<B: SpatialBackend>(
    input: &SpatialInput<B>,
    rows: Tensor<B, 2>,
    weights: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let operation = SpatialOperation::Gather { adjacency: Arc::clone(input.graph().adjacency()) };
    B::spatial_fused(&operation, [primitive(rows.clone()), primitive(weights.clone())])
        .map_or_else(|| plain::gather(input, rows, weights), tensor)
}

/// The error of a linear decoder over the spots that count.
///
/// - product: expression times weight, [spots, d]
/// - hidden: [spots, d]
/// - weight: [genes, d]
/// - bias: `[genes]`
/// - output: `[1]`
pub(crate) fn decoder_error<B: SpatialBackend>(
    input: &SpatialInput<B>,
    product: Tensor<B, 2>,
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 1> {
    let [n_spots, d] = hidden.dims();
    let counted = |rows: Tensor<B, 2>| match input.n_core() < n_spots {
        true => rows.slice([0..input.n_core(), 0..d]),
        false => rows,
    };
    let (product, hidden) = (counted(product), counted(hidden));
    let known = SquaredError {
        sum_of_squares: input.sum_of_squares(),
        sums_by_gene: Arc::clone(input.sums_by_gene()),
    };
    let operation = SpatialOperation::SquaredError(known.clone());
    let inputs = [primitive(product.clone()), primitive(hidden.clone()), primitive(weight.clone())];
    let fused = match &bias {
        Some(bias) => {
            let [product, hidden, weight] = inputs;
            B::spatial_fused(&operation, [product, hidden, weight, primitive(bias.clone())])
        }
        None => B::spatial_fused(&operation, inputs),
    };
    fused.map_or_else(|| plain::squared_error(&known, product, hidden, weight, bias), tensor)
}
