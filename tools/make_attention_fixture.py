"""Attention of the last decoder layer on image, prompt text and generated text, as transformers computes it (eager).

Reads the committed models and goldens and writes tests/fixtures/golden/attention.json: for each case, and each generated
token, the attention of the token's own position, mean over heads, summed over the three kinds of positions.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

CASES = ["one_image_tied", "one_image_untied", "two_images", "text_only", "partial_windows"]


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "fixtures")
    result = {}
    for case in CASES:
        folder = out / json.loads((out / "golden" / f"{case}.json").read_text())["model"]
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        golden = load_file(out / "golden" / f"{case}.safetensors")
        prompt, ids = golden["input_ids"].reshape(-1), golden["generated_ids"].reshape(-1)
        tokens = torch.cat([prompt, ids])[None]
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        is_image = tokens[0] == model.config.image_token_id
        if "pixel_values" in golden:
            inputs |= {k: golden[k] for k in ("pixel_values", "image_grid_thw")}
            inputs["mm_token_type_ids"] = is_image.long()[None]
        with torch.no_grad():
            attention = model(**inputs, use_cache=False, output_attentions=True).attentions[-1][0].mean(0)
        rows = attention[len(prompt):]
        in_prompt = torch.arange(tokens.shape[1]) < len(prompt)
        kinds = {"image": is_image, "prompt": in_prompt & ~is_image, "generated": ~in_prompt}
        result[case] = {k: [round(v, 7) for v in rows[:, mask].sum(1).tolist()] for k, mask in kinds.items()}
        print(case, {k: round(sum(v) / len(v), 4) for k, v in result[case].items()})
    (out / "golden" / "attention.json").write_text(json.dumps(result, indent=1) + "\n")


main()
