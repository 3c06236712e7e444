//! Small runs through the whole trainer: every algorithm runs with the values that follow from its settings, and raises
//! the reward of a bandit.
//!
//! The reward of the bandit (`bandit.rs`) is the negative length, so any positive weights of tokens learn it: it shows
//! that the loop of sampling, grading and updating closes under each setting, not that a shaping weighs the right
//! tokens. That is shown in `credit.rs`, where the weights decide, and in `oracle.rs`, where each weight is followed to
//! its gradient.

use std::path::Path;

use data::write::{JsonImages, SampleWriter};
use data::{Dataset, Keys, Sample};
use model_qwen2vl::Kernels;
use rl::run_folder::read_metrics;
use serde_json::{Map, Value};

use crate::bandit;
use crate::common::pairs;
use crate::values::{GROUP, complaints};

/// Runs and gives the lines of `metrics.jsonl`.
fn run<B: Kernels>(dir: &Path, overrides: &[&str]) -> Result<Vec<Map<String, Value>>, String> {
    run_staged::<B>(dir, "", overrides)
}

/// The same in stages.
fn run_staged<B: Kernels>(dir: &Path, stages: &str, overrides: &[&str]) -> Result<Vec<Map<String, Value>>, String> {
    bandit::train::<B>(dir, stages, overrides).map_err(|e| e.to_string())?;
    read_metrics(&dir.join("metrics.jsonl")).map_err(|e| e.to_string())
}

/// The mean reward rises by a quarter in 20 steps, whatever the settings.
fn learns<B: Kernels>(settings: &[&[&str]]) {
    for overrides in settings {
        let dir = tempfile::tempdir().unwrap();
        let lines = run::<B>(&dir.path().join("run"), overrides).unwrap();
        let rewards: Vec<f64> = lines.iter().map(|l| l["reward"].as_f64().unwrap()).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&rewards[..4]), mean(&rewards[rewards.len() - 4..]));
        println!("{}: mean reward of the first 4 steps {first:.3}, of the last 4 {last:.3}", overrides.join(" "));
        // -2 is the least, a right answer apart -1 the most.
        assert!(last > first + 0.25, "{overrides:?}: {rewards:?}");
    }
}

fn the_reward_rises<B: Kernels>() {
    learns::<B>(&[&["algorithm.shaping=none"], &["algorithm.shaping=vgpo"]]);
}

/// Each algorithm by itself learns the bandit.
fn every_algorithm_learns<B: Kernels>() {
    const TIGHT: [&str; 3] = ["actor.loss_avg_mode=seq", "actor.clip_ratio_low=0.0003", "actor.clip_ratio_high=0.0004"];
    let gspo = [&["actor.loss_type=gspo"], &TIGHT[..]].concat();
    let gspo_token = [&["actor.loss_type=gspo_token"], &TIGHT[..]].concat();
    learns::<B>(&[
        &["algorithm.adv_estimator=dr_grpo"],
        &["algorithm.adv_estimator=rloo"],
        &["algorithm.adv_estimator=remax"],
        &["algorithm.adv_estimator=reinforce_plus_plus"],
        &["algorithm.adv_estimator=grpo_passk"],
        &gspo,
        &gspo_token,
        &["actor.loss_type=cispo"],
        &["actor.loss_type=sapo"],
        &["algorithm.shaping=vgpo", "algorithm.variant=released"],
        &["algorithm.shaping=vppo"],
        &["algorithm.shaping=pgpo"],
        &["algorithm.shaping=pepo"],
        &["algorithm.shaping=entropy"],
        &[
            "algorithm.papo.kl_prcp_coef=0.01",
            "algorithm.papo.ori_entropy_loss_coef=0.03",
            "algorithm.papo.aug_entropy_loss_coef=0.03",
        ],
    ]);
}

const KL: &str = "algorithm.disable_kl=false";

/// Every shaping, loss, estimator and option.
const OPTIONS: &[&[&str]] = &[
    &["algorithm.shaping=none"],
    &["algorithm.shaping=vgpo"],
    &["algorithm.shaping=vgpo", "algorithm.variant=released"],
    &[
        "algorithm.shaping=vgpo",
        "algorithm.prototype=per_image",
        "algorithm.inter_score=mean",
        "algorithm.schedule=exponential",
    ],
    &["algorithm.shaping=vgpo", "algorithm.gate=false", "algorithm.inter=false", "algorithm.schedule=step"],
    &["algorithm.shaping=vppo"],
    &["algorithm.shaping=vppo", "algorithm.perturbation.align=stored"],
    &["algorithm.shaping=vppo", "algorithm.perturbation.align=grid"],
    &["algorithm.shaping=vppo", "algorithm.perturbation.kind=gaussian_noise", "algorithm.perturbation.draw=prompt"],
    &["algorithm.shaping=vppo", "algorithm.perturbation.kind=blank", "algorithm.papo.kl_prcp_coef=0.01"],
    &["algorithm.papo.kl_prcp_coef=0.01", "algorithm.perturbation.draw=response"],
    &["algorithm.papo.ori_entropy_loss_coef=0.03"],
    &["algorithm.shaping=pepo"],
    &["algorithm.shaping=pgpo"],
    &["algorithm.shaping=srpo"],
    &["algorithm.shaping=srpo", "algorithm.srpo.dependency=log_ratio"],
    &["algorithm.shaping=entropy"],
    &["algorithm.shaping=pgpo", "actor.old_log_probs=rollout", "actor.micro_batch_tokens=60"],
    &["actor.loss_type=gspo", "actor.loss_avg_mode=seq", "actor.clip_ratio_low=0.0003", "actor.clip_ratio_high=0.0004"],
    &[
        "actor.loss_type=gspo_token",
        "actor.loss_avg_mode=seq",
        "actor.clip_ratio_low=0.0003",
        "actor.clip_ratio_high=0.0004",
    ],
    &["actor.loss_type=cispo"],
    &["actor.loss_type=sapo"],
    &[
        "algorithm.papo.kl_prcp_coef=0.01",
        "algorithm.papo.ori_entropy_loss_coef=0.03",
        "algorithm.papo.aug_entropy_loss_coef=0.03",
    ],
    &["actor.entropy_coef=0.01", "actor.entropy_type=full"],
    &["actor.entropy_coef=0.06", "actor.entropy_type=sampled"],
    &[KL, "algorithm.use_kl_loss=true"],
    &[KL, "algorithm.use_kl_loss=true", "algorithm.kl_penalty=mse"],
    &[KL, "algorithm.use_kl_loss=false", "algorithm.kl_type=adaptive", "algorithm.kl_penalty=kl"],
    &["algorithm.adv_estimator=dr_grpo"],
    &["algorithm.adv_estimator=rloo"],
    &["algorithm.adv_estimator=remax"],
    &["algorithm.adv_estimator=reinforce_plus_plus"],
    &["algorithm.adv_estimator=reinforce_plus_plus", KL, "algorithm.discount=0.9"],
    &["algorithm.adv_estimator=grpo_passk"],
    &["actor.old_log_probs=rollout"],
    &["actor.old_log_probs=rollout", "algorithm.shaping=vgpo"],
    &["actor.rollout_correction=token_truncate"],
    &["actor.rollout_correction=sequence_mask"],
    &[
        "algorithm.online_filtering=true",
        "algorithm.filter_key=overall",
        "algorithm.filter_low=-2.5",
        "algorithm.filter_high=1.5",
    ],
    &["model.freeze_vision_tower=true"],
    &["actor.recompute=always", "actor.ppo_epochs=2", "actor.global_batch_size=1", "data.rollout_batch_size=2"],
    &["actor.recompute=never", "actor.micro_batch_tokens=60"],
    &["actor.optim.moments_dtype=bf16", "actor.optim.lr_scheduler_type=cosine", "actor.optim.lr_warmup_steps=1"],
    &["rollout.temperature=0.7", "rollout.top_p=0.9"],
    &["reward.reward_type=math", "reward.overlong_buffer_length=0"],
    &["reward.reward_type=look_back", "reward.overlong_buffer_length=0"],
    &["data.val_files=[toy:sum?rows=1&cols=2&split=test&size=2]", "rollout.val_temperature=1.0", "rollout.val_n=2"],
    &["data.train_files=[toy:multistep?size=2]", "data.max_prompt_length=256", "algorithm.shaping=vgpo"],
];

/// Every shaping, loss, estimator and option runs two steps with the metrics that its settings and its responses ask
/// for (`values.rs`).
fn every_algorithm_runs<B: Kernels>() {
    let mut failures = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let base = ["trainer.max_steps=2", "trainer.seed=1", &format!("rollout.n={GROUP}")];
    let plain = run::<B>(&dir.path().join("run"), &base).unwrap();
    let mut taught = 0;
    for overrides in OPTIONS {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<&str> = base.iter().chain(*overrides).copied().collect();
        match run::<B>(&dir.path().join("run"), &all) {
            Err(error) => failures.push(format!("{}: {error}", overrides.join(" "))),
            Ok(lines) => {
                let bad: Vec<&String> =
                    lines.iter().flat_map(|l| l.iter().filter(|(_, v)| v.is_null()).map(|(k, _)| k)).collect();
                if lines.len() != 2 || !bad.is_empty() {
                    failures.push(format!("{}: {} lines, not finite: {bad:?}", overrides.join(" "), lines.len()));
                    continue;
                }
                taught += usize::from(lines[0]["group/zero_variance_share"] == 0.0);
                let wrong = complaints(overrides, &dir.path().join("run"), &lines, &plain);
                if !wrong.is_empty() {
                    failures.push(format!("{}: {}", overrides.join(" "), wrong.join("; ")));
                }
            }
        }
    }
    // Where all rewards are equal nothing is learned, and little is checked.
    assert!(taught * 10 > OPTIONS.len() * 8, "only {taught} of {} first steps have rewards that differ", OPTIONS.len());
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), OPTIONS.len(), failures.join("\n"));
}

/// SRPO weighs what stands behind a description: a policy that was taught to describe gets its weights, and learns with
/// them.
#[test]
fn srpo_learns_from_responses_that_describe() {
    type B = burn_flex::Flex<f32, i32>;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("described.parquet");
    let spec = "toy:read?rows=1&cols=1&size=1".to_string().into();
    let one = Dataset::open(&[spec], &Keys::default(), None).unwrap().get(0).unwrap();
    let mut file = SampleWriter::create(&path, &Keys::default(), JsonImages::Base64).unwrap();
    file.write(&Sample { solution: Some("<perception>2 2</perception>4".into()), ..one }).unwrap();
    file.finish().unwrap();
    let settings = [
        &format!("data.train_files=[{}]", path.display()),
        "algorithm.shaping=srpo",
        "data.max_response_length=48",
        "reward.overlong_buffer_length=48",
    ];
    let stages = "[[stages]]\nstage = \"sft\"\nsteps = 60\nbatch_size = 4\n[[stages]]\nstage = \"rl\"\nsteps = 16\n";
    let lines = run_staged::<B>(&dir.path().join("run"), stages, &settings).unwrap();
    let shaped: Vec<f64> = lines.iter().filter_map(|l| l.get("srpo/shaped_responses")?.as_f64()).collect();
    assert!(shaped.len() == 16 && shaped[0] > 0.3, "{shaped:?}");
    let rewards: Vec<f64> = lines.iter().filter_map(|l| l.get("reward")?.as_f64()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    println!("srpo: {shaped:?} {rewards:?}");
    assert!(mean(&rewards[12..]) > mean(&rewards[..4]) + 0.25, "{rewards:?}");
}

/// Where dynamic sampling keeps nothing a step updates nothing, and the run goes on.
#[test]
fn a_step_without_a_kept_prompt_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "trainer.max_steps=2",
        "trainer.max_try_make_batch=2",
        "algorithm.online_filtering=true",
        "algorithm.filter_key=overlong",
        "algorithm.filter_low=0.5",
        "algorithm.filter_high=1.0",
    ];
    let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join("run"), &settings).unwrap();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!((line["filter/rounds"].as_f64(), line["filter/kept_share"].as_f64()), (Some(2.0), Some(0.0)));
        assert!(line["reward"].as_f64().is_some_and(|r| r < 0.0) && !line.contains_key("actor/loss"));
    }
}

/// A perturbed picture means nothing to a prompt without one: PAPO trains on mixed data.
#[test]
fn papo_on_mixed_data() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"problem\": \"2+2?\", \"answer\": \"4\"}\n").unwrap();
    let data = format!("data.train_files=[{}, \"toy:read?rows=1&cols=1&size=1\"]", rows.display());
    let settings = [&data, "algorithm.papo.kl_prcp_coef=0.02", "data.rollout_batch_size=2", "trainer.max_steps=3"];
    let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join("run"), &settings).unwrap();
    assert_eq!(lines.len(), 3);
    for (step, line) in lines.iter().enumerate() {
        let text = std::fs::read_to_string(dir.path().join(format!("run/rollouts/step_{}.jsonl", step + 1))).unwrap();
        let (mut with_picture, mut all) = (0.0, 0.0);
        for response in text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
            let tokens = response["tokens"].as_f64().unwrap();
            all += tokens;
            with_picture += if response["problem"] == "2+2?" { 0.0 } else { tokens };
        }
        assert!(with_picture > 0.0 && with_picture < all, "both kinds are in the batch: {with_picture} of {all}");
        let of = |key: &str| line[key].as_f64().unwrap();
        // The mean is over the tokens that have a picture; in the loss, which is an average over all tokens, the others
        // add nothing.
        let (kl, loss) = (of("actor/kl_prcp"), of("actor/papo_loss"));
        assert!(kl > 1e-6, "{line:?}");
        let expected = -0.02 * kl * with_picture / all;
        assert!((loss - expected).abs() < 1e-5 * expected.abs() + 1e-9, "step {}: {loss}, not {expected}", step + 1);
    }
}

/// One row in many that can be used: the others are set aside, and that one is trained on.
#[test]
fn one_good_row_among_many_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    let mut text = "{\"problem\": \"1+1?\", \"answer\": null}\nnot JSON\n".repeat(30);
    text += "{\"problem\": \"2+2?\", \"answer\": \"4\"}\n";
    text += &"{\"problem\": \"<image>?\", \"answer\": \"1\", \"images\": [\"gone.png\"]}\n".repeat(20);
    std::fs::write(&rows, format!("{{\"problem\": \"\", \"answer\": \"1\"}}\n{text}")).unwrap();
    let data = format!("data.train_files=[{}]", rows.display());
    let settings = [&data, "trainer.max_steps=3", "rollout.n=4"];
    let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join("run"), &settings).unwrap();
    assert!(lines.len() == 3 && lines.iter().all(|l| l["reward"].is_f64() && l["actor/grad_norm"].is_f64()));
    assert!(lines[2]["data/set_aside"].as_u64().is_some_and(|n| n > 0 && n <= 81), "{:?}", lines[2]);
}

/// Data of which no row can be used is an error that names its key, for training and for validation.
#[test]
fn data_without_a_usable_row_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"problem\": \"1+1?\", \"answer\": null}\n".repeat(3)).unwrap();
    for key in ["data.train_files", "data.val_files"] {
        let data = format!("{key}=[{}]", rows.display());
        let settings = [&data, "trainer.max_steps=1"];
        let error = run::<burn_flex::Flex<f32, i32>>(&dir.path().join(key), &settings).unwrap_err();
        assert!(error.contains(key) && error.contains("row"), "{error}");
    }
}

/// A run that goes on in another folder compares with the policy that its stage began with, not with its own first one.
#[test]
fn a_reference_policy_moves_with_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let kl = ["algorithm.disable_kl=false", "algorithm.use_kl_loss=true", "rollout.n=4", "trainer.save_freq=2"];
    let run_in =
        |name: &str, more: &[&str]| run::<burn_flex::Flex<f32, i32>>(&dir.path().join(name), &[&kl[..], more].concat());
    let whole = run_in("whole", &["trainer.max_steps=4"]).unwrap();
    let resume = format!("trainer.resume={}", dir.path().join("whole/checkpoints/global_step_2").display());
    let rest = run_in("rest", &["trainer.max_steps=4", &resume]).unwrap();
    assert_eq!(rest.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 4]);
    for (whole, rest) in pairs(&whole[2..], &rest) {
        let kept = |line: &Map<String, Value>| -> Map<String, Value> {
            let timed = |key: &str| key.starts_with("time/") || key.starts_with("perf/");
            line.iter().filter(|(key, _)| !timed(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        assert_eq!(kept(whole), kept(rest));
        assert!(rest["actor/kl_loss"].as_f64().is_some_and(|kl| kl > 0.0), "{rest:?}");
    }
    std::fs::remove_dir_all(dir.path().join("whole/reference")).unwrap();
    let error = run_in("lost", &["trainer.max_steps=4", &resume]).unwrap_err();
    assert!(error.contains("reference policy") && error.contains("disable_kl"), "{error}");
}

/// The share of PEPO's weights follows the steps that are done, and a resumed run goes on where the stopped one was.
#[test]
fn pepo_fades_in_through_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let run_in = |name: &str, more: &[&str]| {
        let settings = [&["algorithm.shaping=pepo", "trainer.max_steps=4", "rollout.n=4"][..], more].concat();
        let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join(name), &settings).unwrap();
        lines.iter().map(|l| l["pepo/lambda"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    assert_eq!(run_in("whole", &["trainer.save_freq=2"]), [0.0, 0.25, 0.5, 0.75]);
    let resume = format!("trainer.resume={}", dir.path().join("whole/checkpoints/global_step_2").display());
    assert_eq!(run_in("rest", &[&resume]), [0.5, 0.75]);
}

/// The warm-up of a supervised stage goes on where the stopped run was.
#[test]
fn a_supervised_warm_up_goes_on_after_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let stages = "[[stages]]\nstage = \"sft\"\nsteps = 4\nbatch_size = 2\nlr_warmup_steps = 4\n";
    let rates = |name: &str, more: &[&str]| {
        let lines = run_staged::<burn_flex::Flex<f32, i32>>(&dir.path().join(name), stages, more).unwrap();
        lines.iter().map(|l| l["actor/lr"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let whole = rates("whole", &["trainer.save_freq=2"]);
    assert!(whole.len() == 4 && whole.windows(2).all(|pair| pair[1] > pair[0]), "{whole:?}");
    let resume = format!("trainer.resume={}", dir.path().join("whole/checkpoints/global_step_2").display());
    assert_eq!(rates("rest", &[&resume]), whole[2..]);
}

/// A number format that the backend does not store is refused with its key.
#[test]
fn bf16_state_needs_a_backend_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    for key in ["actor.optim.moments_dtype", "actor.optim.grads_dtype"] {
        let error = run::<burn_ndarray::NdArray<f32>>(&dir.path().join("run"), &[&format!("{key}=bf16")]).unwrap_err();
        assert!(error.contains(key) && error.contains("bf16"), "{error}");
    }
}

/// The dependency of a token on the picture compares two views of one policy: of groups that were carried over too,
/// although the policy has moved since it sampled them. Noise that changes no pixel leaves nothing to depend on.
#[test]
fn dependency_is_not_drift() {
    let dir = tempfile::tempdir().unwrap();
    for old in ["recompute", "rollout"] {
        let old = format!("actor.old_log_probs={old}");
        let settings = [
            &old,
            "algorithm.shaping=vppo",
            "algorithm.perturbation.kind=gaussian_noise",
            "algorithm.perturbation.sigma=1e-6",
            "algorithm.online_filtering=true",
            "algorithm.filter_key=overall",
            "algorithm.filter_low=-1.9",
            "algorithm.filter_high=1.5",
            "data.train_files=[\"toy:read?rows=1&cols=1&size=8\"]",
            "data.rollout_batch_size=4",
            "rollout.n=4",
            "actor.optim.lr=3e-3",
            "trainer.max_steps=8",
        ];
        let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join(&old), &settings).unwrap();
        let of = |key: &str| lines.iter().filter_map(|l| l.get(key)?.as_f64()).fold(0.0, f64::max);
        assert!(of("filter/carried") > 0.0, "no group was carried: {lines:?}");
        assert!(of("vppo/dependency_mean") < 1e-6, "{old}: {}", of("vppo/dependency_mean"));
    }
}

/// The learning rate falls with the training steps, however many prompts dynamic sampling keeps of each.
#[test]
fn kept_prompts_do_not_move_the_learning_rate() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        "actor.optim.lr_scheduler_type=cosine",
        "actor.global_batch_size=1",
        "data.train_files=[\"toy:read?rows=1&cols=1&size=8\"]",
        "data.rollout_batch_size=4",
        "rollout.n=4",
        "algorithm.online_filtering=true",
        "algorithm.filter_key=overall",
        "algorithm.filter_low=-1.9",
        "algorithm.filter_high=1.5",
        "trainer.max_try_make_batch=1",
        "trainer.max_steps=8",
    ];
    let lines = run::<burn_flex::Flex<f32, i32>>(&dir.path().join("run"), &settings).unwrap();
    let kept: Vec<f64> = lines.iter().map(|l| l["filter/kept_share"].as_f64().unwrap()).collect();
    assert!(kept.iter().any(|&k| k > 0.0 && k < 1.0), "{kept:?}");
    let rates: Vec<f64> = lines.iter().filter_map(|l| l.get("actor/lr")?.as_f64()).collect();
    assert!(rates.windows(2).all(|pair| pair[1] < pair[0]), "{rates:?}, kept {kept:?}");
}

/// An algorithm that needs pictures is refused before the first step on data without any.
#[test]
fn perturbed_pictures_need_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"problem\": \"2+2?\", \"answer\": \"4\"}\n").unwrap();
    let data = format!("data.train_files=[{}]", rows.display());
    for algorithm in ["algorithm.shaping=vppo", "algorithm.shaping=pgpo", "algorithm.papo.kl_prcp_coef=0.01"] {
        let error = run::<burn_flex::Flex<f32, i32>>(&dir.path().join(algorithm), &[&data, algorithm]).unwrap_err();
        assert!(error.contains("perturbed picture") && error.contains("data.image_key"), "{algorithm}: {error}");
    }
    // VGPO has nothing to weigh there and trains as its base.
    let lines = run::<burn_flex::Flex<f32, i32>>(
        &dir.path().join("vgpo"),
        &[&data, "algorithm.shaping=vgpo", "trainer.max_steps=1"],
    );
    assert_eq!(lines.unwrap().len(), 1);
}

on!(flex, burn_flex::Flex<f32, i32>: the_reward_rises every_algorithm_learns every_algorithm_runs);
on!(ndarray, burn_ndarray::NdArray<f32>: the_reward_rises);
