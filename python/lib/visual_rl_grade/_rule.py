"""Rules with their options, and what a response earns by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Literal, NamedTuple, Optional, Sequence, Tuple, TypedDict
from typing import Union

from . import _core

if TYPE_CHECKING:
    from typing_extensions import Unpack

RewardType = Literal["math", "math_accuracy", "look_back", "r1v", "dapo", "multiple_choice", "exact", "numeric"]
Grader = Literal["mathruler", "math"]
#: What is graded: numbers and truth values count as JSON writes them.
Text = Union[str, int, float, bool]


class Score(NamedTuple):
    """What a response earns."""

    overall: float
    """The reward."""
    accuracy: float
    """1 when the answer is right, else 0, by every rule."""
    format: float
    """1 when the response has the form that the rule asks for, else 0."""
    extracted: Optional[str]
    """The answer that was found; None where there is none."""
    extra: Dict[str, float]
    """Further numbers of the rule: `overlong`, the penalty before its factor, of `dapo` and where that is on."""


class Comparison(TypedDict, total=False):
    """What a rule can be told but for weights. An option that means nothing to the rule is a ValueError."""

    reward_type: RewardType
    """Where the answer is, and what it is worth; `math` by default."""
    grader: Grader
    """What compares, for the first five rules: `mathruler` (default), the verdicts of the package mathruler, or `math`,
    the stronger one."""
    numeric_tolerance: float
    """`numeric`: largest |given - truth| / |truth|, and |given| where the truth is 0; 1e-4 by default."""
    max_response_length: int
    """Length in tokens from which the whole overlong penalty counts; off by default."""
    overlong_buffer_length: int
    """Tokens before that over which the penalty grows."""
    overlong_penalty_factor: float
    """What the penalty is multiplied by; 1 by default."""


class Options(Comparison, total=False):
    """What a rule can be told. An option that means nothing to the rule is a ValueError."""

    accuracy_weight: float
    """Weight of the accuracy in the reward; .9 by default. Not of `math_accuracy` and `dapo`."""
    format_weight: float
    """Weight of the format in the reward; .1 by default. Not of `math_accuracy` and `dapo`."""


class Rule:
    """A rule with its options, checked once.

    >>> rule = Rule(reward_type="multiple_choice")
    >>> rule.grade("The answer is (B).", "B").accuracy
    1.0

    Raises ValueError for an option that is out of range or means nothing to the rule.
    """

    __slots__ = ("_scorer", "options")

    def __init__(self, **options: Unpack[Options]) -> None:
        self._scorer = _core.Scorer(**options)
        #: What it was made with.
        self.options: Options = options

    def __repr__(self) -> str:
        return "Rule(" + ", ".join(f"{name}={value!r}" for name, value in self.options.items()) + ")"

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rule_of, (self.options,)

    def grade(
        self, response: Text, ground_truth: Text, *, response_length: Optional[int] = None, given: bool = False
    ) -> Score:
        """Grades one response.

        `given=True` says that `response` is an answer as it would stand in the box, which counts as one in the right
        form. `response_length`, in tokens, is needed where the overlong penalty is on.
        """
        return Score._make(self._scorer.grade(response, ground_truth, response_length, given))

    def grade_batch(
        self,
        responses: Iterable[Text],
        ground_truths: Iterable[Text],
        *,
        response_lengths: Optional[Sequence[int]] = None,
        given: bool = False,
        threads: Optional[int] = None,
    ) -> List[Score]:
        """Grades many responses on all cores, or on `threads` threads; scores come in the responses' order.

        Other threads of Python's run meanwhile. Ctrl-C ends it after at most some 0.1 s.
        """
        found = self._scorer.grade_batch(responses, ground_truths, response_lengths, given, threads)
        return [Score._make(one) for one in found]


def _rule_of(options: Options) -> Rule:
    return Rule(**options)


def grade(
    response: Text,
    ground_truth: Text,
    *,
    response_length: Optional[int] = None,
    given: bool = False,
    **options: Unpack[Options],
) -> Score:
    """Grades one response by the rule that `options` name (`Options`); `Rule.grade` says what the others are.

    >>> grade("2/4", "1/2", given=True).accuracy
    0.0
    >>> grade("2/4", "1/2", given=True, grader="math").accuracy
    1.0
    """
    return Rule(**options).grade(response, ground_truth, response_length=response_length, given=given)


def grade_batch(
    responses: Iterable[Text],
    ground_truths: Iterable[Text],
    *,
    response_lengths: Optional[Sequence[int]] = None,
    given: bool = False,
    threads: Optional[int] = None,
    **options: Unpack[Options],
) -> List[Score]:
    """Grades many responses at once by the rule that `options` name (`Options`), as `Rule.grade_batch` does."""
    rule = Rule(**options)
    return rule.grade_batch(responses, ground_truths, response_lengths=response_lengths, given=given, threads=threads)
