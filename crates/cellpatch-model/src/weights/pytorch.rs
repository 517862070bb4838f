//! Files of `torch.save`: a ZIP archive with a pickle that describes tensors, and a member for each storage.

mod strided;
mod writer;

use std::cell::Cell;
use std::collections::BTreeMap;

use burn::tensor::{DType, TensorData};

use self::strided::Strided;
use super::contents::{Contents, LeftOut, LeftOutKind};
use super::fault::{Fault, TensorFault};
use super::pickle::{Pickle, Position, Value, is_tensor};
use super::zip::Archive;

pub(super) use writer::write;

/// Where checkpoints hold their state dict, if it is not all they hold.
const STATE_DICT_KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];
/// Where files written here hold their metadata.
const METADATA_KEY: &str = "metadata";
/// How every file of PyTorch before 1.6 starts: a pickle of the number 0x1950a86a20f9469cfc6c.
const LEGACY_START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// How many times the file's size the tensors may take; models share a matrix between a few layers.
const MOST_SHARING: usize = 16;

/// Whether the bytes start as files of `torch.save` do, or did.
pub(super) fn is_pytorch(bytes: &[u8]) -> bool {
    Archive::is_archive(bytes) || bytes.starts_with(LEGACY_START)
}

pub(super) fn contents(bytes: &[u8]) -> Result<Contents, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    if bytes.starts_with(LEGACY_START) {
        return Err(Fault::LegacyPytorch);
    }
    if !Archive::is_archive(bytes) {
        return Err(Fault::NotAnArchive);
    }
    let archive = Archive::open(bytes)?;
    let no_pickle = || Fault::NoMember { member: "data.pkl".into() };
    let folder = archive.folder_of("data.pkl").ok_or_else(no_pickle)?.to_string();
    if archive.find(&format!("{folder}byteorder"))? == Some(b"big") {
        return Err(Fault::BigEndian);
    }
    let pickle = Pickle::parse(archive.member(&format!("{folder}data.pkl"))?)?;
    let budget = Cell::new(bytes.len().saturating_mul(MOST_SHARING));
    Reader { archive, folder, pickle: &pickle, budget }.contents()
}

struct Reader<'a> {
    archive: Archive<'a>,
    folder: String,
    pickle: &'a Pickle,
    /// How many more bytes tensors may take.
    budget: Cell<usize>,
}

/// What a value of a state dict is.
enum Entry {
    Tensor(TensorData),
    LeftOut(LeftOutKind),
}

impl Reader<'_> {
    fn contents(&self) -> Result<Contents, Fault> {
        let root = self.pickle.entries(self.pickle.root()).ok_or(Fault::NoStateDict)?;
        let inner = STATE_DICT_KEYS.iter().find_map(|key| {
            let &(name, dict) = root.iter().find(|(name, _)| name == key)?;
            Some((name, self.pickle.entries(dict)?))
        });
        let mut contents = Contents::default();
        let state_dict = match inner {
            Some((key, state_dict)) => {
                self.beside(&root, key, &mut contents);
                state_dict
            }
            None => root,
        };
        for (name, value) in state_dict {
            match self.entry(name, value)? {
                Entry::Tensor(data) => contents.tensors.push((name.to_string(), data)),
                Entry::LeftOut(kind) => contents.left_out.push(LeftOut { name: name.to_string(), kind }),
            }
        }
        if contents.tensors.is_empty() {
            return Err(Fault::NoTensors);
        }
        Ok(contents)
    }

    /// What a checkpoint holds beside its state dict.
    fn beside(&self, root: &[(&str, Position)], key: &str, contents: &mut Contents) {
        for &(name, value) in root.iter().filter(|&&(name, _)| name != key) {
            match self.texts(value) {
                Some(texts) if name == METADATA_KEY => contents.metadata = texts,
                _ => contents.left_out.push(LeftOut { name: name.to_string(), kind: self.kind(value) }),
            }
        }
    }

    /// A dict of texts.
    fn texts(&self, position: Position) -> Option<BTreeMap<String, String>> {
        let Value::Dict(items) = self.pickle.value(position) else {
            return None;
        };
        let text = |position| self.pickle.text(position).map(str::to_string);
        items.iter().map(|&(name, value)| Some((text(name)?, text(value)?))).collect()
    }

    fn kind(&self, value: Position) -> LeftOutKind {
        match self.pickle.value(value) {
            Value::Dict(_) | Value::Sequence(_) => {
                LeftOutKind::Group { n_tensors: self.pickle.n_tensors(value) }
            }
            Value::Call { function, .. } => match self.pickle.global(*function) {
                Some(function) if is_tensor(function) => {
                    LeftOutKind::Tensor { elements: function.to_string() }
                }
                _ => LeftOutKind::Value,
            },
            _ => LeftOutKind::Value,
        }
    }

    fn entry(&self, name: &str, value: Position) -> Result<Entry, Fault> {
        let Some(arguments) = self.dense(value) else {
            return Ok(Entry::LeftOut(self.kind(value)));
        };
        let bad = |fault| Fault::BadTensor { name: name.to_string(), fault };
        // `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(bad(TensorFault::BadDescription { what: "its description is too short" }));
        };
        let storage = self.storage(storage).map_err(bad)?;
        let Some(dtype) = storage.dtype() else {
            return Ok(Entry::LeftOut(LeftOutKind::Tensor { elements: storage.elements().to_string() }));
        };
        let strided = self.strided(offset, shape, strides).map_err(bad)?;
        let stored = self.stored(&storage, dtype)?.map_err(bad)?;
        let n_bytes = strided.check(stored.len() / dtype.size()).map_err(bad)? * dtype.size();
        let left = self.budget.get().checked_sub(n_bytes);
        self.budget.set(left.ok_or(Fault::SharedTooOften { limit: MOST_SHARING })?);
        let elements = strided.gather(stored, dtype.size());
        Ok(Entry::Tensor(TensorData::from_bytes_vec(elements, strided.shape, dtype)))
    }

    /// The arguments an ordinary tensor, or a parameter, is made from.
    fn dense(&self, value: Position) -> Option<&[Position]> {
        let Value::Call { function, arguments } = self.pickle.value(value) else {
            return None;
        };
        let arguments = self.pickle.sequence(*arguments)?;
        match self.pickle.global(*function)? {
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Some(arguments),
            // A parameter is a tensor with a flag.
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match self.pickle.value(*arguments.first()?) {
                    Value::Call { function, arguments }
                        if self.pickle.global(*function) == Some("torch._utils._rebuild_tensor_v2") =>
                    {
                        self.pickle.sequence(*arguments)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The persistent id `("storage", type, key, device, number of elements)`
    fn storage(&self, position: Position) -> Result<Storage<'_>, TensorFault> {
        let bad = |what| TensorFault::BadDescription { what };
        let Value::Persistent(id) = self.pickle.value(position) else {
            return Err(bad("it has no storage"));
        };
        let Some(&[_, kind, key, _, n_elements, ..]) = self.pickle.sequence(*id) else {
            return Err(bad("its storage has no description"));
        };
        Ok(Storage {
            kind: self.pickle.global(kind).ok_or(bad("its storage has no type"))?,
            key: self.pickle.text(key).ok_or(bad("its storage has no key"))?,
            n_elements: self.pickle.index(n_elements).ok_or(bad("its storage has no size"))?,
        })
    }

    /// The bytes of a storage; the outer error is one of the archive.
    fn stored(&self, storage: &Storage<'_>, dtype: DType) -> Result<Result<&[u8], TensorFault>, Fault> {
        let member = format!("{}data/{}", self.folder, storage.key);
        let bytes = self.archive.member(&member)?;
        let expected = storage.n_elements.saturating_mul(dtype.size());
        Ok(bytes.get(..expected).ok_or(TensorFault::ShortStorage { member, found: bytes.len(), expected }))
    }

    fn strided(&self, offset: Position, shape: Position, strides: Position) -> Result<Strided, TensorFault> {
        let numbers = |position| -> Option<Vec<usize>> {
            self.pickle.sequence(position)?.iter().map(|&item| self.pickle.index(item)).collect()
        };
        let bad = |what| TensorFault::BadDescription { what };
        Ok(Strided {
            offset: self.pickle.index(offset).ok_or(bad("its offset is no number"))?,
            shape: numbers(shape).ok_or(bad("its shape is no tuple of numbers"))?,
            strides: numbers(strides).ok_or(bad("its strides are no tuple of numbers"))?,
        })
    }
}

/// Where a tensor's numbers are.
struct Storage<'a> {
    /// Python's class, as `torch.FloatStorage`.
    kind: &'a str,
    /// The last part of its member's name.
    key: &'a str,
    n_elements: usize,
}

impl Storage<'_> {
    /// The type of the elements if they are floating-point numbers.
    fn dtype(&self) -> Option<DType> {
        match self.kind {
            "torch.FloatStorage" => Some(DType::F32),
            "torch.DoubleStorage" => Some(DType::F64),
            "torch.HalfStorage" => Some(DType::F16),
            "torch.BFloat16Storage" => Some(DType::BF16),
            _ => None,
        }
    }

    /// What PyTorch calls the type of the elements.
    fn elements(&self) -> &str {
        match self.kind {
            "torch.LongStorage" => "int64",
            "torch.IntStorage" => "int32",
            "torch.ShortStorage" => "int16",
            "torch.CharStorage" => "int8",
            "torch.ByteStorage" => "uint8",
            "torch.BoolStorage" => "bool",
            "torch.ComplexFloatStorage" => "complex64",
            "torch.ComplexDoubleStorage" => "complex128",
            other => other,
        }
    }
}
