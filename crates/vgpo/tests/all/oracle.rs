//! Both forms of VGPO once more, token by token in f64 and whole numbers, with nothing of the crate's own code. It is
//! held against the stored results (`golden.rs`) and then holds the crate on batches that nobody stored
//! (`properties.rs`).

use vgpo::{InterScore, Schedule, Variant, VgpoConfig};

/// A batch: per response its group, whether its prompt has an image, and the cosines of its tokens.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub groups: Vec<usize>,
    pub has_image: Vec<bool>,
    pub cosines: Vec<Vec<f64>>,
}

/// What equations 5 to 12 make of it, without padding; zeros and factors of 1 for rows without an image.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Expected {
    pub rho: Vec<Vec<f64>>,
    pub gate: Vec<Vec<f64>>,
    pub w: Vec<Vec<f64>>,
    pub psi: Vec<Vec<f64>>,
    pub token: Vec<Vec<f64>>,
    pub score: Vec<f64>,
    pub phi: Vec<f64>,
    pub trajectory: Vec<f64>,
    /// Whether no min-max is taken over differences that f32 would lose.
    pub is_sharp: bool,
}

fn extremes(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

fn min_max(values: &[f64], eps: f64) -> Vec<f64> {
    let (low, high) = extremes(values);
    values.iter().map(|v| (v - low) / (high - low + eps)).collect()
}

fn less_mean(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| v - mean).collect()
}

/// `share` of `whole` things for a share of whole twentieths, in whole numbers: rounded down, and whether something was
/// left.
fn twentieths(share: f64, whole: usize) -> (usize, bool) {
    let parts = (share * 20.0).round() as usize;
    assert!((parts as f64 / 20.0 - share).abs() < 1e-12, "{share} is not a twentieth");
    (parts * whole / 20, !(parts * whole).is_multiple_of(20))
}

/// The tail as 1-based positions, and how many of it pass.
fn tail(length: usize, config: &VgpoConfig) -> (Vec<usize>, usize) {
    match config.variant {
        Variant::Paper => {
            // t > T - gamma T
            let late = |t: usize| {
                let (down, left) = twentieths(config.gamma, length);
                t > length - down || left && t == length - down
            };
            let tail: Vec<usize> = (1..=length).filter(|&t| late(t)).collect();
            let k = twentieths(config.kappa, tail.len()).0.max(1);
            (tail, k)
        }
        Variant::Released => {
            let tail: Vec<usize> = ((config.gamma * length as f64) as usize + 1..=length).collect();
            let k = ((config.kappa * tail.len() as f64) as usize).max(1);
            (tail, k)
        }
    }
}

fn growth(t: usize, length: usize, config: &VgpoConfig) -> f64 {
    let x = match config.variant {
        Variant::Paper => t as f64 / length as f64,
        Variant::Released if length == 1 => 0.0,
        Variant::Released => (t - 1) as f64 / (length - 1) as f64,
    };
    match config.schedule {
        Schedule::Linear => x,
        Schedule::Exponential => x * x,
        Schedule::Step => f64::from(u8::from(x >= 0.5)),
    }
}

fn gate(rho: &[f64], config: &VgpoConfig) -> Vec<f64> {
    if !config.gate {
        return vec![1.0; rho.len()];
    }
    let (tail, k) = tail(rho.len(), config);
    let mut largest: Vec<f64> = tail.iter().map(|t| rho[t - 1]).collect();
    largest.sort_by(|a, b| b.total_cmp(a));
    let passes = |t: usize| tail.contains(&t) && rho[t - 1] >= largest[k - 1];
    (1..=rho.len()).map(|t| f64::from(u8::from(passes(t)))).collect()
}

/// The focus that the equations start from.
fn focus(case: &Case, config: &VgpoConfig) -> Vec<Vec<f64>> {
    let looking: Vec<&Vec<f64>> =
        std::iter::zip(&case.cosines, &case.has_image).filter_map(|(row, image)| image.then_some(row)).collect();
    let mut cells: Vec<f64> = looking.iter().flat_map(|row| row.iter().copied()).collect();
    let longest = looking.iter().map(|row| row.len()).max().unwrap_or(0);
    if looking.len() < case.cosines.len() || looking.iter().any(|row| row.len() < longest) {
        cells.push(0.0);
    }
    let (low, high) = extremes(&cells);
    let of = |s: f64| match config.variant {
        Variant::Paper => (s + 1.0) / 2.0,
        Variant::Released => (s - low) / (high - low + config.eps),
    };
    case.cosines.iter().map(|row| row.iter().map(|&s| of(s)).collect()).collect()
}

/// Differences below this drown in f32.
const SHARP: f64 = 1e-3;

pub(crate) fn factors(case: &Case, config: &VgpoConfig) -> Expected {
    let released = config.variant == Variant::Released;
    let compensated = config.compensation && (config.intra || !released);
    let mut out = Expected { rho: focus(case, config), is_sharp: true, ..Expected::default() };
    for (row, image) in case.has_image.iter().enumerate() {
        let length = case.cosines[row].len();
        if !image {
            out.rho[row] = vec![0.0; length];
            for list in [&mut out.gate, &mut out.w, &mut out.psi] {
                list.push(vec![0.0; length]);
            }
            out.token.push(vec![1.0; length]);
            out.score.push(0.0);
            continue;
        }
        let rho = &out.rho[row];
        let gate = if compensated { gate(rho, config) } else { vec![0.0; length] };
        let w: Vec<f64> =
            (0..length).map(|i| rho[i] * (1.0 + gate[i] * config.beta * growth(i + 1, length, config))).collect();
        let normalised = min_max(&w, config.eps);
        let psi = less_mean(&normalised);
        let weights = if released { &normalised } else { &w };
        let score = match config.inter_score {
            InterScore::Sum => weights.iter().sum::<f64>(),
            InterScore::Mean => weights.iter().sum::<f64>() / length as f64,
        };
        let token = |psi: &f64| match (config.intra, released) {
            (false, _) => 1.0,
            (true, false) => 1.0 + psi,
            (true, true) => (1.0 + psi).clamp(0.1, 2.0),
        };
        let (low, high) = extremes(&w);
        let plain = gate.iter().all(|g| *g == 0.0) && case.cosines[row].iter().all(|s| *s == case.cosines[row][0]);
        out.is_sharp &= length == 1 || plain || high - low > SHARP;
        out.token.push(psi.iter().map(token).collect());
        out.score.push(score);
        out.gate.push(gate);
        out.w.push(w);
        out.psi.push(psi);
    }
    out.phi = vec![0.0; case.groups.len()];
    for group in &case.groups {
        let rows: Vec<usize> =
            (0..case.groups.len()).filter(|&r| case.groups[r] == *group && case.has_image[r]).collect();
        let scores: Vec<f64> = rows.iter().map(|&r| out.score[r]).collect();
        for (row, phi) in std::iter::zip(&rows, less_mean(&min_max(&scores, config.eps))) {
            out.phi[*row] = phi;
        }
        let (low, high) = extremes(&scores);
        let same = rows.iter().all(|&r| case.cosines[r] == case.cosines[rows[0]]);
        out.is_sharp &= same || high - low > SHARP;
    }
    let trajectory = |phi: &f64| match (config.inter, released) {
        (false, _) => 1.0,
        (true, false) => 1.0 + phi,
        (true, true) => (1.0 + phi).clamp(0.9, 2.0),
    };
    out.trajectory =
        std::iter::zip(&out.phi, &case.has_image).map(|(phi, &i)| if i { trajectory(phi) } else { 1.0 }).collect();
    out
}
