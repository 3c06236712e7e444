"""The forms that EasyR1, verl, TRL and users of mathruler call."""

import importlib.util
import pickle
from functools import partial

import pytest

from visual_rl_grade import Rule, Score, easyr1, extract_answer_tag, extract_boxed, grade, mathruler, trl, verl

RIGHT = r"<think>half of 3</think> \boxed{\frac{3}{2}}"
WRONG = r"<think>half of 3</think> \boxed{2}"
BARE = r"\boxed{\frac{3}{2}}"


def loaded(path):
    """A file as EasyR1 and verl load theirs."""
    spec = importlib.util.spec_from_file_location("custom_reward_fn", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_are_tuples_with_names():
    score = grade(RIGHT, "3/2")
    assert score == Score(1.0, 1.0, 1.0, r"\frac{3}{2}", {})
    assert score._asdict()["extracted"] == r"\frac{3}{2}"
    assert grade("7", "3", reward_type="dapo") == Score(-1.0, 0.0, 0.0, None, {"overlong": 0.0})
    assert pickle.loads(pickle.dumps(score)) == score
    rule = pickle.loads(pickle.dumps(Rule(reward_type="numeric", numeric_tolerance=0.1)))
    assert rule.grade("1.05", "1").accuracy == 1
    assert repr(rule) == "Rule(reward_type='numeric', numeric_tolerance=0.1)"


def test_numbers_count_as_json_writes_them():
    for number, text in [(5, "5"), (0.5, "0.5"), (True, "true"), (False, "false"), (10**30, "1" + "0" * 30)]:
        assert grade(number, text, given=True, reward_type="exact").extracted == text
        assert grade(text, number, given=True, reward_type="exact").accuracy == 1


def test_numbers_of_numpy():
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    for number in [numpy.int64(5), numpy.float64(5), numpy.str_("5")]:
        assert grade("5", number, given=True).accuracy == 1


def test_easyr1_batch_and_sequential(tmp_path):
    shim = tmp_path / "my_reward.py"
    shim.write_text('from visual_rl_grade.easyr1 import compute_score\nREWARD_TYPE = "batch"\n')
    module = loaded(shim)
    inputs = [{"response": text, "response_length": 9, "ground_truth": "1.5"} for text in [RIGHT, WRONG, BARE]]
    assert module.REWARD_TYPE == "batch"
    batch = partial(module.compute_score)(inputs)
    assert batch == [
        {"overall": 1.0, "format": 1.0, "accuracy": 1.0},
        {"overall": 0.1, "format": 1.0, "accuracy": 0.0},
        {"overall": 0.9, "format": 0.0, "accuracy": 1.0},
    ]
    assert all(type(value) is float for score in batch for value in score.values())
    assert [module.compute_score(one) for one in inputs] == batch
    # EasyR1's own arithmetic, to the last bit.
    for weight in [0.0, 0.3, 0.5, 1.0]:
        for one, score in zip(batch, module.compute_score(inputs, weight)):
            assert score["overall"] == (1 - weight) * one["accuracy"] + weight * one["format"]
    assert module.compute_score([]) == []


def test_easyr1_other_rules():
    tagged = {"response": "<think>a</think><answer>3</answer>", "ground_truth": "3"}
    half = easyr1.compute_score({**tagged, "response": "<answer>3</answer>"}, reward_type="r1v")
    assert half == {"overall": 0.5, "format": 0.0, "accuracy": 1.0}
    lengths = {"max_response_length": 100, "overlong_buffer_length": 20, "overlong_penalty_factor": 0.5}
    row = {"response": "so\nAnswer: 3", "ground_truth": "3", "response_length": 90}
    dapo = partial(easyr1.compute_score, reward_type="dapo", **lengths)
    assert dapo([row]) == [{"overall": 0.75, "accuracy": 1.0, "accuracy_normalized": 1.0, "overlong": -0.5}]
    wrong = dapo({**row, "ground_truth": "4", "response_length": 3})
    assert wrong == {"overall": -1.0, "accuracy": -1.0, "accuracy_normalized": 0.0, "overlong": 0.0}
    assert easyr1.compute_score([row], **lengths)[0]["overlong"] == -0.5
    for bad, error, words in [
        ("text", TypeError, "list of dicts"),
        ([RIGHT], TypeError, r"reward_inputs\[0\] is str"),
        ([{"response": RIGHT}], KeyError, "ground_truth"),
        ([{"response": RIGHT, "ground_truth": None}], TypeError, r"ground_truths\[0\] is NoneType"),
    ]:
        with pytest.raises(error, match=words):
            easyr1.compute_score(bad)
    with pytest.raises(KeyError, match="response_length"):
        easyr1.compute_score([tagged], **lengths)
    for bad in [2, -1, float("nan")]:
        with pytest.raises(ValueError, match="weight"):
            easyr1.compute_score([tagged], bad)
    with pytest.raises(ValueError, match="means nothing"):
        easyr1.compute_score([tagged], 0.5, reward_type="dapo")


def test_verl(tmp_path):
    shim = tmp_path / "my_reward.py"
    shim.write_text("from visual_rl_grade.verl import compute_score, compute_scores\n")
    module = loaded(shim)
    score = module.compute_score(data_source="geo3k", solution_str=BARE, ground_truth="3/2", extra_info={"index": 1})
    assert score == {"score": 0.9, "acc": 1.0, "format": 0.0}
    batch = module.compute_scores(
        data_sources=["a", "b"],
        solution_strs=[RIGHT, WRONG],
        ground_truths=["3/2"] * 2,
        extra_infos=[{}, {}],
        grader="math",
    )
    assert [one["acc"] for one in batch] == [1.0, 0.0]
    assert verl.compute_score("x", "it is B", "B", reward_type="multiple_choice")["acc"] == 1.0


def trl_calls(function, completions, **columns):
    """A reward as GRPOTrainer calls it."""
    return function(
        prompts=["p"] * len(completions),
        completions=completions,
        completion_ids=[[0] * 90] * len(completions),
        trainer_state=object(),
        **columns,
    )


def test_trl_texts_and_conversations():
    texts = [BARE, WRONG, "no box"]
    spoken = [[{"role": "assistant", "content": text}] for text in texts]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
    tools = [
        [{"role": "assistant", "content": None}, {"role": "tool", "content": r"\boxed{9}"}, message[0]]
        for message in spoken
    ]
    for completions in [texts, spoken, parts, tools]:
        for column in ["solution", "answer", "ground_truth"]:
            assert trl_calls(trl.reward_fn, completions, **{column: ["1.5"] * 3}) == [1.0, 0.0, 0.0]
    # A worked solution, as in NuminaMath and R1-V; a row for another reward.
    worked = [r"So it is \boxed{\frac32}.", "<answer> 1.5 </answer>", None]
    assert trl_calls(trl.reward_fn, [BARE] * 3, solution=worked) == [1.0, 1.0, None]
    assert trl.reward_fn.__name__ == "reward_fn"


def test_trl_with_options():
    choice = trl.make_reward_fn(reward_type="multiple_choice", truth="letter", name="choice")
    assert choice.__name__ == "choice"
    assert trl_calls(choice, ["The answer is (B).", "A"], letter=["B", "B"], answer=["A", "A"]) == [0.9, 0.0]
    long = trl.make_reward_fn(max_response_length=100, overlong_buffer_length=20)
    assert trl_calls(long, [RIGHT], answer=["3/2"]) == [0.5]
    with pytest.raises(ValueError, match="no column letter"):
        trl_calls(choice, ["A"], answer=["A"])
    with pytest.raises(ValueError, match="2 completions and 1"):
        trl_calls(trl.reward_fn, ["A", "B"], answer=["A"])
    for bad in [5, [5], [{"role": "assistant", "content": 5}]]:
        with pytest.raises(TypeError, match=r"completions\[0\]"):
            trl_calls(trl.reward_fn, [bad], answer=["A"])


def test_mathruler():
    assert mathruler.extract_boxed_content(RIGHT) == r"\frac{3}{2}"
    assert mathruler.extract_boxed_content("nothing") == "None"
    assert mathruler.grade_answer("0.5", r"\frac12") is True
    assert mathruler.grade_answer("2/4", "1/2") is False
    assert mathruler.grade_answer(None, "1") is False
    assert (extract_boxed("x"), extract_answer_tag("<answer>3</answer>")) == (None, "3")
