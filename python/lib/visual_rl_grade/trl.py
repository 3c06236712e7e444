"""A reward for TRL.

    from visual_rl_grade.trl import reward_fn
    trainer = GRPOTrainer(model=..., reward_funcs=reward_fn, ...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence

from visual_rl_grade import Options, Rule, extract_answer_tag, extract_boxed

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["make_reward_fn", "reward_fn"]

#: Where the truth is looked for, the first that there is.
TRUTHS = ("solution", "answer", "ground_truth")


def make_reward_fn(
    *,
    truth: Optional[str] = None,
    name: str = "visual_rl_grade",
    threads: Optional[int] = None,
    **options: Unpack[Options],
) -> Callable[..., List[Optional[float]]]:
    """A reward function with options (`visual_rl_grade.Options`), for `reward_funcs`.

    `truth` names the column of the right answers. `name` is what TRL calls the reward in its logs.
    """
    rule = Rule(**options)

    def reward(completions: Sequence[Any], **columns: Any) -> List[Optional[float]]:
        return _rewards(rule, completions, columns, truth, threads)

    reward.__name__ = reward.__qualname__ = name
    return reward


def reward_fn(completions: Sequence[Any], **kwargs: Any) -> List[Optional[float]]:
    """1 for a right answer in the box, 0 for another: the rule `math_accuracy`, by mathruler's verdicts.

    Completions are texts or conversations. The truth is the column `solution`, else `answer`, else `ground_truth`; of a
    `solution` that holds `\\boxed{}` or `<answer>` tags, what is in the last. A row whose truth is None gets None, with
    which TRL leaves it to the other rewards.
    """
    return _rewards(_ACCURACY, completions, kwargs, None, None)


_ACCURACY = Rule(reward_type="math_accuracy")


def _rewards(
    rule: Rule, completions: Sequence[Any], columns: "dict[str, Any]", truth: Optional[str], threads: Optional[int]
) -> List[Optional[float]]:
    named = (truth,) if truth is not None else TRUTHS
    column = next((name for name in named if columns.get(name) is not None), None)
    if column is None:
        there = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"no column {' or '.join(named)} with the right answers; there are: {there}")
    truths = list(columns[column])
    responses = [_text(at, completion) for at, completion in enumerate(completions)]
    if len(responses) != len(truths):
        raise ValueError(f"{len(responses)} completions and {len(truths)} of {column}: one is needed for each")
    if column == "solution":
        truths = [_answer(one) if isinstance(one, str) else one for one in truths]
    asked = [at for at, one in enumerate(truths) if one is not None]
    lengths = None
    if "max_response_length" in rule.options:
        ids = columns.get("completion_ids")
        if ids is None:
            raise ValueError("the overlong penalty needs completion_ids, which TRL passes")
        lengths = [len(ids[at]) for at in asked]
    scores = rule.grade_batch(
        [responses[at] for at in asked], [truths[at] for at in asked], response_lengths=lengths, threads=threads
    )
    rewards: List[Optional[float]] = [None] * len(responses)
    for at, score in zip(asked, scores):
        rewards[at] = score.overall
    return rewards


def _answer(solution: str) -> str:
    """The answer that a worked solution ends with."""
    boxed = extract_boxed(solution)
    tagged = extract_answer_tag(solution) if boxed is None else boxed
    return solution if tagged is None else tagged


def _text(at: int, completion: Any) -> str:
    """What the model said: a text, or the last message of its own in a conversation."""
    if isinstance(completion, str):
        return completion
    problem = f"completions[{at}] is {type(completion).__name__}, neither a str nor a list of messages"
    if not isinstance(completion, Sequence) or isinstance(completion, bytes):
        raise TypeError(problem)
    for message in reversed(completion):
        if not hasattr(message, "get"):
            raise TypeError(f"{problem}: {type(message).__name__} is no message")
        if message.get("role", "assistant") == "assistant":
            return _content(at, message.get("content"))
    return ""


def _content(at: int, content: Any) -> str:
    """The text of a message: a str, parts of which some are text, or None beside calls of tools."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(hasattr(part, "get") for part in content):
        return "".join(part.get("text") or "" for part in content if part.get("type", "text") == "text")
    raise TypeError(f"completions[{at}]: the content is {type(content).__name__}, neither a str nor a list of parts")
