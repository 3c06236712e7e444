//! Building a model from any source of parameters, and random initialisation.

use burn::tensor::{DType, Distribution, Tensor, TensorData, backend::Backend};
use comm::Ranks;
use kernels::layers::{BlockNames, BlockShape, Linear, LinearStack, Mlp, Norm, QK_NAMES, TransformerBlock};
use kernels::{Kernels, StackPart};
use policy::ModelError;

use crate::config::{MlpKind, NormKind, QwenVlConfig, TextConfig, VisionConfig};
use crate::decoder::{Decoder, EMBED, LM_HEAD, NORM};
use crate::model::QwenVl;
use crate::tensor::TensorParallel;
use crate::vision::{MERGER, Merger, POSITIONS, VISION_EPS, VisionTower, deep_merger};

/// Names in the decoder.
const DECODER_NAMES: BlockNames =
    BlockNames { norm1: "input_layernorm", norm2: "post_attention_layernorm", attn: "self_attn", proj: "o_proj" };
/// Names in the vision tower.
const VISION_NAMES: BlockNames = BlockNames { norm1: "norm1", norm2: "norm2", attn: "attn", proj: "proj" };

/// Where parameters come from, one tensor at a time, so that memory stays near the model's size.
pub trait ParamSource<B: Backend> {
    /// The parameter `name` with the given shape (a patch embedding is asked for as a matrix): of a rank's part, whose
    /// place in the whole [`TensorParallel::shard`] knows.
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D>;

    /// Parameters that lie one below the other in one tensor of this shape, whose rows they share out.
    fn stack<const D: usize>(&mut self, parts: &[StackPart], shape: [usize; D]) -> Tensor<B, D> {
        let part = |part: &StackPart| {
            let mut shape = shape;
            shape[0] = part.rows;
            self.param(&part.name, shape)
        };
        Tensor::cat(parts.iter().map(part).collect(), 0)
    }
}

fn linear<B: Backend>(source: &mut impl ParamSource<B>, name: &str, out: usize, inp: usize, bias: bool) -> Linear<B> {
    Linear {
        weight: source.param(&format!("{name}.weight"), [out, inp]),
        bias: bias.then(|| source.param(&format!("{name}.bias"), [out])),
        lora: None,
    }
}

/// Layers of one input: what each is called behind `prefix`, and its outputs.
fn linears<B: Backend>(
    source: &mut impl ParamSource<B>,
    prefix: &str,
    parts: Vec<(&'static str, usize)>,
    inp: usize,
    bias: bool,
) -> LinearStack<B> {
    let out = parts.iter().map(|(_, out)| out).sum();
    let names = |tensor| LinearStack::<B>::names(prefix, &parts, tensor);
    let weight = source.stack(&names("weight"), [out, inp]);
    let bias = bias.then(|| source.stack(&names("bias"), [out]));
    LinearStack { linear: Linear { weight, bias, lora: None }, parts }
}

fn norm<B: Backend>(source: &mut impl ParamSource<B>, name: &str, kind: NormKind, width: usize, eps: f64) -> Norm<B> {
    let weight = source.param(&format!("{name}.weight"), [width]);
    match kind {
        NormKind::Rms => Norm::Rms { weight, eps },
        NormKind::Layer => Norm::Layer { weight, bias: source.param(&format!("{name}.bias"), [width]), eps },
    }
}

/// `bias` is for a gated MLP; a plain one has biases.
fn mlp<B: Backend>(
    source: &mut impl ParamSource<B>,
    name: &str,
    kind: MlpKind,
    [width, wide]: [usize; 2],
    bias: bool,
    names: [&'static str; 2],
) -> Mlp<B> {
    let at = |part: &str| format!("{name}.{part}");
    match kind {
        MlpKind::Gated => Mlp::Gated {
            gate_up: linears(source, name, vec![("gate_proj", wide), ("up_proj", wide)], width, bias),
            down: linear(source, &at("down_proj"), width, wide, bias),
        },
        MlpKind::Plain(act) => Mlp::Plain {
            fc1: linear(source, &at(names[0]), wide, width, true),
            fc2: linear(source, &at(names[1]), width, wide, true),
            act,
            names,
        },
    }
}

/// Sizes, choices and names of one stack of blocks.
struct BlockStack {
    prefix: &'static str,
    names: BlockNames,
    shape: BlockShape,
    width: usize,
    wide: usize,
    eps: f64,
    norm: NormKind,
    mlp: MlpKind,
    mlp_names: [&'static str; 2],
    /// One matrix for queries, keys and values, and biases everywhere: the tower's way.
    fused: bool,
    qkv_bias: bool,
    qk_norm: bool,
    ranks: Ranks,
}

impl BlockStack {
    fn tower(v: &VisionConfig) -> Self {
        Self {
            prefix: "visual.blocks",
            names: VISION_NAMES,
            shape: BlockShape { heads: v.num_heads, kv_heads: v.num_heads, head_dim: v.head_dim() },
            width: v.hidden_size,
            wide: v.intermediate_size,
            eps: VISION_EPS,
            norm: v.norm,
            mlp: v.mlp,
            mlp_names: v.names.mlp,
            fused: true,
            qkv_bias: true,
            qk_norm: false,
            ranks: Ranks::solo(),
        }
    }

    fn decoder(t: &TextConfig, tensor: &TensorParallel) -> Self {
        Self {
            prefix: "model.layers",
            names: DECODER_NAMES,
            shape: tensor.shape(),
            width: t.hidden_size,
            wide: tensor.wide(),
            eps: t.rms_norm_eps,
            norm: NormKind::Rms,
            mlp: MlpKind::Gated,
            mlp_names: ["", ""],
            fused: false,
            qkv_bias: t.qkv_bias,
            qk_norm: t.qk_norm,
            ranks: tensor.ranks().clone(),
        }
    }

    fn block<B: Backend>(&self, index: usize, source: &mut impl ParamSource<B>) -> TransformerBlock<B> {
        let &BlockStack { names, shape, width, fused, qkv_bias, eps, .. } = self;
        let at = |part: &str| format!("{}.{index}.{part}", self.prefix);
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let attn = |part: &str| at(&format!("{}.{part}", names.attn));
        let projections = match fused {
            true => vec![("qkv", q + 2 * kv)],
            false => vec![("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
        };
        let qkv = linears(source, &at(names.attn), projections, width, qkv_bias);
        TransformerBlock {
            index,
            shape,
            names,
            norm1: norm(source, &at(names.norm1), self.norm, width, eps),
            qkv,
            qk_norm: self
                .qk_norm
                .then(|| QK_NAMES.map(|name| norm(source, &attn(name), NormKind::Rms, shape.head_dim, eps))),
            proj: linear(source, &attn(names.proj), width, q, fused),
            norm2: norm(source, &at(names.norm2), self.norm, width, eps),
            mlp: mlp(source, &at("mlp"), self.mlp, [width, self.wide], fused, self.mlp_names),
            ranks: self.ranks.clone(),
        }
    }
}

fn merger<B: Backend>(source: &mut impl ParamSource<B>, name: &str, v: &VisionConfig, join_first: bool) -> Merger<B> {
    let wide = v.hidden_size * v.merge_unit();
    let normed = if join_first { wide } else { v.hidden_size };
    let [fc1, fc2] = v.names.merger.map(|fc| format!("{name}.{fc}"));
    Merger {
        norm: norm(source, &format!("{name}.{}", v.names.merger_norm), v.norm, normed, VISION_EPS),
        fc1: linear(source, &fc1, wide, wide, true),
        fc2: linear(source, &fc2, v.out_hidden_size, wide, true),
        unit: v.merge_unit(),
        join_first,
        names: v.names,
    }
}

impl<B: Kernels> QwenVl<B> {
    /// A model whose parameters come from `source`.
    pub fn build(config: QwenVlConfig, source: &mut impl ParamSource<B>) -> Self {
        let tensor = TensorParallel::solo(&config.text);
        Self::build_parallel(config, source, tensor)
    }

    /// What one of several ranks has of a model; its parameters, or parts of them, come from `source`.
    pub fn build_parallel(config: QwenVlConfig, source: &mut impl ParamSource<B>, tensor: TensorParallel) -> Self {
        let v = &config.vision;
        let stack = BlockStack::tower(v);
        let visual = VisionTower {
            patch_embed: linear(source, "visual.patch_embed.proj", v.hidden_size, v.patch_dim(), v.patch_bias),
            positions: v.position_side.map(|side| source.param(POSITIONS, [side * side, v.hidden_size])),
            blocks: (0..v.depth).map(|i| stack.block(i, source)).collect(),
            merger: merger(source, MERGER, v, false),
            deep_mergers: (0..v.deepstack.len()).map(|k| merger(source, &deep_merger(k), v, true)).collect(),
            config: v.clone(),
        };
        let t = &config.text;
        let stack = BlockStack::decoder(t, &tensor);
        let vocab = tensor.ids().len();
        let decoder = Decoder {
            embed: source.param(EMBED, [vocab, t.hidden_size]),
            layers: (0..t.num_hidden_layers).map(|i| stack.block(i, source)).collect(),
            norm: norm(source, NORM, NormKind::Rms, t.hidden_size, t.rms_norm_eps),
            lm_head: (!t.tie_word_embeddings).then(|| source.param(LM_HEAD, [vocab, t.hidden_size])),
            tensor,
        };
        Self { config, visual, decoder, adapters: None }
    }

    /// As [`build_parallel`](Self::build_parallel), with weights that hold no pages of what comes and goes.
    pub(crate) fn build_on(
        config: QwenVlConfig,
        source: &mut impl ParamSource<B>,
        tensor: TensorParallel,
        device: &B::Device,
    ) -> Self {
        let model = B::persistent(device, || Self::build_parallel(config, source, tensor));
        // What was only on the way.
        B::memory_cleanup(device);
        model
    }

    /// Random weights as transformers initialises them: normal with `initializer_range`, norms 1, biases 0.
    /// The same seed gives the same weights on every backend.
    pub fn random(config: QwenVlConfig, seed: u64, dtype: DType, device: &B::Device) -> Self {
        let tensor = TensorParallel::solo(&config.text);
        Self::random_on(config, seed, dtype, device, tensor)
    }

    /// What one of `ranks`, which share the decoder out, has of the weights of [`random`](Self::random): all of them
    /// call this. Each draws every parameter and keeps its part.
    ///
    /// # Errors
    /// As [`TensorParallel::new`].
    pub fn random_parallel(
        config: QwenVlConfig,
        seed: u64,
        dtype: DType,
        device: &B::Device,
        ranks: &Ranks,
    ) -> Result<Self, ModelError> {
        let tensor = TensorParallel::new(&config.text, ranks)?;
        Ok(Self::random_on(config, seed, dtype, device, tensor))
    }

    fn random_on(config: QwenVlConfig, seed: u64, dtype: DType, device: &B::Device, tensor: TensorParallel) -> Self {
        let std = config.text.initializer_range as f32;
        let (state, device) = (seed ^ 0x9E37_79B9_7F4A_7C15, device.clone());
        let mut source = RandomSource { state, std, dtype, device: device.clone(), tensor: tensor.clone() };
        Self::build_on(config, &mut source, tensor, &device)
    }

    /// The same distribution by the device's own random numbers: moments instead of minutes for a large model, and no
    /// copy on the host. Other values on every backend: for measuring, not for a run that is to be repeated.
    pub fn random_on_device(config: QwenVlConfig, seed: u64, dtype: DType, device: &B::Device) -> Self {
        let tensor = TensorParallel::solo(&config.text);
        B::seed(device, seed);
        let std = f64::from(config.text.initializer_range as f32);
        Self::build_on(config, &mut DeviceSource { std, dtype, device: device.clone() }, tensor, device)
    }
}

/// Parameters that the device draws.
struct DeviceSource<D> {
    std: f64,
    dtype: DType,
    device: D,
}

impl<B: Backend> ParamSource<B> for DeviceSource<B::Device> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let options = (&self.device, self.dtype);
        match one_dimensional(name, D) {
            Some(value) => Tensor::full(shape, value, options),
            None => Tensor::random(shape, Distribution::Normal(0.0, self.std), options),
        }
    }
}

/// What every element of a parameter of one dimension starts as: norms 1, biases 0.
fn one_dimensional(name: &str, dimensions: usize) -> Option<f32> {
    (dimensions == 1).then(|| if name.ends_with(".bias") { 0.0 } else { 1.0 })
}

/// SplitMix64 and Box-Muller: small, seeded, the same everywhere.
struct RandomSource<D> {
    state: u64,
    std: f32,
    dtype: DType,
    device: D,
    tensor: TensorParallel,
}

impl<D> RandomSource<D> {
    fn uniform(&mut self) -> f32 {
        uniform(&mut self.state)
    }
}

/// The next number of SplitMix64, between 0 and 1.
pub(crate) fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 40) as f32 + 0.5) / (1u64 << 24) as f32
}

impl<B: Backend> ParamSource<B> for RandomSource<B::Device> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let values: Vec<f32> = if let Some(value) = one_dimensional(name, D) {
            vec![value; shape.iter().product()]
        } else {
            let shard = self.tensor.shard(name, &shape);
            let len = shard.shape.iter().product();
            let mut values = Vec::with_capacity(len + 1);
            while values.len() < len {
                let radius = (-2.0 * self.uniform().ln()).sqrt() * self.std;
                let (sin, cos) = (std::f32::consts::TAU * self.uniform()).sin_cos();
                values.extend([radius * cos, radius * sin]);
            }
            values.truncate(len);
            match shard.is_whole() {
                true => values,
                false => shard.elements().flat_map(|range| values[range].to_vec()).collect(),
            }
        };
        Tensor::from_data(TensorData::new(values, shape), (&self.device, self.dtype))
    }
}
