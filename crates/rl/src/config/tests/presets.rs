//! The files in `configs/`, and what `algorithm.name` brings along.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::Stage;
use crate::config::bundles::BUNDLES;
use crate::loss::{LossAvgMode, SapoConfig};
use crate::perturb::AlignChoice;
use crate::shaping::{PepoConfig, PgpoConfig, VgpoSettings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn file(name: &str) -> Source {
    Source::read(&folder().join(format!("{name}.toml"))).unwrap()
}

/// A model file with a published algorithm.
pub(super) fn trained(model: &str, algorithm: &str) -> Config {
    resolve(&[file(model)], &[format!("algorithm.name={algorithm}")]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_file_resolves_without_a_warning() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // study_rows.toml has rows and tables, lora_toy.toml is put over toy.toml.
    files
        .retain(|path| path.is_file() && !["study_rows.toml", "lora_toy.toml"].iter().any(|name| path.ends_with(name)));
    assert_eq!(files.len(), 8, "{files:?}");
    let adapted = resolve(&[file("toy"), file("lora_toy")], &[]).unwrap();
    assert_eq!(adapted.warnings(), [], "lora_toy over toy");
    for path in files {
        let source = Source::read(&path).unwrap();
        assert!(source.text.starts_with("# "), "{} says nothing about itself", path.display());
        let command = source.text.lines().find_map(|line| line.strip_prefix("#   train "));
        let overrides: Vec<String> =
            command.iter().flat_map(|command| command.split(' ').skip(2)).map(String::from).collect();
        let config = resolve(&[source], &overrides).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings(), [], "{}", path.display());
        let printed = Source::new("printed", config.to_toml());
        assert_eq!(resolve(&[printed], &[]).unwrap(), config, "{}", path.display());
    }
}

/// Every bundle is a whole run, says where it is from, and has a row in the documentation.
#[test]
fn every_bundle_resolves_without_a_warning() {
    let docs = std::fs::read_to_string(folder().join("../docs/algorithms.md")).unwrap();
    for bundle in BUNDLES {
        let config = trained("qwen2_5_vl_7b", bundle.name);
        assert_eq!(config.warnings(), [], "{}", bundle.name);
        assert_eq!(config.algorithm.name, bundle.name);
        assert!(bundle.about().len() > 40, "{} says nothing about itself", bundle.name);
        assert!(docs.contains(&format!("`{}`", bundle.name)), "docs/algorithms.md does not name {}", bundle.name);
        let printed = Source::new("printed", config.to_toml());
        assert_eq!(resolve(&[printed], &[]).unwrap(), config, "{}", bundle.name);
        // The toy world takes any of them.
        resolve(&[file("toy")], &[format!("algorithm.name={}", bundle.name)]).unwrap();
    }
}

#[test]
fn a_bundle_stands_below_every_file_and_override() {
    let first = Source::new("first.toml", "[algorithm.vgpo]\nkappa = 0.7\n[rollout]\nn = 3\n");
    let name = Source::new("name.toml", "[algorithm]\nname = \"vgpo\"\n");
    // The name in a later file, in an earlier one, and on the command line: the keys win all the same.
    let given = |files: &[Source], overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        let config = resolve(files, &overrides).unwrap();
        let vgpo = config.algorithm.section::<VgpoSettings>().clone();
        (config.algorithm.shaping, vgpo.kappa, config.rollout.n, vgpo.beta)
    };
    let expected = ("vgpo".to_string(), 0.7, 3, 0.3);
    assert_eq!(given(&[first.clone(), name.clone()], &[]), expected);
    assert_eq!(given(&[name.clone(), first.clone()], &[]), expected);
    assert_eq!(given(std::slice::from_ref(&first), &["algorithm.name=vgpo"]), expected);
    assert_eq!(given(&[name, first], &["algorithm.name=dapo", "algorithm.vgpo.beta=0.5"]).0, "none");
    for (name, end) in [
        ("vpgo", "no published algorithm is named \"vpgo\"; did you mean \"vgpo\"?"),
        ("gae", "; the published algorithms are grpo, dr_grpo, "),
    ] {
        let error = overridden(&[&format!("algorithm.name={name}")]).unwrap_err().to_string();
        assert!(error.contains(end), "{error}");
    }
}

/// What the small files of earlier versions set.
#[test]
fn bundles_have_their_papers_settings() {
    let of = |name: &str| trained("qwen2_5_vl_3b", name);
    let dr_grpo = of("dr_grpo");
    assert_eq!(dr_grpo.algorithm.adv_estimator, "dr_grpo");
    let loss = dr_grpo.to_loss_config();
    assert_eq!((loss.loss_avg_mode, loss.max_response_length), (LossAvgMode::Constant, 2048));
    let pgpo = of("pgpo");
    assert_eq!(pgpo.algorithm.section::<PgpoConfig>(), &PgpoConfig { tau: 0.4, beta: 2.0 });
    assert!(pgpo.algorithm.online_filtering);
    let pepo = of("pepo");
    assert_eq!(pepo.algorithm.section::<PepoConfig>(), &PepoConfig { gate_alpha: 0.05, gate_temperature: 1.8 });
    assert_eq!((pepo.algorithm.kl_coef, pepo.actor.loss_avg_mode), (0.001, LossAvgMode::Seq));
    let sapo = of("sapo");
    assert_eq!(sapo.algorithm.section::<SapoConfig>(), &SapoConfig { tau_positive: 1.0, tau_negative: 1.05 });
    let papo = of("papo_d").algorithm;
    assert_eq!((papo.papo.kl_prcp_coef, papo.disable_kl, papo.online_filtering), (0.01, true, true));
    for name in ["rloo", "remax", "grpo_passk", "reinforce_plus_plus"] {
        assert_eq!(of(name).algorithm.adv_estimator, name);
    }
}

/// The base of VGPO in the paper and in its released run is DAPO with dynamic sampling, for as long as it takes.
#[test]
fn vgpo_filters_as_dapo_does() {
    let (vgpo, dapo) = (trained("qwen2_5_vl_7b", "vgpo"), trained("qwen2_5_vl_7b", "dapo"));
    let filter = |config: &Config| {
        let a = &config.algorithm;
        (a.online_filtering, a.filter_key.clone(), a.filter_low, a.filter_high)
    };
    assert_eq!(filter(&vgpo), (true, "accuracy".to_string(), 0.01, 0.99));
    assert_eq!(filter(&vgpo), filter(&dapo));
    assert_eq!(vgpo.trainer.max_try_make_batch, 0);
    assert_eq!(vgpo.actor, dapo.actor);
}

#[test]
fn pictures_are_perturbed_as_the_released_codes_do() {
    let align = |algorithm: &str| trained("qwen2_5_vl_7b", algorithm).algorithm.perturbation.align;
    assert_eq!(align("vppo"), AlignChoice::Resized);
    assert_eq!(align("papo_g"), AlignChoice::Stored);
}

/// As its released script; what it does not name is 7B's.
#[test]
fn vppo_8b_is_the_released_run() {
    let (config, seven) = (trained("qwen3_vl_8b", "vppo_8b"), trained("qwen2_5_vl_7b", "vppo"));
    assert_eq!(config.model.path, "Qwen/Qwen3-VL-8B-Instruct");
    assert_eq!((config.trainer.max_steps, config.data.max_response_length), (130, 8192));
    assert_eq!(config.actor.entropy_coef, 0.12);
    assert_eq!(config.update_batch_size(), 128);
    assert_eq!((config.data.rollout_batch_size, config.rollout.n, config.rollout.val_n), (384, 8, 8));
    assert_eq!(config.algorithm.methods, seven.algorithm.methods);
    assert_eq!(config.actor.optim, seven.actor.optim);
    assert_eq!(trained("qwen2_vl_2b", "vgpo").model.path, "Qwen/Qwen2-VL-2B-Instruct");
}

#[test]
fn files_that_are_gone_name_what_to_write() {
    for (path, instead) in [
        ("configs/vgpo_7b.toml", "--config configs/qwen2_5_vl_7b.toml algorithm.name=vgpo"),
        ("configs/papo_3b.toml", "--config configs/qwen2_5_vl_3b.toml algorithm.name=papo_g_3b"),
        ("configs/vppo_8b.toml", "--config configs/qwen3_vl_8b.toml algorithm.name=vppo_8b"),
        ("configs/algorithms/pgpo.toml", "write algorithm.name=pgpo"),
        ("configs/algorithms/vgpo_full.toml", "write algorithm.name=vgpo algorithm.vgpo.gate=false"),
    ] {
        let error = Source::read(Path::new(path)).unwrap_err().to_string();
        assert!(error.starts_with(path) && error.ends_with(instead), "{error}");
    }
    let error = Source::read(Path::new("configs/mine.toml")).unwrap_err().to_string();
    assert!(!error.contains("write"), "{error}");
}

/// The keys that moved, in files and as overrides.
#[test]
fn earlier_spellings_mean_what_they_meant() {
    let config = with("[algorithm]\nbeta = 0.1\ndiscount = 0.9\n[actor]\nsapo_tau_positive = 2.0\n").unwrap();
    assert_eq!(config.algorithm.section::<VgpoSettings>().beta, 0.1);
    assert_eq!(config.algorithm.section::<SapoConfig>().tau_positive, 2.0);
    let printed = config.to_toml();
    assert!(printed.contains("[algorithm.vgpo]") && printed.contains("beta = 0.1\n") && !printed.contains("sapo_tau"));
    let both = with("[algorithm]\nbeta = 0.1\n[algorithm.vgpo]\nbeta = 0.2\n").unwrap_err().to_string();
    assert_eq!(
        both,
        "run.toml:2: `algorithm.beta`: is the earlier spelling of `algorithm.vgpo.beta`, which stands in this file too; \
         leave one out"
    );
    // A later file in either spelling wins.
    let later = Source::new("later.toml", "[algorithm]\nbeta = 0.4\n");
    let first = Source::new("first.toml", "[algorithm.vgpo]\nbeta = 0.2\n");
    let config = resolve(&[Source::new("small.toml", SMALL), first, later], &[]).unwrap();
    assert_eq!(config.algorithm.section::<VgpoSettings>().beta, 0.4);
}

#[test]
fn the_toy_run_warms_up_and_then_learns_by_reward() {
    let config = resolve(&[file("toy")], &[]).unwrap();
    let kinds: Vec<bool> = config.stages().iter().map(|stage| matches!(stage, Stage::Rl(_))).collect();
    assert_eq!(kinds, [false, false, false, false, false, true]);
    assert_eq!(config.update_batch_size(), config.data.rollout_batch_size);
    // The toy data of the default run can be opened.
    let open = |files: &[::data::DataSpec]| ::data::Dataset::open(files, &config.to_keys(), None);
    for stage in config.stages() {
        let data = open(config.train_files(&stage)).unwrap_or_else(|error| panic!("{error}"));
        let sample = data.get(0).unwrap();
        assert!(sample.solution.is_some() && !sample.images.is_empty());
    }
    open(&config.data.val_files).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn without_stages_there_is_one_of_rl() {
    let config = trained("qwen2_5_vl_3b", "grpo");
    assert_eq!(config.stages(), [Stage::Rl(Default::default())]);
    assert_eq!(config.train_files(&config.stages()[0]), config.data.train_files);
}
