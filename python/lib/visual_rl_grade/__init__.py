"""Grades the answers of mathematical and visual reasoning models.

>>> from visual_rl_grade import grade
>>> grade(r"<think>half of 3</think> \\boxed{\\frac{3}{2}}", "1.5")
Score(overall=1.0, accuracy=1.0, format=1.0, extracted='\\\\frac{3}{2}', extra={})

As a reward of a trainer: `visual_rl_grade.easyr1`, `visual_rl_grade.verl`, `visual_rl_grade.trl`. In the place of the
package mathruler: `visual_rl_grade.mathruler`.
"""

from importlib.metadata import version

from ._core import extract_answer_tag, extract_boxed
from ._rule import Comparison, Options, Rule, Score, grade, grade_batch

__version__ = version("visual-rl-grade")
__all__ = ["Comparison", "Options", "Rule", "Score", "extract_answer_tag", "extract_boxed", "grade", "grade_batch"]
