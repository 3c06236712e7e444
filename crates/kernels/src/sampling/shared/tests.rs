//! Tokens that ranks sample together against those of one rank that has all logits.

use comm::{Ranks, Traffic, threads};

use super::*;
use crate::head::LmHead;
use crate::sampling::sample_tokens;
use crate::{host, source};

const VOCAB: usize = 1003;
const ROWS: usize = 40;
const WIDTH: usize = 8;

/// Tokens and their log-probs.
type Drawn = (Vec<i32>, Vec<f32>);

/// Rows that choose in every way there is, each with the forbidden ids of its own, of which one row has all of a rank.
struct Case<B: Kernels> {
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    choices: Vec<RowChoice>,
    mask: Option<Tensor<B, 2>>,
}

impl<B: Kernels> Case<B> {
    /// `settings` are temperature and nucleus of the rows, in turn.
    fn new(settings: &[(f64, f64)], masked: bool) -> Self {
        let device = Default::default();
        let random: Vec<f32> = host::floats(source::random::<B, 1>([2 * ROWS])).unwrap();
        // Normal values to uniform ones, by their last digits.
        let uniform = |i: usize| ((f64::from(random[i]).abs() * 1e4).fract() as f32).clamp(1e-6, 1.0 - 1e-6);
        let choice = |row: usize| {
            let (temperature, top_p) = settings[row % settings.len()];
            RowChoice { temperature, top_p, uniform: uniform(row) }
        };
        let forbidden = |row: usize, id: usize| match row % 5 {
            0 => false,
            1 => id < VOCAB / 2,
            2 => id >= VOCAB / 4,
            k => (id * 31 + row).is_multiple_of(k),
        };
        let mask: Vec<f32> =
            (0..ROWS * VOCAB).map(|i| if forbidden(i / VOCAB, i % VOCAB) { -1e30 } else { 0.0 }).collect();
        Self {
            hidden: source::random([ROWS, WIDTH]),
            weight: source::random([VOCAB, WIDTH]),
            choices: (0..ROWS).map(choice).collect(),
            mask: masked.then(|| Tensor::from_data(TensorData::new(mask, [ROWS, VOCAB]), &device)),
        }
    }

    fn tokens(&self, head: LmHead<B>) -> Drawn {
        let (ids, log_probs) = sample_tokens(self.hidden.clone(), head, &self.choices, self.mask.as_ref());
        (host::ints(ids).unwrap(), host::floats(log_probs).unwrap())
    }

    /// The same on each of `size` ranks, with what each gave to calls.
    fn on_ranks(&self, size: usize) -> Vec<(Drawn, Traffic)> {
        threads::run(size, |ranks: Ranks| {
            let shared = VocabShards::new(VOCAB, ranks.clone());
            let own = shared.own();
            let rows = self.weight.clone().narrow(0, own.start, own.len());
            let tokens = self.tokens(LmHead { weight: &rows, shared: Some(&shared), frozen: false });
            let traffic = ranks.traffic();
            assert_eq!(traffic.keys().copied().collect::<Vec<_>>(), [SAMPLED], "nothing else is told");
            (tokens, traffic[SAMPLED])
        })
    }
}

fn many_ranks_draw_what_one_draws<B: Kernels>() {
    let ways: [&[(f64, f64)]; 6] = [
        &[(0.0, 1.0)],
        &[(1.0, 1.0)],
        &[(0.6, 0.9)],
        &[(1.0, 0.999)],
        &[(2.5, 0.3), (1.0, 0.7)],
        &[(0.0, 0.5), (1.0, 1.0), (0.7, 0.95), (1.3, 0.2)],
    ];
    let (mut drawn, mut apart) = (std::collections::BTreeSet::new(), 0);
    for settings in ways {
        for masked in [false, true] {
            let case = Case::<B>::new(settings, masked);
            let (ids, log_probs) = case.tokens(LmHead::from(&case.weight));
            drawn.extend(ids.iter().copied());
            for size in [2, 3, 4, 8] {
                let all = case.on_ranks(size);
                assert!(all.iter().all(|of_rank| of_rank.0 == all[0].0), "{settings:?} over {size} came apart");
                let (of_ranks, _) = &all[0];
                let differ = (0..ROWS).filter(|&row| of_ranks.0[row] != ids[row]);
                apart += differ.count();
                for row in (0..ROWS).filter(|&row| of_ranks.0[row] == ids[row]) {
                    let gap = (of_ranks.1[row] - log_probs[row]).abs();
                    assert!(gap < 1e-5, "{settings:?} over {size}, row {row}: log-probs differ by {gap:.1e}");
                }
            }
        }
    }
    assert!(drawn.len() > 100, "hardly any token was drawn: {}", drawn.len());
    // A number that lies within the rounding of a sum from the end of a token's share may fall on either side of it.
    assert!(apart <= 1, "{apart} of {} tokens are not those of one rank", ways.len() * 2 * 4 * ROWS);
}

/// The numbers of the module's table: they do not depend on the vocabulary.
fn what_is_told_of_a_row<B: Kernels>() {
    for (settings, numbers, calls) in
        [(&[(0.0, 1.0)][..], 4 + 2, 2), (&[(1.0, 1.0)], 4 + 2 + 2, 3), (&[(0.0, 1.0), (1.0, 0.9)], 4 + 57 + 2 + 2, 12)]
    {
        for size in [2, 4] {
            for (_, traffic) in Case::<B>::new(settings, true).on_ranks(size) {
                assert_eq!(traffic, Traffic { calls, bytes: (4 * numbers * ROWS) as u64 }, "{settings:?} over {size}");
            }
        }
    }
}

/// Logits that are no numbers give a token of the vocabulary and a log-prob that says so; other rows notice nothing.
fn no_numbers_show_in_the_log_prob<B: Kernels>() {
    for settings in [&[(0.0, 1.0)][..], &[(1.0, 1.0)], &[(1.0, 0.9)]] {
        let good = Case::<B>::new(settings, false);
        let (ids, log_probs) = &good.on_ranks(3)[0].0;
        for bad in [f32::NAN, f32::INFINITY] {
            let row = Tensor::full([1, WIDTH], bad, &good.hidden.device());
            let hidden = Tensor::cat(vec![row, good.hidden.clone().narrow(0, 1, ROWS - 1)], 0);
            let (choices, weight, mask) = (good.choices.clone(), good.weight.clone(), None);
            let all = Case { hidden, weight, choices, mask }.on_ranks(3);
            let (found, found_log_probs) = &all[0].0;
            assert!(all.iter().all(|of_rank| of_rank.0.0 == *found), "{bad} came apart");
            assert!((0..VOCAB as i32).contains(&found[0]) && !found_log_probs[0].is_finite(), "{settings:?} {bad}");
            assert_eq!((&found[1..], &found_log_probs[1..]), (&ids[1..], &log_probs[1..]), "{settings:?} {bad}");
        }
    }
}

/// The tests of one backend.
macro_rules! on {
    ($backend:ident, $type:ty: $($test:ident)*) => {
        mod $backend {
            $(
                #[test]
                fn $test() {
                    super::$test::<$type>();
                }
            )*
        }
    };
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: many_ranks_draw_what_one_draws what_is_told_of_a_row no_numbers_show_in_the_log_prob);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: many_ranks_draw_what_one_draws what_is_told_of_a_row no_numbers_show_in_the_log_prob);
