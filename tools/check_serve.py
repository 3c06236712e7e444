"""Asks a running `serve` with the official openai package, and as VLMEvalKit and lmms-eval do.

    serve --model tests/fixtures/models/tied_gqa --port 8000 &
    python tools/check_serve.py http://127.0.0.1:8000/v1 [--load REQUESTS] [--generate PROGRAM --model DIR]

Needs `openai`, `requests` and `pillow`. Exit code 1 on the first thing that is not as it should be.
"""

import argparse
import base64
import io
import json
import random
import statistics
import subprocess
import tempfile
import threading
import time

import openai
import requests
from PIL import Image


def picture(fmt, size=(56, 84)):
    image = Image.new("RGB", size)
    image.putdata([(x * 4 % 256, y * 3 % 256, (x * y) % 256) for y in range(size[1]) for x in range(size[0])])
    out = io.BytesIO()
    image.save(out, format=fmt)
    return out.getvalue()


def data_url(data, kind):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def check(what, condition, shown=""):
    if not condition:
        raise SystemExit(f"not as it should be: {what} {shown}")
    print(f"ok  {what}")


def refused(what, kind, part, call):
    try:
        call()
    except kind as error:
        check(what, part in str(error), error)
    else:
        raise SystemExit(f"not refused: {what}")


def with_openai(base, model):
    client = openai.OpenAI(base_url=base, api_key="sk-none", max_retries=0)
    check("models", model in [m.id for m in client.models.list().data])
    check("model", all(client.models.retrieve(m.id).id == m.id for m in client.models.list().data))
    user = [{"role": "user", "content": "What is this?"}]
    settings = dict(model=model, messages=user, seed=5, max_tokens=30)
    whole = client.chat.completions.create(**settings)
    check("chat", whole.choices[0].finish_reason in ("stop", "length") and whole.usage.completion_tokens > 0)
    again = client.chat.completions.create(**settings)
    check("the same seed", again.choices[0].message.content == whole.choices[0].message.content)

    stream = client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    text, usage = "", None
    for part in stream:
        text += "".join(choice.delta.content or "" for choice in part.choices)
        usage = part.usage or usage
    check("stream", text == whole.choices[0].message.content)
    check("usage of a stream", usage == whole.usage)

    url = data_url(picture("PNG"), "png")
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    seen = client.chat.completions.create(
        **{**settings, "messages": [{"role": "user", "content": parts}]}, extra_body={"visual_focus": True}
    )
    check("picture", seen.usage.prompt_tokens > whole.usage.prompt_tokens)
    focus = seen.choices[0].model_extra["visual_focus"]
    check("visual focus", len(focus) == seen.usage.completion_tokens and all(0 <= f["focus"] <= 1 for f in focus))

    several = client.chat.completions.create(**settings, n=3, temperature=0.9, logprobs=True)
    check("n", [choice.index for choice in several.choices] == [0, 1, 2])
    entries = [entry for choice in several.choices for entry in choice.logprobs.content]
    check("logprobs", len(entries) == several.usage.completion_tokens and all(e.logprob <= 0 for e in entries))
    cut = whole.choices[0].message.content[4:7]
    stopped = client.chat.completions.create(**settings, stop=[cut])
    check("stop", stopped.choices[0].message.content == whole.choices[0].message.content.split(cut)[0])
    continued = client.completions.create(model=model, prompt="One and one is", seed=1, max_tokens=10)
    check("completions", continued.object == "text_completion" and continued.choices[0].text is not None)

    tops = client.chat.completions.create(**settings, logprobs=True, top_logprobs=4, temperature=0).choices[0].logprobs.content
    check("top_logprobs", all(len(e.top_logprobs) == 4 and e.top_logprobs[0].token == e.token for e in tops))
    three = dict(model=model, prompt=["One", "Two", "One"], seed=1, max_tokens=10)
    whole_three = client.completions.create(**three, n=2, logprobs=2)
    check("several prompts", [choice.index for choice in whole_three.choices] == list(range(6)))
    alone = client.completions.create(**{**three, "prompt": "One", "seed": 3}, n=2)
    check("each as alone", [c.text for c in alone.choices] == [c.text for c in whole_three.choices[4:]])
    parts = [""] * 6
    for part in client.completions.create(**three, n=2, stream=True):
        for choice in part.choices:
            parts[choice.index] += choice.text
    check("several prompts, in parts", parts == [choice.text for choice in whole_three.choices])
    lists = [choice.logprobs for choice in whole_three.choices]
    check("likeliest of completions", all(len(l.top_logprobs) == len(l.tokens) == len(l.text_offset) for l in lists))

    bad = lambda **change: lambda: client.chat.completions.create(**{**settings, **change})
    refused("unknown model", openai.NotFoundError, "does not exist", bad(model="no-such-model"))
    refused("bad temperature", openai.BadRequestError, "temperature", bad(temperature=9))
    refused("tools", openai.BadRequestError, "tools", bad(tools=[{"type": "function", "function": {"name": "f"}}]))
    refused("top_logprobs", openai.BadRequestError, "top_logprobs", bad(logprobs=True, top_logprobs=21))
    refused("10,000 stop strings", openai.BadRequestError, "stop", bad(stop=[str(i) for i in range(10_000)]))
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    refused("a picture of a network", openai.BadRequestError, "fetches nothing", bad(messages=[{"role": "user", "content": [part]}]))
    refused("a long answer", openai.BadRequestError, "max_tokens", bad(max_tokens=1 << 29))
    large = requests.post(f"{base}/chat/completions", data=b"x" * (100 << 20), headers={"Content-Type": "application/json"})
    check("a body of 100 MiB", large.status_code == 413, large.text[:200])


def as_the_kits_do(base, model):
    # VLMEvalKit, vlmeval/api/gpt.py: requests, a JPEG with its detail, n, temperature, max_tokens, the answer stripped.
    content = [
        dict(type="image_url", image_url=dict(url=data_url(picture("JPEG"), "jpeg"), detail="low")),
        dict(type="text", text="Question: what is this?\nOptions:\nA. a\nB. b\nPlease select the correct answer."),
    ]
    messages = [dict(role="system", content="Answer briefly."), dict(role="user", content=content)]
    payload = dict(model=model, messages=messages, n=1, temperature=0, max_tokens=2048)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-none"}
    # A model that draws at random may go on to its last token; the shape is what is checked.
    payload["max_tokens"] = 64
    answer = requests.post(f"{base}/chat/completions", headers=headers, data=json.dumps(payload), timeout=66)
    check("VLMEvalKit, GPT4V", answer.ok and isinstance(answer.json()["choices"][0]["message"]["content"].strip(), str))
    turns = [messages[0], messages[1], dict(role="assistant", content=[dict(type="text", text="A")]),
             dict(role="user", content=[dict(type="text", text="Why?")])]
    answer = requests.post(f"{base}/chat/completions", headers=headers, data=json.dumps({**payload, "messages": turns}), timeout=66)
    check("VLMEvalKit, several turns", answer.ok, answer.text[:300])
    # vlmeval/api/lmdeploy.py: the name from /v1/models, found without a key, and fields beside the URL.
    endpoint = f"{base}/chat/completions"
    name = requests.get("".join([endpoint.split("v1")[0], "v1/models"])).json()["data"][0]["id"]
    content[0]["image_url"]["max_dynamic_patch"] = 6
    answer = requests.post(endpoint, headers=headers, data=json.dumps({**payload, "model": name}), timeout=66)
    check("VLMEvalKit, LMDeployAPI", answer.ok, answer.text[:300])

    # lm-eval, models/openai_completions.py: a batch of prompts as token ids.
    payload = dict(model=model, prompt=[[1, 2, 3], [4, 5]], max_tokens=16, temperature=0, stop=["\n\n"], seed=1234)
    answer = requests.post(f"{base}/completions", headers=headers, json=payload)
    check("lm-eval, generate_until", answer.ok and [c["index"] for c in answer.json()["choices"]] == [0, 1], answer.text[:300])

    # lmms-eval, simple/openai_compatible.py: many at a time, the text before PNGs; names with o1 in them have other fields.
    import asyncio

    async def batch():
        client = openai.AsyncOpenAI(base_url=base, api_key="sk-none")
        png = {"type": "image_url", "image_url": {"url": data_url(picture("PNG"), "png")}}
        ask = lambda i: client.chat.completions.create(
            model=model, max_tokens=32, temperature=0,
            messages=[{"role": "user", "content": [{"type": "text", "text": f"{i}: what is this?"}, png, png]}],
        )
        other = client.chat.completions.create(
            model=model, max_completion_tokens=32, reasoning_effort="medium", response_format={"type": "text"},
            messages=[{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}],
        )
        return await asyncio.gather(*[ask(i) for i in range(16)], other)

    replies = asyncio.run(batch())
    check("lmms-eval", all(reply.choices[0].message.content is not None for reply in replies))


def against_generate(base, model, program, folder):
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(picture("PNG"))
        file.flush()
        for seed in (1, 2, 3):
            command = [program, "--model", folder, "--image", file.name, "--prompt", "What is this?", "--temperature", "1",
                       "--seed", str(seed), "--max-new-tokens", "40", "--backend", "flex"]
            # Bytes: text mode would change a carriage return.
            written = subprocess.run(command, check=True, capture_output=True).stdout.decode()
            parts = [{"type": "image_url", "image_url": {"url": data_url(picture("PNG"), "png")}},
                     {"type": "text", "text": "What is this?"}]
            client = openai.OpenAI(base_url=base, api_key="sk-none")
            reply = client.chat.completions.create(
                model=model, seed=seed, max_tokens=40, messages=[{"role": "user", "content": parts}]
            )
            check(f"generate --seed {seed}", written == reply.choices[0].message.content + "\n")


def metric(base, name):
    for line in requests.get(base.removesuffix("/v1") + "/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    return 0.0


def load(base, model, count):
    """`count` requests at once, every second one cut off; times of the others, and what is left afterwards."""
    url = data_url(picture("PNG"), "png")
    times, first, failures = [], [], []

    def one(i):
        content = [{"type": "text", "text": f"{i}: what is this?"}]
        if i % 3 == 0:
            content.append({"type": "image_url", "image_url": {"url": url}})
        body = dict(model=model, messages=[{"role": "user", "content": content}], seed=i, max_tokens=60, min_tokens=60, stream=True)
        start = time.time()
        with requests.post(f"{base}/chat/completions", json=body, stream=True, timeout=300) as answer:
            if not answer.ok:
                failures.append(answer.text)
                return
            last = None
            for k, line in enumerate(answer.iter_lines()):
                if k == 4:
                    first.append(time.time() - start)
                if i % 2 == 1 and k > random.Random(i).randrange(2, 80):
                    return  # cut off
                last = line or last
        if last != b"data: [DONE]":
            failures.append(last)
        times.append(time.time() - start)

    before = metric(base, "process_resident_memory_bytes")
    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    start = time.time()
    [thread.start() for thread in threads]
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, metric(base, "process_resident_memory_bytes"))
        time.sleep(0.2)
    seconds = time.time() - start
    while any(metric(base, f"serve_{name}") for name in ("rows", "cached_rows", "requests_running", "requests_waiting")):
        check("nothing is left after ten seconds", time.time() < start + seconds + 10)
        time.sleep(0.1)
    check("load", not failures, failures[:2])
    cuts = statistics.quantiles(times, n=100)
    after = metric(base, "process_resident_memory_bytes")
    print(
        f"{count} requests, {count - len(times)} cut off, {seconds:.1f} s; answered after p50 {cuts[49]:.2f} s, "
        f"p99 {cuts[98]:.2f} s; first text p50 {statistics.median(first):.2f} s; memory before {before / 1e6:.0f} MB, "
        f"most {peak / 1e6:.0f} MB, after {after / 1e6:.0f} MB"
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("base")
    arguments.add_argument("--load", type=int, default=0)
    arguments.add_argument("--generate")
    arguments.add_argument("--model")
    arguments = arguments.parse_args()
    model = requests.get(f"{arguments.base}/models").json()["data"][0]["id"]
    with_openai(arguments.base, model)
    as_the_kits_do(arguments.base, model)
    if arguments.generate:
        against_generate(arguments.base, model, arguments.generate, arguments.model)
    if arguments.load:
        load(arguments.base, model, arguments.load)


if __name__ == "__main__":
    main()
