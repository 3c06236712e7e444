//! Adapters: against PEFT over transformers (tools/make_lora_fixtures.py), against autodiff and finite differences,
//! against themselves cut otherwise, merged, saved and read; and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::backend::Autodiff;
use burn::tensor::{DType, Tensor, TensorData};
use kernels::layers::adapted_module;
use kernels::{Kernels, ParamVisitor, Shard};
use model_qwen2vl::QwenVl;
use model_qwen2vl::load::hub_name;
use model_qwen2vl::lora::{AdapterFolder, BaseModel, fingerprint};
use policy::{Learning, LoraConfig, ModuleNames, PackedBatch, Pictures, Prompt, Scoring};
use safetensors::SafeTensors;

use crate::common::worst_element;
use crate::common::{Golden, fixtures, largest_difference, values};
use crate::gradients::{Group, autodiff, coefficients, compare, engine};

const CASES: [&str; 4] = ["qwen2_5_decoder", "qwen2_some", "qwen3_all_rslora", "qwen3_pattern"];

/// What a case is made of.
fn parts(case: &str) -> (String, PathBuf, PathBuf) {
    let path = fixtures().join(format!("golden/lora_{case}.json"));
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |key: &str| json[key].as_str().unwrap().to_string();
    (text("prompt"), fixtures().join(text("model")), fixtures().join(text("adapter")))
}

fn base_of(folder: &Path) -> BaseModel {
    BaseModel { path: folder.into(), fingerprint: fingerprint(folder).unwrap() }
}

fn load<B: Kernels>(folder: &Path) -> QwenVl<B> {
    QwenVl::load(folder, DType::F32, &Default::default()).unwrap()
}

/// The model of a case with its adapter, as a user names both.
fn adapted<B: Kernels>(case: &str) -> QwenVl<B> {
    let adapter = AdapterFolder::open(&parts(case).2).unwrap();
    let folder = adapter.base_folder().unwrap();
    load(&folder).with_adapter_of(&adapter, base_of(&folder)).unwrap()
}

fn settings(targets: ModuleNames, excluded: &str) -> LoraConfig {
    LoraConfig {
        rank: 3,
        alpha: 4.0,
        dropout: 0.0,
        rslora: false,
        target_modules: targets,
        exclude_modules: ModuleNames::Pattern(excluded.into()),
    }
}

/// Makes all of an adapter's matrices something: a new one adds nothing.
struct Filled;

impl<B: Kernels> ParamVisitor<B> for Filled {
    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        let seed = name.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let whole: Vec<f32> = (0..shard.shape.iter().product::<usize>() as u64)
            .map(|i| ((seed.wrapping_add(i).wrapping_mul(2_654_435_761) % 1000) as f32 / 500.0 - 1.0) * 0.4)
            .collect();
        let own: Vec<f32> = shard.elements().flat_map(|range| whole[range].to_vec()).collect();
        *tensor = Tensor::from_data(TensorData::new(own, tensor.dims()), &tensor.device());
    }
}

/// A model with filled adapters on all of its linear layers.
pub(crate) fn all_adapted<B: Kernels>(model: QwenVl<B>, dropout: f64) -> QwenVl<B> {
    let excluded = if dropout > 0.0 { ".*visual.*" } else { "" };
    let lora = LoraConfig { dropout, ..settings(ModuleNames::Pattern("all-linear".into()), excluded) };
    let base = BaseModel { path: "base".into(), fingerprint: String::new() };
    let mut model = model.with_adapters(lora, base, 5).unwrap();
    Learning::visit_params(&mut model, &mut Filled);
    model
}

fn logits<B: Kernels>(model: &QwenVl<B>, prompt: &Prompt) -> Vec<f32> {
    let batch = Scoring::pack(model, &[(prompt, vec![])]);
    let hidden = Scoring::hidden(model, &batch, Scoring::encode_images(model, &[prompt]));
    values(model.logits(hidden.narrow(0, 0, prompt.len())))
}

/// Logits, and the gradients of every matrix, are those of PEFT; nothing else has one.
fn as_peft<B: Kernels>() {
    for case in CASES {
        let (prompt_case, folder, _) = parts(case);
        let (model, golden) = (adapted::<B>(case), Golden::open(&format!("lora_{case}")));
        let prompt = Golden::open(&prompt_case).prompt(&model);
        let gap = largest_difference(&logits(&model, &prompt), &golden.floats("logits"));
        let moved = largest_difference(&logits(&load::<B>(&folder), &prompt), &golden.floats("logits"));
        let merged = largest_difference(&logits(&model.clone().merged(), &prompt), &logits(&model, &prompt));
        println!("{case}: logits within {gap:.1e} of PEFT's, merged within {merged:.1e}, without within {moved:.1}");
        assert!(gap < 2e-4 && moved > 1.0 && merged < 1e-4, "{case}");

        let extra = Golden::open(&format!("{prompt_case}_grads"));
        let response = extra.ids("response_ids");
        let groups: [Group; 1] = [(&prompt, vec![&response[..]])];
        let ours = engine_at(&model, &groups, &extra.floats("coef"), false, 1.0);
        let is_matrix = |name: &String| adapted_module(name).is_some();
        let theirs: BTreeMap<String, Vec<f32>> = golden
            .names()
            .into_iter()
            .filter(is_matrix)
            .map(|name| (hub_name(name.strip_prefix("base_model.model.").unwrap()), golden.floats(&name)))
            .collect();
        compare(&ours, &theirs, 1e-4, case);
        let (worst, name) = worst_element(&ours, &theirs);
        println!("{case}: {} matrices, worst element {worst:.1e} of the matrix's largest ({name})", ours.len());
        assert!(worst < 1e-4, "{case}: {name} {worst:.1e}");
        compare(&engine_at(&model, &groups, &extra.floats("coef"), true, 1.0), &ours, 1e-5, "recomputed");
    }
}

/// Gradients by the engine, at a temperature.
fn engine_at<B: Kernels>(
    model: &QwenVl<B>,
    groups: &[Group],
    coef: &[f32],
    recompute: bool,
    temperature: f64,
) -> BTreeMap<String, Vec<f32>> {
    use burn::tensor::IndexingUpdateOp;
    use kernels::{Gradients, head, host::int_tensor};
    let device = model.device();
    let batch = PackedBatch::new(&model.config, groups, &device);
    let prompts: Vec<&Prompt> = groups.iter().map(|g| g.0).collect();
    let pictures = match model.trains_vision() {
        true => Pictures::Trained(&prompts),
        false => Pictures::Embedded(Scoring::encode_images(model, &prompts)),
    };
    let (hidden, tape) = model.forward_saving(&batch, pictures, recompute);
    let (dims, rows) = (hidden.dims(), int_tensor(batch.predicting_rows(), &device));
    let targets: Vec<usize> =
        groups.iter().flat_map(|g| g.1.iter().flat_map(|r| r.iter().map(|&i| i as usize))).collect();
    let coef = Tensor::from_data(TensorData::new(coef.to_vec(), [coef.len()]), &device);
    let mut grads = Gradients::default();
    let (weight, name) = model.head();
    let states = hidden.select(0, rows.clone());
    let dh = head::log_probs_backward(
        states,
        weight,
        int_tensor(targets, &device),
        temperature,
        coef,
        None,
        name,
        &mut grads,
    );
    let d_hidden = Tensor::zeros(dims, &device).select_assign(0, rows, dh, IndexingUpdateOp::Add);
    model.backward(tape, &batch, d_hidden, &mut grads);
    grads.iter().map(|(name, grad)| (name.clone(), values(grad))).collect()
}

/// Three responses to each prompt of a case.
fn responses(prompts: usize) -> Vec<Vec<u32>> {
    (0..3 * prompts as u32).map(|i| (0..3 + 5 * (i % 3)).map(|t| (13 * i + 7 * t) % 250).collect()).collect()
}

fn as_autodiff<B: Kernels>(oracle: f64) {
    for case in ["one_image_tied", "qwen2_vl_tied_gqa", "qwen3_vl_untied_two_images"] {
        let model = all_adapted(crate::common::load::<B>(case), 0.0);
        let prompt = Golden::open(case).prompt(&model);
        let responses = responses(1);
        let groups: [Group; 1] = [(&prompt, responses.iter().map(|r| &r[..]).collect())];
        let coef = coefficients(responses.iter().map(Vec::len).sum());
        let ours = engine(&model, &groups, &coef, 0.3, true, false);
        assert!(
            ours.keys().all(|name| adapted_module(name).is_some()) && ours.keys().any(|n| n.starts_with("visual."))
        );
        compare(&engine(&model, &groups, &coef, 0.3, true, true), &ours, 1e-5, "recomputed");
        let theirs = autodiff::<B>(all_adapted(crate::common::load::<Autodiff<B>>(case), 0.0), &groups, &coef, 0.3);
        compare(&ours, &theirs, oracle, case);
    }
}

/// Adds to one element of one matrix.
struct Nudge<'a>(&'a str, usize, f32);

impl<B: Kernels> ParamVisitor<B> for Nudge<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if name == self.0 {
            let dims: [usize; D] = tensor.dims();
            let mut all = values(tensor.clone());
            all[self.1] += self.2;
            *tensor = Tensor::from_data(TensorData::new(all, dims), &tensor.device());
        }
    }
}

/// `sum_t c_t log p_t` in training, with what adapters drop.
fn objective<B: Kernels>(model: &QwenVl<B>, groups: &[Group], coef: &[f32]) -> f64 {
    use kernels::{head, host::int_tensor};
    let device = model.device();
    let batch = PackedBatch::new(&model.config, groups, &device);
    let prompts: Vec<&Prompt> = groups.iter().map(|g| g.0).collect();
    let pictures = Pictures::Embedded(Scoring::encode_images(model, &prompts));
    let (hidden, _) = model.forward_saving(&batch, pictures, true);
    let states = hidden.select(0, int_tensor(batch.predicting_rows(), &device));
    let targets: Vec<usize> =
        groups.iter().flat_map(|g| g.1.iter().flat_map(|r| r.iter().map(|&i| i as usize))).collect();
    let log_probs = values(head::log_probs(states, model.head().0, int_tensor(targets, &device), 1.0, false).log_probs);
    log_probs.iter().zip(coef).map(|(p, c)| f64::from(*p) * f64::from(*c)).sum()
}

/// With and without dropout the gradient is the slope of what the forward says.
fn as_finite_differences<B: Kernels>() {
    for dropout in [0.0, 0.4] {
        let mut model = all_adapted(crate::common::load::<B>("qwen3_vl_tied_gqa"), dropout);
        model.begin_update(11);
        let prompt = Golden::open("qwen3_vl_tied_gqa").prompt(&model);
        let responses = responses(1);
        let groups: [Group; 1] = [(&prompt, responses.iter().map(|r| &r[..]).collect())];
        let coef = coefficients(responses.iter().map(Vec::len).sum());
        let grads = engine_at(&model, &groups, &coef, true, 1.0);
        let (mut checked, mut worst) = (0, 0f64);
        for (name, grad) in grads.iter().filter(|(name, _)| name.contains("layers.1.")) {
            let largest = grad.iter().fold(0f32, |m, v| m.max(v.abs()));
            let place = grad.iter().position(|v| v.abs() == largest).unwrap();
            let step = 2e-3f32;
            let at = |by: f32| {
                let mut moved = model.clone();
                Learning::visit_params(&mut moved, &mut Nudge(name, place, by));
                objective(&moved, &groups, &coef)
            };
            let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
            worst = worst.max((slope - f64::from(grad[place])).abs() / f64::from(largest));
            checked += 1;
        }
        println!("dropout {dropout}: {checked} slopes within {worst:.1e}");
        assert!(checked == 14 && worst < 5e-3, "{worst}");
    }
}

/// What is dropped depends on the tokens alone: not on what is packed with them, computed again or apart. Scoring drops
/// nothing.
fn dropout_is_the_same_however_it_is_cut<B: Kernels>() {
    let case = "one_image_tied";
    let mut model = all_adapted(crate::common::load::<B>(case), 0.3);
    model.begin_update(3);
    let prompt = Golden::open(case).prompt(&model);
    let text = model.prompt((0..9).map(|i| 30 + 7 * i).collect(), vec![], vec![]).unwrap();
    let responses = responses(2);
    let group =
        |prompt, r: std::ops::Range<usize>| -> Group { (prompt, responses[r].iter().map(|r| &r[..]).collect()) };
    let both = [group(&prompt, 0..3), group(&text, 3..6)];
    let counts: Vec<usize> = responses.iter().map(Vec::len).collect();
    let coef = coefficients(counts.iter().sum());
    let first: usize = counts[..3].iter().sum();
    let together = engine_at(&model, &both, &coef, false, 1.0);
    compare(&engine_at(&model, &both, &coef, true, 1.0), &together, 1e-5, "computed again");
    let mut apart = engine_at(&model, &both[..1], &coef[..first], false, 1.0);
    for (name, grad) in engine_at(&model, &both[1..], &coef[first..], true, 1.0) {
        apart.get_mut(&name).unwrap().iter_mut().zip(grad).for_each(|(sum, part)| *sum += part);
    }
    compare(&apart, &together, 1e-5, "in two passes");
    let parts = crate::tensor::in_parts(&model, &prompt, &responses[..2], true);
    let whole = engine_at(
        &model,
        &[group(&prompt, 0..1), group(&prompt, 1..2)],
        &{
            let one = |n: usize| coefficients(n);
            [one(counts[0]), one(counts[1])].concat()
        },
        false,
        0.8,
    );
    compare(&parts, &whole, 1e-5, "in parts");
    let mut other = model.clone();
    other.begin_update(4);
    let differs = engine_at(&other, &both, &coef, false, 1.0);
    assert!(differs.iter().any(|(name, grad)| largest_difference(grad, &together[name]) > 1e-3));
    assert_eq!(logits(&other, &prompt), logits(&model, &prompt), "scoring drops nothing");
    let none = all_adapted(crate::common::load::<B>(case), 0.0);
    assert!(largest_difference(&logits(&none, &prompt), &logits(&model, &prompt)) > 1e-3, "the tower has none here");
}

/// What is written is what PEFT wrote, and is read again; merged weights compute the same.
fn files_are_as_peft_has_them<B: Kernels>() {
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        let (prompt_case, folder, adapter) = parts(case);
        let model = adapted::<B>(case);
        let own = dir.path().join(case);
        model.save_adapter(&own, None).unwrap();
        let tensors = |folder: &Path| -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
            let bytes = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            file.tensors().into_iter().map(|(name, t)| (name, (t.shape().to_vec(), t.data().to_vec()))).collect()
        };
        assert_eq!(tensors(&own), tensors(&adapter), "{case}");
        let again = AdapterFolder::open(&own).unwrap();
        assert_eq!(again.config, AdapterFolder::open(&adapter).unwrap().config);
        assert_eq!(again.base_folder().unwrap().canonicalize().unwrap(), folder.canonicalize().unwrap());
        let prompt = Golden::open(&prompt_case).prompt(&model);
        let read = load::<B>(&folder).with_adapter_of(&again, base_of(&folder)).unwrap();
        assert_eq!(logits(&read, &prompt), logits(&model, &prompt));
        let merged = dir.path().join(format!("{case}_merged"));
        model.save(&merged, None).unwrap();
        assert_eq!(logits(&load::<B>(&merged), &prompt), logits(&model.clone().merged(), &prompt), "{case}");
    }
}

/// A new adapter changes nothing, to the bit; the same seed draws the same.
fn a_new_adapter_adds_nothing<B: Kernels>() {
    let case = "qwen2_vl_tied_gqa";
    let plain = crate::common::load::<B>(case);
    let prompt = Golden::open(case).prompt(&plain);
    let base = || BaseModel { path: "base".into(), fingerprint: String::new() };
    let new = |seed| {
        plain.clone().with_adapters(settings(ModuleNames::Ends(vec!["q_proj".into()]), ""), base(), seed).unwrap()
    };
    assert_eq!(logits(&new(1), &prompt), logits(&plain, &prompt));
    assert!(!new(1).trains_vision() && plain.trains_vision());
    struct Matrices(Vec<(String, Vec<f32>)>);
    impl<B: Kernels> ParamVisitor<B> for Matrices {
        fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
            self.0.push((name.into(), values(tensor.clone())));
        }
    }
    let drawn = |seed| {
        let mut all = Matrices(vec![]);
        Learning::visit_params(&mut new(seed), &mut all);
        all.0
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    let names: Vec<_> = drawn(1).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[..2],
        ["model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_B.weight"]
    );
    assert_eq!(names.len(), 4);
    let bound = 1.0 / 32f32.sqrt();
    let a = &drawn(1)[0].1;
    assert!(a.iter().all(|v| v.abs() <= bound) && a.iter().any(|v| v.abs() > 0.9 * bound));
}

/// A copy of a fixture's adapter with one key of its configuration changed.
fn with_key(case: &str, key: &str, value: serde_json::Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = parts(case).2;
    std::fs::copy(folder.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json[key] = value;
    std::fs::write(dir.path().join("adapter_config.json"), json.to_string()).unwrap();
    dir
}

type Cpu = burn_flex::Flex<f32, i32>;

#[test]
fn what_would_compute_something_else_is_refused_by_its_key() {
    use serde_json::json;
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 3})),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("lora_alpha", json!(null)),
        ("lora_dropout", json!(1.0)),
        ("target_modules", json!(3)),
    ] {
        let dir = with_key("qwen2_some", key, value);
        let said = AdapterFolder::open(dir.path()).unwrap_err().to_string();
        assert!(said.contains("adapter_config.json") && said.contains(&format!("{key}: ")), "{said}");
    }
    let dir = with_key("qwen2_some", "base_model_name_or_path", json!("Qwen/Qwen2-VL-2B-Instruct"));
    let said = AdapterFolder::open(dir.path()).unwrap().base_folder().unwrap_err().to_string();
    assert!(said.contains("base_model_name_or_path") && said.contains("Qwen/Qwen2-VL-2B-Instruct"), "{said}");
    std::fs::rename(dir.path().join("adapter_model.safetensors"), dir.path().join("adapter_model.bin")).unwrap();
    let folder = parts("qwen2_some").1;
    let said = load::<Cpu>(&folder)
        .with_adapter_of(&AdapterFolder::open(dir.path()).unwrap(), base_of(&folder))
        .unwrap_err()
        .to_string();
    assert!(said.contains("adapter_model.bin is not read"), "{said}");
}

/// Of another family, of another size, of another rank, of the same shapes.
#[test]
fn an_adapter_of_another_base_is_told_by_its_tensors() {
    let refused = |adapter: &Path, folder: &Path| {
        let adapter = AdapterFolder::open(adapter).unwrap();
        load::<Cpu>(folder).with_adapter_of(&adapter, base_of(folder)).unwrap_err().to_string()
    };
    let (_, qwen2, some) = parts("qwen2_some");
    let said = refused(&some, &parts("qwen2_5_decoder").1);
    for part in [
        "does not fit the model in",
        "tied_gqa",
        "mis-shaped model.layers.0.self_attn.q_proj.lora_A.weight",
        "[3, 32]",
        "[3, 64]",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let said = refused(&parts("qwen3_pattern").2, &qwen2);
    assert!(said.contains("extra      model.layers.2.mlp.up_proj.lora_A.weight: a rank of 1"), "{said}");
    let dir = with_key("qwen2_some", "r", serde_json::json!(4));
    let said = refused(dir.path(), &qwen2);
    assert!(said.contains("[3, 32]") && said.contains("a rank of 4 on this base needs [4, 32]"), "{said}");
    // Of the same shapes and other values: only what was trained here knows.
    let dir = tempfile::tempdir().unwrap();
    adapted::<Cpu>("qwen2_some").save_adapter(&dir.path().join("own"), None).unwrap();
    let moved = dir.path().join("base");
    std::fs::create_dir(&moved).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(qwen2.join(name), moved.join(name)).unwrap();
    }
    let own = AdapterFolder::open(&dir.path().join("own")).unwrap();
    load::<Cpu>(&moved).with_adapter_of(&own, base_of(&moved)).unwrap();
    let mut bytes = std::fs::read(moved.join("model.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2].copy_from_slice(&[0, 0]);
    std::fs::write(moved.join("model.safetensors"), bytes).unwrap();
    let said = refused(&dir.path().join("own"), &moved);
    assert!(said.contains("trained on other weights"), "{said}");
}

#[test]
fn layers_that_are_not_there_and_dropout_in_the_tower() {
    let model = || load::<Cpu>(&parts("qwen2_some").1);
    let base = || BaseModel { path: "base".into(), fingerprint: String::new() };
    let said = model()
        .with_adapters(settings(ModuleNames::Ends(vec!["q_prok".into()]), ""), base(), 1)
        .unwrap_err()
        .to_string();
    assert!(said.contains("`model.lora.target_modules`") && said.contains("did you mean \"q_proj\""), "{said}");
    let tower = LoraConfig { dropout: 0.1, ..settings(ModuleNames::Pattern("all-linear".into()), "") };
    let said = model().with_adapters(tower, base(), 1).unwrap_err().to_string();
    assert!(said.contains("`model.lora.dropout`") && said.contains("model.visual.blocks.0"), "{said}");
    let none = LoraConfig { rank: 0, ..settings(ModuleNames::Ends(vec!["q_proj".into()]), "") };
    assert!(model().with_adapters(none, base(), 1).unwrap_err().to_string().contains("`model.lora.rank` is 0"));
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: as_peft as_autodiff(1e-4) as_finite_differences
    dropout_is_the_same_however_it_is_cut files_are_as_peft_has_them a_new_adapter_adds_nothing);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: as_peft as_autodiff(2e-3) a_new_adapter_adds_nothing);
