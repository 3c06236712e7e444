"""Small adapters that PEFT made, and what transformers and PEFT compute with them.

    pip install -r tools/requirements.txt
    python tools/make_lora_fixtures.py [OUT]         # OUT: tests/fixtures

Of the models and prompts under OUT (make_model_fixtures.py and make_family_fixtures.py made them) it writes OUT/adapters/<case>/
as PEFT's save_pretrained leaves it and OUT/golden/lora_<case>.safetensors: logits of the prompt, and the gradients of
sum_t coef_t log p(response_t) for every adapter matrix, with the response and the coefficients of OUT/golden/<prompt>_grads.
Everything is computed in f32 on the CPU. Matrices of both kinds are random: a fresh adapter would add nothing.
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from qwen_files import write_json

DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# prompt and PEFT's settings
CASES = {
    "qwen2_5_decoder": ("one_image_tied", dict(r=4, lora_alpha=8, target_modules=DECODER, exclude_modules=".*visual.*")),
    "qwen2_some": ("qwen2_vl_tied_gqa", dict(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "down_proj"])),
    "qwen3_all_rslora": ("qwen3_vl_untied_two_images", dict(r=2, lora_alpha=3, use_rslora=True, target_modules="all-linear")),
    "qwen3_pattern": ("qwen3_vl_tied_gqa", dict(r=1, lora_alpha=1, target_modules=r".*language_model\.layers\.[02]\..*(k|up)_proj")),
}


def base(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "fixtures")
    for seed, (case, (prompt, settings)) in enumerate(CASES.items()):
        folder = out / json.loads((out / "golden" / f"{prompt}.json").read_text())["model"]
        g = torch.Generator().manual_seed(100 + seed)
        model = get_peft_model(base(folder), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.copy_(torch.randn(p.shape, generator=g) * 0.7 / p.shape[1] ** 0.5)
        adapter = out / "adapters" / case
        shutil.rmtree(adapter, ignore_errors=True)
        model.save_pretrained(adapter)
        (adapter / "README.md").unlink(missing_ok=True)
        config = json.loads((adapter / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = f"../../models/{folder.name}"
        write_json(adapter / "adapter_config.json", config)

        model = PeftModel.from_pretrained(base(folder), adapter, is_trainable=True).eval()
        inputs, extra = load_file(out / "golden" / f"{prompt}.safetensors"), load_file(out / "golden" / f"{prompt}_grads.safetensors")
        prompt_ids, response, coef = inputs["input_ids"], extra["response_ids"], extra["coef"]
        ids = torch.cat([prompt_ids, response])[None]
        image = model.config.image_token_id
        kw = dict(attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == image).int(), use_cache=False)
        if "pixel_values" in inputs:
            kw |= dict(pixel_values=inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"])
        logits = model(input_ids=ids, **kw).logits[0]
        P = len(prompt_ids)
        logprobs = torch.log_softmax(logits[P - 1:-1], -1).gather(-1, response[:, None])[:, 0]
        names, params = zip(*[(n.replace(".default.", "."), p) for n, p in model.named_parameters() if "lora_" in n])
        grads = torch.autograd.grad((coef * logprobs).sum(), params, allow_unused=True)
        golden = {n: d.contiguous() for n, d in zip(names, grads) if d is not None}
        golden |= dict(logits=logits[:P].detach().contiguous(), logprobs=logprobs.detach())
        save_file(golden, out / "golden" / f"lora_{case}.safetensors")
        write_json(out / "golden" / f"lora_{case}.json", dict(prompt=prompt, model=f"models/{folder.name}", adapter=f"adapters/{case}"))
        with torch.no_grad(), model.disable_adapter():
            gap = (model(input_ids=ids, **kw).logits[0, :P] - golden["logits"]).abs().max()
        print(case, f"{len(names)} matrices, {sum(p.numel() for p in params):,} parameters, moves logits by {gap:.2f}", flush=True)


if __name__ == "__main__":
    main()
