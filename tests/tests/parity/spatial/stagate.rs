//! STAGATE.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use cellpatch_spatial::{SpatialBackend, SpatialInput, StagateConfig};

use super::SpatialGolden;

pub(crate) fn check<B: SpatialBackend>(case: &str, device: &B::Device, slack: f64) {
    let golden = SpatialGolden::read(case, slack);
    let config = StagateConfig::new(golden.size("/config/dims/0"))
        .with_hidden_dim(golden.size("/config/dims/1"))
        .with_latent_dim(golden.size("/config/dims/2"))
        .with_tying(golden.tying());
    config.validate().unwrap();
    let weights = golden.weights();
    let (model, report) = weights.load_into(config.init::<Autodiff<B>>(device)).unwrap();
    assert_eq!((report.n_loaded, report.skipped.len()), (weights.tensors.len(), 0));

    let (graph, expression) = (golden.graph(), golden.expression("in/x"));
    let input = SpatialInput::<B>::new(graph.clone(), expression.clone(), device).unwrap();
    let valid = model.valid();
    let output = valid.forward(&input);
    golden.assert_output("latent", &output.latent.into_data());
    golden.assert_output("latent", &valid.latent(&input).into_data());
    golden.assert_output("recon", &output.reconstruction.into_data());
    golden.assert_edge_weights(&graph, &valid.attention(&input).into_data());

    let input = SpatialInput::<Autodiff<B>>::new(graph, expression, device).unwrap();
    golden.check_training(model, |model| model.loss(&input));
}
