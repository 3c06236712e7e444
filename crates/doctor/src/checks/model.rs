//! A model of two layers with the run's widths, the same on the device and on the CPU, and something to do for it.

use burn::tensor::{DType, Tensor, TensorData};
use kernels::Kernels;
use model_qwen2vl::ParamSource;
use model_qwen2vl::config::TowerAttention;
use model_qwen2vl::{QwenVl, QwenVlConfig};
use policy::Prompt;
use rl::TrainError;

use crate::sides::{Cpu, Sides, rounded};

/// Words that are left: the head over the run's own vocabulary is looked at by itself.
const WORDS: usize = 4096;
/// First id that is no special token, where words are left out.
const FIRST_WORD: u32 = 6;
/// Layers of decoder and tower.
const LAYERS: usize = 2;

/// The run's architecture with two layers, two blocks of the tower and few words.
fn two_layers(config: &QwenVlConfig) -> Result<QwenVlConfig, TrainError> {
    let mut config = config.clone();
    if config.text.vocab_size > WORDS {
        let ids = [
            ("bos_token_id", 0),
            ("eos_token_id", 1),
            ("vision_start_token_id", 2),
            ("vision_end_token_id", 3),
            ("image_token_id", 4),
            ("video_token_id", 5),
        ];
        config = config.with_vocabulary(WORDS, ids)?;
    }
    config.text.num_hidden_layers = config.text.num_hidden_layers.min(LAYERS);
    let tower = &mut config.vision;
    tower.depth = tower.depth.min(LAYERS);
    // One block of each kind.
    if let TowerAttention::Windows { full, .. } = &mut tower.attention {
        *full = vec![tower.depth - 1];
    }
    if !tower.deepstack.is_empty() {
        tower.deepstack = vec![0];
    }
    Ok(config)
}

/// Values of one parameter: matrices keep the size of what they multiply; norms are near 1, biases near 0.
fn values<B: Kernels>(sides: &Sides<B>, name: &str, shape: &[usize]) -> Vec<f32> {
    let len = shape.iter().product();
    match shape {
        [.., width] if shape.len() > 1 => sides.values(len, 1.0 / (*width as f32).sqrt(), sides.dtype),
        _ if name.ends_with(".bias") => sides.values(len, 0.1, sides.dtype),
        _ => sides.values(len, 0.1, DType::F32).into_iter().map(|v| rounded(1.0 + v, sides.dtype)).collect(),
    }
}

struct OnDevice<'a, B: Kernels>(&'a Sides<B>);
impl<B: Kernels> ParamSource<B> for OnDevice<'_, B> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        self.0.upload(values(self.0, name, &shape), shape, self.0.dtype)
    }
}

struct OnCpu<'a, B: Kernels>(&'a Sides<B>);
impl<B: Kernels> ParamSource<Cpu> for OnCpu<'_, B> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<Cpu, D> {
        Tensor::from_data(TensorData::new(values(self.0, name, &shape), shape), &Default::default())
    }
}

/// The model on the device, in the run's number format.
pub(super) fn on_device<B: Kernels>(sides: &Sides<B>) -> Result<QwenVl<B>, TrainError> {
    sides.begin(sides.check());
    Ok(QwenVl::build(two_layers(&sides.config)?, &mut OnDevice(sides)))
}

/// The same numbers on the CPU, in f32.
pub(super) fn on_cpu<B: Kernels>(sides: &Sides<B>) -> Result<QwenVl<Cpu>, TrainError> {
    sides.begin(sides.check());
    Ok(QwenVl::build(two_layers(&sides.config)?, &mut OnCpu(sides)))
}

/// Prompts, one with a picture that leaves windows of the tower partial, and responses to them.
pub(super) struct Work {
    /// Prompts.
    pub prompts: Vec<Prompt>,
    /// Responses to each of them.
    pub responses: Vec<Vec<Vec<u32>>>,
}

impl Work {
    pub(crate) fn new<B: Kernels>(sides: &Sides<B>) -> Result<Self, TrainError> {
        let config = two_layers(&sides.config)?;
        let special = config.vision_token_ids();
        let words = config.text.vocab_size as u32;
        let word = || loop {
            let id = FIRST_WORD.min(words - 1) + sides.below(words.saturating_sub(FIRST_WORD).max(1) as usize) as u32;
            if !special.contains(&id) && id < words {
                return id;
            }
        };
        let line = |len: usize| (0..len).map(|_| word()).collect::<Vec<u32>>();
        let merge = config.vision.spatial_merge_size;
        let grid = [1, 6 * merge, 4 * merge];
        let patches: usize = grid.iter().product();
        let mut ids = line(7);
        ids.push(config.vision_start_token_id);
        ids.extend(std::iter::repeat_n(config.image_token_id, config.vision.image_tokens(grid)));
        ids.push(config.vision_end_token_id);
        ids.extend(line(6));
        let pixels = sides.values(patches * config.vision.patch_dim(), 1.0, sides.dtype);
        let prompts = vec![config.prompt(ids, pixels, vec![grid])?, config.prompt(line(9), vec![], vec![])?];
        let responses = vec![vec![line(16), line(16), line(13)], vec![line(20)]];
        Ok(Self { prompts, responses })
    }
}
