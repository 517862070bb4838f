use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::{cellpatch, run};

/// A pretraining that checkpoints at every second step, so that kills fall between, before and inside them.
const OFTEN: [&str; 16] = [
    "pretrain",
    "--quiet",
    "--json",
    "--device",
    "cpu",
    "--max-cells",
    "320",
    "--epochs",
    "8",
    "--batch-size",
    "16",
    "--max-input",
    "120",
    "--max-targets",
    "60",
    "--checkpoint-steps=2",
];

/// The last checkpoint's weights and the best epoch's.
fn results(run: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut checkpoints: Vec<PathBuf> =
        fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    let last = checkpoints.last().unwrap();
    (fs::read(last.join("model.mpk")).unwrap(), fs::read(run.join("model.safetensors")).unwrap())
}

/// Losses of `metrics.jsonl`, without the seconds.
fn losses(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("seconds");
        record
    };
    text.lines().map(record).collect()
}

#[test]
fn a_run_killed_twenty_times_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let whole = run(folder.path(), OFTEN.into_iter().chain(["--run-dir", "whole"]));
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));

    // The same shards for both, so that kills fall into training.
    let shards = ["--data", "whole/shards"];
    let start = |arguments: Vec<&str>| {
        cellpatch(folder.path(), arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let began = Instant::now();
    let straight = run(folder.path(), OFTEN.into_iter().chain(shards).chain(["--run-dir", "straight"]));
    assert!(straight.status.success());
    let duration = began.elapsed();

    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut kills = 0;
    while kills < 20 {
        let mut arguments: Vec<&str> =
            OFTEN.into_iter().chain(shards).chain(["--run-dir", "killed"]).collect();
        if folder.path().join("killed/config.toml").is_file() {
            arguments.push("--resume");
        }
        let mut child = start(arguments);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let wait = duration.mul_f64(0.01 + 0.07 * (random % 1000) as f64 / 1000.0);
        std::thread::sleep(wait.max(Duration::from_millis(20)));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if ended {
            break;
        }
    }
    let resumed = OFTEN.into_iter().chain(shards).chain(["--run-dir", "killed", "--resume"]);
    let last = run(folder.path(), resumed);
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    println!("killed {kills} times, {duration:?} for the straight run");
    let path = |name: &str| folder.path().join(name);
    assert!(results(&path("straight")) == results(&path("killed")), "weights differ after {kills} kills");
    assert_eq!(losses(&path("straight")), losses(&path("killed")));
    assert!(kills >= 10, "the run ended after {kills} kills: too few to mean something");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_a_checkpoint_and_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = OFTEN.into_iter().chain(["--run-dir", "run", "--epochs=50"]);
    let mut child =
        cellpatch(folder.path(), arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let checkpoints = folder.path().join("run/checkpoints");
    let patience = Instant::now();
    while !checkpoints.exists() && patience.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let interrupt =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let steps = |run: &Path| losses(run).len();
    let before = steps(&folder.path().join("run"));
    assert!(before > 0, "the steps taken are on record");

    let resumed =
        cellpatch(folder.path(), ["pretrain", "--resume", "--run-dir", "run", "--epochs", "50", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    let mut resumed = resumed.unwrap();
    let patience = Instant::now();
    while steps(&folder.path().join("run")) <= before && patience.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    resumed.kill().unwrap();
    resumed.wait().unwrap();
    assert!(steps(&folder.path().join("run")) > before, "the run goes on");
}

#[test]
fn other_settings_or_data_cannot_go_on_with_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), OFTEN.into_iter().chain(["--run-dir", "run", "--epochs=1"]));
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let other = run(folder.path(), ["pretrain", "--resume", "--run-dir", "run", "--learning-rate", "0.5"]);
    assert_eq!(other.status.code(), Some(3));
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(message.contains("configuration") && message.contains("help"), "{message}");

    let more = run(
        folder.path(),
        ["pretrain", "--resume", "--run-dir", "run", "--epochs", "2", "--json", "--quiet"],
    );
    assert!(more.status.success(), "{}", String::from_utf8_lossy(&more.stderr));
    assert_eq!(crate::json(&more)["epochs"], 2);

    let again = run(folder.path(), OFTEN.into_iter().chain(["--run-dir", "run"]));
    assert_eq!(again.status.code(), Some(2), "a run is never overwritten");
}
