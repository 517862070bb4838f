//! Files of `torch.save`: a ZIP archive with a pickle that describes tensors, and a member for each storage.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};

use super::checkpoint::Checkpoint;
use super::pickle::{Pickle, Position, Value};
use super::zip::Archive;
use crate::error::{Error, Result};

const FORMAT: &str = "PyTorch";

pub(super) fn read(path: &Path) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
    let tensors = state_dict(&bytes).map_err(|reason| Error::Unreadable {
        path: path.to_path_buf(),
        format: FORMAT,
        reason,
    })?;
    Checkpoint::new(tensors, BTreeMap::new())
}

pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, TensorData)>, String> {
    if !Archive::is_archive(bytes) {
        return Err("it is no archive as torch.save writes since PyTorch 1.6".into());
    }
    let archive = Archive::open(bytes)?;
    let folder = archive.folder_of("data.pkl").ok_or("it has no data.pkl")?.to_string();
    if archive.member(&format!("{folder}byteorder")).is_some_and(|order| order == b"big") {
        return Err("it was written on a big-endian machine".into());
    }
    let pickle = Pickle::parse(archive.member(&format!("{folder}data.pkl")).unwrap_or_default())?;
    let root = pickle.entries(pickle.root()).ok_or("it holds no dict")?;
    let entries = match root.iter().find(|(key, _)| *key == "model_state_dict") {
        Some(&(_, dict)) => pickle.entries(dict).ok_or("its model_state_dict is no dict")?,
        None => root,
    };
    let storages = Storages { archive, folder, pickle: &pickle };
    let tensors = entries
        .into_iter()
        .filter_map(|(name, value)| {
            let tensor = storages.tensor(value)?;
            Some(
                tensor.map(|tensor| (name.to_string(), tensor)).map_err(|reason| format!("{name}: {reason}")),
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    if tensors.is_empty() {
        return Err("it holds no tensors by name".into());
    }
    Ok(tensors)
}

struct Storages<'a> {
    archive: Archive<'a>,
    folder: String,
    pickle: &'a Pickle,
}

impl Storages<'_> {
    /// The tensor a value stands for; `None` if it stands for something else.
    fn tensor(&self, value: Position) -> Option<Result<TensorData, String>> {
        let pickle = self.pickle;
        let Value::Call { function, arguments } = pickle.value(value) else {
            return None;
        };
        let arguments = pickle.sequence(*arguments)?;
        match pickle.global(*function)? {
            "torch._utils._rebuild_tensor_v2" => Some(self.rebuild(arguments)),
            // A parameter is a tensor with a flag.
            "torch._utils._rebuild_parameter" => match pickle.value(*arguments.first()?) {
                Value::Call { arguments, .. } => Some(self.rebuild(pickle.sequence(*arguments)?)),
                _ => None,
            },
            _ => None,
        }
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`
    fn rebuild(&self, arguments: &[Position]) -> Result<TensorData, String> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err("its description is too short".into());
        };
        let (dtype, bytes) = self.storage(storage)?;
        let offset = self.pickle.index(offset).ok_or("its offset is no number")?;
        let shape = self.numbers(shape).ok_or("its shape is no tuple of numbers")?;
        let strides = self.numbers(strides).ok_or("its strides are no tuple of numbers")?;
        if strides.len() != shape.len() {
            return Err("its strides do not fit its shape".into());
        }
        let elements = gather(bytes, dtype.size(), offset, &shape, &strides)?;
        Ok(TensorData::from_bytes_vec(elements, shape, dtype))
    }

    /// `("storage", type, key, device, number of elements)`
    fn storage(&self, position: Position) -> Result<(DType, &[u8]), String> {
        let Value::Persistent(id) = self.pickle.value(position) else {
            return Err("it has no storage".into());
        };
        let Some(&[_, kind, key, ..]) = self.pickle.sequence(*id) else {
            return Err("its storage has no description".into());
        };
        let kind = self.pickle.global(kind).ok_or("its storage has no type")?;
        let dtype = match kind {
            "torch.FloatStorage" => DType::F32,
            "torch.DoubleStorage" => DType::F64,
            "torch.HalfStorage" => DType::F16,
            "torch.BFloat16Storage" => DType::BF16,
            "torch.LongStorage" => DType::I64,
            "torch.IntStorage" => DType::I32,
            other => return Err(format!("it is of type {other}")),
        };
        let key = self.pickle.text(key).ok_or("its storage has no key")?;
        let bytes = self.archive.member(&format!("{}data/{key}", self.folder));
        Ok((dtype, bytes.ok_or_else(|| format!("its storage {key} is not in the archive"))?))
    }

    fn numbers(&self, position: Position) -> Option<Vec<usize>> {
        self.pickle.sequence(position)?.iter().map(|&item| self.pickle.index(item)).collect()
    }
}

/// Elements of a strided tensor in row-major order. Sizes are checked before memory is taken.
fn gather(
    storage: &[u8],
    element_size: usize,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
) -> Result<Vec<u8>, String> {
    let n_elements =
        shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size)).ok_or("its shape is absurd")?;
    if n_elements == 0 {
        return Ok(Vec::new());
    }
    let n_stored = storage.len() / element_size;
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
    if last.is_none_or(|last| last >= n_stored) || n_elements > n_stored {
        return Err("it reaches beyond its storage".into());
    }
    let mut elements = Vec::with_capacity(n_elements * element_size);
    let mut index = vec![0; shape.len()];
    for _ in 0..n_elements {
        let at = index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>() + offset;
        elements.extend_from_slice(&storage[at * element_size..(at + 1) * element_size]);
        for (digit, &size) in index.iter_mut().zip(shape).rev() {
            *digit += 1;
            if *digit < size {
                break;
            }
            *digit = 0;
        }
    }
    Ok(elements)
}
