"""A judge behind an OpenAI-compatible address as a reward: the last number of its reply, over the scale."""

import json
import os
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# What another try may mend.
TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}


class Unreachable(Exception):
    """All tries failed."""


def filled(template, row):
    """Names in braces are filled in; braces around anything else stay."""

    def value(match):
        found = row.get(match.group(1))
        return match.group(0) if found is None else found if isinstance(found, str) else json.dumps(found)

    return re.sub(r"\{(\w+)\}", value, template)


def asked(config, key, text):
    body = {
        "model": config["model"],
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": config["max_tokens"],
    }
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    address = config["url"].rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=config["timeout_s"]) as answer:
        # No judge writes more; an endless answer would.
        return json.loads(answer.read(1 << 22))


def reply_of(config, key, text):
    why = ""
    for attempt in range(config["retries"] + 1):
        if attempt:
            time.sleep(min(30.0, 0.5 * 2**attempt))
        try:
            choice = asked(config, key, text)["choices"][0]
            return choice["message"].get("content") or "", attempt
        except urllib.error.HTTPError as error:
            why = "status %d: %s" % (error.code, error.read(300).decode("utf-8", "replace").strip())
            if error.code not in TRANSIENT:
                break
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            why = "%s: %s" % (type(error).__name__, error)
    raise Unreachable("%s gave no answer in %d tries: %s" % (config["url"], attempt + 1, why))


def of(config):
    """The judge as a function of a batch of rows."""
    key = os.environ.get(config["api_key_env"], "") if config["api_key_env"] else ""
    if config["api_key_env"] and not key:
        raise SystemExit("the environment variable %s (reward.judge.api_key_env) is not set" % config["api_key_env"])

    def judged(row):
        text, tries = reply_of(config, key, filled(config["prompt"], row))
        numbers = NUMBER.findall(text)
        if not numbers:
            return {"overall": 0.0, "refused": 1, "retries": tries}
        value = min(1.0, max(0.0, float(numbers[-1]) / config["scale"]))
        return {"overall": value, "refused": 0, "retries": tries}

    def judge(rows):
        with ThreadPoolExecutor(config["concurrency"]) as threads:
            return list(threads.map(judged, rows))

    return judge
