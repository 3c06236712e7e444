//! What holds for every batch: the crate against the oracle, and invariants that follow from the equations alone.

use crate::oracle::{self, Case};
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;
use std::iter::zip;
use vgpo::{
    InterScore, Responses, Schedule, Variant, VgpoConfig,
    compensation::{gate_count, tail_start},
    factors_of,
};

type B = burn_ndarray::NdArray<f32>;

/// Cosines in 64ths: `(S + 1) / 2` is exact in f32, ties are common, and what is not equal differs by more than
/// rounding.
fn cosine() -> impl Strategy<Value = f64> {
    (-64_i32..=64).prop_map(|v| f64::from(v) / 64.0)
}

/// Up to eight responses of up to 24 tokens in three groups; in half of the batches of one length, in a quarter some
/// without an image. In a quarter of the responses all tokens but one look alike: factors reach the ends of their
/// range.
fn batches() -> impl Strategy<Value = Case> {
    let alike_but_one = (cosine(), cosine(), 2_usize..24, 0_usize..24).prop_map(|(all, one, length, at)| {
        let mut row = vec![all; length];
        row[at % length] = one;
        row
    });
    let tokens = prop_oneof![3 => prop::collection::vec(cosine(), 1..24), 1 => alike_but_one];
    let response = (0_usize..3, tokens);
    (prop::collection::vec(response, 1..9), any::<bool>(), 0_u8..4).prop_map(|(mut responses, one_length, images)| {
        if one_length {
            let shortest = responses.iter().map(|r| r.1.len()).min().unwrap();
            responses.iter_mut().for_each(|r| r.1.truncate(shortest));
        }
        Case {
            groups: responses.iter().map(|r| r.0).collect(),
            // A prompt has an image or not: all responses of its group alike.
            has_image: responses.iter().map(|r| images > 0 || r.0 != 2).collect(),
            cosines: responses.into_iter().map(|r| r.1).collect(),
        }
    })
}

fn twentieth() -> impl Strategy<Value = f64> {
    (1_u32..=20).prop_map(|v| f64::from(v) / 20.0)
}

fn configs() -> impl Strategy<Value = VgpoConfig> {
    let schedule = prop_oneof![Just(Schedule::Linear), Just(Schedule::Exponential), Just(Schedule::Step)];
    let score = prop_oneof![Just(InterScore::Sum), Just(InterScore::Mean)];
    let variant = prop_oneof![Just(Variant::Paper), Just(Variant::Released)];
    (
        ((0_u32..=16).prop_map(|v| f64::from(v) / 8.0), twentieth(), twentieth()),
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

/// The paper's form with everything on.
fn whole(config: VgpoConfig) -> VgpoConfig {
    VgpoConfig { variant: Variant::Paper, intra: true, inter: true, ..config }
}

/// What the crate computes, ragged.
#[derive(Debug)]
struct Found {
    rho: Vec<Vec<f32>>,
    gate: Vec<Vec<f32>>,
    w: Vec<Vec<f32>>,
    psi: Vec<Vec<f32>>,
    token: Vec<Vec<f32>>,
    combined: Vec<Vec<f32>>,
    score: Vec<f32>,
    phi: Vec<f32>,
    trajectory: Vec<f32>,
}

impl Found {
    /// Every list with its name, trajectory numbers as lists of one.
    fn lists(&self) -> [(&'static str, Vec<Vec<f32>>); 9] {
        let single = |values: &[f32]| values.iter().map(|&v| vec![v]).collect::<Vec<_>>();
        [
            ("rho", self.rho.clone()),
            ("gate", self.gate.clone()),
            ("w", self.w.clone()),
            ("psi", self.psi.clone()),
            ("token", self.token.clone()),
            ("combined", self.combined.clone()),
            ("score", single(&self.score)),
            ("phi", single(&self.phi)),
            ("trajectory", single(&self.trajectory)),
        ]
    }
}

fn run_padded(case: &Case, more_columns: usize, config: &VgpoConfig) -> Found {
    let lengths: Vec<usize> = case.cosines.iter().map(Vec::len).collect();
    let width = lengths.iter().max().unwrap() + more_columns;
    // Padding is NaN: nothing may read it.
    let mut values = vec![f32::NAN; lengths.len() * width];
    for (row, cosines) in case.cosines.iter().enumerate() {
        for (t, s) in cosines.iter().enumerate() {
            values[row * width + t] = ((s + 1.0) / 2.0) as f32; // (4)
        }
    }
    let rho = Tensor::<B, 2>::from_data(TensorData::new(values, [lengths.len(), width]), &Default::default());
    let rows = Responses { lengths: &lengths, groups: &case.groups, has_image: &case.has_image, names: &[] };
    let result = factors_of(rho, &rows, config).unwrap();
    let ragged = |tensor: &Tensor<B, 2>| {
        let values: Vec<f32> = tensor.clone().into_data().into_vec().unwrap();
        let rows = lengths.iter().enumerate();
        rows.map(|(row, &t)| values[row * width..][..t].to_vec()).collect::<Vec<_>>()
    };
    let flat = |tensor: &Tensor<B, 1>| tensor.clone().into_data().into_vec::<f32>().unwrap();
    Found {
        rho: ragged(&result.rho),
        gate: ragged(&result.gate),
        w: ragged(&result.w),
        psi: ragged(&result.psi),
        token: ragged(&result.token),
        combined: ragged(&result.combined()),
        score: flat(&result.score),
        phi: flat(&result.phi),
        trajectory: flat(&result.trajectory),
    }
}

fn run(case: &Case, config: &VgpoConfig) -> Found {
    run_padded(case, 0, config)
}

/// Largest difference, relative for what is above 1.
fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let row = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(a.len(), b.len());
        zip(a, b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
    };
    zip(a, b).map(row).fold(0.0, f32::max)
}

/// The same batch with every cosine changed.
fn mapped(case: &Case, change: impl Fn(f64) -> f64) -> Case {
    let cosines = case.cosines.iter().map(|row| row.iter().map(|&s| change(s)).collect()).collect();
    Case { cosines, ..case.clone() }
}

/// Only these rows.
fn picked(case: &Case, rows: &[usize]) -> Case {
    Case {
        groups: rows.iter().map(|&r| case.groups[r]).collect(),
        has_image: rows.iter().map(|&r| case.has_image[r]).collect(),
        cosines: rows.iter().map(|&r| case.cosines[r].clone()).collect(),
    }
}

/// Rows of each group that take part.
fn members(case: &Case) -> Vec<Vec<usize>> {
    let of = |group| (0..case.groups.len()).filter(|&r| case.groups[r] == group && case.has_image[r]).collect();
    (0..3).map(of).filter(|rows: &Vec<usize>| !rows.is_empty()).collect()
}

fn range(values: impl IntoIterator<Item = f32>) -> (f32, f32) {
    values.into_iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// Whether a min-max of differing values was taken: its ends are 0 and 1.
fn spans_one(values: &[f32]) -> bool {
    let (low, high) = range(values.iter().copied());
    (high - low - 1.0).abs() < 1e-4
}

const CLOSE: f32 = 2e-5;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// Every list, in both forms, with every switch.
    #[test]
    fn the_crate_computes_what_the_oracle_computes(case in batches(), config in configs(), padding in 0_usize..4) {
        let expected = oracle::factors(&case, &config);
        prop_assume!(expected.is_sharp);
        let found = run_padded(&case, padding, &config);
        let f32s = |rows: &[Vec<f64>]| -> Vec<Vec<f32>> {
            rows.iter().map(|row| row.iter().map(|&v| v as f32).collect()).collect()
        };
        let single = |values: &[f64]| -> Vec<Vec<f32>> { values.iter().map(|&v| vec![v as f32]).collect() };
        let lists = [
            f32s(&expected.rho),
            f32s(&expected.gate),
            f32s(&expected.w),
            f32s(&expected.psi),
            f32s(&expected.token),
            f32s(&zip(&expected.token, &expected.trajectory)
                .map(|(row, t)| row.iter().map(|token| token * t).collect())
                .collect::<Vec<_>>()),
            single(&expected.score),
            single(&expected.phi),
            single(&expected.trajectory),
        ];
        for ((name, found), expected) in found.lists().iter().zip(&lists) {
            // A min-max magnifies rounding by the inverse of its range, at most 1 / 1e-3 here.
            prop_assert!(difference(found, expected) < 5e-4, "{name}: {found:?} against {expected:?}");
        }
        prop_assert_eq!(found.lists().len(), lists.len());
    }

    /// Not of the order of responses, the names of groups, or the width of the padding.
    #[test]
    fn the_layout_does_not_matter(case in batches(), config in configs(), padding in 0_usize..5, turn in 0_usize..8) {
        prop_assume!(oracle::factors(&case, &config).is_sharp);
        let plain = run(&case, &config);
        let mut order: Vec<usize> = (0..case.groups.len()).collect();
        order.rotate_left(turn % case.groups.len());
        order.swap(0, case.groups.len() / 2);
        let mut other = picked(&case, &order);
        other.groups.iter_mut().for_each(|group| *group = 1000 - 7 * *group);
        for ((name, plain), (_, other)) in plain.lists().iter().zip(run_padded(&other, padding, &config).lists()) {
            let expected: Vec<Vec<f32>> = order.iter().map(|&row| plain[row].clone()).collect();
            prop_assert!(difference(&other, &expected) < CLOSE * 25.0, "{name}: {other:?} against {expected:?}");
        }
    }

    /// Equations 7, 8, 10 and 11: sums of 0, a span of 1, and factors whose mean is 1 and whose range follows from the
    /// number of what is compared: of n numbers one is 0 and one is 1, so their mean lies between 1/n and 1 - 1/n.
    #[test]
    fn factors_are_centred_and_bounded_by_what_they_compare(case in batches(), config in configs()) {
        let config = whole(config);
        prop_assume!(oracle::factors(&case, &config).is_sharp);
        let found = run(&case, &config);
        for row in members(&case).concat() {
            let (psi, token, n) = (&found.psi[row], &found.token[row], case.cosines[row].len() as f32);
            prop_assert!(psi.iter().sum::<f32>().abs() < 1e-4);
            prop_assert!((token.iter().sum::<f32>() - n).abs() < 1e-4);
            let (low, high) = range(token.iter().copied());
            if spans_one(psi) {
                prop_assert!(low > 1.0 / n - 1e-4 && low < 1.0 - 1.0 / n + 1e-4, "{token:?}");
                prop_assert!(high > 1.0 + 1.0 / n - 1e-4 && high < 2.0 - 1.0 / n + 1e-4, "{token:?}");
            } else {
                prop_assert_eq!((low, high), (1.0, 1.0), "equal weights");
            }
        }
        for rows in members(&case) {
            let n = rows.len() as f32;
            let phi: Vec<f32> = rows.iter().map(|&r| found.phi[r]).collect();
            let trajectory: Vec<f32> = rows.iter().map(|&r| found.trajectory[r]).collect();
            prop_assert!(phi.iter().sum::<f32>().abs() < 1e-5);
            prop_assert!((trajectory.iter().sum::<f32>() - n).abs() < 1e-5);
            let (low, high) = range(trajectory.iter().copied());
            if spans_one(&phi) {
                prop_assert!(low > 1.0 / n - 1e-4 && low < 1.0 - 1.0 / n + 1e-4, "{trajectory:?}");
                prop_assert!(high > 1.0 + 1.0 / n - 1e-4 && high < 2.0 - 1.0 / n + 1e-4, "{trajectory:?}");
            } else {
                prop_assert!((high - low) < 1e-6 && (high - 1.0).abs() < 1e-6, "equal scores: {trajectory:?}");
            }
        }
        for (factors, _) in zip(&found.combined, &case.has_image).filter(|(_, image)| !**image) {
            prop_assert!(factors.iter().all(|f| *f == 1.0), "a row without an image has {factors:?}");
        }
    }

    /// The order of weights is the order of factors: within a response, and between the responses of a group.
    #[test]
    fn who_looks_more_gets_more(case in batches(), config in configs()) {
        let config = VgpoConfig { intra: true, inter: true, ..config };
        let found = run(&case, &config);
        let in_order = |by: &[f32], factors: &[f32]| {
            let pairs = (0..by.len()).flat_map(|i| (0..by.len()).map(move |j| (i, j)));
            pairs.filter(|&(i, j)| by[i] > by[j] + 1e-5).all(|(i, j)| factors[i] >= factors[j])
        };
        for rows in members(&case) {
            for &row in &rows {
                prop_assert!(in_order(&found.w[row], &found.token[row]));
            }
            let pick = |values: &[f32]| rows.iter().map(|&r| values[r]).collect::<Vec<_>>();
            prop_assert!(in_order(&pick(&found.score), &pick(&found.trajectory)));
        }
    }

    /// Released: the clamps, and nothing else, bound the factors.
    #[test]
    fn the_released_clamps_cut_what_the_equations_leave(case in batches(), config in configs()) {
        let config = VgpoConfig { variant: Variant::Released, intra: true, inter: true, ..config };
        let found = run(&case, &config);
        for row in members(&case).concat() {
            for (psi, token) in zip(&found.psi[row], &found.token[row]) {
                prop_assert!((token - (1.0 + psi).clamp(0.1, 2.0)).abs() < 1e-6);
            }
            prop_assert!((found.trajectory[row] - (1.0 + found.phi[row]).clamp(0.9, 2.0)).abs() < 1e-6);
        }
    }

    /// Equation 6: the open tokens are in the tail, none that is closed there looks more, and without those that tie
    /// with the least open one they are fewer than k.
    #[test]
    fn the_gate_opens_for_k_tokens_of_the_tail_and_their_ties(case in batches(), config in configs()) {
        let config = VgpoConfig { gate: true, compensation: true, intra: true, ..config };
        let found = run(&case, &config);
        for row in members(&case).concat() {
            let (s, gate) = (&case.cosines[row], &found.gate[row]);
            let start = tail_start(s.len(), &config);
            prop_assert!(gate[..start].iter().all(|&g| g == 0.0));
            if start == s.len() {
                continue;
            }
            let k = gate_count(s.len() - start, &config);
            let open: Vec<f64> = (start..s.len()).filter(|&t| gate[t] == 1.0).map(|t| s[t]).collect();
            let least = open.iter().copied().fold(f64::INFINITY, f64::min);
            prop_assert!(open.len() >= k, "{gate:?}");
            prop_assert!(open.iter().filter(|&&s| s > least).count() < k, "{gate:?}");
            prop_assert!((start..s.len()).all(|t| (gate[t] == 1.0) == (s[t] >= least)), "{gate:?}");
        }
    }

    /// Equation 5: compensation raises open tokens, by at most the factor 1 + beta, later ones by more, and leaves the
    /// rest.
    #[test]
    fn compensation_only_raises_the_tail(case in batches(), config in configs()) {
        let config = VgpoConfig { compensation: true, intra: true, ..config };
        let found = run(&case, &config);
        for row in members(&case).concat() {
            let mut before = 1.0;
            for ((rho, w), gate) in found.rho[row].iter().zip(&found.w[row]).zip(&found.gate[row]) {
                if *gate == 0.0 {
                    prop_assert_eq!(w, rho);
                } else if *rho > 1e-3 {
                    let raised = f64::from(w / rho);
                    prop_assert!(raised >= before - 1e-5 && raised <= 1.0 + config.beta + 1e-5, "{raised}");
                    before = raised;
                }
            }
            // The last token's position is 1 in both forms, whatever the schedule (a single token's is 0 in the
            // released one).
            let last = case.cosines[row].len() - 1;
            let (rho, w) = (found.rho[row][last], found.w[row][last]);
            if found.gate[row][last] == 1.0 && (last > 0 || config.variant == Variant::Paper) {
                prop_assert!((f64::from(w) - f64::from(rho) * (1.0 + config.beta)).abs() < 1e-5);
            }
        }
    }

    /// Released, `intra = false`: nothing is compensated. In the paper's form the switches are independent.
    #[test]
    fn without_intra_the_released_form_compensates_nothing(case in batches(), config in configs()) {
        let with = |variant, intra| run(&case, &VgpoConfig { variant, intra, inter: true, ..config.clone() });
        let released = with(Variant::Released, false);
        prop_assert!(released.gate.concat().iter().all(|g| *g == 0.0));
        prop_assert_eq!(&released.w, &released.rho);
        prop_assert!(released.token.concat().iter().all(|t| *t == 1.0));
        let plain = VgpoConfig { variant: Variant::Released, intra: true, inter: true, ..config.clone() };
        let plain = VgpoConfig { compensation: false, ..plain };
        prop_assert_eq!(&released.trajectory, &run(&case, &plain).trajectory);
        let (on, off) = (with(Variant::Paper, true), with(Variant::Paper, false));
        prop_assert_eq!((&on.gate, &on.w, &on.phi), (&off.gate, &off.w, &off.phi));
    }

    /// The paper's form does not see the scale of the focus: w grows with it, and the min-maxes take it out again.
    /// Without compensation they take out a shift as well; of the sum as the score only where all responses have one
    /// length.
    #[test]
    fn affine_maps_of_the_focus(case in batches(), config in configs()) {
        let config = whole(config);
        prop_assume!(oracle::factors(&case, &config).is_sharp);
        let rho = |s: f64| (s + 1.0) / 2.0;
        let plain = run(&case, &config);
        // rho / 2
        let halved = run(&mapped(&case, |s| 2.0 * (rho(s) / 2.0) - 1.0), &config);
        prop_assert!(difference(&halved.psi, &plain.psi) < 1e-3);
        prop_assert!(difference(&[halved.phi], &[plain.phi]) < 1e-3);
        // rho / 2 + 3/8
        let shift = |s: f64| 2.0 * (rho(s) / 2.0 + 0.375) - 1.0;
        let uncompensated = VgpoConfig { compensation: false, inter_score: InterScore::Mean, ..config };
        prop_assume!(oracle::factors(&case, &uncompensated).is_sharp);
        let (plain, shifted) = (run(&case, &uncompensated), run(&mapped(&case, shift), &uncompensated));
        prop_assert!(difference(&shifted.psi, &plain.psi) < 1e-3);
        prop_assert!(difference(&[shifted.phi], &[plain.phi]) < 1e-3);
    }

    /// The released focus does not see the scale of the cosine either, but a shift only where no cell is padded:
    /// elsewhere the padding is a token of cosine 0.
    #[test]
    fn the_released_focus_counts_the_padding(case in batches(), config in configs()) {
        let config = VgpoConfig { variant: Variant::Released, ..config };
        prop_assume!(!members(&case).is_empty());
        let plain = run(&case, &config);
        let cosines: Vec<f64> = members(&case).concat().iter().flat_map(|&r| case.cosines[r].clone()).collect();
        let low = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        let high = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        prop_assume!(high - low > 0.1);
        let halved = run(&mapped(&case, |s| s / 2.0), &config);
        prop_assert!(difference(&halved.rho, &plain.rho) < 1e-5);
        // All cosines above 0.
        let shifted = run(&mapped(&case, |s| (s + 1.0) / 4.0 + 0.25), &config);
        let length = case.cosines[0].len();
        let is_padded = case.cosines.iter().any(|row| row.len() != length) || case.has_image.contains(&false);
        let least = members(&case).concat().iter().flat_map(|&r| shifted.rho[r].clone()).fold(1.0, f32::min);
        if is_padded {
            let (low, high) = ((low + 1.0) / 4.0 + 0.25, (high + 1.0) / 4.0 + 0.25);
            prop_assert!((f64::from(least) - low / high).abs() < 1e-5, "{least}");
        } else {
            prop_assert!(least == 0.0);
            prop_assert!(difference(&shifted.rho, &plain.rho) < 1e-5);
        }
    }

    /// Looking away is the opposite of looking: 1 - rho turns the signs of psi, and of phi where all responses have one
    /// length.
    #[test]
    fn the_opposite_focus_has_the_opposite_effect(case in batches(), config in configs()) {
        let config = VgpoConfig { compensation: false, ..whole(config) };
        prop_assume!(oracle::factors(&case, &config).is_sharp);
        let (plain, opposite) = (run(&case, &config), run(&mapped(&case, |s| -s), &config));
        let negative = |rows: &[Vec<f32>]| -> Vec<Vec<f32>> {
            rows.iter().map(|row| row.iter().map(|v| -v).collect()).collect()
        };
        prop_assert!(difference(&opposite.psi, &negative(&plain.psi)) < 1e-3);
        let mean = VgpoConfig { inter_score: InterScore::Mean, ..config };
        prop_assume!(oracle::factors(&case, &mean).is_sharp);
        let (plain, opposite) = (run(&case, &mean), run(&mapped(&case, |s| -s), &mean));
        prop_assert!(difference(&negative(&[opposite.phi]), &[plain.phi]) < 1e-3);
    }

    /// The paper's form: a response's psi is its own, and a group's phi its own.
    #[test]
    fn strangers_do_not_matter_in_the_papers_form(case in batches(), config in configs()) {
        let config = whole(config);
        prop_assume!(oracle::factors(&case, &config).is_sharp);
        let all = run(&case, &config);
        for rows in members(&case) {
            let alone = run(&picked(&case, &rows), &config);
            let expected = |of: &[Vec<f32>]| rows.iter().map(|&r| of[r].clone()).collect::<Vec<_>>();
            prop_assert!(difference(&alone.combined, &expected(&all.combined)) < 1e-3);
            for (i, &row) in rows.iter().enumerate() {
                let single = run(&picked(&case, &[row]), &config);
                prop_assert!(difference(&single.psi, &[all.psi[row].clone()]) < CLOSE);
                prop_assert_eq!(single.trajectory[0], 1.0, "nobody to compare with");
                prop_assert!(zip(&alone.w[i], &all.w[row]).all(|(a, b)| a == b));
            }
        }
    }

    /// Of responses that look alike, the sum favours the longer, the mean none.
    #[test]
    fn the_sum_grows_with_length_and_the_mean_does_not(
        s in cosine(), lengths in prop::collection::vec(1_usize..24, 2..8),
    ) {
        let case = Case {
            groups: vec![0; lengths.len()],
            has_image: vec![true; lengths.len()],
            cosines: lengths.iter().map(|&length| vec![s; length]).collect(),
        };
        let of = |inter_score| {
            let config = VgpoConfig { compensation: false, inter_score, ..VgpoConfig::default() };
            run(&case, &config).phi
        };
        prop_assume!(s > -0.9);
        let sum = of(InterScore::Sum);
        for i in 0..lengths.len() {
            for j in 0..lengths.len() {
                prop_assert_eq!(lengths[i] > lengths[j], sum[i] > sum[j] + 1e-4, "{:?} {:?}", lengths, sum);
            }
        }
        prop_assert!(of(InterScore::Mean).iter().all(|phi| *phi == 0.0));
    }
}
