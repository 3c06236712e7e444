//! A token's factor reaches the gradient of that token and of no other: through experience, shaping, packed groups,
//! parts, micro-batches and mini-batches, against full autodiff of that token's `-A log p` alone. And what a shaping
//! reads of a token is that token's.
//!
//! The oracle knows nothing of packing: one prompt and one response up to the token, one row of logits, autodiff over
//! the plain forward. The trainer's side is read from the optimizer, whose first moment is the gradient where beta1 is
//! 0.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::vgpo::PrototypeMode;
use burn::backend::Autodiff;
use burn::tensor::{Tensor, activation::log_softmax, backend::AutodiffBackend, backend::Backend};
use model_qwen2vl::model::{Images, PackedBatch, Prompt, int_tensor};
use model_qwen2vl::params::{StackPart, element_ranges};
use model_qwen2vl::{Kernels, ParamVisitor, QwenVl, Shard};
use rl::config::{Config, Source, resolve};
use rl::experience::{Experience, StepContext, make};
use rl::image_cache::ImageCache;
use rl::learn::optimizer::AdamW;
use rl::learn::update::{Learner, UpdateSchedule, UpdateSettings, update};
use rl::learn::{GradientOptions, Pass, passes};
use rl::perturb::Perturbation;
use rl::recipe::Recipe;
use rl::shaping::{AdvantageShaping, Draw, Shaped, ShapingBatch, ShapingError, Stream, Streams, Training};

use crate::common::{difference, model, pairs, processor, relative_error};
use crate::engine::sampled_groups;

const TEMPERATURE: f64 = 0.8;

/// One token: its group, its response there, its place.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    group: usize,
    response: usize,
    token: usize,
}

/// Keeps the advantage of one token and takes those of all others away: by a factor of 0, or by the policy mask.
#[derive(Clone, Copy)]
struct OneHot {
    /// Index of the response in the batch.
    row: usize,
    token: usize,
    by_mask: bool,
}

impl<B: Backend> AdvantageShaping<B> for OneHot {
    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        let hot: Vec<Vec<bool>> = (batch.lengths.iter().enumerate())
            .map(|(row, &length)| (0..length).map(|t| (row, t) == (self.row, self.token)).collect())
            .collect();
        let plain = batch.lengths.iter().enumerate().map(|(row, &length)| batch.advantages.tokens(row, length));
        let one = |(row, advantages): (usize, Vec<f32>)| -> Vec<f32> {
            let kept = |t: usize| self.by_mask || hot[row][t];
            advantages.iter().enumerate().map(|(t, a)| if kept(t) { *a } else { 0.0 }).collect()
        };
        Ok(Shaped {
            advantages: plain.enumerate().map(one).collect(),
            policy_mask: self.by_mask.then_some(hot),
            ..Shaped::default()
        })
    }
}

fn config(settings: &[&str]) -> Config {
    let toml = "[data]\ntrain_files = [\"toy:sum\"]\nrollout_batch_size = 5\n[actor]\nglobal_batch_size = 5\n[actor.optim]\nweight_decay = 0.0";
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let mut config = resolve(&[Source::new("test", toml)], &settings).unwrap();
    config.rollout.temperature = TEMPERATURE;
    // The first moment is the gradient itself, and nothing clips it.
    config.actor.optim.betas = [0.0, 0.999];
    config.actor.max_grad_norm = 1e30;
    config
}

/// Experience of the test's groups under a shaping.
fn experience<B: Kernels>(
    model: &QwenVl<B>,
    config: &Config,
    shaping: impl AdvantageShaping<B> + 'static,
) -> Experience {
    let context = StepContext {
        config,
        recipe: &Recipe { shaping: Box::new(shaping), ..Recipe::new(config).unwrap() },
        processor: Some(&processor()),
        step: 1,
        training: Training { step: 1, max_steps: 1 },
        ranks: &rl::comm::Ranks::solo(),
    };
    make(model, None, sampled_groups(model), &context, &mut ImageCache::default()).unwrap().0
}

type Grads = BTreeMap<String, Vec<f32>>;

/// The gradients of the last mini-batch of an update, by parameter.
fn trained<B: Kernels>(start: &QwenVl<B>, experience: &Experience, config: &Config, recompute: bool) -> Grads {
    let mut policy = start.clone();
    let mut optimizer = AdamW::new(&config.actor.optim);
    let options = GradientOptions {
        temperature: TEMPERATURE,
        entropy: false,
        token_budget: config.actor.micro_batch_tokens,
        train_vision: true,
        recompute,
    };
    let learner = Learner {
        policy: &mut policy,
        optimizer: &mut optimizer,
        images: &mut ImageCache::default(),
        ranks: &rl::comm::Ranks::solo(),
    };
    let mut schedule = UpdateSchedule { done: 0, total: 1 };
    let settings = UpdateSettings { config, loss: &config.to_loss_config(), options: &options };
    update(learner, experience, settings, &mut schedule).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    optimizer.save(&path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let moments = file.iter().filter_map(|(name, view)| Some((name.strip_suffix(".m")?, floats(view.data()))));
    moments.map(|(name, grad)| (name.to_string(), grad)).collect()
}

struct Track;

impl<B: AutodiffBackend> ParamVisitor<B> for Track {
    fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        *tensor = tensor.clone().require_grad();
    }
    fn visit_stack<const D: usize>(&mut self, _: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        *tensor = tensor.clone().require_grad();
    }
}

struct Read<'a, B: AutodiffBackend>(&'a B::Gradients, Grads);

impl<B: AutodiffBackend> ParamVisitor<B> for Read<'_, B> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if let Some(grad) = tensor.grad(self.0) {
            self.1.insert(name.to_string(), grad.into_data().to_vec().unwrap());
        }
    }
    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        if let Some(grad) = tensor.grad(self.0) {
            let grad: Vec<f32> = grad.into_data().to_vec().unwrap();
            for (part, range) in parts.iter().zip(element_ranges(parts, grad.len())) {
                self.1.insert(part.name.clone(), grad[range].to_vec());
            }
        }
    }
}

/// Final hidden states `[P + T, d]` of a prompt and one response, computed alone.
fn alone<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, response: &[u32]) -> Tensor<B, 2> {
    let device = model.device();
    let batch = PackedBatch::new(&model.config, &[(prompt, vec![response])], &device);
    let images = Images::new(&model.config, [prompt], &device);
    model.hidden(&batch, images.map(|i| model.encode_images(&i)))
}

/// The gradient of `scale * log p` of the last token of `response`, by autodiff over the whole model.
fn oracle<B: Kernels>(prompt: &Prompt, response: &[u32], scale: f64) -> Grads {
    let mut model = model::<Autodiff<B>>();
    model.visit(&mut Track);
    let device = model.device();
    // The state before the token predicts it.
    let row = prompt.len() + response.len() - 2;
    let state = alone(&model, prompt, response).select(0, int_tensor([row], &device));
    let log_probs = log_softmax(model.logits(state).div_scalar(TEMPERATURE), 1);
    let id = response[response.len() - 1] as usize;
    let loss = log_probs.slice([0..1, id..id + 1]).sum().mul_scalar(scale);
    let grads = loss.backward();
    let mut read = Read(&grads, Grads::new());
    model.visit(&mut read);
    read.1
}

/// `|a - b| / |b|` over all parameters; one that is not there is 0.
fn error(a: &Grads, b: &Grads) -> f64 {
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let (mut left, mut right) = (vec![], vec![]);
    for name in names {
        let length = a.get(name).or(b.get(name)).map_or(0, Vec::len);
        let of = |grads: &Grads| grads.get(name).cloned().unwrap_or_else(|| vec![0.0; length]);
        left.extend(of(a));
        right.extend(of(b));
    }
    relative_error(&left, &right)
}

/// GRPO's advantages of a group, as the paper writes them.
fn grpo(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    rewards.iter().map(|r| (r - mean) / (std + 1e-6)).collect()
}

/// Places in a batch: the first, a middle and the last token, of long and short responses, of prompts with one picture,
/// several and none.
fn places(experience: &Experience) -> Vec<Place> {
    let mut places = Vec::new();
    for (group, g) in experience.groups.iter().enumerate() {
        let lengths: Vec<usize> = g.trajectories.iter().map(|t| t.ids.len()).collect();
        let longest = (0..lengths.len()).max_by_key(|&r| lengths[r]).unwrap();
        let shortest = (0..lengths.len()).min_by_key(|&r| lengths[r]).unwrap();
        let (response, token) = match group {
            0 => (longest, 0),
            1 => (longest, lengths[longest] / 2),
            2 => (shortest, lengths[shortest] - 1),
            3 => (longest, lengths[longest] - 1),
            _ => (lengths.len() - 1, lengths[lengths.len() - 1] / 2),
        };
        places.push(Place { group, response, token });
    }
    places
}

/// Index of a place's response in the batch.
fn row(experience: &Experience, place: Place) -> usize {
    experience.groups[..place.group].iter().map(|g| g.trajectories.len()).sum::<usize>() + place.response
}

/// What one place contributes to the loss: the token's log-prob times this.
fn weight(experience: &Experience, place: Place, config: &Config, groups: std::ops::Range<usize>) -> f64 {
    let rewards: Vec<f64> = experience.groups[place.group].trajectories.iter().map(|t| t.score.overall).collect();
    let lengths: Vec<usize> =
        experience.groups[groups].iter().flat_map(|g| g.trajectories.iter().map(|t| t.ids.len())).collect();
    let denominator = match config.actor.loss_avg_mode {
        rl::loss::LossAvgMode::Token => lengths.iter().sum::<usize>() as f64,
        _ => (lengths.len() * experience.groups[place.group].trajectories[place.response].ids.len()) as f64,
    };
    -grpo(&rewards)[place.response] / denominator
}

fn oracle_at<B: Kernels>(experience: &Experience, place: Place, weight: f64) -> Grads {
    let group = &experience.groups[place.group];
    oracle::<B>(&group.item.prompt, &group.trajectories[place.response].ids[..=place.token], weight)
}

/// Token budgets of the passes: each response alone, groups cut into parts, a few groups together, everything at once.
const BUDGETS: [usize; 4] = [1, 45, 120, 100_000];

fn a_factor_reaches_its_token_and_no_other<B: Kernels>() {
    let start = model::<B>();
    let base = experience(&start, &config(&[]), OneHot { row: 0, token: 0, by_mask: false });
    let refs = base.refs();
    let cut = |budget: usize| passes(&refs, budget);
    assert!(cut(45).iter().any(|pass| matches!(pass, Pass::Parts(_, parts) if parts.iter().any(|p| p.len() > 1))));
    assert!(matches!(&cut(100_000)[..], [Pass::Together(micro)] if micro.len() == 5));
    let lengths: std::collections::BTreeSet<usize> = base.trajectories().map(|t| t.ids.len()).collect();
    assert!(lengths.len() > 3, "rows are padded: {lengths:?}");
    let mut worst = 0.0_f64;
    for (k, place) in places(&base).into_iter().enumerate() {
        let row = row(&base, place);
        let plain = config(&[]);
        let expected = oracle_at::<B>(&base, place, weight(&base, place, &plain, 0..5));
        for budget in BUDGETS {
            let config = config(&[&format!("actor.micro_batch_tokens={budget}")]);
            let shaping = OneHot { row, token: place.token, by_mask: (k + budget) % 2 == 0 };
            let made = experience(&start, &config, shaping);
            let e = error(&trained(&start, &made, &config, budget == 45), &expected);
            worst = worst.max(e);
            assert!(e < 1e-3, "{place:?}, budget {budget}, mask {}: relative error {e:.1e}", shaping.by_mask);
        }
    }
    println!("largest relative error to autodiff of one token: {worst:.1e}");
}

/// The same under every loss whose gradient at the old policy is `-A`, under both averages, and in mini-batches, whose
/// last one is read: the first responses of the batch are not those of the mini-batch.
fn every_loss_and_mini_batch<B: Kernels>() {
    let start = model::<B>();
    let shaped = |config: &Config, place: Place, row: usize| {
        let made = experience(&start, config, OneHot { row, token: place.token, by_mask: false });
        trained(&start, &made, config, false)
    };
    let base = experience(&start, &config(&[]), OneHot { row: 0, token: 0, by_mask: false });
    let last = places(&base)[4];
    for (loss, mode) in [("ppo", "seq"), ("cispo", "token"), ("sapo", "token"), ("sapo", "seq"), ("gspo_token", "seq")]
    {
        let (loss_type, avg_mode) = (format!("actor.loss_type={loss}"), format!("actor.loss_avg_mode={mode}"));
        let mut settings = vec![&loss_type[..], &avg_mode, "actor.micro_batch_tokens=120"];
        if loss == "gspo_token" {
            settings.extend(["actor.clip_ratio_low=0.0003", "actor.clip_ratio_high=0.0004"]);
        }
        let config = config(&settings);
        let expected = oracle_at::<B>(&base, last, weight(&base, last, &config, 0..5));
        let e = error(&shaped(&config, last, row(&base, last)), &expected);
        assert!(e < 1e-3, "{loss}, {mode}: {e:.1e}");
    }
    for (size, first, group) in [(1, 4, 4), (2, 4, 4), (3, 3, 3), (3, 3, 4)] {
        let place = places(&base)[group];
        let mut config = config(&["actor.micro_batch_tokens=70"]);
        config.actor.global_batch_size = size;
        let expected = oracle_at::<B>(&base, place, weight(&base, place, &config, first..5));
        let e = error(&shaped(&config, place, row(&base, place)), &expected);
        assert!(e < 1e-3, "mini-batches of {size}, {place:?}: {e:.1e}");
    }
}

/// What would put a factor on the wrong token, were the code to do it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The factor of the token before.
    EarlierToken,
    /// The factor of the token after.
    LaterToken,
    /// Two responses of a group exchanged.
    Responses,
    /// Two groups exchanged.
    Groups,
    /// The padded table read one cell wider than it was written.
    Wider,
    /// And one cell narrower.
    Narrower,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::EarlierToken, Self::LaterToken, Self::Responses, Self::Groups, Self::Wider, Self::Narrower];

    /// Rows of factors as the fault leaves them; `sizes` are the responses of each group.
    fn apply(self, rows: &[Vec<f32>], sizes: &[usize], place: Place) -> Vec<Vec<f32>> {
        let first = |group: usize| sizes[..group].iter().sum::<usize>();
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let width = lengths.iter().copied().max().unwrap();
        let mut table = vec![0.0; rows.len() * width + width];
        for (row, values) in rows.iter().enumerate() {
            table[row * width..][..values.len()].copy_from_slice(values);
        }
        let exchanged = |a: usize, b: usize| -> Vec<usize> {
            (0..rows.len())
                .map(|row| {
                    if row == a {
                        b
                    } else if row == b {
                        a
                    } else {
                        row
                    }
                })
                .collect()
        };
        // Where each row reads: its start in the table.
        let starts: Vec<isize> = match self {
            Self::EarlierToken => (0..rows.len()).map(|row| (row * width) as isize - 1).collect(),
            Self::LaterToken => (0..rows.len()).map(|row| (row * width) as isize + 1).collect(),
            Self::Wider => (0..rows.len()).map(|row| (row * (width + 1)) as isize).collect(),
            Self::Narrower => (0..rows.len()).map(|row| (row * (width - 1)) as isize).collect(),
            Self::Responses => {
                let other = (place.response + 1) % sizes[place.group];
                let order = exchanged(first(place.group) + place.response, first(place.group) + other);
                order.iter().map(|row| (row * width) as isize).collect()
            }
            Self::Groups => {
                let other = (place.group + 1) % sizes.len();
                let order = exchanged(first(place.group) + place.response, first(other) + place.response);
                order.iter().map(|row| (row * width) as isize).collect()
            }
        };
        let cell = |at: isize| usize::try_from(at).ok().and_then(|at| table.get(at)).copied().unwrap_or(0.0);
        std::iter::zip(starts, lengths).map(|(start, n)| (0..n as isize).map(|t| cell(start + t)).collect()).collect()
    }
}

/// The comparison above can fail: each fault puts it far off.
fn faults_are_seen<B: Kernels>() {
    let start = model::<B>();
    let config = config(&["actor.micro_batch_tokens=45"]);
    let base = experience(&start, &config, OneHot { row: 0, token: 0, by_mask: false });
    let sizes: Vec<usize> = base.groups.iter().map(|g| g.trajectories.len()).collect();
    // In the middle of a response, so that every fault has somewhere to go.
    let longest = |group: usize| {
        let lengths: Vec<usize> = base.groups[group].trajectories.iter().map(|t| t.ids.len()).collect();
        (0..lengths.len()).max_by_key(|&r| lengths[r]).map(|r| (r, lengths[r])).unwrap()
    };
    for group in [1, 3] {
        let (response, length) = longest(group);
        assert!(length > 3, "{length}");
        let place = Place { group, response, token: length / 2 };
        let made = experience(&start, &config, OneHot { row: row(&base, place), token: place.token, by_mask: false });
        let expected = oracle_at::<B>(&base, place, weight(&base, place, &config, 0..5));
        let right = error(&trained(&start, &made, &config, false), &expected);
        assert!(right < 1e-3, "{right}");
        for fault in Fault::ALL {
            let mut wrong = made.clone();
            let rows: Vec<Vec<f32>> = made.trajectories().map(|t| t.advantages.clone()).collect();
            for (t, row) in pairs(wrong.trajectories_mut().collect::<Vec<_>>(), fault.apply(&rows, &sizes, place)) {
                t.advantages = row;
            }
            let e = error(&trained(&start, &wrong, &config, false), &expected);
            println!("{place:?}, {fault:?}: {e:.2}");
            assert!(e > 0.5, "{place:?}: {fault:?} passes with an error of {e:.1e}");
        }
    }
}

/// Notes the streams that it is given.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Streams>>);

impl<B: Backend> AdvantageShaping<B> for Recorder {
    fn streams(&self) -> Vec<Stream> {
        vec![
            Stream::VisualFocus { prototype: PrototypeMode::Mean },
            Stream::Entropy,
            Stream::OldLogProbs,
            Stream::PerturbedLogProbs { draw: Draw::Prompt, perturbation: Perturbation::Blank },
        ]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        *self.0.lock().unwrap() = batch.streams.clone();
        let advantages = batch.lengths.iter().enumerate().map(|(i, &n)| batch.advantages.tokens(i, n)).collect();
        Ok(Shaped { advantages, ..Shaped::default() })
    }
}

/// Log-probs, entropies and focus of a response by the definitions, computed alone.
fn by_definition<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt, ids: &[u32]) -> [Vec<f32>; 3] {
    let hidden = alone(model, prompt, ids);
    let first = prompt.len();
    let values = |t: Tensor<B, 2>| -> Vec<f32> { t.into_data().to_vec().unwrap() };
    let [_, d] = hidden.dims();
    let logits = model.logits(hidden.clone().narrow(0, first - 1, ids.len())).div_scalar(TEMPERATURE);
    let [_, vocabulary] = logits.dims();
    let table = values(log_softmax(logits, 1));
    let rows: Vec<&[f32]> = table.chunks_exact(vocabulary).collect();
    assert_eq!(rows.len(), ids.len());
    let log_probs = std::iter::zip(&rows, ids).map(|(row, &id)| row[id as usize]).collect();
    let entropy = rows.iter().map(|row| -row.iter().map(|l| l.exp() * l).sum::<f32>()).collect();
    let states = values(hidden);
    let state = |i: usize| &states[i * d..][..d];
    let image = prompt.image_rows(&model.config);
    let mu: Vec<f32> =
        (0..d).map(|k| image.iter().map(|&i| state(i)[k]).sum::<f32>() / image.len().max(1) as f32).collect();
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let focus = (0..ids.len()).map(|t| {
        // The state at the token itself, not the one that predicts it.
        let h = state(first + t);
        let cosine = std::iter::zip(h, &mu).map(|(a, b)| a * b).sum::<f32>() / (norm(h) * norm(&mu) + 1e-8);
        (cosine + 1.0) / 2.0
    });
    [log_probs, entropy, if image.is_empty() { vec![] } else { focus.collect() }]
}

/// The prompt with black pictures.
fn blank(prompt: &Prompt) -> Prompt {
    let processor = processor();
    let limits = processor.limits();
    let mut black = prompt.clone();
    let mut pixels = prompt.pixel_values.to_vec();
    for patch in pixels.chunks_exact_mut(limits.patch_dim()) {
        for (channel, values) in patch.chunks_exact_mut(limits.patch_dim() / 3).enumerate() {
            values.fill(-limits.mean[channel] / limits.std[channel]);
        }
    }
    black.pixel_values = pixels.into();
    black
}

fn streams_are_those_of_their_tokens<B: Kernels>() {
    let start = model::<B>();
    for budget in BUDGETS {
        let config = config(&[&format!("actor.micro_batch_tokens={budget}")]);
        let recorder = Recorder::default();
        let made = experience(&start, &config, recorder.clone());
        let streams = recorder.0.lock().unwrap().clone();
        let all = |rows: Option<Vec<Vec<f32>>>| {
            let rows = rows.unwrap();
            assert_eq!(rows.len(), made.trajectories().count());
            rows
        };
        let (old, perturbed) = (all(streams.old_log_probs), all(streams.perturbed_log_probs));
        let (entropy, focus) = (all(streams.entropy), all(streams.visual_focus));
        let mut row = 0;
        for group in &made.groups {
            let (prompt, black) = (&group.item.prompt, blank(&group.item.prompt));
            for response in &group.trajectories {
                let [log_probs, entropies, rho] = by_definition(&start, prompt, &response.ids);
                let place = format!("budget {budget}, response {row}");
                for (what, found, expected, bound) in [
                    ("old log-probs", &old[row], &log_probs, 1e-4),
                    ("the ratio's log-probs", &response.old_log_probs, &log_probs, 1e-4),
                    ("entropy", &entropy[row], &entropies, 2e-4),
                    ("focus", &focus[row], &rho, 1e-5),
                ] {
                    let d = difference(found, expected);
                    assert!(d < bound, "{place}: {what} differs by {d}");
                }
                if !rho.is_empty() {
                    let [expected, ..] = by_definition(&start, &black, &response.ids);
                    let d = difference(&perturbed[row], &expected);
                    assert!(d < 1e-4, "{place}: perturbed log-probs differ by {d}");
                    assert!(difference(&perturbed[row], &old[row]) > 1e-3, "{place}: the picture matters");
                }
                row += 1;
            }
        }
        assert_eq!(row, made.trajectories().count());
    }
}

on!(flex, burn_flex::Flex<f32, i32>: a_factor_reaches_its_token_and_no_other every_loss_and_mini_batch faults_are_seen
    streams_are_those_of_their_tokens);
