from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union, final

__all__ = ["Scorer", "extract_answer_tag", "extract_boxed"]

_Text = Union[str, int, float, bool]
_Grades = Tuple[float, float, float, Optional[str], Dict[str, float]]

def extract_boxed(text: _Text) -> Optional[str]:
    r"""The content of the last `\boxed{...}`; None where there is none, or where the last one is not closed."""

def extract_answer_tag(text: _Text) -> Optional[str]:
    """The content of the last `<answer>...</answer>`; None where there is none."""

@final
class Scorer:
    """A rule with its options, checked: what `visual_rl_grade.Rule` is made of."""

    def __new__(
        cls,
        reward_type: str = "math",
        *,
        grader: Optional[str] = None,
        accuracy_weight: Optional[float] = None,
        format_weight: Optional[float] = None,
        numeric_tolerance: Optional[float] = None,
        max_response_length: Optional[int] = None,
        overlong_buffer_length: Optional[int] = None,
        overlong_penalty_factor: Optional[float] = None,
    ) -> "Scorer": ...
    @property
    def punishes_length(self) -> bool: ...
    def grade(
        self, response: _Text, ground_truth: _Text, response_length: Optional[int], given: bool
    ) -> _Grades: ...
    def grade_batch(
        self,
        responses: Iterable[_Text],
        ground_truths: Iterable[_Text],
        response_lengths: Optional[Sequence[int]],
        given: bool,
        threads: Optional[int],
    ) -> List[_Grades]: ...
