"""Random checkpoints of all families, of shapes that no committed fixture has, and what transformers computes with them.

    pip install -r tools/requirements.txt
    python tools/make_unseen_fixtures.py OUT [COUNT] [SEED]       # COUNT: 12, SEED: 1
    GOLDEN_FOLDER=OUT cargo test -p model-qwen2vl --test all -- parity gradients::torch --nocapture

Heads, depths, head sizes, patches, DeepStack blocks, tables of positions, windows, sections, ties and pictures (elongated,
several, none) are drawn. The tests then hold the model to transformers on them instead of on tests/fixtures: positions, image
embeddings, hidden states, logits, log-probs, greedy tokens and all gradients.
"""
import argparse
import json
import random
import sys
from pathlib import Path

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import make_family_fixtures as families

families.CLASSES["qwen2_5_vl"] = (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration)


def sections(draw, half):
    """Three positive numbers that sum to half a head."""
    a, b = sorted(draw.sample(range(1, half), 2))
    return [a, b - a, half - b]


def interleaved_sections(draw, half):
    """Sections that the interleaved layout can hold: height and width take every third place behind the first."""
    h = draw.randint(1, (half + 1) // 3)
    w = draw.randint(1, half // 3)
    return [half - h - w, h, w]


def drawn_model(draw, family):
    kv = draw.choice([1, 2, 3])
    heads = kv * draw.choice([1, 2, 3, 4])
    hd = draw.choice([12, 16, 20, 24])
    d = heads * hd if family != "qwen3_vl" else draw.choice([24, 40, 56])
    section = interleaved_sections(draw, hd // 2) if family == "qwen3_vl" else sections(draw, hd // 2)
    text = (d, draw.randint(2, 5), heads, kv, hd, draw.choice([28, 44, 60]), draw.random() < 0.5,
            draw.choice([1e4, 1e6, 5e6]), draw.choice([1e-6, 1e-5]), section)
    tower_heads, tower_hd = draw.choice([1, 2, 3]), draw.choice([8, 12, 16])
    depth, width = draw.randint(2, 6), tower_heads * tower_hd
    patch = draw.choice([4, 6, 14, 16]) if family == "qwen3_vl" else draw.choice([4, 6, 14])
    vision = [depth, width, tower_heads, patch]
    if family == "qwen2_vl":
        vision.append(draw.choice([2, 3, 4]))
    elif family == "qwen3_vl":
        blocks = sorted(draw.sample(range(depth), draw.randint(0, min(depth, text[1]))))
        vision += [draw.choice([20, 36]), draw.choice([3, 5, 8, 12]), blocks]
    else:
        full = sorted(draw.sample(range(depth), draw.randint(1, depth)))
        vision += [draw.choice([20, 38]), full, patch * 2 * draw.choice([1, 2, 4])]
    return family, text, tuple(vision)


def drawn_prompt(draw):
    kind = draw.choice(["one", "one", "long", "several", "text"])
    words = lambda: draw.randint(1, 9)
    side = lambda most: 2 * draw.randint(1, most)
    if kind == "text":
        return [draw.randint(3, 30)]
    if kind == "long":
        shape = [1, 2 * draw.randint(1, 2), 2 * draw.randint(12, 20)]
        return [words(), shape if draw.random() < 0.5 else [1, shape[2], shape[1]], words()]
    pictures = 1 if kind == "one" else draw.randint(2, 4)
    parts = [words()]
    for _ in range(pictures):
        parts.append([1, side(6), side(6)])
        if draw.random() < 0.8:
            parts.append(words())
    if not isinstance(parts[-1], int):
        parts.append(words())
    return parts


def model_config(family, text, vision, base=families.model_config):
    if family != "qwen2_5_vl":
        return base(family, text, vision)
    d, layers, heads, kv, _, mlp, tied, theta, eps, section = text
    depth, width, tower_heads, patch, tower_mlp, full, window = vision
    t = dict(hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=mlp,
             vocab_size=families.VOCAB, rms_norm_eps=eps, max_position_embeddings=4096, bos_token_id=families.BOS,
             eos_token_id=families.EOS, tie_word_embeddings=tied,
             rope_parameters={"rope_type": "default", "rope_theta": theta, "mrope_section": section})
    v = dict(depth=depth, num_heads=tower_heads, patch_size=patch, hidden_size=width, intermediate_size=tower_mlp,
             out_hidden_size=d, fullatt_block_indexes=full, window_size=window)
    return families.CLASSES[family][0](text_config=t, vision_config=v, tie_word_embeddings=tied, **families.IDS)


def hub_config(family, config, base=families.hub_config):
    return base(family, config) if family != "qwen2_5_vl" else json.loads(config.to_json_string(use_diff=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("count", type=int, nargs="?", default=12)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    args = parser.parse_args()
    out, count, seed = args.out, args.count, args.seed
    (out / "golden").mkdir(parents=True, exist_ok=True)
    families.model_config, families.hub_config = model_config, hub_config
    families.MODELS, families.CASES = {}, {}
    families.DISTINCT = 2
    families.MARGIN = 0.004  # still hundreds of times what rounding moves
    draw = random.Random(seed)
    for i in range(count):
        name = f"unseen_{seed}_{i}"
        families.MODELS[name] = drawn_model(draw, ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"][i % 3])
        for k in range(2):
            families.CASES[f"{name}_{'ab'[k]}"] = (name, drawn_prompt(draw), 8)
        print(name, families.MODELS[name], [families.CASES[f"{name}_{k}"][1] for k in "ab"], flush=True)
    sys.argv = [sys.argv[0], str(out)]
    families.main()


if __name__ == "__main__":
    main()
