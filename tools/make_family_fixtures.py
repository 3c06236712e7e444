"""Tiny random Qwen2-VL and Qwen3-VL checkpoints and what transformers computes with them.

    pip install -r tools/requirements.txt
    python tools/make_family_fixtures.py [OUT]         # OUT: tests/fixtures

Writes OUT/models/<model>/ (config.json and weights, no tokenizer: prompts are ids) and, as make_model_fixtures.py does,
OUT/golden/<case>.safetensors, <case>.json and <case>_grads.safetensors. Everything is computed in f32 on the CPU with eager
attention. A model's seed is the first one whose greedy choices are clear in all of its cases (no choice closer than
MARGIN), so that another implementation, rounding differently, must generate the same ids. README.md lists the keys.

A model with a tied head is saved by transformers and so has its form of config.json; one with a head of its own gets the
form of the hub's published files. Pictures are grids of random patches.
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen3VLConfig,
                          Qwen3VLForConditionalGeneration)

from qwen_files import write_json

MARGIN = 0.02  # least gap between the best and the second logit of every greedy step
DISTINCT = 5   # least number of different ids in what is generated
VOCAB = 304
IDS = dict(vision_start_token_id=291, vision_end_token_id=292, image_token_id=294, video_token_id=295)
BOS, EOS, SUPPRESS = 282, 284, [291, 292, 293, 294, 295]
CLASSES = {"qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
           "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration)}

# text: d, layers, heads, K/V heads, head size, MLP, tied, theta, eps, mrope_section (sums to half a head)
# vision: depth, width, heads, patch size, then for Qwen2-VL the MLP's ratio, for Qwen3-VL the MLP's width, the side of the
#         table of positions and the DeepStack blocks
MODELS = {
    "qwen2_vl_tied_gqa": ("qwen2_vl", (32, 2, 4, 2, 8, 40, True, 1e6, 1e-6, [2, 1, 1]), (2, 16, 2, 6, 3)),
    "qwen2_vl_untied_mha": ("qwen2_vl", (48, 3, 2, 2, 24, 52, False, 1e4, 1e-5, [4, 5, 3]), (3, 24, 2, 6, 2)),
    "qwen3_vl_tied_gqa": ("qwen3_vl", (32, 3, 4, 2, 20, 44, True, 5e6, 1e-6, [4, 3, 3]), (4, 16, 2, 8, 36, 5, [0, 2])),
    "qwen3_vl_untied_mqa": ("qwen3_vl", (40, 4, 3, 1, 16, 36, False, 1e5, 1e-5, [3, 3, 2]), (4, 24, 3, 6, 28, 4, [1, 2, 3])),
}
# model, prompt: numbers are runs of random text, lists are pictures of so many patches (frames, rows, columns); new tokens
CASES = {
    "qwen2_vl_tied_gqa": ("qwen2_vl_tied_gqa", [3, [1, 6, 8], 7], 12),
    "qwen2_vl_untied_two_images": ("qwen2_vl_untied_mha", [2, [1, 2, 14], 3, [1, 10, 4], 5], 10),
    "qwen2_vl_text_only": ("qwen2_vl_tied_gqa", [17], 10),
    "qwen3_vl_tied_gqa": ("qwen3_vl_tied_gqa", [3, [1, 6, 8], 7], 12),
    "qwen3_vl_untied_two_images": ("qwen3_vl_untied_mqa", [2, [1, 2, 14], 3, [1, 10, 4], 5], 10),
    "qwen3_vl_text_only": ("qwen3_vl_tied_gqa", [17], 10),
}


def model_config(family, text, vision):
    d, layers, heads, kv, hd, mlp, tied, theta, eps, section = text
    depth, width, vision_heads, patch, *rest = vision
    t = dict(hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=mlp,
             vocab_size=VOCAB, rms_norm_eps=eps, max_position_embeddings=4096, bos_token_id=BOS, eos_token_id=EOS,
             rope_parameters={"rope_type": "default", "rope_theta": theta, "mrope_section": section})
    v = dict(depth=depth, num_heads=vision_heads, patch_size=patch)
    if family == "qwen2_vl":
        v |= dict(embed_dim=width, hidden_size=d, mlp_ratio=rest[0])
        t |= dict(tie_word_embeddings=tied)
    else:
        v |= dict(hidden_size=width, out_hidden_size=d, intermediate_size=rest[0], num_position_embeddings=rest[1] ** 2,
                  deepstack_visual_indexes=rest[2])
        # text_config's own tying is not what counts.
        t |= dict(head_dim=hd, tie_word_embeddings=not tied)
    return CLASSES[family][0](text_config=t, vision_config=v, tie_word_embeddings=tied, **IDS)


@torch.no_grad()
def random_model(name, seed):
    """Weights far from the usual 0.02: every bias and norm differs from its neutral value. Rounded to bf16, as stored.

    Where the head is its own, what enters tower and decoder is faint, so that the epsilon of the first norm shows in the logits.
    """
    family, text, vision = MODELS[name]
    faint = 1.0 if text[6] else 0.03
    model = CLASSES[family][1](model_config(family, text, vision)).eval()
    model.set_attn_implementation("eager")
    g = torch.Generator().manual_seed(seed)
    for parameter, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        if p.ndim == 1:
            value = 0.2 * r + (0.0 if parameter.endswith("bias") else 1.0)
        elif "embed_tokens" in parameter or "lm_head" in parameter:
            value = 0.35 * r
        elif "pos_embed" in parameter:
            value = 0.8 * r
        else:
            value = r * 1.2 / p[0].numel() ** 0.5
        if "patch_embed" in parameter or "pos_embed" in parameter or "embed_tokens" in parameter:
            value *= faint
        p.copy_(value.bfloat16().float())
    return model


def hub_config(family, config):
    """The form of the published files: Qwen2-VL flat with `in_chans`, Qwen3-VL nested with `rope_scaling`."""
    c = json.loads(config.to_json_string(use_diff=False))
    t, v = c["text_config"], c["vision_config"]
    rope = t.pop("rope_parameters")
    own = dict(rope_theta=rope["rope_theta"], rope_scaling={"rope_type": "default", "mrope_section": rope["mrope_section"]})
    keys = ["hidden_act", "hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings", "num_attention_heads",
            "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "vocab_size", "bos_token_id", "eos_token_id"]
    text = {k: t[k] for k in keys} | own
    outer = dict(architectures=[CLASSES[family][1].__name__], model_type=family, tie_word_embeddings=c["tie_word_embeddings"], **IDS)
    keys = ["depth", "hidden_act", "hidden_size", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size"]
    vision = {k: v[k] for k in keys} | dict(model_type=family)
    if family == "qwen2_vl":
        text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        vision |= dict(embed_dim=v["embed_dim"], mlp_ratio=v["mlp_ratio"], in_chans=3, spatial_patch_size=v["patch_size"])
        return outer | text | dict(use_sliding_window=False, sliding_window=32768, max_window_layers=28, vision_token_id=293,
                                   torch_dtype="bfloat16", attention_dropout=0.0, vision_config=vision)
    vision |= {k: v[k] for k in ["deepstack_visual_indexes", "in_channels", "intermediate_size", "num_position_embeddings",
                                 "out_hidden_size"]}
    text["rope_scaling"]["mrope_interleaved"] = True
    text |= dict(attention_bias=False, attention_dropout=0.0, head_dim=t["head_dim"], dtype="bfloat16", model_type="qwen3_vl_text",
                 tie_word_embeddings=t["tie_word_embeddings"])
    return outer | dict(text_config=text, vision_config=vision)


def save_model(model, name, folder):
    family = MODELS[name][0]
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if not model.config.tie_word_embeddings:
        write_json(folder / "config.json", hub_config(family, model.config))


def prompt(parts, patch_dim, seed):
    g = torch.Generator().manual_seed(seed)
    ids, grids = [], []
    for part in parts:
        if isinstance(part, int):
            ids += torch.randint(0, 282, (part,), generator=g).tolist()
        else:
            ids += [291] + [294] * (part[0] * part[1] * part[2] // 4) + [292]
            grids.append(part)
    ids = torch.tensor([ids])
    out = dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == 294).int())
    if grids:
        grids = torch.tensor(grids)
        out |= dict(pixel_values=torch.randn(int(grids.prod(1).sum()), patch_dim, generator=g), image_grid_thw=grids)
    return out


def extended(inputs, ids):
    out = dict(inputs)
    out["input_ids"] = torch.cat([inputs["input_ids"], ids[None]], 1)
    out["attention_mask"] = torch.ones_like(out["input_ids"])
    out["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)[None].int()], 1)
    return out


def positions(model, inputs):
    ids = inputs["input_ids"]
    if "image_grid_thw" not in inputs:
        return torch.arange(ids.shape[1]).expand(3, -1).contiguous()
    return model.model.get_rope_index(ids, mm_token_type_ids=inputs["mm_token_type_ids"],
                                      image_grid_thw=inputs["image_grid_thw"])[0][:, 0].contiguous()


@torch.no_grad()
def golden(model, inputs, max_new):
    model.model.rope_deltas = None
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    P = inputs["input_ids"].shape[1]
    out = {"input_ids": inputs["input_ids"][0], "position_ids": positions(model, inputs), "hidden_last": hidden[0],
           "logits": model.lm_head(hidden)[0]}
    if "pixel_values" in inputs:
        out["pixel_values"], out["image_grid_thw"] = inputs["pixel_values"], inputs["image_grid_thw"]
        features = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        out["image_embeds"] = torch.cat(list(features.pooler_output))
        deep = getattr(features, "deepstack_features", None)
        if deep:
            out["deepstack"] = torch.cat([torch.cat(list(d)) for d in deep], 1)  # [M, K d]
    model.model.rope_deltas = None
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=EOS, pad_token_id=BOS, suppress_tokens=SUPPRESS)
    ids = model.generate(**inputs, max_new_tokens=max_new)[0, P:]
    model.model.rope_deltas = None
    hidden = model.model(**extended(inputs, ids), use_cache=False).last_hidden_state[0]
    logits = model.lm_head(hidden)[P - 1:-1]
    allowed = logits.clone()
    allowed[:, SUPPRESS] = -torch.inf
    top = allowed.topk(2)
    assert torch.equal(top.indices[:, 0], ids), "generate and the full forward disagree"
    out["generated_ids"] = ids
    out["generated_logprobs"] = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
    return {k: v.contiguous() for k, v in out.items()}, (top.values[:, 0] - top.values[:, 1]).min().item()


def gradients(model, inputs, ids, seed):
    """Gradients of sum_t coef_t * log p(id_t) with respect to every parameter that the inputs reach."""
    model.model.rope_deltas = None
    coef = torch.randn(len(ids), generator=torch.Generator().manual_seed(seed))
    P = inputs["input_ids"].shape[1]
    logits = model(**extended(inputs, ids), use_cache=False).logits[0, P - 1:-1]
    logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
    names, params = zip(*model.named_parameters())
    grads = torch.autograd.grad((coef * logprobs).sum(), params, allow_unused=True)
    out = {n: d.contiguous() for n, d in zip(names, grads) if d is not None}
    return {**out, "response_ids": ids, "coef": coef, "logprobs": logprobs.detach()}


def main():
    torch.manual_seed(0)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "fixtures")
    goldens = out / "golden"
    for name, (family, _, vision) in MODELS.items():
        cases = [c for c in CASES if CASES[c][0] == name]
        inputs = {c: prompt(CASES[c][1], 3 * 2 * vision[3] ** 2, 11 + i) for i, c in enumerate(cases)}
        for seed in range(1, 400):
            model = random_model(name, seed)
            results = {}
            for c in cases:
                results[c] = golden(model, inputs[c], CASES[c][2])
                ids, margin = results[c][0]["generated_ids"], results[c][1]
                if margin < MARGIN or len(ids) != CASES[c][2] or len(set(ids.tolist())) < DISTINCT:
                    break
            else:
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy choices")
        save_model(model, name, out / "models" / name)
        loaded = CLASSES[family][1].from_pretrained(out / "models" / name, dtype=torch.float32, attn_implementation="eager").eval()
        for c in cases:
            tensors, margin = golden(loaded, inputs[c], CASES[c][2])
            save_file(tensors, goldens / f"{c}.safetensors")
            write_json(goldens / f"{c}.json", {
                "model": f"models/{name}", "seed": seed, "suppress_tokens": SUPPRESS, "eos_token_ids": [EOS],
                "max_new_tokens": CASES[c][2], "least_margin": margin})
            ids = torch.randint(0, 256, (9,), generator=torch.Generator().manual_seed(99))
            save_file(gradients(loaded, inputs[c], ids, 7), goldens / f"{c}_grads.safetensors")
            print(c, f"seed {seed}, margin {margin:.3f}, P {tensors['input_ids'].numel()}, logits std {tensors['logits'].std():.2f}",
                  flush=True)
        print(name, f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)


if __name__ == "__main__":
    main()
