//! Steps of an optimizer, where decoder and encoder share storage.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;

use crate::backend::SpatialBackend;
use crate::cellpatch_stagate::CellPatchStagate;
use crate::stagate::Stagate;

/// A model whose decoder may have parameters of its own in the encoder's storage.
pub trait SharedStorage: Sized {
    /// The decoder's own matrices; none where weights are tied.
    fn decoder_parameters(&self) -> Vec<ParamId>;
    /// Gives them the values of the encoder's.
    fn with_decoder_of_encoder(self) -> Self;
    /// Gives the encoder's their values.
    fn with_encoder_of_decoder(self) -> Self;
}

impl<B: SpatialBackend> SharedStorage for Stagate<B> {
    fn decoder_parameters(&self) -> Vec<ParamId> {
        [&self.conv3, &self.conv4].into_iter().flatten().map(|layer| layer.lin_src.id).collect()
    }

    fn with_decoder_of_encoder(self) -> Self {
        Stagate::with_decoder_of_encoder(self)
    }

    fn with_encoder_of_decoder(self) -> Self {
        Stagate::with_encoder_of_decoder(self)
    }
}

impl<B: SpatialBackend> SharedStorage for CellPatchStagate<B> {
    fn decoder_parameters(&self) -> Vec<ParamId> {
        self.autoencoder.decoder_parameters()
    }

    fn with_decoder_of_encoder(mut self) -> Self {
        self.autoencoder = self.autoencoder.with_decoder_of_encoder();
        self
    }

    fn with_encoder_of_decoder(mut self) -> Self {
        self.autoencoder = self.autoencoder.with_encoder_of_decoder();
        self
    }
}

/// A step of an optimizer. With tied weights it is the optimizer's own.
///
/// [`Tying::Released`](crate::Tying::Released) repeats what happens in the authors' PyTorch code, where the decoder's parameters are
/// views of the encoder's storage: all parameters but the decoder's matrices take their step, then these take theirs from
/// where the encoder's have arrived, with moments of their own, and both are one again.
pub fn step<B, M, O>(optimizer: &mut O, learning_rate: f64, model: M, mut gradients: GradientsParams) -> M
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + SharedStorage,
    O: Optimizer<M, B>,
{
    let decoder = model.decoder_parameters();
    if decoder.is_empty() {
        return optimizer.step(learning_rate, model, gradients);
    }
    let mut of_decoder = GradientsParams::new();
    for id in decoder {
        if let Some(gradient) = gradients.remove::<B::InnerBackend, 2>(id) {
            of_decoder.register(id, gradient);
        }
    }
    let model = optimizer.step(learning_rate, model, gradients).with_decoder_of_encoder();
    optimizer.step(learning_rate, model, of_decoder).with_encoder_of_decoder()
}
