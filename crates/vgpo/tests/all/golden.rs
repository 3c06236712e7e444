//! The stored inputs and results of both forms of VGPO, for sixteen settings, on two backends.
//!
//! The results of the released form were made by the released code's own functions in f32, those of the paper's in f64.
//! Rows of prompts without an image have a ramp by position in the released results (their focus is a constant there)
//! and factors of 1 here: of them only our own promise is checked.

use crate::oracle::{self, Case};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use serde_json::Value;
use vgpo::{Factors, Responses, Schedule, Variant, VgpoConfig, factors_of};

/// Largest difference to the results of each form.
const FORMS: [(&str, Variant, f64); 2] = [("paper", Variant::Paper, 1e-5), ("released", Variant::Released, 2e-5)];

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

/// One list per response.
fn rows_of(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
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

/// The stored batches with their names.
fn cases() -> Vec<(String, Value, Case)> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../fixtures/golden.json")).unwrap();
    assert_eq!(cases.len(), 16);
    let read = |case: Value| {
        let cosines = rows_of(&case["cosine"]);
        let group_size = case["group_size"].as_u64().unwrap() as usize;
        let lengths: Vec<usize> = numbers(&case["lengths"]).into_iter().map(|t| t as usize).collect();
        assert_eq!(cosines.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        let has_image = case["has_image"].as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect();
        let groups = (0..cosines.len()).map(|row| row / group_size).collect();
        (case["name"].as_str().unwrap().to_string(), case, Case { groups, has_image, cosines })
    };
    cases.into_iter().map(read).collect()
}

/// Values of a `[R, T]` tensor, one list per response, without the padding.
fn tokens<B: Backend>(tensor: Tensor<B, 2>, lengths: &[usize]) -> Vec<Vec<f64>> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().into_vec().unwrap();
    let row = |(row, &length): (usize, &usize)| values[row * width..][..length].iter().map(|&v| f64::from(v)).collect();
    lengths.iter().enumerate().map(row).collect()
}

fn responses<B: Backend>(tensor: Tensor<B, 1>) -> Vec<Vec<f64>> {
    let values: Vec<f32> = tensor.into_data().into_vec().unwrap();
    values.into_iter().map(|v| vec![f64::from(v)]).collect()
}

/// Largest difference over the rows with `counts`. Trajectory scores are sums of tens of numbers: theirs is relative.
fn difference(what: &str, found: &[Vec<f64>], expected: &[Vec<f64>], counts: &[bool]) -> f64 {
    assert_eq!((found.len(), counts.len()), (expected.len(), expected.len()), "{what}");
    let mut largest = 0.0_f64;
    for ((found, expected), _) in found.iter().zip(expected).zip(counts).filter(|(_, counts)| **counts) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.iter().zip(expected) {
            assert!(a.is_finite() && b.is_finite(), "{what}: {a} against {b}");
            largest = largest.max((a - b).abs() / b.abs().max(1.0));
        }
    }
    largest
}

fn computed<B: Backend>(case: &Case, more_columns: usize, config: &VgpoConfig) -> Factors<B> {
    let device = B::Device::default();
    let lengths: Vec<usize> = case.cosines.iter().map(Vec::len).collect();
    let width = lengths.iter().max().unwrap() + more_columns;
    // Padding is NaN: nothing may read it.
    let mut rho = vec![f32::NAN; lengths.len() * width];
    for (row, cosine) in case.cosines.iter().enumerate() {
        for (t, s) in cosine.iter().enumerate() {
            rho[row * width + t] = ((s + 1.0) / 2.0) as f32; // (4)
        }
    }
    let rho = Tensor::<B, 2>::from_data(TensorData::new(rho, [lengths.len(), width]), &device);
    let rows = Responses { lengths: &lengths, groups: &case.groups, has_image: &case.has_image, names: &[] };
    factors_of(rho, &rows, config).unwrap()
}

fn all_settings<B: Backend>() {
    for (name, stored, case) in cases() {
        let lengths: Vec<usize> = case.cosines.iter().map(Vec::len).collect();
        let advantages: Vec<f32> = numbers(&stored["group_advantage"]).into_iter().map(|a| a as f32).collect();
        let advantages = Tensor::<B, 1>::from_data(advantages.as_slice(), &Default::default());
        for ((key, variant, tolerance), more_columns) in FORMS.into_iter().flat_map(|form| [(form, 0), (form, 3)]) {
            let expected = &stored[key];
            let result = computed::<B>(&case, more_columns, &config(&stored["params"], variant));
            let per_token = |tensor: &Tensor<B, 2>| tokens(tensor.clone(), &lengths);
            let (combined, shaped) = (per_token(&result.combined()), per_token(&result.shape(advantages.clone())));
            let mut found = vec![
                ("rho", per_token(&result.rho)),
                ("gate", per_token(&result.gate)),
                ("w", per_token(&result.w)),
                ("psi", per_token(&result.psi)),
                ("s", responses(result.score.clone())),
                ("factors", combined.clone()),
                ("advantages", shaped),
            ];
            found.push(match variant {
                Variant::Paper => ("phi", responses(result.phi.clone())),
                // 1 + phi, clamped
                Variant::Released => ("seq", responses(result.trajectory.clone())),
            });
            assert_eq!(expected.as_object().unwrap().len(), found.len(), "every stored list is compared");
            let mut largest = 0.0_f64;
            for (what, found) in found {
                let d = difference(what, &found, &rows_of(&expected[what]), &case.has_image);
                assert!(d <= tolerance, "{name}/{key}/{what}: differs by {d:.1e}");
                largest = largest.max(d);
            }
            println!("{name:18} {key:8} {largest:.1e}");
            for (factors, _) in combined.iter().zip(&case.has_image).filter(|(_, image)| !**image) {
                assert!(factors.iter().all(|f| *f == 1.0), "{name}/{key}: a row without an image has {factors:?}");
            }
            if variant == Variant::Paper {
                let all = vec![true; lengths.len()];
                assert!(difference(&name, &combined, &rows_of(&expected["factors"]), &all) <= tolerance);
            }
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

/// The oracle of the property tests is held to the same results.
#[test]
fn the_oracle_matches_the_golden_results() {
    for (name, stored, case) in cases() {
        for (key, variant, tolerance) in FORMS {
            let expected = &stored[key];
            let found = oracle::factors(&case, &config(&stored["params"], variant));
            let single = |values: &[f64]| values.iter().map(|&v| vec![v]).collect::<Vec<_>>();
            let combined: Vec<Vec<f64>> = std::iter::zip(&found.token, &found.trajectory)
                .map(|(row, trajectory)| row.iter().map(|token| token * trajectory).collect())
                .collect();
            for (what, found) in [
                ("rho", found.rho.clone()),
                ("gate", found.gate.clone()),
                ("w", found.w.clone()),
                ("psi", found.psi.clone()),
                ("s", single(&found.score)),
                ("factors", combined),
            ] {
                let d = difference(what, &found, &rows_of(&expected[what]), &case.has_image);
                assert!(d <= tolerance, "{name}/{key}/{what}: differs by {d:.1e}");
            }
        }
    }
}
