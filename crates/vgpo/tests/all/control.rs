//! The controls: each replaces one ingredient and leaves the others.

use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;
use vgpo::{Control, InterScore, Responses, VgpoConfig, VgpoError, factors_of, metrics::length_correlation};

type B = burn_ndarray::NdArray<f32>;

/// Responses, their groups and their names.
#[derive(Debug, Clone)]
struct Batch {
    rho: Vec<Vec<f32>>,
    groups: Vec<usize>,
    names: Vec<u64>,
}

/// Token factors, gates and `phi` of a batch.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    rho: Vec<Vec<f32>>,
    token: Vec<Vec<f32>>,
    gate: Vec<Vec<f32>>,
    phi: Vec<f32>,
}

fn run(batch: &Batch, config: &VgpoConfig) -> Found {
    let lengths: Vec<usize> = batch.rho.iter().map(Vec::len).collect();
    let width = lengths.iter().max().unwrap() + 1;
    let padded: Vec<f32> = batch
        .rho
        .iter()
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f32::NAN, width - row.len())))
        .collect();
    let rho = Tensor::<B, 2>::from_data(TensorData::new(padded, [lengths.len(), width]), &Default::default());
    let has_image = vec![true; lengths.len()];
    let rows = Responses { lengths: &lengths, groups: &batch.groups, has_image: &has_image, names: &batch.names };
    let factors = factors_of(rho, &rows, config).unwrap();
    let used: Vec<f32> = factors.rho.clone().into_data().into_vec().unwrap();
    let host = factors.to_host(&lengths).unwrap();
    let rho = lengths.iter().enumerate().map(|(row, &t)| used[row * width..][..t].to_vec()).collect();
    Found { rho, token: host.token, gate: host.gate, phi: host.phi }
}

fn with(control: Control) -> VgpoConfig {
    VgpoConfig { control, ..VgpoConfig::default() }
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

fn sorted(row: &[f32]) -> Vec<f32> {
    let mut row = row.to_vec();
    row.sort_by(f32::total_cmp);
    row
}

fn flipped(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    rows.iter().map(|row| row.iter().rev().copied().collect()).collect()
}

fn batches() -> impl Strategy<Value = Batch> {
    let response = (0_usize..3, any::<u64>(), prop::collection::vec((0_u32..=64).prop_map(|v| v as f32 / 64.0), 1..24));
    prop::collection::vec(response, 1..9).prop_map(|rows| Batch {
        groups: rows.iter().map(|r| r.0).collect(),
        names: rows.iter().map(|r| r.1).collect(),
        rho: rows.into_iter().map(|r| r.2).collect(),
    })
}

/// Worked out by hand: gamma 1/2 and kappa 1 compensate the tail's two tokens of four by .3 t / 4, forwards tokens 3
/// and 4 (.225, .3), backwards tokens 2 and 1.
#[test]
fn by_hand() {
    let rho = vec![vec![0.5, 1.0, 0.25, 1.0], vec![0.5, 0.5]];
    let batch = Batch { rho, groups: vec![0, 0], names: vec![1, 2] };
    let psi = |w: [f32; 4]| -> Vec<f32> {
        let (low, high) = (w.iter().copied().fold(f32::MAX, f32::min), w.iter().copied().fold(f32::MIN, f32::max));
        let scaled = w.map(|w| (w - low) / (high - low));
        let mean = scaled.iter().sum::<f32>() / 4.0;
        scaled.iter().map(|w| 1.0 + w - mean).collect()
    };
    let of = |control| run(&batch, &VgpoConfig { kappa: 1.0, ..with(control) });
    assert!(near(&of(Control::None).token[0], &psi([0.5, 1.0, 0.25 * 1.225, 1.3])));
    let reversed = of(Control::Reversed);
    assert!(near(&reversed.token[0], &psi([0.5 * 1.3, 1.225, 0.25, 1.0])));
    assert_eq!(reversed.gate[0], [1.0, 1.0, 0.0, 0.0]);
    assert!(near(&of(Control::Constant).token[0], &psi([1.0, 1.0, 1.225, 1.3])));
    // The longer response has phi 1 - 1/2, whatever it looks at.
    let dark = Batch { rho: vec![vec![0.0; 4], vec![1.0; 2]], ..batch.clone() };
    let length = VgpoConfig { inter_score: InterScore::Mean, ..with(Control::Length) };
    assert!(near(&run(&dark, &length).phi, &[0.5, -0.5]));
    assert!(near(&run(&dark, &VgpoConfig { control: Control::None, ..length }).phi, &[-0.5, 0.5]));
}

/// The order of six tokens is a hash that results of finished runs depend on.
#[test]
fn the_permutation_of_a_name_stays_what_it_is() {
    let batch = Batch { rho: vec![(0..6).map(|t| t as f32 / 8.0).collect()], groups: vec![0], names: vec![7] };
    let order = |config: &VgpoConfig| run(&batch, config).rho[0].iter().map(|v| (v * 8.0) as usize).collect::<Vec<_>>();
    let first = order(&with(Control::Permuted));
    assert_eq!(first, GOLDEN);
    assert_ne!(order(&VgpoConfig { control_seed: 1, ..with(Control::Permuted) }), first);
    let nameless = Responses { lengths: &[1], groups: &[0], has_image: &[true], names: &[] };
    let refused = factors_of(Tensor::<B, 2>::ones([1, 1], &Default::default()), &nameless, &with(Control::Permuted));
    assert!(matches!(refused, Err(VgpoError::Rows { what: "names", .. })));
}

/// Of a splitmix64 written down a second time, in Python.
const GOLDEN: [usize; 6] = [1, 3, 4, 2, 5, 0];

/// Each place is as likely for each token: no bias of the dealing.
#[test]
fn permutations_are_even() {
    let names: Vec<u64> = (0..6000).collect();
    let batch = Batch { rho: vec![vec![0.0, 0.25, 0.5, 1.0]; 6000], groups: vec![0; 6000], names };
    let found = run(&batch, &with(Control::Permuted)).rho;
    for place in 0..4 {
        for value in [0.0, 0.25, 0.5, 1.0] {
            let count = found.iter().filter(|row| row[place] == value).count();
            assert!(count.abs_diff(1500) < 150, "{value} at {place}: {count} of 6000");
        }
    }
}

proptest! {
    #[test]
    fn permuted_keeps_the_values_and_knows_no_batch(batch in batches()) {
        let config = with(Control::Permuted);
        let (plain, found) = (run(&batch, &with(Control::None)), run(&batch, &config));
        for (a, b) in plain.rho.iter().zip(&found.rho) {
            prop_assert_eq!(sorted(a), sorted(b));
        }
        // Without compensation places decide nothing between responses.
        let flat = |control| VgpoConfig { compensation: false, ..with(control) };
        prop_assert!(near(&run(&batch, &flat(Control::Permuted)).phi, &run(&batch, &flat(Control::None)).phi));
        // A response alone, or in a batch in another order, is dealt out alike.
        for row in 0..batch.rho.len() {
            let one = |values: &[Vec<f32>]| values[row].clone();
            let alone = Batch { rho: vec![one(&batch.rho)], groups: vec![5], names: vec![batch.names[row]] };
            let dealt = run(&alone, &config);
            prop_assert_eq!(&dealt.rho[0], &found.rho[row]);
            // Sums over rows of another width are rounded otherwise.
            prop_assert!(near(&dealt.token[0], &found.token[row]));
        }
    }

    #[test]
    fn length_is_all_that_counts_between_responses(batch in batches()) {
        let found = run(&batch, &with(Control::Length));
        let lengths: Vec<usize> = batch.rho.iter().map(Vec::len).collect();
        let by_length = length_correlation(&found.phi, &lengths, &batch.groups);
        prop_assert!(by_length.is_none_or(|r| r > 0.0));
        let blind = Batch { rho: batch.rho.iter().map(|row| vec![0.5; row.len()]).collect(), ..batch.clone() };
        prop_assert_eq!(&run(&blind, &with(Control::Length)).phi, &found.phi);
        // Within responses nothing changes.
        prop_assert_eq!(found.token, run(&batch, &with(Control::None)).token);
    }

    #[test]
    fn reversed_is_vgpo_with_time_turned_round(batch in batches()) {
        let found = run(&batch, &with(Control::Reversed));
        let turned = run(&Batch { rho: flipped(&batch.rho), ..batch.clone() }, &with(Control::None));
        for (a, b) in found.token.iter().zip(flipped(&turned.token)) {
            prop_assert!(near(a, &b));
        }
        prop_assert_eq!(&found.gate, &flipped(&turned.gate));
        prop_assert!(near(&found.phi, &turned.phi));
        prop_assert_eq!(found.rho, batch.rho);
    }

    #[test]
    fn constant_forgets_the_picture(batch in batches()) {
        let blind = Batch { rho: batch.rho.iter().map(|row| vec![0.5; row.len()]).collect(), ..batch.clone() };
        let config = with(Control::Constant);
        prop_assert_eq!(run(&batch, &config), run(&blind, &config));
        let flat = run(&batch, &VgpoConfig { compensation: false, ..config });
        prop_assert!(flat.token.iter().flatten().all(|factor| *factor == 1.0));
    }
}
