//! What is made of a slice for a device, and kept.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// What was made for the device that last asked; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Prepared(Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>);

impl Prepared {
    /// What was made for this device, or is now made and replaces what was made for another.
    pub(crate) fn on<D, T>(&self, device: &D, make: impl FnOnce() -> T) -> Arc<T>
    where
        D: Clone + PartialEq + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(found)) = kept.clone().map(Arc::downcast::<(D, Arc<T>)>)
            && found.0 == *device
        {
            return Arc::clone(&found.1);
        }
        let made = Arc::new(make());
        *kept = Some(Arc::new((device.clone(), Arc::clone(&made))));
        made
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared")
    }
}

/// A part of a slice that kernels read, and with it the copy that a card's kernels made of it: once, however often they are
/// called.
#[derive(Debug)]
pub struct Resident<T> {
    part: T,
    copy: Prepared,
}

impl<T> Resident<T> {
    pub(crate) fn new(part: T) -> Self {
        Self { part, copy: Prepared::default() }
    }

    /// Where its copy on a device is kept.
    #[cfg(feature = "cube")]
    pub(crate) fn copy(&self) -> &Prepared {
        &self.copy
    }
}

impl<T> Deref for Resident<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T: PartialEq> PartialEq for Resident<T> {
    fn eq(&self, other: &Self) -> bool {
        self.part == other.part
    }
}

impl<T: Eq> Eq for Resident<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_needs_is_made_once() {
        let prepared = Prepared::default();
        let mut made = Vec::new();
        for device in ["first", "first", "second", "second"] {
            let found = prepared.clone().on(&device, || {
                made.push(device);
                device.to_owned()
            });
            assert_eq!(*found, device);
        }
        assert_eq!(made, ["first", "second"]);
    }

    #[test]
    fn what_was_made_for_one_type_is_not_given_for_another() {
        let prepared = Prepared::default();
        assert_eq!(*prepared.on(&0, || 1_u8), 1);
        assert_eq!(*prepared.on(&0, || 2_u16), 2);
    }
}
