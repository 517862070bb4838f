//! Cell types from a cell's patches.

use burn::config::Config;
use burn::module::{Module, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, LayerNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::initialization;
use crate::input::GeneValues;
use crate::linear::{apply, rows};
use crate::product::product;

/// What an annotation head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationHead {
    /// The patches as they are.
    Direct,
    /// The patches through the latent bottleneck and back: `LN(Linear(latent_dim, d)(latent))`.
    Projected,
}

/// Sizes and choices of an [`Annotator`]. The head's widths are the paper's.
#[derive(Config, Debug, PartialEq)]
pub struct AnnotatorConfig {
    /// The encoder's model.
    pub model: CellPatchConfig,
    /// Cell types.
    pub n_classes: usize,
    /// What the head reads.
    #[config(default = "AnnotationHead::Direct")]
    pub head: AnnotationHead,
    /// Widths of the two hidden layers.
    #[config(default = "[512, 100]")]
    pub hidden: [usize; 2],
    /// Probability with which a hidden unit of the head is dropped in training.
    #[config(default = 0.1)]
    pub dropout: f64,
}

impl AnnotatorConfig {
    /// Checks that a model can be made of this configuration.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfig`] with the first field that cannot be.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        let bad = |field, value: String, reason: &str| {
            Err(Error::BadConfig { field, value, reason: reason.into() })
        };
        if self.n_classes < 2 {
            return bad("n_classes", self.n_classes.to_string(), "two classes or more can be told apart");
        }
        if self.hidden.contains(&0) {
            return bad("hidden", format!("{:?}", self.hidden), "every layer needs a unit");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad("dropout", self.dropout.to_string(), "must be 0 or more and below 1");
        }
        Ok(())
    }

    /// Makes a model with fresh weights; see [`CellPatchConfig::init`].
    ///
    /// The configuration is taken as valid: see [`AnnotatorConfig::validate`].
    pub fn init<B: ModelBackend>(&self, device: &B::Device) -> Annotator<B> {
        Annotator::new(self, device)
    }
}

/// Identities of the feature norm's state, beyond those of any parameter.
const RUNNING_MEAN: u64 = 1 << 32;
const RUNNING_VARIANCE: u64 = RUNNING_MEAN + 1;

/// The encoder with a classification head: flattened patches (n_patches x d) -> 512 -> 100 -> classes, ReLU and dropout
/// between (paper, Methods; the released `PathFormer_lp`).
///
/// Make one with [`AnnotatorConfig::init`].
#[derive(Module, Debug)]
pub struct Annotator<B: Backend> {
    encoder: Encoder<B>,
    /// Of the projected head; in every released checkpoint, used or not.
    from_latent: Linear<B>,
    latent_norm: LayerNorm<B>,
    /// In every released checkpoint, never used by the authors' code nor here.
    unused_from_latent: Linear<B>,
    feature_norm: Option<BatchNorm<B>>,
    hidden_1: Linear<B>,
    hidden_2: Linear<B>,
    output: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    head: AnnotationHead,
}

impl<B: ModelBackend> Annotator<B> {
    fn new(config: &AnnotatorConfig, device: &B::Device) -> Self {
        let CellPatchConfig { embedding_dim: d, latent_dim, n_patches, .. } = config.model;
        let [hidden_1, hidden_2] = config.hidden;
        Self {
            encoder: Encoder::new(&config.model, device),
            from_latent: initialization::linear(latent_dim, d, device),
            latent_norm: initialization::layer_norm(d, device),
            unused_from_latent: initialization::linear(latent_dim, d, device),
            feature_norm: None,
            hidden_1: initialization::linear(n_patches * d, hidden_1, device),
            hidden_2: initialization::linear(hidden_1, hidden_2, device),
            output: initialization::linear(hidden_2, config.n_classes, device),
            dropout: DropoutConfig::new(config.dropout).init(),
            head: config.head,
        }
    }

    /// The same head on another encoder of the same sizes, such as a pretrained one.
    pub fn with_encoder(self, encoder: Encoder<B>) -> Self {
        Self { encoder, ..self }
    }

    /// The same model, whose encoder does not learn.
    pub fn freeze_encoder(self) -> Self {
        Self { encoder: self.encoder.no_grad(), ..self }
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder<B> {
        &self.encoder
    }

    /// What the head's first layer reads.
    ///
    /// - patches: [cells, n_patches, d]
    /// - output: [cells, n_patches x d]
    pub fn features(&self, patches: Tensor<B, 3>) -> Tensor<B, 2> {
        let features = match self.head {
            AnnotationHead::Direct => patches,
            AnnotationHead::Projected => {
                self.latent_norm.forward(rows(&self.from_latent, self.encoder.latent(patches)))
            }
        };
        features.flatten(1, 2)
    }

    /// The same model, whose head reads features of mean 0 and deviation 1 over a training batch (Ioffe and Szegedy 2015,
    /// without gain and shift of its own).
    ///
    /// Cells differ little in their patches, each of which is a patch token plus a mean over hundreds of genes; a head for
    /// features of deviation 1 needs many epochs to see it. [`Annotator::fold_feature_norm`] takes the normalisation
    /// away again when training is over.
    pub fn with_feature_norm(self) -> Self {
        let weight = self.hidden_1.weight.val();
        let ([n_features, _], device) = (weight.dims(), weight.device());
        let mut norm = BatchNormConfig::new(n_features).init(&device);
        norm.gamma = norm.gamma.set_require_grad(false);
        norm.beta = norm.beta.set_require_grad(false);
        // Fixed numbers, so that equal runs write equal checkpoints.
        norm.running_mean = RunningState::with_id(RUNNING_MEAN.into(), Tensor::zeros([n_features], &device));
        norm.running_var =
            RunningState::with_id(RUNNING_VARIANCE.into(), Tensor::ones([n_features], &device));
        Self { feature_norm: Some(norm), ..self }
    }

    /// Whether the head reads normalised features.
    pub fn has_feature_norm(&self) -> bool {
        self.feature_norm.is_some()
    }

    /// The same with the mean and the deviation of given features in place of running ones, which lag behind the encoder as
    /// long as it learns; a model without the norm stays as it is.
    ///
    /// - features: [cells, n_patches x d], of at least two cells
    pub fn with_norm_of(mut self, features: Tensor<B, 2>) -> Self {
        if let Some(norm) = &mut self.feature_norm
            && features.dims()[0] > 1
        {
            let (variance, mean) = features.var_mean(0);
            norm.running_mean = RunningState::with_id(RUNNING_MEAN.into(), mean.squeeze_dim(0));
            norm.running_var = RunningState::with_id(RUNNING_VARIANCE.into(), variance.squeeze_dim(0));
        }
        self
    }

    /// The same function without [`Annotator::with_feature_norm`]: the first layer takes the running mean and deviation on, up to
    /// rounding.
    pub fn fold_feature_norm(mut self) -> Self {
        let Some(norm) = self.feature_norm.take() else { return self };
        let scale = (norm.running_var.value() + norm.epsilon).sqrt().recip();
        let mean = norm.running_mean.value();
        self.hidden_1.weight = self.hidden_1.weight.map(|weight| weight * scale.unsqueeze_dim(1));
        let shift = product(mean.unsqueeze(), self.hidden_1.weight.val());
        self.hidden_1.bias = self.hidden_1.bias.map(|bias| bias.map(|bias| bias - shift.squeeze_dim(0)));
        self
    }

    /// Unnormalised log-probabilities of the classes.
    ///
    /// - output: [cells, classes]
    pub fn forward(&self, input: &GeneValues<B>) -> Tensor<B, 2> {
        self.classify(self.encoder.patches(input))
    }

    /// The same, of patches.
    ///
    /// - patches: [cells, n_patches, d]
    /// - output: [cells, classes]
    pub fn classify(&self, patches: Tensor<B, 3>) -> Tensor<B, 2> {
        let features = self.features(patches);
        let features = match &self.feature_norm {
            Some(norm) => norm.forward(features),
            None => features,
        };
        let hidden = self.dropout.forward(relu(apply(&self.hidden_1, features)));
        let hidden = self.dropout.forward(relu(apply(&self.hidden_2, hidden)));
        apply(&self.output, hidden)
    }
}

/// Weighted sum of the cross-entropies of a batch's cells: the loss is this divided by the sum of the weights, as
/// `torch.nn.CrossEntropyLoss(weight, label_smoothing)` computes it.
///
/// The wanted distribution is `1 - smoothing` for the cell's class plus `smoothing / n_classes` for every class; each
/// class's part counts with the weight of that class.
///
/// - logits: [cells, classes]
/// - classes: of each cell, below the number of classes
/// - weights: of each class, or none for 1
/// - output: `[1]`
pub fn weighted_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    classes: &[u32],
    weights: Option<&[f32]>,
    smoothing: f32,
) -> Tensor<B, 1> {
    let [n_cells, n_classes] = logits.dims();
    let weight = |class: usize| weights.map_or(1.0, |weights| weights[class]);
    let mut wanted = vec![0.0_f32; n_cells * n_classes];
    for (row, &class) in wanted.chunks_exact_mut(n_classes).zip(classes) {
        for (class, share) in row.iter_mut().enumerate() {
            *share = weight(class) * smoothing / n_classes as f32;
        }
        row[class as usize] += weight(class as usize) * (1.0 - smoothing);
    }
    let device = logits.device();
    let wanted =
        Tensor::<B, 2>::from_data(burn::tensor::TensorData::new(wanted, [n_cells, n_classes]), &device);
    // A row at a time: the sum of a whole large tensor is taken by threads, in no fixed order.
    (log_softmax(logits, 1) * wanted).sum_dim(1).sum().neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::{Distribution, Tolerance};

    fn config() -> AnnotatorConfig {
        AnnotatorConfig::new(Preset::Tiny.config(), 4)
    }

    #[test]
    fn a_model_needs_two_classes_and_a_sane_head() {
        assert!(config().validate().is_ok());
        for bad in [
            AnnotatorConfig::new(Preset::Tiny.config(), 1),
            config().with_hidden([0, 3]),
            config().with_dropout(1.0),
            AnnotatorConfig::new(Preset::Tiny.config().with_n_heads(3), 4),
        ] {
            assert!(matches!(bad.validate(), Err(Error::BadConfig { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_cell_is_labelled_the_same_whatever_its_batch() {
        let device = Default::default();
        for head in [AnnotationHead::Direct, AnnotationHead::Projected] {
            let model = config().with_head(head).init::<Flex>(&device);
            let genes: Vec<Vec<u32>> = (1..40_usize)
                .map(|n| (0..n * 3).map(|i| 1 + ((i * 37 + n) % 500) as u32).collect())
                .collect();
            let values: Vec<Vec<f32>> =
                genes.iter().map(|cell| cell.iter().map(|&gene| (gene % 7) as f32 * 0.4).collect()).collect();
            let logits = |cells: std::ops::Range<usize>| {
                let genes: Vec<&[u32]> = genes[cells.clone()].iter().map(Vec::as_slice).collect();
                let values: Vec<&[f32]> = values[cells].iter().map(Vec::as_slice).collect();
                let logits = model.forward(&GeneValues::pad(&genes, &values, &device).unwrap());
                logits.into_data().to_vec::<f32>().unwrap()
            };
            let together = logits(0..39);
            for cell in 0..39 {
                assert_eq!(logits(cell..cell + 1), together[cell * 4..cell * 4 + 4], "cell {cell}");
            }
        }
    }

    #[test]
    fn a_frozen_encoder_gets_no_gradient_and_the_head_does() {
        let device = Default::default();
        let model = config().init::<Autodiff<Flex>>(&device).freeze_encoder();
        let input = GeneValues::pad(&[&[3, 9], &[4]], &[&[1.0, 2.0], &[0.5]], &device).unwrap();
        let loss = weighted_cross_entropy(model.forward(&input), &[0, 3], None, 0.0);
        let gradients = loss.backward();
        assert!(model.encoder.gene_table().grad(&gradients).is_none());
        assert!(model.output.weight.val().grad(&gradients).is_some());
    }

    /// `torch.nn.functional.cross_entropy(logits, classes, weight, label_smoothing=0.1, reduction="sum")`.
    #[test]
    fn the_loss_is_pytorchs_with_weights_and_smoothing() {
        let device = Default::default();
        let logits = Tensor::<Flex, 2>::from_floats([[1.0, 2.0, 0.5], [0.2, -1.0, 3.0]], &device);
        let weights = [0.5, 2.0, 1.0];
        let sum = |weights: Option<&[f32]>, smoothing| {
            weighted_cross_entropy(logits.clone(), &[1, 0], weights, smoothing).into_scalar()
        };
        for (found, expected) in [
            (sum(None, 0.0), 3.340_52),
            (sum(Some(&weights), 0.0), 2.366_813),
            (sum(Some(&weights), 0.1), 2.573_193),
        ] {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_folded_norm_is_the_function_it_was() {
        let device = Default::default();
        let config = config();
        let (n_patches, d) = (config.model.n_patches, config.model.embedding_dim);
        let patches = Tensor::<Flex, 3>::random([40, n_patches, d], Distribution::Normal(5.0, 0.1), &device);
        let plain = config.init::<Flex>(&device);
        let features = plain.features(patches.clone());
        assert_eq!(
            plain.clone().with_norm_of(features.clone()).feature_norm.is_some(),
            plain.has_feature_norm()
        );

        let normed = plain.with_feature_norm().with_norm_of(features.clone());
        let norm = normed.feature_norm.as_ref().unwrap();
        let (variance, mean) = norm.forward(features).var_mean(0);
        assert!(mean.abs().max().into_scalar() < 1e-3);
        assert!((variance - 1.0).abs().max().into_scalar() < 0.01);

        let folded = normed.clone().fold_feature_norm();
        assert!(!folded.has_feature_norm());
        let (expected, found) = (normed.classify(patches.clone()), folded.classify(patches));
        found.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(2e-4));
    }
}
