//! Overrides from the command line.

use super::*;
use ::data::DataSpec;
use ::data::dataset::WeightedSpec;
use ::reward::RewardType;

use crate::config::Stage;
use crate::shaping::VgpoSettings;

#[test]
fn every_kind_of_value_can_be_overridden() {
    let config = overridden(&[
        "algorithm.beta=0.1",
        "algorithm.shaping=vgpo",
        "algorithm.intra=False",
        "algorithm.papo.kl_prcp_coef=1e-2",
        "actor.optim.betas=[0.9, 0.95]",
        "actor.optim.lr = 3e-6",
        "rollout.n=8",
        "model.init=7b",
        "model.path=models/a b",
        "reward.reward_type=\"math_accuracy\"",
        "reward.command=[python3, my reward.py, 3]",
        "trainer.experiment_name=7",
        "data.system_prompt=a = b",
    ])
    .unwrap();
    let vgpo = config.algorithm.section::<VgpoSettings>();
    assert_eq!((vgpo.beta, vgpo.intra), (0.1, false));
    assert_eq!(config.algorithm.shaping, "vgpo");
    assert_eq!(config.algorithm.papo.kl_prcp_coef, 0.01);
    assert_eq!(config.actor.optim.betas, [0.9, 0.95]);
    assert_eq!(config.actor.optim.lr, 3e-6);
    assert_eq!(config.rollout.n, 8);
    assert_eq!(config.model.init, "7b");
    assert_eq!(config.model.path, "models/a b");
    assert_eq!(config.reward.reward_type, RewardType::MathAccuracy);
    assert_eq!(config.reward.command, ["python3", "my reward.py", "3"]);
    assert_eq!(config.trainer.experiment_name, "7");
    assert_eq!(config.data.system_prompt, "a = b");
}

#[test]
fn lists_may_be_bare() {
    let files = |text: &str| overridden(&[&format!("data.val_files={text}")]).unwrap().data.val_files;
    let two = [DataSpec::from("a.parquet"), DataSpec::from("b@test")];
    assert_eq!(files("[a.parquet,b@test]"), two);
    assert_eq!(files("[a.parquet, \"b@test\"]"), two);
    assert_eq!(files("[\"a.parquet\", \"b@test\"]"), two);
    assert_eq!(files("a.parquet"), two[..1]);
    assert_eq!(files("toy:sum?rows=2&cols=2"), [DataSpec::from("toy:sum?rows=2&cols=2")]);
    assert_eq!(files(""), []);
    assert_eq!(files("[]"), []);
    let weighted = files("[{ path = \"a\", weight = 2 }, \"b\"]");
    assert_eq!(
        weighted,
        [DataSpec::Weighted(WeightedSpec { path: "a".to_string(), weight: 2.0 }), DataSpec::from("b")]
    );
    // Also in a file, one string is a list of one.
    assert_eq!(with("[data]\nval_files = \"a\"\n").unwrap().data.val_files, [DataSpec::from("a")]);
}

#[test]
fn a_stage_is_named_by_its_place() {
    let file = Source::new(
        "run.toml",
        format!(
            "{SMALL}[[stages]]\nstage = \"sft\"\nname = \"warm\"\nsteps = 10\n[[stages]]\nstage = \"rl\"\nsteps = 5\n"
        ),
    );
    let resolve = |text: &str| resolve(std::slice::from_ref(&file), &[text.to_string()]);
    let config = resolve("stages.0.steps=100").unwrap();
    let [Stage::Sft(first), Stage::Rl(second)] = config.stages.as_slice() else {
        panic!("two stages, sft and rl");
    };
    assert_eq!((first.steps, second.steps), (100, 5));
    let config = resolve("stages.1.train_files=toy:read").unwrap();
    assert_eq!(config.train_files(&config.stages[1]), [DataSpec::from("toy:read")]);
    assert_eq!(config.train_files(&config.stages[0]), [DataSpec::from("toy:sum")]);
    assert!(resolve("stages=[]").unwrap().stages.is_empty());
    for (text, message) in [
        ("stages.2.steps=1", "`stages.2`: is no stage; there are 2, 0 to 1"),
        ("stages.first.steps=1", "`stages.first`: is no stage; there are 2, 0 to 1"),
        ("stages.0.stage=rl", "`stages.0.stage`: cannot be changed by an override; write the stage in a file"),
        ("stages.0.stps=1", "unknown key `stages.0.stps`; did you mean `stages.0.steps`?"),
    ] {
        assert_eq!(resolve(text).unwrap_err().to_string(), format!("override `{text}`: {message}"));
    }
    assert_eq!(
        overridden(&["stages.0.steps=1"]).unwrap_err().to_string(),
        "override `stages.0.steps=1`: `stages.0`: names a stage, but there are no stages"
    );
}

#[test]
fn later_files_and_overrides_win_key_by_key() {
    let config = resolve(
        &[
            Source::new(
                "a.toml",
                "[data]\ntrain_files = [\"a\", \"b\"]\nseed = 1\n[actor.optim]\nlr = 1e-3\neps = 1e-5\n",
            ),
            Source::new("b.toml", "[data]\ntrain_files = [\"c\"]\n[actor.optim]\nlr = 1e-4\n"),
        ],
        &["data.seed=2".to_string(), "data.seed=3".to_string()],
    )
    .unwrap();
    assert_eq!(config.data.train_files, [DataSpec::from("c")]);
    assert_eq!(config.data.seed, 3);
    assert_eq!((config.actor.optim.lr, config.actor.optim.eps), (1e-4, 1e-5));
}

#[test]
fn an_override_that_is_none_is_explained() {
    for (text, message) in [
        ("algorithm.beta", "override `algorithm.beta`: has no `=`; write section.key=value"),
        ("=3", "override `=3`: has an empty key; write section.key=value"),
        ("algorithm..beta=3", "override `algorithm..beta=3`: has an empty key; write section.key=value"),
        ("--algorithm.beta=3", "override `--algorithm.beta=3`: write section.key=value, without dashes"),
        (
            "algorithm.bta=3",
            "override `algorithm.bta=3`: unknown key `algorithm.bta`; did you mean `algorithm.vgpo.beta`?",
        ),
        (
            "algoritm.kl_coef=3",
            "override `algoritm.kl_coef=3`: unknown key `algoritm.kl_coef`; did you mean `algorithm.kl_coef`?",
        ),
        (
            "beta=3",
            "override `beta=3`: unknown key `beta`; did you mean `algorithm.vgpo.beta` or `algorithm.pgpo.beta`?",
        ),
        (
            "algorithm.beta=x",
            "override `algorithm.beta=x`: `algorithm.beta`: expected a number, found the string \"x\"",
        ),
        (
            "algorithm.vgpo.beta.x=1",
            "override `algorithm.vgpo.beta.x=1`: `algorithm.vgpo.beta`: is a key and has none below it",
        ),
        (
            "model=toy",
            "override `model=toy`: `model`: is a section; set one of its keys: path, family, init, init_seed, freeze_vision_tower, adapter, lora",
        ),
        (
            "rollout.n=1\nevil = 2",
            "override `rollout.n=1\nevil = 2`: `rollout.n`: expected an integer, 0 or more, found the string \"1\\nevil = 2\"",
        ),
    ] {
        assert_eq!(overridden(&[text]).unwrap_err().to_string(), message);
    }
}

/// A list of stages has many words, and may be written over several lines; a second key on a line of its own is
/// refused.
#[test]
fn a_list_may_go_over_several_lines() {
    let two = "stages=[\n  { stage = \"sft\", name = \"read\", steps = 3, train_files = [\n    \"toy:read\",\n  ] },\n  \
               { stage = \"rl\", steps = 4 },\n]";
    let config = overridden(&[two]).unwrap();
    let [Stage::Sft(read), Stage::Rl(rl)] = &config.stages[..] else { panic!("{:?}", config.stages) };
    assert_eq!((read.name.as_str(), read.steps, rl.steps), ("read", 3, 4));
    let more = overridden(&[&format!("{two}\nevil = 2")]).unwrap_err().to_string();
    assert!(more.contains("expected a list of tables [[stages]]"), "{more}");
}
