use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{SMALL, cellpatch, json, run};

/// Waits for what takes seconds.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A run that two processes will not have finished soon, with a checkpoint at every second step.
fn start_long(folder: &Path) -> Child {
    let long = ["--epochs", "200", "--checkpoint-steps", "2", "--processes", "2"];
    let arguments = SMALL.into_iter().chain(long);
    let child = cellpatch(folder, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || n_checkpoints(folder).filter(|&n| n > 0));
    child
}

fn n_checkpoints(folder: &Path) -> Option<usize> {
    let entries = fs::read_dir(folder.join("run/checkpoints")).ok()?;
    Some(entries.flatten().filter(|entry| entry.path().join("manifest.json").is_file()).count())
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(sent.success(), "kill {name} {process}");
}

#[test]
fn processes_on_one_machine_train_one_model_and_the_same_bits_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for name in ["run", "again"] {
        let arguments = SMALL.into_iter().filter(|argument| !argument.starts_with("--run-dir"));
        let output = run(folder.path(), arguments.chain(["--processes", "3", "--run-dir", name]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = json(&output);
        assert_eq!((&summary["processes"], &summary["epochs"]), (&3.into(), &2.into()));
        assert!(summary["validation_loss"].as_f64().unwrap().is_finite());
        assert!(folder.path().join(name).join("report.html").is_file());
        models.push(fs::read(folder.path().join(name).join("model.safetensors")).unwrap());
    }
    assert!(models[0] == models[1]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_lost_process_ends_the_others_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = start_long(folder.path());
    let children = format!("/proc/{0}/task/{0}/children", launcher.id());
    let children = fs::read_to_string(children).unwrap();
    let is_second = |child: &&str| {
        let arguments = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        arguments.contains("--rank\x001\x00")
    };
    let second = children.split_whitespace().find(is_second).unwrap();
    signal("-KILL", second.parse().unwrap());
    let began = Instant::now();
    let output = launcher.wait_with_output().unwrap();
    println!("all had ended {:?} after rank 1 was killed", began.elapsed());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("rank 1 was lost") && text.contains("--resume"), "{text}");
    assert_eq!(json(&output)["error"]["category"], "environment");

    // The run takes what the other start said, and may be divided otherwise; it ends where it is told to.
    let epochs =
        fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap().matches("train_loss").count();
    let epochs = (epochs + 1).to_string();
    let go_on = ["pretrain", "--quiet", "--json", "--resume", "--run-dir", "run", "--epochs", &epochs];
    let output = run(folder.path(), go_on);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["epochs"].as_u64(), epochs.parse().ok());
}

#[cfg(unix)]
#[test]
fn a_launcher_that_is_asked_to_end_has_a_checkpoint_saved() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = start_long(folder.path());
    signal("-TERM", launcher.id());
    let output = launcher.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("saved") && text.contains("--processes 2"), "{text}");
}

#[test]
fn ranks_that_were_told_different_things_do_not_train() {
    let folder = tempfile::tempdir().unwrap();
    let small: Vec<&str> = SMALL.into_iter().filter(|argument| !argument.starts_with("--run-dir")).collect();
    let one = run(folder.path(), small.iter().copied().chain(["--epochs", "1", "--run-dir", "one"]));
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
    // As in any job on a cluster: rank 0 gives up on its own when the others do not come.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let rank = |rank: &str, more: &[&str]| {
        let place = ["--rank", rank, "--world-size", "2", "--rendezvous", &address, "--join-timeout", "20"];
        let run = format!("--run-dir=rank-{rank}");
        let data = ["--data", "one/shards", &run];
        let arguments = small.iter().copied().chain(place).chain(data).chain(more.iter().copied());
        cellpatch(folder.path(), arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (first, second) = (rank("0", &[]), rank("1", &["--learning-rate", "0.5"]));
    let second = second.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{text}");
    assert!(text.contains("the configuration of rank 0"), "{text}");
    let first = first.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(4), "{text}");
    assert!(text.contains("1 of 2 ranks did not join") && text.contains("refused"), "{text}");
    assert!(!folder.path().join("rank-1").exists(), "a rank other than 0 writes nothing");
}

#[test]
fn what_makes_no_sense_of_ranks_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let srun = ["pretrain", "--ranks-from", "slurm"];
    let place = ["pretrain", "--rank", "0", "--world-size", "2", "--rendezvous", "127.0.0.1:9"];
    let output = cellpatch(folder.path(), srun).env_remove("SLURM_JOB_ID").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SLURM_JOB_ID"));
    let output = run(folder.path(), place);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("shard") && text.contains("--processes"), "{text}");
    assert!(!folder.path().join("runs/pretrain-1/config.toml").exists(), "it could not begin");
}
