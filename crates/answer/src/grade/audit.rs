//! `grade --audit`: where mathruler, math and multiple_choice disagree.

use std::path::PathBuf;
use std::process::ExitCode;

use rayon::prelude::*;

use crate::Scorer;
use crate::audit::{AuditLog, Compared};

use super::row::{GradedLine, LineKeys};
use super::{GradeArgs, GradeFailure, Lines, Sink, Totals};

/// Compares the graders on every line of a file, or of a run's rollouts.
pub(super) fn run(cli: &GradeArgs, path: &std::path::Path) -> Result<ExitCode, GradeFailure> {
    let reward = Scorer::new(&cli.config()?)?;
    let rollouts = rollouts(&cli.file)?;
    // A run's lines hold the answer that its rule found, and the truth as `answer`.
    let keys = match &rollouts {
        Some(_) => LineKeys {
            given: "extracted",
            response: "response",
            truth: "answer",
            length_needed: false,
            row_wanted: false,
        },
        None => LineKeys {
            given: &cli.given_key,
            response: &cli.response_key,
            truth: &cli.truth_key,
            length_needed: false,
            row_wanted: false,
        },
    };
    let failed = |e: std::io::Error| GradeFailure(2, format!("--audit {}: cannot be written: {e}", path.display()));
    let mut log = AuditLog::create(path).map_err(failed)?;
    let (mut totals, mut unanswered) = (Totals::default(), 0u64);
    for file in rollouts.as_deref().unwrap_or(std::slice::from_ref(&cli.file)) {
        let mut input = Lines::open(file)?;
        loop {
            let (lines, last) = input.chunk()?;
            let one = |line: &super::InputLine| compared(&line.bytes, &keys, &reward, rollouts.is_some());
            let found: Vec<_> = lines.par_iter().map(one).collect();
            for (line, found) in lines.iter().zip(found) {
                match found {
                    Ok(Some(compared)) => {
                        log.add(&compared).map_err(failed)?;
                        totals.graded += 1;
                    }
                    Ok(None) => unanswered += 1,
                    Err(problem) => totals.bad(&input.name, line.number, &problem),
                }
            }
            if last {
                break;
            }
        }
    }
    if totals.graded + totals.bad + unanswered == 0 {
        return Err(GradeFailure(2, format!("{}: no lines to compare", cli.file.display())));
    }
    let table = log.finish().map_err(failed)?;
    let mut output = Sink::open(None)?;
    output.line(table.trim_end())?;
    output.finish()?;
    if unanswered > 0 {
        eprintln!("{unanswered} responses without an answer are left out");
    }
    Ok(ExitCode::from(match (totals.graded + unanswered, totals.bad) {
        (_, 0) => 0,
        (0, _) => 2,
        _ => 1,
    }))
}

/// The files of a run's rollouts, by step, when a run folder is named.
fn rollouts(path: &std::path::Path) -> Result<Option<Vec<PathBuf>>, GradeFailure> {
    if !path.is_dir() {
        return Ok(None);
    }
    let folder = match path.join("rollouts") {
        inside if inside.is_dir() => inside,
        _ => path.to_path_buf(),
    };
    let fail = |reason: String| GradeFailure(2, format!("{}: {reason}", folder.display()));
    let entries = std::fs::read_dir(&folder).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort_by_key(|file| (file.as_os_str().len(), file.clone()));
    match files.is_empty() {
        true => Err(fail("holds no rollouts (step_N.jsonl); name a run folder or a file of JSON lines".into())),
        false => Ok(Some(files)),
    }
}

/// The answer of a line, compared; `None` where there is none.
fn compared(
    line: &Result<Vec<u8>, String>,
    keys: &LineKeys,
    reward: &Scorer,
    of_run: bool,
) -> Result<Option<Compared>, String> {
    let row = GradedLine::parse(line, keys)?;
    let fields = match &row.fields {
        Ok(fields) => fields,
        // `extracted` is null where the run found no answer.
        Err(_) if of_run => return Ok(None),
        Err(problem) => return Err(problem.clone()),
    };
    let request = fields.request();
    let given = match fields.extracted {
        true => Some(request.response.to_owned()),
        false => reward.answer(request.response),
    };
    Ok(given.map(|given| Compared::new(request.id.to_owned(), given, request.ground_truth.to_owned())))
}
