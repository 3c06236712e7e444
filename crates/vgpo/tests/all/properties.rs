//! Properties that hold for every batch.

use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;
use vgpo::{InterScore, Schedule, Variant, VgpoConfig, factors};

type B = burn_ndarray::NdArray<f32>;

/// A response: its group and the focus of its tokens.
type Response = (usize, Vec<f32>);

fn responses() -> impl Strategy<Value = Vec<Response>> {
    // A coarse grid of focus values makes ties common and keeps ranges away from rounding noise.
    let token = (0_u32..=200).prop_map(|v| v as f32 / 200.0);
    prop::collection::vec((0_usize..3, prop::collection::vec(token, 1..24)), 1..8)
}

fn configs() -> impl Strategy<Value = VgpoConfig> {
    let schedule = prop_oneof![Just(Schedule::Linear), Just(Schedule::Exponential), Just(Schedule::Step)];
    let score = prop_oneof![Just(InterScore::Sum), Just(InterScore::Mean)];
    let variant = prop_oneof![Just(Variant::Paper), Just(Variant::Released)];
    (
        (0.0..2.0_f64, 0.05..=1.0_f64, 0.05..=1.0_f64),
        (schedule, score, variant),
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((beta, gamma, kappa), (schedule, inter_score, variant), (intra, inter, compensation, gate))| VgpoConfig {
                beta,
                gamma,
                kappa,
                schedule,
                inter_score,
                variant,
                intra,
                inter,
                compensation,
                gate,
                ..VgpoConfig::default()
            },
        )
}

struct Result {
    combined: Vec<Vec<f32>>,
    psi: Vec<Vec<f32>>,
    phi: Vec<f32>,
    gate: Vec<Vec<f32>>,
}

fn run(batch: &[Response], padding: usize, config: &VgpoConfig) -> Result {
    let lengths: Vec<usize> = batch.iter().map(|(_, rho)| rho.len()).collect();
    let groups: Vec<usize> = batch.iter().map(|(group, _)| *group).collect();
    let width = lengths.iter().max().unwrap() + padding;
    let mut values = vec![f32::NAN; batch.len() * width];
    for (row, (_, rho)) in batch.iter().enumerate() {
        values[row * width..][..rho.len()].copy_from_slice(rho);
    }
    let rho = Tensor::<B, 2>::from_data(TensorData::new(values, [batch.len(), width]), &Default::default());
    let result = factors(rho, &lengths, &groups, config).unwrap();
    let ragged = |tensor: Tensor<B, 2>| {
        let values: Vec<f32> = tensor.into_data().into_vec().unwrap();
        let rows = lengths.iter().enumerate();
        rows.map(|(row, &t)| values[row * width..][..t].to_vec()).collect()
    };
    Result {
        combined: ragged(result.combined()),
        psi: ragged(result.psi.clone()),
        phi: result.phi.into_data().into_vec().unwrap(),
        gate: ragged(result.gate),
    }
}

fn close(a: &[f32], b: &[f32]) -> bool {
    std::iter::zip(a, b).all(|(a, b)| (a - b).abs() < 1e-4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn neither_the_order_of_rows_nor_the_padding_matters(
        batch in responses(), config in configs(), padding in 0_usize..5, turn in 0_usize..8,
    ) {
        let plain = run(&batch, 0, &config);
        let turn = turn % batch.len();
        let mut turned = batch.clone();
        turned.rotate_left(turn);
        let mut other = run(&turned, padding, &config).combined;
        other.rotate_right(turn);
        for (a, b) in plain.combined.iter().zip(&other) {
            prop_assert!(close(a, b), "{a:?} against {b:?}");
        }
    }

    #[test]
    fn the_names_of_groups_do_not_matter(batch in responses(), config in configs()) {
        let renamed: Vec<Response> = batch.iter().map(|(g, rho)| (1000 - 7 * g, rho.clone())).collect();
        for (a, b) in run(&batch, 0, &config).combined.iter().zip(&run(&renamed, 0, &config).combined) {
            prop_assert!(close(a, b));
        }
    }

    #[test]
    fn psi_has_mean_0_in_each_response_and_phi_in_each_group(batch in responses(), config in configs()) {
        let result = run(&batch, 2, &config);
        for psi in &result.psi {
            prop_assert!(psi.iter().sum::<f32>().abs() < 1e-4);
            prop_assert!(psi.iter().all(|p| p.abs() <= 1.0));
        }
        for group in 0..3 {
            let sum: f32 = batch.iter().zip(&result.phi).filter(|((g, _), _)| *g == group).map(|(_, phi)| phi).sum();
            prop_assert!(sum.abs() < 1e-4);
        }
    }

    #[test]
    fn factors_keep_the_sign_of_the_advantage(batch in responses(), config in configs()) {
        for factors in run(&batch, 0, &config).combined {
            prop_assert!(factors.iter().all(|f| (0.0..=4.0001).contains(f)), "{factors:?}");
        }
    }

    #[test]
    fn the_gate_opens_for_at_least_k_tokens_and_only_in_the_tail(batch in responses(), config in configs()) {
        let config = VgpoConfig { gate: true, compensation: true, variant: Variant::Paper, ..config };
        for ((_, rho), gate) in batch.iter().zip(run(&batch, 1, &config).gate) {
            let start = vgpo::compensation::tail_start(rho.len(), &config);
            let k = vgpo::compensation::gate_count(rho.len() - start, config.kappa);
            prop_assert!(gate[..start].iter().all(|&g| g == 0.0));
            prop_assert!(gate.iter().sum::<f32>() as usize >= k);
        }
    }
}
