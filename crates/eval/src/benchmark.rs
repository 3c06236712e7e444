//! The registry: every benchmark that VGPO and VPPO report, and `custom` for everything else.
//!
//! A benchmark is a name, an answer rule, the columns that its rows are grouped by, and the average that it belongs to.
//! Its prompt is the one that VGPO trains and tests with, `math_perception`, unless a run says otherwise.

use std::collections::BTreeMap;

use crate::error::EvalError;
use crate::rule::Rule;

/// Which of VGPO's two averages a benchmark counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Average {
    /// Avg-Math: MathVista, MathVerse, WeMath, MMK12, GeoMath, Geometry3K.
    Math,
    /// Avg-Vision: LogicVista, SuperCLEVR-Counting, MMMU-Pro, MathVerse-V.
    Vision,
}

impl Average {
    /// The name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Math => "Avg-Math",
            Self::Vision => "Avg-Vision",
        }
    }

    /// Its benchmarks, in the order of the paper.
    pub(crate) fn members(self) -> impl Iterator<Item = &'static Benchmark> {
        BENCHMARKS.iter().filter(move |b| b.average == Some(self))
    }
}

/// What is fixed about a benchmark.
#[derive(Debug, PartialEq)]
pub struct Benchmark {
    /// Its name on the command line and in file names.
    pub name: &'static str,
    /// Its name in the table.
    pub title: &'static str,
    /// Other spellings, EasyR1's and PAPO-Eval's among them; letter case and `-`, `_`, blanks never matter.
    pub aliases: &'static [&'static str],
    /// Paper or repository that it comes from.
    pub source: &'static str,
    /// When an answer is right.
    pub rule: Rule,
    /// Columns whose values make groups in the table, where a file has them.
    pub groups: &'static [&'static str],
    /// Columns that say which rows ask the same question, in order of preference; rows of one question are one cluster
    /// of the standard error.
    pub question: &'static [&'static str],
    /// Only rows with one of these values in this column belong to it, where a file has the column.
    pub only: &'static [(&'static str, &'static [&'static str])],
    /// Whether rows of one question are variants of it, of which the worst case is a score of its own.
    pub worst_case: bool,
    /// Whether its rows have choices in a column of `CHOICE_COLUMNS`: they are written below a problem that does not
    /// name them, and an answer may be the letter or the text of one.
    pub choices: bool,
    /// The average that it counts in.
    pub average: Option<Average>,
    /// Rows of the file that the published averages were measured on (PAPO-Eval's filtered files), where their number
    /// is known.
    pub published_rows: Option<usize>,
}

/// The built-in prompt of every benchmark: VGPO's.
pub(crate) const FORMAT_PROMPT: &str = "math_perception";

const PLAIN: Benchmark = Benchmark {
    name: "custom",
    title: "custom",
    aliases: &[],
    source: "any file with a problem and an answer",
    rule: Rule::Either,
    groups: &["task"],
    question: &[],
    only: &[],
    worst_case: false,
    choices: false,
    average: None,
    published_rows: None,
};

/// MathVerse's column with the kind of a question, and its value for multiple choice: PAPO-Eval's file has no others.
const MULTIPLE_CHOICE: (&str, &[&str]) = ("question_type", &["multi-choice"]);

/// All benchmarks: those of Avg-Math, those of Avg-Vision, the rest, and `custom` as the last.
pub(crate) const BENCHMARKS: [Benchmark; 14] = [
    Benchmark {
        name: "mathvista",
        title: "MathVista",
        aliases: &["mathvista_testmini", "math_vista", "ai4math_mathvista"],
        source: "arXiv 2310.02255",
        rule: Rule::Mathvista,
        groups: &["answer_type", "question_type", "task"],
        choices: true,
        average: Some(Average::Math),
        ..PLAIN
    },
    Benchmark {
        name: "mathverse",
        title: "MathVerse",
        aliases: &["math_verse", "ai4math_mathverse", "mathverse_multiple_choice"],
        source: "arXiv 2403.14624, multiple choice",
        groups: &["problem_version"],
        question: &["problem_index"],
        only: &[MULTIPLE_CHOICE],
        average: Some(Average::Math),
        published_rows: Some(2180),
        ..PLAIN
    },
    Benchmark {
        name: "wemath",
        title: "WeMath",
        aliases: &["we_math", "wemath_testmini", "we_math_we_math"],
        source: "arXiv 2407.01284",
        groups: &["key"],
        question: &["ID"],
        choices: true,
        average: Some(Average::Math),
        ..PLAIN
    },
    Benchmark {
        name: "mmk12",
        title: "MMK12",
        aliases: &["mm_k12", "mmk12_test", "papo_mmk12", "papo_mmk12_test"],
        source: "arXiv 2503.07365",
        groups: &["subject"],
        average: Some(Average::Math),
        published_rows: Some(2000),
        ..PLAIN
    },
    Benchmark {
        name: "geomath",
        title: "GeoMath",
        aliases: &["geo_math"],
        source: "VGPO's evaluation (arXiv 2604.09349)",
        groups: &["task"],
        average: Some(Average::Math),
        ..PLAIN
    },
    Benchmark {
        name: "geometry3k",
        title: "Geometry3K",
        aliases: &["geo3k", "geometry_3k", "geo3k_test", "hiyouga_geometry3k"],
        source: "arXiv 2105.04165",
        groups: &["task"],
        average: Some(Average::Math),
        published_rows: Some(601),
        ..PLAIN
    },
    Benchmark {
        name: "logicvista",
        title: "LogicVista",
        aliases: &["logic_vista", "lscpku_logicvista"],
        source: "arXiv 2407.04973",
        groups: &["skill", "capability"],
        choices: true,
        average: Some(Average::Vision),
        ..PLAIN
    },
    Benchmark {
        name: "superclevr-counting",
        title: "SuperCLEVR-Counting",
        aliases: &[
            "superclevr",
            "super_clevr_counting",
            "clevr_count",
            "clevr_counting",
            "counting",
            "buaadreamer_clevr_count_70k",
        ],
        source: "arXiv 2212.00259",
        groups: &["task"],
        average: Some(Average::Vision),
        ..PLAIN
    },
    Benchmark {
        name: "mmmu-pro",
        title: "MMMU-Pro",
        aliases: &["mmmu_pro", "mmmupro", "mmmu_mmmu_pro"],
        source: "arXiv 2409.02813",
        groups: &["choices", "subject"],
        choices: true,
        average: Some(Average::Vision),
        ..PLAIN
    },
    Benchmark {
        name: "mathverse-v",
        title: "MathVerse-V",
        aliases: &["mathverse_v", "mathverse_vision_dependent", "ai4math_mathverse_vision_dependent"],
        source: "arXiv 2403.14624, multiple choice, the versions Vision Intensive, Vision Dominant and Vision Only",
        groups: &["problem_version"],
        question: &["problem_index"],
        only: &[("problem_version", &["Vision Intensive", "Vision Dominant", "Vision Only"]), MULTIPLE_CHOICE],
        average: Some(Average::Vision),
        published_rows: Some(1308),
        ..PLAIN
    },
    Benchmark {
        name: "mathverse-testmini",
        title: "MathVerse testmini",
        aliases: &["mathverse_all"],
        source: "arXiv 2403.14624, every version and free-form questions, too",
        groups: &["problem_version", "question_type"],
        question: &["problem_index"],
        ..PLAIN
    },
    Benchmark {
        name: "mathvision",
        title: "MathVision",
        aliases: &["math_vision", "math_v", "mathvision_test"],
        source: "arXiv 2402.14804",
        groups: &["level", "subject"],
        choices: true,
        ..PLAIN
    },
    Benchmark {
        name: "dynamath",
        title: "DynaMath",
        aliases: &["dyna_math"],
        source: "arXiv 2411.00836",
        groups: &["subject", "knowledge_level", "level"],
        // Ten variants of each seed question. The released splits repeat its `id`; VLMEvalKit's table calls it `qid`.
        question: &["question_id", "qid", "id"],
        worst_case: true,
        ..PLAIN
    },
    PLAIN,
];

/// The column under which rows are grouped by their number of choices; computed, not read.
pub(crate) const CHOICES_GROUP: &str = "choices";

/// The columns with the choices of a multiple-choice row, in order of preference.
pub(crate) const CHOICE_COLUMNS: [&str; 3] = ["choices", "options", "option"];

/// Columns that the rules and scores look at, besides the groups.
const RULE_COLUMNS: [&str; 3] = ["precision", "answer_type", "question_type"];

impl Benchmark {
    /// `custom`.
    pub fn custom() -> &'static Self {
        &BENCHMARKS[BENCHMARKS.len() - 1]
    }

    /// Finds a benchmark by name or alias.
    ///
    /// # Errors
    /// An unknown name; the error has the nearest one and all of them.
    pub fn find(name: &str) -> Result<&'static Self, EvalError> {
        let wanted = normal(name);
        let spellings = |b: &'static Self| std::iter::once(b.name).chain(b.aliases.iter().copied());
        if let Some(found) = BENCHMARKS.iter().find(|b| spellings(b).any(|s| normal(s) == wanted)) {
            return Ok(found);
        }
        let all = BENCHMARKS.iter().flat_map(|b| spellings(b).map(move |s| (b, s)));
        let nearest = all.map(|(b, s)| (strsim::damerau_levenshtein(&wanted, &normal(s)), b.name)).min();
        let hint = match nearest {
            Some((distance, name)) if distance <= 3 && distance < wanted.len() => format!("did you mean {name}? "),
            _ => String::new(),
        };
        let names: Vec<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        Err(EvalError::Input(format!(
            "there is no benchmark {name:?}; {hint}there are {}; any other file is custom:NAME=PATH",
            names.join(", ")
        )))
    }

    /// The question that a row asks, where a column says so.
    pub(crate) fn question_of<'a>(&self, columns: &'a BTreeMap<String, String>) -> Option<&'a str> {
        self.question.iter().find_map(|column| columns.get(*column)).map(String::as_str)
    }

    /// Whether a row is part of the benchmark; every row is, where the file has no column to tell.
    pub fn has(&self, columns: &BTreeMap<String, String>) -> bool {
        self.only.iter().all(|(column, values)| {
            columns.get(*column).is_none_or(|found| values.iter().any(|value| normal(value) == normal(found)))
        })
    }

    /// Columns to read besides problem, answer, pictures, id and task.
    pub fn columns(&self) -> Vec<String> {
        let mut all: Vec<&str> = self.groups.to_vec();
        all.extend(self.question);
        all.extend(self.only.iter().map(|(column, _)| *column));
        all.extend(CHOICE_COLUMNS.iter().filter(|_| self.choices));
        all.extend(RULE_COLUMNS);
        let mut columns: Vec<String> = Vec::new();
        for column in all {
            // The task has a key of its own.
            if column != "task" && (column != CHOICES_GROUP || self.choices) && !columns.iter().any(|c| c == column) {
                columns.push(column.to_owned());
            }
        }
        columns
    }
}

/// Letters and digits in lower case: `Super-CLEVR counting` is `superclevrcounting`.
pub(crate) fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_benchmark_and_no_other() {
        let mut seen = std::collections::HashMap::new();
        for b in &BENCHMARKS {
            for spelling in std::iter::once(b.name).chain([b.title]).chain(b.aliases.iter().copied()) {
                assert_eq!(Benchmark::find(spelling).unwrap().name, b.name, "{spelling}");
                assert_eq!(Benchmark::find(&spelling.to_uppercase()).unwrap().name, b.name);
                assert_eq!(*seen.entry(normal(spelling)).or_insert(b.name), b.name, "{spelling} is two benchmarks");
            }
        }
        assert_eq!(Benchmark::find("Geo3K").unwrap().title, "Geometry3K");
        assert_eq!(Benchmark::find("clevr_count").unwrap().title, "SuperCLEVR-Counting");
    }

    #[test]
    fn unknown_names_get_a_list_and_the_nearest() {
        let error = Benchmark::find("mathvists").unwrap_err().to_string();
        assert!(error.contains("did you mean mathvista?") && error.contains("superclevr-counting"), "{error}");
        let error = Benchmark::find("imagenet").unwrap_err().to_string();
        assert!(!error.contains("did you mean") && error.contains("custom:NAME=PATH"), "{error}");
    }

    #[test]
    fn averages_have_the_members_of_the_paper() {
        let names = |a: Average| a.members().map(|b| b.title).collect::<Vec<_>>();
        assert_eq!(names(Average::Math), ["MathVista", "MathVerse", "WeMath", "MMK12", "GeoMath", "Geometry3K"]);
        assert_eq!(names(Average::Vision), ["LogicVista", "SuperCLEVR-Counting", "MMMU-Pro", "MathVerse-V"]);
    }

    /// PAPO-Eval's counts: 436 multiple-choice problems of MathVerse in five versions, three of which are MathVerse-V.
    #[test]
    fn mathverse_and_its_part_are_those_of_papo_eval() {
        let find = |name: &str| Benchmark::find(name).unwrap();
        let versions = ["Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only"];
        let (mut all, mut math, mut vision) = (0, 0, 0);
        for problem in 0..788 {
            for version in versions {
                let kind = if problem < 436 { "multi-choice" } else { "free-form" };
                let row = BTreeMap::from([
                    ("problem_version".to_owned(), version.to_owned()),
                    ("question_type".to_owned(), kind.to_owned()),
                ]);
                all += usize::from(find("mathverse-testmini").has(&row));
                math += usize::from(find("mathverse").has(&row));
                vision += usize::from(find("mathverse_v").has(&row));
            }
        }
        assert_eq!((all, math, vision), (3940, 2180, 1308));
        assert_eq!((find("mathverse").published_rows, find("mathverse_v").published_rows), (Some(2180), Some(1308)));
        // Files of PAPO-Eval have neither column; and spelling does not matter.
        assert!(find("mathverse_v").has(&BTreeMap::new()) && find("mathverse").has(&BTreeMap::new()));
        let row = |column: &str, value: &str| BTreeMap::from([(column.to_owned(), value.to_owned())]);
        assert!(find("mathverse_v").has(&row("problem_version", "vision_intensive")));
        assert!(!find("mathverse_v").has(&row("problem_version", "Text Lite")));
        assert!(!find("mathverse_v").has(&row("question_type", "free-form")));
        assert!(find("mathverse").has(&row("problem_version", "Text Lite")));
        assert!(Benchmark::custom().has(&row("question_type", "free-form")));
        assert_eq!(find("AI4Math_MathVerse_vision_dependent").name, "mathverse-v");
        // The version Vision Only alone is not MathVerse-V.
        assert!(Benchmark::find("mathverse_vision_only").is_err());
    }

    #[test]
    fn columns_are_asked_for_once() {
        let columns = Benchmark::find("mathvista").unwrap().columns();
        assert_eq!(columns.iter().filter(|c| *c == "answer_type").count(), 1);
        assert!(!columns.contains(&"task".to_owned()) && columns.contains(&"precision".to_owned()));
    }
}
