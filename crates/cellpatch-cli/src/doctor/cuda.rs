//! What NVIDIA's driver says of its cards.

use cudarc::driver::result::{DriverError, device, init};
use cudarc::driver::sys::{CUdevice_attribute, cuDriverGetVersion};

/// A card.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Card {
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// `9.0`
    pub compute_capability: String,
    /// The newest CUDA the driver knows: `12.4`.
    pub cuda_version: String,
    /// Cards there are.
    pub n_cards: usize,
}

impl Card {
    /// Asks the driver. Panics where there is none: ask in a child process.
    ///
    /// - index: of the card, from 0
    pub(super) fn ask(index: usize) -> Result<Self, DriverError> {
        init()?;
        let card = device::get(index as i32)?;
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        unsafe { cuDriverGetVersion(&mut version) }.result()?;
        // SAFETY: the card is one that `device::get` returned, here and below.
        let memory = unsafe { device::total_mem(card) }? as u64;
        let attribute = |name| unsafe { device::get_attribute(card, name) };
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Self {
            name: device::get_name(card)?,
            memory,
            compute_capability: format!("{major}.{minor}"),
            cuda_version: format!("{}.{}", version / 1000, version % 1000 / 10),
            n_cards: usize::try_from(device::get_count()?).unwrap_or(0),
        })
    }
}
