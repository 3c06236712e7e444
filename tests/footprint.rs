//! Where files go: a run writes into its folder, and nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = r#"
[data]
train_files = ["toy:read?rows=1&cols=1&size=4"]
val_files = ["toy:read?rows=1&cols=1&size=4&split=test"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 4
rollout_batch_size = 2
min_pixels = 0
max_pixels = 0
[rollout]
n = 2
[reward]
write_images = true
[trainer]
max_steps = 1
"#;

/// What lies under a folder.
fn under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(under(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_run_writes_into_its_folder_alone() {
    let place = tempfile::tempdir().unwrap();
    let of = |name: &str| place.path().join(name);
    for folder in ["here", "home", "temporary", "mine"] {
        std::fs::create_dir(of(folder)).unwrap();
    }
    std::fs::write(of("mine/config.toml"), CONFIG).unwrap();
    // A reward of the user's that is of two files: Python keeps what it has compiled of the second one beside it.
    std::fs::write(of("mine/parts.py"), "def one():\n    return 1.0\n").unwrap();
    let reward = "import parts\n\ndef score(reward_inputs, **others):\n    return [{'overall': parts.one()} for _ in reward_inputs]\n";
    std::fs::write(of("mine/mine.py"), reward).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.current_dir(of("here")).args(["--backend", "flex", "--config"]).arg(of("mine/config.toml"));
    command.arg(format!("trainer.output_dir={}", of("run").display()));
    command.arg(format!("reward.function={}:score", of("mine/mine.py").display()));
    // Nothing of what this machine sets leads somewhere else.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", of("home")).env("TMPDIR", of("temporary"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(of("run/checkpoints/global_step_1/hf/model.safetensors").is_file());
    for folder in ["here", "home", "temporary"] {
        assert_eq!(under(&of(folder)), Vec::<PathBuf>::new(), "{folder}");
    }
    let mut mine = under(&of("mine"));
    mine.sort();
    assert_eq!(mine, ["config.toml", "mine.py", "parts.py"].map(|name| of("mine").join(name)));
}
