//! Shared libraries that drivers bring, and how to get those that are missing.

use libloading::Library;

/// A library that a backend loads when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharedLibrary {
    /// NVIDIA's driver.
    CudaDriver,
    /// CUDA's compiler of kernels.
    CudaCompiler,
    /// What finds Vulkan drivers.
    VulkanLoader,
}

impl SharedLibrary {
    /// Names under which it is looked for, as those who load it look for it.
    fn names(self) -> &'static [&'static str] {
        match (self, cfg!(windows)) {
            (Self::CudaDriver, false) => &["libcuda.so", "libcuda.so.1"],
            (Self::CudaDriver, true) => &["nvcuda.dll"],
            (Self::CudaCompiler, false) => {
                &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11"]
            }
            (Self::CudaCompiler, true) => {
                &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll", "nvrtc64_12.dll", "nvrtc64_11.dll"]
            }
            (Self::VulkanLoader, false) => &["libvulkan.so.1", "libvulkan.so"],
            (Self::VulkanLoader, true) => &["vulkan-1.dll"],
        }
    }

    /// Whether it can be loaded here.
    pub(super) fn is_here(self) -> bool {
        // SAFETY: loading runs the library's own initialisers; these are the system's drivers, which the backends load the same
        // way, and this is the parent of a probe that was lost or the child that will load them anyway.
        self.names().iter().any(|name| unsafe { Library::new(name) }.is_ok())
    }

    /// How to get it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::CudaDriver => {
                "it needs an NVIDIA GPU with its driver, and libcuda.so.1, which the driver brings, is missing; no CUDA toolkit is needed"
            }
            Self::CudaCompiler => {
                "the CUDA run-time compiler (libnvrtc) is missing: on Debian and Ubuntu apt-get install libnvrtc12, or pip install nvidia-cuda-nvrtc-cu12 and put its lib folder into LD_LIBRARY_PATH"
            }
            Self::VulkanLoader => {
                "the Vulkan loader (libvulkan.so.1) is missing: on Debian and Ubuntu apt-get install libvulkan1, and the GPU's driver"
            }
        }
    }
}
