//! How numbers inside a block are stored while kernels compute it.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

use crate::backend::ModelBackend;
use crate::error::{Error, Result};

/// How a card's kernels store what lies inside a block: projected queries, keys and values, what attention gathered (which is
/// kept for the backward pass), and the gradients of all of these.
///
/// Sums, softmax and norms are computed with 32 bits whatever this is, and weights, optimizer moments, and what blocks are given and
/// give have 32 bits. Backends without such kernels compute with 32 bits, and take nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32 and 8 binary digits: half the memory and traffic inside blocks.
    Bf16,
    /// 16 bits with 11 binary digits and a small range: gradients below 6e-8 vanish and above 65,504 are infinite. For cards that
    /// have no [`Precision::Bf16`].
    F16,
}

impl Precision {
    /// Every precision, in the order shown to users.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The name users give.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|precision| precision.name() == name);
        known.ok_or_else(|| Error::UnknownPrecision { name: name.to_string() })
    }
}

/// Index into [`Precision::ALL`] of the process's precision.
static PROCESS: AtomicU8 = AtomicU8::new(0);

thread_local! {
    static THREAD: Cell<Option<Precision>> = const { Cell::new(None) };
}

/// How what is computed from now on is stored inside blocks: as [`set_precision`] said, or [`with_precision`] for this thread.
pub fn precision() -> Precision {
    let process = || Precision::ALL.get(PROCESS.load(Ordering::Relaxed) as usize).copied();
    THREAD.get().or_else(process).unwrap_or_default()
}

/// Sets how kernels store what lies inside blocks, for the whole process: once, before training begins.
///
/// A pass that was recorded before goes back in the precision it was recorded with.
///
/// # Errors
///
/// [`Error::NoSuchPrecision`] if the backend has no such kernels or the device no such floats; then nothing is changed.
pub fn set_precision<B: ModelBackend>(precision: Precision, device: &B::Device) -> Result<()> {
    check::<B>(precision, device)?;
    let place = Precision::ALL.into_iter().position(|known| known == precision);
    PROCESS.store(place.unwrap_or_default() as u8, Ordering::Relaxed);
    Ok(())
}

/// What a closure computes in a precision, on this thread: to compare precisions.
///
/// # Errors
///
/// As [`set_precision`].
pub fn with_precision<B: ModelBackend, T>(
    precision: Precision,
    device: &B::Device,
    compute: impl FnOnce() -> T,
) -> Result<T> {
    struct Restore(Option<Precision>);
    impl Drop for Restore {
        fn drop(&mut self) {
            THREAD.set(self.0);
        }
    }
    check::<B>(precision, device)?;
    let _restore = Restore(THREAD.replace(Some(precision)));
    Ok(compute())
}

fn check<B: ModelBackend>(precision: Precision, device: &B::Device) -> Result<()> {
    match B::offers(precision, device) {
        true => Ok(()),
        false => Err(Error::NoSuchPrecision { precision, device: format!("{device:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;

    #[test]
    fn every_precision_is_found_by_its_name() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert!(matches!("f64".parse::<Precision>(), Err(Error::UnknownPrecision { .. })));
    }

    #[test]
    fn a_cpu_computes_with_32_bits_and_says_so() {
        let device = Default::default();
        assert!(set_precision::<Flex>(Precision::F32, &device).is_ok());
        for precision in [Precision::Bf16, Precision::F16] {
            let refused = set_precision::<Autodiff<Flex>>(precision, &device);
            assert!(matches!(refused, Err(Error::NoSuchPrecision { .. })));
            assert!(refused.unwrap_err().help().is_some());
            assert!(with_precision::<Flex, _>(precision, &device, || ()).is_err());
            assert_eq!(super::precision(), Precision::F32);
        }
    }
}
