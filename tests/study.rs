//! A tiny study by the real binary: it is interrupted, goes on, skips what is finished, and refuses what does not
//! belong together.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BASE: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=1&split=train"]
val_files = ["toy:read?rows=1&cols=1&split=test"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 8
rollout_batch_size = 4
val_max_samples = 8
min_pixels = 0
max_pixels = 0
[rollout]
n = 3
[actor]
global_batch_size = 4
old_log_probs = "rollout"
[actor.optim]
lr = 1e-3
[reward]
reward_type = "dapo"
[trainer]
max_try_make_batch = 1
val_freq = 2
save_freq = 1
log_rollouts = false
[[stages]]
stage = "sft"
name = "warm"
steps = 3
batch_size = 4
[[stages]]
stage = "rl"
name = "rl"
steps = 4
"#;

const ROWS: &str = r#"
reference = "dapo"
seeds = 2
[[rows]]
name = "dapo"
label = "DAPO"
[[rows]]
name = "vgpo"
label = "VGPO"
set = ["algorithm.shaping=vgpo"]
[[tables]]
name = "main"
title = "Algorithms"
rows = ["dapo", "vgpo"]
"#;

fn command(dir: &Path, more: &[&str]) -> Command {
    std::fs::write(dir.join("base.toml"), BASE).unwrap();
    if !dir.join("rows.toml").exists() {
        std::fs::write(dir.join("rows.toml"), ROWS).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_study"));
    command.current_dir(dir).args(["--config", "base.toml", "--rows", "rows.toml", "--backend", "flex"]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(dir: &Path, more: &[&str]) -> Output {
    command(dir, more).output().unwrap()
}

fn result(dir: &Path, row: &str, seed: u64) -> serde_json::Value {
    let path = dir.join(format!("out/results/{row}/seed_{seed}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_study_is_interrupted_goes_on_and_skips_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Interrupted as soon as the first warm start is there.
    let child = command(dir, &["--out", "out", "--jobs", "1"]).spawn().unwrap();
    let clock = Instant::now();
    while !dir.join("out/results/warm/seed_1.json").exists() && clock.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    let report = std::fs::read_to_string(dir.join("out/study.md")).unwrap();
    assert!(report.contains("**Incomplete**"), "{report}");

    let output = run(dir, &["--out", "out", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("were finished before"), "{}", text(&output));
    for seed in [1, 2] {
        let (dapo, vgpo) = (result(dir, "dapo", seed), result(dir, "vgpo", seed));
        // Paired: the same start, the same budget.
        assert_eq!(dapo["curve"][0], vgpo["curve"][0]);
        assert_eq!((&dapo["rollouts"], &vgpo["rollouts"]), (&48.into(), &48.into()));
        let steps: Vec<u64> = dapo["curve"].as_array().unwrap().iter().map(|p| p["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 2, 4]);
        assert_eq!(dapo["reward"].as_array().unwrap().len(), 4);
        let weights = dir.join("out").join(dapo["weights"].as_str().unwrap());
        assert!(
            weights.join("model.safetensors").exists() && !weights.with_file_name("optimizer.safetensors").exists()
        );
    }
    assert_ne!(result(dir, "warm", 1)["fingerprint"], result(dir, "warm", 2)["fingerprint"]);
    let report = std::fs::read_to_string(dir.join("docs/study.md")).unwrap();
    assert!(!report.contains("**Incomplete**") && report.contains("| VGPO | 2 |"), "{report}");
    assert!(report.contains("sampled responses of a run: 48, the same in every row"), "{report}");
    for line in report.lines().filter(|l| l.starts_with("![")) {
        let file = line.split(['(', ')']).nth(1).unwrap();
        assert!(dir.join("docs").join(file).exists(), "{file}");
    }

    // Everything is there: nothing is run, and the results stay as they are.
    let before = std::fs::read(dir.join("out/results/vgpo/seed_2.json")).unwrap();
    let output = run(dir, &["--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("0 runs finished, 6 were finished before"), "{}", text(&output));
    assert_eq!(std::fs::read(dir.join("out/results/vgpo/seed_2.json")).unwrap(), before);

    // Other settings do not mix with these results.
    let output = run(dir, &["--out", "out", "rollout.n=4"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("made with other settings") && text(&output).contains("--out"), "{}", text(&output));

    // A damaged result is named.
    std::fs::write(dir.join("out/results/vgpo/seed_2.json"), "{").unwrap();
    let output = run(dir, &["--out", "out"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("seed_2.json") && text(&output).contains("delete it"), "{}", text(&output));
}

#[test]
fn a_published_study_goes_on_in_another_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let output = run(dir, &["--out", "out", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let published = |row: &str| dir.join(format!("docs/study/results/{row}/seed_2.json"));
    let read = |path: &Path| -> serde_json::Value {
        let mut value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        value["seconds"] = 0.into();
        value
    };
    let before = read(&published("vgpo"));

    // A row is missing: its warm start is trained again, for its weights, and the row comes out as it did.
    std::fs::remove_file(published("vgpo")).unwrap();
    let output = run(dir, &["--out", "other", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("5 runs taken over from docs/study"), "{}", text(&output));
    assert!(text(&output).contains("2 runs finished, 4 were finished before"), "{}", text(&output));
    assert_eq!(read(&published("vgpo")), before);

    // A warm start that comes out otherwise is none that the row of before began with.
    std::fs::remove_file(published("vgpo")).unwrap();
    let warm = std::fs::read_to_string(published("warm")).unwrap();
    let steps = format!("\"steps\": {}", read(&published("warm"))["steps"]);
    std::fs::write(published("warm"), warm.replace(&steps, "\"steps\": 99")).unwrap();
    let output = run(dir, &["--out", "third", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("warm, seed 2: failed: ") && text(&output).contains("otherwise"),
        "{}",
        text(&output)
    );
}

const SETTINGS: &str = r#"{ name = "short" }, { name = "long", set = ["stages.0.steps=4"] }"#;

/// A study of a gate that all pass, or none does, of models that have learned nothing.
fn gated_study(dir: &Path, error_ratio: f64, settings: &str, args: &[&str]) -> Output {
    let spec = "toy:multistep?rows=2&cols=2&terms=2&fresh=0&distractors=0&split=";
    let base = BASE
        .replace("toy:read?rows=1&cols=1&split=", spec)
        .replace("max_prompt_length = 64", "max_prompt_length = 96")
        .replace("max_response_length = 8", "max_response_length = 24")
        .replace("steps = 4", "steps = 1");
    let more = format!(
        r#"
[outcomes]
data = "{spec}test&seed=3"
exchanged = "{spec}test&seed=3&exchange=1"
items = 6
worked = 9
max_new_tokens = 24
[comparisons]
row = "vgpo"
against = ["dapo"]
margin = 0.02
[gate]
seeds = 1
error_ratio = {error_ratio:.1}
attention_ratio = 100.0
accuracy = [0.0, 1.0]
settings = [{settings}]
"#
    );
    let at = ROWS.find("[[rows]]").unwrap();
    std::fs::write(dir.join("rows.toml"), format!("{}{more}{}", &ROWS[..at], &ROWS[at..])).unwrap();
    let mut command = command(dir, args);
    std::fs::write(dir.join("base.toml"), base).unwrap();
    command.output().unwrap()
}

/// Stages that all warm starts share are trained once, the seeds go on from there, and where their weights are gone
/// they are trained again.
#[test]
fn shared_stages_are_trained_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let stage = |name: &str, steps: usize| format!("{{stage='sft',name='{name}',steps={steps},batch_size=4}}");
    let all = format!("stages=[{},{},{{stage='rl',steps=1}}]", stage("all", 2), stage("each", 3));
    let settings = format!("{{ name = \"split\", shared = 1, set = [\"{all}\"] }}");
    let output = gated_study(dir, 0.0, &settings, &["--out", "out", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let read = |path: &str| std::fs::read_to_string(dir.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (shared, split) = ("gate/split/shared", "out/gate/split");
    assert!(read(&format!("out/{shared}/results/warm/seed_1001.json")).contains("\"steps\": 2"));
    assert!(!dir.join(format!("out/{shared}/runs/warm/seed_1002")).exists());
    for folder in [format!("{split}/runs/warm/seed_1001"), "out/runs/warm/seed_1002".into()] {
        let config = read(&format!("{folder}/study.toml"));
        assert!(config.contains(&format!("{shared}/runs/warm/seed_1001/checkpoints/global_step_2/hf")), "{config}");
        assert!(config.contains("\"each\"") && !config.contains("\"all\""), "{config}");
    }
    assert!(read("out/results/warm/seed_1002.json").contains("\"steps\": 3"));

    let row = "docs/study/results/vgpo/seed_1002.json";
    let outcomes = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap()["outcomes"].clone();
    let before = outcomes(read(row));
    std::fs::remove_file(dir.join(row)).unwrap();
    let output = gated_study(dir, 0.0, &settings, &["--out", "other", "--jobs", "2", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("the stages that all warm starts share"), "{}", text(&output));
    assert!(text(&output).contains("2 runs finished, 4 were finished before"), "{}", text(&output));
    assert_eq!(outcomes(read(row)), before);

    // All stages shared leave no warm start.
    let output = gated_study(dir, 0.0, &settings.replace("shared = 1", "shared = 2"), &["--out", "third"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("shares 2 of 2 supervised stages"), "{}", text(&output));
}

#[test]
fn a_gate_is_decided_before_any_row_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let verdict = |dir: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("out/gate.json")).unwrap()).unwrap()
    };
    // An error of a billion times the early one: both settings are measured, no row runs, and that is a result.
    let output = gated_study(dir, 1e9, SETTINGS, &["--out", "out", "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("no setting passes"), "{}", text(&output));
    assert_eq!((verdict(dir)["chosen"].as_str(), verdict(dir)["measured"].as_array().unwrap().len()), (None, 2));
    assert!(!dir.join("out/results").exists());
    let report = std::fs::read_to_string(dir.join("out/study.md")).unwrap();
    assert!(report.contains("so no row runs") && report.contains("| long | 1 |"), "{report}");
    // Without rows there is nothing to compare, and no plot to point at.
    assert!(!report.contains("## DAPO") && !report.contains("![") && report.contains("No row has run"), "{report}");

    // The same warm starts under a gate that lets the first one through: they are not run again, the rows run on it.
    let before = std::fs::metadata(dir.join("out/gate/short/results/warm/seed_1001.json")).unwrap().modified().unwrap();
    let output = gated_study(dir, 0.0, SETTINGS, &["--out", "out", "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let after = std::fs::metadata(dir.join("out/gate/short/results/warm/seed_1001.json")).unwrap().modified().unwrap();
    assert_eq!((verdict(dir)["chosen"].as_str(), before), (Some("short"), after));
    let (warm, vgpo) = (result(dir, "warm", 1002), result(dir, "vgpo", 1002));
    // The gate's own is the study's first, and is not trained again.
    let first = result(dir, "warm", 1001);
    let weights = first["weights"].as_str().unwrap();
    assert!(
        weights.starts_with("gate/short/runs/warm/seed_1001/") && dir.join("out").join(weights).is_dir(),
        "{weights}"
    );
    assert!(!dir.join("out/runs/warm/seed_1001").exists() && dir.join("out/results/vgpo/seed_1001.json").exists());
    let forgetting = &vgpo["outcomes"]["forgetting"];
    let parts = |key: &str| forgetting[key]["parts"].as_u64().unwrap();
    assert_eq!((&vgpo["outcomes"]["items"], &forgetting["rows"], &warm["steps"]), (&6.into(), &9.into(), &3.into()));
    assert!(parts("early") > 0 && parts("late") > 0 && parts("exchanged_fresh") > 0, "{forgetting}");
    let report = std::fs::read_to_string(dir.join("out/study.md")).unwrap();
    assert!(report.contains("The study runs on `short`"), "{report}");
    assert!(
        report.contains("| DAPO | 2 | +0.0 ± 0.0 | 1.000 | 1.000 | 0.000 | 0.0 points | the same, within 2 points |")
    );
    assert!(report.contains("## Where they look") && report.contains("| warm start |"), "{report}");
    assert!(report.contains("| DAPO | 0.0% | 100.0% | +0.0 ± 0.0 | the same, within 2 points |"), "{report}");
    let beside = "| VGPO minus | mean of curve | p | fresh error, early | p | fresh error, late | p | answered, late | p \
                  | attention late/early | p |";
    let mut beside = report.lines().skip_while(|line| *line != beside).skip(2);
    let values = beside.next().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(values.matches('|').count(), 12, "{values}");

    // The gate alone, of a study that has run: its page still has all that was found.
    let output = gated_study(dir, 0.0, SETTINGS, &["--out", "out", "--gate", "--publish", "docs"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(dir.join("docs/study.md")).unwrap(), report);
    for line in report.lines().filter(|l| l.starts_with("![")) {
        let file = line.split(['(', ')']).nth(1).unwrap();
        assert!(dir.join("out").join(file).exists(), "{file}");
    }
}

/// A row that has fewer seeds than the study runs on the first ones, and is compared on the seeds that both rows have.
#[test]
fn a_row_with_fewer_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("rows.toml"), ROWS.replace("label = \"VGPO\"", "label = \"VGPO\"\nseeds = 1")).unwrap();
    let output = run(dir, &["--out", "out", "--jobs", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("5 runs finished"), "{}", text(&output));
    assert!(!dir.join("out/results/vgpo/seed_2.json").exists());
    let report = std::fs::read_to_string(dir.join("out/study.md")).unwrap();
    assert!(
        !report.contains("**Incomplete**") && report.contains("2 seeds x 1 rows and 1 seeds x 1 rows."),
        "{report}"
    );
    assert!(report.contains("| DAPO | 2 |") && report.contains("| VGPO | 1 |"), "{report}");
    assert!(report.contains("Of 0 such intervals"), "one seed has no interval: {report}");
    // Curves are of the same seeds.
    let plot = std::fs::read_to_string(dir.join("out/study/main_accuracy.svg")).unwrap();
    assert!(plot.contains("mean of the 1 seeds that all have"), "{plot}");
    // A warm start that no missing row needs is not trained again where its weights are gone.
    std::fs::remove_dir_all(dir.join("out/runs/warm/seed_2")).unwrap();
    let output = run(dir, &["--out", "out"]);
    assert!(text(&output).contains("0 runs finished, 5 were finished before"), "{}", text(&output));
    // Asked for by hand, seeds are those of all rows; this warm start comes out as it did.
    let output = run(dir, &["--out", "out", "--seeds", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("2 runs finished, 4 were finished before"), "{}", text(&output));
}

#[test]
fn a_failing_row_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = r#"set = ['reward.command=["sh", "-c", "exit 3"]']"#;
    std::fs::write(dir.join("rows.toml"), ROWS.replace("set = [\"algorithm.shaping=vgpo\"]", set)).unwrap();
    let output = run(dir, &["--out", "out", "--seeds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("failed: vgpo, seed 1") && text(&output).contains("log.txt"), "{}", text(&output));
    assert!(dir.join("out/results/dapo/seed_1.json").exists());
}

#[test]
fn bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (args, expected) in [
        (vec!["--jobs", "0"], "0 is not in 1..=1024"),
        (vec!["--seeds", "0"], "0 is not in 1..=1000"),
        (vec!["--quick"], "no [quick] form"),
        (vec!["--rows-only", "vgpo"], "\"dapo\""),
        (vec!["--rows-only", "dapo,grpo"], "no row \"grpo\"; there are dapo, vgpo"),
        (vec!["algorithm.kappa=2"], "algorithm.vgpo.kappa"),
        (vec!["data.val_files=[]"], "data.val_files"),
        (vec!["rollout.m=2"], "rollout.m"),
    ] {
        let output = run(dir, &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(expected), "{args:?}: {}", text(&output));
        assert!(!dir.join("runs").exists(), "{args:?} began something");
    }
    let output = run(dir, &["--plan"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).starts_with("6 runs: 2 seeds x 2 rows"), "{}", text(&output));
    // The committed study.
    let output = Command::new(env!("CARGO_BIN_EXE_study")).args(["--plan", "--quick"]).output().unwrap();
    assert!(text(&output).contains("vgpo"), "{}", text(&output));
}
