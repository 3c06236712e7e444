//! One test an equation, and what holds for every shaping.

use super::*;
use crate::advantage::Advantages;
use crate::config::Algorithm;
use crate::registry::{MethodKind, Methods};
use proptest::prelude::*;

type B = burn_flex::Flex<f32, i32>;

/// Shapes with everything on.
fn run(config: &Algorithm, batch: &ShapingBatch) -> Result<Shaped, ShapingError> {
    config.build_shaping::<B>().unwrap().shape(batch, &Default::default())
}

fn config(shaping: &str) -> Algorithm {
    Algorithm { shaping: shaping.to_string(), ..Algorithm::default() }
}

/// The names of the shapings.
fn kinds() -> Vec<&'static str> {
    Methods::default().of_kind(MethodKind::Shaping)
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?} against {expected:?}");
    }
}

/// Every stream, for responses of two and three tokens in one group.
fn streams() -> Streams {
    let old = vec![vec![-1.0, -2.0], vec![-0.5, -1.5, -0.1]];
    Streams {
        visual_focus: Some(vec![vec![0.2, 0.6], vec![0.3, 0.9, 0.6]]),
        perturbed_log_probs: Some(vec![vec![-2.0, -2.0], vec![-0.5, -3.5, -0.6]]),
        ref_log_probs: Some(old.clone()),
        entropy: Some(vec![vec![1.0, 0.2], vec![0.1, 0.9, 0.5]]),
        token_visual_dependency: Some(vec![vec![0.1, 2.0], vec![0.0, 3.0, 0.4]]),
        perception_spans: Some(vec![Some(0..1), Some(1..2)]),
        unperceived_log_probs: Some(vec![vec![0.0, -4.0], vec![0.0, 0.0, -1.1]]),
        old_log_probs: Some(old),
    }
}

fn batch<'a>(advantages: &'a Advantages, streams: &'a Streams) -> ShapingBatch<'a> {
    let training = Training { step: 1, max_steps: 1 };
    let has_image = &[true, true];
    ShapingBatch { advantages, lengths: &[2, 3], groups: &[9, 9], has_image, names: &[4, 5], streams, training }
}

fn one_each() -> Advantages {
    Advantages::PerResponse(vec![1.0, -2.0])
}

#[test]
fn none_repeats_the_advantage() {
    let advantages = one_each();
    let shaped = run(&config("none"), &batch(&advantages, &Streams::default())).unwrap();
    assert_eq!(shaped.advantages, [vec![1.0; 2], vec![-2.0; 3]]);
    assert_eq!(shaped.policy_mask, None);
    let tokens = Advantages::PerToken(vec![vec![0.1, 0.2], vec![0.3, 0.4, 0.5]]);
    let shaped = run(&config("none"), &batch(&tokens, &Streams::default())).unwrap();
    assert_eq!(Advantages::PerToken(shaped.advantages), tokens);
}

#[test]
fn dependency_is_k3_of_the_two_log_probs() {
    let expected = (-1.0_f64).exp() + 1.0 - 1.0;
    assert!((dependency::token_dependency(-1.0, -2.0) - expected).abs() < 1e-12);
    assert_eq!(dependency::token_dependency(-1.0, -1.0), 0.0);
    assert_eq!(dependency::token_dependency(-50.0, 0.0), 10.0);
    assert_eq!(dependency::token_dependency(0.0, f32::NEG_INFINITY), 10.0);
}

#[test]
fn vgpo_multiplies_by_its_factors_and_reports_them() {
    let mut config = config("vgpo");
    config.section_mut::<VgpoSettings>().compensation = false;
    let (advantages, streams) = (one_each(), streams());
    let shaped = run(&config, &batch(&advantages, &streams)).unwrap();
    // psi (-.5, .5) and (-.5, .5, 0); scores .8 and 1.8, phi -.5 and .5
    close(&shaped.advantages[0], &[0.25, 0.75]);
    close(&shaped.advantages[1], &[-1.5, -4.5, -3.0]);
    let metric = |name: &str| {
        let found = shaped.metrics.iter().find(|(n, _)| *n == name);
        found.unwrap_or_else(|| panic!("no {name}")).1
    };
    for (name, expected) in [
        ("vgpo/focus_mean", 2.6 / 5.0),
        ("vgpo/late_early_halves", (3.0 + 2.5) / 2.0),
        ("vgpo/phi_length_correlation", 1.0), // the longer has the larger sum
        ("vgpo/gate_pass_rate", 0.0),
        ("vgpo/token_factor_min", 0.5),
        ("vgpo/token_factor_max", 1.5),
        ("vgpo/token_factor_mean", 1.0),
        ("vgpo/trajectory_factor_min", 0.5),
        ("vgpo/trajectory_factor_max", 1.5),
        ("vgpo/top_tokens_late", 1.0),
        ("vgpo/top_tokens_early", 0.0),
        ("vgpo/non_finite_responses", 0.0),
    ] {
        assert!((metric(name) - expected).abs() < 1e-5, "{name}: {}", metric(name));
    }
    // The early cosines, -.6 and -.4, are below 0: their ratio has no meaning and is left out.
    assert!(shaped.metrics.iter().all(|(name, _)| *name != "vgpo/late_early_cosine_halves"));
    // Higher, they have one: (.8 + .5) / 2 late over (.2 + .4) / 2 early, of the focus far nearer to 1.
    let looking = Streams { visual_focus: Some(vec![vec![0.6, 0.9], vec![0.7, 0.8, 0.7]]), ..streams };
    let shaped = run(&config, &batch(&advantages, &looking)).unwrap();
    let of = |name: &str| shaped.metrics.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!((of("vgpo/late_early_cosine_halves") - 0.65 / 0.3).abs() < 1e-5);
    assert!((of("vgpo/late_early_halves") - (0.9 / 0.6 + 0.75 / 0.7) / 2.0).abs() < 1e-5);
}

#[test]
fn vgpo_gives_the_gradient_to_token_advantages_too() {
    let mut config = config("vgpo");
    config.section_mut::<VgpoSettings>().compensation = false;
    config.section_mut::<VgpoSettings>().inter = false;
    let advantages = Advantages::PerToken(vec![vec![1.0, 2.0], vec![1.0, 2.0, 3.0]]);
    let streams = streams();
    let shaped = run(&config, &batch(&advantages, &streams)).unwrap();
    close(&shaped.advantages.concat(), &[0.5, 3.0, 0.5, 3.0, 3.0]);
}

#[test]
fn vppo_keeps_the_most_dependent_tokens() {
    let kept = vppo::keep_tokens(&[0.1, 0.9, 0.9, 0.3, 0.0], 0.4);
    assert_eq!(kept, [false, true, true, false, false]);
    // ties go to the earlier token, and ceil(.4 * 3) = 2
    assert_eq!(vppo::keep_tokens(&[0.5; 3], 0.4), [true, true, false]);
    assert_eq!(vppo::keep_tokens(&[0.5], 0.4), [true]);
    assert_eq!(vppo::keep_tokens(&[], 0.4), [false; 0]);
}

#[test]
fn vppo_weighs_responses_around_one() {
    // s = (0, .25, 1), mean 5/12; beta_max - beta_min = .1 * 12 / 5
    let weights = vppo::trajectory_weights(&[1.0, 2.0, 5.0], 0.9);
    for (found, expected) in weights.iter().zip([0.9, 0.96, 1.14]) {
        assert!((found - expected).abs() < 1e-6, "{weights:?}");
    }
    assert_eq!(vppo::trajectory_weights(&[2.0, 2.0], 0.9), [1.0, 1.0]);
    assert!(vppo::trajectory_weights(&[], 0.9).is_empty());
}

#[test]
fn vppo_switches_are_independent() {
    let (advantages, streams) = (one_each(), streams());
    let mut config = config("vppo");
    let both = run(&config, &batch(&advantages, &streams)).unwrap();
    // dependency (.37, 0) and (0, 1.14, .11): ceil(.8) = 1 and ceil(1.2) = 2 tokens learn
    let mask = vec![vec![true, false], vec![false, true, true]];
    assert_eq!(both.policy_mask, Some(mask.clone()));
    assert_eq!(both.policy_mask_values(), Some(vec![vec![1.0, 0.0], vec![0.0, 1.0, 1.0]]));
    // two responses: s = (0, 1), mean .5, weights .9 and 1.1
    close(&both.advantages.concat(), &[0.9, 0.9, -2.2, -2.2, -2.2]);
    config.section_mut::<VppoConfig>().trajectory_shaping = false;
    let filter = run(&config, &batch(&advantages, &streams)).unwrap();
    assert_eq!(filter.policy_mask, Some(mask));
    assert_eq!(filter.advantages, [vec![1.0; 2], vec![-2.0; 3]]);
    *config.section_mut::<VppoConfig>() = VppoConfig { token_filtering: false, ..VppoConfig::default() };
    let weigh = run(&config, &batch(&advantages, &streams)).unwrap();
    assert_eq!(weigh.policy_mask, None);
    assert_eq!(weigh.advantages, both.advantages);
}

#[test]
fn pepo_is_a_gated_softmax() {
    let config = PepoConfig { gate_alpha: 0.5, gate_temperature: 2.0 };
    // similarities (0, 1); v^ = (0, 1), H^ = (1, 0): mixed (1, 1), so the gate is 1
    let weights = pepo::token_weights(&[0.5, 1.0], &[0.9, 0.1], &config);
    let e = 0.5_f64.exp();
    assert!((weights[1] - 2.0 * e / (1.0 + e)).abs() < 1e-6);
    // entropy on the similar token as well: mixed (0, 2), gate 1 + .5 tanh(1)
    let weights = pepo::token_weights(&[0.5, 1.0], &[0.1, 0.9], &config);
    let e = ((1.0 + 0.5 * 1.0_f64.tanh()) / 2.0).exp();
    assert!((weights[1] - 2.0 * e / (1.0 + e)).abs() < 1e-5);
    assert_eq!(pepo::token_weights(&[0.5; 3], &[0.2; 3], &config), [1.0; 3]);
}

#[test]
fn srpo_scores_each_role_on_what_it_rests_on() {
    // an opening tag, two perception tokens, two reasoning tokens
    let scores = srpo::role_scores(&[9.0, 0.0, 4.0, 9.0, 9.0], &[9.0, 9.0, 9.0, 2.0, 1.0], &(1..3));
    for (found, expected) in scores.iter().zip([0.5, 0.0, 1.0, 1.0, 0.0]) {
        assert!((found - expected).abs() < 1e-6, "{scores:?}");
    }
    let config = SrpoConfig { bound: 1.5, ..SrpoConfig::default() };
    let weights = srpo::token_weights(&scores, &config);
    for (found, expected) in weights.iter().zip([1.0, 2.0 / 3.0, 1.5, 1.5, 2.0 / 3.0]) {
        assert!((found - expected).abs() < 1e-6, "{weights:?}");
    }
}

#[test]
fn srpo_leaves_responses_without_a_span_alone() {
    let (advantages, mut streams) = (one_each(), streams());
    streams.perception_spans = Some(vec![None, Some(1..9)]);
    let shaped = run(&config("srpo"), &batch(&advantages, &streams)).unwrap();
    assert_eq!(shaped.advantages, [vec![1.0; 2], vec![-2.0; 3]]);
    assert_eq!(shaped.metrics, [("srpo/shaped_responses", 0.0)]);
}

#[test]
fn every_shaping_declares_exactly_what_it_reads() {
    let (advantages, full) = (one_each(), streams());
    for kind in kinds() {
        let shaping = config(kind).build_shaping::<B>().unwrap();
        let mut given = Streams::default();
        for stream in shaping.streams() {
            match stream {
                Stream::VisualFocus { .. } => given.visual_focus = full.visual_focus.clone(),
                Stream::PerturbedLogProbs { .. } => {
                    given.perturbed_log_probs = full.perturbed_log_probs.clone();
                }
                Stream::OldLogProbs => given.old_log_probs = full.old_log_probs.clone(),
                Stream::RefLogProbs => given.ref_log_probs = full.ref_log_probs.clone(),
                Stream::Entropy => given.entropy = full.entropy.clone(),
                Stream::TokenVisualDependency => given.token_visual_dependency = full.token_visual_dependency.clone(),
                Stream::PerceptionSpans => given.perception_spans = full.perception_spans.clone(),
                Stream::UnperceivedLogProbs => {
                    given.unperceived_log_probs = full.unperceived_log_probs.clone();
                }
            }
        }
        let device = Default::default();
        let with = shaping.shape(&batch(&advantages, &given), &device);
        assert_eq!(with.unwrap(), shaping.shape(&batch(&advantages, &full), &device).unwrap());
        if kind != "none" {
            let without = shaping.shape(&batch(&advantages, &Streams::default()), &device);
            assert!(matches!(without, Err(ShapingError::Missing { .. })));
        }
    }
}

#[test]
fn text_only_and_broken_responses_keep_their_plain_advantage() {
    let advantages = one_each();
    let mut broken = streams();
    for rows in [
        &mut broken.visual_focus,
        &mut broken.perturbed_log_probs,
        &mut broken.entropy,
        &mut broken.unperceived_log_probs,
        &mut broken.token_visual_dependency,
    ] {
        for value in rows.as_mut().unwrap().iter_mut().flatten() {
            *value = f32::NAN;
        }
    }
    let whole = streams();
    for kind in kinds() {
        let text = ShapingBatch { has_image: &[false, false], ..batch(&advantages, &whole) };
        for (batch, is_text) in [(text, true), (batch(&advantages, &broken), false)] {
            if kind == "entropy" && is_text {
                continue; // needs no picture
            }
            let shaped = run(&config(kind), &batch).unwrap();
            assert_eq!(shaped.advantages, [vec![1.0; 2], vec![-2.0; 3]], "{}", kind);
            assert!(shaped.policy_mask.iter().flatten().flatten().all(|kept| *kept));
            assert!(shaped.metrics.iter().all(|(_, value)| value.is_finite()));
        }
    }
    let shaped = run(&config("vgpo"), &batch(&advantages, &broken)).unwrap();
    assert_eq!(shaped.metrics, [("vgpo/non_finite_responses", 2.0)]);
}

#[test]
fn an_empty_batch_is_no_error() {
    let advantages = Advantages::PerResponse(vec![]);
    let empty = || Some(vec![]);
    let streams = Streams {
        visual_focus: empty(),
        old_log_probs: empty(),
        perturbed_log_probs: empty(),
        ref_log_probs: empty(),
        entropy: empty(),
        token_visual_dependency: empty(),
        perception_spans: Some(vec![]),
        unperceived_log_probs: empty(),
    };
    for kind in kinds() {
        let training = Training { step: 0, max_steps: 4 };
        let batch = ShapingBatch {
            advantages: &advantages,
            lengths: &[],
            groups: &[],
            has_image: &[],
            names: &[],
            streams: &streams,
            training,
        };
        assert!(run(&config(kind), &batch).unwrap().advantages.is_empty());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let advantages = one_each();
    let mut streams = streams();
    let vppo = config("vppo");
    streams.perturbed_log_probs = Some(vec![vec![-2.0], vec![-0.5; 3]]);
    assert_eq!(
        run(&vppo, &batch(&advantages, &streams)).unwrap_err().to_string(),
        "shaping: perturbed_log_probs of response 0 has 1 entries for 2 tokens"
    );
    streams.perturbed_log_probs = Some(vec![]);
    assert_eq!(
        run(&vppo, &batch(&advantages, &streams)).unwrap_err().to_string(),
        "shaping: perturbed_log_probs has 0 entries for 2 responses"
    );
    streams.perturbed_log_probs = None;
    assert_eq!(
        run(&vppo, &batch(&advantages, &streams)).unwrap_err().to_string(),
        "shaping: the batch carries no perturbed_log_probs; the shaping declares that it needs it"
    );
    let short = Advantages::PerResponse(vec![1.0]);
    assert_eq!(
        run(&vppo, &batch(&short, &streams)).unwrap_err().to_string(),
        "shaping: advantages has 1 entries for 2 responses"
    );
    for focus in [vec![vec![0.5; 2]], vec![vec![0.5; 2], vec![0.5; 2]]] {
        streams.visual_focus = Some(focus);
        for kind in ["vgpo", "pepo"] {
            assert!(run(&config(kind), &batch(&advantages, &streams)).is_err());
        }
    }
}

#[test]
fn settings_out_of_range_are_refused_with_the_reason() {
    let (advantages, streams) = (one_each(), streams());
    let bad = |change: &dyn Fn(&mut Algorithm), kind| {
        let mut config = config(kind);
        change(&mut config);
        run(&config, &batch(&advantages, &streams)).unwrap_err().to_string()
    };
    assert_eq!(
        bad(&|c| c.section_mut::<VgpoSettings>().kappa = 0.0, "vgpo"),
        "vgpo.kappa = 0: must lie in (0, 1]: it is the share of the tail that passes the gate; set compensation = false for none"
    );
    let keep = bad(&|c| c.section_mut::<VppoConfig>().keep_share = 0.0, "vppo");
    assert_eq!(keep, "algorithm.vppo.keep_share: must be above 0 and at most 1, is 0");
    assert!(bad(&|c| c.section_mut::<VppoConfig>().beta_min = 1.5, "vppo").contains("algorithm.vppo.beta_min"));
    assert!(bad(&|c| c.section_mut::<PgpoConfig>().tau = -1.0, "pgpo").contains("algorithm.pgpo.tau"));
    assert!(bad(&|c| c.section_mut::<PgpoConfig>().tau = 1.0, "pgpo").contains("algorithm.pgpo.tau"));
    assert!(bad(&|c| c.section_mut::<PgpoConfig>().beta = 1e9, "pgpo").contains("must be at most"));
    assert!(bad(&|c| c.section_mut::<EntropyConfig>().kappa = 1.0, "entropy").contains("algorithm.entropy.kappa"));
    assert!(bad(&|c| c.section_mut::<EntropyConfig>().alpha = 0.0, "entropy").contains("algorithm.entropy.alpha"));
    assert!(bad(&|c| c.section_mut::<PepoConfig>().gate_temperature = 0.0, "pepo").contains("gate_temperature"));
    assert!(bad(&|c| c.section_mut::<SrpoConfig>().bound = 1.0, "srpo").contains("algorithm.srpo.bound"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// No shaping turns the sign of an advantage, whatever the streams hold.
    #[test]
    fn signs_are_kept(
        rows in prop::collection::vec(prop::collection::vec([-6.0..0.0_f32, -6.0..0.0, -6.0..0.0, 0.0..1.0, 0.0..5.0], 1..8), 1..6),
        seed in 0_usize..100,
    ) {
        let of = |k: usize| -> Option<Vec<Vec<f32>>> {
            Some(rows.iter().map(|row| row.iter().map(|t| t[k]).collect()).collect())
        };
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let streams = Streams {
            old_log_probs: of(0),
            perturbed_log_probs: of(1),
            unperceived_log_probs: of(2),
            visual_focus: of(3),
            entropy: of(4),
            token_visual_dependency: of(4),
            ref_log_probs: None,
            perception_spans: Some(lengths.iter().map(|&t| (t > 1).then(|| seed % (t - 1)..t - 1)).collect()),
        };
        let signs: Vec<f32> = (0..rows.len()).map(|i| if (i + seed).is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        let advantages = Advantages::PerResponse(signs.clone());
        let groups: Vec<usize> = (0..rows.len()).map(|i| i % 2).collect();
        let has_image = vec![true; rows.len()];
        let names: Vec<u64> = (0..rows.len() as u64).collect();
        let batch = ShapingBatch {
            advantages: &advantages, lengths: &lengths, groups: &groups, has_image: &has_image, names: &names,
            streams: &streams,
            training: Training { step: seed as u64, max_steps: 50 },
        };
        for kind in kinds() {
            let shaped = run(&config(kind), &batch).unwrap();
            for ((row, sign), length) in shaped.advantages.iter().zip(&signs).zip(&lengths) {
                prop_assert_eq!(row.len(), *length);
                prop_assert!(row.iter().all(|a| a * sign >= 0.0 && a.is_finite()), "{}: {:?}", kind, row);
            }
            // the sum-preserving ones preserve it
            if matches!(kind, "pgpo" | "pepo") {
                for (row, sign) in shaped.advantages.iter().zip(&signs) {
                    let sum: f32 = row.iter().sum();
                    prop_assert!((sum - sign * row.len() as f32).abs() < 1e-3);
                }
            }
        }
    }
}
