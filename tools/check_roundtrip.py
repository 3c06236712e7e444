"""Does transformers read a folder that this project saved, and compute the same with it?

    python tools/check_roundtrip.py DIR GOLDEN [--tolerance 1e-3]

DIR is a saved Hugging Face folder; GOLDEN one tests/fixtures/golden/<case>.safetensors made from the weights that DIR
should hold. Loads DIR in f32, refuses missing, unexpected and mismatched tensors, and compares image features, hidden
states, logits and greedy tokens. Also checks that tokenizer and chat template still give the golden's ids when
DIR has them. Exits 0 when everything agrees, 1 when not.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, GenerationConfig, Qwen2Tokenizer


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", type=Path)
    p.add_argument("golden", type=Path)
    p.add_argument("--tolerance", type=float, default=1e-3, help="largest absolute difference allowed (default 1e-3)")
    a = p.parse_args()
    g, case = load_file(a.golden), json.loads(a.golden.with_suffix(".json").read_text())
    model, info = AutoModelForImageTextToText.from_pretrained(
        a.dir, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model.eval()
    failures = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            failures.append(f"{kind}: {sorted(map(str, info[kind]))[:8]}")
    ids = g["input_ids"][None]
    kw = dict(attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == model.config.image_token_id).int())
    if "pixel_values" in g:
        kw |= dict(pixel_values=g["pixel_values"], image_grid_thw=g["image_grid_thw"])

    def compare(name, got):
        worst = (got - g[name]).abs().max().item()
        print(f"{name:18} largest difference {worst:.3e}")
        if not worst <= a.tolerance:
            failures.append(f"{name} differs by {worst:.3e}, more than {a.tolerance:g}")

    with torch.no_grad():
        if "pixel_values" in g:
            features = model.get_image_features(g["pixel_values"], g["image_grid_thw"], return_dict=True).pooler_output
            compare("image_embeds", torch.cat(list(features)))
        hidden = model.model(input_ids=ids, use_cache=False, **kw).last_hidden_state
        compare("hidden_last", hidden[0])
        compare("logits", model.lm_head(hidden)[0])
        model.model.rope_deltas = None
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=case["eos_token_ids"],
                                                   pad_token_id=case["eos_token_ids"][-1], suppress_tokens=case["suppress_tokens"])
        out = model.generate(input_ids=ids, max_new_tokens=case["max_new_tokens"], **kw)[0, ids.shape[1]:]
    same = torch.equal(out, g["generated_ids"])
    print(f"{'generated_ids':18} {'equal' if same else 'differ'}")
    if not same:
        failures.append(f"generated {out.tolist()}, golden {g['generated_ids'].tolist()}")

    if (a.dir / "tokenizer.json").exists():
        tok = Qwen2Tokenizer.from_pretrained(a.dir)
        template = tok.chat_template
        if template is None and (a.dir / "chat_template.json").exists():
            template = json.loads((a.dir / "chat_template.json").read_text())["chat_template"]
        if template is None:
            failures.append("DIR has a tokenizer but no chat template")
        else:
            messages = [{"role": "user", "content": case["content"]}]
            if case["system"] is not None:
                messages.insert(0, {"role": "system", "content": case["system"]})
            text = tok.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
            if text != case["chat_text"]:
                failures.append("the chat template renders another text")
            # One <|image_pad|> an image becomes prod(grid) / 4 of them.
            pieces, grids = text.split("<|image_pad|>"), g.get("image_grid_thw", torch.zeros(0, 3)).tolist()
            text = pieces[0] + "".join("<|image_pad|>" * (t * h * w // 4) + s for (t, h, w), s in zip(grids, pieces[1:]))
            if tok(text)["input_ids"] != g["input_ids"].tolist():
                failures.append("the tokenizer gives other ids")
    for f in failures:
        print("FAILED:", f, file=sys.stderr)
    print("1 passed, 0 failed" if not failures else "0 passed, 1 failed")
    sys.exit(bool(failures))


main()
