//! PGPO's token visual dependency on a model: the divergence to the prediction without the picture, dense and in f64
//! as the oracle.

use crate::common::{difference, mixed_prompts, model, processor, rollout, sample};
use crate::engine::items;
use burn_flex::Flex;
use data::{Dataset, FormatPrompt, Keys, build_prompt};
use model_qwen2vl::model::{Images, PackedBatch, Prompt};
use model_qwen2vl::{Kernels, QwenVl};
use reward::{Reward, RewardConfig};
use rl::config::{Source, resolve};
use rl::experience::{Experience, StepContext, grade, make};
use rl::image_cache::ImageCache;
use rl::learn::{GroupRef, Pass, ScoreRequest, passes, score};
use rl::policy::Scoring;

use rl::recipe::Recipe;
use rl::shaping::{PgpoConfig, Training, pgpo::token_weights};

type B = Flex<f32, i32>;

const TEMPERATURE: f64 = 0.8;

/// `log softmax(logits / temperature)` of every token of a response, `[T][V]`, alone in its batch.
fn dense<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, response: &[u32]) -> Vec<Vec<f64>> {
    let device = model.device();
    let batch = PackedBatch::new(&model.config, &[(prompt, vec![response])], &device);
    let images = Images::new(&model.config, [prompt], &device).map(|images| model.encode_images(&images));
    let hidden = model.hidden(&batch, images);
    let (first, d) = (prompt.len() - 1, hidden.dims()[1]);
    let logits = model.logits(hidden.slice([first..first + response.len(), 0..d]));
    let vocab = logits.dims()[1];
    let logits: Vec<f32> = logits.into_data().convert::<f32>().to_vec().unwrap();
    let row = |z: &[f32]| -> Vec<f64> {
        let z: Vec<f64> = z.iter().map(|&z| f64::from(z) / TEMPERATURE).collect();
        let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        z.iter().map(|z| z - lse).collect()
    };
    logits.chunks(vocab).map(row).collect()
}

/// `sum_v p_v (log p_v - log q_v)` of each token, `p` with the picture.
fn naive<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, text: &Prompt, response: &[u32]) -> Vec<f32> {
    let kl = |(p, q): (Vec<f64>, Vec<f64>)| p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() as f32;
    dense(model, prompt, response).into_iter().zip(dense(model, text, response)).map(kl).collect()
}

/// The ids of a prompt without image tokens, vision starts and vision ends, written out.
fn text_of<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt) -> Prompt {
    let config = &model.config;
    let gone = [config.image_token_id, config.vision_start_token_id, config.vision_end_token_id];
    let ids = prompt.input_ids.iter().copied().filter(|id| !gone.contains(id)).collect();
    model.prompt(ids, vec![], vec![]).unwrap()
}

fn request(dependency: bool, token_budget: usize) -> ScoreRequest {
    ScoreRequest { temperature: TEMPERATURE, entropy: false, focus: None, dependency, token_budget }
}

#[test]
fn the_dependency_is_the_divergence_to_the_text_alone() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let responses: Vec<Vec<u32>> = (0..4u32).map(|r| (0..3 + 4 * r).map(|t| (29 * r + 7 * t) % 50).collect()).collect();
    let groups: Vec<GroupRef> = prompts
        .iter()
        .map(|prompt| GroupRef { prompt, responses: responses.iter().map(|r| &r[..]).collect() })
        .collect();
    let none = || ImageCache::default();
    assert!(passes(&groups, 45).iter().any(|pass| matches!(pass, Pass::Parts(..))), "a group is split");
    let plain = score(&model, &mut none(), &groups, &request(false, 100_000)).unwrap();
    for budget in [1, 45, 120, 100_000] {
        let found = score(&model, &mut none(), &groups, &request(true, budget)).unwrap();
        for (g, prompt) in prompts.iter().enumerate() {
            for (r, response) in responses.iter().enumerate() {
                let scores = &found[g][r];
                assert!(difference(&scores.log_probs, &plain[g][r].log_probs) < 1e-4, "budget {budget}");
                assert_eq!(plain[g][r].token_visual_dependency, None);
                let Some(dependency) = &scores.token_visual_dependency else {
                    assert!(prompt.image_grid_thw.is_empty(), "group {g} has a picture");
                    continue;
                };
                assert!(!prompt.image_grid_thw.is_empty(), "group {g} has no picture");
                let expected = naive(&model, prompt, &text_of(&model, prompt), response);
                let largest = expected.iter().copied().fold(0.0, f32::max);
                assert!(largest > 1e-3, "the picture matters: {expected:?}");
                let gap = difference(dependency, &expected);
                assert!(gap < 1e-4 * (1.0 + largest), "budget {budget}, group {g}: {dependency:?} {expected:?}");
            }
        }
    }
}

/// What is left of a prompt is what the chat template writes of the same message without its picture.
#[test]
fn the_text_is_the_prompt_of_the_same_message_without_a_picture() {
    let (model, processor) = (model::<B>(), processor());
    let format = FormatPrompt::new("none").unwrap();
    let spec = "toy:read?rows=1&cols=1&size=1".to_string().into();
    let mut row = Dataset::open(&[spec], &Keys::default(), None).unwrap().get(0).unwrap();
    let prompt = mixed_prompts(&model).remove(0);
    assert_eq!(row.images.len(), 1);
    row.problem = row.problem.replace("<image>", "");
    row.images.clear();
    let written = build_prompt(&row, &format, &processor, None).unwrap().input_ids;
    let text = model.without_images(&prompt).unwrap();
    assert_eq!(text.input_ids, written);
    assert!(text.len() < prompt.len() && text.next_position() == text.len() as i64);
}

fn experience(old_log_probs: &str) -> Experience {
    let (model, processor) = (model::<B>(), processor());
    let prompts = mixed_prompts(&model);
    let responses = sample(&model, &prompts.iter().collect::<Vec<_>>(), &rollout(&model, 4, 12));
    let mut reward = Reward::new(&RewardConfig::default()).unwrap();
    let mut groups = grade(items(&prompts), responses, &processor, &mut reward).unwrap();
    for (g, group) in groups.iter_mut().enumerate() {
        for (r, trajectory) in group.trajectories.iter_mut().enumerate() {
            trajectory.score.overall = ((g + 3 * r) % 4) as f64 / 3.0;
        }
    }
    let toml = format!(
        "[data]\ntrain_files = [\"toy:sum\"]\n[rollout]\ntemperature = {TEMPERATURE}\n\
         [algorithm]\nshaping = \"pgpo\"\n[actor]\nold_log_probs = \"{old_log_probs}\"\n"
    );
    let config = resolve(&[Source::new("test", &toml)], &[]).unwrap();
    let context = StepContext {
        config: &config,
        recipe: &Recipe::new(&config).unwrap(),
        processor: Some(&processor),
        step: 1,
        training: Training { step: 0, max_steps: 1 },
        ranks: &rl::comm::Ranks::solo(),
    };
    make(&model, None, groups, &context, &mut ImageCache::default()).unwrap().0
}

/// From the model to the advantage of each token, whether or not log-probs are recomputed anyway: the paper's weights
/// of the naive divergence, and the plain advantage where there is no picture.
#[test]
fn the_dependency_reaches_the_advantages() {
    let model = model::<B>();
    for old_log_probs in ["recompute", "rollout"] {
        let made = experience(old_log_probs);
        let mut weighed = 0;
        for group in &made.groups {
            let prompt = &group.item.prompt;
            for response in &group.trajectories {
                let row = &response.advantages;
                if prompt.image_grid_thw.is_empty() {
                    assert!(row.iter().all(|a| *a == row[0]), "{row:?}");
                    continue;
                }
                let dependency = naive(&model, prompt, &text_of(&model, prompt), &response.ids);
                let dependency: Vec<f64> = dependency.iter().map(|&s| f64::from(s)).collect();
                let weights = token_weights(&dependency, &PgpoConfig::default());
                // The plain advantage is the mean of the shaped ones, as the weights keep their sum.
                let plain = row.iter().sum::<f32>() / row.len() as f32;
                let expected: Vec<f32> = weights.iter().map(|w| plain * *w as f32).collect();
                assert!(difference(row, &expected) < 2e-3, "{old_log_probs}: {row:?} {expected:?}");
                weighed += usize::from(row.len() > 2 && plain.abs() > 0.1);
            }
        }
        assert!(weighed > 4, "{weighed} responses could be judged");
        assert!(made.metrics["pgpo/dependency_mean"] > 1e-3 && made.metrics["pgpo/non_finite_responses"] == 0.0);
    }
}
