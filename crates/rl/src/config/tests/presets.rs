//! The files in `configs/`.

use std::path::{Path, PathBuf};

use super::*;
use crate::advantage::Estimator;
use crate::config::Stage;
use crate::loss::LossAvgMode;
use crate::perturb::AlignChoice;
use crate::shaping::ShapingKind;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // study_rows.toml has rows and tables; the folder algorithms/ has additions to other files (tests/train.rs).
    files.retain(|path| path.is_file() && !path.ends_with("study_rows.toml"));
    files.sort();
    files
}

fn preset(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    resolve(&[Source::read(&path).unwrap()], &[]).unwrap()
}

#[test]
fn every_file_resolves_without_a_warning() {
    let files = files();
    assert!(files.len() >= 16, "{files:?}");
    for path in files {
        let source = Source::read(&path).unwrap();
        assert!(source.text.starts_with("# "), "{} says nothing about itself", path.display());
        let config = resolve(&[source], &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings(), [], "{}", path.display());
        let printed = Source::new("printed", config.to_toml());
        assert_eq!(resolve(&[printed], &[]).unwrap(), config, "{}", path.display());
    }
}

#[test]
fn all_algorithms_come_in_all_sizes() {
    for algorithm in ["grpo", "dapo", "vgpo", "vppo", "papo"] {
        for (size, folder) in [("3b", "3B"), ("7b", "7B"), ("32b", "32B")] {
            let config = preset(&format!("{algorithm}_{size}.toml"));
            assert_eq!(config.model.path, format!("Qwen/Qwen2.5-VL-{folder}-Instruct"));
            assert_eq!(config.trainer.output_dir, format!("runs/{algorithm}_{size}"));
            assert_eq!(config.algorithm.adv_estimator, Estimator::Grpo);
            assert_eq!(config.actor.optim.lr, 1e-6);
            assert_eq!(config.update_batch_size(), 128);
        }
    }
}

#[test]
fn vgpo_has_the_papers_settings() {
    let config = preset("vgpo_7b.toml");
    let algorithm = &config.algorithm;
    assert_eq!(algorithm.shaping, ShapingKind::Vgpo);
    assert_eq!((algorithm.beta, algorithm.gamma, algorithm.kappa), (0.3, 0.5, 0.2));
    assert!(algorithm.disable_kl);
    assert_eq!((config.data.rollout_batch_size, config.rollout.n), (512, 8));
    assert_eq!((config.data.max_prompt_length, config.data.max_response_length), (4096, 2048));
    assert_eq!((config.rollout.temperature, config.rollout.top_p), (1.0, 0.99));
    assert_eq!((config.actor.clip_ratio_low, config.actor.clip_ratio_high), (0.2, 0.28));
    assert_eq!((config.actor.optim.weight_decay, config.actor.max_grad_norm), (0.01, 1.0));
    assert_eq!((config.data.min_pixels, config.data.max_pixels), (262_144, 4_194_304));
    assert!(!config.model.freeze_vision_tower);
    assert_eq!((config.rollout.val_temperature, config.rollout.val_n), (0.0, 1));
}

/// The base of VGPO in the paper and in its released run is DAPO with dynamic sampling, for as long as it takes.
#[test]
fn vgpo_filters_as_dapo_does() {
    for size in ["3b", "7b", "32b"] {
        let (vgpo, dapo) = (preset(&format!("vgpo_{size}.toml")), preset(&format!("dapo_{size}.toml")));
        let filter = |config: &Config| {
            let a = &config.algorithm;
            (a.online_filtering, a.filter_key.clone(), a.filter_low, a.filter_high)
        };
        assert_eq!(filter(&vgpo), (true, "accuracy".to_string(), 0.01, 0.99));
        assert_eq!(filter(&vgpo), filter(&dapo));
        assert_eq!(vgpo.trainer.max_try_make_batch, 0);
        assert_eq!(vgpo.actor, dapo.actor);
        assert_eq!((vgpo.algorithm.disable_kl, dapo.algorithm.disable_kl), (true, true));
    }
}

#[test]
fn dr_grpo_replaces_both_denominators() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let read = |name: &str| Source::read(&folder.join(name)).unwrap();
    let config = resolve(&[read("grpo_3b.toml"), read("algorithms/dr_grpo.toml")], &[]).unwrap();
    assert_eq!(config.algorithm.adv_estimator, Estimator::DrGrpo);
    let loss = config.to_loss_config();
    assert_eq!((loss.loss_avg_mode, loss.max_response_length), (LossAvgMode::Constant, 2048));
}

#[test]
fn pictures_are_perturbed_as_the_released_codes_do() {
    for size in ["3b", "7b", "32b"] {
        let align = |algorithm: &str| preset(&format!("{algorithm}_{size}.toml")).algorithm.perturbation.align;
        assert_eq!(align("vppo"), AlignChoice::Resized);
        assert_eq!(align("papo"), AlignChoice::Stored);
    }
}

/// As its released script; what it does not name is 7B's.
#[test]
fn vppo_8b_is_the_released_run() {
    let (config, seven) = (preset("vppo_8b.toml"), preset("vppo_7b.toml"));
    assert_eq!(config.model.path, "Qwen/Qwen3-VL-8B-Instruct");
    assert_eq!((config.trainer.max_steps, config.data.max_response_length), (130, 8192));
    assert_eq!(config.actor.entropy_coef, 0.12);
    assert_eq!(config.update_batch_size(), 128);
    assert_eq!((config.data.rollout_batch_size, config.rollout.n, config.rollout.val_n), (384, 8, 8));
    assert_eq!(config.algorithm, seven.algorithm);
    assert_eq!(config.actor.optim, seven.actor.optim);
    assert_eq!(preset("vgpo_2b.toml").model.path, "Qwen/Qwen2-VL-2B-Instruct");
    assert_eq!(preset("vgpo_2b.toml").algorithm, preset("vgpo_7b.toml").algorithm);
}

#[test]
fn the_toy_run_warms_up_and_then_learns_by_reward() {
    let config = preset("toy.toml");
    let kinds: Vec<bool> = config.stages().iter().map(|stage| matches!(stage, Stage::Rl(_))).collect();
    assert_eq!(kinds, [false, false, false, false, false, true]);
    assert_eq!(config.update_batch_size(), config.data.rollout_batch_size);
}

#[test]
fn without_stages_there_is_one_of_rl() {
    let config = preset("grpo_3b.toml");
    assert_eq!(config.stages(), [Stage::Rl(Default::default())]);
    assert_eq!(config.train_files(&config.stages()[0]), config.data.train_files);
}
