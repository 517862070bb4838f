//! The Python names a state dict, and what checkpoints hold beside it, is written with.

use crate::weights::fault::Fault;

/// Longest name an error shows.
const SHOWN: usize = 120;

/// Names that stand for data. None of them is ever called here: the list tells data from programs, as
/// `torch.load(weights_only=True)` does.
const DATA: [&str; 34] = [
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._tensor._rebuild_from_type_v2",
    "torch.nn.parameter.Parameter",
    "torch.Tensor",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
    "_codecs.encode",
    "argparse.Namespace",
    "__builtin__.set",
    "builtins.set",
    "__builtin__.dict",
    "builtins.dict",
    "__builtin__.list",
    "builtins.list",
    "__builtin__.complex",
    "builtins.complex",
];

/// Element types, as `torch.float32`.
const ELEMENTS: [&str; 16] = [
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "half",
    "float",
    "double",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "bool",
    "complex64",
    "complex128",
    "strided",
];

/// The name `module.name`, if it stands for data.
pub(super) fn data_global(module: &str, name: &str) -> Result<String, Fault> {
    let global = format!("{module}.{name}");
    let in_torch = global.strip_prefix("torch.").unwrap_or_default();
    // torch.FloatStorage, torch.cuda.FloatStorage, torch.storage.UntypedStorage, ...
    let is_storage = in_torch.ends_with("Storage")
        && in_torch.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if is_storage || DATA.contains(&global.as_str()) || ELEMENTS.contains(&in_torch) {
        return Ok(global);
    }
    // Escaped, for a file must not be able to send commands to a terminal.
    let mut shown: String = global.escape_debug().take(SHOWN).collect();
    if shown.len() < global.len() {
        shown.push_str("...");
    }
    Err(Fault::ForbiddenGlobal { global: shown })
}
