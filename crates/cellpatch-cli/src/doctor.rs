//! Which devices work here, and what the others lack.
//!
//! Drivers are asked in a child process: one that crashes or hangs takes only the child with it.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceChoice, on_device};
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
}

/// Multiplies two small matrices on a device, in a child process.
///
/// # Errors
/// Why it does not work, in words.
pub(crate) fn probe(device: DeviceChoice) -> Result<FoundDevice, String> {
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
    let remedy = match device {
        DeviceChoice::Cuda(_) if complaint.contains("nvrtc") => {
            "the CUDA run-time compiler is missing: install libnvrtc of the driver's CUDA version"
        }
        DeviceChoice::Cuda(_) => {
            "it needs an NVIDIA GPU with its driver (libcuda.so.1); no CUDA toolkit is needed"
        }
        DeviceChoice::Wgpu => {
            "it needs a Vulkan loader and driver; on Debian and Ubuntu: apt-get install libvulkan1 and the GPU's \
             driver (mesa-vulkan-drivers also brings a software one)"
        }
        _ => "",
    };
    if remedy.is_empty() { reason } else { format!("{remedy} ({reason})") }
}

/// The child's side of [`probe`]: prints what it found, or panics as the driver makes it.
pub(crate) fn answer_probe(terminal: &Terminal, device: DeviceChoice) -> Result<(), Failure> {
    let found = examine(device);
    if let Ok(value) = serde_json::to_value(&found) {
        terminal.result(&value.to_string(), &value);
    }
    Ok(())
}

fn examine(device: DeviceChoice) -> FoundDevice {
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
            FoundDevice { name: format!("{} ({:?})", info.name, info.backend), is_accelerator }
        }
        DeviceChoice::Cuda(index) => {
            FoundDevice { name: format!("NVIDIA GPU {index}"), is_accelerator: true }
        }
        _ => FoundDevice { name: cpu_name(), is_accelerator: false },
    };
    on_device!(device, |B, device| multiply::<B>(&device));
    found
}

/// A product whose every element is 8, computed and read back.
fn multiply<B: Backend>(device: &B::Device) {
    let product = Tensor::<B, 2>::ones([8, 8], device).matmul(Tensor::ones([8, 8], device));
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

#[derive(Debug, Serialize)]
struct DeviceReport {
    device: String,
    works: bool,
    name: Option<String>,
    reason: Option<String>,
}

/// `cellpatch doctor`.
pub(crate) fn run(terminal: &Terminal) -> Result<(), Failure> {
    let devices = [DeviceChoice::Cpu, DeviceChoice::NdArray, DeviceChoice::Wgpu, DeviceChoice::Cuda(0)];
    let reports: Vec<DeviceReport> = devices.into_iter().map(report).collect();
    let best = DeviceChoice::Auto.resolve(terminal)?;
    let mut text = format!("cellpatch {}\n\n", env!("CARGO_PKG_VERSION"));
    for report in &reports {
        let verdict = if report.works { "works" } else { "no" };
        let detail = report.name.as_ref().or(report.reason.as_ref()).map_or("", String::as_str);
        text.push_str(&format!("{:8} {verdict:6} {detail}\n", report.device));
    }
    text.push_str(&format!("\n--device auto uses {best}"));
    let value = serde_json::json!({
        "command": "doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "devices": reports,
        "auto": best.to_string(),
    });
    terminal.result(&text, &value);
    Ok(())
}

fn report(device: DeviceChoice) -> DeviceReport {
    let found = if device.is_compiled_in() {
        probe(device)
    } else {
        Err(format!("this build has no such backend; build it with --features {device}"))
    };
    let works = found.is_ok();
    let (name, reason) = match found {
        Ok(found) => (Some(found.name), None),
        Err(reason) => (None, Some(reason)),
    };
    DeviceReport { device: device.to_string(), works, name, reason }
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
        assert!(text.contains("NVIDIA") && text.contains("Unable to dynamically load"), "{text}");
        assert!(explain(DeviceChoice::Wgpu, "").contains("libvulkan1"));
    }
}
