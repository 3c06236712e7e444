"""Times the wheel against the Python package mathruler on the same pairs, and counts where their verdicts differ.

    pip install mathruler==0.1.0 sympy==1.14.0 pylatexenc==2.11 tqdm visual-rl-grade
    python python/bench/against_mathruler.py [PAIRS]

The pairs are the fixtures of crates/answer, each again with other digits until there are enough, so that no cache knows
them. Times are of this process's processor, all its threads together, so other work on the machine does not count;
`wall` is by the clock. A pair that takes mathruler more than five seconds is cut off, and counted.
"""

import json
import signal
import sys
import time
from pathlib import Path

from mathruler.grader import grade_answer as mathruler

from visual_rl_grade import Rule

FIXTURES = Path(__file__).parents[2] / "crates/answer/tests/fixtures"
CUT = 5


def pairs(count):
    rows = []
    for name in ["mathruler_pairs", "mathruler_generated"]:
        rows += [json.loads(line)[:2] for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    for turn in range(-(-count // len(rows))):
        digits = str.maketrans("0123456789", "".join(str((digit + turn) % 10) for digit in range(10)))
        yield from ((given.translate(digits), truth.translate(digits)) for given, truth in rows)


class TookTooLong(BaseException):
    """Not an Exception, which mathruler would swallow."""


def too_long(signal_number, frame):
    raise TookTooLong


def timed(name, work, count):
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"| {name} | {processor:.2f} s | {processor / count * 1e6:.1f} us | {wall:.2f} s |", flush=True)
    return found


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rows = list(pairs(count))[:count]
    given, truths = zip(*rows)
    print(f"{count} gradings, {len(set(rows))} different pairs\n\n| | processor | each | wall |\n|---|---|---|---|")
    rule, stronger = Rule(reward_type="math_accuracy"), Rule(reward_type="math_accuracy", grader="math")
    batch = timed("`grade_batch`, `mathruler`", lambda: rule.grade_batch(given, truths, given=True), count)
    timed("`Rule.grade`, `mathruler`", lambda: [rule.grade(*row, given=True) for row in rows], count)
    timed("`grade_batch`, `math`", lambda: stronger.grade_batch(given, truths, given=True), count)
    timed("`Rule.grade`, `math`", lambda: [stronger.grade(*row, given=True) for row in rows], count)
    signal.signal(signal.SIGALRM, too_long)

    def by_mathruler():
        verdicts = []
        for row in rows:
            signal.alarm(CUT)
            try:
                verdicts.append(mathruler(*row))
            except TookTooLong:
                verdicts.append("cut off")
            except Exception as error:
                verdicts.append(type(error).__name__)
            signal.alarm(0)
        return verdicts

    verdicts = timed("mathruler 0.1.0 (Python)", by_mathruler, count)
    cut = sum(isinstance(verdict, str) for verdict in verdicts)
    differ = [row for row, ours, its in zip(rows, batch, verdicts) if not isinstance(its, str) and its != ours.accuracy]
    print(f"\n{cut} cut off or raised; of the others {len(differ)} verdicts differ")
    for row in differ[:20]:
        print(*map(repr, row))


if __name__ == "__main__":
    main()
