//! Building a model from any source of parameters, and random initialisation.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use crate::config::Qwen2_5_VLConfig;
use crate::decoder::{Decoder, EMBED, LM_HEAD};
use crate::layers::{BlockNames, BlockShape, DECODER_NAMES, Linear, Qkv, TransformerBlock, VISION_NAMES};
use crate::model::Qwen2_5_VL;
use crate::vision::{VISION_EPS, VisionTower};

/// Where parameters come from, one tensor at a time, so that memory stays near the model's size.
pub trait ParamSource<B: Backend> {
    /// The parameter `name` with the given shape (a patch embedding is asked for as a matrix).
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D>;
}

fn linear<B: Backend>(source: &mut impl ParamSource<B>, name: &str, out: usize, inp: usize, bias: bool) -> Linear<B> {
    Linear {
        weight: source.param(&format!("{name}.weight"), [out, inp]),
        bias: bias.then(|| source.param(&format!("{name}.bias"), [out])),
    }
}

/// Sizes and names of one stack of blocks.
struct Stack {
    prefix: &'static str,
    names: BlockNames,
    shape: BlockShape,
    width: usize,
    mlp: usize,
    fused: bool,
}

impl Stack {
    fn block<B: Backend>(&self, index: usize, source: &mut impl ParamSource<B>) -> TransformerBlock<B> {
        let Stack { names, shape, width, mlp, fused, .. } = *self;
        let at = |part: &str| format!("{}.{index}.{part}", self.prefix);
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let attn = |part: &str| at(&format!("{}.{part}", names.attn));
        let qkv = if fused {
            Qkv::Fused(linear(source, &attn("qkv"), q + 2 * kv, width, true))
        } else {
            Qkv::Split([
                linear(source, &attn("q_proj"), q, width, true),
                linear(source, &attn("k_proj"), kv, width, true),
                linear(source, &attn("v_proj"), kv, width, true),
            ])
        };
        TransformerBlock {
            index,
            shape,
            names,
            norm1: source.param(&at(&format!("{}.weight", names.norm1)), [width]),
            qkv,
            // Only the vision tower has biases behind attention and in its SwiGLU.
            proj: linear(source, &attn(names.proj), width, q, fused),
            norm2: source.param(&at(&format!("{}.weight", names.norm2)), [width]),
            gate: linear(source, &at("mlp.gate_proj"), mlp, width, fused),
            up: linear(source, &at("mlp.up_proj"), mlp, width, fused),
            down: linear(source, &at("mlp.down_proj"), width, mlp, fused),
        }
    }
}

impl<B: Backend> Qwen2_5_VL<B> {
    /// A model whose parameters come from `source`.
    pub fn build(config: Qwen2_5_VLConfig, source: &mut impl ParamSource<B>) -> Self {
        let v = &config.vision;
        let tower = Stack {
            prefix: "visual.blocks",
            names: VISION_NAMES,
            shape: BlockShape { heads: v.num_heads, kv_heads: v.num_heads, head_dim: v.head_dim(), eps: VISION_EPS },
            width: v.hidden_size,
            mlp: v.intermediate_size,
            fused: true,
        };
        let wide = v.hidden_size * v.merge_unit();
        let visual = VisionTower {
            patch_embed: linear(source, "visual.patch_embed.proj", v.hidden_size, v.patch_dim(), false),
            blocks: (0..v.depth).map(|i| tower.block(i, source)).collect(),
            merger_norm: source.param("visual.merger.ln_q.weight", [v.hidden_size]),
            merger_fc1: linear(source, "visual.merger.mlp.0", wide, wide, true),
            merger_fc2: linear(source, "visual.merger.mlp.2", v.out_hidden_size, wide, true),
            config: v.clone(),
        };
        let t = &config.text;
        let stack = Stack {
            prefix: "model.layers",
            names: DECODER_NAMES,
            shape: BlockShape {
                heads: t.num_attention_heads,
                kv_heads: t.num_key_value_heads,
                head_dim: t.head_dim(),
                eps: t.rms_norm_eps,
            },
            width: t.hidden_size,
            mlp: t.intermediate_size,
            fused: false,
        };
        let decoder = Decoder {
            embed: source.param(EMBED, [t.vocab_size, t.hidden_size]),
            layers: (0..t.num_hidden_layers).map(|i| stack.block(i, source)).collect(),
            norm: source.param("model.norm.weight", [t.hidden_size]),
            lm_head: (!t.tie_word_embeddings).then(|| source.param(LM_HEAD, [t.vocab_size, t.hidden_size])),
            config: t.clone(),
        };
        Self { config, visual, decoder }
    }

    /// Random weights as transformers initialises them: normal with `initializer_range`, norms 1, biases 0.
    /// The same seed gives the same weights on every backend.
    pub fn random(config: Qwen2_5_VLConfig, seed: u64, dtype: DType, device: &B::Device) -> Self {
        let std = config.text.initializer_range as f32;
        let mut source = RandomSource { state: seed ^ 0x9E37_79B9_7F4A_7C15, std, dtype, device: device.clone() };
        Self::build(config, &mut source)
    }
}

/// SplitMix64 and Box-Muller: small, seeded, the same everywhere.
struct RandomSource<D> {
    state: u64,
    std: f32,
    dtype: DType,
    device: D,
}

impl<D> RandomSource<D> {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    }
}

impl<B: Backend> ParamSource<B> for RandomSource<B::Device> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let len: usize = shape.iter().product();
        let values: Vec<f32> = if D == 1 {
            vec![if name.ends_with(".bias") { 0.0 } else { 1.0 }; len]
        } else {
            let mut values = Vec::with_capacity(len + 1);
            while values.len() < len {
                let radius = (-2.0 * self.uniform().ln()).sqrt() * self.std;
                let (sin, cos) = (std::f32::consts::TAU * self.uniform()).sin_cos();
                values.extend([radius * cos, radius * sin]);
            }
            values.truncate(len);
            values
        };
        Tensor::from_data(TensorData::new(values, shape), (&self.device, self.dtype))
    }
}
