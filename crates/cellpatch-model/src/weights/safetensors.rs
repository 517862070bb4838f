//! Safetensors files.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::contents::{Contents, LeftOut, LeftOutKind};
use super::fault::Fault;
use super::replace::write_whole;
use super::tensors::NamedTensor;
use crate::error::{Error, Result};

/// The header's entry for metadata, which no tensor can be called.
const METADATA: &str = "__metadata__";

pub(super) fn contents(bytes: &[u8]) -> Result<Contents, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    let bad = |error: SafeTensorError| Fault::BadSafetensors { reason: error.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(bad)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut contents = Contents { metadata, ..Contents::default() };
    for (name, view) in SafeTensors::deserialize(bytes).map_err(bad)?.tensors() {
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let kind = LeftOutKind::Tensor { elements: format!("{other:?}") };
                contents.left_out.push(LeftOut { name, kind });
                continue;
            }
        };
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype);
        contents.tensors.push((name, data));
    }
    contents.left_out.sort();
    Ok(contents)
}

/// Writes a file in the order of the tensors; the same tensors and metadata give the same bytes.
///
/// The header is put together here because the safetensors crate takes metadata in a hash map, whose order, and so
/// the file's bytes, would differ from run to run.
pub(super) fn write(
    path: &Path,
    tensors: &[NamedTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if tensors.iter().any(|tensor| tensor.name == METADATA) {
        return Err(Error::ReservedName { name: METADATA.into() });
    }
    write_whole(path, |out| {
        let header = header(tensors, metadata);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        tensors.iter().try_for_each(|tensor| out.write_all(&tensor.bytes()))
    })
}

fn header(tensors: &[NamedTensor<'_>], metadata: &BTreeMap<String, String>) -> String {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += size_of_val(tensor.values);
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.into(), entry);
    }
    let mut header = serde_json::Value::Object(entries).to_string();
    // The format wants tensors to start at a multiple of 8.
    let padding = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', padding));
    header
}
