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

/// One metric over the steps of a part: `None` where a line does not have it, or not as a finite number.
#[derive(Default)]
struct Curve {
    values: Vec<Option<f32>>,
    /// Lines that say `null`, which a number that is not finite became.
    not_finite: usize,
}

/// What was read.
#[derive(Default)]
struct LogPart {
    steps: Vec<Value>,
    names: Vec<String>,
    curves: Vec<Curve>,
    places: HashMap<String, usize>,
    /// From which line on a stage goes.
    stages: Vec<(usize, String)>,
    bad: BadLines,
}

impl LogPart {
    /// Takes a line of the log.
    fn add(&mut self, line: usize, row: Map<String, Value>) {
        let Some(step) = row.get("step").filter(|step| step.is_u64()).cloned() else {
            return self.bad.add(line, &"it has no \"step\"");
        };
        let at = self.steps.len();
        self.steps.push(step);
        for (key, value) in row {
            let number = match &value {
                Value::Number(number) => {
                    number.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
                }
                Value::Null => None,
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
            let place = *self.places.entry(key).or_insert_with_key(|key| {
                self.names.push(key.clone());
                self.curves.push(Curve::default());
                self.curves.len() - 1
            });
            let curve = &mut self.curves[place];
            curve.values.resize(at, None);
            curve.values.push(number);
            curve.not_finite += usize::from(number.is_none());
        }
    }

    /// Leaves every `n`th step, the last among them.
    fn thin(&mut self, n: usize) {
        let last = self.steps.len().saturating_sub(1);
        let kept = |at: usize| (last - at).is_multiple_of(n);
        for curve in &mut self.curves {
            curve.values.resize(last + 1, None);
            curve.values = curve.values.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, v)| *v).collect();
        }
        // A stage begins with the first step that is kept of it.
        for (at, _) in &mut self.stages {
            *at = (0..*at).filter(|at| kept(*at)).count();
        }
        self.steps = self.steps.iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, v)| v.clone()).collect();
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
        let pairs = self.names.iter().zip(&self.curves).filter(|(_, curve)| curve.not_finite > 0);
        field("not_finite", &pairs.map(|(name, curve)| (name.clone(), json!(curve.not_finite))).collect())?;
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
///  more now, "bad", "stages": [[index, name]], "not_finite": {name: lines}, "steps": [..], "columns": {name: [..]}}
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
    let (mut part, head) = read(viewed, 0, guard::limits().record_bytes.value)?;
    let n = (part.steps.len() * part.curves.len()).div_ceil(most.max(1)).max(1);
    if n > 1 {
        part.thin(n);
    }
    Ok((written(&part, head)?, n))
}

fn written(part: &LogPart, head: Map<String, Value>) -> Result<Vec<u8>, ViewError> {
    part.json(head).map_err(|reason| ViewError::Absent(format!("{METRICS} cannot be shown: {reason}")))
}

fn read(viewed: &ViewedRun, from: u64, most: u64) -> Result<(LogPart, Map<String, Value>), ViewError> {
    let (bytes, start) = match viewed.inside(METRICS) {
        Ok(path) => bytes(&path, from, most).map_err(ViewError::at(&path))?,
        Err(ViewError::Absent(_)) => (vec![], 0),
        Err(other) => return Err(other),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut part = LogPart::default();
    for (index, line) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice(line) {
            Ok(row) => part.add(index, row),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(reason) => part.bad.add(index, &reason),
        }
    }
    let count = part.steps.len();
    part.curves.iter_mut().for_each(|curve| curve.values.resize(count, None));
    let more = whole > 0 && bytes.len() as u64 == most;
    let head = json!({"next": start + whole as u64, "restart": start != from, "more": more});
    Ok((part, head.as_object().cloned().unwrap_or_default()))
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
