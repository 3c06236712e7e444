//! `visual-rl` on several ranks: its programs start together, speak once, and write one run.
#![cfg(all(unix, feature = "mpi"))]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const CONFIG: &str = r#"
[data]
train_files = ["toy:read?rows=1&cols=1&size=8"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 4
rollout_batch_size = 4
min_pixels = 0
max_pixels = 0
[rollout]
n = 2
[trainer]
output_dir = "run"
max_steps = 1
"#;

/// `visual-rl` on two ranks; none where there is no `mpirun`.
fn on_two_ranks(folder: &Path, words: &[&str]) -> Option<Output> {
    if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "mpirun is not installed");
        println!("not run: mpirun is not installed");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.envs([("OMPI_MCA_rmaps_base_oversubscribe", "1"), ("OMPI_MCA_hwloc_base_binding_policy", "none")]);
    // mpirun is a terminal to its ranks.
    command.env("RAYON_NUM_THREADS", "1").env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1").stdin(Stdio::null());
    command.current_dir(folder).args(["-np", "2", env!("CARGO_BIN_EXE_visual-rl")]).args(words);
    Some(command.output().unwrap())
}

#[test]
fn ranks_are_one_run_and_speak_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
    let train = ["train", "--config", "config.toml", "--backend", "flex"];
    let Some(output) = on_two_ranks(folder.path(), &train) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record = std::fs::read_to_string(folder.path().join("run/run.json")).unwrap();
    for part in ["\"finished\"", "\"ranks\": 2", "\"train\""] {
        assert!(record.contains(part), "{part}: {record}");
    }
    let Some(output) = on_two_ranks(folder.path(), &["train", "--help"]) else { return };
    let help = String::from_utf8_lossy(&output.stdout);
    assert_eq!(help.matches("Usage: visual-rl train").count(), 1, "{help}");
    let Some(output) = on_two_ranks(folder.path(), &["train", "rollout.n=0"]) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.matches("error: ").count()), (Some(2), 1), "{errors}");
}
