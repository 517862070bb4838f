//! Asking a driver in a child process: one that crashes or hangs takes only the child with it.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use cellpatch_model::ModelBackend;
use cellpatch_model::product::product;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use super::cuda::Card;
use super::library::SharedLibrary;
#[cfg(feature = "cuda")]
use crate::cuda_toolkit;
use crate::device::{DeviceChoice, on_device};
#[cfg(feature = "cuda")]
use crate::failure::Category;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Software drivers compile shaders slowly; a driver that needs longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// A device that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FoundDevice {
    /// The adapter's name.
    pub name: String,
    /// Whether it is faster hardware than the CPU.
    pub is_accelerator: bool,
    /// Its memory in bytes, where the driver says it.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Of CUDA: what the card can do.
    #[serde(default)]
    pub compute_capability: Option<String>,
    /// What the driver says of itself.
    #[serde(default)]
    pub driver: Option<String>,
    /// Devices of its kind here.
    #[serde(default)]
    pub n_devices: usize,
}

impl FoundDevice {
    fn new(name: String, is_accelerator: bool) -> Self {
        Self { name, is_accelerator, memory: None, compute_capability: None, driver: None, n_devices: 1 }
    }
}

/// Multiplies two small matrices on a device, in a child process; once for each device.
///
/// # Errors
/// Why it does not work, in words.
pub(crate) fn probe(device: DeviceChoice) -> Result<FoundDevice, String> {
    static KNOWN: Mutex<Vec<(DeviceChoice, Result<FoundDevice, String>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = known.iter().find(|(of, _)| *of == device) {
        return found.clone();
    }
    let found = ask(device);
    known.push((device, found.clone()));
    found
}

fn ask(device: DeviceChoice) -> Result<FoundDevice, String> {
    #[cfg(feature = "cuda")]
    if matches!(device, DeviceChoice::Cuda(_)) {
        cuda_toolkit::write()?;
    }
    let program =
        std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
    let mut child = Command::new(program)
        .args(["doctor", "--probe", &device.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("could not start a probe: {error}"))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the driver did not answer within {} s", PATIENCE.as_secs()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(format!("the probe was lost: {error}")),
        }
    };
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        let _ = stdout.read_to_string(&mut output);
    }
    if status.success()
        && let Ok(found) = serde_json::from_str(&output)
    {
        return Ok(found);
    }
    let mut reason = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut reason);
    }
    Err(explain(device, &reason))
}

/// What a driver's complaint means and how to mend it.
fn explain(device: DeviceChoice, complaint: &str) -> String {
    let reason = complaint
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("thread '") && !line.starts_with("note:"))
        .unwrap_or("the probe ended without a word");
    // Some loaders list every name they tried.
    let reason = match reason.char_indices().nth(120) {
        Some((end, _)) => format!("{} ...", &reason[..end]),
        None => reason.to_owned(),
    };
    let remedy = remedy(device, complaint, &SharedLibrary::is_here);
    if remedy.is_empty() { reason } else { format!("{remedy} ({reason})") }
}

/// How to mend a device.
///
/// - is_here: whether a library can be loaded
fn remedy(device: DeviceChoice, complaint: &str, is_here: &dyn Fn(SharedLibrary) -> bool) -> &'static str {
    let missing = |library: SharedLibrary| (!is_here(library)).then(|| library.remedy());
    match device {
        DeviceChoice::Cuda(_) => missing(SharedLibrary::CudaDriver)
            .or_else(|| missing(SharedLibrary::CudaCompiler))
            .unwrap_or(if complaint.contains("INVALID_DEVICE") {
                "there are not so many cards: `doctor` lists them"
            } else {
                "the driver is installed and does not answer as it should: nvidia-smi may say more"
            }),
        DeviceChoice::Wgpu => missing(SharedLibrary::VulkanLoader).unwrap_or(
            "the Vulkan loader finds no driver that works: install that of the GPU; on Debian and Ubuntu \
             mesa-vulkan-drivers brings those of AMD and Intel and a software one",
        ),
        _ => "",
    }
}

/// The child's side of [`probe`]: prints what it found, or panics as the driver makes it.
pub(crate) fn answer_probe(terminal: &Terminal, device: DeviceChoice) -> Result<(), Failure> {
    let found = examine(device)?;
    if let Ok(value) = serde_json::to_value(&found) {
        terminal.result(&value.to_string(), &value);
    }
    Ok(())
}

fn examine(device: DeviceChoice) -> Result<FoundDevice, Failure> {
    let found = match device {
        #[cfg(feature = "wgpu")]
        DeviceChoice::Wgpu => {
            use burn::backend::wgpu;
            let setup = wgpu::init_setup::<wgpu::graphics::AutoGraphicsApi>(
                &wgpu::WgpuDevice::default(),
                wgpu::RuntimeOptions::default(),
            );
            let info = setup.adapter.get_info();
            let is_accelerator = format!("{:?}", info.device_type) != "Cpu";
            let driver = format!("{} {}", info.driver, info.driver_info);
            FoundDevice {
                driver: Some(driver.trim().to_owned()).filter(|driver| !driver.is_empty()),
                ..FoundDevice::new(format!("{} ({:?})", info.name, info.backend), is_accelerator)
            }
        }
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(index) => match Card::ask(index) {
            Ok(card) => FoundDevice {
                memory: Some(card.memory),
                compute_capability: Some(card.compute_capability),
                driver: Some(format!("driver for CUDA {}", card.cuda_version)),
                n_devices: card.n_cards,
                ..FoundDevice::new(card.name, true)
            },
            Err(error) => {
                return Err(Failure::new(Category::Environment, format!("NVIDIA's driver says {error:?}")));
            }
        },
        _ => FoundDevice { memory: machine_memory(), ..FoundDevice::new(cpu_name(), false) },
    };
    on_device!(device, |B, device| multiply::<B>(&device));
    Ok(found)
}

/// Bytes of memory of this machine, where the system says it in the usual place.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// A product whose every element is 8, computed and read back.
fn multiply<B: ModelBackend>(device: &B::Device) {
    let product = product(Tensor::<B, 2>::ones([8, 8], device), Tensor::ones([8, 8], device));
    let values = product.into_data();
    assert!(
        values.iter::<f32>().all(|value| (value - 8.0).abs() < 1e-3),
        "the device computes wrongly: {values}"
    );
}

fn cpu_name() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{} {}, {cores} threads", std::env::consts::OS, std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_is_explained_in_words() {
        let text = explain(
            DeviceChoice::Cuda(0),
            "thread 'main' panicked at cudarc:1:1:\nUnable to dynamically load the \"cuda\" shared library\n",
        );
        assert!(text.contains("Unable to dynamically load"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let remedy = |device, missing: Option<SharedLibrary>| {
            remedy(device, "CUDA_ERROR_INVALID_DEVICE", &|library| Some(library) != missing)
        };
        for (device, missing, word) in [
            (DeviceChoice::Cuda(0), Some(SharedLibrary::CudaDriver), "libcuda.so.1"),
            (DeviceChoice::Cuda(0), Some(SharedLibrary::CudaCompiler), "libnvrtc"),
            (DeviceChoice::Cuda(7), None, "not so many cards"),
            (DeviceChoice::Wgpu, Some(SharedLibrary::VulkanLoader), "libvulkan1"),
            (DeviceChoice::Wgpu, None, "mesa-vulkan-drivers"),
        ] {
            assert!(remedy(device, missing).contains(word), "{device} without {missing:?}");
        }
    }
}
