"""Runs a reward function of Python's for the program that started it.

The first argument says which, as JSON. On standard output stands one line when the function is ready, and then one line
for each response, in order; standard input has a line {"count": n} and n lines of responses, again and again. Whatever
the function prints goes to standard error.
"""

import difflib
import faulthandler
import importlib.util
import inspect
import json
import math
import os
import sys
import traceback

SPEC = json.loads(sys.argv[1])
# Requests and replies have descriptors of their own: prints, those of C libraries too, go to standard error, and a
# function that reads standard input finds it empty.
REQUESTS = os.fdopen(os.dup(0), "r", encoding="utf-8")
REPLIES = os.fdopen(os.dup(1), "w", encoding="utf-8")
with open(os.devnull) as nothing:
    os.dup2(nothing.fileno(), 0)
os.dup2(2, 1)
sys.stdin, sys.stdout = os.fdopen(0, "r", closefd=False), sys.stderr


def reply(value):
    REPLIES.write(json.dumps(value, allow_nan=False) + "\n")
    REPLIES.flush()


class Refused(Exception):
    """What the function gave is no score; the text says why."""


class Said(Exception):
    """What went wrong, in words that need no traceback."""


def failed(text):
    reply({"failed": text})
    sys.exit(0)


def own_traceback(error):
    """The traceback without this file's frames and those of the import system."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if f.filename != __file__ and not f.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n"] if frames else []
    return "".join(lines + traceback.format_list(frames) + traceback.format_exception_only(type(error), error)).rstrip()


def load(file, name):
    folder = os.path.dirname(os.path.abspath(file))
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("reward_function", file)
    if spec is None:
        failed("the file's name has to end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reward_function"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit of a script, too
        failed("the file cannot be loaded:\n" + own_traceback(error))
    function = getattr(module, name, None)
    if not callable(function):
        there = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
        ]
        near = difflib.get_close_matches(name, there, n=3, cutoff=0.5)
        hint = "did you mean %s?" % " or ".join(near) if near else "there are " + (", ".join(there) or "none")
        failed("it has no function %s; %s" % (name, hint))
    return module, function


def style_of(module, function, wanted):
    """How it is called: what was asked for, what the file says (EasyR1), or what the names of its parameters say."""
    if wanted != "auto":
        return wanted
    said = getattr(module, "REWARD_TYPE", None)
    if said in ("batch", "sequential"):
        return said
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return "batch"
    if "solution_str" in names:
        return "verl"
    if "completions" in names:
        return "trl"
    if names and names[0] in ("reward_input", "sample", "item"):
        return "sequential"
    return "batch"


def number(value, what):
    """A finite number, from numpy and torch, too."""
    if value is None or isinstance(value, (str, bytes, list, tuple, dict)):
        raise Refused("%s is %s, not a number" % (what, shown(value)))
    try:
        found = float(value)
    except Exception:  # OverflowError of a long integer, whatever a class of the function's raises
        raise Refused("%s is %s, not a number" % (what, shown(value)))
    if not math.isfinite(found):
        raise Refused("%s is %s; a reward is a finite number" % (what, shown(value)))
    return found


def shown(value):
    try:
        text = repr(value)
    except Exception:  # no digits of a long integer, a class of the function's
        text = "a value of the type " + type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def text_of(value):
    """A text that can be sent: halves of a pair that stand alone have no UTF-8."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def score(value):
    """The reply to one response."""
    if not isinstance(value, dict):
        return {"overall": number(value, "the score")}
    key = "overall" if "overall" in value else "score"
    if key not in value:
        raise Refused("the score has neither `overall` nor `score`, but %s" % (", ".join(map(str, value)) or "nothing"))
    out = {"overall": number(value[key], "`%s`" % key)}
    for name, part in value.items():
        if name in (key, "id") or part is None:
            continue
        if name == "extracted":
            out[name] = text_of(part)
        elif name in ("accuracy", "format"):
            out[name] = number(part, "`%s`" % name)
        elif not isinstance(part, (str, bytes, list, tuple, dict)):
            try:
                out[text_of(name)] = number(part, "`%s`" % text_of(name))
            except Refused:
                pass  # no metric for this response
    return out


def parsed(text):
    """Columns are text; what is JSON in them (lists, objects) is read."""
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def row(line):
    columns = {key: parsed(value) for key, value in line.pop("columns", {}).items()}
    line["images"] = line.get("images", [])
    line["prompt"] = line.get("prompt", "")
    # The row's own columns stand beside what the program adds, which wins.
    return {**columns, **line}, columns


def easyr1_batch(function, rows):
    return function([one for one, _ in rows])


def trl(function, rows):
    given = {key: [one.get(key) for one, _ in rows] for one, _ in rows for key in one}
    given["prompts"], given["completions"] = given.pop("prompt"), given.pop("response")
    given["completion_lengths"] = given.pop("response_length")
    parameters = inspect.signature(function).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        given = {key: value for key, value in given.items() if key in parameters}
    return function(**given)


def one_by_one(style, function, one, columns):
    if style == "sequential":
        return function(one)
    extra = columns.get("extra_info")
    return function(
        data_source=columns.get("data_source", ""),
        solution_str=one["response"],
        ground_truth=one["ground_truth"],
        extra_info=extra if isinstance(extra, dict) else one,
    )


def wrong(index, rows, text):
    failed("on response %d (row %s): %s" % (index + 1, shown(rows[index][0]["id"]), text))


def batch(style, function, rows):
    call = easyr1_batch if style == "batch" else trl
    try:
        scores = call(function, rows)
    except Said as error:
        failed(str(error))
    except BaseException as error:  # SystemExit, too: the process is kept
        names = "rows %s" % shown([one["id"] for one, _ in rows])
        failed("it raised on a batch of %d (%s):\n%s" % (len(rows), names, own_traceback(error)))
    if isinstance(scores, (str, bytes, dict)) or not hasattr(scores, "__len__") or not hasattr(scores, "__iter__"):
        failed("it returned %s, and a list of one score for each of %d responses is needed" % (shown(scores), len(rows)))
    if len(scores) != len(rows):
        failed("it returned %d scores for %d responses; give one for each, in their order" % (len(scores), len(rows)))
    for index, value in enumerate(scores):
        try:
            found = score(value)
        except Refused as error:
            wrong(index, rows, str(error))
        reply(found)


def each(style, function, rows):
    for index, (one, columns) in enumerate(rows):
        try:
            found = score(one_by_one(style, function, one, columns))
        except Refused as error:
            wrong(index, rows, str(error))
        except BaseException as error:
            wrong(index, rows, "it raised\n" + own_traceback(error))
        reply(found)


def says_where_it_hangs(share):
    """Writes where it stands to standard error after this share of its time, before it is killed."""
    faulthandler.dump_traceback_later(SPEC["timeout"] * share, file=sys.__stderr__)


def main():
    # Python itself has taken some of the time.
    says_where_it_hangs(0.6)
    if "judge" in SPEC:
        import judge

        style, function = "batch", judge.of(SPEC["judge"], Said)
    else:
        module, function = load(SPEC["file"], SPEC["name"])
        style = style_of(module, function, SPEC["style"])
        kwargs = SPEC["kwargs"]
        if kwargs:
            inner = function
            function = lambda *args, **given: inner(*args, **{**given, **kwargs})  # noqa: E731
            function.__signature__ = inspect.signature(inner)
    faulthandler.cancel_dump_traceback_later()
    reply({"ready": style})
    for line in REQUESTS:
        rows = [row(json.loads(REQUESTS.readline())) for _ in range(json.loads(line)["count"])]
        says_where_it_hangs(0.9)
        (batch if style in ("batch", "trl") else each)(style, function, rows)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
