//! Which backend runs is chosen here, once; everything below is generic over it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::doctor;
use crate::failure::{Category, Failure};
use crate::terminal::Terminal;

/// The `--device` flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DeviceChoice {
    /// The best that works here: CUDA, then a GPU through wgpu, then the CPU.
    #[default]
    Auto,
    /// Burn's fast CPU backend.
    Cpu,
    /// Burn's portable CPU backend.
    NdArray,
    /// Any GPU with Vulkan, Metal or DirectX 12.
    Wgpu,
    /// An NVIDIA GPU by its index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "ndarray" => Ok(Self::NdArray),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
                Some(index) => Ok(Self::Cuda(index)),
                None => Err("it is one of auto, cpu, wgpu, cuda, cuda:N, ndarray".into()),
            },
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::NdArray => f.write_str("ndarray"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Whether this build has the backend.
    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            Self::Auto | Self::Cpu => true,
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Cuda(_) => cfg!(feature = "cuda"),
        }
    }

    /// The device to use: what was asked for if it works, or the best there is for `auto`.
    pub(crate) fn resolve(self, terminal: &Terminal) -> Result<Self, Failure> {
        if self == Self::Auto {
            let best = [Self::Cuda(0), Self::Wgpu]
                .into_iter()
                .filter(|device| device.is_compiled_in())
                .find(|&device| doctor::probe(device).is_ok_and(|found| found.is_accelerator));
            return Ok(best.unwrap_or(Self::Cpu));
        }
        if !self.is_compiled_in() {
            let feature = self.to_string();
            let feature = feature.split(':').next().unwrap_or_default();
            return Err(Failure::new(Category::Environment, format!("this build has no {feature} backend"))
                .with_help(format!("build it with --features {feature}, or use --device cpu")));
        }
        if matches!(self, Self::Wgpu | Self::Cuda(_)) {
            let found = doctor::probe(self).map_err(|reason| {
                Failure::new(Category::Environment, format!("the device {self} does not work here: {reason}"))
                    .with_help("`doctor` shows which devices work and what the others lack; --device cpu always works")
            })?;
            if !found.is_accelerator {
                terminal.warn(&format!("{} is a software driver and slower than --device cpu", found.name));
            }
        }
        Ok(self)
    }

    /// Bytes of its own memory, where a driver says it.
    pub(crate) fn memory(self) -> Option<u64> {
        match self {
            Self::Cuda(_) => doctor::probe(self).ok()?.memory,
            _ => None,
        }
    }

    /// The device of one of several processes on this machine, each of which was told the same: the first card stands for
    /// all, which they share out. (Where a scheduler shows each process a card of its own, there is but one.)
    pub(crate) fn for_rank(self, local_rank: usize) -> Self {
        match self {
            Self::Cuda(0) if local_rank > 0 => {
                let n_cards = doctor::probe(self).map_or(1, |found| found.n_devices.max(1));
                Self::Cuda(local_rank % n_cards)
            }
            device => device,
        }
    }
}

/// Runs `$body` with `$backend` naming the chosen backend (without autodiff) and `$device` its device.
macro_rules! on_device {
    ($choice:expr, |$backend:ident, $device:ident| $body:expr) => {
        match $choice {
            #[cfg(feature = "ndarray")]
            $crate::device::DeviceChoice::NdArray => {
                type $backend = burn::backend::NdArray;
                let $device = burn::backend::ndarray::NdArrayDevice::Cpu;
                $body
            }
            #[cfg(feature = "wgpu")]
            $crate::device::DeviceChoice::Wgpu => {
                type $backend = burn::backend::Wgpu;
                let $device = burn::backend::wgpu::WgpuDevice::default();
                $body
            }
            #[cfg(feature = "cuda")]
            $crate::device::DeviceChoice::Cuda(index) => {
                type $backend = burn::backend::Cuda;
                let $device = burn::backend::cuda::CudaDevice::new(index);
                $body
            }
            // `resolve` lets nothing else through: backends that are not compiled in were refused there.
            _ => {
                type $backend = burn::backend::Flex;
                let $device = burn::backend::flex::FlexDevice;
                $body
            }
        }
    };
}
pub(crate) use on_device;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_name_reads_back() {
        for name in ["auto", "cpu", "ndarray", "wgpu", "cuda", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "CPU"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }
}
