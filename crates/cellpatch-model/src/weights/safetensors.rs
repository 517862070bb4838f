//! Safetensors files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::checkpoint::Checkpoint;
use crate::error::{Error, Result};

const FORMAT: &str = "safetensors";

pub(super) fn read(path: &Path) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
    let unreadable = |error: safetensors::SafeTensorError| Error::Unreadable {
        path: path.to_path_buf(),
        format: FORMAT,
        reason: error.to_string(),
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let file = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::F64 => DType::F64,
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                other => return Err(Error::WrongType { name, found: format!("{other:?}") }),
            };
            Ok((name, TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype)))
        })
        .collect::<Result<Vec<_>>>()?;
    Checkpoint::new(tensors, metadata)
}

/// Writes the file beside its place, waits until it is on the disk, and renames it.
///
/// The header is put together here because the safetensors crate takes metadata in a hash map, whose order, and so
/// the file's bytes, would differ from run to run.
pub(super) fn write(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let sibling = path.with_extension(format!("{}.partial", std::process::id()));
    let written = write_all(&sibling, tensors, metadata)
        .and_then(|()| std::fs::rename(&sibling, path).map_err(|source| Error::io("rename", path, source)));
    if written.is_err() {
        // What went wrong is already known; a sibling that cannot be removed either adds nothing to it.
        let _ = std::fs::remove_file(&sibling);
    }
    written
}

fn write_all(
    path: &Path,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut file = File::create(path).map_err(|source| Error::io("create", path, source))?;
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(|source| Error::io("write", path, source));
    let header = header(tensors, metadata);
    put(&(header.len() as u64).to_le_bytes())?;
    put(header.as_bytes())?;
    for data in tensors.values() {
        put(&data.bytes)?;
    }
    file.sync_all().map_err(|source| Error::io("write", path, source))
}

fn header(tensors: &BTreeMap<String, TensorData>, metadata: &BTreeMap<String, String>) -> String {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for (name, data) in tensors {
        let start = end;
        end += data.bytes.len();
        let shape: Vec<usize> = data.shape.to_vec();
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(entries).to_string();
    // The format wants tensors to start at a multiple of 8.
    let padding = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    header
}
