//! A file written by PyTorch.

use std::collections::BTreeMap;

use cellpatch_model::weights::{load_safetensors, named_tensors, save_safetensors};
use cellpatch_model::{Checkpoint, GeneLengths, GeneTargets, GeneValues, ModelBackend};

use crate::golden::{Golden, assert_within, largest_difference, path};

/// What the manifest allows outputs with attended padding.
const TOLERANCE: f64 = 4e-5;

pub(crate) fn check<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("CellPatch_small_50ep.expected.safetensors");
    let checkpoint = Checkpoint::read(path("CellPatch_small_50ep.pth")).unwrap();
    let expected = golden.group("weights");
    assert_eq!(checkpoint.tensors.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        assert_eq!(&checkpoint.tensors[name], expected, "{name}");
    }

    let config = checkpoint.config().unwrap();
    let (model, report) = checkpoint.load_into(config.init::<B>(device)).unwrap();
    assert_eq!((report.n_loaded, report.skipped.len()), (expected.len(), 0));

    // Padding is attended, so every slot counts as a gene.
    let every_slot = |name: &str| {
        let [n_cells, width] = golden.data(name).shape.dims();
        GeneLengths::new(vec![width; n_cells])
    };
    let (genes, values) = (golden.ints("in/genes_e", device), golden.tensor("in/counts_e", device));
    let input = GeneValues::from_padded(genes, values, every_slot("in/genes_e")).unwrap();
    let targets =
        GeneTargets::from_padded(golden.ints("in/genes_d", device), every_slot("in/genes_d")).unwrap();
    let prediction = model.forward(&input, &targets).into_data();
    let difference = largest_difference(&prediction, golden.data("out/pred_nomask"), |_| true);
    assert_within("prediction of the PyTorch checkpoint", difference, TOLERANCE * slack);

    let copy = std::env::temp_dir().join(format!("cellpatch-parity-{}.safetensors", std::process::id()));
    save_safetensors(&model, &copy, &BTreeMap::new()).unwrap();
    let (again, _) = load_safetensors(config.init::<B>(device), &copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(named_tensors(&again), expected, "written, read and the same");
}
