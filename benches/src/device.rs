//! The device that a benchmark runs on.

use std::fmt;
use std::str::FromStr;

use cellpatch_model::cuda_headers;
use cubecl::Runtime;
use cubecl::client::ComputeClient;

/// A device by its name: `cpu`, `wgpu`, `cuda`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Wgpu,
    Cuda,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err("it is one of cpu, wgpu, cuda".into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        })
    }
}

impl Device {
    /// Bytes of its memory that this process took and never gave back; `None` on the CPU.
    pub(crate) fn reserved_bytes(self) -> Option<u64> {
        fn of<R: Runtime>(client: &ComputeClient<R>) -> Option<u64> {
            Some(client.memory_usage().ok()?.bytes_reserved)
        }
        match self {
            Self::Cpu => None,
            Self::Wgpu => of(&cubecl::wgpu::WgpuRuntime::client(&Default::default())),
            Self::Cuda => of(&cubecl::cuda::CudaRuntime::client(&Default::default())),
        }
    }
}

/// Has this process and those it starts find headers for CUDA's compiler where there is no toolkit: when the program starts.
pub(crate) fn take_cuda_headers() -> crate::Result<()> {
    let folder = std::env::temp_dir().join("cellpatch-bench-cuda");
    // SAFETY: the program starts, and has one thread.
    #[expect(unsafe_code, reason = "CubeCL is told by the environment alone")]
    unsafe {
        cuda_headers::stand_in(&folder);
    }
    if cuda_headers::are_taken_from(&folder) {
        cuda_headers::write(&folder)?;
    }
    Ok(())
}

/// Runs `$body` with `$backend` naming the device's backend (without autodiff) and `$device` the device.
macro_rules! on_device {
    ($choice:expr, |$backend:ident, $device:ident| $body:expr) => {
        match $choice {
            $crate::device::Device::Cpu => {
                type $backend = burn::backend::Flex;
                let $device = burn::backend::flex::FlexDevice;
                $body
            }
            $crate::device::Device::Wgpu => {
                type $backend = burn::backend::Wgpu;
                let $device = burn::backend::wgpu::WgpuDevice::default();
                $body
            }
            $crate::device::Device::Cuda => {
                type $backend = burn::backend::Cuda;
                let $device = burn::backend::cuda::CudaDevice::default();
                $body
            }
        }
    };
}
pub(crate) use on_device;
