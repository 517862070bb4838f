//! Headers for CUDA's compiler on machines that have a driver and no toolkit.

use std::path::PathBuf;

use cellpatch_data::CacheOptions;
use cellpatch_model::cuda_headers;

/// Where this program keeps headers of its own.
fn folder() -> PathBuf {
    let cache = CacheOptions::usual().ok().and_then(|usual| usual.folder.parent().map(PathBuf::from));
    cache.unwrap_or_else(|| std::env::temp_dir().join("cellpatch")).join("cuda")
}

/// Has this process take them where there is no toolkit: when the program starts.
pub(crate) fn stand_in() {
    // SAFETY: the program starts, and has one thread.
    #[expect(unsafe_code, reason = "CubeCL is told by the environment alone")]
    unsafe {
        cuda_headers::stand_in(&folder());
    }
}

/// Writes them, if this process takes them; before a card is used.
///
/// # Errors
/// Why not, in words.
pub(crate) fn write() -> Result<(), String> {
    let folder = folder();
    if !cuda_headers::are_taken_from(&folder) {
        return Ok(());
    }
    cuda_headers::write(&folder).map_err(|error| {
        format!("headers for CUDA's compiler could not be written to {}: {error}; install CUDA's toolkit and let CUDA_PATH name it, or let XDG_CACHE_HOME name a folder of yours", folder.display())
    })
}
