//! Files that PyTorch itself has written.

use super::*;

/// 1, 2, 3, ... / 4, as the files hold them.
fn numbers(which: &[usize], shape: &[usize]) -> TensorData {
    TensorData::new(which.iter().map(|&n| n as f32 / 4.0).collect::<Vec<_>>(), shape.to_vec())
}

#[test]
fn every_kind_of_tensor_is_read_or_left_out_by_name() {
    let checkpoint = torch(torch_file!("kinds.pth")).unwrap();
    let six = numbers(&[1, 2, 3, 4, 5, 6], &[2, 3]);
    let expected = BTreeMap::from([
        ("float32", six.clone()),
        ("float64", six.clone()),
        ("float16", six.clone()),
        ("bfloat16", six),
        ("scalar", numbers(&[1], &[])),
        ("empty", numbers(&[], &[0, 3])),
        ("transposed", numbers(&[1, 3, 5, 2, 4, 6], &[2, 3])),
        ("rows_from_the_second", numbers(&[4, 5, 6, 7, 8, 9, 10, 11, 12], &[3, 3])),
        ("every_other_column", numbers(&[1, 3, 5, 7], &[2, 2])),
        ("tied_one", numbers(&[1, 2, 3, 4], &[2, 2])),
        ("tied_other", numbers(&[1, 3, 2, 4], &[2, 2])),
        ("parameter", numbers(&[1, 2, 3], &[3])),
    ]);
    let found = checkpoint.tensors.iter().map(|(name, data)| (name.as_str(), data.clone())).collect();
    assert_eq!(expected, found);
    let tensor = |name: &str, elements: &str| LeftOut {
        name: name.into(),
        kind: LeftOutKind::Tensor { elements: elements.into() },
    };
    let left_out = [
        tensor("int64", "int64"),
        tensor("bool", "bool"),
        tensor("sparse", "torch._utils._rebuild_sparse_tensor"),
    ];
    assert_eq!(checkpoint.left_out, left_out);
}

#[test]
fn a_state_dict_is_found_wherever_checkpoints_keep_it() {
    let expected = bits(&torch(torch_file!("state_dict.pth")).unwrap());
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["bias", "empty", "scalar", "weight"]);
    let left_out = |bytes| {
        let checkpoint = torch(bytes).unwrap();
        assert_eq!(bits(&checkpoint), expected);
        checkpoint.left_out.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(left_out(torch_file!("model_state_dict.pth")).is_empty());
    assert!(left_out(torch_file!("released.pth")).is_empty());
    assert!(left_out(torch_file!("without_checksums.pth")).is_empty());
    assert_eq!(left_out(torch_file!("key_state_dict.pth")), ["\"epoch\": a value"]);
    assert_eq!(left_out(torch_file!("key_model.pth")), ["\"best\": a value", "\"args\": a value"]);
}

#[test]
fn what_a_checkpoint_holds_beside_its_weights_is_listed() {
    let checkpoint = torch(PRETRAINED).unwrap();
    let listed: Vec<_> = checkpoint.left_out.iter().map(ToString::to_string).collect();
    // Adam keeps a step and two averages of each of the 70 parameters that got a gradient: those of
    // count2vector_norm are never used.
    let expected =
        ["\"epoch\": a value", "\"optimizer_state_dict\": a group with 210 tensors", "\"losses\": a value"];
    assert_eq!(listed, expected);
    assert!(torch(ANNOTATOR).unwrap().left_out.is_empty());
}

#[test]
fn the_annotation_checkpoint_has_the_weights_pytorch_says_it_has() {
    let found = torch(ANNOTATOR).unwrap();
    let folder = folder();
    let path = folder.path().join("expected.safetensors");
    std::fs::write(
        &path,
        include_bytes!("../../../../../tests/golden/cache_best_small.expected.safetensors"),
    )
    .unwrap();
    let expected = Checkpoint::read(&path).unwrap().tensors.into_iter();
    let expected: BTreeMap<_, _> = expected
        .filter_map(|(name, data)| Some((name.strip_prefix("weights/")?.to_string(), data)))
        .collect();
    assert_eq!(found.tensors, expected);
    assert_eq!(expected.len(), 56);
}

#[test]
fn a_whole_pickled_module_is_refused_by_name() {
    let fault = torch(torch_file!("whole_module.pth")).unwrap_err();
    assert_eq!(fault, Fault::ForbiddenGlobal { global: "torch.nn.modules.linear.Linear".into() });
    assert!(fault.help().contains("model.state_dict()"), "{}", fault.help());
}

#[test]
fn a_file_from_before_the_archives_is_refused_with_a_way_out() {
    let fault = torch(torch_file!("legacy.pth")).unwrap_err();
    assert_eq!(fault, Fault::LegacyPytorch);
    assert!(fault.help().contains("torch.save(torch.load("), "{}", fault.help());
}

#[test]
fn an_expanded_tensor_is_refused_by_name() {
    let overlapping = TensorFault::Overlapping { shape: vec![2, 3], strides: vec![0, 1] };
    assert_eq!(
        torch(torch_file!("expanded.pth")).unwrap_err(),
        Fault::BadTensor { name: "weight".into(), fault: overlapping }
    );
}

#[test]
fn a_file_is_known_by_its_content_where_its_name_does_not_tell() {
    let folder = folder();
    let path = folder.path().join("epoch-3.ckpt");
    std::fs::write(&path, torch_file!("state_dict.pth")).unwrap();
    assert_eq!(Checkpoint::read(&path).unwrap().tensors.len(), 4);
    std::fs::write(&path, torch_file!("legacy.pth")).unwrap();
    assert!(matches!(
        Checkpoint::read(&path),
        Err(Error::Unreadable { fault: Fault::LegacyPytorch, path: of, .. }) if of == path
    ));
}
