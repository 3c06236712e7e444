//! The seconds of a step in words, as lines that are comments in TOML.

use crate::{CountedWork, DeviceSpeeds, Seconds, StepWork};

/// How often a step is done: as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCount {
    /// Steps; none where the data is not there to count them.
    pub steps: Option<usize>,
    /// Ranks.
    pub ranks: usize,
}

/// Seconds as a person says them.
fn clock(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 600.0 => format!("{s:.0} s"),
        s if s < 36_000.0 => format!("{:.0} min", s / 60.0),
        s if s < 1e6 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// Hours, with as many digits as mean something.
fn hours(seconds: f64) -> String {
    match seconds / 3600.0 {
        h if h < 0.1 => format!("{h:.3}"),
        h if h < 10.0 => format!("{h:.1}"),
        h => format!("{h:.0}"),
    }
}

fn number(value: f64) -> String {
    match value {
        0.0 => "-".into(),
        v if v < 0.01 => format!("{v:.1e}"),
        v if v < 10.0 => format!("{v:.2}"),
        v => format!("{v:.0}"),
    }
}

fn line(name: &str, cells: [&str; 5]) -> String {
    let [flops, bytes, seconds, least, most] = cells;
    format!("#   {name:<42} {flops:>9} {bytes:>9} {seconds:>9} {least:>9} {most:>9}\n")
}

/// A step and its parts, tokens a second, and the hours of all steps. Every line begins with `#`.
pub fn time_table(name: &str, step: &StepWork, speeds: &DeviceSpeeds, count: StepCount) -> String {
    let mut out = format!("# A step of stage {name:?}:\n");
    out += &line("", ["TFLOP", "GB", "seconds", "least", "most"]);
    let of = |seconds: Seconds| [seconds.expected, seconds.least, seconds.most].map(number);
    for part in &step.parts {
        let CountedWork { flops, bytes, local, network, .. } = part.work;
        let [flops, bytes] = [flops / 1e12, (bytes + local + network) / 1e9].map(number);
        let [expected, least, most] = of(speeds.seconds(&part.work));
        out += &line(part.name, [&flops, &bytes, &expected, &least, &most]);
    }
    let sum = step.seconds(speeds);
    let [expected, least, most] = of(sum);
    out += &line("sum", ["", "", &expected, &least, &most]);
    let tokens = step.tokens / sum.expected;
    let per = if count.ranks > 1 { format!(", {} a rank", number(tokens / count.ranks as f64)) } else { String::new() };
    out += &format!("#   {} response tokens a second{per}.\n", number(tokens));
    out + &match count.steps {
        None => "#   How many steps is not known: the data is not there.\n".into(),
        Some(steps) => {
            let all = sum * steps as f64;
            format!(
                "#   {steps} steps: {} ({} to {}), {} device-hours.\n",
                clock(all.expected),
                clock(all.least),
                clock(all.most),
                hours(all.expected * count.ranks as f64)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::WorkKind;
    use crate::{DataSheet, StepPart};
    use burn::tensor::DType;

    #[test]
    fn the_table_is_a_comment_and_its_hours_are_its_seconds() {
        let work = CountedWork { flops: 989e12 * 0.3 * 36.0, ..CountedWork::none(WorkKind::Update) };
        let step = StepWork { parts: vec![StepPart { name: "update", work }], tokens: 720.0 };
        let speeds = DeviceSpeeds::of_sheet(DataSheet::find("h100").unwrap(), DType::BF16);
        let text = time_table("rl", &step, &speeds, StepCount { steps: Some(1000), ranks: 8 });
        assert!(text.lines().all(|line| line.starts_with('#')) && text.parse::<toml::Table>().unwrap().is_empty());
        assert!(text.contains("20 response tokens a second, 2.50 a rank"), "{text}");
        assert!(text.contains("1000 steps: 10 h (") && text.contains(" 80 device-hours"), "{text}");
        let unknown = time_table("rl", &step, &speeds, StepCount { steps: None, ranks: 1 });
        assert!(unknown.contains("not known"), "{unknown}");
    }
}
