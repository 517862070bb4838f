//! Why a weights file cannot be read.

/// What is wrong with a weights file.
///
/// `Display` is a reason to put behind the file's name; [`Fault::help`] says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file has no bytes.
    #[error("it is empty")]
    Empty,
    /// The file is what `torch.save` wrote before PyTorch 1.6.
    #[error("it is in the format that PyTorch wrote before version 1.6, a row of pickles without an archive")]
    LegacyPytorch,
    /// The file is no ZIP archive.
    #[error("it is no archive as torch.save writes since PyTorch 1.6")]
    NotAnArchive,
    /// The numbers are in the byte order of another kind of machine.
    #[error("it was written on a big-endian machine")]
    BigEndian,
    /// The header of a safetensors file, or what it says about the rest of the file, is damaged.
    #[error("{reason}")]
    BadSafetensors {
        /// What the safetensors crate says.
        reason: String,
    },
    /// The archive's directory, which is at its end, is not there.
    #[error("its ZIP directory is missing: it was cut short")]
    NoDirectory,
    /// The archive's directory cannot be followed.
    #[error("its ZIP directory is damaged at byte {at}")]
    BadDirectory {
        /// Where in the file.
        at: usize,
    },
    /// The archive needs the 64-bit variant of ZIP.
    #[error("its ZIP directory is of the 64-bit kind, as of files beyond 4 GB")]
    Zip64,
    /// A member of the archive is compressed.
    #[error("its member {member:?} is compressed, which torch.save never does")]
    Compressed {
        /// The member's name.
        member: String,
    },
    /// A member of the archive is encrypted.
    #[error("its member {member:?} is encrypted")]
    Encrypted {
        /// The member's name.
        member: String,
    },
    /// A member lies beyond the archive, or not where the directory says.
    #[error("its member {member:?} is cut short or damaged")]
    BadMember {
        /// The member's name.
        member: String,
    },
    /// Two members have one name.
    #[error("it has two members {member:?}")]
    TwoMembers {
        /// The members' name.
        member: String,
    },
    /// A member that every file of `torch.save` has is not there.
    #[error("it has no member {member:?}")]
    NoMember {
        /// The member's name.
        member: String,
    },
    /// A member's bytes do not have the checksum stored with them.
    #[error("the bytes of its member {member:?} are not those that were written (CRC-32)")]
    WrongChecksum {
        /// The member's name.
        member: String,
    },
    /// The pickle, which only describes tensors, is absurdly large.
    #[error("its pickle has {found} {unit}, which no state dict needs")]
    PickleTooLarge {
        /// How many there are, or had been read when reading stopped.
        found: usize,
        /// "bytes" or "values".
        unit: &'static str,
    },
    /// The pickle ends before it is complete.
    #[error("its pickle ends too early, at byte {at}")]
    PickleCutShort {
        /// Where in the pickle.
        at: usize,
    },
    /// The pickle does something no pickle of Python does.
    #[error("its pickle is damaged before byte {at}: {what}")]
    BadPickle {
        /// Where in the pickle.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The pickle has an instruction that no state dict is written with.
    #[error("its pickle has the opcode {opcode:#04x} before byte {at}, which no state dict needs")]
    UnknownOpcode {
        /// Python's code of the instruction.
        opcode: u8,
        /// Where in the pickle.
        at: usize,
    },
    /// The pickle asks for a Python function or class that is no part of a state dict.
    ///
    /// Unpickling would import it, and most likely call it; here nothing of it was run.
    #[error("its pickle asks for {global}, which is no part of a state dict; nothing of it was run")]
    ForbiddenGlobal {
        /// `module.name`, made safe to print and no longer than a line.
        global: String,
    },
    /// The pickle's outermost value is no dict.
    #[error("it holds no dict")]
    NoStateDict,
    /// There is a dict without a single tensor of floating-point numbers.
    #[error("it holds no tensors by name")]
    NoTensors,
    /// Two tensors have one name, `module.` in front of it not counted.
    #[error("it has two tensors {name:?}")]
    TwoTensors {
        /// The tensors' name.
        name: String,
    },
    /// A tensor is described wrongly, or its numbers are not in the file.
    #[error("{name:?}: {fault}")]
    BadTensor {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        fault: TensorFault,
    },
    /// The tensors are many views of the same few numbers, and would take far more memory than the file.
    #[error("its tensors are more than {limit} times as large as the file itself")]
    SharedTooOften {
        /// How many times the file's size the tensors may take.
        limit: usize,
    },
}

/// What is wrong with one tensor of a PyTorch file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// The arguments of `_rebuild_tensor_v2` are not what they should be.
    #[error("{what}")]
    BadDescription {
        /// What they are not.
        what: &'static str,
    },
    /// The shape has more dimensions, or more elements, than a machine can address.
    #[error("its shape is absurd")]
    AbsurdShape,
    /// Several elements of the tensor are the same number in the file, as `expand` makes them.
    #[error("its elements overlap: shape {shape:?} with strides {strides:?}")]
    Overlapping {
        /// The shape.
        shape: Vec<usize>,
        /// The strides, in elements.
        strides: Vec<usize>,
    },
    /// The tensor reaches beyond the numbers of its storage.
    #[error("it reaches beyond the {n_stored} elements of its storage")]
    BeyondStorage {
        /// How many elements the storage has.
        n_stored: usize,
    },
    /// The archive holds fewer bytes than the description says.
    #[error("its storage {member:?} has {found} bytes instead of {expected}")]
    ShortStorage {
        /// The storage's member of the archive.
        member: String,
        /// How many bytes there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl Fault {
    /// What the user can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::LegacyPytorch => {
                "open and save it once with PyTorch 1.6 or later: torch.save(torch.load(path, weights_only=True), path)"
            }
            Self::ForbiddenGlobal { .. } => {
                "of a model of your own save the state dict alone: torch.save(model.state_dict(), path); a file from others do not open with torch.load(weights_only=False) unless you trust them"
            }
            Self::BigEndian | Self::Zip64 => {
                "open it with PyTorch and save the model's state dict alone as safetensors: safetensors.torch.save_file(model.state_dict(), path)"
            }
            Self::Compressed { .. } | Self::Encrypted { .. } => {
                "it was packed again after torch.save: ask for the file as it was, or open and save it once with PyTorch"
            }
            Self::BadTensor { fault: TensorFault::Overlapping { .. }, .. } | Self::SharedTooOften { .. } => {
                "save it with tensors of their own: {name: tensor.clone() for name, tensor in model.state_dict().items()}"
            }
            Self::NoStateDict | Self::NoTensors | Self::NotAnArchive => {
                "a PyTorch file must hold a state dict, as torch.save(model.state_dict(), path) writes it, alone or as model_state_dict, state_dict or model"
            }
            _ => "download or copy the file again",
        }
        .into()
    }
}
