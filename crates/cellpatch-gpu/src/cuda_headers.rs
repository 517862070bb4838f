//! Headers for CUDA's runtime compiler, where there is no CUDA toolkit.
//!
//! CubeCL's CUDA runtime ends the process if it finds no toolkit, and its kernels include four of a toolkit's headers. The
//! compiler, `libnvrtc`, knows nearly all of what these declare by itself; for the rest there are headers of our own here, which do
//! for this project's kernels and for Burn's element-wise ones and reductions, not for Burn's products by tensor cores.

use std::io;
use std::path::Path;

const HEADERS: [(&str, &str); 4] = [
    ("cuda_runtime.h", include_str!("cuda_headers/cuda_runtime.h")),
    ("cuda_fp16.h", include_str!("cuda_headers/cuda_fp16.h")),
    ("cuda_bf16.h", include_str!("cuda_headers/cuda_bf16.h")),
    ("mma.h", include_str!("cuda_headers/mma.h")),
];

/// The variable that tells CubeCL where a toolkit is.
const VARIABLE: &str = "CUDA_PATH";

/// Whether CubeCL finds a toolkit by itself: by the variable, or where systems put it.
fn toolkit_is_found() -> bool {
    std::env::var_os(VARIABLE).is_some()
        || ["/usr/local/cuda", "/opt/cuda", "/usr/bin/nvcc"].iter().any(|path| Path::new(path).exists())
}

/// Has this process and those it starts take the headers of a folder where CubeCL finds no toolkit by itself.
/// [`write`](write()) them before a card is used.
///
/// # Safety
/// The environment changes: other threads must not use it meanwhile, so call this when a program starts.
pub unsafe fn stand_in(folder: &Path) {
    if cfg!(target_os = "linux") && !toolkit_is_found() {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var(VARIABLE, folder) };
    }
}

/// Whether this process takes the headers of that folder.
pub fn are_taken_from(folder: &Path) -> bool {
    std::env::var_os(VARIABLE).is_some_and(|path| path == folder.as_os_str())
}

/// Writes the headers, unless they are there.
///
/// # Errors
/// When files cannot be written there.
pub fn write(folder: &Path) -> io::Result<()> {
    let include = folder.join("include");
    std::fs::create_dir_all(&include)?;
    for (name, text) in HEADERS {
        let path = include.join(name);
        if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        // Another process may read it meanwhile: it is there whole or not at all.
        let unfinished = include.join(format!("{name}.{}", std::process::id()));
        std::fs::write(&unfinished, text)?;
        std::fs::rename(&unfinished, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_and_mended() {
        let folder = std::env::temp_dir().join(format!("cellpatch-headers-{}", std::process::id()));
        write(&folder).unwrap();
        let header = folder.join("include/cuda_bf16.h");
        assert!(std::fs::read_to_string(&header).unwrap().contains("__nv_bfloat162"));
        std::fs::write(&header, "half of it").unwrap();
        write(&folder).unwrap();
        assert!(std::fs::read_to_string(&header).unwrap().contains("__nv_bfloat162"));
        assert_eq!(std::fs::read_dir(folder.join("include")).unwrap().count(), HEADERS.len());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
