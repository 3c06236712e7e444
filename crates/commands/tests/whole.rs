//! The real `visual-rl`: its programs behave as they do alone.

use std::path::Path;
use std::process::{Command, Output};

const PROGRAMS: [&str; 13] = [
    "train", "generate", "eval", "data", "analyze", "study", "doctor", "estimate", "bench", "grade", "push", "view",
    "serve",
];

fn visual_rl(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_visual-rl"));
    command.current_dir(folder).args(words).env("HF_HUB_OFFLINE", "1").env("RAYON_NUM_THREADS", "1");
    command.output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(words: &[&str]) -> (i32, String, String) {
    let output = visual_rl(Path::new("."), words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_programs_are_listed_with_a_line_each() {
    let (code, help, errors) = said(&["--help"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(help.starts_with("Reinforcement learning"), "{help}");
    let mut places = PROGRAMS.iter().map(|name| help.find(&format!("\n  {name} ")).unwrap_or_else(|| panic!("{help}")));
    assert!(places.by_ref().is_sorted(), "{help}");
    for name in ["completions", "man", "schema"] {
        assert!(help.contains(&format!("\n  {name} ")), "{help}");
    }
    assert!(help.lines().all(|line| line.len() <= 120), "{help}");
}

#[test]
fn a_program_says_how_it_was_started() {
    for name in PROGRAMS {
        let (code, help, errors) = said(&[name, "--help"]);
        assert_eq!((code, errors.as_str()), (0, ""), "{name}");
        assert!(help.contains(&format!("\nUsage: visual-rl {name}")), "{help}");
        // No example is left that would start another program than this one.
        assert!(!help.lines().any(|line| line.starts_with(&format!("  {name} "))), "{help}");
        let (code, of_help, _) = said(&["help", name]);
        assert_eq!((code, of_help.contains(&format!("\nUsage: visual-rl {name}"))), (0, true), "{of_help}");
        assert_eq!(said(&[name, "--version"]).1, format!("visual-rl {name} {}\n", env!("CARGO_PKG_VERSION")));
        let (code, out, errors) = said(&[name, "--no-such-option"]);
        assert_eq!((code, out.as_str()), (2, ""), "{name}");
        assert!(errors.starts_with("error: ") && errors.contains("--no-such-option"), "{errors}");
        assert!(errors.contains(&format!("\nUsage: visual-rl {name}")), "{errors}");
    }
    assert!(said(&["train", "--help"]).1.contains("\n  visual-rl train stages.4.steps=50 "));
    assert!(said(&["data", "check"]).2.contains("\nUsage: visual-rl data check"));
}

#[test]
fn what_is_no_program_is_refused_with_the_nearest() {
    let (code, out, errors) = said(&["trian"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(errors.starts_with("error: ") && errors.contains("'train'"), "{errors}");
    let (code, _, errors) = said(&[]);
    assert!(code == 2 && errors.contains("\n  train "), "{errors}");
}

#[test]
fn exit_codes_are_those_of_the_programs() {
    for (words, code, error) in [
        (&["train", "rollout.n=0"][..], 2, "rollout.n"),
        (&["train", "--dry-run"], 0, ""),
        (&["data", "check", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (&["view", "nowhere"], 2, "nowhere"),
        (&["push", "nowhere", "a/b"], 2, "nowhere"),
        (&["serve", "--model", "nowhere"], 2, "nowhere"),
        (&["eval", "--model", "nowhere"], 2, "--out"),
        (&["doctor", "--short", "--backend", "flex"], 0, ""),
    ] {
        let (found, _, errors) = said(words);
        assert_eq!(found, code, "{words:?}: {errors}");
        assert!(errors.contains(error) && (code == 0 || errors.starts_with("error: ")), "{words:?}: {errors}");
    }
}

const BASE: &str = r#"
[data]
train_files = ["toy:read?rows=1&cols=1&split=train"]
val_files = ["toy:read?rows=1&cols=1&split=test"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 4
rollout_batch_size = 2
val_max_samples = 2
min_pixels = 0
max_pixels = 0
[rollout]
n = 2
[trainer]
log_rollouts = false
[[stages]]
stage = "sft"
name = "warm"
steps = 1
batch_size = 2
[[stages]]
stage = "rl"
steps = 1
"#;

const ROWS: &str = "reference = \"grpo\"\nseeds = 1\n[[rows]]\nname = \"grpo\"\nlabel = \"GRPO\"\n[[tables]]\nname = \"main\"\n\
                    title = \"One\"\nrows = [\"grpo\"]\n";

/// A study trains by starting its own program anew.
#[test]
fn a_program_that_starts_itself_starts_the_same_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.toml"), BASE).unwrap();
    std::fs::write(folder.path().join("rows.toml"), ROWS).unwrap();
    let words = "study --config base.toml --rows rows.toml --backend flex --jobs 1 --out out";
    let output = visual_rl(folder.path(), &words.split(' ').collect::<Vec<_>>());
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = || std::fs::read_to_string(folder.path().join("out/logs/warm_seed_1.log")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{errors}{}", log());
    let report = std::fs::read_to_string(folder.path().join("out/study.md")).unwrap();
    assert!(report.contains("visual-rl study --config base.toml"), "{report}");
}

#[test]
fn man_pages_are_written_for_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let output = visual_rl(folder.path(), &["man", "deep/man"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in PROGRAMS.map(|name| format!("-{name}")).iter().map(String::as_str).chain(["", "-data-check", "-schema"])
    {
        let page = std::fs::read_to_string(folder.path().join(format!("deep/man/visual-rl{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{page}");
    }
    let train = std::fs::read_to_string(folder.path().join("deep/man/visual-rl-train.1")).unwrap();
    assert!(train.contains("visual\\-rl train") && train.contains("Exit codes: "), "{train}");
}

#[test]
fn the_schema_is_the_one_beside_the_documentation() {
    let there = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.schema.json")).unwrap();
    assert_eq!(said(&["schema"]), (0, there, String::new()));
}

/// As a shell asks: the script is run, and its answers are read.
#[test]
fn bash_completes_programs_options_words_and_keys() {
    let (code, script, _) = said(&["completions", "bash"]);
    assert_eq!(code, 0);
    let ask = |line: &str| {
        let asked = format!(
            "{script}\nCOMP_WORDS=({line}x); COMP_WORDS[-1]=${{COMP_WORDS[-1]%x}}; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _visual__rl visual-rl \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo ${{COMPREPLY[*]}}"
        );
        let output = Command::new("bash").args(["--norc", "-c", &asked]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    for (line, words) in [
        ("visual-rl tra", "train"),
        ("visual-rl data ch", "check"),
        ("visual-rl train --ba", "--backend"),
        ("visual-rl train --backend f", "flex"),
        ("visual-rl generate --alpha d", "drop"),
        ("visual-rl data check --grader m", "mathruler math"),
        ("visual-rl train algorithm.vgpo.be", "algorithm.vgpo.beta= algorithm.vgpo.beta=0.3"),
        ("visual-rl train --dry-run trainer.dtype=b", "trainer.dtype=bf16"),
        ("visual-rl completions f", "fish"),
    ] {
        let Some(found) = ask(line) else {
            println!("not asked: bash is not installed");
            return;
        };
        assert_eq!(found, words, "{line}");
    }
}
