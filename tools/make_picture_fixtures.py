"""What Pillow, transformers and EasyR1 make of pictures that are transparent, turned, cut off or outside a run's limits.

    venv/bin/python tools/make_picture_fixtures.py crates/data/tests/fixtures/images

With the versions of requirements.txt (pillow, numpy, transformers; no torch). Writes four JSON files; files and RGB values in base64:

    decode.json     files with transparency or an orientation: what transformers' convert_to_rgb (white under it) and PIL's
                    convert("RGB") (alpha dropped) give, turned by exif_transpose and not
    truncated.json  PNG files: for each number of bytes cut off at the end whether Pillow reads them, and other damage
    sizes.json      width, height, the run's limits, the folder's limits -> sizes of process_image, grid of smart_resize
    run.json        pictures outside a run's limits -> the pixels that the image processor normalises
"""

import base64
import io
import json
import math
import random
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

warnings.simplefilter("ignore")
out = Path(sys.argv[1])
b64 = lambda data: base64.b64encode(data).decode()
rng = np.random.default_rng(11)


def noise(width, height, channels, seed, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *before, after=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + pixels + after + chunk(b"IEND", b"")


# --- transparency and orientation
decode = []


def case(name, data):
    plain = Image.open(io.BytesIO(data))
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    white = convert_to_rgb(turned, return_numpy=True)
    dropped = np.asarray(plain.convert("RGB"))
    entry = {"name": name, "file": b64(data), "white": [*white.shape[1::-1], b64(white.tobytes())]}
    entry["dropped"] = [*dropped.shape[1::-1], b64(dropped.tobytes())]
    decode.append(entry)


rgba = Image.fromarray(noise(7, 5, 4, 1), "RGBA")
# Every alpha over every kind of value, and the black lines on a clear ground of a drawing.
steps = np.stack(np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 17)), -1).astype(np.uint8)
steps = np.concatenate([steps[..., :1], 255 - steps[..., :1], steps[..., 1:], steps[..., :1]], -1)
lines = np.zeros((6, 9, 4), np.uint8)
lines[2, :, 3] = 255
grey = Image.fromarray(noise(7, 5, 1, 2)[..., 0])
colour = Image.fromarray(noise(7, 5, 3, 3))
few = Image.fromarray((noise(7, 5, 1, 4)[..., 0] % 5).astype(np.uint8), "P")
few.putpalette([10, 20, 30, 255, 0, 0, 50, 60, 70, 200, 210, 220, 7, 8, 9])
case("rgba.png", encoded(rgba, "png"))
case("steps.png", encoded(Image.fromarray(steps, "RGBA"), "png"))
case("lines.png", encoded(Image.fromarray(lines, "RGBA"), "png"))
case("la.png", encoded(Image.fromarray(noise(7, 5, 2, 5), "LA"), "png"))
case("palette_one.png", encoded(few, "png", transparency=2))
case("palette_alphas.png", encoded(few, "png", transparency=bytes([255, 0, 128, 3])))
case("palette_opaque.png", encoded(few, "png"))
values = np.array([5, 200, 256, 258, 65535, 511, 5], ">u2")
for clear in (5, 200, 256, 258, 65535):
    case(f"grey16_{clear}.png", png(7, 1, 16, 0, [values.tobytes()], chunk(b"tRNS", struct.pack(">H", clear))))
pixels = [(0x1234,) * 3, (0x1212,) * 3, (0x3412,) * 3, (0xFFFF,) * 3, (0x1299, 0x1200, 0x1201)]
row = b"".join(struct.pack(">3H", *p) for p in pixels)
for clear in (0x1234, 0x1212, 0x3412, 0xFFFF, 0x12):
    case(f"rgb16_{clear:x}.png", png(5, 1, 16, 2, [row], chunk(b"tRNS", struct.pack(">3H", *[clear] * 3))))
for depth, data, clears in ((1, 0b01010000, (0, 1)), (2, 0b00011011, (0, 1, 3)), (4, 0x05, (0, 5, 85))):
    for clear in clears:
        width = min(4, 8 // depth)
        case(f"grey{depth}_{clear}.png", png(width, 1, depth, 0, [bytes([data])], chunk(b"tRNS", struct.pack(">H", clear))))
case("grey8.png", png(4, 1, 8, 0, [bytes([7, 9, 7, 0])], chunk(b"tRNS", struct.pack(">H", 7))))
case("rgb8.png", png(3, 1, 8, 2, [bytes([7, 8, 9, 7, 8, 8, 7, 8, 9])], chunk(b"tRNS", struct.pack(">3H", 7, 8, 9))))
wide = noise(4, 3, 4, 6, np.uint16).astype(">u2")
case("la16.png", png(4, 3, 16, 4, [wide[y, :, :2].tobytes() for y in range(3)]))
case("rgba16.png", png(4, 3, 16, 6, [wide[y].tobytes() for y in range(3)]))
case("rgba.webp", encoded(rgba, "webp", lossless=True, exact=True))
case("lossy_alpha.webp", encoded(rgba.resize((16, 16)), "webp", quality=80))
case("opaque.webp", encoded(colour, "webp", lossless=True))
case("clear.gif", encoded(few, "gif", transparency=2))
case("opaque.gif", encoded(few, "gif"))
# A first frame that covers a part of the screen, whose size the file states apart.
for name, options in {"part": {}, "part_clear": {"transparency": 2}}.items():
    part = bytearray(encoded(few.crop((0, 0, 4, 3)), "gif", **options))
    part[6:10] = struct.pack("<HH", 7, 5)
    at = part.index(b"\x2c\0\0\0\0")
    part[at + 1 : at + 5] = struct.pack("<HH", 2, 1)
    case(f"{name}.gif", bytes(part))
case("rgba.tiff", encoded(rgba, "tiff"))
case("rgba_lzw.tiff", encoded(rgba, "tiff", compression="tiff_lzw"))
for kind in (0, 1, 2):
    case(f"extra_{kind}.tiff", encoded(rgba, "tiff", tiffinfo={338: kind}))
case("rgba.bmp", encoded(rgba, "bmp"))
case("rgb.bmp", encoded(colour, "bmp"))


def exif_block(orientation, big_endian=False, kind=3):
    order = ">" if big_endian else "<"
    # Two other tags around it, so that it has to be looked for.
    entries = [(0x0100, 3, 7), (0x0112, kind, orientation), (0x0128, 3, 2)]
    block = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "IH", 8, len(entries))
    for tag, type_, value in entries:
        number = struct.pack(order + ("I" if type_ == 4 else "HH"), *([value] if type_ == 4 else [value, 0]))
        block += struct.pack(order + "HHI", tag, type_, 1) + number
    return block + b"\0\0\0\0"


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {} xmlns:tiff="http://ns.adobe.com/tiff/1.0/">{}</rdf:Description></x:xmpmeta>'
rows = [np.asarray(colour)[y].tobytes() for y in range(5)]
for o in range(1, 9):
    block = exif_block(o, big_endian=o % 2 == 0, kind=4 if o == 7 else 3)
    case(f"exif_{o}.jpg", encoded(colour, "jpeg", quality=90, exif=b"Exif\0\0" + block))
    case(f"exif_{o}.png", png(7, 5, 8, 2, rows, chunk(b"eXIf", block)))
    case(f"exif_{o}.webp", encoded(colour, "webp", lossless=True, exif=block))
    case(f"exif_{o}.tiff", encoded(colour, "tiff", tiffinfo={0x0112: o}))
turn = exif_block(6)
case("exif_behind.png", png(7, 5, 8, 2, rows, after=chunk(b"eXIf", turn)))
case("exif_and_alpha.png", png(7, 5, 8, 6, [np.asarray(rgba)[y].tobytes() for y in range(5)], chunk(b"eXIf", turn)))
profile = "\nexif\n{:8}\n{}\n".format(len(turn) + 6, (b"Exif\0\0" + turn).hex()).encode()
case("profile_text.png", png(7, 5, 8, 2, rows, chunk(b"tEXt", b"Raw profile type exif\0" + profile)))
case("profile_ztxt.png", png(7, 5, 8, 2, rows, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))))
for name, xmp in {
    "attribute": XMP.format('tiff:Orientation="6"', ""),
    "element": XMP.format("", "<tiff:Orientation>8</tiff:Orientation>"),
    "none": XMP.format("", "tiff:Orientation is said to be 6"),
}.items():
    case(f"xmp_{name}.jpg", encoded(colour, "jpeg", quality=90, xmp=xmp.encode()))
    case(f"xmp_{name}.png", png(7, 5, 8, 2, rows, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())))
    case(f"xmp_{name}.webp", encoded(colour, "webp", lossless=True, xmp=xmp.encode()))
packed = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP.format('tiff:Orientation="3"', "").encode()))
case("xmp_packed.png", png(7, 5, 8, 2, rows, packed))
# An EXIF orientation of 1 stands, whatever XMP says; and what is out of range or of another type does not turn.
case("exif_over_xmp.jpg", encoded(colour, "jpeg", exif=b"Exif\0\0" + exif_block(1), xmp=XMP.format('tiff:Orientation="6"', "").encode()))
case("exif_9.jpg", encoded(colour, "jpeg", exif=b"Exif\0\0" + exif_block(9)))
case("exif_0.jpg", encoded(colour, "jpeg", exif=b"Exif\0\0" + exif_block(0)))
case("exif_byte.jpg", encoded(colour, "jpeg", exif=b"Exif\0\0" + exif_block(6, kind=1)))
case("exif_twice.jpg", encoded(colour, "jpeg", exif=b"Exif\0\0Exif\0\0" + exif_block(6)))
case("grey_6.jpg", encoded(grey, "jpeg", exif=b"Exif\0\0" + exif_block(6)))
(out / "decode.json").write_text(json.dumps(decode, indent=0) + "\n")


# --- cut off and damaged PNG files
def reads(data):
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return zlib.crc32(np.asarray(image.convert("RGB")).tobytes())
    except Exception:
        return None


files = {
    "noise": encoded(Image.fromarray(noise(13, 9, 3, 21)), "png"),
    "grey": encoded(Image.fromarray(noise(20, 20, 1, 22)[..., 0]), "png"),
    "flat": encoded(Image.new("RGB", (40, 30), (9, 8, 7)), "png"),
    "palette": encoded(few, "png", transparency=2),
    "rgba": encoded(rgba, "png"),
}
stream = zlib.compress(b"".join(b"\0" + row for row in rows))
head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, 2, 0, 0, 0))
end = chunk(b"IEND", b"")
files["parts"] = head + b"".join(chunk(b"IDAT", stream[k : k + 20]) for k in range(0, len(stream), 20)) + end
truncated = [{"name": n, "file": b64(d), "reads": [reads(d[: len(d) - k]) for k in range(60)]} for n, d in files.items()]
whole = bytearray(head + chunk(b"IDAT", stream) + end)
at = whole.index(b"IDAT") + 4
flipped = lambda position: bytes(b ^ 1 if i == position else b for i, b in enumerate(whole))
longer = bytearray(whole)
longer[at - 8 : at - 4] = struct.pack(">I", len(stream) + 100)
for name, data in {
    "checksum of the pixels' chunk": flipped(at + len(stream)),
    "checksum of the end": flipped(len(whole) - 1),
    "no end": head + chunk(b"IDAT", stream),
    "no checksum of the stream": head + chunk(b"IDAT", stream[:-4]) + end,
    "half a checksum of the stream": head + chunk(b"IDAT", stream[:-2]) + end,
    "one byte less": head + chunk(b"IDAT", stream[:-5]) + end,
    "something behind the end": bytes(whole) + b"xxxx",
    "something else behind the pixels": head + chunk(b"IDAT", stream) + b"\0\0\0\x05ab",
    "a chunk that says it is longer": bytes(longer),
    "no pixels": head + end,
}.items():
    truncated.append({"name": name, "file": b64(data), "reads": [reads(data)]})
(out / "truncated.json").write_text(json.dumps(truncated, indent=0) + "\n")


# --- sizes
def process_image(width, height, min_pixels, max_pixels):
    """EasyR1's, in sizes; returns those of its steps."""
    reduced = enlarged = None
    if max_pixels and width * height > max_pixels:
        factor = math.sqrt(max_pixels / (width * height))
        width, height = reduced = int(width * factor), int(height * factor)
    if min_pixels and width * height < min_pixels:
        factor = math.sqrt(min_pixels / (width * height))
        width, height = enlarged = int(width * factor), int(height * factor)
    return width, height, reduced, enlarged


random.seed(5)
sizes = []
folders = [(3136, 12845056, 28), (3136, 1003520, 28), (784, 262144, 28), (65536, 16777216, 32)]
runs = [(0, 0), (262144, 4194304), (200704, 1003520), (262144, 0), (0, 1003520), (3136, 3136), (1, 50), (9900, 9990), (50000, 60000)]
fixed = [(224, 224), (1000, 1010), (127, 2077), (512, 512), (511, 513), (28, 28), (1, 1), (200, 1), (201, 1), (1, 200), (4000, 3000)]
cases = [(*size, *run, *folder) for size in fixed for run in runs for folder in folders[:1]]
while len(cases) < 1500:
    area, aspect = math.exp(random.uniform(3, 17)), math.exp(random.gauss(0, 0.7))
    size = max(1, round(math.sqrt(area * aspect))), max(1, round(math.sqrt(area / aspect)))
    low = random.choice([0, int(math.exp(random.uniform(6, 13)))])
    run = random.choice(runs) if random.random() < 0.5 else (low, random.choice([0, low + int(math.exp(random.uniform(2, 15)))]))
    cases.append((*size, *run, *random.choice(folders)))
for width, height, low, high, least, most, factor in cases:
    grid, reduced, enlarged = None, None, None
    try:
        w, h, reduced, enlarged = process_image(width, height, low, high)
        grid = [side // (factor // 2) for side in smart_resize(h, w, factor, least, most)]
    except (ValueError, ZeroDivisionError):
        pass
    sizes.append([width, height, low, high, least, most, factor, reduced, enlarged, grid])
(out / "sizes.json").write_text("[\n" + ",\n".join(json.dumps(s, separators=(",", ":")) for s in sizes) + "\n]\n")

# --- pixels
run = []
for k, (width, height, low, high) in enumerate([(61, 47, 0, 1500), (20, 31, 3000, 0), (50, 50, 2450, 2460), (40, 30, 900, 1300)]):
    image = Image.fromarray(noise(width, height, 3, 30 + k)).resize((width, height), Image.Resampling.BOX)
    data = encoded(image, "png")
    w, h, reduced, enlarged = process_image(width, height, low, high)
    for step in (reduced, enlarged):
        image = image.resize(step) if step else image
    processor = Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=12845056)
    batch = processor(images=[image], return_tensors="np")
    t, gh, gw = (int(v) for v in batch["image_grid_thw"][0])
    patches = batch["pixel_values"].reshape(t, gh // 2, gw // 2, 2, 2, 3, 2, 14, 14)[..., 0, :, :]
    pixels = patches.transpose(0, 1, 3, 6, 2, 4, 7, 5).reshape(gh * 14, gw * 14, 3)
    pixels = np.round((pixels * np.array(processor.image_std) + np.array(processor.image_mean)) * 255).astype(np.uint8)
    run.append({"file": b64(data), "run": [low, high], "first": [w, h], "pixels": [gw * 14, gh * 14, b64(pixels.tobytes())]})
(out / "run.json").write_text(json.dumps(run, indent=0) + "\n")
