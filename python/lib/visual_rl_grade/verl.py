"""A reward for verl.

A file of one line, `my_reward.py`:

    from visual_rl_grade.verl import compute_score, compute_scores

and `custom_reward_function.path=my_reward.py custom_reward_function.name=compute_score`, with the options under
`custom_reward_function.reward_kwargs`. For `reward_model.reward_manager=batch` the name is `compute_scores`.
"""

from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional

from visual_rl_grade import Options, Rule, Score

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["compute_score", "compute_scores"]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Optional[Dict[str, Any]] = None,
    **options: "Unpack[Options]",
) -> Dict[str, float]:
    """One response for `score`, the reward, `acc` and `format`.

    All data sources are graded alike, and `extra_info` is not looked at. verl's own reward managers know lengths; the
    overlong penalty is theirs.
    """
    return _form(Rule(**options).grade(solution_str, ground_truth))


def compute_scores(
    data_sources: Iterable[str],
    solution_strs: Iterable[str],
    ground_truths: Iterable[Any],
    extra_infos: Optional[Iterable[Any]] = None,
    *,
    threads: Optional[int] = None,
    **options: "Unpack[Options]",
) -> List[Dict[str, float]]:
    """`compute_score` for the reward manager `batch`, on all cores or `threads` threads."""
    return [_form(score) for score in Rule(**options).grade_batch(solution_strs, ground_truths, threads=threads)]


def _form(score: Score) -> Dict[str, float]:
    return {"score": score.overall, "acc": score.accuracy, "format": score.format}
