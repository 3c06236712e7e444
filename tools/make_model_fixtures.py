"""Tiny random Qwen2.5-VL checkpoints and what transformers computes with them: the goldens of the model's tests.

    pip install -r tools/requirements.txt
    python tools/make_model_fixtures.py [OUT]          # OUT: tests/fixtures

Writes OUT/images/*, OUT/models/<name>/ (real Hugging Face folders), OUT/golden/<case>.safetensors and .json, and
OUT/golden/<case>_grads.safetensors. Everything is computed in f32 on the CPU with eager attention; the weights of a
bf16 or f16 file are first read as f32. Each model's seed is the first one whose greedy choices are clear (no choice
closer than MARGIN), so that another implementation, rounding differently, must generate the same ids. README.md beside
this file lists every key.
"""
import copy
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer,
                          Qwen2VLVideoProcessor)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from PIL import Image

from qwen_files import VISION_TOKENS, draw_picture, small_tokenizer, write_json, write_text_side

MARGIN = 0.02  # least gap between the best and the second logit of every greedy step
VOCAB = 304    # more than the tokenizer has, as in the real models

# text: hidden, layers, heads, K/V heads, MLP, tied, rope theta, eps, mrope_section (sums to half a head)
# vision: depth, hidden, heads, MLP, full-attention blocks
# file: stored type, shards, tensor names, where the chat template lives, style of preprocessor_config.json, min and max
#       pixels. Names: "hub" as on the hub and as transformers saves (`visual.`, `model.layers.`), "module" as the
#       parameters are called inside transformers 5 (`model.visual.`, `model.language_model.layers.`)
# boost: a special token whose output row is enlarged, so that greedy decoding of `ends` stops at it
MODELS = {
    "tied_gqa": dict(text=(64, 2, 4, 2, 76, True, 1e6, 1e-6, [2, 3, 3]), vision=(3, 16, 2, 38, [1]),
                     file=("float32", 1, "hub", "chat_template.jinja", "min_max", 3136, 12845056)),
    "untied_mha": dict(text=(64, 2, 2, 2, 84, False, 1e4, 1e-5, [4, 6, 6]), vision=(4, 24, 2, 42, [1, 3]),
                       file=("float32", 1, "hub", "tokenizer_config.json", "edges", 784, 9408), boost=("<|im_end|>", 1.5)),
    "sharded_bf16": dict(text=(64, 3, 4, 1, 68, True, 1e6, 1e-6, [2, 3, 3]), vision=(2, 24, 3, 50, [1]),
                         file=("bfloat16", 3, "hub", "chat_template.json", "min_max", 784, 12845056)),
    "f16": dict(text=(64, 2, 4, 4, 60, False, 1e6, 1e-6, [2, 3, 3]), vision=(3, 32, 2, 36, [0]),
                file=("float16", 1, "module", "chat_template.jinja", "edges", 784, 12845056), boost=("<|endoftext|>", 1.5)),
}
PICTURES = {  # name: (width, height, seed, format)
    "wide.png": (118, 85, 1, "PNG"),       # 4 x 3 merged tokens: one cut window
    "small.png": (61, 88, 2, "PNG"),       # 2 x 3
    "photo.jpg": (140, 89, 3, "JPEG"),     # 5 x 3
    "partial.png": (162, 144, 4, "PNG"),   # 6 x 5: windows of 4x4, 2x4, 4x1 and 2x1
    "tall.png": (150, 410, 5, "PNG"),      # far above untied_mha's largest size
}
CASES = {  # name: model, content, system text, max_new_tokens, last token of the answer (None: cut by length)
    "one_image_tied": ("tied_gqa", [("image", "wide.png"), ("text", "How many circles are in the picture?")], None, 16, None),
    "two_images": ("tied_gqa", [("text", "Compare "), ("image", "small.png"), ("text", " with "), ("image", "photo.jpg"),
                                ("text", ": which is larger?")], None, 12, None),
    "text_only": ("tied_gqa", [("text", "What is 5+9? Put it in \\boxed{}. Ünïcode: 三角形 e\u0301")], "Answer briefly.", 12, None),
    "partial_windows": ("tied_gqa", [("image", "partial.png"), ("text", "The angle?")], None, 10, None),
    "one_image_untied": ("untied_mha", [("image", "tall.png"), ("text", "Which side is the longest?\n")],
                         "You are a careful reader of pictures.", 24, "<|im_end|>"),
    "sharded_bf16": ("sharded_bf16", [("text", "Look: "), ("image", "small.png"), ("text", "the length?")], None, 10, None),
    "f16": ("f16", [("image", "small.png"), ("text", "x?")], None, 24, "<|endoftext|>"),
}
GRADS = ["one_image_tied", "two_images", "text_only"]


def model_config(spec, tok):
    h, layers, heads, kv, mlp, tied, theta, eps, section = spec["text"]
    depth, vh, va, vm, full = spec["vision"]
    ids = tok.token_to_id
    return Qwen2_5_VLConfig(
        text_config=dict(hidden_size=h, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                         intermediate_size=mlp, vocab_size=VOCAB, rms_norm_eps=eps, tie_word_embeddings=tied,
                         bos_token_id=ids("<|endoftext|>"), eos_token_id=ids("<|im_end|>"), max_position_embeddings=4096,
                         rope_parameters={"rope_type": "default", "rope_theta": theta, "mrope_section": section}),
        vision_config=dict(depth=depth, hidden_size=vh, num_heads=va, intermediate_size=vm, out_hidden_size=h,
                           fullatt_block_indexes=full, window_size=112, tokens_per_second=2),
        tie_word_embeddings=tied, vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"))


@torch.no_grad()
def random_model(spec, tok, seed):
    """Weights far from the usual 0.02: every bias and norm differs from its neutral value and attention is not flat.

    Values are rounded to bf16 (f16 for the f16 file), so that a half-size file holds the same numbers.
    """
    model = Qwen2_5_VLForConditionalGeneration(model_config(spec, tok))
    g = torch.Generator().manual_seed(seed)
    store = torch.float16 if spec["file"][0] == "float16" else torch.bfloat16
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        if p.ndim == 1:
            value = 0.2 * r + (0.0 if name.endswith("bias") else 1.0)
        elif "embed_tokens" in name or "lm_head" in name:
            value = 0.3 * r
        else:
            value = r * 1.2 / p[0].numel() ** 0.5
        p.copy_(value.to(store).float())
    if "boost" in spec:
        token, factor = spec["boost"]
        row = model.lm_head.weight[tok.token_to_id(token)]
        row.copy_((row * factor).to(store).float())
    return model


def save_model(model, spec, tok, folder):
    dtype, shards, names, template_in, size_style, min_pixels, max_pixels = spec["file"]
    shutil.rmtree(folder, ignore_errors=True)
    stored = copy.deepcopy(model).to(getattr(torch, dtype))  # a copy: casting would round the rotary tables too
    size = sum(p.numel() * p.element_size() for p in stored.parameters())
    stored.save_pretrained(folder, max_shard_size=size if shards == 1 else size // shards + 20000)
    if names == "module":
        save_file({n: p.detach().contiguous() for n, p in stored.named_parameters()}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    write_text_side(folder, tok, template_in=template_in, size_style=size_style, min_pixels=min_pixels, max_pixels=max_pixels)


def load_processor(folder):
    """The image processor is named, not auto-picked: the PIL one, whatever backend transformers prefers."""
    template = folder / "chat_template.jinja"
    tok = Qwen2Tokenizer.from_pretrained(folder)
    if template.exists():
        text = template.read_text()
    elif (folder / "chat_template.json").exists():
        text = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    else:
        text = tok.chat_template
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessorPil.from_pretrained(folder), tok, Qwen2VLVideoProcessor(),
                               chat_template=text)


def encode(processor, content, system, images_dir):
    """Renders, expands and encodes one conversation: (chat text before expansion, model inputs)."""
    messages = [{"role": "user", "content": [{"type": k, k: v} for k, v in content]}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [Image.open(images_dir / v) for k, v in content if k == "image"] or None
    inputs = processor(text=[text], images=images, return_tensors="pt")
    return text, dict(inputs)


def extended(inputs, ids):
    """The same prompt followed by `ids` [G]."""
    out = dict(inputs)
    out["input_ids"] = torch.cat([inputs["input_ids"], ids[None]], 1)
    out["attention_mask"] = torch.ones_like(out["input_ids"])
    out["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)[None]], 1)
    return out


def positions(model, inputs):
    """M-RoPE positions [3, P]."""
    ids = inputs["input_ids"]
    if "image_grid_thw" not in inputs:
        return torch.arange(ids.shape[1]).expand(3, -1).contiguous()
    return model.model.get_rope_index(ids, mm_token_type_ids=inputs["mm_token_type_ids"],
                                      image_grid_thw=inputs["image_grid_thw"])[0][:, 0].contiguous()


@torch.no_grad()
def golden(model, tok, inputs, max_new_tokens):
    """All streams of one case, the least margin of its greedy choices, and the ids that were suppressed."""
    model.model.rope_deltas = None
    suppress = sorted(tok.convert_tokens_to_ids(VISION_TOKENS))
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    P = inputs["input_ids"].shape[1]
    out = {
        "input_ids": inputs["input_ids"][0], "position_ids": positions(model, inputs), "hidden_last": hidden[0],
        "logits": model.lm_head(hidden)[0],
    }
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    if "pixel_values" in inputs:
        out["pixel_values"], out["image_grid_thw"] = inputs["pixel_values"], inputs["image_grid_thw"]
        features = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        out["image_embeds"] = torch.cat(list(features.pooler_output))
    model.model.rope_deltas = None
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tok.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
        pad_token_id=tok.convert_tokens_to_ids("<|endoftext|>"), suppress_tokens=suppress)
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens)[0, P:]
    # The cache-free forward over prompt and answer is the reference; it must choose the same ids.
    model.model.rope_deltas = None
    full = extended(inputs, ids)
    hidden = model.model(**full, use_cache=False).last_hidden_state[0]
    logits = model.lm_head(hidden)[P - 1:-1]
    allowed = logits.clone()
    allowed[:, suppress] = -torch.inf
    top = allowed.topk(2)
    assert torch.equal(top.indices[:, 0], ids), "generate and the full forward disagree"
    out["generated_ids"] = ids
    out["generated_logprobs"] = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
    out["full_position_ids"] = positions(model, full)
    if is_image.any():
        # Equations 2 to 4 of VGPO: h_t is the state at the position of the generated token itself.
        mu = hidden[:P][is_image].mean(0)
        cos = torch.nn.functional.cosine_similarity(hidden[P:], mu[None], dim=-1, eps=1e-8)
        out["visual_focus"] = (cos + 1) / 2
    return {k: v.contiguous() for k, v in out.items()}, (top.values[:, 0] - top.values[:, 1]).min().item(), suppress


def gradients(model, inputs, ids, seed):
    """Gradients of sum_t coef_t * log p(id_t) with respect to every parameter that the inputs reach."""
    model.model.rope_deltas = None
    g = torch.Generator().manual_seed(seed)
    coef = torch.randn(len(ids), generator=g)
    P = inputs["input_ids"].shape[1]
    logits = model(**extended(inputs, ids), use_cache=False).logits[0, P - 1:-1]
    logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
    loss = (coef * logprobs).sum()
    names, params = zip(*model.named_parameters())
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    out = {n: d.contiguous() for n, d in zip(names, grads) if d is not None}
    return {**out, "response_ids": ids, "coef": coef, "logprobs": logprobs.detach(), "loss": loss.detach().reshape(1)}


def acceptable(case, ids, margin, tok):
    *_, max_new, last = CASES[case]
    ends = ids[-1].item() == tok.convert_tokens_to_ids(last) if last else len(ids) == max_new
    long_enough = 6 <= len(ids) and (last is None or len(ids) < max_new)
    return margin >= MARGIN and ends and long_enough and len(set(ids.tolist())) >= 5 and ids.max() < len(tok)


def old_layout(source, folder):
    """The tied_gqa weights as on the hub: config.json without text_config, `visual.` and `model.` names, a bf16 file.

    `lm_head.weight` is written although it is tied, as some exports do.
    """
    from safetensors.torch import load_file
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json", "generation_config.json"]:
        shutil.copy(source / name, folder / name)
    state = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32).state_dict()
    named = {}
    for name, value in state.items():
        half = value.to(torch.bfloat16)
        assert torch.equal(half.float(), value), name
        new = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        named[new] = half.clone().contiguous()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    c = json.loads((source / "config.json").read_text())
    t, v = c["text_config"], c["vision_config"]
    write_json(folder / "config.json", {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "attention_dropout": 0.0,
        "bos_token_id": t["bos_token_id"], "eos_token_id": t["eos_token_id"],
        "vision_start_token_id": c["vision_start_token_id"], "vision_end_token_id": c["vision_end_token_id"],
        "vision_token_id": c["image_token_id"] - 1, "image_token_id": c["image_token_id"], "video_token_id": c["video_token_id"],
        "hidden_act": "silu", "hidden_size": t["hidden_size"], "initializer_range": 0.02,
        "intermediate_size": t["intermediate_size"], "max_position_embeddings": 4096, "max_window_layers": 70,
        "model_type": "qwen2_5_vl", "num_attention_heads": t["num_attention_heads"],
        "num_hidden_layers": t["num_hidden_layers"], "num_key_value_heads": t["num_key_value_heads"],
        "rms_norm_eps": t["rms_norm_eps"], "rope_theta": t["rope_parameters"]["rope_theta"], "sliding_window": 32768,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": v["depth"], "hidden_act": "silu", "hidden_size": v["hidden_size"],
            "intermediate_size": v["intermediate_size"], "num_heads": v["num_heads"], "in_chans": 3,
            "out_hidden_size": v["out_hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
            "window_size": 112, "fullatt_block_indexes": v["fullatt_block_indexes"], "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": t["rope_parameters"]["mrope_section"]}, "vocab_size": VOCAB,
    })


def load(folder):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def main():
    torch.manual_seed(0)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "fixtures")
    images, models, goldens = out / "images", out / "models", out / "golden"
    for d in (images, models, goldens):
        d.mkdir(parents=True, exist_ok=True)
    for name, (w, h, seed, form) in PICTURES.items():
        draw_picture(w, h, seed).save(images / name, form, **({"quality": 90, "subsampling": 0} if form == "JPEG" else {"optimize": True}))
    fast = small_tokenizer()
    for name, spec in MODELS.items():
        folder = models / name
        cases = [c for c in CASES if CASES[c][0] == name]
        for seed in range(1, 400):
            model = random_model(spec, fast, seed)
            if seed == 1:
                save_model(model, spec, fast, folder)
                processor = load_processor(folder)
                tok = processor.tokenizer
                inputs = {c: encode(processor, CASES[c][1], CASES[c][2], images) for c in cases}
            model.set_attn_implementation("eager")
            tried = {}
            for c in cases:
                tried[c] = golden(model, tok, inputs[c][1], CASES[c][3])
                if not acceptable(c, tried[c][0]["generated_ids"], tried[c][1], tok):
                    break
            else:
                break
        else:
            raise SystemExit(f"{name}: no seed gives clear greedy choices")
        save_model(model, spec, fast, folder)
        model = load(folder)  # what is stored is what is computed with
        for c in cases:
            _, content, system, max_new, last = CASES[c]
            text, ins = inputs[c]
            tensors, margin, suppress = golden(model, tok, ins, max_new)
            save_file(tensors, goldens / f"{c}.safetensors")
            write_json(goldens / f"{c}.json", {
                "model": f"models/{name}", "seed": seed, "system": system, "content": [{"type": k, k: v} for k, v in content],
                "problem": "".join("<image>" if k == "image" else v for k, v in content),
                "images": [f"images/{v}" for k, v in content if k == "image"], "chat_text": text,
                "max_new_tokens": max_new, "suppress_tokens": suppress,
                "eos_token_ids": tok.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
                "finish_reason": "stop" if last else "length",
                "generated_text": tok.decode(tensors["generated_ids"], skip_special_tokens=True), "least_margin": margin,
            })
            if c in GRADS:
                g = torch.Generator().manual_seed(99)
                ids = torch.randint(0, 256, (9,), generator=g)
                save_file(gradients(model, ins, ids, 7), goldens / f"{c}_grads.safetensors")
            print(c, f"seed {seed}, margin {margin:.3f}, P {tensors['input_ids'].numel()}, G {tensors['generated_ids'].numel()}, "
                     f"logits std {tensors['logits'].std():.2f}", flush=True)
        print(name, f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    old_layout(models / "tied_gqa", models / "old_layout")
    a, b = load(models / "tied_gqa").state_dict(), load(models / "old_layout").state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), "old_layout differs from tied_gqa"
    # Same model, several prompts at once: each must give what it gives alone.
    write_json(goldens / "batch.json", {"model": "models/tied_gqa", "cases": [c for c in CASES if CASES[c][0] == "tied_gqa"]})
    write_json(goldens / "old_layout.json", {"model": "models/old_layout", "same_as": [c for c in CASES if CASES[c][0] == "tied_gqa"]})


main()
