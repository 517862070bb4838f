//! Which devices work here, and what the others lack.

#[cfg(feature = "cuda")]
mod cuda;
mod library;
mod probe;

use serde::Serialize;

pub(crate) use self::probe::{answer_probe, probe};
use crate::device::DeviceChoice;
use crate::failure::Failure;
use crate::terminal::Terminal;

#[derive(Debug, Default, Serialize)]
struct DeviceReport {
    device: String,
    works: bool,
    name: Option<String>,
    /// Bytes.
    memory: Option<u64>,
    compute_capability: Option<String>,
    driver: Option<String>,
    reason: Option<String>,
    #[serde(skip)]
    n_devices: usize,
}

impl DeviceReport {
    fn detail(&self) -> String {
        let memory = self.memory.map(|bytes| format!("{:.1} GiB", bytes as f64 / (1 << 30) as f64));
        let capability =
            self.compute_capability.as_ref().map(|capability| format!("compute capability {capability}"));
        let facts = [self.name.clone(), memory, capability, self.driver.clone(), self.reason.clone()];
        facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// `cellpatch doctor`.
pub(crate) fn run(terminal: &Terminal) -> Result<(), Failure> {
    let devices = [DeviceChoice::Cpu, DeviceChoice::NdArray, DeviceChoice::Wgpu, DeviceChoice::Cuda(0)];
    let mut reports: Vec<DeviceReport> = devices.into_iter().map(report).collect();
    let n_cards = reports.last().map_or(0, |report| report.n_devices);
    reports.extend((1..n_cards).map(|index| report(DeviceChoice::Cuda(index))));
    let best = DeviceChoice::Auto.resolve(terminal)?;
    let mut text = format!("cellpatch {}\n\n", env!("CARGO_PKG_VERSION"));
    for report in &reports {
        let verdict = if report.works { "works" } else { "no" };
        text.push_str(&format!("{:8} {verdict:6} {}\n", report.device, report.detail()));
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
    let mut report = DeviceReport { device: device.to_string(), works: found.is_ok(), ..Default::default() };
    match found {
        Ok(found) => {
            report.name = Some(found.name);
            report.memory = found.memory;
            report.compute_capability = found.compute_capability;
            report.driver = found.driver;
            report.n_devices = found.n_devices;
        }
        Err(reason) => report.reason = Some(reason),
    }
    report
}
