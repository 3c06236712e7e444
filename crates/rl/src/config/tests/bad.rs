//! Each way of writing a file wrongly, with the message a person reads.

use super::*;

#[track_caller]
fn refused(text: &str, message: &str) {
    assert_eq!(with(text).expect_err(text).to_string(), message);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    refused(
        "[algorithm.vgpo]\nvariant = \"paper\"\nbta = 0.3\n",
        "run.toml:3: unknown key `algorithm.vgpo.bta`; did you mean `algorithm.vgpo.beta`?",
    );
    refused(
        "[actor]\ncliprange_low = 0.2\n",
        "run.toml:2: unknown key `actor.cliprange_low`; did you mean `actor.clip_ratio_low`?",
    );
    refused(
        "[rollout]\nbatch_rows = 3\n",
        "run.toml:2: unknown key `rollout.batch_rows`; did you mean `rollout.max_batch_rows`?",
    );
    refused(
        "[actor.optim]\nwarmup_steps = 3\n",
        "run.toml:2: unknown key `actor.optim.warmup_steps`; did you mean `actor.optim.lr_warmup_steps`?",
    );
}

#[test]
fn a_key_of_another_section_is_found_there() {
    refused("[actor]\nlr = 1e-6\n", "run.toml:2: unknown key `actor.lr`; did you mean `actor.optim.lr`?");
    refused(
        "[trainer]\nmask_probability = 0.5\n",
        "run.toml:2: unknown key `trainer.mask_probability`; did you mean `algorithm.papo.mask_probability` or \
         `algorithm.vppo.mask_probability` or `algorithm.srpo.mask_probability`?",
    );
    refused("seed = 3\n", "run.toml:1: unknown key `seed`; did you mean `data.seed` or `trainer.seed`?");
}

#[test]
fn what_is_gone_names_what_to_write_instead() {
    refused(
        "[algorithm.pgpo]\nmask_probability = 0.5\n",
        "run.toml:2: unknown key `algorithm.pgpo.mask_probability`; PGPO compares with a prompt that has no picture \
         (its equation 4), nothing is blacked out any more: leave the key out",
    );
    refused(
        "[algorithm.perturbation]\nalign = \"pixels\"\n",
        "run.toml:2: `algorithm.perturbation.align`: expected one of \"published\", \"grid\", \"stored\", \"resized\", \
         found the string \"pixels\"; what was \"pixels\" is \"stored\" (PAPO's); VPPO's released code has \"resized\"",
    );
    // Another wrong value of the same key has no such history.
    let other = with("[algorithm.perturbation]\nalign = \"patches\"\n").unwrap_err().to_string();
    assert!(other.ends_with("found the string \"patches\""), "{other}");
    assert_eq!(
        overridden(&["algorithm.pgpo.mask_probability=1"]).unwrap_err().to_string(),
        "override `algorithm.pgpo.mask_probability=1`: unknown key `algorithm.pgpo.mask_probability`; PGPO compares \
         with a prompt that has no picture (its equation 4), nothing is blacked out any more: leave the key out"
    );
}

#[test]
fn a_key_like_no_other_gets_the_list() {
    refused(
        "[rollout]\nnucleus_of_beams = 0.6\n",
        "run.toml:2: unknown key `rollout.nucleus_of_beams`; the keys of [rollout] are n, temperature, top_p, \
         max_batch_rows, prefill_token_budget, image_cache_gib, val_temperature, val_top_p, val_n",
    );
    refused(
        "[cluster]\nn = 3\n",
        "run.toml:1: unknown key `cluster`; the sections are model, data, rollout, algorithm, actor, reward, trainer, parallel, \
         stages",
    );
}

#[test]
fn an_unknown_section_names_the_nearest() {
    refused("[algoritm]\nbeta = 0.1\n", "run.toml:1: unknown key `algoritm`; did you mean `algorithm`?");
    refused("[actor.optimizer]\nlr = 1.0\n", "run.toml:1: unknown key `actor.optimizer`; did you mean `actor.optim`?");
    refused("[stage]\nsteps = 1\n", "run.toml:1: unknown key `stage`; did you mean `stages`?");
}

#[test]
fn a_wrong_type_names_key_and_types() {
    refused(
        "[rollout]\nn = \"eight\"\n",
        "run.toml:2: `rollout.n`: expected an integer, 0 or more, found the string \"eight\"",
    );
    refused("[rollout]\nn = 2.5\n", "run.toml:2: `rollout.n`: expected an integer, 0 or more, found the number 2.5");
    refused("[rollout]\nn = -1\n", "run.toml:2: `rollout.n`: expected an integer, 0 or more, found the integer -1");
    refused("[algorithm]\nbeta = true\n", "run.toml:2: `algorithm.beta`: expected a number, found the boolean true");
    refused(
        "[algorithm]\nbeta = inf\n",
        "run.toml:2: `algorithm.beta`: expected a finite number, found the number inf",
    );
    refused("[algorithm]\nintra = 1\n", "run.toml:2: `algorithm.intra`: expected true or false, found the integer 1");
    refused("[model]\npath = 7\n", "run.toml:2: `model.path`: expected a string, found the integer 7");
    refused("[model]\npath = []\n", "run.toml:2: `model.path`: expected a string, found a list");
    refused(
        "[actor.optim]\nbetas = [0.9]\n",
        "run.toml:2: `actor.optim.betas`: expected a list of two numbers, found a list",
    );
    refused(
        "[reward]\ncommand = [\"python3\", 3]\n",
        "run.toml:2: `reward.command`: expected a list of strings, found the integer 3",
    );
    refused(
        "[trainer]\nseed = 2026-01-01\n",
        "run.toml:2: `trainer.seed`: expected an integer, 0 or more, found the date 2026-01-01",
    );
    refused("actor = 3\n", "run.toml:1: `actor`: expected a section [actor], found the integer 3");
}

#[test]
fn a_word_that_is_no_choice_names_the_nearest() {
    refused(
        "[algorithm]\nadv_estimator = \"gpro\"\n",
        "run.toml:2: `algorithm.adv_estimator`: expected one of \"grpo\", \"dr_grpo\", \"rloo\", \"remax\", \
         \"reinforce_plus_plus\", \"grpo_passk\", found the string \"gpro\"; did you mean \"grpo\"?",
    );
    refused(
        "[trainer]\ndtype = \"int4\"\n",
        "run.toml:2: `trainer.dtype`: expected one of \"auto\", \"f32\", \"bf16\", found the string \"int4\"",
    );
    refused(
        "[trainer]\ndtype = 16\n",
        "run.toml:2: `trainer.dtype`: expected one of \"auto\", \"f32\", \"bf16\", found the integer 16",
    );
}

#[test]
fn a_bad_file_entry_is_described() {
    for (value, reason) in [
        ("[3]", "found the integer 3"),
        ("[{ weight = 2.0 }]", "found a table without `path`"),
        ("[{ path = \"a\", wieght = 2.0 }]", "found the key `wieght`"),
    ] {
        refused(
            &format!("[data]\ntrain_files = {value}\n"),
            &format!("run.toml:2: `data.train_files`: expected a string or a table {{path, weight}}, {reason}"),
        );
    }
}

#[test]
fn a_bad_stage_names_its_place() {
    refused(
        "[[stages]]\nstage = \"rl\"\nsteps = 1\n\n[[stages]]\nstage = \"sft\"\nsteps = 1\nlearning = 2\n",
        "run.toml:8: unknown key `stages.1.learning`; the keys of [stages.1] are name, steps, train_files, batch_size, \
         max_response_length, lr, lr_warmup_steps, weight_decay, until_accuracy, check_freq",
    );
    refused(
        "[[stages]]\nsteps = 1\n",
        "run.toml:1: `stages.0.stage`: is missing; write stage = \"sft\" or stage = \"rl\"",
    );
    refused(
        "[[stages]]\nstage = \"pretrain\"\n",
        "run.toml:2: `stages.0.stage`: expected one of \"sft\", \"rl\", found the string \"pretrain\"",
    );
    refused(
        "[[stages]]\nstage = \"rl\"\nsteps = \"many\"\n",
        "run.toml:3: `stages.0.steps`: expected an integer, 0 or more, found the string \"many\"",
    );
    refused(
        "[[stages]]\nstage = \"rl\"\nsteps = 1\nbatch_size = 4\n",
        "run.toml:4: unknown key `stages.0.batch_size`; the keys of [stages.0] are name, steps, train_files",
    );
    refused(
        "stages = \"sft\"\n",
        "run.toml:1: `stages`: expected a list of tables [[stages]], found the string \"sft\"",
    );
}

#[test]
fn what_is_no_toml_names_the_line() {
    let error = with("[actor]\nppo_epochs = \n").unwrap_err().to_string();
    assert!(error.starts_with("run.toml:2: not valid TOML: "), "{error}");
    let error = with("[actor]\nppo_epochs = 1\nppo_epochs = 2\n").unwrap_err().to_string();
    assert_eq!(error, "run.toml:3: not valid TOML: duplicate key");
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Source::read(std::path::Path::new("no/such/file.toml")).unwrap_err().to_string();
    assert!(error.starts_with("no/such/file.toml: cannot read the configuration: "), "{error}");
}
