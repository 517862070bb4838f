//! The CellPatch foundation model for single-cell RNA-seq, on Burn.
//!
//! A cell is a bag of (gene, expression) pairs, a few hundred to a few thousand of them. CellPatch (Zhu, Yuan, Yang et
//! al., bioRxiv 2024) reads that bag into 64 learned *patches*, so that everything after the first block costs the
//! same however many genes a cell expresses. This crate is the model itself: what goes in, what comes out, and how
//! weights are kept. It knows no files but weights, and no training loop.
//!
//! # The way through the model
//!
//! A batch is [`GeneValues`]: gene tokens and log1p-normalised values, one padded row a cell, with the true
//! [`GeneLengths`] on the host. The [`Encoder`] embeds each pair ([`embedding`]), lets the patch tokens read them in one
//! cross-attention [`block`], and lets the patches read each other in two more. Its patches are the features that
//! annotation and spatial domains are made of. For pretraining they pass a narrow latent, and the [`decoder`] lets
//! the genes of [`GeneTargets`] read it and each other, and predicts their expression; [`masked_squared_error`] is the
//! objective. [`CellPatch`] is all of it around one gene embedding table.
//!
//! With [`Padding::Masked`], the default, a cell's output never depends on the cells it is batched with; on the CPU
//! backend that holds to the last bit, and so does independence of the number of threads. A cell without any gene
//! reads one empty slot, and so has defined patches.
//!
//! # Backends
//!
//! Everything is generic over a [`ModelBackend`]: a Burn backend that may answer the model's operations with kernels of
//! its own, with hand-written backward passes and dropout inside. The CPU ([`burn::backend::Flex`]), wgpu and CUDA have them;
//! elsewhere plain operations do, which are also what the kernels are tested against. [`set_precision`] has a card's kernels store
//! what lies inside blocks in 16 bits, and [`TrainingMemory`] estimates what training takes.
//!
//! # Weights
//!
//! [`weights`] reads PyTorch's `.pth` and safetensors files and writes safetensors, under the names and in the layouts of
//! the authors' released checkpoints. [`Preset::Released`] is the architecture of these checkpoints.
//!
//! # An example
//!
//! ```
//! use burn::backend::Flex;
//! use cellpatch_model::{GeneTargets, GeneValues, Preset};
//!
//! let device = Default::default();
//! let model = Preset::Tiny.config().init::<Flex>(&device);
//!
//! // Two cells: genes by token, with their log1p-normalised expression.
//! let input = GeneValues::pad(&[&[3, 17, 42], &[5]], &[&[1.1, 0.4, 2.3], &[0.9]], &device)?;
//! let patches = model.patches(&input);
//! assert_eq!(patches.dims(), [2, 8, 32]);
//!
//! // What would genes 7 and 8 of the first cell be, and gene 9 of the second?
//! let targets = GeneTargets::pad(&[&[7, 8], &[9]], &device);
//! let prediction = model.predict(model.latent(patches), &targets);
//! assert_eq!(prediction.dims(), [2, 2]);
//! # Ok::<(), cellpatch_model::Error>(())
//! ```

pub mod activation;
pub mod annotation;
pub mod attention;
pub mod backend;
pub mod block;
pub mod config;
pub mod decoder;
pub mod embedding;
pub mod encoder;
pub mod error;
mod initialization;
pub mod input;
pub mod lengths;
mod linear;
pub mod loss;
pub mod memory;
pub mod model;
pub mod operation;
pub mod precision;
pub mod product;
pub mod sent;
pub mod tokens;
pub mod weights;

pub use annotation::{AnnotationHead, Annotator, AnnotatorConfig, weighted_cross_entropy};
pub use backend::ModelBackend;
#[cfg(feature = "cube")]
pub use cellpatch_gpu::cuda_headers;
pub use config::{CellPatchConfig, ExpressionEmbedding, Padding, Preset};
pub use encoder::{Encoder, PatchReader};
pub use error::{Error, ErrorCategory, Result};
pub use input::{GeneTargets, GeneValues, pad_rows, pad_values};
pub use lengths::GeneLengths;
pub use loss::masked_squared_error;
pub use memory::{Computation, PassShape, TrainingMemory};
pub use model::{AttentionScores, CellPatch, DecoderScores};
pub use precision::{Precision, precision, set_precision, with_precision};
pub use sent::{Held, Sent};
pub use tokens::{GeneTokens, HostTokens, TokenUse};
pub use weights::{Checkpoint, Fit, LoadReport, PthLayout};
