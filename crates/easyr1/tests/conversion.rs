//! Every published file and command converts, and what is wrong with one is said by its line.

use easyr1::{Conversion, EasyR1Error, YamlFile, convert};

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The published commands: script, file, overrides.
fn commands() -> Vec<(String, String, Vec<String>)> {
    let text = fixture("commands.txt");
    let blocks = text.split("\n\n").skip(1);
    blocks
        .map(|block| {
            let mut lines = block.lines().map(String::from);
            (lines.next().unwrap(), lines.next().unwrap(), lines.collect())
        })
        .collect()
}

fn converted(text: &str, overrides: &[&str]) -> Result<Conversion, EasyR1Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    convert(&[YamlFile { name: "x.yaml", text }], &overrides)
}

const LEAST: &str = "worker: {actor: {model: {model_path: DIR}}, reward: {reward_function: math.py:compute_score}}\n";

#[track_caller]
fn value(conversion: &Conversion, key: &str) -> String {
    let found: Vec<_> = conversion.settings.iter().filter(|setting| setting.key == key).collect();
    assert_eq!(found.len(), 1, "{key} is set {} times", found.len());
    found[0].value.to_string()
}

#[test]
fn every_published_command_converts() {
    let commands = commands();
    assert_eq!(commands.len(), 33);
    for (script, file, overrides) in commands {
        let result = convert(&[YamlFile { name: &file, text: &fixture(&file) }], &overrides);
        // The one whose reward is no rule of EasyR1's, in a file that is not here.
        if script.contains("android_gui") {
            let said = result.unwrap_err().to_string();
            assert!(said.contains("reward_function") && said.contains("there is no such file"), "{said}");
            continue;
        }
        // VPPO's script for 8B gives a variable that it does not define, which OmegaConf does not take either.
        let result = match overrides.iter().position(|text| text == "trainer.total_epochs=") {
            None => result,
            Some(empty) => {
                let said = result.unwrap_err().to_string();
                assert!(said.ends_with("`trainer.total_epochs`: expected a whole number, found null"), "{said}");
                let mut overrides = overrides.clone();
                overrides.remove(empty);
                convert(&[YamlFile { name: &file, text: &fixture(&file) }], &overrides)
            }
        };
        let conversion = result.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(conversion.own.is_empty(), "{script}: {:?}", conversion.own);
        let mut keys: Vec<&str> = conversion.settings.iter().map(|setting| setting.key).collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count, "{script} sets a key twice");
    }
}

#[test]
fn defaults_are_easyr1s() {
    let conversion = converted(LEAST, &[]).unwrap();
    for (key, expected) in [
        ("data.prompt_key", "\"prompt\""),
        ("data.max_prompt_length", "512"),
        ("actor.global_batch_size", "256"),
        ("rollout.n", "1"),
        ("algorithm.disable_kl", "false"),
        ("algorithm.kl_penalty", "\"kl\""),
        ("algorithm.kl_coef", "0.001"),
        ("algorithm.filter_key", "\"overall\""),
        ("trainer.total_epochs", "15"),
        ("trainer.output_dir", "\"checkpoints/easy_r1\""),
        ("trainer.experiment_name", "\"demo\""),
        ("trainer.val_freq", "0"),
        ("trainer.save_limit", "0"),
        ("rollout.val_temperature", "1.0"),
        ("rollout.val_n", "1"),
        ("data.alpha", "\"drop\""),
    ] {
        assert_eq!(value(&conversion, key), expected, "{key}");
    }
}

#[test]
fn overrides_are_read_as_omegaconf_reads_them() {
    let conversion = converted(
        LEAST,
        &[
            "worker.actor.optim.lr=1e-6",
            "worker.rollout.val_override_config={\"n\":16,\"temperature\":1.0,\"top_p\":0.7}",
            "worker.rollout.val_override_config.n=4",
            "trainer.logger=['console','swanlab']",
            "algorithm.disable_kl=True",
            "algorithm.use_kl_loss=true",
            "trainer.n_gpus_per_node=8",
            "trainer.experiment_name=a_b: c",
            "data.train_files=hiyouga/geometry3k@train",
            "reward.num_processes=2",
        ],
    )
    .unwrap();
    for (key, expected) in [
        ("actor.optim.lr", "0.000001"),
        ("rollout.val_n", "4"),
        ("rollout.val_top_p", "0.7"),
        ("algorithm.disable_kl", "true"),
        ("algorithm.use_kl_loss", "false"),
        ("trainer.experiment_name", "\"a_b: c\""),
        ("data.train_files", "[\"hiyouga/geometry3k@train\"]"),
    ] {
        assert_eq!(value(&conversion, key), expected, "{key}");
    }
    assert_eq!(conversion.own, ["reward.num_processes=2"]);
    let ignored: Vec<&str> = conversion.ignored.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(ignored, ["trainer.logger", "trainer.n_gpus_per_node"]);
    let message = conversion.message().unwrap();
    assert!(message.contains("2 keys of EasyR1's change no result here"), "{message}");
    assert!(message.contains("mpirun -np N"), "{message}");
}

#[test]
fn what_counts_otherwise_is_counted_anew() {
    let conversion = converted(
        LEAST,
        &[
            "data.rollout_batch_size=512",
            "data.mini_rollout_batch_size=256",
            "worker.actor.global_batch_size=32",
            "worker.actor.optim.lr_warmup_steps=10",
            "trainer.max_try_make_batch=10",
        ],
    )
    .unwrap();
    // 512 / 32 optimizer steps in each of 10 training steps; 10 rounds of 256 prompts.
    assert_eq!(value(&conversion, "actor.optim.lr_warmup_steps"), "160");
    assert_eq!(value(&conversion, "trainer.max_try_make_batch"), "5");
    assert_eq!(conversion.notes.len(), 2, "{:?}", conversion.notes);

    let dapo = "worker.reward.reward_function=./examples/reward_function/dapo.py:compute_score";
    let arguments = "worker.reward.reward_function_kwargs={\"max_response_length\":512,\"overlong_buffer_length\":64,\"overlong_penalty_factor\":0.5}";
    let by_sign = converted(LEAST, &[dapo, arguments, "algorithm.filter_key=accuracy"]).unwrap();
    assert_eq!(value(&by_sign, "algorithm.filter_low"), "0.505");
    assert_eq!(value(&by_sign, "reward.overlong_buffer_length"), "64");
    let normal = converted(LEAST, &[dapo, arguments, "algorithm.filter_key=accuracy_normalized"]).unwrap();
    assert_eq!(value(&normal, "algorithm.filter_key"), "\"accuracy\"");
    assert_eq!(value(&normal, "algorithm.filter_low"), "0.01");
}

/// Each as EasyR1 reads it: PyYAML below OmegaConf.
#[test]
fn yaml_of_every_kind_is_read() {
    let with = |rest: &str| format!("{LEAST}{rest}");
    let repeated = with("data: {seed: &n 017, max_prompt_length: *n, max_response_length: 0x10}\n");
    let merged = with(
        "data:\n  <<: {seed: 5, prompt_key: text}\n  seed: 6\n\
         algorithm:\n  kl_coef: ${.kl_target}\n  kl_target: ${oc.env:NO_SUCH_VARIABLE,1e-2}\n",
    );
    let placed =
        with("data: {seed: '${worker.rollout.n}', max_prompt_length: '${data.seed}0', prompt_key: 'q_${.seed}'}\n");
    for (text, overrides, key, expected) in [
        (&repeated, vec![], "data.seed", "15"),
        (&repeated, vec![], "data.max_prompt_length", "15"),
        (&repeated, vec![], "data.max_response_length", "16"),
        (&merged, vec![], "data.seed", "6"),
        (&merged, vec![], "data.prompt_key", "\"text\""),
        (&merged, vec![], "algorithm.kl_coef", "0.01"),
        // What is filled in is what is said last.
        (&placed, vec!["worker.rollout.n=8"], "data.seed", "8"),
        (&placed, vec!["worker.rollout.n=8"], "data.max_prompt_length", "80"),
        (&placed, vec!["+worker.rollout.n=8"], "data.prompt_key", "\"q_8\""),
        (&placed, vec!["data.answer_key=${data.image_key}"], "data.answer_key", "\"images\""),
        (&placed, vec!["worker.actor={global_batch_size: 64}"], "actor.global_batch_size", "64"),
        (&placed, vec!["worker.rollout.val_override_config={n: '${worker.rollout.n}'}"], "rollout.val_n", "1"),
    ] {
        let conversion = converted(text, &overrides).unwrap_or_else(|error| panic!("{overrides:?}: {error}"));
        assert_eq!(value(&conversion, key), expected, "{key} with {overrides:?}");
    }
    assert_eq!(converted(LEAST, &["+trainer.backend=flex"]).unwrap().own, ["trainer.backend=flex"]);
    for (overrides, message) in [
        (
            "data.seed=${data.sed}",
            "override `data.seed=${data.sed}`: `data.seed`: `${data.sed}` names no key of EasyR1's; did you mean `data.seed`?",
        ),
        (
            "data.seed=${data.prompt_key}",
            "override `data.seed=${data.prompt_key}`: `data.seed`: expected a whole number, found `prompt`",
        ),
        (
            "~data.seed",
            "override `~data.seed`: `data.seed`: `~` takes a key away in Hydra; a key that is left out has EasyR1's default here",
        ),
    ] {
        assert_eq!(converted(LEAST, &[overrides]).unwrap_err().to_string(), message);
    }
}

#[test]
fn gaps_are_told_together() {
    let text = format!("{LEAST}algorithm:\n  adv_estimator: gae\n  kl_penalty: full\ntrainer: {{val_only: true}}\n");
    let said = converted(&text, &["worker.rollout.top_k=50"]).unwrap_err().to_string();
    for part in [
        "\n  worker.rollout.top_k (override `worker.rollout.top_k=50`): is 50, and only -1 can be had: there is no top-k",
        "\n  trainer.val_only (x.yaml:5): is true, and only false can be had: `eval` measures",
        "\n  algorithm.adv_estimator (x.yaml:3): is gae, and there are grpo, ",
        "\n  algorithm.kl_penalty (x.yaml:4): is full, and there are kl, ",
    ] {
        assert!(said.contains(part), "{part}\nin\n{said}");
    }
    let said = converted("data:\n  seed: 1\n", &[]).unwrap_err().to_string();
    assert!(said.contains("worker.actor.model.model_path: no model is named"), "{said}");
    assert!(said.contains("worker.reward.reward_function: no reward is named"), "{said}");
}

#[test]
fn bad_input_names_its_line() {
    for (text, message) in [
        (
            "data:\n  max_promt_length: 3\n",
            "x.yaml:2: EasyR1 has no key `data.max_promt_length`; did you mean `data.max_prompt_length`?",
        ),
        ("data:\n  seed: one\n", "x.yaml:2: `data.seed`: expected a whole number, found `one`"),
        ("data:\n  shuffle: maybe\n", "x.yaml:2: `data.shuffle`: expected true or false, found `maybe`"),
        ("data:\n  prompt_key:\n", "x.yaml:2: `data.prompt_key`: expected a text, found null"),
        (
            "data: 3\n",
            "x.yaml:1: EasyR1 has no key `data`; docs/easyr1.md lists EasyR1's keys and those of VGPO, VPPO and PAPO",
        ),
        ("- 1\n", "x.yaml: not valid YAML: holds a list or a text, not sections such as `data:`"),
        (
            "actor_rollout_ref:\n  model: {}\n",
            "x.yaml:1: EasyR1 has no key `actor_rollout_ref`; this is a file of verl, whose keys are others; EasyR1's \
             sections are data, algorithm, worker and trainer",
        ),
    ] {
        assert_eq!(converted(text, &[]).unwrap_err().to_string(), message, "{text}");
    }
    let said = converted(LEAST, &["worker.actor.optim.lrr=1"]).unwrap_err().to_string();
    assert!(said.ends_with("did you mean `worker.actor.optim.lr`?"), "{said}");
}

/// The fields of the dataclasses, listed once from their sources (July 2026), with their defaults.
#[test]
fn every_key_is_in_the_table_with_its_default() {
    let page = easyr1::page();
    let mut own = 0;
    for line in fixture("keys.txt").lines().skip(2) {
        let (of, rest) = line.split_once(' ').unwrap();
        let (key, default) = rest.split_once(" = ").unwrap();
        own += usize::from(of == "EasyR1");
        assert!(easyr1::meaning(key).is_some(), "{key} is not in the table");
        if key.starts_with("worker.critic.") {
            continue;
        }
        let row = page.lines().find(|row| row.starts_with(&format!("| `{key}` | "))).unwrap();
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells[1].contains(of), "{row}");
        let found = cells[2].trim_matches('`');
        let number = |text: &str| text.parse::<f64>().ok();
        let is_same = found == default || number(found).is_some_and(|found| Some(found) == number(default));
        assert!(is_same, "{key}: {found}, and {default} in the dataclass");
    }
    let total: usize = easyr1::counts().iter().sum();
    assert_eq!((own, total), (193, 193));
}

#[test]
fn the_page_is_up_to_date() {
    const BEGIN: &str = "<!-- Generated by crates/easyr1 from the table of keys: begin -->\n";
    const END: &str = "<!-- Generated: end -->\n";
    let path = format!("{}/../../docs/easyr1.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", easyr1::page());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert!(
        page == expected || std::env::var_os("UPDATE_DOCS").is_some(),
        "UPDATE_DOCS=1 cargo test --workspace --test conversion"
    );
}
