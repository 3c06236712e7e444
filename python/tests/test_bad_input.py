"""What must not crash, hang or pass in silence."""

import multiprocessing
import os
import signal
import threading
import time

import pytest

from visual_rl_grade import Rule, grade, grade_batch

RULES = [Rule(reward_type=kind) for kind in ["math", "look_back", "r1v", "dapo", "multiple_choice", "exact", "numeric"]]
RULES += [Rule(grader="math"), Rule(reward_type="r1v", grader="math"), Rule(reward_type="dapo", grader="math")]
#: Some milliseconds each.
SLOW = (r"\frac{\sqrt{x^2+1}+\sin x}{\ln(x^7+3)}^{19}" * 40, r"\sqrt[3]{\cos x+\tan^9 y}" * 60)
HOSTILE = [
    "",
    "\0",
    "\\boxed{\0}",
    "a\0b",
    "\ud800",
    "\\boxed{\udfff1}",
    "x" * 10_000_000,
    "\\boxed{" + "1" * 1_000_000 + "}",
    "\\boxed{" * 100_000,
    "<think>" * 100_000,
    "<" + " " * 500_000 + ">",
    "Answer: " * 100_000,
    "(" * 100_000 + "1" + ")" * 100_000,
    "\\boxed{" + "{" * 50_000 + "}" * 50_001,
    "\\boxed{" + "\\frac{" * 9_000 + "1" + "}{2}" * 9_000 + "}",
    "\\boxed{" + "\\sqrt{" * 9_000 + "2" + "}" * 9_001,
    "\\boxed{" + "-" * 60_000 + "1}",
    "\\boxed{9^{9^{9^{9^{9}}}}}",
    "\\boxed{10000000!}",
    "\U0001d7d8" * 100_000,
    *SLOW,
]


def stress(seconds):
    for rule in RULES:
        for text in HOSTILE:
            begun = time.thread_time()
            for pair in [(text, text), (text, "B"), ("1", text)]:
                assert 0 <= rule.grade(*pair).accuracy <= 1
            assert rule.grade(text, text, given=True).format == 1
            # Of this thread's processor, so that other work on the machine does not count.
            assert time.thread_time() - begun < seconds, (rule, text[:40], len(text))


def test_hostile_texts():
    stress(seconds=10)


def test_hostile_texts_on_a_small_stack():
    failed = []

    def work():
        try:
            stress(seconds=10)
        except BaseException as error:
            failed.append(error)

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert not failed, failed


def test_surrogates_are_characters_that_nobody_knows():
    assert grade("\\boxed{5}\ud800", "5").accuracy == 1
    assert grade("5\ud800", "5", given=True).accuracy == 0


@pytest.mark.parametrize("bad", [None, [], {}, b"5", object(), 1j, ["5"], ("5",)])
def test_types(bad):
    for pair in [(bad, "5"), ("5", bad)]:
        with pytest.raises(TypeError, match="not a str or a number"):
            grade(*pair)
        with pytest.raises(TypeError, match=r"\[1\] is"):
            grade_batch(["5", pair[0]], ["5", pair[1]])


def test_values():
    for number in [float("nan"), float("inf")]:
        with pytest.raises(ValueError, match="no answer"):
            grade("5", number)
    for responses, truths, words in [("55", ["5", "5"], "responses is str"), (["5"], 5, "ground_truths is int")]:
        with pytest.raises(TypeError, match=words):
            grade_batch(responses, truths)
    with pytest.raises(ValueError, match="1 responses and 2 ground_truths"):
        grade_batch(["5"], ["5", "6"])
    with pytest.raises(ValueError, match="1 responses and 2 response_lengths"):
        grade_batch(["5"], ["5"], response_lengths=[1, 2])
    with pytest.raises(ValueError, match="threads is 0"):
        grade_batch(["5"], ["5"], threads=0)
    with pytest.raises(TypeError):
        grade("5", "5", response_length="long")
    with pytest.raises(OverflowError):
        grade("5", "5", response_length=-1)

    def broken():
        yield "5"
        raise RuntimeError("the file ended")

    with pytest.raises(RuntimeError, match="the file ended"):
        grade_batch(broken(), ["5"])


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"reward_type": "maths"}, ValueError, "use one of: math, "),
        ({"grader": "sympy"}, ValueError, "use one of: mathruler, math"),
        ({"gradr": "math"}, TypeError, "gradr"),
        ({"reward_type": "exact", "grader": "math"}, ValueError, "grader means nothing to the rule `exact`"),
        ({"reward_type": "dapo", "format_weight": 0.5}, ValueError, "format_weight means nothing"),
        ({"numeric_tolerance": 0.1}, ValueError, "numeric_tolerance means nothing"),
        ({"format_weight": -1}, ValueError, "format_weight: -1"),
        ({"accuracy_weight": float("nan")}, ValueError, "accuracy_weight: NaN"),
        ({"max_response_length": 5}, ValueError, "both max_response_length and overlong_buffer_length"),
        ({"overlong_penalty_factor": 5}, ValueError, "both max_response_length and overlong_buffer_length"),
        ({"max_response_length": 5, "overlong_buffer_length": 6}, ValueError, "more than max_response_length"),
        ({"reward_type": 5}, TypeError, "int"),
    ],
)
def test_options(options, error, words):
    with pytest.raises(error, match=words):
        Rule(**options)


def test_the_penalty_needs_lengths():
    rule = Rule(max_response_length=100, overlong_buffer_length=20)
    with pytest.raises(TypeError, match="length of each response"):
        rule.grade("5", "5")
    with pytest.raises(TypeError, match="length of each response"):
        rule.grade_batch(["5"], ["5"])


def slow_batch():
    rule = Rule(grader="math")
    begun = time.perf_counter()
    count = 20
    rule.grade_batch([SLOW[0]] * count, [SLOW[1]] * count, given=True, threads=1)
    each = (time.perf_counter() - begun) / count
    return rule, int(30 / each)


def test_ctrl_c_ends_a_batch():
    rule, count = slow_batch()
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    begun = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        rule.grade_batch([SLOW[0]] * count, [SLOW[1]] * count, given=True, threads=1)
        timer.join()
    assert time.perf_counter() - begun < 5
    timer.join()
    assert rule.grade("1", "1", given=True).accuracy == 1


def test_other_threads_run_meanwhile():
    rule, count = slow_batch()
    count = count // 15
    turns, done = [0], threading.Event()

    def turn():
        while not done.is_set():
            turns[0] += 1
            time.sleep(0.001)

    other = threading.Thread(target=turn)
    other.start()
    rule.grade_batch([SLOW[0]] * count, [SLOW[1]] * count, given=True, threads=1)
    done.set()
    other.join()
    # Two seconds, 40 rounds: were the interpreter held, the other would have a turn between two of them.
    assert turns[0] > 50, turns


def in_a_child(queue):
    queue.put([score.accuracy for score in grade_batch(["5"] * 500, ["5"] * 500, given=True, threads=4)])


def test_a_forked_process_grades():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    grade_batch(["5"] * 500, ["5"] * 500, given=True, threads=4)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_a_child, args=[queue])
    child.start()
    assert queue.get(timeout=60) == [1.0] * 500
    child.join(timeout=60)
    assert child.exitcode == 0


def test_several_threads_share_a_rule():
    rule, found = Rule(grader="math"), []

    def work():
        found.append(rule.grade_batch([r"\boxed{2/4}"] * 2000, ["0.5"] * 2000))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(score.accuracy == 1 for scores in found for score in scores)
