//! How fast a device is: what `bench` measured, or a data sheet and shares of it that are assumed.

use serde::{Deserialize, Serialize};

use burn::tensor::DType;

/// What a device does at a time. What is fast at one is not at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkKind {
    /// The vision tower forward.
    Vision,
    /// The decoder forward over prompts.
    Prefill,
    /// One token of each row after the other.
    Decode,
    /// A forward pass over prompts and responses.
    Score,
    /// Forward and backward.
    Update,
    /// The optimizer's step.
    Optimizer,
    /// What ranks tell each other.
    Link,
}

impl WorkKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Vision, Self::Prefill, Self::Decode, Self::Score, Self::Update, Self::Optimizer, Self::Link];
}

/// The part of a device's peak that is reached: expected, and the range that is to be reckoned with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reached {
    pub low: f64,
    pub expected: f64,
    pub high: f64,
}

/// A device by its data sheet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSheet {
    /// As it is named on a command line.
    pub key: &'static str,
    /// What a driver calls it has these words.
    pub name: &'static str,
    /// Dense products in bf16, operations a second.
    flops: f64,
    /// Bytes of its memory a second.
    bytes: f64,
    /// Bytes a second each way to another device of its machine.
    link: f64,
}

/// Devices whose data sheets are known (NVIDIA's, dense bf16 with f32 sums, SXM where there is one). Links: NVLink each
/// way, PCIe 4.0 x16 where there is none.
pub const DATA_SHEETS: [DataSheet; 8] = [
    DataSheet { key: "h200", name: "H200", flops: 989e12, bytes: 4.8e12, link: 450e9 },
    DataSheet { key: "h100", name: "H100", flops: 989e12, bytes: 3.35e12, link: 450e9 },
    DataSheet { key: "h800", name: "H800", flops: 989e12, bytes: 3.35e12, link: 200e9 },
    DataSheet { key: "a100", name: "A100", flops: 312e12, bytes: 2.039e12, link: 300e9 },
    DataSheet { key: "l40s", name: "L40S", flops: 362e12, bytes: 864e9, link: 32e9 },
    DataSheet { key: "a40", name: "A40", flops: 150e12, bytes: 696e9, link: 32e9 },
    DataSheet { key: "rtx4090", name: "RTX 4090", flops: 165e12, bytes: 1.008e12, link: 32e9 },
    DataSheet { key: "rtx3090", name: "RTX 3090", flops: 71e12, bytes: 936e9, link: 32e9 },
];

/// Words in a driver's name for a card that is slower than the one whose name it bears.
const SLOWER: [&str; 6] = ["pcie", "nvl", "laptop", "d", "max", "mig"];

/// Bytes a second and device between machines: 400 Gbit/s each. Assumed.
const NETWORK: f64 = 50e9;

/// Seconds of the host for a launch. Assumed.
const LAUNCH: f64 = 5e-6;

/// Share of the peak that each kind of work reaches. Assumed, none of it was measured on a GPU: torchtitan reports 33
/// to 39% for training on an H100; the low ends are products by kernels that do not reach the card's best
/// (docs/performance.md).
fn assumed(kind: WorkKind) -> Reached {
    let [low, expected, high] = match kind {
        WorkKind::Vision | WorkKind::Prefill | WorkKind::Score => [0.15, 0.35, 0.45],
        WorkKind::Decode => [0.4, 0.6, 0.8],
        WorkKind::Update => [0.15, 0.3, 0.4],
        WorkKind::Optimizer => [0.4, 0.6, 0.8],
        WorkKind::Link => [0.4, 0.7, 0.9],
    };
    Reached { low, expected, high }
}

impl DataSheet {
    /// By its key, or by the name that a driver gives: its words have to be among those, so that an RTX A4000 is no
    /// A40. A card of that name which is sold slower, for PCIe or laptops, has another data sheet and is not found.
    pub fn find(name: &str) -> Option<&'static Self> {
        let words = |text: &str| -> Vec<String> {
            let text = text.to_ascii_lowercase();
            let all = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            all.map(str::to_owned).collect()
        };
        let given = words(name);
        if given.iter().any(|word| SLOWER.contains(&word.as_str())) {
            return None;
        }
        let is_it = |sheet: &&Self| {
            let own = words(sheet.name);
            given == [sheet.key] || given.windows(own.len()).any(|some| some == own)
        };
        DATA_SHEETS.iter().find(is_it)
    }
}

/// One measurement: operations and bytes that were counted, and the seconds that they took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredWork {
    /// What was done.
    pub kind: WorkKind,
    /// Operations.
    pub flops: f64,
    /// Bytes that have to be read and written at least.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
}

/// What `bench step --json` writes of a step under `figures`: how fast this machine was, by kind of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFigures {
    /// The backend and its device.
    pub device: String,
    /// Number format of weights and activations: `f32`, `bf16`.
    pub dtype: String,
    /// Threads of the host.
    pub threads: usize,
    /// Parameters of the model.
    pub parameters: f64,
    /// Responses that were decoded together.
    pub rows: f64,
    /// Operations a second of a large product.
    pub flops_per_s: f64,
    /// Bytes a second of a copy.
    pub bytes_per_s: f64,
    /// What was measured.
    pub work: Vec<MeasuredWork>,
}

/// The factor by which a step may be faster or slower than its estimate from figures of the same machine: where they
/// are of about the run's own model and rows, and where they are of others. Measured on a CPU, see docs/performance.md.
const FIGURES_FACTORS: [f64; 2] = [1.6, 3.0];

/// How far figures may be from a run and still be its own: the sum of the logarithms of both ratios, parameters and
/// rows.
const NEAR: f64 = 1.0;

/// How fast a device does each kind of work.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSpeeds {
    /// Whose speeds these are, in words.
    pub source: String,
    /// The number format that they are of.
    pub dtype: DType,
    flops: f64,
    bytes: f64,
    link: f64,
    launch: f64,
    reached: [Reached; 7],
}

/// Seconds: expected, and from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seconds {
    /// Fast.
    pub least: f64,
    /// Expected.
    pub expected: f64,
    /// Slow.
    pub most: f64,
}

impl std::ops::Add for Seconds {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { least: self.least + other.least, expected: self.expected + other.expected, most: self.most + other.most }
    }
}

impl std::ops::Mul<f64> for Seconds {
    type Output = Self;
    fn mul(self, by: f64) -> Self {
        Self { least: self.least * by, expected: self.expected * by, most: self.most * by }
    }
}

/// What is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountedWork {
    /// What it is.
    pub kind: WorkKind,
    /// Operations.
    pub flops: f64,
    /// Bytes of its memory.
    pub bytes: f64,
    /// Bytes to ranks of the same machine.
    pub local: f64,
    /// Bytes to other machines.
    pub network: f64,
    /// Launches that nothing hides.
    pub launches: f64,
}

impl CountedWork {
    /// Of this kind, so far nothing.
    pub(crate) const fn none(kind: WorkKind) -> Self {
        Self { kind, flops: 0.0, bytes: 0.0, local: 0.0, network: 0.0, launches: 0.0 }
    }
}

impl DeviceSpeeds {
    /// By a data sheet, in bf16 or, with half of its operations, in tf32.
    pub fn of_sheet(sheet: &DataSheet, dtype: DType) -> Self {
        let flops = if dtype == DType::F32 { sheet.flops / 2.0 } else { sheet.flops };
        Self {
            source: format!(
                "the data sheet of an {} ({:.0} TFLOP/s, {:.0} GB/s), of which shares are assumed, and their range \
                 is that of the seconds; bench measures (--figures FILE)",
                sheet.name,
                flops / 1e12,
                sheet.bytes / 1e9
            ),
            dtype,
            flops,
            bytes: sheet.bytes,
            link: sheet.link,
            launch: LAUNCH,
            reached: WorkKind::ALL.map(assumed),
        }
    }

    /// By what `bench step --json` wrote: the lines whose model and rows are nearest to those of a run, and the median
    /// of what they reach of a large product and a copy on that machine.
    ///
    /// # Errors
    /// Lines that are none of bench's, in words.
    pub fn of_figures(text: &str, parameters: f64, rows: f64) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct BenchLine {
            figures: StepFigures,
        }
        let mut all: Vec<StepFigures> = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: BenchLine = serde_json::from_str(line).map_err(|error| {
                format!("line {}: {error}; figures are what `bench step --json` prints", number + 1)
            })?;
            let sane = |x: f64| x.is_finite() && x > 0.0;
            let StepFigures { parameters, rows, flops_per_s, bytes_per_s, .. } = line.figures;
            if ![parameters, rows, flops_per_s, bytes_per_s].into_iter().all(sane) {
                return Err(format!("line {}: a size or a speed is not above 0", number + 1));
            }
            all.push(line.figures);
        }
        let distance = |f: &StepFigures| (f.parameters / parameters).ln().abs() + (f.rows / rows).ln().abs();
        let nearest = all.iter().map(distance).min_by(f64::total_cmp).ok_or("there is no line in it")?;
        all.retain(|figures| distance(figures) <= nearest + 1e-9);
        let factor = FIGURES_FACTORS[usize::from(nearest > NEAR)];
        let of = |get: fn(&StepFigures) -> f64| median(all.iter().map(get).collect());
        let (flops, bytes) = (of(|f| f.flops_per_s), of(|f| f.bytes_per_s));
        let share = |kind: WorkKind| -> Option<f64> {
            let work = all.iter().flat_map(|f| &f.work).filter(|work| work.kind == kind && work.seconds > 0.0);
            let shares: Vec<f64> = work.map(|w| (w.flops / flops + w.bytes / bytes) / w.seconds).collect();
            let shares: Vec<f64> = shares.into_iter().filter(|share| *share > 0.0).collect();
            (!shares.is_empty()).then(|| median(shares))
        };
        let forward = share(WorkKind::Prefill).or(share(WorkKind::Score)).or(share(WorkKind::Update));
        let forward = forward.ok_or("no line has seconds of a forward pass")?;
        let reached = WorkKind::ALL.map(|kind| match kind {
            WorkKind::Link => assumed(kind),
            _ => {
                let expected = share(kind).unwrap_or(forward);
                Reached { low: expected / factor, expected, high: expected * factor }
            }
        });
        let first = &all[0];
        let far = if nearest <= NEAR { "" } else { ", which are not the run's: take figures of its model and rows" };
        let sheet = DataSheet::find(&first.device);
        Ok(Self {
            source: format!(
                "measured by bench on {} in {}, {} threads, with {:.2e} parameters and {:.0} rows{far}; within a factor \
                 of {factor} on a processor",
                first.device, first.dtype, first.threads, first.parameters, first.rows
            ),
            dtype: if first.dtype == "f32" { DType::F32 } else { DType::BF16 },
            flops,
            bytes,
            // Ranks of a processor exchange through its memory.
            link: sheet.map_or(bytes / 2.0, |sheet| sheet.link),
            launch: 0.0,
            reached,
        })
    }

    /// Seconds of what is asked.
    pub fn seconds(&self, work: &CountedWork) -> Seconds {
        let on_device = work.flops / self.flops + work.bytes / self.bytes;
        let sum = on_device + work.local / self.link + work.network / NETWORK;
        let launches = work.launches * self.launch;
        let Reached { low, expected, high } = self.reached[work.kind as usize];
        Seconds { least: sum / high + launches, expected: sum / expected + launches, most: sum / low + launches }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(parameters: f64, rows: f64, seconds: f64) -> String {
        let work = MeasuredWork { kind: WorkKind::Prefill, flops: 1e9, bytes: 0.0, seconds };
        let figures = StepFigures {
            device: "flex".into(),
            dtype: "f32".into(),
            threads: 2,
            parameters,
            rows,
            flops_per_s: 1e11,
            bytes_per_s: 1e10,
            work: vec![work],
        };
        serde_json::json!({ "engine": "visual-rl", "figures": figures }).to_string() + "\n"
    }

    fn prefill(flops: f64) -> CountedWork {
        CountedWork { flops, ..CountedWork::none(WorkKind::Prefill) }
    }

    #[test]
    fn cards_are_known_by_the_names_that_drivers_give() {
        for (name, key) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("h200", "h200"),
            ("rtx4090", "rtx4090"),
        ] {
            assert_eq!(DataSheet::find(name).map(|sheet| sheet.key), Some(key), "{name}");
        }
        for other in
            ["Tesla K80", "NVIDIA RTX A4000", "NVIDIA H20", "NVIDIA L40", "NVIDIA A100-PCIE-40GB", "NVIDIA H100 NVL"]
        {
            assert_eq!(DataSheet::find(other), None, "{other}");
        }
        assert_eq!(DataSheet::find("NVIDIA GeForce RTX 4090 Laptop GPU"), None);
        for sheet in DATA_SHEETS {
            assert_eq!(DataSheet::find(sheet.key).map(|found| found.key), Some(sheet.key));
        }
    }

    /// 1e9 operations took 0.02 s: half of the product's speed. Twice the work takes twice as long.
    #[test]
    fn figures_give_back_what_was_measured() {
        let speeds = DeviceSpeeds::of_figures(&figures(1e7, 16.0, 0.02), 1e7, 16.0).unwrap();
        let found = speeds.seconds(&prefill(2e9));
        assert!((found.expected - 0.04).abs() < 1e-12, "{found:?}");
        assert!((found.most - 0.04 * FIGURES_FACTORS[0]).abs() < 1e-12 && found.least < found.expected);
        // Of a model ten times as large the range is wider.
        let far = DeviceSpeeds::of_figures(&figures(1e7, 16.0, 0.02), 1e8, 16.0).unwrap();
        assert!((far.seconds(&prefill(2e9)).most - 0.04 * FIGURES_FACTORS[1]).abs() < 1e-12);
        assert!(far.source.contains("not the run's") && !speeds.source.contains("not the run's"));
    }

    #[test]
    fn the_nearest_lines_count_and_of_them_the_median() {
        let text =
            figures(1e6, 16.0, 9.0) + &figures(1e7, 16.0, 0.01) + &figures(1e7, 16.0, 0.02) + &figures(1e7, 16.0, 0.5);
        let speeds = DeviceSpeeds::of_figures(&text, 2e7, 8.0).unwrap();
        assert!((speeds.seconds(&prefill(1e9)).expected - 0.02).abs() < 1e-12);
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["", "{}", "{\"engine\": 1}", "no JSON", &figures(0.0, 1.0, 1.0)] {
            assert!(DeviceSpeeds::of_figures(text, 1e7, 1.0).is_err(), "{text}");
        }
    }
}
