//! Ctrl-C: in training it asks for a checkpoint and an orderly end; elsewhere, or the second time, it ends at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::train::Interrupter;

use crate::failure::{Category, Failure};

static PRESSED: AtomicUsize = AtomicUsize::new(0);
static CAN_SAVE: AtomicBool = AtomicBool::new(false);

/// Tells whether somebody is watching the interrupter, so that an orderly end will come.
pub(crate) fn can_save(yes: bool) {
    CAN_SAVE.store(yes, Ordering::SeqCst);
}

/// An interrupter that Ctrl-C (SIGINT) and SIGTERM set off.
pub(crate) fn on_ctrl_c() -> Result<Interrupter, Failure> {
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    ctrlc::set_handler(move || {
        if PRESSED.fetch_add(1, Ordering::SeqCst) > 0 || !CAN_SAVE.load(Ordering::SeqCst) {
            // Whatever is half written is never taken for whole: shards and checkpoints are committed by a rename.
            std::process::exit(i32::from(Category::Interrupted.exit_code()));
        }
        handle.stop(Some("interrupted"));
    })
    .map_err(|error| Failure::new(Category::Environment, format!("could not watch for Ctrl-C: {error}")))?;
    Ok(interrupter)
}
