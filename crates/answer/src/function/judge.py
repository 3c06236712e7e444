"""A judge behind an OpenAI-compatible address as a reward: the last number of its reply, over the scale."""

import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# What another try may mend.
TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}


# No judge writes more; an endless answer would.
MOST_BYTES = 1 << 22


class Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along to wherever it leads, and the question would not."""

    def redirect_request(self, request, fp, code, msg, headers, newurl):
        return None


OPENER = urllib.request.build_opener(Unmoved)


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
    until = time.monotonic() + config["timeout_s"]
    with OPENER.open(request, timeout=config["timeout_s"]) as answer:
        parts, size = [], 0
        # The limit of a socket begins anew with each byte, so that an answer of drops would never end.
        while True:
            part = answer.read1(1 << 16)
            parts.append(part)
            size += len(part)
            if not part:
                return json.loads(b"".join(parts))
            if size > MOST_BYTES:
                raise ValueError("the answer has more than %d bytes" % MOST_BYTES)
            if time.monotonic() > until:
                raise TimeoutError("the answer was not complete within %g s" % config["timeout_s"])


def content_of(choice):
    """The text of a reply, which some servers give in parts; empty for none."""
    content = choice["message"].get("content") or ""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content)
    if not isinstance(content, str):
        raise ValueError("the answer's content is no text")
    return content


def reply_of(config, key, text):
    why = ""
    for attempt in range(config["retries"] + 1):
        if attempt:
            time.sleep(min(30.0, 0.5 * 2**attempt))
        try:
            return content_of(asked(config, key, text)["choices"][0]), attempt
        except urllib.error.HTTPError as error:
            why = "status %d: %s" % (error.code, error.read(300).decode("utf-8", "replace").strip())
            if 300 <= error.code < 400:
                where = error.headers.get("Location", "nowhere")
                why = "status %d: it sends on to %s, which is not followed; name the last address" % (error.code, where)
            if error.code not in TRANSIENT:
                break
        except http.client.InvalidURL as error:
            why = "it is no address (%s)" % error
            break
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
            why = "%s: %s" % (type(error).__name__, error)
    tries = "1 try" if attempt == 0 else "%d tries" % (attempt + 1)
    return "%s gave no answer in %s: %s" % (config["url"], tries, why), None


def of(config, failure):
    """The judge as a function of a batch of rows; `failure` is raised with what went wrong, in words."""
    key = os.environ.get(config["api_key_env"], "") if config["api_key_env"] else ""
    if config["api_key_env"] and not key:
        raise SystemExit("the environment variable %s (reward.judge.api_key_env) is not set" % config["api_key_env"])

    ended = threading.Event()

    def judged(row):
        # Where one question has no answer the batch has none: the others need not be tried to the end.
        if ended.is_set():
            return None
        text, tries = reply_of(config, key, filled(config["prompt"], row))
        if tries is None:
            ended.set()
            return text
        numbers = NUMBER.findall(text)
        if not numbers:
            return {"overall": 0.0, "refused": 1, "retries": tries}
        value = min(1.0, max(0.0, float(numbers[-1]) / config["scale"]))
        return {"overall": value, "refused": 0, "retries": tries}

    def judge(rows):
        ended.clear()
        with ThreadPoolExecutor(config["concurrency"]) as threads:
            found = list(threads.map(judged, rows))
        for problem in found:
            if isinstance(problem, str):
                raise failure(problem)
        return found

    return judge
