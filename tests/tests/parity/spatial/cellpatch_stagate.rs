//! CellPatch+STAGATE.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use cellpatch_model::CellPatchConfig;
use cellpatch_spatial::{CellPatchInput, CellPatchStagateConfig, GenesRead, SpatialBackend, SpatialInput};

use super::SpatialGolden;

pub(crate) fn check<B: SpatialBackend>(case: &str, device: &B::Device, slack: f64) {
    let golden = SpatialGolden::read(case, slack);
    let cell_patch = CellPatchConfig::new()
        .with_gene_capacity(golden.size("/config/max_gene_num"))
        .with_embedding_dim(golden.size("/config/embedding_dim"))
        .with_n_patches(golden.size("/config/n_patches"))
        .with_n_heads(golden.size("/config/n_heads"))
        .with_mlp_dim(2 * golden.size("/config/embedding_dim"))
        .with_attention_dropout(0.0);
    let config = CellPatchStagateConfig::new(cell_patch, golden.size("/config/n_genes"))
        .with_hidden_dim(golden.size("/config/dims/1"))
        .with_latent_dim(golden.size("/config/dims/2"))
        .with_tying(golden.tying())
        .with_genes_read(GenesRead::All);
    config.validate().unwrap();
    assert_eq!(config.autoencoder().n_features, golden.size("/config/dims/0"));
    let weights = golden.weights();
    let (model, report) = weights.load_into(config.init::<Autodiff<B>>(device)).unwrap();
    assert_eq!((report.n_loaded, report.skipped.len()), (weights.tensors.len(), 0));

    let input = input::<B>(&golden, device);
    let valid = model.valid();
    let output = valid.forward(&input);
    let patches = valid.patches(&input).reshape(golden.golden.data("out/patch").shape.dims::<3>());
    golden.assert_output("patch", &patches.into_data());
    golden.assert_output("features", &valid.features(&input).into_data());
    golden.assert_output("latent", &output.latent.into_data());
    golden.assert_output("latent", &valid.latent(&input).into_data());
    golden.assert_output("recon_features", &valid.reconstructed_features(&input).into_data());
    golden.assert_output("recon", &output.reconstruction.into_data());

    let input = self::input::<Autodiff<B>>(&golden, device);
    golden.check_training(model, |model| model.loss(&input));
}

fn input<B: Backend>(golden: &SpatialGolden, device: &B::Device) -> CellPatchInput<B> {
    let expression = golden.expression("in/counts");
    let n_genes = expression.n_genes();
    let genes: Vec<u32> = golden.golden.values("in/genes").iter().map(|&token| token as u32).collect();
    assert!(genes.chunks(n_genes).all(|row| *row == genes[..n_genes]), "all spots are given the same genes");
    let slice = SpatialInput::new(golden.graph(), expression, device).unwrap();
    let capacity = golden.size("/config/max_gene_num");
    CellPatchInput::new(slice, genes[..n_genes].to_vec(), capacity).unwrap()
}
