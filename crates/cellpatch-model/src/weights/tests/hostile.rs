//! Files made to do harm.

use super::*;
use crate::weights::zip::ArchiveWriter;

/// An archive as `torch.save` writes it, with any pickle and any storages.
pub(super) fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    archive.member("archive/data.pkl", pickle).unwrap();
    for (index, storage) in storages.iter().enumerate() {
        archive.member(&format!("archive/data/{index}"), storage).unwrap();
    }
    archive.finish().unwrap()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integer(integer: i64) -> Vec<u8> {
    [&[0x8a, 8], &integer.to_le_bytes()[..]].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    let items = items.iter().flat_map(|&item| integer(item));
    [b'('].into_iter().chain(items).chain([b't']).collect()
}

/// A tensor of the storage `data/0`.
struct Described {
    kind: &'static str,
    n_stored: i64,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Described {
    fn new(shape: &[i64], strides: &[i64]) -> Self {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Self { kind: "FloatStorage", n_stored: 6, offset: 0, shape, strides }
    }

    fn pickled(&self) -> Vec<u8> {
        [
            &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
            &text("storage"),
            format!("ctorch\n{}\n", self.kind).as_bytes(),
            &text("0"),
            &text("cpu"),
            &integer(self.n_stored),
            b"tQ",
            &integer(self.offset),
            &tuple(&self.shape),
            &tuple(&self.strides),
            b"\x89)tR",
        ]
        .concat()
    }

    /// What reading a state dict with this tensor as "w", and six floats to take it from, gives.
    fn read(&self) -> Result<Checkpoint, Fault> {
        torch(&archive(&dict(&[("w", &self.pickled())]), &[&[0; 24]]))
    }

    fn fault(&self) -> TensorFault {
        match self.read() {
            Err(Fault::BadTensor { name, fault }) if name == "w" => fault,
            other => panic!("{other:?}"),
        }
    }
}

fn dict(items: &[(&str, &[u8])]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(name, value)| [&text(name)[..], value].concat()).collect();
    [b"\x80\x02}(", &items[..], b"u."].concat()
}

#[test]
fn a_pickle_that_asks_for_a_program_is_refused_by_its_name_and_runs_nothing() {
    let folder = folder();
    let proof = folder.path().join("ran");
    let command = text(&format!("touch {}", proof.display()));
    let called = |global: &[u8]| [global, &command, b"\x85R"].concat();
    let stack_global = [&text("posix")[..], &text("system"), b"\x93"].concat();
    let short_stack_global = b"\x8c\x08builtins\x8c\x04eval\x93";
    let good = Described::new(&[2, 3], &[3, 1]).pickled();
    let in_hooks = [&good[..good.len() - 3], &called(b"cos\nsystem\n"), b"tR"].concat();
    let cases: [(&str, Vec<u8>); 12] = [
        ("os.system", [b"\x80\x02", &called(b"cos\nsystem\n")[..], b"."].concat()),
        ("posix.system", dict(&[("w", &good), ("x", &called(b"cposix\nsystem\n"))])),
        ("posix.system", [b"\x80\x04", &called(&stack_global)[..], b"."].concat()),
        ("builtins.eval", [b"\x80\x04", &called(short_stack_global)[..], b"."].concat()),
        ("__builtin__.eval", dict(&[("w", &called(b"c__builtin__\neval\n"))])),
        ("builtins.getattr", dict(&[("w", b"cbuiltins\ngetattr\n")])),
        ("os.system", dict(&[("w", &in_hooks)])),
        ("nt.system", [b"\x80\x02(", &command[..], b"int\nsystem\n."].concat()),
        ("torch.hub.load", dict(&[("w", &good), ("x", b"ctorch.hub\nload\n")])),
        ("torch.serialization.load", dict(&[("w", b"ctorch.serialization\nload\n")])),
        ("subprocess.Popen", dict(&[("model_state_dict", b"}"), ("x", b"csubprocess\nPopen\n)\x81")])),
        // Not a storage, whatever its name ends in.
        ("torch.os;Storage", dict(&[("w", b"ctorch\nos;Storage\n")])),
    ];
    for (name, pickle) in cases {
        let fault = torch(&archive(&pickle, &[&[0; 24]])).unwrap_err();
        assert_eq!(fault, Fault::ForbiddenGlobal { global: name.into() });
        assert!(fault.to_string().contains(name) && fault.help().contains("do not open"), "{fault}");
    }
    assert!(!proof.exists());
}

#[test]
fn a_name_cannot_send_commands_to_a_terminal_or_fill_it() {
    let long = format!("c\u{1b}[2J{}\nsystem\n", "x".repeat(10_000));
    let fault = torch(&archive(&dict(&[("w", long.as_bytes())]), &[])).unwrap_err().to_string();
    assert!(!fault.contains('\u{1b}') && fault.len() < 300, "{fault}");
    assert!(fault.contains("\\u{1b}[2Jxxx"), "{fault}");
}

#[test]
fn a_tensor_that_reaches_beyond_its_storage_is_refused() {
    assert!(Described::new(&[2, 3], &[3, 1]).read().is_ok());
    for (shape, strides) in
        [(&[2, 4], &[4, 1]), (&[7, 1], &[1, 1]), (&[2, 3], &[4, 1]), (&[2, 2], &[i64::MAX, 1])]
    {
        let fault = Described::new(shape, strides).fault();
        assert_eq!(fault, TensorFault::BeyondStorage { n_stored: 6 }, "{shape:?} {strides:?}");
    }
    let late = Described { offset: 1, ..Described::new(&[2, 3], &[3, 1]) };
    assert_eq!(late.fault(), TensorFault::BeyondStorage { n_stored: 6 });
    let far = Described { offset: i64::MAX, ..Described::new(&[2, 3], &[3, 1]) };
    assert_eq!(far.fault(), TensorFault::BeyondStorage { n_stored: 6 });
    // A storage said to be smaller than it is counts as small.
    let less = Described { n_stored: 5, ..Described::new(&[2, 3], &[3, 1]) };
    assert_eq!(less.fault(), TensorFault::BeyondStorage { n_stored: 5 });
}

#[test]
fn a_storage_with_fewer_bytes_than_it_should_have_is_refused() {
    for (kind, n_stored, expected) in
        [("FloatStorage", 7, 28), ("DoubleStorage", 6, 48), ("DoubleStorage", i64::MAX, usize::MAX)]
    {
        let described = Described { kind, n_stored, ..Described::new(&[2], &[1]) };
        let member = "archive/data/0".to_string();
        assert_eq!(described.fault(), TensorFault::ShortStorage { member, found: 24, expected });
    }
    let none = dict(&[("w", &Described::new(&[2], &[1]).pickled())]);
    let fault = torch(&archive(&none, &[])).unwrap_err();
    assert_eq!(fault, Fault::NoMember { member: "archive/data/0".into() });
}

#[test]
fn elements_that_overlap_are_refused() {
    for (shape, strides) in [(&[2, 3], &[0, 1]), (&[2, 3], &[2, 1]), (&[3, 2], &[1, 1]), (&[2, 2], &[0, 0])] {
        let shown: Vec<usize> = strides.iter().map(|&stride| stride as usize).collect();
        let fault = Described::new(shape, strides).fault();
        assert!(matches!(fault, TensorFault::Overlapping { strides, .. } if strides == shown), "{shape:?}");
    }
    // The step along a dimension with one element is never taken.
    assert!(Described::new(&[1, 6], &[0, 1]).read().is_ok());
    assert!(Described::new(&[2, 3], &[1, 2]).read().is_ok());
}

#[test]
fn absurd_shapes_take_no_memory() {
    for shape in [&[i64::MAX, i64::MAX][..], &[0, i64::MAX, 4], &[i64::MAX, 2, 0], &[1; 65]] {
        let described = Described::new(shape, &vec![1; shape.len()]);
        assert_eq!(described.fault(), TensorFault::AbsurdShape, "{shape:?}");
    }
    assert_eq!(Described::new(&[i64::MAX], &[1]).fault(), TensorFault::BeyondStorage { n_stored: 6 });
    // No elements are many dimensions of them, and can be written again.
    let empty = Described::new(&[0, 1 << 40, 3], &[0, 0, 0]).read().unwrap();
    assert_eq!(empty.tensors["w"].shape.to_vec(), [0, 1 << 40, 3]);
    let folder = folder();
    empty.write_pth(folder.path().join("empty.pth"), PthLayout::StateDict).unwrap();
    assert_eq!(Described::new(&[], &[]).read().unwrap().tensors["w"].shape.to_vec(), [0_usize; 0]);
}

#[test]
fn what_is_no_description_of_a_tensor_is_refused() {
    for (shape, strides) in [(&[-1][..], &[1][..]), (&[2], &[-1]), (&[2], &[1, 1])] {
        let fault = Described::new(shape, strides).fault();
        assert!(matches!(fault, TensorFault::BadDescription { .. }), "{shape:?} {strides:?}");
    }
    let short = b"ctorch._utils\n_rebuild_tensor_v2\n)R";
    let fault = torch(&archive(&dict(&[("w", short)]), &[])).unwrap_err();
    assert!(matches!(fault, Fault::BadTensor { fault: TensorFault::BadDescription { .. }, .. }));
}

#[test]
fn a_thousand_views_of_one_storage_do_not_fill_the_memory() {
    let n_stored = 1 << 18;
    let view = Described { n_stored, ..Described::new(&[n_stored], &[1]) }.pickled();
    let names: Vec<String> = (0..1_000).map(|index| format!("w{index}")).collect();
    let items: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &view[..])).collect();
    let fault = torch(&archive(&dict(&items), &[&vec![0; 4 << 18]])).unwrap_err();
    assert_eq!(fault, Fault::SharedTooOften { limit: 16 });
    assert!(torch(&archive(&dict(&items[..8]), &[&vec![0; 4 << 18]])).is_ok());
}

#[test]
fn a_pickle_of_millions_of_values_ends_in_an_error() {
    let lists = [b"\x80\x02", &vec![b']'; 5 << 20][..], b"."].concat();
    assert!(matches!(torch(&archive(&lists, &[])), Err(Fault::PickleTooLarge { unit: "values", .. })));
    let nothings = [b"\x80\x02", &vec![b'N'; 17 << 20][..], b"."].concat();
    assert!(matches!(torch(&archive(&nothings, &[])), Err(Fault::PickleTooLarge { unit: "bytes", .. })));
}

#[test]
fn dicts_in_themselves_and_very_deep_ones_are_read_to_their_end() {
    let good = Described::new(&[2, 3], &[3, 1]).pickled();
    // x = {}; x["w"] = tensor; x["x"] = x
    let cycle = [b"\x80\x02}q\x00(", &text("w")[..], &good, &text("x"), b"h\x00u."].concat();
    let checkpoint = torch(&archive(&cycle, &[&[0; 24]])).unwrap();
    assert_eq!(checkpoint.left_out[0].kind, LeftOutKind::Group { n_tensors: 1 });
    let deep = [vec![b']'; 1_000_000], vec![b'a'; 999_999]].concat();
    let checkpoint = torch(&archive(&dict(&[("w", &good), ("x", &deep)]), &[&[0; 24]])).unwrap();
    assert_eq!(checkpoint.left_out[0].kind, LeftOutKind::Group { n_tensors: 0 });
}

#[test]
fn two_tensors_of_one_name_are_not_one() {
    let good = Described::new(&[2, 3], &[3, 1]).pickled();
    let pickle = dict(&[("w", &good), ("module.w", &good)]);
    assert_eq!(torch(&archive(&pickle, &[&[0; 24]])).unwrap_err(), Fault::TwoTensors { name: "w".into() });
}

#[test]
fn files_without_a_state_dict_say_so() {
    let pickle = |pickle: &[u8]| torch(&archive(pickle, &[])).unwrap_err();
    assert_eq!(pickle(b"\x80\x02]."), Fault::NoStateDict);
    assert_eq!(pickle(b"\x80\x02}."), Fault::NoTensors);
    assert_eq!(pickle(&dict(&[("model_state_dict", b"N")])), Fault::NoTensors);
    assert_eq!(torch(b"").unwrap_err(), Fault::Empty);
    assert_eq!(torch(b"<!DOCTYPE html>").unwrap_err(), Fault::NotAnArchive);
    let mut big_endian = ArchiveWriter::new(Vec::new());
    big_endian.member("archive/data.pkl", b"\x80\x02}.").unwrap();
    big_endian.member("archive/byteorder", b"big").unwrap();
    assert_eq!(torch(&big_endian.finish().unwrap()).unwrap_err(), Fault::BigEndian);
    let empty = ArchiveWriter::new(Vec::new());
    assert!(torch(&empty.finish().unwrap()).is_err());
}

#[test]
fn a_file_cannot_ask_for_a_model_larger_than_itself() {
    let config = Preset::Tiny.config();
    let model = config.init::<Flex>(&Default::default());
    let with = |config: &CellPatchConfig| Checkpoint::of(&model, config_metadata(config));
    assert_eq!(with(&config).config().unwrap(), config);
    let huge = usize::MAX / 64;
    for lie in [
        config.clone().with_gene_capacity(huge),
        config.clone().with_n_patches(huge),
        config.clone().with_mlp_dim(huge),
        config.clone().with_latent_dim(huge),
        config.clone().with_encoder_self_blocks(huge),
        config.clone().with_decoder_self_blocks(huge),
        config.clone().with_expression(ExpressionEmbedding::Binned { max_value: huge }),
    ] {
        assert!(matches!(with(&lie).config(), Err(Error::NotCellPatch { .. })), "{lie:?}");
    }
    let mut encoder = with(&config);
    encoder.tensors.retain(|name, _| !name.starts_with("decoder_"));
    assert_eq!(encoder.config().unwrap(), config);
    encoder.metadata = config_metadata(&config.clone().with_decoder_self_blocks(huge));
    assert!(matches!(encoder.config(), Err(Error::NotCellPatch { .. })));
    // A tensor without elements can be as long as it likes.
    for (name, shape) in [
        ("pathway_token", vec![1, 1_usize << 40, 0]),
        ("cross_extract_blocks_mlp.0.weight", vec![1_usize << 40, 0]),
        ("encoder_projection.weight", vec![1_usize << 40, 0]),
        ("gene2vector.weight", vec![1_usize << 40, 0]),
    ] {
        let mut checkpoint = Checkpoint::of(&model, BTreeMap::new());
        checkpoint.tensors.insert(name.into(), TensorData::new(Vec::<f32>::new(), shape));
        assert!(matches!(checkpoint.config(), Err(Error::NotCellPatch { .. })), "{name}");
    }
}
