//! The table as Markdown, which is what the terminal shows, and as CSV. The JSON form is [`Results`] itself.

use std::fmt::Write;

use crate::benchmark::Benchmark;
use crate::published::PUBLISHED;
use crate::results::{BenchmarkResult, Results};
use crate::stats::Accuracy;

/// Rows that are set aside are named one by one up to this many for each benchmark; results.json has all of them.
const NAMED: usize = 5;

/// A Markdown table with columns of even width, numbers to the right.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |k: usize| {
        let cells = rows.iter().map(|row| row[k].chars().count());
        cells.chain([header[k].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &[&str]| {
        for (k, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let _ = match k {
                0 => write!(out, "| {cell}{pad} "),
                _ => write!(out, "| {pad}{cell} "),
            };
        }
        out.push_str("|\n");
    };
    line(header);
    let rule: Vec<String> =
        widths.iter().enumerate().map(|(k, w)| if k == 0 { "-".repeat(*w) } else { "-".repeat(w - 1) + ":" }).collect();
    line(&rule.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}

fn cells(name: String, score: &Accuracy, of: Option<&BenchmarkResult>) -> Vec<String> {
    let or = |value: Option<f64>, digits: usize, factor: f64| {
        value.map_or("-".into(), |v| format!("{:.digits$}", v * factor))
    };
    vec![
        // A bar would end the cell.
        name.replace('|', "/").replace('\n', " "),
        score.questions.to_string(),
        score.answers.to_string(),
        or(score.accuracy, 1, 100.0),
        or(score.standard_error, 1, 100.0),
        of.map_or(String::new(), |b| or(b.mean_tokens, 0, 1.0)),
        of.map_or(String::new(), |b| or(b.cut_off, 1, 100.0)),
        of.map_or(String::new(), |b| or(b.without_answer, 1, 100.0)),
    ]
}

/// The whole report.
pub fn markdown(results: &Results) -> String {
    let mut out = String::new();
    let mut rows = Vec::new();
    for b in &results.benchmarks {
        rows.push(cells(b.title.clone(), &b.score, Some(b)));
        for group in &b.groups {
            rows.push(cells(format!("- {} {}", group.column, group.value), &group.score, None));
        }
        if let Some(worst) = &b.worst_case {
            rows.push(cells(format!("- worst case of {} variants", worst.variants), &worst.score, None));
        }
    }
    out += &table(
        &["benchmark", "questions", "answers", "accuracy %", "± SE", "tokens", "cut off %", "no answer %"],
        &rows,
    );
    for b in &results.benchmarks {
        if let Some(w) = &b.wemath {
            let percent = |v: f64| format!("{:.1}", 100.0 * v);
            let _ = write!(out, "\n{}: {} composite problems", b.title, w.problems);
            if w.incomplete > 0 {
                let _ = write!(out, " ({} without all of their steps left out)", w.incomplete);
            }
            out.push_str("\n\n");
            let row = |name: &str, score, mastery, rote| {
                let ig = w.inadequate_generalization;
                let mut row = vec![name.to_owned()];
                row.extend([score, mastery, ig, w.insufficient_knowledge, rote].map(percent));
                row
            };
            out += &table(
                &["We-Math %", "score", "mastery", "inadequate gen.", "insufficient kn.", "rote mem."],
                &[
                    row("strict", w.score_strict, w.complete_mastery_strict, w.rote_memorization_strict),
                    row("loose", w.score_loose, w.complete_mastery_loose, w.rote_memorization_loose),
                ],
            );
        }
    }
    if !results.averages.is_empty() {
        out.push('\n');
        let ours = |title: &str| match results.averages.iter().find(|a| a.title == title) {
            Some(a) => {
                Accuracy { accuracy: a.accuracy, standard_error: a.standard_error, ..Accuracy::default() }.percent()
            }
            None => "-".into(),
        };
        let mut rows = vec![vec!["this run".to_owned(), ours("Avg-Math"), ours("Avg-Vision")]];
        rows.extend(PUBLISHED.iter().map(|p| {
            vec![format!("published: {} {}", p.model, p.method), format!("{:.1}", p.math), format!("{:.1}", p.vision)]
        }));
        out += &table(&["average %", "Avg-Math", "Avg-Vision"], &rows);
    }
    out += &notes(results);
    out
}

fn notes(results: &Results) -> String {
    let mut lines = Vec::new();
    for b in &results.benchmarks {
        for note in &b.notes {
            lines.push(format!("{}: {note}", b.title));
        }
        if let Some(worst) = b.worst_case.as_ref().filter(|w| w.incomplete > 0) {
            lines.push(format!(
                "{}: {} questions without all of their {} variants are left out of the worst case",
                b.title, worst.incomplete, worst.variants
            ));
        }
        if b.other_rows > 0 {
            lines.push(format!("{}: {} rows of the file are not part of it", b.title, b.other_rows));
        }
        if b.set_aside.is_empty() {
            continue;
        }
        lines.push(format!("{}: {} set aside", b.title, b.set_aside.len()));
        lines.extend(b.set_aside.iter().take(NAMED).map(|s| format!("  - {}: {}", s.place, s.reason)));
        if b.set_aside.len() > NAMED {
            lines.push(format!("  - and {} more", b.set_aside.len() - NAMED));
        }
    }
    for a in results.averages.iter().filter(|a| !a.missing.is_empty()) {
        lines.push(format!("{} needs {}", a.title, a.missing.join(", ")));
    }
    if !results.averages.is_empty() {
        lines.push(orientation(results));
    }
    if lines.is_empty() {
        return String::new();
    }
    let line = |l: String| if l.starts_with("  -") { l + "\n" } else { format!("- {l}\n") };
    "\n".to_owned() + &lines.into_iter().map(line).collect::<String>()
}

/// What the published rows are worth beside these: they were measured on PAPO-Eval's files.
fn orientation(results: &Results) -> String {
    let other = |b: &BenchmarkResult| {
        let there = Benchmark::find(b.benchmark).ok()?.published_rows.filter(|&rows| rows != b.rows())?;
        Some(format!("{} has {} rows here and {there} there", b.title, b.rows()))
    };
    let others: Vec<String> = results.benchmarks.iter().filter_map(other).collect();
    let mut line = "the published rows were measured on PAPO-Eval's filtered files, with one greedy answer per question; beside other \
                    files they are orientation"
        .to_owned();
    if !others.is_empty() {
        line += &format!(": {}", others.join(", "));
    }
    line
}

/// One line per benchmark, group, score and average; shares from 0 to 1.
pub fn csv(results: &Results) -> String {
    let mut out = String::from("benchmark,column,value,questions,answers,accuracy,standard_error\n");
    let mut line = |fields: [&str; 3], score: &Accuracy| {
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        let fields: Vec<String> = fields.iter().map(|f| quoted(f)).collect();
        let _ = writeln!(
            out,
            "{},{},{},{},{}",
            fields.join(","),
            score.questions,
            score.answers,
            number(score.accuracy),
            number(score.standard_error)
        );
    };
    for b in &results.benchmarks {
        line([&b.name, "", ""], &b.score);
        for g in &b.groups {
            line([&b.name, &g.column, &g.value], &g.score);
        }
        if let Some(worst) = &b.worst_case {
            line([&b.name, "worst_case", &worst.variants.to_string()], &worst.score);
        }
        if let Some(w) = &b.wemath {
            for (name, value) in [
                ("score_strict", w.score_strict),
                ("score_loose", w.score_loose),
                ("complete_mastery_strict", w.complete_mastery_strict),
                ("complete_mastery_loose", w.complete_mastery_loose),
                ("inadequate_generalization", w.inadequate_generalization),
                ("insufficient_knowledge", w.insufficient_knowledge),
                ("rote_memorization_strict", w.rote_memorization_strict),
                ("rote_memorization_loose", w.rote_memorization_loose),
            ] {
                let score = Accuracy { questions: w.problems, accuracy: Some(value), ..Accuracy::default() };
                line([&b.name, "wemath", name], &score);
            }
        }
    }
    for a in &results.averages {
        let score = Accuracy { accuracy: a.accuracy, standard_error: a.standard_error, ..Accuracy::default() };
        line([a.title, "", ""], &score);
    }
    out
}

fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::record::Record;
    use crate::results::UnusedRows;

    fn results() -> Results {
        let record = |row: usize| Record {
            row,
            accuracy: f64::from(u8::from(row.is_multiple_of(2))),
            tokens: Some(10),
            extracted: Some("1".into()),
            columns: [("task".to_owned(), if row < 2 { "a|b".to_owned() } else { "c,\"d\"".to_owned() })].into(),
            ..Record::default()
        };
        let records: Vec<Record> = (0..4).map(record).collect();
        let mut geo = BenchmarkResult::new("geometry3k", Benchmark::find("geo3k").unwrap(), &records);
        geo.set_aside =
            (0..7).map(|k| UnusedRows { place: format!("row {k}"), reason: "the answer is empty".into() }).collect();
        Results::new(Map::new(), vec![geo])
    }

    #[test]
    fn the_table_has_even_columns_and_a_footer() {
        let text = markdown(&results());
        let first: Vec<&str> = text.lines().take(5).collect();
        assert_eq!(
            first,
            [
                "| benchmark    | questions | answers | accuracy % | ± SE | tokens | cut off % | no answer % |",
                "| ------------ | --------: | ------: | ---------: | ---: | -----: | --------: | ----------: |",
                "| Geometry3K   |         4 |       4 |       50.0 | 28.9 |     10 |         - |         0.0 |",
                "| - task a/b   |         2 |       2 |       50.0 | 50.0 |        |           |             |",
                "| - task c,\"d\" |         2 |       2 |       50.0 | 50.0 |        |           |             |",
            ]
        );
        assert!(text.contains("| published: 7B VGPO   |     66.6 |       63.3 |"), "{text}");
        assert!(text.contains("- Geometry3K: 7 set aside\n  - row 0: the answer is empty\n"), "{text}");
        assert!(text.contains("  - and 2 more\n") && text.contains("- Avg-Math needs MathVista, MathVerse"), "{text}");
    }

    /// The published rows belong to certain files; the table says where this run's differ.
    #[test]
    fn published_rows_are_orientation_beside_other_files() {
        let said = "the published rows were measured on PAPO-Eval's filtered files";
        let text = markdown(&results());
        assert!(text.contains(said) && text.contains("Geometry3K has 11 rows here and 601 there"), "{text}");
        let record = |row: usize| Record { row, accuracy: 1.0, ..Record::default() };
        let of = |name: &str, rows: usize| {
            let records: Vec<Record> = (0..rows).map(record).collect();
            let result = BenchmarkResult::new(name, Benchmark::find(name).unwrap(), &records);
            markdown(&Results::new(Map::new(), vec![result]))
        };
        let whole = of("mathverse-v", 1308);
        assert!(whole.contains(said) && !whole.contains("rows here"), "{whole}");
        // All five versions, or the version Vision Only alone, are other files.
        assert!(of("mathverse-v", 788).contains("MathVerse-V has 788 rows here and 1308 there"));
        assert!(of("mathverse", 3940).contains("MathVerse has 3940 rows here and 2180 there"));
        // Without an average of theirs there are no published rows to speak of.
        assert!(!of("mathvision", 10).contains("published"));
    }

    /// DynaMath's worst case stands beside its average.
    #[test]
    fn the_worst_case_has_a_line() {
        let record = |row: usize| Record {
            row,
            accuracy: f64::from(u8::from(row != 1)),
            columns: [("question_id".to_owned(), (row / 2).to_string())].into(),
            ..Record::default()
        };
        let records: Vec<Record> = (0..5).map(record).collect();
        let result = BenchmarkResult::new("dynamath", Benchmark::find("dynamath").unwrap(), &records);
        let results = Results::new(Map::new(), vec![result]);
        let text = markdown(&results);
        let cells = |line: &str| line.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>();
        let worst = cells(text.lines().find(|l| l.contains("worst case of 2 variants")).unwrap());
        assert_eq!(worst[2..5], ["2", "2", "50.0"], "{text}");
        assert!(text.contains("1 questions without all of their 2 variants"), "{text}");
        assert!(csv(&results).contains("dynamath,worst_case,2,2,2,0.5,0.5"), "{}", csv(&results));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let text = csv(&results());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("geometry3k,,,4,4,0.5,0.288"), "{text}");
        assert_eq!(lines[3], "geometry3k,task,\"c,\"\"d\"\"\",2,2,0.5,0.5");
        assert_eq!(lines[4], "Avg-Math,,,0,0,,");
    }
}
