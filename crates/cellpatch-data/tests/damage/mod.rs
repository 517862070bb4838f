//! Damage of the kinds that files meet and that attackers make, each from a seed.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Numbers that sizes, offsets and counts must not be believed in.
const EXTREMES: [u64; 12] = [
    0,
    1,
    2,
    255,
    65_535,
    1 << 20,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// Names by which HDF5 marks its structures.
const STRUCTURES: [&[u8; 4]; 12] = [
    b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF",
    b"FAHD",
];

/// Files of one input by their names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Damages a binary file.
pub(crate) fn binary(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    if bytes.len() < 16 {
        return bytes.clear();
    }
    match random.random_range(0..10) {
        0 => bytes.truncate(random.random_range(0..bytes.len())),
        1 => bytes.extend(std::iter::repeat_n(random.random::<u8>(), random.random_range(1..5000))),
        2 | 3 => {
            for _ in 0..random.random_range(1..12) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        // A size or an offset that lies, wherever it is.
        4 => {
            let at = random.random_range(0..bytes.len());
            extreme(bytes, at, random);
        }
        // The same, or a single bit, inside of a structure.
        5 | 6 => {
            let at = structure(bytes, random) + random.random_range(0..64);
            extreme(bytes, at, random);
        }
        7 => {
            let at = structure(bytes, random) + random.random_range(4..256);
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        // An address that leads to another structure, or round in a circle.
        8 => {
            let target = structure(bytes, random) as u64;
            let addresses: Vec<usize> = (0..bytes.len() - 8)
                .filter(|&at| {
                    let word = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                    word > 0 && word < bytes.len() as u64 && word.is_multiple_of(8)
                })
                .collect();
            if let Some(&at) = addresses.choose(random) {
                bytes[at..at + 8].copy_from_slice(&target.to_le_bytes());
            }
        }
        _ => {
            let length = random.random_range(1..bytes.len().min(512));
            let from = random.random_range(0..bytes.len() - length);
            let to = random.random_range(0..bytes.len() - length);
            bytes.copy_within(from..from + length, to);
        }
    }
}

/// Where one of the file's structures begins.
fn structure(bytes: &[u8], random: &mut ChaCha8Rng) -> usize {
    let is_structure = |at: &usize| STRUCTURES.iter().any(|name| bytes[*at..].starts_with(*name));
    let found: Vec<usize> = (0..bytes.len() - 4).filter(is_structure).collect();
    found.choose(random).copied().unwrap_or_else(|| random.random_range(0..bytes.len()))
}

fn extreme(bytes: &mut [u8], at: usize, random: &mut ChaCha8Rng) {
    let at = at.min(bytes.len() - 8);
    let number = EXTREMES.choose(random).unwrap().to_le_bytes();
    let width = [1, 2, 4, 8].choose(random).copied().unwrap();
    bytes[at..at + width].copy_from_slice(&number[..width]);
}

/// Damages a text: numbers that lie, lines that are gone, doubled or exchanged, and stray bytes.
pub(crate) fn text(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    // The first lines say what the rest is.
    let n_first = lines.len().min(6);
    let line = match random.random_range(0..2) {
        0 => random.random_range(0..n_first.max(1)),
        _ => random.random_range(0..lines.len().max(1)),
    };
    match random.random_range(0..7) {
        0 if !lines.is_empty() => drop(lines.remove(line)),
        1 if !lines.is_empty() => lines.insert(line, lines[line].clone()),
        2 if !lines.is_empty() => {
            let other = random.random_range(0..lines.len());
            lines.swap(line, other);
        }
        3 | 4 if !lines.is_empty() => lines[line] = with_other_number(&lines[line], random),
        5 => return bytes.truncate(random.random_range(0..bytes.len().max(1))),
        _ => return binary(bytes, random),
    }
    *bytes = lines.concat();
}

/// A line with one of its numbers replaced.
fn with_other_number(line: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let is_start =
        |at: &usize| line[*at].is_ascii_digit() && (*at == 0 || !line[*at - 1].is_ascii_alphanumeric());
    let starts: Vec<usize> = (0..line.len()).filter(is_start).collect();
    let Some(&start) = starts.choose(random) else { return line.to_vec() };
    let n_digits = line[start..].iter().take_while(|digit| digit.is_ascii_digit()).count();
    let others = ["-1", "1e300", "NaN", "inf", "0x7f", "99999999999999999999999", ""];
    let other = match random.random_range(0..3) {
        0 => others.choose(random).unwrap().to_string(),
        _ => EXTREMES.choose(random).unwrap().to_string(),
    };
    [&line[..start], other.as_bytes(), &line[start + n_digits..]].concat()
}

/// Damages one file of a shard set; often the manifest then says that all is as it should be.
pub(crate) fn shards(files: &mut Files, random: &mut ChaCha8Rng) {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = if random.random_bool(0.4) { "manifest.json" } else { names.choose(random).unwrap() };
    let bytes = files.get_mut(name).unwrap();
    if name == "manifest.json" {
        for _ in 0..random.random_range(1..4) {
            text(bytes, random);
        }
    } else {
        binary(bytes, random);
        if random.random_bool(0.75) {
            seal(files, name);
        }
    }
}

/// Writes the size and checksums of a file into the manifest.
fn seal(files: &mut Files, name: &str) {
    let bytes = files[name].clone();
    let mut manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let sha256 = |start: u64, end: u64| {
        let (start, end) = (start.min(bytes.len() as u64) as usize, end.min(bytes.len() as u64) as usize);
        let digest = Sha256::digest(&bytes[start..end.max(start)]);
        Value::from(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    for list in ["files", "side_files"] {
        for file in manifest[list].as_array_mut().unwrap().iter_mut().filter(|file| file["name"] == name) {
            file["bytes"] = Value::from(bytes.len());
            file["sha256"] = sha256(0, u64::MAX);
            let mut footer = 0;
            for group in file["row_groups"].as_array_mut().into_iter().flatten() {
                let start = group["start"].as_u64().unwrap();
                footer = start + group["bytes"].as_u64().unwrap();
                group["sha256"] = sha256(start, footer);
            }
            if list == "files" {
                file["footer_sha256"] = sha256(footer, u64::MAX);
            }
        }
    }
    files.insert("manifest.json".into(), serde_json::to_vec_pretty(&manifest).unwrap());
}
