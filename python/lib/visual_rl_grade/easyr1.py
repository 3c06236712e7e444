"""A reward for EasyR1.

A file of two lines, `my_reward.py`:

    from visual_rl_grade.easyr1 import compute_score
    REWARD_TYPE = "batch"

and `worker.reward.reward_function=my_reward.py:compute_score`. `worker.reward.reward_type` may be `batch` or
`sequential`; `worker.reward.reward_function_kwargs` are the arguments of `compute_score`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, overload

from visual_rl_grade import Comparison, Rule, Score

if TYPE_CHECKING:
    from typing_extensions import Unpack

REWARD_NAME = "visual_rl_grade"
REWARD_TYPE = "batch"

__all__ = ["compute_score"]


@overload
def compute_score(
    reward_inputs: Mapping[str, Any],
    format_weight: Optional[float] = None,
    *,
    threads: Optional[int] = None,
    **options: Unpack[Comparison],
) -> Dict[str, float]: ...
@overload
def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]],
    format_weight: Optional[float] = None,
    *,
    threads: Optional[int] = None,
    **options: Unpack[Comparison],
) -> List[Dict[str, float]]: ...
def compute_score(
    reward_inputs: Any,
    format_weight: Optional[float] = None,
    *,
    threads: Optional[int] = None,
    **options: Unpack[Comparison],
) -> Any:
    """EasyR1's reward: a list of mappings for a list of scores (batch), or one for one (sequential).

    A mapping has `response`, `ground_truth` and, where the overlong penalty is on, `response_length`. The keys of a
    score are those of EasyR1's own files: `overall`, `format` and `accuracy`, `overlong` with them where that penalty
    is on; for `reward_type="dapo"` they are `overall`, `accuracy` (1 or -1), `accuracy_normalized` (1 or 0) and
    `overlong`.

    `overall` is `(1 - format_weight) * accuracy + format_weight * format`, where the weight is .1, and .5 for `r1v`, as
    in those files.
    """
    rule = _rule(format_weight, options)
    single = isinstance(reward_inputs, Mapping)
    rows = [reward_inputs] if single else reward_inputs
    needed = ["response", "ground_truth"] + (["response_length"] if "max_response_length" in options else [])
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Sequence):
        raise TypeError(f"reward_inputs is {type(rows).__name__}, not a list of dicts")
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"reward_inputs[{at}] is {type(row).__name__}, not a dict")
        for key in needed:
            if key not in row:
                raise KeyError(f"reward_inputs[{at}] has no {key!r}; it has {', '.join(map(repr, row))}")
    responses, truths, *lengths = ([row[key] for row in rows] for key in needed)
    scores = rule.grade_batch(responses, truths, response_lengths=lengths[0] if lengths else None, threads=threads)
    form = _dapo if rule.options.get("reward_type") == "dapo" else _plain
    found = [form(score) for score in scores]
    return found[0] if single else found


def _rule(format_weight: Optional[float], options: Comparison) -> Rule:
    kind = options.get("reward_type", "math")
    if kind in ("math_accuracy", "dapo"):
        # A weight that is given all the same is refused there.
        return Rule(**options) if format_weight is None else Rule(format_weight=format_weight, **options)
    weight = format_weight if format_weight is not None else 0.5 if kind == "r1v" else 0.1
    if weight > 1:
        raise ValueError(f"format_weight is {weight}; use a number from 0 to 1")
    return Rule(accuracy_weight=1 - weight, format_weight=weight, **options)


def _plain(score: Score) -> Dict[str, float]:
    return {"overall": score.overall, "format": score.format, "accuracy": score.accuracy, **score.extra}


def _dapo(score: Score) -> Dict[str, float]:
    signed = 2 * score.accuracy - 1
    return {"overall": score.overall, "accuracy": signed, "accuracy_normalized": score.accuracy, **score.extra}
