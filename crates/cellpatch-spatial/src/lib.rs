//! Spatial transcriptomics: neighbour graphs, STAGATE and CellPatch+STAGATE, on Burn.
//!
//! A spot's domain is told by what it expresses and by what its neighbours express. STAGATE (Dong and Zhang 2022) is an
//! autoencoder whose layers let every spot read its neighbours with learned weights; CellPatch+STAGATE (Zhu, Yuan, Yang et
//! al. 2024) gives it the patches of CellPatch's first block beside the expression. This crate is the numbers of
//! both: graphs, models, the loss and its gradients, batches. It reads no files but weights, and makes no domains.
//!
//! # The way
//!
//! [`graph::build`] finds each spot's neighbours exactly, by radius or by number, and [`graph::stack`] those of slices along
//! z; what cannot be meant is an [`Error`] with a suggestion, what may be a mistake a [`graph::GraphWarning`]. With the
//! sparse [`Expression`] it makes a [`SpatialInput`]. [`StagateConfig`] makes a [`Stagate`], [`CellPatchStagateConfig`] a
//! [`CellPatchStagate`], whose first block takes the weights of any pretrained checkpoint
//! ([`CellPatchStagate::with_pretrained`]). Both have a `loss` to train with and a `latent` to make domains of. [`Tiles`] cuts
//! slices that are too large into batches whose losses add up to the slice's.
//!
//! [`training::train`] does all of that for a slice in a run directory, with checkpoints and exact resume, through the loop of
//! `cellpatch-train`; what it writes beside the weights is a [`training::SpatialCard`].
//!
//! # What is not computed
//!
//! The decoder is linear and the loss squared error, so loss and gradients follow from products of the decoder's width: the
//! reconstruction of every spot and gene is never made, and expression stays sparse. The two linear maps at the end of
//! CellPatch+STAGATE are one. All spots ask the patches' questions, so the scores of genes are a table; where zeros are read
//! ([`GenesRead::All`]), they are summed once for all spots. All of it is exact, and held to the plain computation by
//! tests.
//!
//! # Backends
//!
//! As in `cellpatch-model`: the models ask [`SpatialBackend`] for a kernel, and [`plain`] operations do where there is none.
//!
//! # An example
//!
//! ```
//! use burn::backend::{Autodiff, Flex};
//! use burn::optim::GradientsParams;
//! use cellpatch_spatial::graph::{Neighborhood, build};
//! use cellpatch_spatial::{Expression, SpatialInput, StagateConfig, step};
//! use cellpatch_train::{clip_global_norm, coupled_adam};
//!
//! // Sixteen spots on a grid, three genes.
//! let positions: Vec<[f64; 2]> = (0..16).map(|spot| [f64::from(spot % 4), f64::from(spot / 4)]).collect();
//! let built = build(&positions, Neighborhood::Radius(1.0))?;
//! assert_eq!(built.graph.statistics().mean, 3.0);
//! let values: Vec<f32> = (0..16 * 3).map(|index| (index % 5) as f32).collect();
//! let expression = Expression::from_dense(&values, 3)?;
//! let input = SpatialInput::<Autodiff<Flex>>::new(built.graph, expression, &Default::default())?;
//!
//! let mut model = StagateConfig::new(3).with_hidden_dim(8).with_latent_dim(2).init(&Default::default());
//! let mut adam = coupled_adam(1e-4);
//! for _ in 0..3 {
//!     let gradients = GradientsParams::from_grads(model.loss(&input).backward(), &model);
//!     let gradients = clip_global_norm(&model, gradients, 5.0);
//!     model = step(&mut adam, 1e-3, model, gradients);
//! }
//! assert_eq!(model.latent(&input).dims(), [16, 2]);
//! # Ok::<(), cellpatch_spatial::Error>(())
//! ```

pub mod backend;
mod cellpatch_stagate;
mod config;
pub mod error;
mod expression;
pub mod graph;
mod input;
mod layer;
pub mod operation;
pub mod plain;
mod resident;
mod stagate;
mod step;
mod tiles;
pub mod training;

pub use backend::SpatialBackend;
pub use cellpatch_stagate::{CellPatchInput, CellPatchStagate};
pub use config::{CellPatchStagateConfig, GenesRead, StagateConfig, Tying};
pub use error::{Error, Result};
pub use expression::Expression;
pub use input::{Slice, SpatialInput};
pub use resident::Resident;
pub use stagate::{Stagate, StagateOutput};
pub use step::{SharedStorage, step};
pub use tiles::{Surroundings, TileBatch, Tiles};
