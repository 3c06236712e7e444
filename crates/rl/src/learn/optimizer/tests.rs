//! The optimizer beside its formulas.

use std::collections::BTreeMap;

use ::policy::{Hold, Learning, ModelCopy, Staged};
use burn::tensor::DType;
use kernels::params::to_f32;
use safetensors::SafeTensors;

use run::layout::OPTIMIZER;

use super::*;
use crate::config::{GradsDtype, LrScheduler};
use model_qwen2vl::{QwenVl, QwenVlConfig};

type B = burn_flex::Flex<f32, i32>;

struct Fill<'a>(&'a mut Gradients<B>, f32);
impl ParamVisitor<B> for Fill<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
        let values = t.clone().mul_scalar(self.1).add_scalar(0.01);
        self.0.add(name, values);
    }
}
struct First(Vec<(String, Vec<f32>)>);
impl ParamVisitor<B> for First {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
        self.0.push((name.into(), to_f32(t.clone()).into_data().to_vec().unwrap()));
    }
}
fn values(model: &mut QwenVl<B>) -> Vec<(String, Vec<f32>)> {
    let mut first = First(vec![]);
    model.visit(&mut first);
    first.0
}
fn model() -> QwenVl<B> {
    QwenVl::random(QwenVlConfig::preset("toy").unwrap(), 7, DType::F32, &Default::default())
}

/// Two steps against AdamW written out for one number.
#[test]
fn matches_the_formula() {
    let optim = Optim { lr: 0.01, ..Optim::default() };
    let mut model = model();
    let before = values(&mut model);
    let mut adamw = AdamW::<B>::new(&optim);
    let mut expected: Vec<(f64, f64, f64)> = vec![];
    for step in 1..=2 {
        let mut grads = Gradients::default();
        model.visit(&mut Fill(&mut grads, 0.5));
        let now = values(&mut model);
        let norm = grads.squared_norm(&model.device()).into_scalar().sqrt() as f64;
        let outcome = adamw.step(&mut model, grads, 0.01, 0.1, 1.0).unwrap();
        assert!((outcome.grad_norm - norm).abs() < 1e-3 * norm && outcome.applied);
        let scale = (1.0 / (norm + 1e-6)).min(1.0);
        let after = values(&mut model);
        for (k, ((name, old), (_, new))) in now.iter().zip(&after).enumerate() {
            let x = old[0] as f64;
            let g = (x * 0.5 + 0.01) * scale;
            if step == 1 {
                expected.push((0.0, 0.0, 0.0));
            }
            let (m, v, _) = &mut expected[k];
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let (mh, vh) = (*m / (1.0 - 0.9f64.powi(step)), *v / (1.0 - 0.999f64.powi(step)));
            let decay = if name.ends_with(".bias") || name.contains("norm") || name.ends_with("ln_q.weight") {
                0.0
            } else {
                0.1
            };
            let y = x * (1.0 - 0.01 * decay) - 0.01 * mh / (vh.sqrt() + 1e-8);
            assert!((y - new[0] as f64).abs() < 2e-6, "{name}: {y} {}", new[0]);
        }
    }
    assert_ne!(before, values(&mut model));
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut model = model();
    let before = values(&mut model);
    let mut adamw = AdamW::<B>::new(&Optim::default());
    let mut grads = Gradients::default();
    model.visit(&mut Fill(&mut grads, f32::NAN));
    let outcome = adamw.step(&mut model, grads, 0.1, 0.1, 1.0).unwrap();
    assert!(!outcome.applied && outcome.grad_norm.is_nan());
    assert_eq!(before, values(&mut model));
}

#[test]
fn state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OPTIMIZER);
    let run = |restart: bool| {
        let mut model = model();
        let mut adamw = AdamW::<B>::new(&Optim::default());
        for step in 0..4 {
            if restart && step == 2 {
                adamw.save(&path).unwrap();
                adamw = AdamW::new(&Optim::default());
                adamw.load(&path, &mut model).unwrap();
            }
            let mut grads = Gradients::default();
            model.visit(&mut Fill(&mut grads, 0.3));
            adamw.step(&mut model, grads, 0.01, 0.01, 1.0).unwrap();
        }
        values(&mut model)
    };
    assert_eq!(run(false), run(true));
}

/// What is staged stays as it was, however it is held, while the model and the optimizer go on: its files are those
/// that would have been written at once.
#[test]
fn later_steps_change_nothing_that_is_staged() {
    for moments_dtype in [MomentsDtype::F32, MomentsDtype::Bf16] {
        let mut model = model();
        let mut adamw = AdamW::<B>::new(&Optim { moments_dtype, ..Optim::default() });
        let step = |model: &mut QwenVl<B>, adamw: &mut AdamW<B>| {
            let mut grads = Gradients::default();
            model.visit(&mut Fill(&mut grads, 0.3));
            adamw.step(model, grads, 0.01, 0.01, 1.0).unwrap();
        };
        let stage = |model: &QwenVl<B>, adamw: &AdamW<B>, hold: Hold| {
            let mut staged = Learning::stage(model, None, ModelCopy::ALONE, hold).unwrap();
            staged.and(adamw.stage(OPTIMIZER, hold).unwrap());
            staged
        };
        let written = |staged: &Staged| {
            let dir = tempfile::tempdir().unwrap();
            staged.write(dir.path()).unwrap();
            ["config.json", "model.safetensors", OPTIMIZER].map(|name| std::fs::read(dir.path().join(name)).unwrap())
        };
        step(&mut model, &mut adamw);
        let staged = [Hold::Tensors, Hold::Bytes].map(|hold| stage(&model, &adamw, hold));
        let now = written(&staged[0]);
        for _ in 0..2 {
            step(&mut model, &mut adamw);
        }
        assert!(staged.iter().all(|staged| written(staged) == now), "what was staged has changed");
        let later = written(&stage(&model, &adamw, Hold::Tensors));
        assert!(later[0] == now[0] && later[1] != now[1] && later[2] != now[2], "the steps have changed nothing");
    }
}

/// Files know parameters, not the stacks that a model keeps them in.
#[test]
fn moments_are_saved_by_parameter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OPTIMIZER);
    let mut model = model();
    let mut adamw = AdamW::<B>::new(&Optim::default());
    let mut grads = Gradients::default();
    model.visit(&mut Fill(&mut grads, 0.3));
    let expected: BTreeMap<String, Vec<f32>> =
        grads.iter().map(|(name, grad)| (name.clone(), grad.mul_scalar(0.1).into_data().to_vec().unwrap())).collect();
    assert!(["q_proj", "k_proj", "v_proj"].iter().all(|p| {
        ["weight", "bias"].iter().all(|t| expected.contains_key(&format!("model.layers.0.self_attn.{p}.{t}")))
    }));
    adamw.step(&mut model, grads, 0.01, 0.01, 0.0).unwrap();
    adamw.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let found: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_suffix(".m")).collect();
    assert_eq!(found.len(), expected.len());
    for name in found {
        let m = file.tensor(&format!("{name}.m")).unwrap();
        let m: Vec<f32> = m.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let gap = m.iter().zip(&expected[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(m.len() == expected[name].len() && gap < 1e-7, "{name}: {gap}");
    }
    // A part that is missing, or at another step than the rest of its stack, is no state of this model.
    let tensors = |change: &dyn Fn(&str, &mut Vec<u8>) -> bool| {
        let mut kept: Vec<(String, Vec<u8>, Vec<usize>)> = vec![];
        for name in file.names() {
            let view = file.tensor(name).unwrap();
            let mut data = view.data().to_vec();
            if change(name, &mut data) {
                kept.push((name.to_string(), data, view.shape().to_vec()));
            }
        }
        let views = kept.iter().map(|(name, data, shape)| {
            (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        AdamW::<B>::new(&Optim::default()).load(&path, &mut self::model()).map_err(|e| e.to_string())
    };
    assert_eq!(tensors(&|_, _| true), Ok(()));
    let part = "model.layers.0.self_attn.k_proj.weight";
    let error = tensors(&|name, _| !name.starts_with(part)).unwrap_err();
    assert!(error.contains("some of") && error.contains(part), "{error}");
    let later = |name: &str, data: &mut Vec<u8>| {
        if name == format!("{part}.steps") {
            data.copy_from_slice(&2f32.to_le_bytes());
        }
        true
    };
    let error = tensors(&later).unwrap_err();
    assert!(error.contains("not at the same step"), "{error}");
}

/// Noise of bf16 moments is named, not drawn: two runs are the same.
#[test]
fn bf16_state_repeats() {
    let optim = Optim { moments_dtype: MomentsDtype::Bf16, grads_dtype: GradsDtype::Bf16, ..Optim::default() };
    let run = || {
        let mut model = model();
        let mut adamw = AdamW::<B>::new(&optim);
        for _ in 0..3 {
            let mut grads = gradients(&optim);
            model.visit(&mut Fill(&mut grads, 0.3));
            model.visit(&mut Fill(&mut grads, 0.1));
            assert!(grads.iter().all(|(_, g)| g.dtype() == DType::BF16));
            assert!(adamw.step(&mut model, grads, 0.01, 0.01, 1.0).unwrap().applied);
        }
        values(&mut model)
    };
    let (a, b) = (run(), run());
    assert_eq!(a, b);
    // Sixteen bits move the weights as thirty-two do, nearly.
    let mut exact = model();
    let mut adamw = AdamW::<B>::new(&Optim::default());
    for _ in 0..3 {
        let mut grads = Gradients::default();
        exact.visit(&mut Fill(&mut grads, 0.3));
        exact.visit(&mut Fill(&mut grads, 0.1));
        adamw.step(&mut exact, grads, 0.01, 0.01, 1.0).unwrap();
    }
    let start = values(&mut model());
    let distance = |a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]| {
        let pairs = a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b));
        pairs.map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>().sqrt()
    };
    let exact = values(&mut exact);
    let (gap, moved) = (distance(&a, &exact), distance(&start, &exact));
    assert!(gap < 0.05 * moved, "{gap} off after moving {moved}");
}

/// Steps far smaller than the last bit of a weight move it on average, with no master copy.
#[test]
fn small_steps_move_bf16_weights() {
    let device = Default::default();
    let config = QwenVlConfig::preset("toy").unwrap();
    let mut model = QwenVl::<B>::random(config, 7, DType::BF16, &device);
    let sum = |model: &mut QwenVl<B>| -> f64 {
        values(model).iter().filter(|(name, _)| name.contains("mlp")).flat_map(|(_, v)| v).map(|v| f64::from(*v)).sum()
    };
    let count = values(&mut model).iter().filter(|(name, _)| name.contains("mlp")).map(|(_, v)| v.len()).sum::<usize>();
    let before = sum(&mut model);
    let optim = Optim { lr: 1e-5, weight_decay: 0.0, master_weights: false, ..Optim::default() };
    let mut optimizer = AdamW::new(&optim);
    for _ in 0..10 {
        let mut grads = Gradients::default();
        struct Ones<'a>(&'a mut Gradients<B>);
        impl ParamVisitor<B> for Ones<'_> {
            fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
                self.0.add(name, to_f32(t.ones_like()));
            }
        }
        model.visit(&mut Ones(&mut grads));
        optimizer.step(&mut model, grads, optim.lr, 0.0, 1e9).unwrap();
    }
    // Adam's steps are lr each when all gradients agree.
    let moved = (before - sum(&mut model)) / count as f64;
    assert!((moved / 1e-4 - 1.0).abs() < 0.1, "{moved}");
}

#[test]
fn learning_rates() {
    let mut optim = Optim { lr: 1.0, lr_warmup_steps: 4, ..Optim::default() };
    assert_eq!(learning_rate(&optim, 1, 10), 0.25);
    assert_eq!(learning_rate(&optim, 9, 10), 1.0);
    optim = Optim { lr: 1.0, lr_scheduler_type: LrScheduler::Cosine, min_lr_ratio: 0.1, ..Optim::default() };
    assert!((learning_rate(&optim, 5, 10) - 0.55).abs() < 1e-12);
    assert!((learning_rate(&optim, 10, 10) - 0.1).abs() < 1e-12);
}
