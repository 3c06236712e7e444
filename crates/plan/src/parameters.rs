//! The parameters of an architecture by name and shape, without their values.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use kernels::layers::{adapted_module, adapter_names};
use model_qwen2vl::lora::{linear_module, select};
use model_qwen2vl::{ParamSource, QwenVl, QwenVlConfig};
use policy::{Decoding, Learning};
use rl::TrainError;
use rl::config::Config;

use crate::RankGrid;

/// What the shapes are asked on.
pub(crate) type CountedOn = burn_flex::Flex<f32, i32>;

/// How the names of layers begin, before their number.
const LAYERS: [&str; 2] = ["model.layers.", "visual.blocks."];

/// A model of shapes alone: every tensor has one element.
#[derive(Debug, Clone)]
pub struct ModelShapes {
    /// The architecture, which computes nothing, but says of itself what a real one says.
    pub(crate) model: QwenVl<CountedOn>,
    /// Type of weights and activations.
    pub(crate) dtype: DType,
    parameters: Vec<ParameterShape>,
    /// The matrices of adapters, where they alone learn.
    adapters: Vec<ParameterShape>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ParameterShape {
    name: String,
    elements: usize,
    /// The linear layer whose weight it is, with its outputs and inputs, if it is one.
    linear: Option<(String, [usize; 2])>,
}

/// Notes what is asked for.
struct ShapeSource {
    dtype: DType,
    parameters: Vec<ParameterShape>,
}

impl ParamSource<CountedOn> for ShapeSource {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<CountedOn, D> {
        let module = linear_module(name, D).map(str::to_string);
        let linear = module.map(|module| (module, [shape[0], shape[D - 1]]));
        self.parameters.push(ParameterShape { name: name.into(), elements: shape.iter().product(), linear });
        Tensor::zeros([1; D], (&Default::default(), self.dtype))
    }
}

/// What becomes of a parameter where each layer is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RankShare {
    /// Each rank has all of it: norms, and the tower.
    Whole,
    /// Each rank has its part of the rows or columns.
    Even,
    /// Each rank has whole heads of keys and values, at least one.
    KvHeads,
}

impl ParameterShape {
    fn is_tower(&self) -> bool {
        self.name.starts_with("visual.")
    }

    fn cut(&self) -> RankShare {
        let of = |part: &str| self.name.contains(part);
        if let Some((module, is_b)) = adapted_module(&self.name) {
            // The matrix beside the axis that is cut is on all ranks.
            let by_inputs = module.ends_with("o_proj") || module.ends_with("down_proj");
            if self.is_tower() || is_b == by_inputs {
                return RankShare::Whole;
            }
        }
        match () {
            () if self.is_tower() || of("norm") => RankShare::Whole,
            () if of("k_proj") || of("v_proj") => RankShare::KvHeads,
            () => RankShare::Even,
        }
    }

    /// Elements that one of `tensor` ranks has.
    fn of_rank(&self, tensor: usize, kv_heads: usize) -> usize {
        match self.cut() {
            RankShare::Whole => self.elements,
            RankShare::Even => self.elements.div_ceil(tensor),
            RankShare::KvHeads => self.elements / kv_heads * kv_heads.div_ceil(tensor),
        }
    }

    /// What it is reduced together with: its layer, or itself.
    fn bucket(&self) -> &str {
        let end = |prefix: &str| {
            let index = self.name.strip_prefix(prefix)?.find('.')?;
            Some(prefix.len() + index)
        };
        let end = LAYERS.into_iter().find_map(end);
        &self.name[..end.unwrap_or(self.name.len())]
    }
}

impl ModelShapes {
    /// Of `architecture` with weights of type `dtype`; takes no memory to speak of.
    pub fn new(architecture: &QwenVlConfig, dtype: DType) -> Self {
        let mut source = ShapeSource { dtype, parameters: vec![] };
        let model = QwenVl::build(architecture.clone(), &mut source);
        Self { model, dtype, parameters: source.parameters, adapters: vec![] }
    }

    /// The same of a run with this configuration: with adapters where it trains some.
    ///
    /// # Errors
    /// Linear layers that are not there.
    pub fn of_run(run: &Config, architecture: &QwenVlConfig, dtype: DType) -> Result<Self, TrainError> {
        let mut shapes = Self::new(architecture, dtype);
        let Some(lora) = run.model.lora() else { return Ok(shapes) };
        let chosen = select(&lora, &shapes.linear_modules())?;
        let linears = shapes.parameters.iter().filter_map(|parameter| parameter.linear.as_ref());
        for ((module, [out, width]), _) in std::iter::zip(linears, chosen).filter(|(_, chosen)| *chosen) {
            for (name, elements) in std::iter::zip(adapter_names(module), [lora.rank * width, out * lora.rank]) {
                shapes.adapters.push(ParameterShape { name, elements, linear: None });
            }
        }
        Ok(shapes)
    }

    /// The linear layers, the head excepted.
    pub fn linear_modules(&self) -> Vec<String> {
        self.parameters.iter().filter_map(|parameter| Some(parameter.linear.as_ref()?.0.clone())).collect()
    }

    /// Whether adapters alone learn.
    pub(crate) fn has_adapters(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// Whether anything in the vision tower learns, unless it is frozen by the run.
    pub(crate) fn trains_vision(&self) -> bool {
        !self.has_adapters() || self.adapters.iter().any(ParameterShape::is_tower)
    }

    /// Parameters of the adapters.
    pub fn adapter_count(&self) -> usize {
        self.adapters.iter().map(|adapter| adapter.elements).sum()
    }

    /// What learns.
    fn learning(&self) -> &[ParameterShape] {
        if self.has_adapters() { &self.adapters } else { &self.parameters }
    }

    /// Parameters of the adapters that one rank of `grid` holds.
    pub(crate) fn adapters_of_rank(&self, grid: RankGrid) -> usize {
        self.adapters.iter().map(|p| self.elements(p, grid)).sum()
    }

    pub(crate) fn architecture(&self) -> &QwenVlConfig {
        &self.model.config
    }

    /// Parameters of the model, and those of its vision tower among them.
    pub fn counts(&self) -> [usize; 2] {
        let sum = |parameters: &mut dyn Iterator<Item = &ParameterShape>| parameters.map(|p| p.elements).sum();
        [sum(&mut self.parameters.iter()), sum(&mut self.parameters.iter().filter(|p| p.is_tower()))]
    }

    /// Parameters that one rank of `grid` holds, adapters not among them; `without_tower`, those that get gradients
    /// where the tower is frozen.
    pub(crate) fn of_rank(&self, grid: RankGrid, without_tower: bool) -> usize {
        let kept = self.parameters.iter().filter(|p| !(without_tower && p.is_tower()));
        kept.map(|p| self.elements(p, grid)).sum()
    }

    fn elements(&self, parameter: &ParameterShape, grid: RankGrid) -> usize {
        parameter.of_rank(grid.tensor, self.architecture().text.num_key_value_heads)
    }

    /// Elements of the largest part of a rank's gradients that is reduced at one time: a layer, or the embedding.
    pub(crate) fn largest_bucket(&self, grid: RankGrid) -> usize {
        self.buckets(grid).into_values().max().unwrap_or(0)
    }

    /// Elements of a rank's gradients of the largest layer.
    pub(crate) fn largest_layer(&self, grid: RankGrid) -> usize {
        let is_layer = |name: &str| LAYERS.iter().any(|prefix| name.starts_with(prefix));
        self.buckets(grid).into_iter().filter(|(name, _)| is_layer(name)).map(|(_, len)| len).max().unwrap_or(0)
    }

    /// Elements of what is reduced together on a rank, by its name.
    fn buckets(&self, grid: RankGrid) -> BTreeMap<&str, usize> {
        let mut buckets: BTreeMap<&str, usize> = BTreeMap::new();
        for parameter in self.learning() {
            *buckets.entry(parameter.bucket()).or_default() += self.elements(parameter, grid);
        }
        buckets
    }

    /// Elements of a rank's largest parameter.
    pub(crate) fn largest_tensor(&self, grid: RankGrid) -> usize {
        self.learning().iter().map(|parameter| self.elements(parameter, grid)).max().unwrap_or(0)
    }

    /// Bytes of the keys and values of one token on one rank.
    pub(crate) fn kv_bytes(&self, grid: RankGrid) -> usize {
        let heads = self.architecture().text.num_key_value_heads;
        self.model.kv_bytes() / heads * heads.div_ceil(grid.tensor)
    }

    /// Bytes of what a layer's backward reads of one packed token, all layers together, on one device.
    pub(crate) fn activation_bytes(&self) -> usize {
        self.model.activation_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::{ParamVisitor, Shard};
    use model_qwen2vl::TensorParallel;
    use model_qwen2vl::lora::BaseModel;
    use policy::ModuleNames;

    fn shapes(preset: &str) -> ModelShapes {
        ModelShapes::new(&QwenVlConfig::preset(preset).unwrap(), DType::BF16)
    }

    /// Counted by hand from the published configurations: 2 d (d + kv) + 3 d m + biases + norms a layer, and so on.
    #[test]
    fn published_sizes_have_their_parameters() {
        for (preset, all, tower) in [
            ("3b", 3_754_622_976, 668_684_288),
            ("7b", 8_292_166_656, 676_550_144),
            ("32b", 33_452_718_336, 688_841_984),
        ] {
            assert_eq!(shapes(preset).counts(), [all, tower], "{preset}");
        }
    }

    #[test]
    fn ranks_share_out_what_is_cut() {
        let shapes = shapes("32b");
        let [all, tower] = shapes.counts();
        let of = |tensor| shapes.of_rank(RankGrid { data: 8, tensor }, false);
        assert_eq!(of(1), all);
        let norms = (2 * 64 + 1) * 5120;
        for tensor in [2, 4, 8] {
            assert_eq!(of(tensor), tower + norms + (all - tower - norms) / tensor, "{tensor}");
        }
        assert_eq!(shapes.of_rank(RankGrid { data: 8, tensor: 1 }, true), all - tower);
        // Two heads of keys and values on four ranks: each has one of them.
        let kv = 36 * 2 * (2048 * 128 + 128);
        let [all, tower] = self::shapes("3b").counts();
        let norms = (2 * 36 + 1) * 2048;
        let expected = tower + norms + (all - tower - norms - 2 * kv) / 4 + kv;
        assert_eq!(self::shapes("3b").of_rank(RankGrid { data: 1, tensor: 4 }, false), expected);
    }

    /// Zeros of the shapes that are asked for.
    struct Zeros;
    impl ParamSource<CountedOn> for Zeros {
        fn param<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Tensor<CountedOn, D> {
            Tensor::zeros(shape, &Default::default())
        }
    }

    struct Counted(usize);
    impl ParamVisitor<CountedOn> for Counted {
        const REPLACES: bool = false;
        fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<CountedOn, D>) {
            self.0 += tensor.shape().num_elements();
        }
    }

    /// What a rank counts is what a rank's model has, on one rank, on two, and on four, of which pairs have the same
    /// heads.
    #[test]
    fn adapters_are_counted_as_a_model_has_them() {
        let config = QwenVlConfig::preset("toy").unwrap();
        let mut run = Config::default();
        run.model.lora.enable = true;
        for excluded in [".*visual.*", ""] {
            run.model.lora.target_modules = ModuleNames::Pattern("all-linear".into());
            run.model.lora.exclude_modules = ModuleNames::Pattern(excluded.into());
            let shapes = ModelShapes::of_run(&run, &config, DType::F32).unwrap();
            assert_eq!(shapes.trains_vision(), excluded.is_empty());
            for tensor in [1, 2, 4] {
                let part = TensorParallel::shapes(&config.text, 0, tensor).unwrap();
                let model = QwenVl::build_parallel(config.clone(), &mut Zeros, part);
                let base = BaseModel { path: "base".into(), fingerprint: String::new() };
                let mut model = model.with_adapters(run.model.lora().unwrap(), base, 1).unwrap();
                let mut counted = Counted(0);
                model.visit_params(&mut counted);
                assert_eq!(shapes.adapters_of_rank(RankGrid { data: 1, tensor }), counted.0, "{tensor}, {excluded}");
            }
        }
        // 2 r (d + kv) + r (d + q) ... a layer, by hand for 7b: r (3 (d + m) + 2 (d + d) + 2 (d + kv)).
        run.model.lora = Default::default();
        run.model.lora.enable = true;
        let seven = ModelShapes::of_run(&run, &QwenVlConfig::preset("7b").unwrap(), DType::BF16).unwrap();
        assert_eq!(seven.adapter_count(), 28 * 16 * (3 * (3584 + 18_944) + 2 * (3584 + 3584) + 2 * (3584 + 512)));
    }

    #[test]
    fn the_largest_bucket_is_the_embedding_or_a_layer() {
        let grid = RankGrid { data: 8, tensor: 1 };
        assert_eq!(shapes("7b").largest_bucket(grid), 152_064 * 3584);
        // Weights and biases of queries, keys and values, the output, the MLP, two norms.
        let (d, kv, m) = (3584, 512, 18_944);
        assert_eq!(shapes("7b").largest_layer(grid), 2 * d * d + 2 * d * kv + d + 2 * kv + 3 * d * m + 2 * d);
        // gate, up and down alone are more than the embedding of the toy model.
        let toy = shapes("toy").largest_bucket(grid);
        assert!(toy > 3 * 128 * 352 && toy < 2 * 3 * 128 * 352, "{toy}");
    }
}
