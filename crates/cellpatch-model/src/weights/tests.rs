//! Weights there and back, and files that are not what they should be.

mod damage;
mod fitting;
mod hostile;
mod pytorch_files;
mod writing;

use burn::backend::{Autodiff, Flex};
use burn::module::list_param_ids;
use burn::tensor::TensorData;

use super::*;
use crate::config::{ExpressionEmbedding, Preset};
use crate::error::Error;

/// A file of PyTorch's in tests/golden/pytorch.
macro_rules! torch_file {
    ($name:literal) => {
        &include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/pytorch/", $name))[..]
    };
}
use torch_file;

const PRETRAINED: &[u8] = include_bytes!("../../../../tests/golden/CellPatch_small_50ep.pth");
const ANNOTATOR: &[u8] = include_bytes!("../../../../tests/golden/cache_best_small.pth");

/// Reads bytes as a PyTorch file.
fn torch(bytes: &[u8]) -> Result<Checkpoint, Fault> {
    pytorch::contents(bytes).and_then(Checkpoint::from_contents)
}

/// The bits of every tensor, with its shape, by name.
fn bits(checkpoint: &Checkpoint) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let tensors = checkpoint.tensors.iter();
    tensors.map(|(name, data)| (name.clone(), (data.shape.to_vec(), data.bytes.to_vec()))).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn weights_survive_a_file_bit_for_bit_and_keep_their_identity() {
    let (folder, device) = (folder(), Default::default());
    for expression in [ExpressionEmbedding::Continuous, ExpressionEmbedding::Binned { max_value: 5 }] {
        let config = Preset::Tiny.config().with_expression(expression);
        let model = config.init::<Autodiff<Flex>>(&device);
        let metadata = config_metadata(&config);
        let path = folder.path().join("model.safetensors");
        save_safetensors(&model, &path, &metadata).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        save_safetensors(&model, &path, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);

        let checkpoint = Checkpoint::read(&path).unwrap();
        assert_eq!(checkpoint.config().unwrap(), config);
        let other = config.init::<Autodiff<Flex>>(&device);
        let ids = list_param_ids(&other);
        let (other, report) = checkpoint.load_into(other).unwrap();
        assert_eq!(named_tensors(&other), named_tensors(&model));
        assert_eq!(list_param_ids(&other), ids);
        assert_eq!((report.n_loaded, report.skipped.len()), (ids.len(), 0));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Default::default();
    let config = Preset::Tiny.config();
    let tensors = named_tensors(&config.init::<Flex>(&device));
    let load = |tensors: &BTreeMap<String, TensorData>| {
        let checkpoint = Checkpoint { tensors: tensors.clone(), ..Default::default() };
        checkpoint.load_into(config.init::<Flex>(&device)).map(|(_, report)| report)
    };

    let mut without = tensors.clone();
    without.remove("pathway_token");
    assert!(matches!(load(&without), Err(Error::MissingTensor { name }) if name == "pathway_token"));

    let other = named_tensors(&config.clone().with_gene_capacity(100).init::<Flex>(&device));
    assert!(matches!(
        load(&other),
        Err(Error::WrongShape { name, found, expected })
            if name == "gene2vector.weight" && found == [100, 32] && expected == [512, 32]
    ));

    let mut more = tensors;
    more.insert("lp_fc1.weight".into(), TensorData::new(vec![0.0_f32], [1]));
    assert_eq!(load(&more).unwrap().skipped, ["lp_fc1.weight"]);
}

#[test]
fn a_file_that_is_no_weights_file_is_an_error_with_its_path() {
    let folder = folder();
    for (name, bytes) in [
        ("a.safetensors", &b""[..]),
        ("b.safetensors", &b"not weights at all"[..]),
        ("c.pth", &b""[..]),
        ("d.pth", &b"PK\x03\x04 and nothing more"[..]),
        ("e.pth", &b"\x80\x02}q\x00."[..]),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert!(
            matches!(Checkpoint::read(&path), Err(Error::Unreadable { path: of, .. }) if of == path),
            "{name}"
        );
    }
    assert!(matches!(Checkpoint::read(folder.path().join("none.pth")), Err(Error::Io { .. })));
}
