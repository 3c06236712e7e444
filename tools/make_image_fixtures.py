"""Golden pictures for crates/data: what transformers' Qwen2-VL image processor makes of many kinds of image files.

    python3 -m venv venv && venv/bin/pip install pillow==13.0.0 numpy==2.4.6 transformers==5.23.0
    venv/bin/python tools/make_image_fixtures.py crates/data/tests/fixtures/images

Each case: an image file, pixel limits, and the resized picture that the processor normalises (as PNG, recovered exactly from
its pixel_values). `patches.f32` holds the pixel_values of one case themselves. Alpha is dropped by `convert("RGB")` before the
processor sees the picture; the processor alone would blend it with white.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
MIN, MAX = 28 * 28, 28 * 28 * 1280


def photo(width, height, seed):
    """Smooth waves, noise, hard edges and some text."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / (9 + 3 * c) + seed) + 50 * np.cos(y / (6 + 2 * c)) for c in range(3)]
    pixels = np.stack(waves, -1) + rng.normal(0, 6, (height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        corners = [tuple(int(v) for v in rng.integers(0, [width, height])) for _ in range(3)]
        draw.polygon(corners, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw.text((3, 3), "AB = 12", fill=(0, 0, 0))
    return image


def with_alpha(image, seed):
    alpha = np.random.default_rng(seed).integers(0, 256, image.size[::-1]).astype(np.uint8)
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


cases = []


def case(name, save, min_pixels=MIN, max_pixels=MAX):
    path = out / name
    save(path)
    # Through an array: `convert` keeps the transparent colour of a palette in `info`, and the processor would whiten it.
    image = Image.fromarray(np.asarray(Image.open(path).convert("RGB")))
    processor = Qwen2VLImageProcessorPil(min_pixels=min_pixels, max_pixels=max_pixels)
    batch = processor(images=[image], return_tensors="np")
    values, (t, h, w) = batch["pixel_values"], (int(v) for v in batch["image_grid_thw"][0])
    patches = values.reshape(t, h // 2, w // 2, 2, 2, 3, 2, 14, 14)
    assert np.array_equal(patches[..., 0, :, :], patches[..., 1, :, :])
    pixels = patches[..., 0, :, :].transpose(0, 1, 3, 6, 2, 4, 7, 5).reshape(h * 14, w * 14, 3)
    pixels = pixels * np.array(processor.image_std) + np.array(processor.image_mean)
    rounded = np.round(pixels * 255)
    assert np.abs(pixels * 255 - rounded).max() < 1e-3
    Image.fromarray(rounded.astype(np.uint8)).save(out / (name + ".expected.png"), optimize=True)
    cases.append({"file": name, "min_pixels": min_pixels, "max_pixels": max_pixels, "grid_thw": [t, h, w]})
    return values


a, b = photo(75, 50, 1), photo(61, 47, 2)
# Sizes and limits.
case("plain.png", a.save)
case("same_size.png", photo(84, 56, 3).save)
case("shrink.png", photo(110, 90, 4).save, max_pixels=60 * 60)
case("enlarge.png", photo(40, 30, 5).save, min_pixels=70 * 70)
case("one_pixel.png", photo(1, 1, 6).save)
case("three_by_five.png", photo(3, 5, 7).save)
case("wide.png", photo(200, 2, 8).save)
case("tall.png", photo(3, 250, 9).save, min_pixels=56 * 56)
patches = case("patches.png", photo(31, 26, 10).save)
assert patches.dtype == np.float32
patches.astype("<f4").tofile(out / "patches.f32")
# PNG modes.
case("grey.png", a.convert("L").save)
case("grey_alpha.png", with_alpha(b, 1).convert("LA").save)
case("rgba.png", with_alpha(b, 2).save)
case("palette.png", a.quantize(32).save)
case("palette_transparent.png", lambda p: a.quantize(16).save(p, transparency=3))
case("bilevel.png", a.convert("1").save)
case("grey16.png", Image.fromarray(np.asarray(a.convert("L")).astype(np.uint16) * 3).save)
# JPEG: the three samplings, progressive, grey, CMYK, restart markers.
for name, options in {
    "444": {"subsampling": 0, "quality": 92},
    "422": {"subsampling": 1, "quality": 85},
    "420": {"subsampling": 2, "quality": 75},
    "progressive": {"subsampling": 2, "quality": 85, "progressive": True},
    "restart": {"quality": 80, "restart_marker_rows": 1},
}.items():
    case(f"{name}.jpg", lambda p: b.save(p, **options))
case("grey.jpg", lambda p: b.convert("L").save(p, quality=80))
case("cmyk.jpg", lambda p: b.convert("CMYK").save(p, quality=85))
# Others; of an animation the first frame.
case("lossy.webp", lambda p: b.save(p, quality=80))
case("lossless_alpha.webp", lambda p: with_alpha(b, 3).save(p, lossless=True, exact=True))
case("two_frames.gif", lambda p: a.save(p, save_all=True, append_images=[photo(75, 50, 11)]))
case("plain.bmp", b.save)
case("plain.tiff", lambda p: b.save(p, compression="tiff_lzw"))
(out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
