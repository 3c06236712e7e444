//! Values out of range, and values that contradict one another.

use super::*;

/// The problems of the smallest file with `overrides`, as they are printed.
#[track_caller]
fn problems(overrides: &[&str]) -> Vec<String> {
    match overridden(overrides) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(|problem| problem.to_string()).collect(),
        other => panic!("{overrides:?} gave {other:?}"),
    }
}

/// Overrides of the smallest file, and the only problem that they make.
type Case = (&'static [&'static str], &'static str);

#[track_caller]
fn each_has_its_reason(cases: &[Case]) {
    for (overrides, message) in cases {
        assert_eq!(problems(overrides), [message.to_string()], "{overrides:?}");
    }
}

#[test]
fn contradictions_of_data_and_model() {
    each_has_its_reason(&[
        (&["data.train_files=[]"], "data.train_files: is empty; name the training data"),
        (
            &["data.val_files=[{path=\"a\",weight=0}]"],
            "data.val_files.0: has weight 0; a weight must be above 0, or leave the file out",
        ),
        (&["data.train_files=[\"\"]"], "data.train_files.0: names no file; an empty path reads nothing"),
        (&["model.path="], "model.path: is empty; name a model folder, or \"toy\""),
        (
            &["model.path=folder", "model.family=qwen3_vl"],
            "model.family, model.path, model.init: family is that of the built-in model (path \"toy\", no other init); a \
             folder and an init have their own",
        ),
        (&["data.answer_key="], "data.answer_key: is empty"),
        (
            &["data.min_pixels=5000", "data.max_pixels=4000"],
            "data.min_pixels, data.max_pixels: min_pixels (5000) is above max_pixels (4000)",
        ),
        (
            &["data.max_response_length=0"],
            "data.max_response_length: must be at least 1, is 0 (the range is 1 to 1048576)",
        ),
    ]);
}

#[test]
fn contradictions_of_rollout() {
    each_has_its_reason(&[
        (&["rollout.temperature=0"], "rollout.temperature: must be above 0, is 0"),
        (&["rollout.top_p=1.5"], "rollout.top_p: must be above 0 and at most 1, is 1.5"),
        (
            &["rollout.val_n=4"],
            "rollout.val_n, rollout.val_temperature: 4 greedy responses to one prompt would all be the same; set \
             val_temperature above 0 or val_n = 1",
        ),
        (
            &["rollout.n=1"],
            "rollout.n, algorithm.adv_estimator: \"grpo\" compares the responses to one prompt, so one response has no \
             advantage; set rollout.n to 2 or more, or use \"remax\" or \"reinforce_plus_plus\"",
        ),
    ]);
}

#[test]
fn contradictions_of_actor() {
    each_has_its_reason(&[
        (
            &["actor.global_batch_size=100"],
            "actor.global_batch_size, data.rollout_batch_size: 512 prompts cannot be cut into optimizer steps of 100; make one \
             a multiple of the other",
        ),
        (&["actor.clip_ratio_low=1"], "actor.clip_ratio_low: must be 0 or more and below 1, is 1"),
        (
            &["actor.clip_ratio_dual=1.2", "actor.clip_ratio_high=0.5"],
            "actor.clip_ratio_dual, actor.clip_ratio_high: must be at least 1 + clip_ratio_high = 1.5, is 1.2; it bounds what \
             the first clip leaves unbounded",
        ),
        (
            &["actor.loss_type=gspo", "actor.clip_ratio_low=3e-4"],
            "actor.clip_ratio_high, actor.loss_type: 0.3 would never act on the ratio of a whole sequence; GSPO was published \
             with 3e-4 (low) and 4e-4 (high)",
        ),
        (
            &["actor.old_log_probs=rollout", "actor.rollout_correction=token_mask"],
            "actor.rollout_correction, actor.old_log_probs: the correction compares the sampler's log-probabilities with \
             recomputed ones; set old_log_probs = \"recompute\" or rollout_correction = \"none\"",
        ),
        (&["actor.optim.lr=0"], "actor.optim.lr: must be above 0, is 0"),
        (&["actor.optim.betas=[0.9,1.0]"], "actor.optim.betas: must be 0 or more and below 1, is 1"),
        (
            &["actor.optim.lr_warmup_steps=10", "actor.optim.lr_warmup_ratio=0.1"],
            "actor.optim.lr_warmup_steps, actor.optim.lr_warmup_ratio: both say how long the warm-up is; set one of them to 0",
        ),
        (
            &["actor.optim.min_lr_ratio=0.1"],
            "actor.optim.min_lr_ratio, actor.optim.lr_scheduler_type: a constant learning rate has no end value; set \
             lr_scheduler_type = \"cosine\" or min_lr_ratio = 0",
        ),
        (
            &["actor.rollout_correction=token_mask", "actor.rollout_correction_cap=0.5"],
            "actor.rollout_correction_cap, actor.rollout_correction: is 0.5; must be above 1: ratios are near 1, and a mask that \
             drops those drops nearly every token",
        ),
    ]);
}

#[test]
fn contradictions_of_reward() {
    each_has_its_reason(&[
        (
            &["reward.accuracy_weight=0", "reward.format_weight=0"],
            "reward.accuracy_weight, reward.format_weight: with both 0 every response earns the same",
        ),
        (
            &["reward.reward_type=dapo", "data.format_prompt=dapo", "reward.overlong_buffer_length=4096"],
            "reward.overlong_buffer_length, data.max_response_length: a buffer of 4096 tokens does not fit into responses of \
             2048",
        ),
        (
            &["reward.overlong_buffer_length=512", "reward.command=[grader]"],
            "reward.overlong_buffer_length, reward.command: a reward command says the whole reward and gets each response's \
             length; set the buffer to 0",
        ),
        (
            &["reward.reward_type=look_back"],
            "data.format_prompt, reward.reward_type: \"math\" does not ask for the <back> span that is rewarded; write \
             format_prompt = \"look_back\"",
        ),
        (
            &["data.format_prompt=srpo"],
            "data.format_prompt, reward.reward_type: \"srpo\" asks for <perception> first, but the form of \"math\" begins with \
             <think>; write reward_type = \"math_accuracy\"",
        ),
        (
            &["data.format_prompt=r1v"],
            "data.format_prompt, reward.reward_type: the prompt \"r1v\" asks for <answer> tags, but the reward \"math\" reads \
             \\boxed{}",
        ),
        (&["reward.command=[\"\"]"], "reward.command: names no program; the first element is the program"),
        (&["reward.command_timeout_s=0"], "reward.command_timeout_s: must be above 0, is 0"),
    ]);
}

#[test]
fn contradictions_of_trainer() {
    each_has_its_reason(&[
        (
            &["trainer.experiment_name=a/b"],
            "trainer.experiment_name: \"a/b\" is a path; the name of a folder is needed, and output_dir says where",
        ),
        (
            &["trainer.total_epochs=0"],
            "trainer.total_epochs, trainer.max_steps: both are 0, so there is nothing to train",
        ),
        (
            &["trainer.val_freq=5"],
            "trainer.val_freq, data.val_files: there is nothing to validate on; name val_files or set val_freq = 0",
        ),
    ]);
}

#[test]
fn contradictions_of_vgpo_and_kl() {
    each_has_its_reason(&[
        (
            &["rollout.n=1", "algorithm.adv_estimator=remax", "algorithm.online_filtering=true"],
            "algorithm.online_filtering, rollout.n: one response to a prompt is always all right or all wrong; set rollout.n \
             to 2 or more",
        ),
        (&["algorithm.beta=-0.1"], "algorithm.vgpo.beta: must be 0 or more, is -0.1"),
        (&["algorithm.gamma=0"], "algorithm.vgpo.gamma: must be above 0 and at most 1, is 0"),
        (&["algorithm.kappa=0"], "algorithm.vgpo.kappa: must be above 0 and at most 1, is 0"),
        (
            &["algorithm.shaping=vgpo", "algorithm.intra=false", "algorithm.inter=false"],
            "algorithm.vgpo.intra, algorithm.vgpo.inter, algorithm.shaping: with both off VGPO changes nothing; write shaping = \"none\"",
        ),
        (
            &["algorithm.use_kl_loss=true"],
            "algorithm.use_kl_loss, algorithm.disable_kl: the KL term cannot be in the loss while it is switched off; set \
             disable_kl = false",
        ),
        (
            &["algorithm.kl_type=adaptive"],
            "algorithm.kl_type, algorithm.disable_kl: an adaptive KL weight needs the KL term; set disable_kl = false",
        ),
        (
            &["algorithm.kl_type=adaptive", "algorithm.disable_kl=false", "algorithm.use_kl_loss=true"],
            "algorithm.kl_type, algorithm.use_kl_loss: the adaptive weight is that of the KL term in the reward; set \
             use_kl_loss = false or kl_type = \"fixed\"",
        ),
        (
            &["algorithm.online_filtering=true", "algorithm.filter_low=0.99"],
            "algorithm.filter_low, algorithm.filter_high: no mean lies above 0.99 and below 0.99",
        ),
    ]);
}

#[test]
fn contradictions_of_other_algorithms() {
    each_has_its_reason(&[
        (&["algorithm.vppo.keep_share=0"], "algorithm.vppo.keep_share: must be above 0 and at most 1, is 0"),
        (
            &[
                "algorithm.shaping=vppo",
                "algorithm.vppo.token_filtering=false",
                "algorithm.vppo.trajectory_shaping=false",
            ],
            "algorithm.vppo.token_filtering, algorithm.vppo.trajectory_shaping: with both off VPPO changes nothing; write \
             algorithm.shaping = \"none\"",
        ),
        (
            &["algorithm.shaping=pgpo", "algorithm.perturbation.kind=blank"],
            "algorithm.perturbation, algorithm.shaping: PGPO takes the picture out of the prompt and perturbs nothing; \
             leave these keys out",
        ),
        (
            &["algorithm.entropy.kappa=1"],
            "algorithm.entropy.kappa: must be above 1, is 1; otherwise the term could change the sign of an advantage",
        ),
        (&["algorithm.papo.kl_prcp_coef=-1"], "algorithm.papo.kl_prcp_coef: must be 0 or more, is -1"),
        (
            &["algorithm.online_filtering=true", "algorithm.filter_key=acuracy"],
            "algorithm.filter_key: is \"acuracy\"; this reward has \"overall\", \"accuracy\" and \"format\" (and \"overlong\" \
             with a penalty for length)",
        ),
        (
            &["algorithm.filter_zero_variance=true"],
            "algorithm.filter_zero_variance, algorithm.online_filtering: drops nothing without dynamic sampling; set \
             online_filtering = true",
        ),
        (
            &["algorithm.papo.aug_entropy_loss_coef=0.03"],
            "algorithm.papo.aug_entropy_loss_coef, algorithm.papo.kl_prcp_coef: the entropy with the masked image changes \
             nothing by itself, as those log-probabilities are constants; set kl_prcp_coef above 0, or this to 0",
        ),
        (&["algorithm.perturbation.sigma=0"], "algorithm.perturbation.sigma: must be above 0, is 0"),
        (
            &["algorithm.shaping=srpo"],
            "data.format_prompt, algorithm.shaping: \"math\" does not ask for the <perception> span that SRPO weighs; write \
             format_prompt = \"srpo\"",
        ),
    ]);
}

#[test]
fn stages_are_checked() {
    let check = |stages: &str| match with(stages) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
        other => panic!("{stages} gave {other:?}"),
    };
    assert_eq!(
        check("[[stages]]\nstage = \"sft\"\n"),
        ["stages.0.steps: must be at least 1, is 0 (the range is 1 to 1000000000000)"]
    );
    assert_eq!(
        check("[[stages]]\nstage = \"sft\"\nsteps = 1\nuntil_accuracy = 0.5\n"),
        [
            "stages.0.until_accuracy, data.val_files: there is nothing to measure the accuracy on; name val_files or set \
             until_accuracy = 0"
        ]
    );
    assert_eq!(
        check("[[stages]]\nstage = \"rl\"\n[[stages]]\nstage = \"rl\"\nname = \"again\"\n"),
        ["stages.0.steps: is 0, which means to the end of training; only the last stage can do that"]
    );
    assert_eq!(
        check("[[stages]]\nstage = \"rl\"\nname = \"a\"\nsteps = 1\n[[stages]]\nstage = \"rl\"\nname = \"a\"\n"),
        ["stages.1.name: \"a\" is the name of an earlier stage; logs could not tell them apart"]
    );
    // A stage's own data stand in for data.train_files.
    let text = "[data]\ntrain_files = []\n[[stages]]\nstage = \"rl\"\nsteps = 1\ntrain_files = \"toy:sum\"\n";
    with(text).unwrap();
}

#[test]
fn all_problems_are_told_at_once() {
    let error = overridden(&["rollout.temperature=-1", "actor.ppo_epochs=0"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the configuration cannot be used:\n  rollout.temperature: must be above 0, is -1\n  actor.ppo_epochs: must be at \
         least 1, is 0 (the range is 1 to 1000)"
    );
}

#[test]
fn a_command_may_read_any_form_of_answer() {
    overridden(&["data.format_prompt=r1v", "reward.command=[python3,my_reward.py]"]).unwrap();
    overridden(&["data.format_prompt=prompts/mine.jinja", "reward.reward_type=r1v"]).unwrap();
}

#[test]
fn what_disappoints_is_a_warning() {
    let warnings = |overrides: &[&str]| -> Vec<String> {
        overridden(overrides).unwrap().warnings().iter().map(|problem| problem.to_string()).collect()
    };
    assert!(warnings(&[]).is_empty());
    assert_eq!(
        warnings(&["algorithm.papo.kl_prcp_coef=0.04"]),
        ["algorithm.papo.kl_prcp_coef: is 0.04; the paper reports that training collapses from 0.04 on"]
    );
    assert_eq!(
        warnings(&["actor.loss_type=gspo", "actor.clip_ratio_low=3e-4", "actor.clip_ratio_high=4e-4"]),
        ["actor.loss_avg_mode, actor.loss_type: is \"token\"; GSPO was published with averaging by sequence (\"seq\")"]
    );
    assert_eq!(
        warnings(&["actor.loss_type=sapo", "actor.loss_avg_mode=constant"]),
        [
            "actor.loss_avg_mode, actor.loss_type: is \"constant\"; SAPO was published with averaging by response (\"seq\")"
        ]
    );
    assert!(warnings(&["actor.loss_type=sapo", "actor.loss_avg_mode=seq"]).is_empty());
}

#[test]
fn every_number_has_a_range() {
    let mut numbers = 0;
    for section in Config::default().sections() {
        for key in section.keys.iter().filter(|key| ["integer", "number"].contains(&key.kind.as_str())) {
            assert!(!key.range.is_empty(), "{} {} is declared without a range", section.header, key.name);
            numbers += 1;
        }
    }
    assert!(numbers > 60, "{numbers}");
}

/// The largest number that TOML can write, in every key that holds one, and numbers of which only the product is too
/// large.
#[test]
fn numbers_beyond_their_range_are_named() {
    for (prefix, sections) in [("", Config::default().sections()), ("stages.0.", Config::default().sections())] {
        for section in sections {
            let header = section.header.trim_matches(['[', ']']);
            if (header == "stages") == prefix.is_empty() {
                continue;
            }
            for key in &section.keys {
                let name =
                    if prefix.is_empty() { format!("{header}.{}", key.name) } else { format!("{prefix}{}", key.name) };
                let seed = key.name.ends_with("seed");
                let value = match key.kind.as_str() {
                    "integer" if !seed => "9223372036854775807",
                    "number" => "1e300",
                    _ => continue,
                };
                let kind = if section.keys[0].kind.contains("sft") { "sft" } else { "rl" };
                let steps = if kind == "sft" && key.name != "steps" { "steps = 1\n" } else { "" };
                let stages =
                    format!("[[stages]]\nstage = \"{kind}\"\n{steps}[[stages]]\nstage = \"rl\"\nname = \"last\"\n");
                let sources = [Source::new("small.toml", SMALL), Source::new("stages.toml", stages)];
                let files = if prefix.is_empty() { &sources[..1] } else { &sources[..] };
                let said = match resolve(files, &[format!("{name}={value}")]) {
                    Err(ConfigError::Invalid(problems)) => problems,
                    other => panic!("{name}={value} gave {other:?}"),
                };
                assert!(said.iter().any(|p| p.keys[0] == name), "{name}={value} is not named: {said:?}");
            }
        }
    }
    for (override_, message) in [
        ("rollout.n=1000000000", "rollout.n: must be at most 65536, is 1000000000 (the range is 1 to 65536)"),
        ("actor.optim.lr=1e39", "actor.optim.lr: must be at most 1e38, is 1e39"),
    ] {
        assert!(problems(&[override_]).contains(&message.to_string()), "{:?}", problems(&[override_]));
    }
    let said = problems(&["rollout.n=65536", "data.rollout_batch_size=1048576", "actor.global_batch_size=1048576"]);
    let message =
        "rollout.n, data.rollout_batch_size: 65536 responses to each of 1048576 prompts are more than 16777216 at once";
    assert_eq!(said, [message]);
}
