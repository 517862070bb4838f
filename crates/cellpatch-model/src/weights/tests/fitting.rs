//! What of a file goes into a model, and what does not.

use super::*;

#[test]
fn everything_that_does_not_fit_is_listed_by_name() {
    let model = Preset::Tiny.config().init::<Flex>(&Default::default());
    let mut checkpoint = Checkpoint::of(&model, BTreeMap::new());
    let complete = checkpoint.fit(&model);
    assert!(complete.is_complete());
    assert_eq!(complete.matching.len(), checkpoint.tensors.len());
    assert_eq!(complete.to_string(), format!("{} tensors fit the model", checkpoint.tensors.len()));

    checkpoint.tensors.remove("pathway_token");
    checkpoint.tensors.remove("decoder_projection.weight");
    let ones = |shape: &[usize]| TensorData::ones::<f32, _>(shape.to_vec());
    checkpoint.tensors.insert("gene2vector.weight".into(), ones(&[100, 32]));
    checkpoint.tensors.insert("lp_fc1.weight".into(), ones(&[5, 7]));
    let steps = LeftOutKind::Tensor { elements: "int64".into() };
    checkpoint.left_out = vec![
        LeftOut { name: "steps".into(), kind: steps },
        LeftOut { name: "optimizer_state_dict".into(), kind: LeftOutKind::Group { n_tensors: 3 } },
    ];
    let fit = checkpoint.fit(&model);
    assert!(!fit.is_complete());
    let listed: Vec<_> = fit.to_string().lines().skip(1).map(str::to_string).collect();
    let expected = [
        "2 missing from the file:",
        "  \"decoder_projection.weight\" [1, 32]",
        "  \"pathway_token\" [1, 8, 32]",
        "1 of another shape:",
        "  \"gene2vector.weight\" [100, 32] in the file, [512, 32] in the model",
        "1 not used by the model:",
        "  \"lp_fc1.weight\" [5, 7]",
        "2 no weights, left out:",
        "  \"steps\": a tensor of \"int64\"",
        "  \"optimizer_state_dict\": a group with 3 tensors",
    ];
    assert_eq!(listed, expected);
    let json = serde_json::to_value(&fit).unwrap();
    assert_eq!(json["unused"][0], serde_json::json!({ "name": "lp_fc1.weight", "shape": [5, 7] }));
    assert_eq!(json["left_out"][1]["kind"], serde_json::json!({ "group": { "n_tensors": 3 } }));
}

#[test]
fn an_annotation_checkpoint_has_an_encoder_and_a_head_but_no_decoder() {
    let checkpoint = torch(ANNOTATOR).unwrap();
    let config = torch(PRETRAINED).unwrap().config().unwrap();
    let fit = checkpoint.fit(&config.init::<Flex>(&Default::default()));
    assert!(fit.missing.iter().all(|tensor| tensor.name.starts_with("decoder_")), "{fit}");
    assert!(fit.unused.iter().all(|tensor| tensor.name.starts_with("lp_")), "{fit}");
    assert_eq!(fit.unused.len(), 10, "{fit}");
    let loaded = checkpoint.load_into(config.init::<Flex>(&Default::default()));
    assert!(matches!(loaded, Err(Error::MissingTensor { .. } | Error::WrongShape { .. })));
}

#[test]
fn a_parameter_stored_as_integers_is_of_the_wrong_type_not_missing() {
    let model = Preset::Tiny.config().init::<Flex>(&Default::default());
    let mut checkpoint = Checkpoint::of(&model, BTreeMap::new());
    checkpoint.tensors.remove("pathway_token");
    let kind = LeftOutKind::Tensor { elements: "int64".into() };
    checkpoint.left_out.push(LeftOut { name: "pathway_token".into(), kind });
    assert!(matches!(
        checkpoint.load_into(model),
        Err(Error::WrongType { name, found }) if name == "pathway_token" && found == "int64"
    ));
}

#[test]
fn integers_in_a_safetensors_file_are_left_out_by_name() {
    let header = br#"{"steps":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"w":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f]);
    let checkpoint = safetensors::contents(&bytes).and_then(Checkpoint::from_contents).unwrap();
    assert_eq!(checkpoint.tensors["w"], TensorData::new(vec![1.0_f32], [1]));
    assert_eq!(checkpoint.left_out[0].to_string(), "\"steps\": a tensor of \"I64\"");
}

#[test]
fn a_cell_reads_the_same_from_the_rows_of_its_genes_alone() {
    use crate::{GeneValues, PatchReader};
    let device = Default::default();
    let config = Preset::Tiny.config();
    let whole = Checkpoint::of(&config.init::<Flex>(&device), super::super::config_metadata(&config));
    let mut kept = whole.clone();
    let genes = [7, 300, 41];
    kept.keep_gene_rows(&genes).unwrap();
    assert_eq!(kept.config().unwrap().gene_capacity, 4);
    let patches = |checkpoint: &Checkpoint, genes: &[u32]| {
        let reader = PatchReader::<Flex>::new(&checkpoint.config().unwrap(), &device);
        let (reader, _) = checkpoint.load_into(reader).unwrap();
        let cell = GeneValues::pad(&[genes], &[&[0.5, 1.5, 2.0][..]], &device).unwrap();
        reader.forward(&cell).into_data()
    };
    assert_eq!(patches(&kept, &[1, 2, 3]), patches(&whole, &genes));
    assert!(matches!(kept.keep_gene_rows(&[4]), Err(Error::BadConfig { .. })));
}
