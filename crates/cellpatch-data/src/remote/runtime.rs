//! Asynchronous work, and how the rest of the crate waits for it.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Waits for `future` on this thread; connections live on a thread of their own.
///
/// # Errors
/// [`Error::Io`] if that thread cannot be started.
pub(super) fn wait<F: Future>(future: F) -> Result<F::Output> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.block_on(future));
    }
    prepare();
    let built = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .thread_name("network")
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| Error::io("start", "a thread for the network", source))?;
    Ok(RUNTIME.get_or_init(|| built).block_on(future))
}

/// Chooses the cryptography of TLS, which every client needs before it is made.
pub(super) fn prepare() {
    // Fails when the program, or another crate in it, has chosen one already: then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
