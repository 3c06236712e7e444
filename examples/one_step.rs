//! One step of reinforcement learning, written out: `cargo run --example one_step`.
//!
//! Two problems of the toy world, four responses each, on the CPU with fixed seeds: each run prints the same numbers.
//! The trainer calls the same functions ([`rl::trainer`]); what it adds is the loop, the run folder, checkpoints and
//! validation.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::Flex;
use data::Cursor;
use launch::toy_world;
use model_qwen2vl::QwenVl;
use reward::{Reward, Score};
use rl::prelude::*;

type B = Flex<f32, i32>; // weights and activations in f32

const SETTINGS: &str = r#"
data = { train_files = ["toy:sum?rows=2&cols=2"], format_prompt = "none", max_response_length = 12, rollout_batch_size = 2 }
rollout = { n = 4 }
algorithm = { adv_estimator = "grpo", shaping = "vgpo" }
actor = { global_batch_size = 2, old_log_probs = "rollout", optim = { lr = 1e-3 } }
"#;

fn shown(values: &[f32]) -> String {
    values.iter().map(|v| format!("{v:7.3}")).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = resolve(&[Source::new("one_step", SETTINGS)], &[])?;
    let (architecture, processor, eos) = toy_world()?;
    let suppress = never_sampled(architecture.vision_token_ids(), &processor, architecture.text.vocab_size);
    let mut policy = QwenVl::<B>::random(architecture, 1, DType::F32, &Default::default());
    let (recipe, mut images) = (Recipe::<B>::new(&config)?, ImageCache::new(1.0));

    println!("1. Prompts: rows of the data, as ids, positions and patches");
    let prompts = Prompts::open(&config.data.train_files, "data.train_files", &config, processor.clone())?;
    let (mut cursor, mut aside) = (Cursor::new(config.data.seed), SetAside::default());
    let items = prompts.next(&mut cursor, 2, &policy, &mut aside, &mut |note| println!("{note}"))?;
    for Item { id, problem, answer, prompt, .. } in &items {
        println!("   {id}: {problem:?}, answer {answer}; {} tokens, grid {:?}", prompt.len(), prompt.image_grid_thw);
    }

    println!("2. Sample: four responses per prompt, with log-probs and visual focus (equations 2-4) as by-products");
    let rollout = RolloutConfig {
        n: config.rollout.n,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: 1 },
        max_new_tokens: config.data.max_response_length,
        min_new_tokens: 2,
        eos,
        suppress,
        focus: recipe.focus(),
        max_batch_rows: config.rollout.max_batch_rows,
        prefill_token_budget: config.rollout.prefill_token_budget,
    };
    let jobs: Vec<Job> = items.iter().map(|item| Job { prompt: &item.prompt, key: item.row as u64 }).collect();
    let never = AtomicBool::new(false);
    let (responses, stats) = generate(&policy, &jobs, &rollout, &mut images, &never, |_, _, _| {})?;
    println!("   {} response tokens in {} decoding steps", stats.response_tokens, stats.decode_steps);

    println!("3. Grade and select: one record per response");
    // An untrained model solves nothing, so the reward is what it can do: the share of digits in its text.
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count() as f64;
    let mut reward = Reward::from_fn(move |r| Score {
        overall: digits(r.response) / r.response.len().max(1) as f64,
        ..Score::default()
    });
    let groups = grade(items, responses, &processor, &mut reward)?;
    let groups = select(groups, &config.algorithm)?;

    println!("4. Experience: GRPO's advantage per response, VGPO's per token");
    let (training, ranks, processor) = (Training { step: 0, max_steps: 1 }, &Ranks::solo(), Some(&*processor));
    let context = StepContext { config: &config, recipe: &recipe, processor, step: 0, training, ranks };
    let (experience, _) = make(&policy, None, groups, &context, &mut images)?;
    for (g, group) in experience.groups.iter().enumerate() {
        for (r, t) in group.trajectories.iter().enumerate() {
            println!("   group {g}, response {r}: {:?} {:?}, reward {:.3}", t.text, t.finish, t.score.overall);
            let n = t.ids.len().min(6);
            println!("      old log-probs {}", shown(&t.old_log_probs[..n]));
            println!("      visual focus  {}", shown(&t.streams.visual_focus.as_deref().unwrap_or_default()[..n]));
            println!("      advantages    {}", shown(&t.advantages[..n]));
        }
    }

    println!("5. Gradients: at the policy that sampled, the loss is -(1/M) sum of A_t log p_t over all M tokens");
    let refs = experience.refs();
    let tokens: usize = experience.trajectories().map(|t| t.ids.len()).sum();
    let (temperature, token_budget) = (1.0, config.actor.micro_batch_tokens);
    let options = GradientOptions { temperature, entropy: false, token_budget, train_vision: true, recompute: false };
    let mut grads = gradients(&config.actor.optim);
    accumulate(&policy, &mut images, &refs, &options, &mut grads, |micro| -> Result<_, TrainError> {
        // A micro-batch names its responses by (group, response): the records are found without counting.
        let records = micro.micro.iter().flat_map(|(g, rs)| rs.iter().map(|&r| &experience.groups[*g].trajectories[r]));
        let d: Vec<f32> = records.flat_map(|t| t.advantages.iter().map(|a| -a / tokens as f32)).collect();
        println!("   a micro-batch of {} responses and {} tokens", micro.lengths.len(), d.len());
        let log_probs = Tensor::from_data(TensorData::from(&d[..]), &micro.log_probs.device());
        Ok(MicroGradients { log_probs, entropy: None })
    })?;

    println!("6. AdamW: clip the global norm, one step");
    let (actor, mut optimizer) = (&config.actor, AdamW::new(&config.actor.optim));
    let lr = learning_rate(&actor.optim, 1, 1);
    let outcome = optimizer.step(&mut policy, grads, lr, actor.optim.weight_decay, actor.max_grad_norm)?;
    println!("   gradient norm {:.4}, learning rate {lr}, applied {}", outcome.grad_norm, outcome.applied);

    println!("7. What the step did: log-probs follow large advantages; small ones drown in the rest");
    // The tower has learned: what it made of the pictures before is not what it makes of them now.
    images.clear();
    let request = ScoreRequest { temperature, entropy: false, focus: None, dependency: false, token_budget };
    let after = score(&policy, &mut images, &refs, &request)?;
    for (t, after) in std::iter::zip(experience.trajectories(), after.iter().flatten()) {
        let [a, old, new] = [&t.advantages, &t.old_log_probs, &after.log_probs].map(|v| v.iter().sum::<f32>());
        println!("   sum of advantages {a:7.3}: log-prob {old:8.3} -> {new:8.3}");
    }
    Ok(())
}
