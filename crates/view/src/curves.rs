//! `metrics.jsonl` as columns, a part at a time: what was appended since the page last asked.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use run::layout::METRICS;
use serde_json::{Map, Value, json};

use crate::error::ViewError;
use crate::lines::BadLines;
use crate::viewed::ViewedRun;

/// Bytes of the log that one answer reads; the page asks again for the rest.
const PART: u64 = 32 << 20;

/// Metrics of one answer, as many as the page shows (`assets/metrics.js`).
const MOST_METRICS: usize = 2000;
/// Numbers of one answer, those that are missing among them: where each line has other metrics that is the product.
const NUMBERS: usize = 1 << 23;

/// One metric over the steps of a part: `None` where a line does not have it, or not as a finite number.
#[derive(Default)]
struct Curve {
    /// NaN where a line says `null`, which a number that is not finite became.
    values: Vec<Option<f32>>,
}

impl Curve {
    fn not_finite(&self) -> usize {
        self.values.iter().flatten().filter(|value| value.is_nan()).count()
    }
}

/// What was read.
#[derive(Default)]
struct LogPart {
    /// Each above the one before.
    steps: Vec<u64>,
    names: Vec<String>,
    curves: Vec<Curve>,
    places: HashMap<String, usize>,
    /// From which line on a stage goes.
    stages: Vec<(usize, String)>,
    bad: BadLines,
    /// Whether there are more metrics than these.
    full: bool,
    /// Lines of each curve that say `null`.
    not_finite: Vec<usize>,
}

impl LogPart {
    /// Takes a line of the log.
    fn add(&mut self, line: usize, row: Map<String, Value>) {
        let Some(step) = row.get("step").and_then(Value::as_u64) else {
            return self.bad.add(line, &"it has no \"step\"");
        };
        self.go_back(step);
        let at = self.steps.len();
        self.steps.push(step);
        for (key, value) in row {
            let number = match &value {
                Value::Number(number) => match number.as_f64().map(|number| number as f32) {
                    Some(number) if number.is_finite() => number,
                    _ => f32::NAN,
                },
                Value::Null => f32::NAN,
                Value::String(stage) if key == "stage" => {
                    if self.stages.last().is_none_or(|(_, last)| last != stage) {
                        self.stages.push((at, stage.clone()));
                    }
                    continue;
                }
                _ => continue,
            };
            if key == "step" {
                continue;
            }
            let place = match self.places.get(&key) {
                Some(place) => *place,
                None if self.curves.len() >= MOST_METRICS => {
                    self.full = true;
                    continue;
                }
                None => {
                    self.names.push(key.clone());
                    self.curves.push(Curve::default());
                    self.places.insert(key, self.curves.len() - 1);
                    self.curves.len() - 1
                }
            };
            let curve = &mut self.curves[place];
            curve.values.resize(at, None);
            curve.values.push(Some(number));
        }
    }

    /// Drops the steps from `step` on: a run that was resumed writes some of its steps again.
    fn go_back(&mut self, step: u64) {
        if self.steps.last().is_none_or(|last| *last < step) {
            return;
        }
        let kept = self.steps.partition_point(|before| *before < step);
        self.steps.truncate(kept);
        self.curves.iter_mut().for_each(|curve| curve.values.truncate(kept));
        self.stages.retain(|(at, _)| *at < kept);
    }

    /// Makes all curves as long as there are steps.
    fn finish(&mut self) {
        let count = self.steps.len();
        self.curves.iter_mut().for_each(|curve| curve.values.resize(count, None));
        self.not_finite = self.curves.iter().map(Curve::not_finite).collect();
    }

    /// Leaves every `n`th step, the last among them.
    fn thin(&mut self, n: usize) {
        let last = self.steps.len().saturating_sub(1);
        let kept = |at: usize| (last - at).is_multiple_of(n);
        for curve in &mut self.curves {
            curve.values = curve.values.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, v)| *v).collect();
        }
        // A stage begins with the first step that is kept of it.
        for (at, _) in &mut self.stages {
            *at = (0..*at).filter(|at| kept(*at)).count();
        }
        self.steps = self.steps.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, v)| *v).collect();
    }

    /// As the page takes it. Numbers have the digits of an `f32`, as a chart shows no more.
    fn json(&self, head: Map<String, Value>) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = serde_json::to_vec(&head)?;
        out.pop();
        let mut field = |name: &str, value: &Value| -> Result<(), serde_json::Error> {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            serde_json::to_writer(&mut out, value)
        };
        field("bad", &self.bad.json())?;
        field("stages", &json!(self.stages))?;
        field("full", &json!(self.full))?;
        let pairs = self.names.iter().zip(&self.not_finite).filter(|(_, lines)| **lines > 0);
        field("not_finite", &pairs.map(|(name, lines)| (name.clone(), json!(lines))).collect())?;
        field("steps", &json!(self.steps))?;
        out.extend_from_slice(b",\"columns\":{");
        for (index, (name, curve)) in self.names.iter().zip(&self.curves).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, name)?;
            out.push(b':');
            serde_json::to_writer(&mut out, &curve.values)?;
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }
}

/// The lines of `metrics.jsonl` from the byte `from` on, as JSON:
///
/// ```text
/// {"next": byte to go on from, "restart": whether the log is another one than the page knows, "more": whether there is
///  more now, "bad", "full": whether there are more metrics than these, "stages": [[index, name]],
///  "not_finite": {name: lines}, "steps": [..], "columns": {name: [..]}}
/// ```
///
/// A half line at the end is left for the next time. A run without a log has no steps yet.
///
/// # Errors
/// A log that cannot be read.
pub(crate) fn since(viewed: &ViewedRun, from: u64) -> Result<Vec<u8>, ViewError> {
    let (part, head) = read(viewed, from, PART)?;
    written(&part, head)
}

/// All curves for a file of bounded size: with more than `most` numbers every `n`th step is left, the last among them.
/// Second is `n`.
///
/// # Errors
/// As [`since`].
pub(crate) fn thinned(viewed: &ViewedRun, most: usize) -> Result<(Vec<u8>, usize), ViewError> {
    let mut whole = LogPart::default();
    let (bytes, _) = log(viewed, 0, guard::limits().record_bytes.value)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for (index, line) in bytes[..end].split_inclusive(|byte| *byte == b'\n').enumerate() {
        whole.read(index, line);
    }
    whole.finish();
    let n = (whole.steps.len() * whole.curves.len()).div_ceil(most.max(1)).max(1);
    if n > 1 {
        whole.thin(n);
    }
    Ok((written(&whole, head(end as u64, false, false))?, n))
}

/// What a log says that cannot be read: nothing.
///
/// # Errors
/// None in practice: what is written is plain.
pub(crate) fn none() -> Result<Vec<u8>, ViewError> {
    written(&LogPart::default(), head(0, false, false))
}

fn head(next: u64, restart: bool, more: bool) -> Map<String, Value> {
    json!({"next": next, "restart": restart, "more": more}).as_object().cloned().unwrap_or_default()
}

fn written(part: &LogPart, head: Map<String, Value>) -> Result<Vec<u8>, ViewError> {
    part.json(head).map_err(|reason| ViewError::Absent(format!("{METRICS} cannot be shown: {reason}")))
}

/// One part of the log of at most `most` bytes.
fn read(viewed: &ViewedRun, from: u64, most: u64) -> Result<(LogPart, Map<String, Value>), ViewError> {
    let (bytes, start) = log(viewed, from, most)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut part = LogPart::default();
    let mut taken = 0;
    for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        part.read(index, line);
        taken += line.len();
        if part.steps.len() * part.curves.len() > NUMBERS {
            break;
        }
    }
    let is_full = bytes.len() as u64 == most;
    let mut next = start + taken as u64;
    let mut more = taken < whole || whole > 0 && is_full;
    if whole == 0
        && is_full
        && let Some(end) = line_end(viewed, start + most)?
    {
        // Without this the page would wait for the end of the line for ever, which lies behind the part.
        part.bad.add(0, &format!("it has more than {} MiB", most >> 20));
        (next, more) = (end, true);
    }
    part.finish();
    Ok((part, head(next, start != from, more)))
}

impl LogPart {
    /// Takes a line of the log as it stands there.
    fn read(&mut self, index: usize, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(row) => self.add(index, row),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(reason) => self.bad.add(index, &reason),
        }
    }
}

/// The bytes of the log, as [`bytes`]; none where there is no log.
fn log(viewed: &ViewedRun, from: u64, most: u64) -> Result<(Vec<u8>, u64), ViewError> {
    match viewed.inside(METRICS) {
        Ok(path) => bytes(&path, from, most).map_err(ViewError::at(&path)),
        Err(ViewError::Absent(_)) => Ok((vec![], 0)),
        Err(other) => Err(other),
    }
}

/// Where the line ends that the byte `from` lies in; `None` where it is not whole yet.
fn line_end(viewed: &ViewedRun, from: u64) -> Result<Option<u64>, ViewError> {
    let path = viewed.inside(METRICS)?;
    let search = || {
        let mut file = guard::file::open(&path)?;
        file.seek(SeekFrom::Start(from))?;
        let (mut at, mut block) = (from, vec![0; 1 << 20]);
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok(None);
            }
            if let Some(place) = block[..read].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(at + place as u64 + 1));
            }
            at += read as u64;
        }
    };
    search().map_err(ViewError::at(&path))
}

/// The bytes from `from` on, or from the beginning where the log was cut back or is another, and where they begin.
fn bytes(path: &std::path::Path, from: u64, most: u64) -> std::io::Result<(Vec<u8>, u64)> {
    let mut file = guard::file::open(path)?;
    let length = file.metadata()?.len();
    let mut start = from;
    if from > 0 {
        // What was read last ended with a line break.
        let mut before = [0];
        file.seek(SeekFrom::Start(from - 1))?;
        if from > length || file.read(&mut before)? != 1 || before != *b"\n" {
            start = 0;
        }
    }
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, start))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run(folder: &Path, log: &str) -> ViewedRun {
        std::fs::write(folder.join(METRICS), log).unwrap();
        ViewedRun::open(&[folder.to_path_buf()]).unwrap().remove(0)
    }

    /// The answers of all parts, as the page asks for them.
    fn parts(viewed: &ViewedRun, most: u64) -> Vec<Value> {
        let (mut from, mut found) = (0, vec![]);
        loop {
            let (part, head) = read(viewed, from, most).unwrap();
            let answer: Value = serde_json::from_slice(&written(&part, head).unwrap()).unwrap();
            let (next, more) = (answer["next"].as_u64().unwrap(), answer["more"] == true);
            assert!(!more || next > from, "the page would ask for the same for ever");
            found.push(answer);
            if !more {
                return found;
            }
            from = next;
        }
    }

    #[test]
    fn steps_that_are_written_again_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let line = |(step, reward, stage): (u64, &str, &str)| {
            format!("{{\"step\":{step},\"reward\":{reward},\"stage\":\"{stage}\"}}\n")
        };
        let log = [(1, "1", "a"), (2, "null", "a"), (3, "3", "b"), (4, "null", "b"), (2, "20", "a"), (3, "null", "c")];
        let viewed = run(folder.path(), &log.map(line).concat());
        let all = parts(&viewed, PART);
        assert_eq!(all[0]["steps"], json!([1, 2, 3]));
        assert_eq!(all[0]["columns"], json!({"reward": [1.0, 20.0, null]}));
        assert_eq!(all[0]["stages"], json!([[0, "a"], [2, "c"]]));
        assert_eq!(all[0]["not_finite"], json!({"reward": 1}));
        let (thin, _) = thinned(&viewed, 1000).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&thin).unwrap()["columns"], all[0]["columns"]);
    }

    /// The page stood still before it for ever, without a word.
    #[test]
    fn a_line_that_is_longer_than_an_answer_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{{\"step\":2,\"note\":\"{}\"}}\n", "x".repeat(300));
        let viewed = run(folder.path(), &format!("{{\"step\":1,\"a\":1}}\n{long}{{\"step\":3,\"a\":3}}\n"));
        let all = parts(&viewed, 100);
        let steps: Vec<&Value> = all.iter().flat_map(|part| part["steps"].as_array().unwrap()).collect();
        assert_eq!(steps, [&json!(1), &json!(3)]);
        assert_eq!(all.iter().map(|part| part["bad"]["count"].as_u64().unwrap()).sum::<u64>(), 1);
        // One whose end is not written yet is waited for.
        let viewed = run(folder.path(), &"x".repeat(300));
        let (part, head) = read(&viewed, 0, 100).unwrap();
        assert_eq!((part.bad.count, &head["next"], &head["more"]), (0, &json!(0), &json!(false)));
    }

    #[test]
    fn a_log_of_ever_other_metrics_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let log: String = (0..5_000).map(|step| format!("{{\"step\":{step},\"n{step}\":1}}\n")).collect();
        let viewed = run(folder.path(), &log);
        let all = parts(&viewed, PART);
        for part in &all {
            let (steps, names) = (part["steps"].as_array().unwrap().len(), part["columns"].as_object().unwrap().len());
            assert!(names <= MOST_METRICS && steps * names <= NUMBERS + MOST_METRICS, "{steps} steps, {names} metrics");
        }
        assert_eq!(all.iter().map(|part| part["steps"].as_array().unwrap().len()).sum::<usize>(), 5_000);
        assert!(all.len() > 1 && all[0]["full"] == true);
    }
}
