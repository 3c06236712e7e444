//! Pictures of one summary, or of two models beside each other.

use ::report::svg::axis::Axis;
use ::report::svg::chart::{Chart, Mark, Series};

use super::measure::PilotRecord;
use super::summary::{LateEarly, PilotSummary, Step, relative_seeing};
use crate::stats::{Histogram, Interval};

/// A model's name, its summary and its responses.
pub(crate) struct PlottedModel<'a> {
    /// Name in legends.
    pub name: &'a str,
    /// Its figures.
    pub summary: &'a PilotSummary,
    /// Its responses.
    pub records: &'a [PilotRecord],
}

/// Points of a scatter plot; more are thinned evenly.
const MAX_POINTS: usize = 3000;

/// File names (without `.svg`) and files. Plots of what no response has are left out.
pub(crate) fn all(models: &[PlottedModel]) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for (k, model) in models.iter().enumerate() {
        let suffix = if models.len() == 1 { String::new() } else { format!("_{}", ["before", "after"][k.min(1)]) };
        let name = if models.len() == 1 { String::new() } else { format!(", {}", short(model.name)) };
        let s = model.summary;
        let attention = |steps: &[Step], x: Axis, title: &str| attention(steps, x, format!("{title}{name}"), s);
        plots.push((
            format!("attention_relative{suffix}"),
            attention(
                &s.relative,
                Axis::new("share of the response generated").percent().range(0.0, 1.0),
                "Where generated tokens look, by relative step",
            ),
        ));
        plots.push((
            format!("attention_absolute{suffix}"),
            attention(&s.absolute, Axis::new("generated token"), "Where generated tokens look, by token"),
        ));
        if s.with_image == 0 {
            continue;
        }
        for (file, title, axis, of) in [
            ("accumulation", "Visual accumulation", "attention on the image, late half / early half", &s.accumulation),
            ("focus_ratio", "Late/early visual focus", "visual focus, late half / early half", &s.focus),
        ] {
            plots.push((format!("{file}{suffix}"), histogram(of, format!("{title}{name}"), axis)));
        }
        plots.push((format!("focus_attention{suffix}"), scatter(model, &name)));
    }
    if let [a, b] = models
        && a.summary.with_image > 0
        && b.summary.with_image > 0
    {
        plots.push((
            "compare_image".into(),
            compare(a, b, "Attention on the image", "attention on image tokens", |s| Some(s.image)),
        ));
        plots.push(("compare_focus".into(), compare(a, b, "Visual focus", "visual focus (equation 4)", |s| s.focus)));
    }
    plots
}

/// The end of a long path: it says which checkpoint is meant.
fn short(name: &str) -> String {
    const LONGEST: usize = 40;
    match name.chars().count() {
        count if count > LONGEST => format!("…{}", name.chars().skip(count - LONGEST).collect::<String>()),
        _ => name.to_owned(),
    }
}

fn line(name: &str, steps: &[Step], of: impl Fn(&Step) -> Option<f64>) -> Series {
    Series {
        name: name.into(),
        points: steps.iter().filter_map(|s| Some((s.at, of(s)?))).collect(),
        mark: Mark::Line { half: vec![] },
    }
}

fn attention(steps: &[Step], x: Axis, title: String, summary: &PilotSummary) -> String {
    Chart {
        title,
        note: format!("last layer, mean over heads and {} responses; the three sum to 100%", summary.responses),
        x,
        y: Axis::new("attention").percent().range(0.0, 1.0),
        series: vec![
            line("image", steps, |s| Some(s.image)),
            line("prompt text", steps, |s| Some(s.prompt)),
            line("generated text", steps, |s| Some(s.generated)),
        ],
    }
    .draw()
}

/// `0.680 (412 responses)`.
fn described(name: &str, interval: Option<Interval>) -> String {
    match interval {
        Some(i) if i.half.is_finite() => format!("{name}: {:.3} ± {:.3} ({} responses)", i.mean, i.half, i.n),
        Some(i) => format!("{name}: {:.3} ({} response)", i.mean, i.n),
        None => format!("{name}: none"),
    }
}

fn bars(name: String, histogram: &Histogram) -> Series {
    let width = (histogram.high - histogram.low) / histogram.counts.len() as f64;
    let total = histogram.counts.iter().sum::<usize>().max(1) as f64;
    let points = histogram
        .counts
        .iter()
        .enumerate()
        .map(|(k, n)| (histogram.low + (k as f64 + 0.5) * width, *n as f64 / total))
        .collect();
    Series { name, points, mark: Mark::Bars { width } }
}

fn histogram(of: &LateEarly, title: String, axis: &str) -> String {
    let (low, high) = (of.histogram_correct.low, of.histogram_correct.high);
    Chart {
        title: format!("{title} of correct and incorrect responses"),
        note: "share of each kind of response; mean ± 95% interval in the legend; values beyond the axis are in its end bins".into(),
        x: Axis::new(axis).range(low, high),
        y: Axis::new("share of responses").percent(),
        series: vec![
            bars(described("correct", of.correct), &of.histogram_correct),
            bars(described("incorrect", of.incorrect), &of.histogram_incorrect),
        ],
    }
    .draw()
}

fn scatter(model: &PlottedModel, name: &str) -> String {
    let all: Vec<(f64, f64)> = model
        .records
        .iter()
        .flat_map(|r| r.focus.iter().zip(&r.image).map(|(f, a)| (f64::from(*f), f64::from(*a))))
        .collect();
    let every = all.len().div_ceil(MAX_POINTS).max(1);
    let c = &model.summary.focus_and_attention;
    let pooled = c.pooled.map_or("undefined".into(), |v| format!("{v:.3}"));
    let within = c.within.map_or("undefined".into(), |i| format!("{:.3}", i.mean));
    let shown = if every > 1 { format!("; one token in {every} shown") } else { String::new() };
    Chart {
        title: format!("Visual focus against attention on the image{name}"),
        note: format!("Pearson over all tokens {pooled}, mean within responses {within}{shown}"),
        x: Axis::new("visual focus (equation 4)"),
        y: Axis::new("attention on image tokens").percent(),
        series: vec![Series {
            name: "token".into(),
            points: all.into_iter().step_by(every).collect(),
            mark: Mark::Points,
        }],
    }
    .draw()
}

fn compare(
    a: &PlottedModel,
    b: &PlottedModel,
    title: &str,
    label: &str,
    of: impl Fn(&Step) -> Option<f64> + Copy,
) -> String {
    Chart {
        title: format!("{title}, before and after"),
        note: format!("accuracy {:.1}% and {:.1}%", 100.0 * a.summary.accuracy, 100.0 * b.summary.accuracy),
        x: Axis::new("share of the response generated").percent().range(0.0, 1.0),
        y: Axis::new(label),
        series: vec![
            line(&short(a.name), &relative_seeing(a.records), of),
            line(&short(b.name), &relative_seeing(b.records), of),
        ],
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::record;
    use super::*;

    #[test]
    fn every_plot_of_two_models() {
        let records = [record(1.0, &[0.4, 0.3, 0.2], &[0.9, 0.8, 0.6]), record(0.0, &[0.5, 0.1], &[0.5, 0.7])];
        let summary = PilotSummary::of(&records);
        let model = |name| PlottedModel { name, summary: &summary, records: &records };
        let two = all(&[model("base"), model("tuned")]);
        assert_eq!(two.len(), 12);
        assert!(two.iter().all(|(_, svg)| !svg.contains("NaN") && !svg.contains("inf\"")));
        assert_eq!(all(&[model("base")]).len(), 5);
        let text = [record(1.0, &[0.0, 0.0], &[])];
        let summary = PilotSummary::of(&text);
        assert_eq!(all(&[PlottedModel { name: "base", summary: &summary, records: &text }]).len(), 2);
    }
}
