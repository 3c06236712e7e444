//! The program `push` on a run folder as `train` leaves it.

use std::path::Path;
use std::process::{Command, Output};

const CONFIG: &str = r##"
[model]
path = "Qwen/Qwen2.5-VL-3B-Instruct"
[data]
train_files = ["PAPOGalaxy/PAPO_ViRL39K_train@train", "more <b>*.jsonl"]
val_files = []
[algorithm]
name = "vgpo"
kl_coef = 0.01
[trainer]
seed = 3
"##;

/// A run with one checkpoint of step 4 and metrics of five steps.
fn run(root: &Path) {
    let hf = root.join("checkpoints/global_step_4/hf");
    std::fs::create_dir_all(&hf).unwrap();
    std::fs::write(hf.with_file_name("trainer.json"), "{}").unwrap();
    std::fs::write(hf.join("config.json"), "{}").unwrap();
    std::fs::write(root.join("config.toml"), CONFIG).unwrap();
    let lines = [
        r#"{"step": 1, "reward": 0.1, "val_before/accuracy": 0.25}"#,
        r#"{"step": 4, "reward": 0.5, "val/accuracy": 0.75}"#,
        r#"{"step": 5, "reward": 0.9, "val/accuracy": 0.99}"#,
    ];
    std::fs::write(root.join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
    let record = r#"{"version": "0.1.0", "algorithm": "vgpo", "backend": "flex", "dtype": "f32", "ranks": 2}"#;
    std::fs::write(root.join("run.json"), record).unwrap();
}

fn push(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_push"));
    command.arg(root).args(arguments).env("HF_HOME", root.join("home")).env("HF_ENDPOINT", "http://127.0.0.1:1");
    command.env_remove("HF_TOKEN").env_remove("HF_TOKEN_PATH").env_remove("HF_HUB_OFFLINE").output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_card_says_what_the_run_says() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let output = push(root.path(), &["me/mine", "--card-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let path = root.path().join("checkpoints/global_step_4/hf/README.md");
    let card = std::fs::read_to_string(&path).unwrap();
    for needle in [
        "---\nbase_model: \"Qwen/Qwen2.5-VL-3B-Instruct\"\nbase_model_relation: \"finetune\"\n",
        "datasets: [\"PAPOGalaxy/PAPO_ViRL39K_train\"]\n",
        "tags: [\"visual-rl\",\"reinforcement-learning\",\"vgpo\"]\n---\n",
        "after step 4",
        "| val/accuracy | 0.2500 | 0.7500 |",
        "last training step: 0.5000",
        "more \\<b\\>\\*.jsonl",
        "| algorithm.kl\\_coef | 0.01 |",
        "f32 on flex (2 ranks)",
        "from_pretrained(\"me/mine\")",
    ] {
        assert!(card.contains(needle), "{needle}\n{card}");
    }
    // Whoever has written a card of their own keeps it.
    std::fs::write(&path, "mine").unwrap();
    push(root.path(), &["me/mine", "--card-only"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    push(root.path(), &["me/mine", "--card-only", "--overwrite-card"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), card);
}

#[test]
fn what_cannot_be_pushed_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let output = push(root.path(), &["me/mine"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output.stderr).contains("has no checkpoint"), "{}", said(&output.stderr));
    run(root.path());
    let output = push(root.path(), &["mine"]);
    assert!(output.status.code() == Some(2) && said(&output.stderr).contains("owner/name"));
    let output = push(root.path(), &["me/mine"]);
    assert!(output.status.code() == Some(1) && said(&output.stderr).contains("HF_TOKEN"), "{}", said(&output.stderr));
}

/// Names of metrics and algorithms are whatever a run folder says: they stay within their cells and values. Regression:
/// readers of YAML refuse DEL and others that JSON has as they are.
#[test]
fn hostile_texts_stay_within_their_cells_and_values() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let name = "vg\u{7f}\u{85}\u{2028}\u{feff}\u{1f600}\n---\nlicense: mit \"#";
    let record = serde_json::json!({"algorithm": name, "backend": "| <b>\n---\u{1b}[31m\u{202e}"});
    std::fs::write(root.path().join("run.json"), record.to_string()).unwrap();
    let metric = "val/accuracy/| x | <script>\n---\nlicense: mit\u{7f}";
    let line = serde_json::json!({"step": 4, metric: 0.5});
    std::fs::write(root.path().join("metrics.jsonl"), format!("{line}\n")).unwrap();
    let output = push(root.path(), &["me/mine", "--card-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let card = std::fs::read_to_string(root.path().join("checkpoints/global_step_4/hf/README.md")).unwrap();
    let (front, text) = card.strip_prefix("---\n").unwrap().split_once("---\n\n").unwrap();
    let tags = front.lines().find_map(|line| line.strip_prefix("tags: ")).unwrap();
    assert!(front.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{front:?}");
    assert_eq!(serde_json::from_str::<Vec<String>>(tags).unwrap()[2], name);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("---") && !line.starts_with("license")), "{text}");
    assert!(
        text.contains("| val/accuracy/\\| x \\| \\<script\\>") && text.contains("by visual-rl: the checkpoint"),
        "{text}"
    );
}
