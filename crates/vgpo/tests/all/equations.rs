//! One test an equation, with values worked out by hand, and every degenerate batch.

use burn::tensor::{DType, Tensor, TensorData};
use vgpo::{
    FOCUS_EPS, InterScore, PrototypeMode, Responses, RowPrototypes, Schedule, Variant, VgpoConfig, VgpoError,
    compensation::{gate_count, gate_threshold, tail_start},
    factors, factors_of, prototype, visual_focus,
};

type B = burn_ndarray::NdArray<f32>;

fn tensor(rows: &[&[f32]]) -> Tensor<B, 2> {
    let width = rows[0].len();
    let values = rows.concat();
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), &Default::default())
}

fn values<const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().into_vec().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?} against {expected:?}");
    }
}

#[test]
fn equation_2_is_the_mean_over_all_image_tokens() {
    let hidden = tensor(&[&[9.0, 9.0], &[1.0, 0.0], &[3.0, 0.0], &[9.0, 9.0], &[0.0, 8.0]]);
    let images = [1..3, 4..5];
    let one = prototype(hidden.clone(), &images, PrototypeMode::Mean).unwrap().unwrap();
    assert_eq!(one.means.dims(), [1, 2]);
    close(&values(one.means), &[4.0 / 3.0, 8.0 / 3.0]);
    let each = prototype(hidden, &images, PrototypeMode::PerImage).unwrap().unwrap();
    assert_eq!(each.means.dims(), [2, 2]);
    close(&values(each.means), &[2.0, 0.0, 0.0, 8.0]);
}

#[test]
fn a_prompt_without_image_tokens_has_no_prototype() {
    let hidden = tensor(&[&[1.0, 0.0]]);
    for images in [&[][..], std::slice::from_ref(&(0..0))] {
        assert!(prototype(hidden.clone(), images, PrototypeMode::Mean).unwrap().is_none());
    }
    let error = prototype(hidden, &[0..1, 1..3], PrototypeMode::Mean).unwrap_err();
    assert_eq!(error.to_string(), "vgpo: image 1 spans tokens 1..3 of a prompt of 1 tokens");
}

#[test]
fn equations_3_and_4_are_the_cosine_moved_to_0_1() {
    let image = prototype(tensor(&[&[2.0, 0.0]]), std::slice::from_ref(&(0..1)), PrototypeMode::Mean).unwrap().unwrap();
    let hidden = tensor(&[&[5.0, 0.0], &[0.0, 3.0], &[-1.0, 0.0], &[1.0, 1.0], &[0.0, 0.0]]);
    let rho = visual_focus(hidden, &image, 1e-8);
    assert_eq!(rho.dtype(), DType::F32);
    // same direction, orthogonal, opposite, 45 degrees, and a zero state, which the eps defines
    close(&values(rho), &[1.0, 0.5, 0.0, (0.5_f32.sqrt() + 1.0) / 2.0, 0.5]);
}

#[test]
fn with_a_prototype_an_image_the_largest_focus_counts() {
    let images = [0..1, 1..2];
    let both = prototype(tensor(&[&[1.0, 0.0], &[0.0, 1.0]]), &images, PrototypeMode::PerImage).unwrap().unwrap();
    let rho = visual_focus(tensor(&[&[3.0, 0.0], &[0.0, 2.0]]), &both, 1e-8);
    close(&values(rho), &[1.0, 1.0]);
}

/// Rows with prototypes of their own get what each prompt's rows get alone, whatever the others' numbers of images.
#[test]
fn rows_with_their_own_prototypes_have_the_focus_of_their_prompt() {
    let of = |rows: &[&[f32]]| {
        let images: Vec<_> = (0..rows.len()).map(|i| i..i + 1).collect();
        prototype(tensor(rows), &images, PrototypeMode::PerImage).unwrap().unwrap()
    };
    let (one, three) = (of(&[&[2.0, 1.0]]), of(&[&[1.0, -3.0], &[0.5, 0.1], &[-1.0, -1.0]]));
    let states: [&[f32]; 4] = [&[0.3, -2.0], &[1.0, 1.0], &[-4.0, 0.2], &[0.0, 0.0]];
    let rows = RowPrototypes::new(&[Some(&one), None, Some(&three), Some(&three)]).unwrap();
    let got = values(rows.visual_focus(tensor(&states), FOCUS_EPS));
    for (row, prototype) in [(0, &one), (2, &three), (3, &three)] {
        close(&[got[row]], &values(visual_focus(tensor(&[states[row]]), prototype, FOCUS_EPS)));
    }
    assert_eq!(got.len(), 4);
    assert!(RowPrototypes::<B>::new(&[None, None]).is_none());
}

/// What is read in one transfer is what the tensors hold, without the padding.
#[test]
fn factors_come_to_the_host_without_padding() {
    let rho = tensor(&[&[0.5, 0.4, 0.3, 0.8], &[0.9, 0.2, f32::NAN, f32::NAN]]);
    let factors = factors(rho, &[4, 2], &[0, 0], &VgpoConfig::default()).unwrap();
    let host = factors.to_host(&[4, 2]).unwrap();
    let cells = |x: Tensor<B, 2>| {
        let all = values(x);
        vec![all[..4].to_vec(), all[4..6].to_vec()]
    };
    assert_eq!(host.combined, cells(factors.combined()));
    assert_eq!((host.token, host.gate), (cells(factors.token.clone()), cells(factors.gate.clone())));
    assert_eq!(host.trajectory, values(factors.trajectory.clone()));
    assert_eq!(host.phi, values(factors.phi.clone()));
    assert_ne!(host.phi[0], host.trajectory[0]);
    assert!(matches!(factors.to_host(&[4]), Err(VgpoError::Rows { .. })));
    assert!(matches!(factors.to_host(&[4, 5]), Err(VgpoError::Length { row: 1, .. })));
}

/// The number of each equation stands behind one line of the crate.
#[test]
fn each_equation_is_computed_once() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let source = files.collect::<Vec<_>>().join("\n");
    for equation in 2..=12 {
        let marks = source.lines().filter(|line| line.trim_end().ends_with(&format!("// ({equation})")));
        assert_eq!(marks.count(), 1, "equation {equation}");
    }
}

#[test]
fn equation_5_raises_gated_tokens_by_their_position() {
    let rho = tensor(&[&[0.5, 0.4, 0.3, 0.8]]);
    let weights = |config: &VgpoConfig| values(factors(rho.clone(), &[4], &[0], config).unwrap().w);
    let full = VgpoConfig { gate: false, ..VgpoConfig::default() };
    // rho [1 + .3 t/4]
    close(&weights(&full), &[0.5 * 1.075, 0.4 * 1.15, 0.3 * 1.225, 0.8 * 1.3]);
    let squared = VgpoConfig { schedule: Schedule::Exponential, ..full.clone() };
    close(&weights(&squared), &[0.5 * 1.01875, 0.4 * 1.075, 0.3 * 1.16875, 0.8 * 1.3]);
    let step = VgpoConfig { schedule: Schedule::Step, ..full.clone() };
    close(&weights(&step), &[0.5, 0.4 * 1.3, 0.3 * 1.3, 0.8 * 1.3]); // t/T = 1/2 counts as late
    let off = VgpoConfig { compensation: false, ..full };
    close(&weights(&off), &[0.5, 0.4, 0.3, 0.8]);
}

#[test]
fn equation_6_opens_for_the_largest_of_the_tail_and_for_ties() {
    let config = VgpoConfig { kappa: 0.4, ..VgpoConfig::default() };
    // T = 10: the tail is t = 6..10, k = floor(.4 * 5) = 2; the .9 of the head does not count.
    let rho = [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.6, 0.1, 0.6];
    assert_eq!(tail_start(10, &config), 5);
    assert_eq!(gate_threshold(&rho, &config), 0.6);
    let gate = values(factors(tensor(&[&rho]), &[10], &[0], &config).unwrap().gate);
    assert_eq!(gate, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]); // both .6 pass
}

#[test]
fn whole_numbers_survive_binary_floats() {
    // 0.2 * 15 is 3.0000000000000004, 0.29 * 100 is 28.999999999999996, (1 - 0.8) * 5 is 0.9999999999999998
    let kappa = |kappa| VgpoConfig { kappa, ..VgpoConfig::default() };
    assert_eq!(gate_count(15, &kappa(0.2)), 3);
    assert_eq!(gate_count(100, &kappa(0.29)), 29);
    assert_eq!(gate_count(3, &kappa(0.2)), 1);
    let config = VgpoConfig { gamma: 0.8, ..VgpoConfig::default() };
    assert_eq!(tail_start(5, &config), 1);
}

#[test]
fn the_released_form_takes_floats_as_they_are() {
    let config = VgpoConfig { variant: Variant::Released, kappa: 0.29, gamma: 0.29, ..VgpoConfig::default() };
    // int(.29 * 100) is 28
    assert_eq!(gate_count(100, &config), 28);
    assert_eq!(tail_start(100, &config), 28);
    assert_eq!(gate_count(3, &config), 1);
    assert_eq!(tail_start(3, &config), 0);
}

#[test]
fn the_released_step_boosts_the_middle_token() {
    let config = VgpoConfig {
        variant: Variant::Released,
        schedule: Schedule::Step,
        gate: false,
        beta: 1.0,
        ..VgpoConfig::default()
    };
    let boosted = |length: usize| -> Vec<f32> {
        // Equal cosines of 1, none padded but in the second row, which gives the min-max its 0.
        let rho = Tensor::<B, 2>::ones([2, length], &Default::default());
        values(factors(rho, &[length, 0], &[0, 0], &config).unwrap().w)[..length].to_vec()
    };
    close(&boosted(5), &[1.0, 1.0, 2.0, 2.0, 2.0]); // x = 0, 1/4, 1/2 ...
    close(&boosted(4), &[1.0, 1.0, 2.0, 2.0]); // x = 0, 1/3, 2/3, 1
    close(&boosted(2), &[1.0, 2.0]);
    close(&boosted(1), &[1.0]); // x = 0
}

#[test]
fn the_released_focus_has_the_padding_as_cosine_0() {
    let config = VgpoConfig { variant: Variant::Released, ..VgpoConfig::default() };
    let rho = |s: &[f32]| s.iter().map(|s| (s + 1.0) / 2.0).collect::<Vec<f32>>();
    let focus = |cosines: [&[f32]; 2], has_image: [bool; 2]| {
        let width = cosines[0].len().max(cosines[1].len()) + 2; // two columns that no response fills
        let padded = cosines.map(|s| [rho(s), vec![f32::NAN; width - s.len()]].concat());
        let lengths = cosines.map(<[f32]>::len);
        let rows = Responses { lengths: &lengths, groups: &[0, 1], has_image: &has_image, names: &[] };
        let found = values(factors_of(tensor(&[&padded[0], &padded[1]]), &rows, &config).unwrap().rho);
        [found[..lengths[0]].to_vec(), found[width..width + lengths[1]].to_vec()]
    };
    // One length: the smallest cosine is 0, the largest 1.
    let [a, b] = focus([&[0.2, 0.4], &[0.6, 0.3]], [true, true]);
    close(&[a, b].concat(), &[0.0, 0.5, 1.0, 0.25]);
    // Two lengths: padding is the least.
    let [a, b] = focus([&[0.2, 0.4], &[0.8]], [true, true]);
    close(&[a, b].concat(), &[0.25, 0.5, 1.0]);
    // One length, but a prompt without an image.
    let [a, _] = focus([&[0.2, 0.4], &[0.8, -0.8]], [true, false]);
    close(&a, &[0.5, 1.0]);
    // Padding is the most.
    let [a, b] = focus([&[-0.2, -0.4], &[-0.8]], [true, true]);
    close(&[a, b].concat(), &[0.75, 0.5, 0.0]);
    // Cosines of both signs: it is neither.
    let [a, b] = focus([&[0.5, -0.5], &[0.0]], [true, true]);
    close(&[a, b].concat(), &[1.0, 0.0, 0.5]);
    // A narrow range far from 0 keeps its digits.
    let [a, b] = focus([&[0.751, 0.7525], &[0.7515, 0.753]], [true, true]);
    let off = std::iter::zip([a, b].concat(), [0.0, 0.75, 0.25, 1.0]).map(|(a, b): (f32, f32)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) < 1e-4);
}

#[test]
fn the_released_form_compensates_only_with_intra() {
    let rho = tensor(&[&[0.5, 0.9, 0.75, 1.0], &[0.9, 0.9, 0.6, 0.6]]);
    let of = |intra, compensation| {
        let config = VgpoConfig { variant: Variant::Released, intra, compensation, ..VgpoConfig::default() };
        factors(rho.clone(), &[4, 4], &[0, 0], &config).unwrap()
    };
    let inter_only = of(false, true);
    assert_eq!(values(inter_only.gate.clone()), [0.0; 8]);
    close(&values(inter_only.w.clone()), &values(inter_only.rho.clone()));
    // rho 0, .8, .5, 1 and .8, .8, .2, .2, each min-maxed again: sums 2.3 and 2
    close(&values(inter_only.score.clone()), &[2.3, 2.0]);
    assert_eq!(values(inter_only.score), values(of(false, false).score));
    assert_eq!(values(of(true, true).gate), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn equations_7_and_8_centre_the_min_max() {
    let config = VgpoConfig { compensation: false, ..VgpoConfig::default() };
    let result = factors(tensor(&[&[0.2, 0.4, 0.6]]), &[3], &[0], &config).unwrap();
    close(&values(result.psi), &[-0.5, 0.0, 0.5]);
    close(&values(result.token), &[0.5, 1.0, 1.5]);
}

#[test]
fn equations_9_to_11_centre_the_min_max_of_each_group() {
    let config = VgpoConfig { compensation: false, ..VgpoConfig::default() };
    // Two interleaved groups with sums (.4, .8, .6) and (1, .2).
    let rho = tensor(&[&[0.2, 0.2], &[0.5, 0.5], &[0.4, 0.4], &[0.1, 0.1], &[0.3, 0.3]]);
    let groups = [70, 3, 70, 3, 70];
    let result = factors(rho.clone(), &[2; 5], &groups, &config).unwrap();
    close(&values(result.score), &[0.4, 1.0, 0.8, 0.2, 0.6]);
    close(&values(result.phi), &[-0.5, 0.5, 0.5, -0.5, 0.0]);
    // The mean does not see the length.
    let mean = VgpoConfig { inter_score: InterScore::Mean, ..config };
    let result = factors(rho, &[2, 1, 2, 2, 2], &groups, &mean).unwrap();
    close(&values(result.score), &[0.2, 0.5, 0.4, 0.1, 0.3]);
}

#[test]
fn equation_12_multiplies_the_advantage() {
    let config = VgpoConfig { compensation: false, ..VgpoConfig::default() };
    let rho = tensor(&[&[0.2, 0.6], &[0.4, 0.8]]);
    let result = factors(rho, &[2, 2], &[0, 0], &config).unwrap();
    let advantages = Tensor::from_floats([-1.0, 2.0], &Default::default());
    // psi = -+.5; phi = -.5 and .5
    close(&values(result.shape(advantages)), &[-0.25, -0.75, 1.5, 4.5]);
}

#[test]
fn the_switches_are_independent() {
    let rho = tensor(&[&[0.2, 0.6], &[0.4, 0.9]]);
    let run = |intra, inter| {
        let config = VgpoConfig { intra, inter, ..VgpoConfig::default() };
        let result = factors(rho.clone(), &[2, 2], &[0, 0], &config).unwrap();
        (values(result.token), values(result.trajectory))
    };
    let (token, trajectory) = run(true, true);
    assert_eq!(run(true, false), (token.clone(), vec![1.0; 2]));
    assert_eq!(run(false, true), (vec![1.0; 4], trajectory)); // inter alone still uses the compensated weights
    assert_eq!(run(false, false), (vec![1.0; 4], vec![1.0; 2]));
}

#[test]
fn the_released_form_clamps_and_normalises_over_the_batch() {
    let config = VgpoConfig { variant: Variant::Released, compensation: false, ..VgpoConfig::default() };
    // One response looks once: psi of that token is 1 - 1/9, of the others -1/9.
    let mut rho = [0.3_f32; 9];
    rho[4] = 0.5;
    let result = factors(tensor(&[&rho]), &[9], &[0], &config).unwrap();
    close(&values(result.rho), &[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    close(&values(result.token)[3..5], &[8.0 / 9.0, 17.0 / 9.0]);
    // One response looks away once: psi of that token is -19/20, which the clamp raises to -.9.
    let mut rho = [0.9_f32; 20];
    rho[3] = 0.6;
    let result = factors(tensor(&[&rho]), &[20], &[0], &config).unwrap();
    close(&values(result.psi)[3..5], &[-0.95, 0.05]);
    close(&values(result.token)[3..5], &[0.1, 1.05]);
    // The lowest trajectory factor is .9, not .5.
    let rho = tensor(&[&[0.2, 0.6, 0.2], &[0.2, 0.6, 0.6]]);
    let result = factors(rho, &[3, 3], &[0, 0], &config).unwrap();
    close(&values(result.trajectory), &[0.9, 1.5]);
}

#[test]
fn degenerate_batches_are_defined() {
    let neutral = |rho: Tensor<B, 2>, lengths: &[usize], groups: &[usize], variant| {
        let config = VgpoConfig { variant, ..VgpoConfig::default() };
        values(factors(rho, lengths, groups, &config).unwrap().combined())
    };
    for variant in [Variant::Paper, Variant::Released] {
        // responses of one token, in a group of one
        assert_eq!(neutral(tensor(&[&[0.7]]), &[1], &[5], variant), [1.0]);
        // no tokens at all
        assert_eq!(neutral(tensor(&[&[0.7]]), &[0], &[5], variant), [1.0]);
    }
    // equal focus: without compensation nothing distinguishes tokens or responses
    let config = VgpoConfig { compensation: false, ..VgpoConfig::default() };
    let result = factors(tensor(&[&[0.5; 4], &[0.5; 4]]), &[4, 4], &[0, 0], &config).unwrap();
    assert_eq!(values(result.combined()), [1.0; 8]);
    // and with it, it is the tail (all ties) that stands out
    let result = factors(tensor(&[&[0.5; 4]]), &[4], &[0], &VgpoConfig::default()).unwrap();
    assert_eq!(values(result.gate), [0.0, 0.0, 1.0, 1.0]);
    // a tail can be empty in the released form
    let config = VgpoConfig { variant: Variant::Released, gamma: 1.0, ..VgpoConfig::default() };
    let result = factors(tensor(&[&[0.5, 0.7]]), &[2], &[0], &config).unwrap();
    assert_eq!(values(result.gate), [0.0, 0.0]);
    // no rows
    let nothing = Tensor::<B, 2>::zeros([0, 3], &Default::default());
    let result = factors(nothing, &[], &[], &VgpoConfig::default()).unwrap();
    assert_eq!(result.token.dims(), [0, 3]);
    // no columns
    let nothing = Tensor::<B, 2>::zeros([2, 0], &Default::default());
    let result = factors(nothing, &[0, 0], &[1, 1], &VgpoConfig::default()).unwrap();
    assert_eq!(values(result.trajectory), [1.0, 1.0]);
}

#[test]
fn responses_without_an_image_have_factors_of_one_and_touch_nobody() {
    let rho = tensor(&[&[0.2, 0.6], &[f32::NAN, 0.9], &[0.4, 0.5]]);
    let rows =
        |has_image: &'static [bool]| Responses { lengths: &[2, 2, 2], groups: &[0, 0, 0], has_image, names: &[] };
    for variant in [Variant::Paper, Variant::Released] {
        let config = VgpoConfig { variant, ..VgpoConfig::default() };
        let mixed = factors_of(rho.clone(), &rows(&[true, false, true]), &config).unwrap();
        let combined = values(mixed.combined());
        assert_eq!(combined[2..4], [1.0, 1.0]);
        // In the released form the row is there as cells of cosine 0, as an empty row is.
        let alone = tensor(&[&[0.2, 0.6], &[0.4, 0.5], &[f32::NAN; 2]]);
        let lengths: &[usize] = if variant == Variant::Paper { &[2, 2] } else { &[2, 2, 0] };
        let alone = alone.narrow(0, 0, lengths.len());
        let alone = values(factors(alone, lengths, &vec![0; lengths.len()], &config).unwrap().combined());
        close(&[&combined[..2], &combined[4..]].concat(), &alone[..4]);
        let none = factors_of(rho.clone(), &rows(&[false; 3]), &config).unwrap();
        assert_eq!(values(none.combined()), [1.0; 6]);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let rho = tensor(&[&[0.2, 0.6]]);
    let config = VgpoConfig::default();
    let message =
        |lengths: &[usize], groups: &[usize]| factors(rho.clone(), lengths, groups, &config).unwrap_err().to_string();
    assert_eq!(
        message(&[2, 2], &[0]),
        "vgpo: lengths has 2 entries but the visual focus has 1 rows; give one per response"
    );
    assert_eq!(message(&[3], &[0]), "vgpo: response 0 has 3 tokens but the visual focus is 2 wide");
}

#[test]
fn settings_out_of_range_are_refused_with_the_reason() {
    let default = VgpoConfig::default;
    let message = |config: VgpoConfig| config.validate().unwrap_err().to_string();
    assert_eq!(
        message(VgpoConfig { beta: -0.1, ..default() }),
        "vgpo.beta = -0.1: must be 0 or more: a negative compensation punishes late looks at the picture"
    );
    for kappa in [0.0, 1.5, f64::NAN] {
        assert!(message(VgpoConfig { kappa, ..default() }).starts_with("vgpo.kappa"));
    }
    for gamma in [0.0, -1.0, 1.01] {
        assert!(message(VgpoConfig { gamma, ..default() }).starts_with("vgpo.gamma"));
    }
    assert!(message(VgpoConfig { eps: 0.0, ..default() }).starts_with("vgpo.eps"));
    // and refused again where they are used
    let bad = VgpoConfig { kappa: 0.0, ..default() };
    let refused = factors(tensor(&[&[0.5]]), &[1], &[0], &bad);
    assert!(matches!(refused, Err(VgpoError::Config { key: "kappa", .. })));
}

#[test]
fn the_configuration_reads_and_refuses_unknown_keys() {
    let config: VgpoConfig =
        serde_json::from_str(r#"{"variant": "released", "schedule": "step", "beta": 1.0}"#).unwrap();
    assert_eq!(
        config,
        VgpoConfig { variant: Variant::Released, schedule: Schedule::Step, beta: 1.0, ..VgpoConfig::default() }
    );
    let unknown = serde_json::from_str::<VgpoConfig>(r#"{"betta": 1.0}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `betta`"));
}
