//! Files written here, and read again here and as PyTorch writes them.

use super::*;
use crate::weights::zip::{Archive, ArchiveWriter};

const LAYOUTS: [PthLayout; 3] = [PthLayout::StateDict, PthLayout::ModelStateDict, PthLayout::Released];

/// What a PyTorch file's archive holds under a name.
fn member<'a>(bytes: &'a [u8], name: &str) -> &'a [u8] {
    let archive = Archive::open(bytes).unwrap();
    let folder = archive.folder_of("data.pkl").unwrap();
    archive.member(&format!("{folder}{name}")).unwrap()
}

#[test]
fn weights_go_from_pytorch_to_safetensors_and_back_bit_for_bit() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for original in [PRETRAINED, ANNOTATOR] {
        let read = torch(original).unwrap();
        for layout in LAYOUTS {
            read.write_pth(path("one.pth"), layout).unwrap();
            let again = Checkpoint::read(path("one.pth")).unwrap();
            assert_eq!(bits(&again), bits(&read), "{layout:?}");
            again.write_safetensors(path("two.safetensors")).unwrap();
            let again = Checkpoint::read(path("two.safetensors")).unwrap();
            assert_eq!(bits(&again), bits(&read), "{layout:?}");
            again.write_pth(path("three.pth"), layout).unwrap();
            let [one, three] = ["one.pth", "three.pth"].map(|name| std::fs::read(path(name)).unwrap());
            assert!(one == three, "the same tensors give the same bytes");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left beside the files");
}

#[test]
fn every_bit_pattern_of_a_float_survives() {
    let patterns = [0x7fc0_0001, 0xffff_ffff, 0x7f80_0001, 0x8000_0000, 1, 0x7f80_0000, 0xff80_0000];
    let values: Vec<f32> = patterns.into_iter().map(f32::from_bits).collect();
    let tensors = BTreeMap::from([("odd".to_string(), TensorData::new(values, [7]))]);
    let checkpoint = Checkpoint { tensors, ..Checkpoint::default() };
    let folder = folder();
    let path = folder.path().join("odd.pth");
    checkpoint.write_pth(&path, PthLayout::StateDict).unwrap();
    assert_eq!(bits(&Checkpoint::read(&path).unwrap()), bits(&checkpoint));
}

#[test]
fn the_pickle_and_the_storages_are_those_pytorch_writes() {
    let folder = folder();
    let path = folder.path().join("model.pth");
    let files =
        [torch_file!("state_dict.pth"), torch_file!("model_state_dict.pth"), torch_file!("released.pth")];
    for (theirs, layout) in files.into_iter().zip(LAYOUTS) {
        torch(theirs).unwrap().write_pth(&path, layout).unwrap();
        let ours = std::fs::read(&path).unwrap();
        let names = ["data.pkl", "byteorder", "version", ".format_version", ".storage_alignment"];
        for name in names.into_iter().chain(["data/0", "data/1", "data/2", "data/3"]) {
            assert_eq!(member(&ours, name), member(theirs, name), "{layout:?} {name}");
        }
    }
}

#[test]
fn storages_start_at_multiples_of_64_bytes() {
    let folder = folder();
    let path = folder.path().join("model.pth");
    torch(ANNOTATOR).unwrap().write_pth(&path, PthLayout::Released).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for index in 0..56 {
        let storage = member(&bytes, &format!("data/{index}"));
        assert_eq!((storage.as_ptr() as usize - bytes.as_ptr() as usize) % 64, 0, "{index}");
    }
}

#[test]
fn tensors_of_every_rank_and_many_of_them_come_back() {
    let shapes: [&[usize]; 8] = [&[], &[0], &[1], &[2, 0, 3], &[2, 3], &[2, 1, 3], &[1, 2, 3, 4], &[70_000]];
    let shapes = shapes.into_iter().chain((0..2_500).map(|_| &[1_usize][..]));
    let tensors = shapes.enumerate().map(|(index, shape)| {
        let n_elements = shape.iter().product();
        let values = (0..n_elements).map(|n: usize| (index + n) as f32).collect::<Vec<_>>();
        (format!("layer.{index}"), TensorData::new(values, shape.to_vec()))
    });
    let checkpoint = Checkpoint { tensors: tensors.collect(), ..Checkpoint::default() };
    let folder = folder();
    for (name, layout) in [("a.pth", PthLayout::StateDict), ("b.pth", PthLayout::Released)] {
        let path = folder.path().join(name);
        checkpoint.write_pth(&path, layout).unwrap();
        assert_eq!(bits(&Checkpoint::read(&path).unwrap()), bits(&checkpoint));
    }
    let path = folder.path().join("c.safetensors");
    checkpoint.write_safetensors(&path).unwrap();
    assert_eq!(bits(&Checkpoint::read(&path).unwrap()), bits(&checkpoint));
}

#[test]
fn a_pytorch_file_with_room_for_it_remembers_the_configuration() {
    let (folder, device) = (folder(), Default::default());
    let config = Preset::Tiny.config().with_n_heads(4).with_attention_dropout(0.25);
    let model = config.init::<Flex>(&device);
    let metadata = config_metadata(&config);
    for layout in LAYOUTS {
        let path = folder.path().join("model.pth");
        save_pth(&model, &path, layout, &metadata).unwrap();
        let checkpoint = Checkpoint::read(&path).unwrap();
        let kept = layout != PthLayout::StateDict;
        assert_eq!(checkpoint.metadata == metadata, kept, "{layout:?}");
        assert_eq!(checkpoint.config().unwrap() == config, kept, "{layout:?}");
        let (again, report) = load_pth(config.init::<Flex>(&device), &path).unwrap();
        assert_eq!(named_tensors(&again), named_tensors(&model));
        assert_eq!((report.skipped.len(), report.left_out.len()), (0, 0));
    }
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("model.pth");
    std::fs::create_dir(&path).unwrap();
    let checkpoint = torch(torch_file!("state_dict.pth")).unwrap();
    let written = checkpoint.write_pth(&path, PthLayout::StateDict);
    assert!(matches!(written, Err(Error::Io { action: "rename", path: of, .. }) if of == path));
    let written = checkpoint.write_pth(folder.path().join("none/model.pth"), PthLayout::StateDict);
    assert!(matches!(written, Err(Error::Io { action: "create", .. })));
    assert!(path.is_dir());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_an_archive_of_32_bits_cannot_hold_is_an_error() {
    let mut archive = ArchiveWriter::new(std::io::sink());
    let added: Vec<_> = (0..65_535).map(|index| archive.member(&index.to_string(), b"")).collect();
    assert!(added[..65_534].iter().all(std::io::Result::is_ok));
    assert_eq!(added[65_534].as_ref().unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    let name = "n".repeat(65_536);
    let added = ArchiveWriter::new(std::io::sink()).member(&name, b"");
    assert_eq!(added.unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
}

#[test]
fn tensors_no_file_can_hold_are_named() {
    let folder = folder();
    let path = folder.path().join("model");
    let with = |name: &str, data: TensorData| Checkpoint {
        tensors: BTreeMap::from([(name.to_string(), data)]),
        ..Checkpoint::default()
    };
    let integers = with("steps", TensorData::new(vec![1_i64], [1]));
    assert!(matches!(
        integers.write_pth(&path, PthLayout::StateDict),
        Err(Error::WrongType { name, .. }) if name == "steps"
    ));
    let mut short = TensorData::new(vec![1.0_f32, 2.0], [2]);
    short.shape = [3].into();
    assert!(matches!(
        with("short", short).write_safetensors(&path),
        Err(Error::WrongLength { name, n_values: 2, shape }) if name == "short" && shape == [3]
    ));
    let reserved = with("__metadata__", TensorData::new(vec![1.0_f32], [1]));
    assert!(matches!(reserved.write_safetensors(&path), Err(Error::ReservedName { .. })));
    assert!(!path.exists());
}
