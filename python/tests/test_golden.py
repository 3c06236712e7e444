"""The wheel against the fixtures of crates/answer, and against the program `grade`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from visual_rl_grade import Rule, grade, grade_batch

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "crates/answer/tests/fixtures"
RULES = [
    {"reward_type": kind, "grader": grader}
    for kind in ["math", "math_accuracy", "look_back", "r1v", "dapo"]
    for grader in ["mathruler", "math"]
] + [{"reward_type": kind} for kind in ["multiple_choice", "exact", "numeric"]]


def lines(name):
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def pairs():
    return [row for name in ["pairs", "generated", "malformed"] for row in lines(f"mathruler_{name}")]


@pytest.mark.parametrize("name, count, allowed", [("pairs", 1500, 0), ("generated", 1800, 0), ("malformed", 700, 7)])
def test_recorded_verdicts_of_mathruler(name, count, allowed):
    given, truths, verdicts = zip(*lines(f"mathruler_{name}"))
    assert len(given) == count
    scores = grade_batch(given, truths, given=True, reward_type="math_accuracy")
    differ = [row for *row, score in zip(given, truths, verdicts, scores) if score.accuracy != row[2]]
    assert len(differ) <= allowed, differ


def test_reported_cases():
    rows = lines("grader_cases")
    assert len(rows) == 44
    for row in rows:
        options = {key: row[key] for key in ["reward_type", "grader"] if key in row}
        given = "given" in row
        score = grade(row["given" if given else "response"], row["ground_truth"], given=given, **options)
        assert score.accuracy == row["accuracy"], row


def program():
    """The program, where it has been built; `GRADE` names it where it must be there."""
    named = os.environ.get("GRADE")
    built = Path(named or ROOT / "target/debug/grade")
    if not named and not built.is_file():
        pytest.skip(f"{built} is not built; GRADE may name it")
    return built


@pytest.mark.parametrize("options", RULES, ids=lambda options: "-".join(options.values()))
def test_the_program_says_the_same(options, tmp_path):
    # Answers alone, by each way to compare; `math` and the like only differ in where they find them.
    alone = options["reward_type"] in ["math_accuracy", "multiple_choice", "exact", "numeric"]
    rows = [(True, given, truth) for given, truth, _ in pairs()[:: 1 if alone else 40]]
    reported = lines("grader_cases")
    rows += [("given" in row, row.get("given", row.get("response")), row["ground_truth"]) for row in reported]
    # Whole responses, in each rule's form.
    forms = [r"<think>a</think> \boxed{%s}", "< think >a</think>< answer >%s</answer>", "so\nAnswer: %s", "it is %s"]
    some = lines("mathruler_pairs")[::15]
    rows += [(False, form.replace("%s", given), truth) for form in forms for given, truth, _ in some]
    length = {"max_response_length": 50, "overlong_buffer_length": 20, "overlong_penalty_factor": 0.5}
    file = tmp_path / "rows.jsonl"
    with open(file, "w", encoding="utf-8") as out:
        for at, (given, text, truth) in enumerate(rows):
            row = {"given" if given else "response": text, "ground_truth": truth, "response_length": at % 60}
            out.write(json.dumps(row) + "\n")
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {**options, **length}.items()]
    said = subprocess.run([program(), file, *arguments], capture_output=True, check=True, encoding="utf-8").stdout
    expected = [json.loads(line) for line in said.splitlines()]
    assert len(expected) == len(rows)
    rule, of_kind = Rule(**options, **length), {}
    for given in [True, False]:
        places = [at for at, row in enumerate(rows) if row[0] == given]
        of_kind[given] = rule.grade_batch(
            [rows[at][1] for at in places],
            [rows[at][2] for at in places],
            response_lengths=[at % 60 for at in places],
            given=given,
        )
        for at, score in zip(places, of_kind[given]):
            row = expected[at]
            extra = {"overlong": row["reward/overlong"]}
            assert score == (row["overall"], row["accuracy"], row["format"], row["extracted"], extra), rows[at]


def test_one_by_one_is_as_in_a_batch():
    rule = Rule(grader="math")
    given, truths, _ = zip(*lines("mathruler_pairs")[:300])
    alone = [rule.grade(one, truth, given=True) for one, truth in zip(given, truths)]
    for threads in [None, 1, 3, 64]:
        assert rule.grade_batch(given, truths, given=True, threads=threads) == alone
