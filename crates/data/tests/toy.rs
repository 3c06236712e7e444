//! The toy world: determinism, held-out digits, right answers, pictures that show what is asked.

use std::collections::HashSet;

use data::toy::{self, TASKS, ToySpec, digits};
use data::{Dataset, Keys, image};
use proptest::prelude::*;

fn spec(text: &str) -> ToySpec {
    ToySpec::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Which digit each cell of a picture shows, by comparing with all digits of the file.
fn read_cells(png: &[u8], candidates: std::ops::Range<usize>) -> (Vec<usize>, usize) {
    let picture = image::decode(png).unwrap();
    let cols = picture.width() as usize / 28;
    let cells = picture.height() as usize / 28 * cols;
    let cell = |k: usize| {
        let mut pixels = Vec::new();
        for y in 0..8 {
            for x in 0..8 {
                let p =
                    picture.get_pixel((k % cols * 28 + 2 + x * 3 + 1) as u32, (k / cols * 28 + 2 + y * 3 + 1) as u32);
                pixels.push(255 - p.0[0]);
            }
        }
        candidates
            .clone()
            .find(|&d| digits::pixels(d).iter().zip(&pixels).all(|(ink, p)| *p == (u32::from(*ink) * 255 / 16) as u8))
            .expect("a digit of the split")
    };
    ((0..cells).map(cell).collect(), cols)
}

#[test]
fn the_recipe_s_example() {
    // The form of a response, whatever the digits.
    let problem = spec("sum?rows=2&cols=2").problem(0);
    let (cells, _) = read_cells(problem.png.as_ref().unwrap(), 0..digits::TRAIN);
    let v: Vec<u32> = cells.iter().map(|&d| digits::label(d).into()).collect();
    let (ab, abc) = (v[0] + v[1], v[0] + v[1] + v[2]);
    let abcd = abc + v[3];
    assert_eq!(problem.problem, "<image>sum?");
    assert_eq!(problem.answer, abcd.to_string());
    let expected =
        format!("<think>{}+{}={ab}, {ab}+{}={abc}, {abc}+{}={abcd}</think>\\boxed{{{abcd}}}", v[0], v[1], v[2], v[3]);
    assert_eq!(problem.solution, expected);
    let one = spec("sum?rows=1&cols=1").problem(4);
    assert_eq!(one.solution, format!("<think>{0}</think>\\boxed{{{0}}}", one.answer));
}

#[test]
fn direct_is_the_share_of_solutions_without_thought() {
    let count = |text: &str| (0..1000).filter(|&i| !spec(text).problem(i).solution.contains("<think>")).count();
    assert_eq!(count("sum?rows=2&cols=2"), 0);
    assert_eq!(count("sum?rows=2&cols=2&direct=100"), 1000);
    assert!(count("sum?rows=2&cols=2&direct=75").abs_diff(750) < 60);
    let problem = spec("sum?rows=2&cols=2&direct=100").problem(3);
    assert_eq!(problem.solution, format!("\\boxed{{{}}}", problem.answer));
}

#[test]
fn rows_are_a_function_of_spec_and_index() {
    for task in TASKS {
        let a = spec(&format!("{}?seed=5", task.name()));
        let b = spec(&format!("{}?seed=5&size=77", task.name()));
        assert_eq!(
            (0..20).map(|i| a.problem(i)).collect::<Vec<_>>(),
            (0..20).map(|i| b.problem(i)).collect::<Vec<_>>()
        );
        let other = spec(&format!("{}?seed=6", task.name()));
        assert_ne!(a.problem(0).png, other.problem(0).png);
        let distinct: HashSet<_> = (0..50).map(|i| a.problem(i).png).collect();
        assert!(distinct.len() > 45, "{}: {}", task.name(), distinct.len());
    }
}

#[test]
fn test_problems_show_only_test_digits() {
    for i in 0..100 {
        let problem = spec("read?rows=1-2&cols=1-3&split=test").problem(i);
        let (cells, cols) = read_cells(problem.png.as_ref().unwrap(), digits::TRAIN..digits::COUNT);
        let text: String = cells.iter().map(|&d| digits::label(d).to_string()).collect();
        assert_eq!(problem.answer, text);
        let rows: Vec<String> =
            cells.chunks(cols).map(|r| r.iter().map(|&d| digits::label(d).to_string()).collect()).collect();
        assert_eq!(problem.solution, format!("<think>{}</think>\\boxed{{{text}}}", rows.join(", ")));
    }
}

#[test]
fn comparisons_have_one_winner() {
    for i in 0..100 {
        let problem = spec("compare?rows=2-3&cols=1-3").problem(i);
        let (cells, cols) = read_cells(problem.png.as_ref().unwrap(), 0..digits::TRAIN);
        let by_row = problem.problem.contains("row");
        let mut sums = vec![0u32; if by_row { cells.len() / cols } else { cols }];
        for (k, &d) in cells.iter().enumerate() {
            sums[if by_row { k / cols } else { k % cols }] += u32::from(digits::label(d));
        }
        let best = *sums.iter().max().unwrap();
        let winners: Vec<usize> = (0..sums.len()).filter(|&k| sums[k] == best).map(|k| k + 1).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(problem.answer, winners[0].to_string());
    }
}

/// Every `a+b=c` and `a-b=c` of a response holds.
fn arithmetic_holds(solution: &str) {
    let thoughts = solution.split("</think>").next().unwrap().trim_start_matches("<think>");
    for step in thoughts.split([' ', ',']).filter(|s| s.contains('=')) {
        let (left, right) = step.split_once('=').unwrap();
        let at = left[1..].find(['+', '-']).unwrap() + 1;
        let (a, b): (i64, i64) = (left[..at].parse().unwrap(), left[at + 1..].parse().unwrap());
        let sign = if &left[at..at + 1] == "+" { 1 } else { -1 };
        assert_eq!(a + sign * b, right.parse::<i64>().unwrap(), "{step} in {solution}");
    }
}

#[test]
fn multistep_questions_are_answered() {
    let spec = spec("multistep?rows=2-4&cols=2-4&terms=1-4&distractors=0-2");
    let mut negatives = 0;
    for i in 0..200 {
        let problem = spec.problem(i);
        arithmetic_holds(&problem.solution);
        let (cells, cols) = read_cells(problem.png.as_ref().unwrap(), 0..digits::TRAIN);
        let value = |k: usize| i64::from(digits::label(cells[k]));
        let question = problem.problem.rsplit(". ").next().unwrap();
        let question = question.trim_start_matches("<image>").trim_end_matches('?');
        let mut total = 0;
        let mut sign = 1;
        let mut words = question.split(' ');
        while let Some(word) = words.next() {
            match word {
                "+" => sign = 1,
                "-" => sign = -1,
                line => {
                    let n: usize = words.next().unwrap().parse().unwrap();
                    let sum: i64 = (0..cells.len())
                        .filter(|k| if line == "row" { k / cols } else { k % cols } == n - 1)
                        .map(value)
                        .sum();
                    total += sign * sum;
                }
            }
        }
        assert_eq!(problem.answer, total.to_string(), "{}", problem.problem);
        negatives += usize::from(total < 0);
    }
    assert!(negatives < 60);
}

#[test]
fn sums_with_distractors_and_a_second_question() {
    let mixed = spec("sum?rows=2&cols=1-3&distractors=0-2&questions=1-2");
    let (mut twice, mut sentences) = (0, HashSet::new());
    for i in 0..200 {
        let problem = mixed.problem(i);
        arithmetic_holds(&problem.solution);
        let (cells, cols) = read_cells(problem.png.as_ref().unwrap(), 0..digits::TRAIN);
        assert!((1..=3).contains(&cols));
        let values: Vec<u32> = cells.iter().map(|&d| digits::label(d).into()).collect();
        let sum: u32 = values.iter().sum();
        let largest = values.iter().max().unwrap();
        let mut parts: Vec<&str> = problem.problem.trim_start_matches("<image>").split(". ").collect();
        let question = parts.pop().unwrap();
        assert!(parts.iter().all(|p| p.contains(" has ")), "{}", problem.problem);
        sentences.insert(parts.len());
        let expected = match question {
            "sum?" => sum,
            "sum + largest?" => {
                twice += 1;
                let all: String = values.iter().map(u32::to_string).collect();
                assert!(problem.solution.contains(&format!("largest of {all} is {largest}, {sum}+{largest}=")));
                sum + largest
            }
            other => panic!("{other}"),
        };
        assert_eq!(problem.answer, expected.to_string());
    }
    assert!((60..140).contains(&twice), "{twice}");
    assert_eq!(sentences, HashSet::from([0, 1, 2]));
    // The plain sum is as it was before these parameters, ids included.
    let (plain, same) = (spec("sum?rows=2&cols=2"), spec("sum?rows=2&cols=2&distractors=0&questions=1"));
    assert_eq!(plain.problem(3), same.problem(3));
    assert_eq!(plain.id(3), "toy-sum-r2c2-train-0-3");
    assert_eq!(mixed.id(3), "toy-sum-r2c1-3d0-2q1-2-train-0-3");
}

#[test]
fn shapes_are_counted_as_they_are_drawn() {
    let mut counts = HashSet::new();
    for i in 0..200 {
        let problem = spec("count?rows=1-3&cols=1-3").problem(i);
        arithmetic_holds(&problem.solution);
        let picture = image::decode(problem.png.as_ref().unwrap()).unwrap();
        let question = problem.problem.trim_start_matches("<image>").trim_end_matches('?');
        let colour = toy::draw::COLOURS.iter().find(|c| question.starts_with(c.name));
        let shape = ["circles", "squares", "triangles"].into_iter().find(|s| question.ends_with(s));
        let mut total = 0;
        for cy in 0..picture.height() / 28 {
            for cx in 0..picture.width() / 28 {
                let inked: Vec<(u32, u32, [u8; 3])> = (0..28)
                    .flat_map(|y| (0..28).map(move |x| (x, y)))
                    .map(|(x, y)| (x, y, picture.get_pixel(cx * 28 + x, cy * 28 + y).0))
                    .filter(|p| p.2 != [255; 3])
                    .collect();
                let Some(first) = inked.first() else { continue };
                // Circle: fills pi/4 of its box; square: all; triangle: half.
                let (w, h) = (
                    inked.iter().map(|p| p.0).max().unwrap() - inked.iter().map(|p| p.0).min().unwrap() + 1,
                    inked.iter().map(|p| p.1).max().unwrap() - inked.iter().map(|p| p.1).min().unwrap() + 1,
                );
                let fill = inked.len() as f32 / (w * h) as f32;
                let kind = if fill > 0.95 {
                    "squares"
                } else if fill > 0.66 {
                    "circles"
                } else {
                    "triangles"
                };
                total += u32::from(colour.is_none_or(|c| c.rgb == first.2) && shape.is_none_or(|s| s == kind));
            }
        }
        assert_eq!(problem.answer, total.to_string(), "{question}");
        counts.insert(total);
    }
    assert!(counts.len() > 4, "{counts:?}");
}

#[test]
fn bars_are_as_high_as_they_say() {
    for i in 0..200 {
        let problem = spec("chart?bars=1-6").problem(i);
        arithmetic_holds(&problem.solution);
        let picture = image::decode(problem.png.as_ref().unwrap()).unwrap();
        let bars: Vec<(&str, i64)> = (0..picture.width() / 28)
            .map(|k| {
                let column: Vec<[u8; 3]> = (0..picture.height()).map(|y| picture.get_pixel(k * 28 + 14, y).0).collect();
                let colour = toy::draw::COLOURS.iter().find(|c| column.contains(&c.rgb)).unwrap();
                (colour.name, column.iter().filter(|p| **p == colour.rgb).count() as i64 / 11)
            })
            .collect();
        let value = |name: &str| bars.iter().find(|b| b.0 == name).unwrap().1;
        let question = problem.problem.trim_start_matches("<image>").trim_end_matches('?');
        let expected = match question.split_once(['+', '-']) {
            Some((a, b)) if question.contains('+') => value(a) + value(b),
            Some((a, b)) => value(a) - value(b),
            None if question == "max" => bars.iter().map(|b| b.1).max().unwrap(),
            None => value(question),
        };
        assert_eq!(problem.answer, expected.to_string(), "{question} of {bars:?}");
    }
}

#[test]
fn specs_that_make_no_sense() {
    for (text, expected) in [
        ("add", "read, sum, compare"),
        ("sum?row=2", "rows, cols, distractors, questions, direct, split"),
        ("sum?questions=3", "1-2"),
        ("sum?distractors=5", "0-4"),
        ("read?distractors=1", "no parameter"),
        ("sum?rows=0", "1-18"),
        ("sum?rows=3-2", "1-18"),
        ("sum?rows=two", "whole number"),
        ("sum?split=dev", "train or test"),
        ("sum?size=0", "at least 1"),
        ("sum?rows", "key=value"),
        ("chart?rows=2", "bars"),
        ("compare?rows=1&cols=1", "two rows or two columns"),
        ("sum?terms=2", "no parameter"),
    ] {
        let error = ToySpec::parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        let error = Dataset::open(&[format!("toy:{text}").into()], &Keys::default(), None).unwrap_err().to_string();
        assert!(error.contains(&format!("toy:{text}")), "{error}");
    }
}

#[test]
fn a_toy_source_is_a_data_set() {
    let keys = Keys { prompt_key: "anything".into(), ..Keys::default() };
    let dataset = Dataset::open(&["toy:count?size=1000000000&split=test&seed=3".into()], &keys, None).unwrap();
    assert_eq!(dataset.len(), 1_000_000_000);
    let sample = dataset.get(999_999_999).unwrap();
    assert_eq!(sample.id, "toy-count-r2-3c2-3-test-3-999999999");
    assert_eq!(sample.task.as_deref(), Some("count"));
    assert!(sample.problem.starts_with("<image>") && sample.solution.unwrap().starts_with("<think>"));
    let mut cursor = data::Cursor::new(0);
    assert_eq!(cursor.next(&dataset, 3).len(), 3);
}

/// The same question about the same digits, answered in the same words, whether the picture has them, the text, or
/// both.
#[test]
fn digits_in_the_text_are_those_of_the_picture() {
    let text = "multistep?rows=2-5&cols=3&terms=1-4&fresh=0&distractors=0-1&split=test";
    let with = |digits: &str| spec(&format!("{text}&digits={digits}"));
    for i in 0..200 {
        let [seen, told, both] = ["picture", "text", "both"].map(|digits| with(digits).problem(i));
        let (cells, cols) = read_cells(seen.png.as_ref().unwrap(), digits::TRAIN..digits::COUNT);
        let row = |row: &[usize]| row.iter().map(|&d| digits::label(d).to_string()).collect::<String>();
        let rows: Vec<String> = cells.chunks(cols).enumerate().map(|(k, r)| format!("{}: {}", k + 1, row(r))).collect();
        let question = format!("{}. {}", rows.join(", "), seen.problem.strip_prefix("<image>").unwrap());
        assert_eq!((&told.problem, &both.problem), (&question, &format!("<image>{question}")));
        assert_eq!((&told.solution, &told.answer), (&seen.solution, &seen.answer));
        assert_eq!((&both.solution, &both.answer), (&seen.solution, &seen.answer));
        assert!(told.png.is_none() && both.png == seen.png && seen.png.is_some());
        // What is read may come from the text.
        assert!(seen.reading.is_some() && told.reading.is_none() && both.reading.is_none());
    }
    assert_eq!(with("text").id(3), "toy-multistep-r2-5c3t1-4d0-1f0text-test-0-3");
    assert_eq!(with("picture").id(3), "toy-multistep-r2-5c3t1-4d0-1f0-test-0-3");
    let sample = |digits: &str| {
        let source = format!("toy:{text}&digits={digits}");
        Dataset::open(&[source.as_str().into()], &Keys::default(), None).unwrap().get(0).unwrap()
    };
    assert_eq!(["picture", "text", "both"].map(|digits| sample(digits).images.len()), [1, 0, 1]);
    assert!(ToySpec::parse("multistep?digits=text&exchange=1").unwrap_err().contains("needs digits=picture"));
    assert!(ToySpec::parse("multistep?digits=none").unwrap_err().contains("picture, text, both or partly"));
    assert!(ToySpec::parse("sum?digits=text").unwrap_err().contains("no parameter"));
}

/// The text tells every digit that the last lines of the question read, and no other; none at all is told where the
/// last lines are none, and then the picture can be exchanged.
#[test]
fn digits_of_the_last_lines_are_told() {
    let text = "multistep?rows=5&cols=3&terms=5-6&fresh=0&distractors=0&split=test";
    let with = |digits: &str| spec(&format!("{text}&{digits}"));
    let (mut hidden, mut drawn) = (0, [0; 7]);
    for i in 0..200 {
        let [seen, none, some] =
            ["digits=picture", "digits=partly", "digits=partly&told=2-3"].map(|d| with(d).problem(i));
        let (cells, _) = read_cells(seen.png.as_ref().unwrap(), digits::TRAIN..digits::COUNT);
        for problem in [&none, &some] {
            assert_eq!((&problem.png, &problem.solution), (&seen.png, &seen.solution));
            assert!(problem.problem.ends_with(seen.problem.strip_prefix("<image>").unwrap()));
        }
        assert!(none.problem.starts_with("<image>1: ???, 2: ???, 3: ???, 4: ???, 5: ???. "), "{}", none.problem);
        assert_eq!((&none.reading, some.reading), (&seen.reading, None));
        let (grid, question) = some.problem.strip_prefix("<image>").unwrap().split_once(". ").unwrap();
        let grid: Vec<char> = grid.split(", ").flat_map(|row| row.split_once(": ").unwrap().1.chars()).collect();
        let lines: Vec<&str> = question.trim_end_matches('?').split(['+', '-']).map(str::trim).collect();
        let read_by = |told: usize| {
            let mut read = [false; 15];
            for line in &lines[lines.len() - told..] {
                let (kind, number) = line.split_once(' ').unwrap();
                let k = number.parse::<usize>().unwrap() - 1;
                (0..15).filter(|c| if kind == "row" { c / 3 == k } else { c % 3 == k }).for_each(|c| read[c] = true);
            }
            read
        };
        let told: Vec<bool> = grid.iter().map(|c| *c != '?').collect();
        let last = (2..=3).find(|last| read_by(*last)[..] == told[..]);
        drawn[last.unwrap_or_else(|| panic!("{}", some.problem))] += 1;
        for (at, char) in grid.iter().enumerate() {
            hidden += usize::from(*char == '?');
            assert!(*char == '?' || char.to_digit(10).unwrap() as u8 == digits::label(cells[at]));
        }
    }
    assert!(drawn[2] > 60 && drawn[3] > 60 && hidden > 600, "{drawn:?}, {hidden}");
    assert_eq!(with("digits=partly&told=2-3").id(3), "toy-multistep-r5c3t5-6d0f0partly2-3-test-0-3");
    let exchanged = with("digits=partly&exchange=1");
    assert!(exchanged.problem(0).png != with("digits=partly").problem(0).png);
    let refused = |text: &str| ToySpec::parse(text).unwrap_err();
    assert!(refused("multistep?digits=partly&told=1&exchange=1").contains("needs digits=picture"));
    assert!(refused("multistep?told=1").contains("told needs digits=partly"));
    assert!(refused("multistep?digits=partly&told=9").contains("0-8"));
}

proptest! {
    #[test]
    fn any_accepted_spec_makes_problems(
        task in 0usize..6, rows in 1usize..5, more_rows in 0usize..3, cols in 1usize..5, seed: u64, i in 0usize..1_000_000,
    ) {
        let task = TASKS[task];
        let grid = if task.name() == "chart" { format!("bars={cols}") } else { format!("rows={rows}-{}&cols={cols}", rows + more_rows) };
        if let Ok(spec) = ToySpec::parse(&format!("{}?{grid}&seed={seed}", task.name())) {
            let problem = spec.problem(i);
            let boxed = format!("</think>\\boxed{{{}}}", problem.answer);
            prop_assert!(problem.solution.ends_with(&boxed));
            arithmetic_holds(&problem.solution);
            let (w, h) = image::header_size(problem.png.as_ref().unwrap()).unwrap();
            prop_assert_eq!((w % 28, h % 28), (0, 0));
        }
    }
}
