//! Files that were cut short or changed on their way.

use proptest::prelude::*;

use super::*;
use crate::weights::pickle::Pickle;
use crate::weights::zip::Archive;

/// Where entries of the directory are.
fn directory(bytes: &[u8]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, four)| four == b"PK\x01\x02").map(|(at, _)| at).collect()
}

/// The file with some bytes of an entry of its directory replaced.
fn with_entry(bytes: &[u8], index: usize, field: usize, new: &[u8]) -> Vec<u8> {
    let at = directory(bytes)[index] + field;
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn small_safetensors() -> Vec<u8> {
    let folder = folder();
    let path = folder.path().join("small.safetensors");
    let mut checkpoint = torch(torch_file!("state_dict.pth")).unwrap();
    checkpoint.metadata.insert("about".into(), "nothing".into());
    checkpoint.write_safetensors(&path).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn a_pytorch_file_cut_short_anywhere_is_unreadable() {
    let folder = folder();
    let path = folder.path().join("ours.pth");
    torch(torch_file!("state_dict.pth")).unwrap().write_pth(&path, PthLayout::Released).unwrap();
    let ours = std::fs::read(&path).unwrap();
    for whole in [torch_file!("kinds.pth"), torch_file!("released.pth"), &ours] {
        assert!(torch(whole).is_ok());
        for length in 0..whole.len() {
            assert!(torch(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
    }
}

#[test]
fn a_safetensors_file_cut_short_anywhere_is_unreadable() {
    let whole = small_safetensors();
    assert!(safetensors::contents(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(safetensors::contents(&whole[..length]).is_err(), "{length} of {}", whole.len());
    }
}

#[test]
fn a_pickle_cut_short_anywhere_says_where() {
    let archive = Archive::open(ANNOTATOR).unwrap();
    let pickle = archive.member("cache_best_small/data.pkl").unwrap();
    assert!(Pickle::parse(pickle).is_ok());
    for length in 0..pickle.len() {
        let fault = Pickle::parse(&pickle[..length]).unwrap_err();
        assert_eq!(fault, Fault::PickleCutShort { at: length });
    }
}

#[test]
fn no_flipped_bit_changes_a_tensor_of_a_pytorch_file_unseen() {
    for whole in [torch_file!("state_dict.pth"), torch_file!("released.pth")] {
        let expected = bits(&torch(whole).unwrap());
        let mut bytes = whole.to_vec();
        let mut n_seen = 0;
        for bit in 0..8 * whole.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            match torch(&bytes) {
                Ok(checkpoint) => assert_eq!(bits(&checkpoint), expected, "bit {bit}"),
                Err(_) => n_seen += 1,
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(n_seen > 8 * 500, "flips in the pickle at least are seen");
    }
}

#[test]
fn no_flipped_bit_makes_the_safetensors_reader_panic() {
    let mut bytes = small_safetensors();
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = safetensors::contents(&bytes).and_then(Checkpoint::from_contents);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_changed_storage_is_told_by_its_checksum() {
    let mut bytes = torch_file!("state_dict.pth").to_vec();
    let one = 0.25_f32.to_le_bytes();
    let at = bytes.windows(8).position(|eight| eight[..4] == one && eight[4..] == 0.5_f32.to_le_bytes());
    bytes[at.unwrap()] ^= 1;
    assert!(matches!(
        torch(&bytes),
        Err(Fault::WrongChecksum { member }) if member == "state_dict/data/0"
    ));
}

#[test]
fn archives_that_torch_save_never_writes_are_told_apart() {
    let good = torch_file!("state_dict.pth");
    let deflated = with_entry(good, 4, 10, &[8, 0]);
    assert_eq!(torch(&deflated).unwrap_err(), Fault::Compressed { member: "state_dict/data/0".into() });
    let encrypted = with_entry(good, 0, 8, &[1, 8]);
    assert_eq!(torch(&encrypted).unwrap_err(), Fault::Encrypted { member: "state_dict/data.pkl".into() });
    for field in [20, 24, 42] {
        assert_eq!(torch(&with_entry(good, 4, field, &[0xff; 4])).unwrap_err(), Fault::Zip64);
    }
    let beyond = with_entry(&with_entry(good, 4, 20, &[0, 0, 0, 0x7f]), 4, 24, &[0, 0, 0, 0x7f]);
    assert_eq!(torch(&beyond).unwrap_err(), Fault::BadMember { member: "state_dict/data/0".into() });
    let elsewhere = with_entry(good, 4, 42, &[0; 4]);
    assert_eq!(torch(&elsewhere).unwrap_err(), Fault::BadMember { member: "state_dict/data/0".into() });
    let twice = with_entry(&with_entry(good, 4, 46, b"state_dict/data/1"), 4, 42, &{
        let at = directory(good)[5] + 42;
        [good[at], good[at + 1], good[at + 2], good[at + 3]]
    });
    assert_eq!(torch(&twice).unwrap_err(), Fault::TwoMembers { member: "state_dict/data/1".into() });
    let end = good.len() - 22;
    for (field, width) in [(10, 2), (16, 4)] {
        let mut large = good.to_vec();
        large[end + field..end + field + width].fill(0xff);
        assert_eq!(torch(&large).unwrap_err(), Fault::Zip64);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_pickle_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pickle::parse(&bytes);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = safetensors::contents(&bytes);
        let _ = torch(&[b"PK\x03\x04", &bytes[..]].concat());
    }

    #[test]
    fn changed_bytes_in_a_checkpoint_are_seen_or_harmless(
        changes in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..40),
        kept in 0.5..1.0_f64,
    ) {
        let expected = bits(&torch(PRETRAINED).unwrap());
        let mut bytes = PRETRAINED.to_vec();
        // The pickle and the directory are at the two ends.
        let n = bytes.len() as f64;
        for (at, byte) in changes {
            let at = if at < 0.5 { at * 60_000.0 } else { n - (1.0 - at) * 40_000.0 };
            bytes[at as usize] = byte;
        }
        if let Ok(checkpoint) = torch(&bytes) {
            prop_assert_eq!(bits(&checkpoint), expected);
        }
        bytes.truncate((n * kept) as usize);
        prop_assert!(torch(&bytes).is_err());
    }

    /// The checksum aside, so that the pickle's own checks are what is tested.
    #[test]
    fn a_changed_pickle_with_a_right_checksum_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let archive = Archive::open(torch_file!("kinds.pth")).unwrap();
        let mut pickle = archive.member("kinds/data.pkl").unwrap().to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut pickle[..]) = byte;
        }
        let storages: Vec<_> =
            (0..).map_while(|index| archive.find(&format!("kinds/data/{index}")).unwrap()).collect();
        let _ = torch(&hostile::archive(&pickle, &storages));
    }
}
