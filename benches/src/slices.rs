//! Epochs of the spatial models over a slice with random expression.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor};
use cellpatch_model::{ModelBackend, Preset};
use cellpatch_spatial::graph::{Neighborhood, Position, build};
use cellpatch_spatial::{
    CellPatchInput, CellPatchStagateConfig, Expression, GenesRead, SharedStorage, SpatialBackend,
    SpatialInput, StagateConfig, step,
};
use cellpatch_train::{clip_global_norm, coupled_adam};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Result;

/// Rows of the gene table, of which a slice's genes take some.
const N_TOKENS: u32 = 60_000;

/// An epoch of STAGATE, as often as it is called.
pub(crate) fn stagate<B>(n_spots: usize, n_genes: usize, device: &B::Device) -> Result<impl FnMut() + use<B>>
where
    B: SpatialBackend,
    Autodiff<B>: SpatialBackend<Device = B::Device>,
{
    let input = slice::<Autodiff<B>>(n_spots, n_genes, device)?;
    let model = StagateConfig::new(n_genes).init::<Autodiff<B>>(device);
    Ok(epochs(model, move |model| model.loss(&input)))
}

/// An epoch of CellPatch+STAGATE whose patches read all genes, zeros too, as often as it is called.
pub(crate) fn cellpatch_stagate<B>(
    n_spots: usize,
    n_genes: usize,
    dropout: f64,
    device: &B::Device,
) -> Result<impl FnMut() + use<B>>
where
    B: SpatialBackend,
    Autodiff<B>: SpatialBackend<Device = B::Device>,
{
    let cell_patch = Preset::Paper.config().with_attention_dropout(dropout);
    let tokens: Vec<u32> = (0..n_genes as u32).map(|gene| 1 + gene * (N_TOKENS / n_genes as u32)).collect();
    let input = CellPatchInput::new(
        slice::<Autodiff<B>>(n_spots, n_genes, device)?,
        tokens,
        cell_patch.gene_capacity,
    )?;
    let config = CellPatchStagateConfig::new(cell_patch, n_genes).with_genes_read(GenesRead::All);
    Ok(epochs(config.init::<Autodiff<B>>(device), move |model| model.loss(&input)))
}

/// Forward, loss, backward, clipping and Adam.
fn epochs<B, M, F>(model: M, loss: F) -> impl FnMut() + use<B, M, F>
where
    B: AutodiffBackend<InnerBackend: ModelBackend>,
    M: AutodiffModule<B> + SharedStorage,
    F: Fn(&M) -> Tensor<B, 1>,
{
    let mut adam = coupled_adam(1e-4);
    let mut model = Some(model);
    move || {
        let Some(before) = model.take() else { return };
        let loss = loss(&before);
        let _: f64 = loss.clone().into_scalar().elem();
        let gradients = GradientsParams::from_grads(loss.backward(), &before);
        let gradients = clip_global_norm(&before, gradients, 0.1);
        model = Some(step(&mut adam, 1e-4, before, gradients));
    }
}

fn slice<B: SpatialBackend>(n_spots: usize, n_genes: usize, device: &B::Device) -> Result<SpatialInput<B>> {
    let graph = build(&hexagons(n_spots), Neighborhood::Radius(1.1))?.graph;
    Ok(SpatialInput::new(graph, random_expression(n_spots, n_genes)?, device)?)
}

fn hexagons(n_spots: usize) -> Vec<Position> {
    let side = (n_spots as f64).sqrt().ceil() as usize;
    let spot = |index: usize| {
        let (row, column) = (index / side, index % side);
        [column as f64 + 0.5 * (row % 2) as f64, row as f64 * 0.75_f64.sqrt()]
    };
    (0..n_spots).map(spot).collect()
}

/// A fifth of the values are not zero, exponentially distributed.
fn random_expression(n_spots: usize, n_genes: usize) -> Result<Expression> {
    let mut random = StdRng::seed_from_u64(0);
    let (mut starts, mut genes, mut values) = (vec![0], Vec::new(), Vec::new());
    for _ in 0..n_spots {
        for gene in 0..n_genes as u32 {
            if random.random_range(0.0..1.0_f32) < 0.2 {
                genes.push(gene);
                values.push(-random.random_range(f32::EPSILON..1.0_f32).ln());
            }
        }
        starts.push(genes.len());
    }
    Ok(Expression::from_sparse(starts, genes, values, n_genes)?)
}
