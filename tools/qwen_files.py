"""What the fixture scripts share: the text side of a Qwen2.5-VL model folder, and plain test pictures.

Everything here is made from nothing (no hub is needed): a byte-level BPE with Qwen2's normaliser, pre-tokenizer and
special tokens, a chat template that renders what Qwen2.5-VL's own renders, the processor's config files, and pictures
drawn with Pillow.
"""
import json
from pathlib import Path

from PIL import Image, ImageDraw
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# In the order of the real vocabulary, where they take the ids 151643 to 151656.
SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]
# Added, but not special: they survive `skip_special_tokens`. Real ids 151657 to 151664.
NOT_SPECIALS = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
]
# Never to be generated: the model could not read them back.
VISION_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# A system turn is put in front when the conversation has none; pictures and films become their three tokens;
# `add_vision_id` numbers them.
CHAT_TEMPLATE = """\
{%- set seen = namespace(pictures=0, videos=0) -%}
{%- if messages and messages[0]['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' ~ message['role'] ~ '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{%- set seen.pictures = seen.pictures + 1 -%}
{{ ('Picture ' ~ seen.pictures ~ ': ' if add_vision_id else '') ~ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' or 'video' in part -%}
{%- set seen.videos = seen.videos + 1 -%}
{{ ('Video ' ~ seen.videos ~ ': ' if add_vision_id else '') ~ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

CORPUS = [
    "How many circles are in the picture? Put the final answer in \\boxed{}.",
    "You first think through the reasoning process as an internal monologue, then provide the answer.",
    "The triangle ABC has an angle of 30 degrees; what is the length of the side AB?",
    "<think>5+9=14, 14+8=22, 22+8=30</think>\\boxed{30}",
    "Compare the two charts. Which one is larger, the left or the right?",
    "user assistant system You are a helpful assistant.",
] * 4


def byte_level_tokenizer(vocab, merges):
    """A `tokenizers.Tokenizer` that splits and decodes as Qwen2's does."""
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False, byte_fallback=False,
                               continuing_subword_prefix="", end_of_word_suffix=""))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tok


def add_specials(tok, specials=SPECIALS, not_specials=()):
    """Appends the special tokens after the regular vocabulary, in the real order."""
    tok.add_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in not_specials])
    return tok


def small_tokenizer(merges=26):
    """256 bytes, `merges` merges learned from CORPUS, then the special tokens."""
    tok = byte_level_tokenizer({}, [])
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return add_specials(tok)


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_text_side(folder, tok, *, template_in, size_style, min_pixels, max_pixels):
    """Writes tokenizer, chat template, image processor and generation config into `folder`.

    template_in: where the chat template lives, "chat_template.jinja" | "chat_template.json" | "tokenizer_config.json".
    size_style: "min_max" writes min_pixels/max_pixels as the hub's files do, "edges" writes transformers 5's `size`.
    """
    folder = Path(folder)
    tok.save(str(folder / "tokenizer.json"))
    added = {str(i): dict(content=t.content, lstrip=t.lstrip, normalized=t.normalized, rstrip=t.rstrip,
                          single_word=t.single_word, special=t.special)
             for i, t in sorted(tok.get_added_tokens_decoder().items())}
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
        "additional_special_tokens": SPECIALS[1:], "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 131072, "pad_token": "<|endoftext|>",
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }
    if template_in == "tokenizer_config.json":
        config["chat_template"] = CHAT_TEMPLATE
    elif template_in == "chat_template.json":
        write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_json(folder / "tokenizer_config.json", config)
    size = ({"min_pixels": min_pixels, "max_pixels": max_pixels} if size_style == "min_max"
            else {"size": {"shortest_edge": min_pixels, "longest_edge": max_pixels}})
    write_json(folder / "preprocessor_config.json", {
        **size, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
    })
    write_json(folder / "generation_config.json", {
        "bos_token_id": tok.token_to_id("<|endoftext|>"), "pad_token_id": tok.token_to_id("<|endoftext|>"),
        "do_sample": True, "eos_token_id": [tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")],
        "repetition_penalty": 1.05, "temperature": 0.000001,
    })


def draw_picture(width, height, seed):
    """A colour ramp with a few shapes on it: it compresses well, and no two patches are alike. RGB."""
    picture = Image.new("RGB", (width, height))
    px = picture.load()
    for y in range(height):
        for x in range(width):
            px[x, y] = ((x * 255) // width, (y * 255) // height, (80 * seed + 3 * (x + y)) % 256)
    draw = ImageDraw.Draw(picture)
    for k in range(5):
        cx, cy = (37 * (k + 1) * seed) % width, (53 * (k + 2) * seed) % height
        r = 6 + 4 * k
        colour = ((90 * k + 40 * seed) % 256, (200 - 40 * k) % 256, (60 * k + 110) % 256)
        (draw.ellipse if k % 2 else draw.rectangle)([cx - r, cy - r, cx + r, cy + r], fill=colour, outline=(255, 255, 255))
        draw.line([0, cy, cx, 0], fill=(0, 0, 0), width=2)
    return picture
