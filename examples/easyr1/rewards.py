"""Reward functions in the three signatures that `reward.function` runs (docs/grading.md).

    train reward.function=examples/easyr1/rewards.py:short_and_right
    grade rows.jsonl --function examples/easyr1/rewards.py:compute_score
"""

import re


def last_number(text):
    found = re.findall(r"-?\d+", text)
    return found[-1] if found else None


def short_and_right(reward_inputs, most=16):
    """EasyR1's: a list of mappings for a list of scores; `overall` is the reward, other numbers are metrics."""
    scores = []
    for one in reward_inputs:
        answer = last_number(one["response"])
        right = float(answer == one["ground_truth"])
        brief = max(0.0, 1.0 - one["response_length"] / most)
        scores.append({"overall": 0.9 * right + 0.1 * brief, "accuracy": right, "extracted": answer, "brief": brief})
    return scores


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """verl's: one response for a number."""
    return float(last_number(solution_str) == ground_truth)


def exact(prompts, completions, ground_truth, **columns):
    """TRL's: lists for a list of numbers; every column of the data set is one of `columns`."""
    return [float(last_number(text) == truth) for text, truth in zip(completions, ground_truth)]
