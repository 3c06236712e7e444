//! The `bench` program on the smallest model: the keys that comparisons read, the table of a sweep, and bad usage.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{stderr, succeeded};

/// Two prompts of two responses of three tokens, one step.
const SIZES: [&str; 10] =
    ["--rollouts", "2", "--image", "56", "--text-tokens", "4", "--response-tokens", "3", "--steps", "1"];

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(args).args(["--backend", "flex"]).stdin(Stdio::null()).output().unwrap()
}

/// The one step's JSON object.
fn step(args: &[&str]) -> Value {
    let output = bench(&[&["step", "--preset", "toy", "--json"], &SIZES[..], args].concat());
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_step_has_the_keys_of_the_peer_and_ours() {
    for options in [
        &[][..],
        &["--algorithm", "vgpo", "--moments-dtype", "bf16", "--grads-dtype", "bf16", "--master-weights", "false"],
        &["--old-log-probs", "rollout", "--recompute", "always", "--micro-batch", "1"],
        &["--weights", "fill", "--peak-tflops", "0.5"],
    ] {
        let row = step(options);
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert_eq!(number("matmul_flops_per_s") == 5e11, options.contains(&"--peak-tflops"), "{row}");
        for key in ["generate_s", "update_s", "total_s", "decode_tokens_per_s", "update_tokens_per_s", "rollouts_per_s"]
        {
            assert!(number(key) > 0.0, "{key}: {row}");
        }
        for key in ["vision_s", "prefill_s", "focus_s", "optimizer_s", "share_of_peak", "update_share_of_peak"] {
            assert!(number(key) >= 0.0, "{key}: {row}");
        }
        for key in ["model_flops", "matmul_flops_per_s", "decode_bytes", "decode_bytes_per_s"] {
            assert!(number(key) > 0.0, "{key}: {row}");
        }
        assert_eq!((number("rollouts"), number("response_tokens")), (4.0, 3.0));
        let parts = number("generate_s") + number("old_logprobs_s") + number("update_s");
        // Seconds are printed with four digits, and the parts leave out what VGPO adds.
        assert!(parts <= number("total_s") + 3e-4, "{row}");
        assert_eq!(number("old_logprobs_s") < 1e-3, options.contains(&"rollout"), "{row}");
    }
}

/// A picture is prompt enough.
#[test]
fn a_prompt_may_have_no_words() {
    let sizes = ["--rollouts", "2", "--image", "56", "--text-tokens", "0", "--response-tokens", "3", "--steps", "1"];
    let output = bench(&[&["step", "--preset", "toy", "--json"], &sizes[..]].concat());
    succeeded(&output);
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(row["prompt_tokens"], 2 + 56 / 28 * (56 / 28), "{row}");
}

#[test]
fn a_sweep_is_a_table_and_two_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("of-this");
    let sweep = ["sweep", "--preset", "toy", "response", "--values", "1,2", "--plot", plot.to_str().unwrap()];
    let output = bench(&[&sweep, &SIZES[..]].concat());
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let starts: Vec<&str> = text.lines().map(|line| line.split('|').nth(1).unwrap().trim()).collect();
    assert_eq!(starts, ["response", "---", "1", "2"], "{text}");
    let columns: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
    assert!(columns.iter().all(|c| *c == columns[0]), "{text}");
    for name in ["of-this-seconds.svg", "of-this-memory.svg"] {
        assert!(std::fs::read_to_string(dir.path().join(name)).unwrap().starts_with("<svg"), "{name}");
    }
}

#[test]
fn bad_usage_is_one_message() {
    for (args, words) in [
        (&["step", "--preset", "huge"][..], "toy, small, 3b, 7b, 32b"),
        (&["step", "--model", "no/such/folder"], "no/such/folder"),
        (&["step", "--preset", "toy", "--steps", "0"], "--steps is 0"),
        (&["step", "--preset", "toy", "--image", "10"], "28"),
        (&["step", "--preset", "toy", "--algorithm", "vgpo", "--rollouts", "1"], "--rollouts 2"),
        (&["step", "--preset", "toy", "--prompts", "1000000000000"], "--prompts"),
        (&["step", "--preset", "toy", "--response-tokens", "18446744073709551615"], "--response-tokens"),
        (&["step", "--preset", "toy", "--image", "99999999999"], "--image"),
        (&["step", "--preset", "toy", "--image", "0", "--text-tokens", "0"], "--text-tokens 1"),
        (&["step"], "--model"),
        (&["sweep", "--preset", "toy", "response", "--values", "0"], "1 or more"),
        (&["sweep", "--preset", "toy", "model", "--values", "toy", "--plot", "x"], "--plot"),
    ] {
        let output = bench(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains("panicked"), "{args:?}: {said}");
    }
}
