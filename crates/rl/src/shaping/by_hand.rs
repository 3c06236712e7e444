//! Values worked out by hand from the papers' formulas, through the whole shaping; and that the mistakes one could
//! make there show.

use super::*;
use crate::config::Algorithm;

type B = burn_flex::Flex<f32, i32>;

/// One response with a picture, all its tokens with advantage `a`, half-way through a stage of 8 steps.
fn shape(config: &Algorithm, streams: &Streams, tokens: usize, a: f32) -> Shaped {
    shape_at(config, streams, tokens, a, Training { step: 4, max_steps: 8 })
}

fn shape_at(config: &Algorithm, streams: &Streams, tokens: usize, a: f32, training: Training) -> Shaped {
    let advantages = Advantages::PerResponse(vec![a]);
    let batch = ShapingBatch {
        advantages: &advantages,
        lengths: &[tokens],
        groups: &[0],
        has_image: &[true],
        names: &[6],
        streams,
        training,
    };
    config.build_shaping::<B>().unwrap().shape(&batch, &Default::default()).unwrap()
}

fn of(shaping: &str) -> Algorithm {
    Algorithm { shaping: shaping.to_string(), ..Algorithm::default() }
}

fn gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn metric(shaped: &Shaped, name: &str) -> f64 {
    shaped.metrics.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name}: {:?}", shaped.metrics)).1
}

/// PGPO's advantages of tokens with these divergences, the response's being 1.
fn pgpo(dependency: &[f32]) -> Vec<f32> {
    let streams = Streams { token_visual_dependency: Some(vec![dependency.to_vec()]), ..Streams::default() };
    shape(&of("pgpo"), &streams, dependency.len(), 1.0).advantages.remove(0)
}

/// Divergences whose `log(1 + S)` is 0, 1, 2, 3.5 and 5: `I` is 0, .2, .4, .7, 1.
const S: [f32; 5] = [0.0, 1.718_281_8, 6.389_056, 32.115_45, 147.413_16];
/// `w` is 0 and .2/.4 below tau = .4; at and above it 1, 1 + 2 * .3/.6 = 2 and 1 + 2 * .6/.6 = 3. They sum to 6.5,
/// and five tokens share five: 0, .5, 1, 2, 3 times 5/6.5.
const PGPO: [f32; 5] = [0.0, 0.384_615_4, 0.769_230_8, 1.538_461_5, 2.307_692_3];

#[test]
fn pgpo_by_the_papers_equations() {
    assert!(gap(&pgpo(&S), &PGPO) < 1e-5, "{:?}", pgpo(&S));
    // The order of tokens does not matter, nor does a constant that all logs share: (1 + S) e^c - 1.
    let mut turned = S;
    turned.reverse();
    let mut expected = PGPO;
    expected.reverse();
    assert!(gap(&pgpo(&turned), &expected) < 1e-5);
    let shifted = S.map(|s| (1.0 + s) * 0.5f32.exp() - 1.0);
    assert!(gap(&pgpo(&shifted), &PGPO) < 1e-5);
    // Nothing tells these apart.
    assert_eq!(pgpo(&[0.7; 3]), [1.0; 3]);
    assert_eq!(pgpo(&[0.7]), [1.0]);
    assert_eq!(pgpo(&[0.0; 4]), [1.0; 4]);
}

#[test]
fn pgpo_shows_every_mistake() {
    // Without the logarithm: what the weights of log(1 + (e^S - 1)) = S are. S of 20 at most, so that e^S stays a
    // number.
    let moderate = [0.0, 0.5, 2.0, 8.0, 20.0f32];
    let without_log = moderate.map(|s| s.exp_m1());
    assert!(gap(&pgpo(&moderate), &pgpo(&without_log)) > 0.2);
    // 1 - dependency: the token that looks most gets nothing.
    let flipped = S.map(|s| (5.0 - s.ln_1p()).exp_m1());
    assert!(gap(&pgpo(&flipped), &PGPO) > 1.0);
    // Without suppression `w` would be 1, 1, 1, 2, 3, and every token would keep at least 5/8.
    let unsuppressed = [0.625, 0.625, 0.625, 1.25, 1.875];
    assert!(gap(&unsuppressed, &PGPO) > 0.2 && gap(&pgpo(&S), &unsuppressed) > 0.2);
    // Suppression to 0 at once, without the ramp; amplification without the normalised ramp (1 + beta I).
    let (hard, steep) = ([0.0, 0.0, 1.0, 2.0, 3.0f32], [0.0, 0.5, 1.8, 2.4, 3.0f32]);
    for wrong in [hard, steep] {
        let sum: f32 = wrong.iter().sum();
        assert!(gap(&pgpo(&S), &wrong.map(|w| 5.0 * w / sum)) > 0.05, "{wrong:?}");
    }
    // The sum over the tokens is kept, whatever the signs.
    assert!((pgpo(&S).iter().sum::<f32>() - 5.0).abs() < 1e-5);
}

#[test]
fn pgpo_counts_what_it_cannot_judge() {
    let streams = Streams { token_visual_dependency: Some(vec![vec![1.0, f32::NAN]]), ..Streams::default() };
    let shaped = shape(&of("pgpo"), &streams, 2, -3.0);
    assert_eq!(shaped.advantages, [[-3.0; 2]]);
    assert_eq!(metric(&shaped, "pgpo/non_finite_responses"), 1.0);
    let streams = Streams { token_visual_dependency: Some(vec![S.to_vec()]), ..Streams::default() };
    let shaped = shape(&of("pgpo"), &streams, 5, -2.0);
    assert!(gap(&shaped.advantages[0], &PGPO.map(|w| -2.0 * w)) < 1e-4);
    for (name, expected) in [
        ("pgpo/dependency_mean", 187.635_95 / 5.0),
        ("pgpo/token_weight_max", 2.307_692_3),
        ("pgpo/weakened_tokens", 0.6),
        ("pgpo/non_finite_responses", 0.0),
    ] {
        assert!((metric(&shaped, name) - expected).abs() < 1e-3, "{name}: {}", metric(&shaped, name));
    }
}

#[test]
fn the_entropy_term_is_capped_and_keeps_signs() {
    let streams = Streams { entropy: Some(vec![vec![0.0, 0.5, 1.0, 3.0]]), ..Streams::default() };
    let shaped = |a| shape(&of("entropy"), &streams, 4, a).advantages.remove(0);
    // .4 H is 0, .2, .4, 1.2; the cap |A| / 2 is .5 for A = 1 and -1, 2 for A = 4.
    assert!(gap(&shaped(1.0), &[1.0, 1.2, 1.4, 1.5]) < 1e-6);
    assert!(gap(&shaped(-1.0), &[-1.0, -0.8, -0.6, -0.5]) < 1e-6);
    assert!(gap(&shaped(4.0), &[4.0, 4.2, 4.4, 5.2]) < 1e-6);
    // A group of equal rewards teaches nothing, however uncertain its tokens are: this is no bonus.
    assert_eq!(shaped(0.0), [0.0; 4]);
    let found = shape(&of("entropy"), &streams, 4, 1.0);
    assert!((metric(&found, "entropy/term_mean") - 1.1 / 4.0).abs() < 1e-6);
    assert_eq!(metric(&found, "entropy/capped_tokens"), 0.25);
    // Text alone gets it, too; numbers of its own reach it.
    let mut config = of("entropy");
    *config.section_mut::<EntropyConfig>() = EntropyConfig { alpha: 1.0, kappa: 4.0 };
    let advantages = Advantages::PerToken(vec![vec![1.0, 2.0, -8.0, 8.0]]);
    let batch = ShapingBatch {
        advantages: &advantages,
        lengths: &[4],
        groups: &[0],
        has_image: &[false],
        names: &[6],
        streams: &streams,
        training: Training { step: 0, max_steps: 1 },
    };
    let tokens = config.build_shaping::<B>().unwrap().shape(&batch, &Default::default()).unwrap();
    assert!(gap(&tokens.advantages[0], &[1.0, 2.5, -7.0, 10.0]) < 1e-6, "{tokens:?}");
}

#[test]
fn pepo_fades_in() {
    // Cosines 0 and 1 (focus .5 and 1), entropies turned round, so v^ + H^ is 1 for both and the gate is 1:
    // w = 2 softmax(0, 1) = 2 / (1 + e), 2 e / (1 + e).
    let streams =
        Streams { visual_focus: Some(vec![vec![0.5, 1.0]]), entropy: Some(vec![vec![0.9, 0.1]]), ..Streams::default() };
    let at =
        |step, max_steps| shape_at(&of("pepo"), &streams, 2, 1.0, Training { step, max_steps }).advantages.remove(0);
    let full = [0.537_882_8, 1.462_117_2];
    assert_eq!(at(0, 10), [1.0, 1.0]);
    assert!(gap(&at(10, 10), &full) < 1e-5);
    // A tenth of the way a tenth of the weight's distance from 1; half-way half.
    assert!(gap(&at(1, 10), &[0.953_788_3, 1.046_211_7]) < 1e-5);
    assert!(gap(&at(5, 10), &[0.768_941_4, 1.231_058_6]) < 1e-5);
    // A run that is longer than it was meant to be stays there.
    assert_eq!(at(30, 10), at(10, 10));
    let lambda = metric(&shape(&of("pepo"), &streams, 2, 1.0), "pepo/lambda");
    assert_eq!(lambda, 0.5);
    // The gate: entropy on the similar token, v^ + H^ = (0, 2), alpha .05, temperature 1.8:
    // exponents 0 and (1 + .05 tanh 1) / 1.8 = .576711.
    let streams = Streams { entropy: Some(vec![vec![0.1, 0.9]]), ..streams };
    let mut config = of("pepo");
    config.section_mut::<PepoConfig>().gate_temperature = 1.8;
    let gated = shape_at(&config, &streams, 2, 1.0, Training { step: 1, max_steps: 1 }).advantages.remove(0);
    assert!(gap(&gated, &[0.719_379_5, 1.280_620_5]) < 1e-4, "{gated:?}");
}

/// A description at tokens 1 and 2 of five. With the picture the first of them is `e` times as likely as without, the
/// second `e` times less likely; with the description token 3 is `e` times less likely than without, token 4 as
/// likely.
fn described() -> Streams {
    Streams {
        old_log_probs: Some(vec![vec![-1.0, -1.0, -2.0, -2.0, -1.0]]),
        perturbed_log_probs: Some(vec![vec![-1.0, -2.0, -1.0, -1.0, -1.0]]),
        unperceived_log_probs: Some(vec![vec![-1.0, -1.0, -2.0, -1.0, -1.0]]),
        perception_spans: Some(vec![Some(1..3)]),
        ..Streams::default()
    }
}

#[test]
fn srpo_reads_two_kinds_of_dependency() {
    let mut config = of("srpo");
    config.section_mut::<SrpoConfig>().bound = 3.0;
    let k3 = shape(&config, &described(), 5, 1.0).advantages.remove(0);
    // k3 of -1 is e^-1 = .368, of +1 e - 2 = .718: the token that the picture speaks against has the higher score,
    // (0, 1) in the description and (1, 0) after it; the tag has their mean. Weights e^(score - 1/2).
    let (up, down) = (0.5f32.exp(), (-0.5f32).exp());
    assert!(gap(&k3, &[1.0, down, up, up, down]) < 1e-5, "{k3:?}");
    config.section_mut::<SrpoConfig>().dependency = DependencyKind::LogRatio;
    let signed = shape(&config, &described(), 5, 1.0).advantages.remove(0);
    // Log-ratios +1 and -1 in the description, -1 and 0 after it: scores (1, 0) and (0, 1).
    assert!(gap(&signed, &[1.0, up, down, down, up]) < 1e-5, "{signed:?}");
    // A negative advantage keeps its sign and gets the same weights.
    let blamed = shape(&config, &described(), 5, -2.0).advantages.remove(0);
    assert!(gap(&blamed, &signed.iter().map(|w| -2.0 * w).collect::<Vec<_>>()) < 1e-6);
}

/// Each role is weighed by what it should rest on and by nothing else.
#[test]
fn srpo_shows_roles_that_are_mixed_up() {
    let config = of("srpo");
    let plain = shape(&config, &described(), 5, 1.0).advantages.remove(0);
    let changed = |change: &dyn Fn(&mut Streams)| {
        let mut streams = described();
        change(&mut streams);
        shape(&config, &streams, 5, 1.0).advantages.remove(0)
    };
    // What the picture does to the reasoning, and the description to itself, is not read.
    let unread = changed(&|s| {
        s.perturbed_log_probs.as_mut().unwrap()[0][3] = -9.0;
        s.unperceived_log_probs.as_mut().unwrap()[0][1] = -9.0;
    });
    assert_eq!(plain, unread);
    // What the picture does to the description is, and what the description does to the reasoning.
    let looked = changed(&|s| s.perturbed_log_probs.as_mut().unwrap()[0][1..3].copy_from_slice(&[0.0, -3.0]));
    let reasoned = changed(&|s| s.unperceived_log_probs.as_mut().unwrap()[0][3..].copy_from_slice(&[-2.0, 0.0]));
    assert!(gap(&plain, &looked) > 0.3 && gap(&plain, &reasoned) > 0.3, "{plain:?} {looked:?} {reasoned:?}");
    assert_eq!(plain[3..], looked[3..]);
    assert_eq!(plain[1..3], reasoned[1..3]);
    // Without the description taken into account (a span of everything) the weights are others.
    let whole = changed(&|s| s.perception_spans = Some(vec![Some(0..5)]));
    assert!(gap(&plain, &whole) > 0.3);
}

/// PGPO and SRPO read a stream that says the opposite as the opposite.
#[test]
fn turned_dependencies_turn_the_weights() {
    let mut config = of("srpo");
    config.section_mut::<SrpoConfig>().dependency = DependencyKind::LogRatio;
    let plain = shape(&config, &described(), 5, 1.0).advantages.remove(0);
    // Old and perturbed log-probs in each other's place: every log-ratio changes its sign.
    let mut turned = described();
    turned.perturbed_log_probs = Some(vec![vec![-1.0, 0.0, -3.0, -2.0, -1.0]]);
    turned.unperceived_log_probs = Some(vec![vec![-1.0, -1.0, -2.0, -3.0, -1.0]]);
    let turned = shape(&config, &turned, 5, 1.0).advantages.remove(0);
    for token in 1..5 {
        assert!((plain[token] * turned[token] - 1.0).abs() < 1e-5, "token {token}: {plain:?} {turned:?}");
    }
}
