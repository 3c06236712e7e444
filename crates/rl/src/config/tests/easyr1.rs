//! EasyR1's files and those of its forks, resolved: values that were read from their sources by hand, and their way
//! into TOML and back.

use std::path::Path;

use super::*;
use crate::config::{Dtype, FunctionArguments, GradsDtype, MomentsDtype, Recompute, convert_easyr1, easyr1_message};
use crate::loss::{EntropyType, KlPenalty, LossAvgMode, SapoConfig};
use crate::shaping::{VgpoSettings, VppoConfig};
use ::reward::RewardType;
use ::vgpo::Variant;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../easyr1/tests/fixtures")
}

fn file(name: &str) -> Source {
    Source::new(name, std::fs::read_to_string(fixtures().join(name)).unwrap())
}

/// The published commands that resolve: script, file, overrides.
fn commands() -> Vec<(String, Source, Vec<String>)> {
    let text = std::fs::read_to_string(fixtures().join("commands.txt")).unwrap();
    let blocks = text.split("\n\n").skip(1).map(|block| {
        let mut lines = block.lines().map(String::from);
        let (script, yaml) = (lines.next().unwrap(), lines.next().unwrap());
        // A variable that the script does not define.
        (script, file(&yaml), lines.filter(|line| !line.ends_with('=')).collect())
    });
    blocks.filter(|(script, ..)| !script.contains("android_gui")).collect()
}

#[track_caller]
fn command(script: &str) -> Config {
    let commands = commands();
    let (_, file, overrides) = commands.into_iter().find(|(name, ..)| name.ends_with(script)).unwrap();
    resolve(&[file], &overrides).unwrap_or_else(|error| panic!("{script}: {error}"))
}

#[test]
fn every_command_resolves_and_its_toml_is_the_same() {
    let commands = commands();
    assert_eq!(commands.len(), 32);
    for (script, yaml, overrides) in commands {
        let files = [yaml];
        let config = resolve(&files, &overrides).unwrap_or_else(|error| panic!("{script}: {error}"));
        let toml = convert_easyr1(&files, &overrides).unwrap();
        let again = resolve(&[Source::new("converted.toml", toml.clone())], &[]);
        assert_eq!(again.unwrap_or_else(|error| panic!("{script}: {error}\n{toml}")), config, "{script}\n{toml}");
        assert!(toml.lines().count() < 120, "{script}: as long as everything there is\n{toml}");
    }
}

#[test]
fn grpo_on_geometry3k() {
    let config = command("qwen2_5_vl_7b_geo3k_grpo.sh");
    assert_eq!(config.model.path, "Qwen/Qwen2.5-VL-7B-Instruct");
    assert_eq!(config.data.train_files[0].path(), "hiyouga/geometry3k@train");
    let data = &config.data;
    assert_eq!((data.prompt_key.as_str(), data.format_prompt.as_str()), ("problem", "math"));
    assert_eq!((data.max_prompt_length, data.max_response_length, data.rollout_batch_size), (2048, 2048, 512));
    assert_eq!((data.min_pixels, data.max_pixels, data.val_batch_size), (262_144, 4_194_304, 1024));
    let rollout = &config.rollout;
    assert_eq!((rollout.n, rollout.temperature, rollout.top_p), (5, 1.0, 1.0));
    assert_eq!((rollout.val_temperature, rollout.val_top_p, rollout.val_n), (0.6, 0.95, 1));
    let algorithm = &config.algorithm;
    assert_eq!((algorithm.adv_estimator.as_str(), algorithm.shaping.as_str()), ("grpo", "none"));
    assert_eq!((algorithm.disable_kl, algorithm.use_kl_loss, algorithm.kl_coef), (false, true, 0.01));
    assert_eq!(algorithm.kl_penalty, KlPenalty::LowVarKl);
    let actor = &config.actor;
    assert_eq!((actor.global_batch_size, actor.clip_ratio_low, actor.clip_ratio_high), (128, 0.2, 0.3));
    assert_eq!((actor.loss_type.as_str(), actor.loss_avg_mode), ("ppo", LossAvgMode::Token));
    assert_eq!((actor.optim.moments_dtype, actor.optim.master_weights), (MomentsDtype::F32, true));
    assert_eq!((actor.optim.lr, actor.recompute, config.trainer.dtype), (1e-6, Recompute::Auto, Dtype::Auto));
    let reward = &config.reward;
    assert_eq!((reward.reward_type, reward.accuracy_weight, reward.format_weight), (RewardType::Math, 0.9, 0.1));
    let trainer = &config.trainer;
    assert_eq!(trainer.run_dir(), Path::new("checkpoints/easy_r1/qwen2_5_vl_7b_geo_grpo"));
    assert_eq!((trainer.total_epochs, trainer.val_freq, trainer.save_freq, trainer.save_limit), (15, 5, 5, 3));
    assert!(!config.model.lora.enable);
    assert_eq!(config.warnings(), []);
}

#[test]
fn other_losses_and_estimators() {
    let cispo = command("geo3k_cispo.sh").actor;
    assert_eq!((cispo.loss_type.as_str(), cispo.clip_ratio_low, cispo.clip_ratio_high), ("cispo", 0.0, 4.0));
    let gspo = command("geo3k_gspo.sh").actor;
    assert_eq!((gspo.loss_type.as_str(), gspo.loss_avg_mode), ("gspo_token", LossAvgMode::Seq));
    let sapo = command("geo3k_sapo.sh");
    assert_eq!(sapo.algorithm.section::<SapoConfig>(), &SapoConfig { tau_positive: 1.0, tau_negative: 1.05 });
    let reinforce = command("geo3k_reinforce.sh").algorithm;
    assert_eq!(reinforce.adv_estimator, "reinforce_plus_plus");
    assert_eq!((reinforce.use_kl_loss, reinforce.kl_penalty, reinforce.kl_coef), (false, KlPenalty::Kl, 1e-3));
    let dapo = command("geo3k_dapo.sh");
    assert_eq!((dapo.actor.clip_ratio_high, dapo.algorithm.online_filtering), (0.28, true));
    // The file's filter key; 20 rounds of 128 prompts are 5 of 512.
    assert_eq!((dapo.algorithm.filter_key.as_str(), dapo.trainer.max_try_make_batch), ("overall", 5));
    let r1v = command("qwen2_5_vl_3b_clevr.sh");
    assert_eq!((r1v.reward.reward_type, r1v.reward.format_weight), (RewardType::R1v, 0.5));
    assert_eq!(r1v.data.format_prompt, "r1v");
}

#[test]
fn lora_and_bf16_state() {
    let lora = command("qwen3_vl_4b_geo3k_grpo_lora.sh").model.lora;
    assert_eq!((lora.enable, lora.rank, lora.alpha), (true, 64, 64.0));
    assert_eq!(lora.target_modules, ::policy::lora::ModuleNames::Pattern("all-linear".into()));
    assert_eq!(lora.exclude_modules, ::policy::lora::ModuleNames::Pattern(".*visual.*".into()));
    let large = command("qwen2_5_vl_32b_geo3k_grpo.sh").actor.optim;
    assert_eq!((large.moments_dtype, large.grads_dtype), (MomentsDtype::Bf16, GradsDtype::Bf16));
    assert!(large.master_weights, "Kahan's compensation keeps as much");
    let dapo = command("qwen3_14b_dapo17k_dapo.sh");
    assert_eq!(dapo.actor.optim.lr_warmup_steps, 160, "10 training steps of 512 / 32 optimizer steps");
    assert_eq!((dapo.reward.reward_type, dapo.reward.overlong_buffer_length), (RewardType::Dapo, 4096));
    assert_eq!((dapo.algorithm.filter_key.as_str(), dapo.algorithm.filter_low), ("accuracy", 0.01));
    assert_eq!((dapo.rollout.val_n, dapo.rollout.val_top_p, dapo.actor.clip_ratio_dual), (16, 0.7, 10.0));
}

#[test]
fn vgpos_command() {
    let config = command("train_vgpo_7B.sh");
    let vgpo = config.algorithm.section::<VgpoSettings>();
    assert_eq!((config.algorithm.shaping.as_str(), vgpo.variant), ("vgpo", Variant::Released));
    assert_eq!((vgpo.beta, vgpo.gamma, vgpo.kappa), (0.3, 0.5, 0.2));
    assert!(vgpo.intra && vgpo.inter && vgpo.compensation && vgpo.gate);
    assert_eq!((config.data.rollout_batch_size, config.rollout.n, config.trainer.total_epochs), (512, 8, 2));
    assert_eq!(
        (config.data.format_prompt.as_str(), config.reward.reward_type),
        ("math_perception", RewardType::MathAccuracy)
    );
    // The file says that KL is off and in the loss; off is what EasyR1 does.
    assert!(config.algorithm.disable_kl && !config.algorithm.use_kl_loss);
    assert!(config.algorithm.online_filtering && config.trainer.max_try_make_batch == 0);
    assert_eq!((config.rollout.val_temperature, config.rollout.top_p), (0.6, 0.99));
    // The bundle of the same paper has the same run but for what it does not take from the released file.
    let bundle = super::presets::trained("qwen2_5_vl_7b", "vgpo_released");
    assert_eq!(bundle.algorithm.section::<VgpoSettings>(), vgpo);
    assert_eq!(bundle.actor.clip_ratio_high, config.actor.clip_ratio_high);
}

#[test]
fn vppos_commands() {
    let config = command("train_vppo_7b.sh");
    let vppo = config.algorithm.section::<VppoConfig>();
    assert_eq!(config.algorithm.shaping, "vppo");
    let expected = VppoConfig {
        mask_probability: 0.5,
        token_filtering: true,
        keep_share: 0.4,
        trajectory_shaping: true,
        beta_min: 0.9,
    };
    assert_eq!(vppo, &expected);
    assert_eq!((config.actor.entropy_coef, config.actor.entropy_type), (0.06, EntropyType::Sampled));
    assert_eq!((config.data.max_pixels, config.rollout.val_n, config.rollout.val_top_p), (1_003_520, 8, 0.99));
    let large = command("train_vppo_8b.sh");
    assert_eq!((large.actor.entropy_coef, large.data.max_response_length, large.trainer.max_steps), (0.12, 8192, 130));
}

#[test]
fn papos_commands() {
    let papo = command("qwen2_5_vl_7b_grpo_papo.sh").algorithm.papo;
    assert_eq!((papo.kl_prcp_coef, papo.mask_probability), (0.02, 0.6));
    assert_eq!((papo.ori_entropy_loss_coef, papo.aug_entropy_loss_coef), (0.05, 0.05));
    let small = command("qwen2_5_vl_3b_grpo_papo.sh").algorithm.papo;
    assert_eq!((small.kl_prcp_coef, small.ori_entropy_loss_coef, small.aug_entropy_loss_coef), (0.02, 0.0, 0.0));
    let dapo = command("qwen2_5_vl_7b_dapo_papo.sh");
    assert_eq!((dapo.algorithm.adv_estimator.as_str(), dapo.algorithm.disable_kl), ("grpo", true));
    assert_eq!((dapo.algorithm.papo.kl_prcp_coef, dapo.algorithm.papo.ori_entropy_loss_coef), (0.01, 0.03));
    assert_eq!(dapo.trainer.max_try_make_batch, 7, "20 rounds of 128 prompts are 7 of 384");
    let plain = command("qwen2_5_vl_7b_dapo.sh").algorithm.papo;
    assert_eq!(plain.kl_prcp_coef, 0.0);
}

/// Both spellings on one command line, EasyR1's where the key is EasyR1's; files behind, this program's.
#[test]
fn own_keys_stand_above() {
    let overrides = ["worker.rollout.n=3", "rollout.val_n=2", "reward.write_images=true", "reward.function=[x.py:f]"];
    let overrides = overrides.map(String::from);
    let own = Source::new("own.toml", "[rollout]\nmax_batch_rows = 7\n[actor]\nmicro_batch_tokens = 4096\n");
    let config = resolve(&[file("easyr1.yaml"), own.clone()], &overrides).unwrap();
    assert_eq!((config.rollout.n, config.rollout.val_n, config.rollout.max_batch_rows), (3, 2, 7));
    let toml = convert_easyr1(&[file("easyr1.yaml"), own.clone()], &overrides).unwrap();
    assert_eq!(resolve(&[Source::new("converted.toml", toml)], &[]).unwrap(), config);

    let late = resolve(&[own, file("easyr1.yaml")], &[]).unwrap_err().to_string();
    assert!(late.contains("name it before the TOML files"), "{late}");
    let name = resolve(&[file("easyr1.yaml")], &["algorithm.name=vgpo".into()]).unwrap_err().to_string();
    assert!(name.contains("`algorithm.name`") && name.contains("algorithm.shaping=vgpo"), "{name}");
    let toml = convert_easyr1(&[Source::new("a.toml", "")], &[]).unwrap_err().to_string();
    assert!(toml.contains("is no file of EasyR1's"), "{toml}");
}

#[test]
fn functions_of_ones_own_are_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.py");
    std::fs::write(&path, "def f(xs):\n    return []\n").unwrap();
    let overrides = [
        format!("worker.reward.reward_function={}:f", path.display()),
        "worker.reward.reward_function_kwargs={\"a\": 1, \"b\": [0.5, \"x\"], \"c\": {\"d\": true}}".to_string(),
    ];
    let config = resolve(&[file("easyr1.yaml")], &overrides).unwrap();
    assert_eq!(config.reward.function, [format!("{}:f", path.display())]);
    let FunctionArguments(arguments) = &config.reward.function_kwargs;
    assert_eq!(arguments["c"]["d"].as_bool(), Some(true));
    let toml = convert_easyr1(&[file("easyr1.yaml")], &overrides).unwrap();
    assert_eq!(resolve(&[Source::new("converted.toml", toml)], &[]).unwrap(), config);
    let printed = Source::new("printed.toml", config.to_toml());
    assert_eq!(resolve(&[printed], &[]).unwrap(), config);
}

#[test]
fn contradictions_name_easyr1s_keys() {
    let overrides = ["worker.rollout.n=1".to_string(), "worker.actor.optim.lr=0".to_string()];
    let said = resolve(&[file("easyr1.yaml")], &overrides).unwrap_err().to_string();
    assert!(
        said.contains("rollout.n (worker.rollout.n, override `worker.rollout.n=1`), algorithm.adv_estimator"),
        "{said}"
    );
    assert!(
        said.contains("actor.optim.lr (worker.actor.optim.lr, override `worker.actor.optim.lr=0`): must be above 0"),
        "{said}"
    );
}

/// They named lines of the TOML that is made of the file, which nobody has.
#[test]
fn values_of_a_wrong_type_name_easyr1s_file() {
    let said = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        let own = Source::new("own.toml", "[data]\nseed = -2\n");
        let files = if overrides.is_empty() { vec![file("easyr1.yaml"), own] } else { vec![file("easyr1.yaml")] };
        resolve(&files, &overrides).unwrap_err().to_string()
    };
    assert_eq!(
        said(&["worker.rollout.n=-1"]),
        "override `worker.rollout.n=-1`: `worker.rollout.n`: expected an integer, 0 or more, found the integer -1 \
         (`rollout.n` here)"
    );
    assert!(said(&[]).starts_with("own.toml:2: `data.seed`: expected"), "{}", said(&[]));
}

#[test]
fn what_means_nothing_is_said_once() {
    let message = easyr1_message(&[file("easyr1.yaml")], &["trainer.n_gpus_per_node=8".into()]).unwrap().unwrap();
    assert!(message.starts_with("easyr1.yaml: "), "{message}");
    assert_eq!(message.matches("worker.rollout.gpu_memory_utilization").count(), 1, "{message}");
    assert!(message.contains("data.format_prompt (easyr1.yaml:16): the file is not here"), "{message}");
    assert_eq!(easyr1_message(&[Source::new("a.toml", "")], &[]).unwrap(), None);
}

/// Whatever a hint or the page names exists.
#[test]
fn every_key_that_is_named_exists() {
    let config = Config::default();
    let sections = config.sections();
    let mut keys: Vec<String> = Vec::new();
    for section in &sections {
        let header = section.header.trim_matches(['[', ']']);
        keys.extend(section.keys.iter().map(|key| format!("{header}.{}", key.name)));
    }
    for target in ::easyr1::targets() {
        assert!(keys.iter().any(|key| key == target), "{target} is no key");
    }
    // In code quotes, and in the reasons, which name keys without.
    let page = ::easyr1::page();
    let names = page.split(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)));
    let roots = ["model.", "data.", "rollout.", "algorithm.", "actor.", "reward.", "parallel."];
    for name in names.filter(|name| roots.iter().any(|root| name.starts_with(root))) {
        let name = name.trim_end_matches('.');
        // `parallel.*` is a section.
        if !name.contains('.') {
            continue;
        }
        let is_easyr1s = ::easyr1::meaning(name).is_some();
        assert!(is_easyr1s || keys.iter().any(|key| key == name), "{name} is named in docs/easyr1.md and is no key");
    }
}

#[test]
fn hints_know_easyr1s_keys() {
    for (key, message) in [
        (
            "worker.actor.model.model_path",
            "EasyR1's `worker.actor.model.model_path` is `model.path` here: it must be given",
        ),
        ("actor.model.model_path", "EasyR1's `worker.actor.model.model_path` is `model.path` here: it must be given"),
        ("worker.actor.ppo_epochs", "EasyR1's `worker.actor.ppo_epochs` is `actor.ppo_epochs` here"),
        (
            "trainer.n_gpus_per_node",
            "EasyR1's `trainer.n_gpus_per_node` means nothing here: one process a device: mpirun -np N train ... \
             (docs/many-gpus.md)",
        ),
        (
            "trainer.val_only",
            "EasyR1's `trainer.val_only` has no counterpart here: `eval` measures a model without training it \
             (docs/evaluation.md)",
        ),
    ] {
        let said = overridden(&[&format!("{key}=1")]).unwrap_err().to_string();
        assert_eq!(said, format!("override `{key}=1`: unknown key `{key}`; {message}"));
    }
    for (text, message) in [
        (
            "[worker.actor]\nppo_epochs = 1\n",
            "`worker.actor.ppo_epochs`; EasyR1's `worker.actor.ppo_epochs` is `actor.ppo_epochs` here",
        ),
        (
            "[actor.model]\nmodel_path = \"x\"\n",
            "`actor.model.model_path`; EasyR1's `worker.actor.model.model_path` is `model.path` here",
        ),
        ("[worker.actor.modl]\npath = \"x\"\n", "`worker`; the prefix `worker.` is EasyR1's"),
    ] {
        let said = with(text).unwrap_err().to_string();
        assert!(said.starts_with("run.toml:1: unknown key ") || said.starts_with("run.toml:2: unknown key "), "{said}");
        assert!(said.contains(&format!("unknown key {message}")), "{said}");
    }
}
