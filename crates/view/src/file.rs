//! The page and its data as one file, which opens without a server.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::ask::{self, Ask};
use crate::error::ViewError;
use crate::viewed::ViewedRun;
use crate::{curves, page, rollouts, settings};

/// Bytes of rollouts, validation responses and pictures in a file, shared out evenly over its runs.
const RESPONSES: usize = 24 << 20;
/// Numbers of all curves of a file, shared likewise: some 8 bytes each.
const NUMBERS: usize = 1 << 20;
/// Groups of a step in a file. The first of a step have their tokens.
const GROUPS: usize = 8;
/// Validation responses of a step in a file.
const VALIDATION_ROWS: usize = 64;
/// Rows that were set aside in a file.
const SET_ASIDE_ROWS: usize = 1000;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenReport {
    /// Length of the file.
    pub bytes: usize,
    /// What is in the runs and not in the file, one line each; the page says so, too.
    pub left_out: Vec<String>,
}

/// Writes the page of `runs` as one HTML file, with pictures and all: it opens from a disk, without a server or
/// network. The file is bounded (some 40 MB); what is left out then is named in it.
///
/// # Errors
/// As [`ViewedRun::open`]; runs that cannot be read; a file that cannot be written.
pub fn write_report(runs: &[PathBuf], out: &Path) -> Result<WrittenReport, ViewError> {
    let runs = ViewedRun::open(runs)?;
    let mut parts = FileParts::default();
    for (index, viewed) in runs.iter().enumerate() {
        parts.run(index, viewed, runs.len())?;
    }
    let mut about = ask::runs(&runs);
    about["left_out"] = json!(parts.left_out);
    parts.answer(Ask::Runs, &about.to_string());
    let (before, after) = page::around_data(&nonce());
    let text = before + &parts.html + &after;
    guard::file::replace(out, text.as_bytes()).map_err(|source| ViewError::Io { path: out.to_path_buf(), source })?;
    Ok(WrittenReport { bytes: text.len(), left_out: parts.left_out })
}

/// A number that nobody knows before the file is there, so that no text in it can carry it.
fn nonce() -> String {
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

/// The data of a file.
#[derive(Default)]
struct FileParts {
    html: String,
    pictures: BTreeSet<String>,
    left_out: Vec<String>,
}

impl FileParts {
    /// Adds JSON under the path that the page asks for it.
    fn answer(&mut self, ask: Ask, json: &str) {
        self.add(&ask.path(), json);
    }

    /// Adds a text that is no HTML whatever is in it: `<` can begin no tag.
    fn add(&mut self, path: &str, json: &str) {
        let safe = json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        self.html += &format!("<script type=\"application/json\" data-path=\"{path}\">{safe}</script>\n");
    }

    /// Adds a run out of `of`.
    fn run(&mut self, run: usize, viewed: &ViewedRun, of: usize) -> Result<(), ViewError> {
        let (curves, n) = match curves::thinned(viewed, NUMBERS / of) {
            Ok(thinned) => thinned,
            Err(reason) => {
                self.say_unread(viewed, "its curves", &reason);
                (curves::none()?, 1)
            }
        };
        if n > 1 {
            self.left_out.push(format!("{}: curves, of which one step in {n} is in this file", viewed.name()));
        }
        self.answer(Ask::Metrics { run, from: 0 }, &String::from_utf8_lossy(&curves));
        self.answer(Ask::Config { run }, &settings::read(viewed).to_string());
        match rollouts::set_aside(viewed, SET_ASIDE_ROWS) {
            Ok(rows) => {
                if rows["left_out"].as_u64().is_some_and(|n| n > 0) {
                    self.left_out.push(format!("{}: {} rows that were set aside", viewed.name(), rows["left_out"]));
                }
                self.answer(Ask::SetAside { run }, &rows.to_string());
            }
            Err(reason) => self.say_unread(viewed, "the rows that were set aside", &reason),
        }
        let logged = rollouts::steps(viewed);
        let until = self.html.len() + RESPONSES / of;
        let mut kept = json!({"tokens": logged.tokens});
        kept["validation"] = self.validation(run, viewed, &logged.validation, self.html.len() + RESPONSES / of / 4);
        kept["training"] = self.training(run, viewed, &logged, until);
        self.answer(Ask::Steps { run }, &kept.to_string());
        Ok(())
    }

    fn validation(&mut self, run: usize, viewed: &ViewedRun, steps: &[u64], until: usize) -> Value {
        let mut kept = BTreeSet::new();
        for step in spread(steps) {
            let rows = match rollouts::validation(viewed, step, VALIDATION_ROWS) {
                Ok(rows) => rows.to_string(),
                Err(reason) => {
                    self.say_unread(viewed, &format!("the validation after step {step}"), &reason);
                    continue;
                }
            };
            if self.html.len() + rows.len() > until {
                break;
            }
            self.answer(Ask::Validation { run, step }, &rows);
            kept.insert(step);
        }
        self.say_left_out(viewed, "validations", steps.len(), kept.len());
        json!(kept)
    }

    /// Adds the first groups of steps, as many as the room allows: the last step and the first, then those between.
    fn training(&mut self, run: usize, viewed: &ViewedRun, logged: &rollouts::LoggedSteps, until: usize) -> Value {
        let with: Vec<u64> = logged.training.iter().copied().filter(|step| logged.tokens.contains(step)).collect();
        let without = logged.training.iter().copied().filter(|step| !logged.tokens.contains(step)).collect::<Vec<_>>();
        let mut kept = BTreeSet::new();
        let mut fewer = false;
        for step in spread(&with).into_iter().chain(spread(&without)) {
            let before = (self.html.len(), self.pictures.clone());
            match self.step(run, viewed, step, until, kept.is_empty()) {
                Ok(Some(left_out)) => {
                    fewer |= left_out > 0;
                    kept.insert(step);
                }
                Ok(None) => {
                    self.html.truncate(before.0);
                    self.pictures = before.1;
                    break;
                }
                Err(reason) => {
                    self.html.truncate(before.0);
                    self.pictures = before.1;
                    self.say_unread(viewed, &format!("the responses of step {step}"), &reason);
                }
            }
        }
        self.say_left_out(viewed, "steps with responses", logged.training.len(), kept.len());
        if fewer {
            self.left_out.push(format!("{}: groups after the first {GROUPS} of a step", viewed.name()));
        }
        json!(kept)
    }

    /// Adds the first groups of a step, and returns how many are left out; `None` where there is no room for them. The
    /// `first` step has as many groups as there is room for.
    fn step(
        &mut self,
        run: usize,
        viewed: &ViewedRun,
        step: u64,
        until: usize,
        first: bool,
    ) -> Result<Option<u64>, ViewError> {
        let mut list = rollouts::list(viewed, step, GROUPS)?;
        let groups = list["groups"].as_array().map_or(0, Vec::len);
        let mut fitted = 0;
        while fitted < groups {
            let before = (self.html.len(), self.pictures.clone());
            let whole = rollouts::group(viewed, step, fitted)?;
            self.pictures(run, viewed, &whole);
            self.answer(Ask::Group { run, step, group: fitted }, &whole.to_string());
            if self.html.len() > until {
                self.html.truncate(before.0);
                self.pictures = before.1;
                break;
            }
            fitted += 1;
        }
        if fitted < groups {
            if !first || fitted == 0 {
                return Ok(None);
            }
            list = rollouts::list(viewed, step, fitted)?;
        }
        self.answer(Ask::Rollouts { run, step }, &list.to_string());
        Ok(list["left_out"].as_u64())
    }

    /// Adds the pictures of a group, each once; one that cannot be read is missing on the page, which says so.
    fn pictures(&mut self, run: usize, viewed: &ViewedRun, group: &Value) {
        for name in rollouts::pictures(group) {
            let path = format!("api/runs/{run}/pictures/{name}");
            if let Ok(bytes) = viewed.picture(&name)
                && self.pictures.insert(path.clone())
            {
                self.add(&path, &json!(STANDARD.encode(bytes)).to_string());
            }
        }
    }

    /// What cannot be read costs itself alone: everything else of the runs is in the file.
    fn say_unread(&mut self, viewed: &ViewedRun, what: &str, reason: &ViewError) {
        self.left_out.push(format!("{}: {what}, which cannot be read: {reason}", viewed.name()));
    }

    fn say_left_out(&mut self, viewed: &ViewedRun, what: &str, all: usize, kept: usize) {
        if kept < all {
            self.left_out.push(format!("{}: {} of {all} {what}", viewed.name(), all - kept));
        }
    }
}

/// The last, the first, then what halves the gaps, so that however many are taken lie evenly.
fn spread(steps: &[u64]) -> Vec<u64> {
    let Some(last) = steps.len().checked_sub(1) else { return vec![] };
    let mut order = vec![last];
    let mut seen = BTreeSet::from([last]);
    let mut parts = 1;
    while order.len() < steps.len() {
        for part in 0..=parts {
            let at = last * part / parts;
            if seen.insert(at) {
                order.push(at);
            }
        }
        parts *= 2;
    }
    order.into_iter().map(|at| steps[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread() {
        assert_eq!(spread(&[]), Vec::<u64>::new());
        assert_eq!(spread(&[7]), [7]);
        assert_eq!(spread(&[1, 2, 3, 4, 5]), [5, 1, 3, 2, 4]);
        let all: Vec<u64> = (0..1000).collect();
        let mut some = spread(&all);
        some.sort_unstable();
        assert_eq!(some, all);
    }

    #[test]
    fn hostile_text_closes_no_script() {
        let mut parts = FileParts::default();
        parts.add("api/x", &json!("</script><script>alert(1)</script><!--\u{2028}").to_string());
        assert_eq!(parts.html.matches('<').count(), 2, "{}", parts.html);
        assert!(!parts.html.contains('\u{2028}'));
    }

    /// One file that could not be read cost the whole page.
    #[test]
    fn what_cannot_be_read_costs_itself_alone() {
        let place = tempfile::tempdir().unwrap();
        let (root, out) = (place.path().join("run"), place.path().join("page.html"));
        for folder in ["rollouts", "rollouts/step_2.jsonl", "rollouts/validation_step_1.jsonl", "set_aside.jsonl"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("rollouts/step_1.jsonl"), "{\"id\":1,\"response\":\"here it is\"}\n").unwrap();
        std::fs::write(root.join("config.toml"), b"\xff\xfe").unwrap();
        std::fs::create_dir(root.join("metrics.jsonl")).unwrap();
        let report = write_report(&[root], &out).unwrap();
        let page = std::fs::read_to_string(&out).unwrap();
        assert!(page.contains("here it is") && page.contains("config.toml cannot be read"));
        for what in ["curves", "set aside", "validation after step 1", "responses of step 2"] {
            let is_said = report.left_out.iter().any(|line| line.contains(what) && line.contains("cannot be read"));
            assert!(is_said, "{what}: {:?}", report.left_out);
        }
    }

    #[test]
    fn a_step_that_is_too_large_has_the_groups_that_fit() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("rollouts")).unwrap();
        let row = |id: usize| format!("{{\"id\":{id},\"response\":\"{}\"}}\n", "x".repeat(1000));
        std::fs::write(place.path().join("rollouts/step_1.jsonl"), (0..4).map(row).collect::<String>()).unwrap();
        let viewed = ViewedRun::open(&[place.path().to_path_buf()]).unwrap().remove(0);
        for (room, expected) in [(100_000, Some(0)), (2_500, Some(2)), (500, None)] {
            let mut parts = FileParts::default();
            assert_eq!(parts.step(0, &viewed, 1, room, true).unwrap(), expected, "{room}");
        }
        assert_eq!(FileParts::default().step(0, &viewed, 1, 2_500, false).unwrap(), None);
    }

    #[test]
    fn a_script_of_the_page_ends_where_it_ends() {
        for asset in page::ASSETS {
            let text = asset.text.to_lowercase();
            assert!(!["</script", "</style", "<!--"].iter().any(|end| text.contains(end)), "{}", asset.name);
        }
    }
}
