//! What many measured responses say together.

use serde::{Deserialize, Serialize};
use vgpo::metrics::{late_early_cosine_ratio, late_early_ratio};

use super::measure::PilotRecord;
use crate::stats::{Histogram, Interval, mean, pearson};

/// Mean attention on the three kinds of positions, and mean focus, at one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Relative: middle of the bin, 0 to 1. Absolute: number of the token, from 1.
    pub at: f64,
    /// Responses that have it.
    pub responses: usize,
    /// Attention on image tokens.
    pub image: f64,
    /// Attention on the rest of the prompt.
    pub prompt: f64,
    /// Attention on generated tokens.
    pub generated: f64,
    /// Visual focus; none where no response has an image.
    pub focus: Option<f64>,
}

/// A ratio, late half over early half, of correct and incorrect responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateEarly {
    /// Mean over all responses; none where it is defined for no response.
    pub all: Option<Interval>,
    /// Mean over correct responses.
    pub correct: Option<Interval>,
    /// Mean over incorrect ones.
    pub incorrect: Option<Interval>,
    /// Correct responses by ratio; values outside are in the bins at the ends.
    pub histogram_correct: Histogram,
    /// Incorrect responses by ratio, in the same bins.
    pub histogram_incorrect: Histogram,
}

/// Correlation of visual focus with attention on the image, over tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// Over the tokens of all responses together.
    pub pooled: Option<f64>,
    /// Mean of the correlations within single responses.
    pub within: Option<Interval>,
    /// The correlations within single responses.
    pub histogram: Histogram,
}

/// `analysis.json` of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PilotSummary {
    /// Responses.
    pub responses: usize,
    /// Of them with an image; the visual figures are about these.
    pub with_image: usize,
    /// Mean accuracy.
    pub accuracy: f64,
    /// Mean length in tokens.
    pub tokens: f64,
    /// Means of attention over all tokens: image, prompt, generated.
    pub attention: [f64; 3],
    /// Averages by relative step.
    pub relative: Vec<Step>,
    /// Averages by token number, as long as a tenth of the responses reach it.
    pub absolute: Vec<Step>,
    /// Visual accumulation: attention on the image, late half over early half.
    pub accumulation: LateEarly,
    /// The same of visual focus.
    pub focus: LateEarly,
    /// Late half over early half of the cosines behind the focus, which the focus pins near 1; a ratio of means over
    /// responses. None where the early ones are not above 0.
    pub late_early_cosine: Option<f64>,
    /// Visual focus against attention on the image.
    pub focus_and_attention: Correlation,
}

/// Bins of relative steps.
const BINS: usize = 20;
/// A response is correct from this accuracy on.
const CORRECT: f64 = 0.5;

impl PilotSummary {
    /// The summary of some responses; all that have no image leave the visual figures empty.
    pub fn of(records: &[PilotRecord]) -> Self {
        let of = |f: &dyn Fn(&PilotRecord) -> &[f32]| -> f64 {
            let all: Vec<f64> = records.iter().flat_map(|r| f(r).iter().map(|v| f64::from(*v))).collect();
            mean(&all)
        };
        let longest = records.iter().map(|r| r.image.len()).max().unwrap_or(0);
        let seeing: Vec<&PilotRecord> = records.iter().filter(|r| r.image_tokens > 0).collect();
        Self {
            responses: records.len(),
            with_image: seeing.len(),
            accuracy: mean(&records.iter().map(|r| r.accuracy).collect::<Vec<_>>()),
            tokens: mean(&records.iter().map(|r| r.image.len() as f64).collect::<Vec<_>>()),
            attention: [of(&|r| &r.image), of(&|r| &r.prompt), of(&|r| &r.generated)],
            relative: (0..BINS).filter_map(|bin| relative(records.iter(), bin)).collect(),
            absolute: (0..longest)
                .filter_map(|t| step(records.iter(), (t + 1) as f64, |_| t..t + 1))
                .take_while(|s| s.responses * 10 >= records.len())
                .collect(),
            accumulation: late_early(&seeing, |r| &r.image),
            focus: late_early(&seeing, |r| &r.focus),
            late_early_cosine: late_early_cosine_ratio(&seeing.iter().map(|r| &r.focus).collect::<Vec<_>>(), 2),
            focus_and_attention: correlation(&seeing),
        }
    }
}

/// [`PilotSummary::relative`] of the responses to prompts with an image alone.
pub(super) fn relative_seeing(records: &[PilotRecord]) -> Vec<Step> {
    let seeing = || records.iter().filter(|r| r.image_tokens > 0);
    (0..BINS).filter_map(|bin| relative(seeing(), bin)).collect()
}

/// A short response has several bins in one token; a long one several tokens in one bin.
fn relative<'a>(records: impl Iterator<Item = &'a PilotRecord>, bin: usize) -> Option<Step> {
    step(records, (bin as f64 + 0.5) / BINS as f64, |length| {
        let start = bin * length / BINS;
        start..((bin + 1) * length).div_ceil(BINS).max(start + 1)
    })
}

/// Each response counts once, whatever it has there.
fn step<'a>(
    records: impl Iterator<Item = &'a PilotRecord>,
    at: f64,
    range: impl Fn(usize) -> std::ops::Range<usize>,
) -> Option<Step> {
    let mut sums = [0.0; 3];
    let (mut responses, mut focus) = (0, Vec::new());
    for r in records {
        let range = range(r.image.len());
        let part = |values: &[f32]| -> Option<f64> {
            let values = values.get(range.clone()).filter(|v| !v.is_empty())?;
            Some(values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64)
        };
        let (Some(image), Some(prompt), Some(generated)) = (part(&r.image), part(&r.prompt), part(&r.generated)) else {
            continue;
        };
        responses += 1;
        sums = [sums[0] + image, sums[1] + prompt, sums[2] + generated];
        focus.extend(part(&r.focus));
    }
    let n = responses as f64;
    (responses > 0).then(|| Step {
        at,
        responses,
        image: sums[0] / n,
        prompt: sums[1] / n,
        generated: sums[2] / n,
        focus: (!focus.is_empty()).then(|| mean(&focus)),
    })
}

fn late_early(records: &[&PilotRecord], of: impl Fn(&PilotRecord) -> &[f32]) -> LateEarly {
    let ratios: Vec<(bool, f64)> =
        records.iter().filter_map(|r| Some((r.accuracy >= CORRECT, late_early_ratio(of(r), 2)?))).collect();
    let some = |which: &dyn Fn(bool) -> bool| -> Vec<f64> {
        ratios.iter().filter(|(correct, _)| which(*correct)).map(|(_, v)| *v).collect()
    };
    let interval = |values: &[f64]| (!values.is_empty()).then(|| Interval::of(values));
    let (all, right, wrong) = (some(&|_| true), some(&|c| c), some(&|c| !c));
    // The range that holds 98 of 100 responses, so that a few far ones do not press the rest together.
    let mut sorted = all.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get((share * sorted.len().saturating_sub(1) as f64).round() as usize).copied();
    let low = (at(0.01).unwrap_or(0.0) * 20.0).floor() / 20.0;
    let high = ((at(0.99).unwrap_or(1.0) * 20.0).ceil() / 20.0).max(low + 0.05);
    LateEarly {
        all: interval(&all),
        correct: interval(&right),
        incorrect: interval(&wrong),
        histogram_correct: Histogram::of(&right, low, high, BINS),
        histogram_incorrect: Histogram::of(&wrong, low, high, BINS),
    }
}

fn correlation(records: &[&PilotRecord]) -> Correlation {
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
    let within: Vec<f64> = records.iter().filter_map(|r| pearson(&wide(&r.focus), &wide(&r.image))).collect();
    let all = |of: &dyn Fn(&PilotRecord) -> &[f32]| -> Vec<f64> { records.iter().flat_map(|r| wide(of(r))).collect() };
    Correlation {
        pooled: pearson(&all(&|r| &r.focus), &all(&|r| &r.image)),
        within: (!within.is_empty()).then(|| Interval::of(&within)),
        histogram: Histogram::of(&within, -1.0, 1.0, BINS),
    }
}

impl PilotSummary {
    /// The figures that a person asks for first.
    pub fn table(&self, name: &str) -> String {
        let s = self;
        let interval = |i: Option<Interval>| match i {
            Some(i) if i.half.is_finite() => format!("{:.3} ± {:.3} ({})", i.mean, i.half, i.n),
            Some(i) => format!("{:.3} ({})", i.mean, i.n),
            None => "-".into(),
        };
        let [image, prompt, generated] = s.attention.map(|v| 100.0 * v);
        let mut out = format!(
            "{name}\n  responses            {} ({} with a picture), accuracy {:.1}%, {:.1} tokens\n  attention            image {image:.1}%, prompt text {prompt:.1}%, generated text {generated:.1}%\n",
            s.responses,
            s.with_image,
            100.0 * s.accuracy,
            s.tokens
        );
        if s.with_image > 0 {
            for (label, of) in [("late/early attention", &s.accumulation), ("late/early focus", &s.focus)] {
                out += &format!(
                    "  {label:20} {}; correct {}; incorrect {}\n",
                    interval(of.all),
                    interval(of.correct),
                    interval(of.incorrect)
                );
            }
            let cosine = s.late_early_cosine.map_or("-".into(), |v| format!("{v:.3}"));
            out += &format!("  late/early cosine    {cosine}\n");
            let c = &s.focus_and_attention;
            out += &format!(
                "  focus and attention  Pearson {} over all tokens, {} within responses\n",
                c.pooled.map_or("-".into(), |v| format!("{v:.3}")),
                interval(c.within)
            );
        }
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn record(accuracy: f64, image: &[f32], focus: &[f32]) -> PilotRecord {
        PilotRecord {
            id: "x".into(),
            row: 0,
            sample: 0,
            problem: String::new(),
            answer: String::new(),
            response: String::new(),
            accuracy,
            image_tokens: focus.len().min(1),
            image: image.to_vec(),
            prompt: image.iter().map(|v| 0.75 - v).collect(),
            generated: vec![0.25; image.len()],
            focus: focus.to_vec(),
        }
    }

    #[test]
    fn steps_and_ratios_by_hand() {
        let records =
            [record(1.0, &[0.4, 0.4, 0.2, 0.2], &[0.9, 0.9, 0.6, 0.6]), record(0.0, &[0.5, 0.125], &[0.5, 0.75])];
        let s = PilotSummary::of(&records);
        assert_eq!((s.responses, s.with_image, s.accuracy, s.tokens), (2, 2, 0.5, 3.0));
        // token 1: (.4 + .5) / 2; token 3: only the first response
        assert!((s.absolute[0].image - 0.45).abs() < 1e-6 && s.absolute[2].responses == 1);
        assert_eq!((s.absolute.len(), s.relative.len()), (4, 20));
        assert!((s.relative[0].image - 0.45).abs() < 1e-6 && (s.relative[19].image - 0.1625).abs() < 1e-6);
        let mean = |i: Option<Interval>| i.unwrap().mean;
        assert!(
            (mean(s.accumulation.correct) - 0.5).abs() < 1e-6 && (mean(s.accumulation.incorrect) - 0.25).abs() < 1e-6
        );
        assert!((mean(s.focus.correct) - 2.0 / 3.0).abs() < 1e-6 && (mean(s.focus.incorrect) - 1.5).abs() < 1e-6);
        // Cosines .8 early, .2 late; 0 and .5.
        assert!((s.late_early_cosine.unwrap() - 0.875).abs() < 1e-5);
        // Within the first response focus and attention fall together, within the second they part.
        assert!(mean(s.focus_and_attention.within).abs() < 1e-6);
        let steps = [&s.relative, &s.absolute];
        assert!(steps.iter().all(|l| l.iter().all(|x| (x.image + x.prompt + x.generated - 1.0).abs() < 1e-5)));
        let attention: f64 = s.attention.iter().sum();
        assert!((attention - 1.0).abs() < 1e-5);
    }

    #[test]
    fn without_images_the_visual_figures_are_empty() {
        let s = PilotSummary::of(&[record(1.0, &[0.0, 0.0], &[])]);
        assert_eq!((s.with_image, s.attention[0]), (0, 0.0));
        assert!(s.accumulation.all.is_none() && s.focus.all.is_none() && s.focus_and_attention.pooled.is_none());
        assert!(s.relative.iter().all(|x| x.focus.is_none() && x.image == 0.0));
    }
}
