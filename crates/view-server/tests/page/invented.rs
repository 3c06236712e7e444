//! Runs that no training wrote: every value is made up, and the same each time.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{Rgb, RgbImage};
use run::layout::{CONFIG, METRICS, PICTURES, ROLLOUTS, RUN, SET_ASIDE, TOKENS};
use run::metrics::registry;
use serde_json::{Value, json};

/// Text that would be dangerous as HTML.
pub(crate) const HOSTILE: &str =
    "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script></script><!--\u{2028}{{7*7}}";
/// Bars of the picture: colour, name, height from 1 to 8.
const BARS: [([u8; 3], &str, u32); 4] = [
    ([220, 60, 50], "red", 7),
    ([50, 110, 220], "blue", 3),
    ([40, 160, 90], "green", 5),
    ([240, 170, 40], "yellow", 2),
];
/// Image tokens on a side of the picture.
const GRID: usize = 8;
const PICTURE: &str = "pictures/bars.png";

/// What a run is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invented {
    pub(crate) seed: u32,
    pub(crate) steps: u64,
    /// Metrics of its own under `mine/`, besides those of the registry.
    pub(crate) more_metrics: usize,
    /// Steps with responses.
    pub(crate) logged_steps: u64,
    pub(crate) beta: f64,
}

impl Default for Invented {
    fn default() -> Self {
        Self { seed: 1, steps: 120, more_metrics: 2, logged_steps: 6, beta: 0.5 }
    }
}

/// A number from 0 to 1 that looks like chance.
fn noise(seed: u32, at: u64) -> f64 {
    let mut x = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x = (x ^ (x >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 29)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Invented {
    /// Writes the run into a new folder.
    pub(crate) fn write(self, root: &Path) -> PathBuf {
        for folder in [ROLLOUTS, PICTURES, TOKENS] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join(CONFIG), self.config()).unwrap();
        std::fs::write(root.join(METRICS), self.metrics()).unwrap();
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"), "commit": "0123abc", "state": "finished", "wall_clock_s": 812.5, "backend": "flex",
            "device": "CPU", "host": "invented", "command": ["train", "algorithm.name=vgpo"], "seed": self.seed, "ranks": 1,
        });
        std::fs::write(root.join(RUN), about.to_string()).unwrap();
        bars().save(root.join(PICTURE)).unwrap();
        std::fs::write(
            root.join(SET_ASIDE),
            "{\"row\":3,\"id\":\"q-3\",\"reason\":\"pictures/3.png: it is no picture\"}\n",
        )
        .unwrap();
        for index in 1..=self.logged_steps {
            self.responses(root, index * self.steps / self.logged_steps);
        }
        for step in [0, self.steps] {
            std::fs::write(root.join(format!("{ROLLOUTS}/validation_step_{step}.jsonl")), self.validation(step))
                .unwrap();
        }
        root.to_path_buf()
    }

    fn config(self) -> String {
        format!(
            "# The algorithm.\n[algorithm]\n# Its name.\nname = \"vgpo\"\n# Strength of the shaping.\nbeta = {}\n\n\
             # The run.\n[trainer]\n# Seed of everything random.\nseed = {}\nlog_tokens = 2\n",
            self.beta, self.seed
        )
    }

    fn metrics(self) -> String {
        let plain = registry::metrics().filter(|metric| !metric.name.contains('{') && metric.unit != "text");
        let mut names: Vec<String> = plain.map(|metric| metric.name.to_owned()).filter(|name| name != "step").collect();
        names.extend((0..self.more_metrics).map(|i| format!("mine/measure_{i:03}")));
        let mut out = String::new();
        for step in 1..=self.steps {
            let share = step as f64 / self.steps as f64;
            let _ = write!(out, "{{\"step\":{step},\"stage\":\"{}\"", if share < 0.25 { "warm_start" } else { "vgpo" });
            for (index, name) in names.iter().enumerate() {
                let at = index as u64;
                let wobble = 0.08 * (noise(self.seed, step * 1009 + at) - 0.5);
                let speed = 3.0 + 4.0 * noise(self.seed, at);
                let rise = 1.0 - (-speed * share).exp();
                let falls =
                    ["loss", "norm", "entropy", "kl", "/min", "clip", "zero"].iter().any(|part| name.contains(part));
                let level = 0.65 + 0.25 * self.beta;
                let value = match name.starts_with("val/") && !step.is_multiple_of(10) {
                    true => continue,
                    false if falls => (1.0 - rise) * 2.0 + wobble + 0.05,
                    false => 0.1 + level * rise + wobble,
                };
                let _ = write!(out, ",\"{name}\":{value}");
            }
            out += "}\n";
        }
        out
    }

    /// A step's responses: a group that is right and wrong, one that is flat, one of hostile text.
    fn responses(self, root: &Path, step: u64) {
        let (mut rollouts, mut tokens) = (String::new(), String::new());
        for (group, (question, truth)) in [
            ("How much higher is the red bar than the blue one?", "4"),
            ("Which part of 8 does the green bar reach, as a fraction? 绿色的条有多高？", "5/8"),
            (HOSTILE, "1"),
        ]
        .into_iter()
        .enumerate()
        {
            for member in 0..4usize {
                let line = group * 4 + member;
                let answer = answer_of(group, member);
                let pieces = pieces(group, member, answer);
                let right = group == 0 && member % 2 == 0;
                let cut = group == 1 && member == 3;
                let row = json!({
                    "id": format!("bars-{group}"), "row": group, "task": "bars", "problem": question, "answer": truth,
                    "response": pieces.concat(), "extracted": if cut { Value::Null } else { json!(answer) },
                    "reward": if right { 1.0 } else { 0.1 }, "accuracy": f64::from(u8::from(right)), "format": 1.0,
                    "tokens": pieces.len(), "finish": if cut { "length" } else { "stop" },
                    "advantage_mean": if group > 0 { 0.0 } else if right { 0.87 } else { -0.87 }, "reward/overlong": 0.0,
                });
                rollouts += &format!("{row}\n");
                if group < 2 {
                    tokens += &format!("{}\n", self.stream(line, group, question, &pieces, right, step));
                }
            }
        }
        std::fs::write(root.join(format!("{ROLLOUTS}/step_{step}.jsonl")), rollouts).unwrap();
        std::fs::write(root.join(format!("{TOKENS}/step_{step}.jsonl")), tokens).unwrap();
    }

    fn stream(self, line: usize, group: usize, question: &str, pieces: &[String], right: bool, step: u64) -> Value {
        let looks: Vec<Option<usize>> = pieces.iter().map(|piece| looks_at(piece)).collect();
        let chance = |token: usize, salt: u64| noise(self.seed, step * 7919 + (line * 131 + token) as u64 * 17 + salt);
        let each = |value: &dyn Fn(usize) -> f64| (0..pieces.len()).map(value).collect::<Vec<f64>>();
        let focus = each(&|t| if looks[t].is_some() { 0.55 + 0.4 * chance(t, 1) } else { 0.12 + 0.2 * chance(t, 1) });
        let factor = each(&|t| 0.6 + 0.9 * focus[t]);
        let sign = if group > 0 {
            0.0
        } else if right {
            0.87
        } else {
            -0.87
        };
        let mut heat = Vec::new();
        for (t, look) in looks.iter().enumerate() {
            for cell in 0..GRID * GRID {
                heat.push(
                    ((*look).map_or(0.15, |bar| over(cell, bar)) * 200.0 + 55.0 * chance(t * 64 + cell, 2)) as u8,
                );
            }
        }
        json!({
            "line": line, "group": group, "prompt": format!("<|im_start|>user\n<image>{question}<|im_end|>"), "pictures": [PICTURE],
            "grids": [[GRID, GRID]], "ids": (0..pieces.len()).map(|t| 1000 + 37 * t).collect::<Vec<_>>(), "pieces": pieces,
            "values": {
                "log_prob": each(&|t| -2.0 * chance(t, 3).powi(3)), "visual_focus": focus, "entropy": each(&|t| 1.4 * chance(t, 4).powi(2)),
                "advantage": each(&|t| sign * factor[t]), "factor": factor, "dependency": each(&|t| focus[t] * 0.8 * chance(t, 5)),
            },
            "heat": {"low": -0.1, "high": 0.6, "data": STANDARD.encode(heat)},
        })
    }

    fn validation(self, step: u64) -> String {
        let row = |i: u64| {
            let right = noise(7, i) < if step == 0 { 0.3 } else { 0.8 };
            json!({
                "id": format!("val-{i}"), "problem": format!("How high is bar {i}?"), "answer": "7",
                "response": if right { "It reaches 7. \\boxed{7}" } else { HOSTILE }, "accuracy": f64::from(u8::from(right)),
            })
        };
        (0..20).map(|i| format!("{}\n", row(i))).collect()
    }
}

fn bars() -> RgbImage {
    RgbImage::from_fn(224, 224, |x, y| {
        let bar = BARS[(x / 56) as usize];
        let inside = (10..46).contains(&(x % 56)) && 224 - y <= bar.2 * 28 - 8;
        match inside {
            true => Rgb(bar.0),
            false if y % 28 == 27 => Rgb([225, 228, 234]),
            false => Rgb([252, 252, 253]),
        }
    })
}

/// The bar that a token speaks of.
fn looks_at(piece: &str) -> Option<usize> {
    let heights = ["7", "3", "5", "2"].map(|height| format!(" {height}"));
    let named = BARS.iter().position(|bar| piece.trim() == bar.1);
    named.or_else(|| heights.iter().position(|height| piece == height))
}

/// How much a cell of the grid is over a bar.
fn over(cell: usize, bar: usize) -> f64 {
    let (row, column) = (cell / GRID, cell % GRID);
    match (column / 2 == bar, GRID - row <= BARS[bar].2 as usize) {
        (true, true) => 1.0,
        (true, false) => 0.15,
        _ => 0.05,
    }
}

fn answer_of(group: usize, member: usize) -> &'static str {
    match (group, member) {
        (0, 0 | 2) => "4",
        (0, 1) => "10",
        (0, _) => "3",
        // The graders disagree on a fraction that is not reduced.
        (1, 1) => "10/16",
        (1, _) => "0.5",
        _ => "2",
    }
}

fn pieces(group: usize, member: usize, answer: &str) -> Vec<String> {
    let text = match (group, member) {
        (0, 1) => "<think>|The| red| bar| and| the| blue| bar| together| reach| 7| +| 3| =| 10|.|</think>|\n",
        (0, 3) => "<think>|I| guess| that| it| is| 3|.|</think>|\n",
        (0, _) => {
            "<think>|The| red| bar| reaches| 7|,| the| blue| bar| reaches| 3|.|\n|So| it| is| 7| −| 3| =| 4| higher|.|</think>|\n"
        }
        // A token that ends inside a character has no text of its own.
        (1, 2) => "<think>|绿|色|的| green| bar| stands| at| 90||°|,| √|25| =| 5|.|</think>|\n",
        (1, _) => "<think>|The| green| bar| reaches| 5| of| 8| lines|.|</think>|\n",
        _ => "<think>|<img src=x onerror=\"window.harmed=1\">|<script>|window.harmed=1|</script>|</think>|\n",
    };
    let mut pieces: Vec<String> = text.split('|').map(str::to_owned).collect();
    if (group, member) != (1, 3) {
        pieces.extend(["\\boxed{".to_owned(), answer.to_owned(), "}".to_owned()]);
    }
    pieces
}
