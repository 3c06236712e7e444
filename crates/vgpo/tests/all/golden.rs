//! The stored inputs and results of both forms of VGPO, for eight settings, on two backends.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use serde_json::Value;
use vgpo::{Factors, Schedule, Variant, VgpoConfig, factors};

const TOLERANCE: f64 = 1e-5;

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

fn config(params: &Value, variant: Variant) -> VgpoConfig {
    let number = |key: &str| params[key].as_f64().unwrap();
    let flag = |key: &str| params[key].as_bool().unwrap();
    VgpoConfig {
        variant,
        beta: number("beta"),
        gamma: number("gamma"),
        kappa: number("kappa"),
        schedule: match params["kind"].as_str().unwrap() {
            "linear" => Schedule::Linear,
            "exponential" => Schedule::Exponential,
            "step" => Schedule::Step,
            other => panic!("unknown schedule {other}"),
        },
        gate: flag("gated"),
        intra: flag("intra"),
        inter: flag("inter"),
        ..VgpoConfig::default()
    }
}

/// Values of a `[R, T]` tensor without the padding.
fn tokens<B: Backend>(tensor: Tensor<B, 2>, lengths: &[usize]) -> Vec<f64> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().into_vec().unwrap();
    lengths
        .iter()
        .enumerate()
        .flat_map(|(row, &length)| &values[row * width..][..length])
        .map(|&v| f64::from(v))
        .collect()
}

fn responses<B: Backend>(tensor: Tensor<B, 1>) -> Vec<f64> {
    let values: Vec<f32> = tensor.into_data().into_vec().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn compare(what: &str, found: Vec<f64>, expected: &Value) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        // Trajectory scores are sums of tens of numbers: their tolerance is relative.
        let bound = TOLERANCE * b.abs().max(1.0);
        assert!((a - b).abs() <= bound, "{what}[{i}]: {a} against {b}");
    }
}

fn all_settings<B: Backend>() {
    let device = B::Device::default();
    let cases: Vec<Value> = serde_json::from_str(include_str!("../fixtures/golden.json")).unwrap();
    assert_eq!(cases.len(), 8);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let lengths: Vec<usize> = numbers(&case["lengths"]).into_iter().map(|t| t as usize).collect();
        let group_size = case["group_size"].as_u64().unwrap() as usize;
        let groups: Vec<usize> = (0..lengths.len()).map(|row| row / group_size).collect();
        let width = *lengths.iter().max().unwrap();
        // Padding is NaN: nothing may read it.
        let mut rho = vec![f32::NAN; lengths.len() * width];
        for (row, cosine) in case["cosine"].as_array().unwrap().iter().enumerate() {
            for (t, s) in numbers(cosine).into_iter().enumerate() {
                rho[row * width + t] = ((s + 1.0) / 2.0) as f32; // (4)
            }
        }
        let rho = Tensor::<B, 2>::from_data(TensorData::new(rho, [lengths.len(), width]), &device);
        let advantages: Vec<f32> = numbers(&case["group_advantage"]).into_iter().map(|a| a as f32).collect();
        let advantages = Tensor::<B, 1>::from_data(advantages.as_slice(), &device);
        for (key, variant) in [("paper", Variant::Paper), ("released", Variant::Released)] {
            let expected = &case[key];
            let config = config(&case["params"], variant);
            let result: Factors<B> = factors(rho.clone(), &lengths, &groups, &config).unwrap();
            let shaped = tokens(result.shape(advantages.clone()), &lengths);
            let named = |what: &str| format!("{name}/{key}/{what}");
            compare(&named("rho"), tokens(result.rho.clone(), &lengths), &expected["rho"]);
            compare(&named("gate"), tokens(result.gate.clone(), &lengths), &expected["gate"]);
            compare(&named("w"), tokens(result.w.clone(), &lengths), &expected["w"]);
            compare(&named("psi"), tokens(result.psi.clone(), &lengths), &expected["psi"]);
            compare(&named("s"), responses(result.score.clone()), &expected["s"]);
            compare(&named("phi"), responses(result.phi.clone()), &expected["phi"]);
            compare(&named("factors"), tokens(result.combined(), &lengths), &expected["factors"]);
            compare(&named("advantages"), shaped, &expected["advantages"]);
        }
    }
}

#[test]
fn ndarray_matches_the_golden_results() {
    all_settings::<burn_ndarray::NdArray<f32>>();
}

#[test]
fn flex_matches_the_golden_results() {
    all_settings::<burn_flex::Flex<f32, i32>>();
}
