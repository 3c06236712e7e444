//! What a step really holds beside what the plan says that it does: every byte of the gradients and of the optimizer.

use burn::tensor::{DType, Tensor};
use kernels::params::cast_to;
use kernels::{Gradients, ParamVisitor, Shard};
use model_qwen2vl::lora::BaseModel;
use model_qwen2vl::{QwenVl, QwenVlConfig};
use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage, table};
use policy::Learning;
use rl::config::{Config, GradsDtype, MomentsDtype, Source, resolve};
use rl::image_cache::ImageCache;
use rl::learn::optimizer::{AdamW, gradients};
use rl::learn::{GradientOptions, GroupRef, MicroGradients, accumulate};
use safetensors::SafeTensors;

type Cpu = burn_flex::Flex<f32, i32>;

fn planned(run: &Config, dtype: DType) -> MemoryPlan {
    let shapes = ModelShapes::new(&QwenVlConfig::preset("toy").unwrap(), dtype);
    MemoryPlan::new(run, &shapes, RankGrid::ALONE, ZeroStage::Off, 0).unwrap()
}

/// Bytes of all gradients.
fn gradient_bytes(grads: &Gradients<Cpu>) -> usize {
    grads.iter().map(|(_, grad)| grad.dims()[0] * grad.dtype().size()).sum()
}

/// Bytes of moments and f32 weights, as the optimizer saves them: in the types in which it holds them.
fn optimizer_bytes(optimizer: &AdamW<Cpu>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    optimizer.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let state = file.names().into_iter().filter(|name| !name.ends_with(".steps"));
    state.map(|name| file.tensor(name).unwrap().data().len()).sum()
}

struct WeightBytes(usize);
impl ParamVisitor<Cpu> for WeightBytes {
    const REPLACES: bool = false;
    fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<Cpu, D>) {
        self.0 += tensor.shape().num_elements() * tensor.dtype().size();
    }
}

/// A step on one picture with two responses, forward and backward, by the trainer's own functions.
#[test]
fn a_step_holds_what_the_plan_says() {
    let mut run = Config::default();
    for freeze in [false, true] {
        run.model.freeze_vision_tower = freeze;
        let architecture = QwenVlConfig::preset("toy").unwrap();
        let mut policy = QwenVl::<Cpu>::random(architecture.clone(), 3, DType::F32, &Default::default());
        // Four patches are one image token between its markers.
        let ids = vec![
            6,
            architecture.vision_start_token_id,
            architecture.image_token_id,
            architecture.vision_end_token_id,
            7,
        ];
        let pixels = (0..4 * architecture.vision.patch_dim()).map(|i| (i % 7) as f32 / 7.0).collect();
        let prompt = architecture.prompt(ids, pixels, vec![[1, 2, 2]]).unwrap();
        let responses: [&[u32]; 2] = [&[8, 9, 10], &[11, 12]];
        let groups = [GroupRef { prompt: &prompt, responses: responses.to_vec() }];
        let options = GradientOptions::of(&run, &policy, 1.0, false);
        assert_eq!(options.train_vision, !freeze);
        let mut grads = gradients(&run.actor.optim);
        let mut images = ImageCache::new(1.0);
        accumulate(&policy, &mut images, &groups, &options, &mut grads, |scores| {
            let log_probs = scores.log_probs.ones_like();
            Ok::<_, std::convert::Infallible>(MicroGradients { log_probs, entropy: None })
        })
        .unwrap();
        let plan = planned(&run, DType::F32);
        assert_eq!(gradient_bytes(&grads), plan.gradients, "frozen: {freeze}");
        let mut optimizer = AdamW::new(&run.actor.optim).check_device(false);
        assert!(optimizer.step(&mut policy, grads, 1e-3, 0.0, 1.0).unwrap().applied);
        assert_eq!(optimizer_bytes(&optimizer), plan.optimizer, "frozen: {freeze}");
        let mut weights = WeightBytes(0);
        policy.visit(&mut weights);
        assert_eq!(weights.0, plan.weights);
    }
}

struct Fill<'a>(&'a mut Gradients<Cpu>);
impl ParamVisitor<Cpu> for Fill<'_> {
    const REPLACES: bool = false;
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<Cpu, D>) {
        self.0.add(name, cast_to(tensor.clone(), DType::F32).mul_scalar(0.1).add_scalar(0.01));
    }
}

/// 16-bit weights, with and without a copy in f32, and gradients and moments of each type.
#[test]
fn every_type_is_held_as_planned() {
    for (moments, grads, master) in [
        (MomentsDtype::F32, GradsDtype::F32, true),
        (MomentsDtype::Bf16, GradsDtype::F32, true),
        (MomentsDtype::Bf16, GradsDtype::Bf16, false),
    ] {
        let mut run = Config::default();
        let optim = &mut run.actor.optim;
        (optim.moments_dtype, optim.grads_dtype, optim.master_weights) = (moments, grads, master);
        let config = QwenVlConfig::preset("toy").unwrap();
        let mut policy = QwenVl::<Cpu>::random(config, 3, DType::BF16, &Default::default());
        let mut sums = gradients(&run.actor.optim);
        policy.visit(&mut Fill(&mut sums));
        let plan = planned(&run, DType::BF16);
        assert_eq!(gradient_bytes(&sums), plan.gradients, "{run:?}");
        let mut optimizer = AdamW::new(&run.actor.optim).check_device(false);
        assert!(optimizer.step(&mut policy, sums, 1e-3, 0.0, 1.0).unwrap().applied);
        assert_eq!(optimizer_bytes(&optimizer), plan.optimizer);
    }
}

/// Every line of the table is a comment, and what does not fit is named with a key that lowers it.
#[test]
fn a_table_is_a_comment_that_names_what_does_not_fit() {
    let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
    let mut run = Config::default();
    run.data.max_prompt_length = 5650;
    run.rollout.n = 8;
    let said =
        |run: &Config, ranks, gib: usize| table(run, &shapes, RankGrid { data: ranks, tensor: 1 }, gib << 30).unwrap();
    for text in [said(&run, 1, 80), said(&run, 8, 80), said(&run, 8, 200)] {
        assert!(text.lines().all(|line| line.starts_with('#') && line.chars().count() <= 120), "{text}");
        assert!(text.parse::<toml::Table>().unwrap().is_empty());
    }
    let small = said(&run, 8, 60);
    assert!(small.contains("TOO MUCH") && small.contains("rollout.max_batch_rows="), "{small}");
    let large = said(&run, 8, 200);
    assert!(!large.contains("TOO MUCH") && !large.contains("Lower by"), "{large}");
    // In GiB: 16.6 GB of weights, and an eighth of 33.2 GB of gradients and of 99.5 GB of moments and f32 weights.
    assert!(large.contains(" 15.45") && large.contains(" 3.86") && large.contains(" 11.58"), "{large}");
    run.parallel.zero = 1;
    let whole = said(&run, 8, 200);
    assert!(whole.contains(" 30.89") && !whole.contains(" 3.86"), "{whole}");
}

/// The shipped file for 32b is for 32 devices of 80 GB, a copy of the model on each four of them; without what it sets,
/// they do not hold it.
#[test]
fn the_file_for_32b_fits_its_devices() {
    let shapes = ModelShapes::new(&QwenVlConfig::preset("32b").unwrap(), DType::BF16);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/qwen2_5_vl_32b.toml");
    let fits = |sources: &[Source]| {
        let run = resolve(sources, &["algorithm.name=vgpo".to_string()]).unwrap();
        let grid = RankGrid { data: 8, tensor: 4 };
        let plan = MemoryPlan::new(&run, &shapes, grid, ZeroStage::Two, 80 << 30).unwrap();
        [plan.update(), plan.rollout()].map(|bytes| MemoryPlan::holds(bytes, 80 << 30))
    };
    assert_eq!(fits(&[Source::read(&path).unwrap()]), [true; 2]);
    assert_eq!(fits(&[]), [true, false]);
}

/// Where adapters learn, they alone have gradients and state; the reference is theirs, too.
#[test]
fn adapters_hold_what_the_plan_says() {
    let mut run = Config::default();
    run.model.lora.enable = true;
    run.algorithm.disable_kl = false;
    run.algorithm.use_kl_loss = true;
    for dtype in [DType::F32, DType::BF16] {
        let architecture = QwenVlConfig::preset("toy").unwrap();
        let shapes = ModelShapes::of_run(&run, &architecture, dtype).unwrap();
        let plan = MemoryPlan::new(&run, &shapes, RankGrid::ALONE, ZeroStage::Off, 0).unwrap();
        let base = BaseModel { path: "base".into(), fingerprint: String::new() };
        let model = QwenVl::<Cpu>::random(architecture, 3, dtype, &Default::default());
        let mut policy = model.with_adapters(run.model.lora().unwrap(), base, 1).unwrap();
        let mut sums = gradients(&run.actor.optim);
        policy.visit_params(&mut Fill(&mut sums));
        assert_eq!(gradient_bytes(&sums), plan.gradients, "{dtype:?}");
        let mut optimizer = AdamW::new(&run.actor.optim).check_device(false);
        assert!(optimizer.step(&mut policy, sums, 1e-3, 0.0, 1.0).unwrap().applied);
        assert_eq!(optimizer_bytes(&optimizer), plan.optimizer, "{dtype:?}");
        let (mut all, mut adapters) = (WeightBytes(0), WeightBytes(0));
        policy.visit(&mut all);
        policy.visit_params(&mut adapters);
        assert_eq!((all.0, adapters.0), (plan.weights, plan.reference), "{dtype:?}");
    }
}

/// The shipped file for adapters of 7b is for one card of 40 GB, which holds no run that trains the weights.
#[test]
fn adapters_of_7b_fit_one_card_of_40_gb() {
    let architecture = QwenVlConfig::preset("7b").unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/lora_7b.toml");
    let plan = |overrides: &[&str]| {
        let mut all = vec!["algorithm.name=vgpo".to_string()];
        all.extend(overrides.iter().map(|s| s.to_string()));
        let run = resolve(&[Source::read(&path).unwrap()], &all).unwrap();
        let shapes = ModelShapes::of_run(&run, &architecture, DType::BF16).unwrap();
        let said = table(&run, &shapes, RankGrid::ALONE, 40 << 30).unwrap();
        (MemoryPlan::new(&run, &shapes, RankGrid::ALONE, ZeroStage::Off, 40 << 30).unwrap(), said)
    };
    let fits = |plan: &MemoryPlan| [plan.update(), plan.rollout()].map(|bytes| MemoryPlan::holds(bytes, 40 << 30));
    let (adapters, said) = plan(&[]);
    println!("{said}");
    assert_eq!(fits(&adapters), [true; 2]);
    assert!(said.contains("in adapters, which alone learn"), "{said}");
    let (with_kl, _) = plan(&["algorithm.disable_kl=false", "algorithm.use_kl_loss=true"]);
    assert_eq!(fits(&with_kl), [true; 2], "a reference is no second copy");
    let (weights, _) = plan(&["model.lora.enable=false", "model.lora.rank=16", "model.lora.alpha=32"]);
    assert!(!fits(&weights)[0]);
}
