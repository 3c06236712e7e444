//! Decoding, resizing and patches against transformers' own processor; damaged and hostile images.

use std::path::PathBuf;

use data::image::{self, RgbImage};
use data::{Alpha, ExifOrientation, ImageError, ImageLimits, RunPixels};
use proptest::prelude::*;
use serde::Deserialize;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[derive(Deserialize)]
struct Case {
    file: String,
    min_pixels: u64,
    max_pixels: u64,
    grid_thw: [usize; 3],
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fixture("cases.json")).unwrap()
}

impl Case {
    fn limits(&self) -> ImageLimits {
        ImageLimits { min_pixels: self.min_pixels, max_pixels: self.max_pixels, ..Default::default() }
    }
}

/// The bar is 99.5% of the values equal and none off by more than 2; what is reached is equality of all of them.
#[test]
fn every_kind_of_file_gives_the_pixels_of_the_reference() {
    assert!(cases().len() > 20);
    for case in cases() {
        let limits = case.limits();
        // These references had their alpha dropped.
        let dropped = ImageLimits { alpha: Alpha::Drop, ..limits.clone() };
        let picture =
            image::decode_with(&fixture(&case.file), &dropped).unwrap_or_else(|e| panic!("{}: {e}", case.file));
        let plan = image::plan(picture.width(), picture.height(), &limits).unwrap();
        let resized = image::resize_bicubic(&picture, plan.last.0, plan.last.1);
        let expected = image::decode(&fixture(&format!("{}.expected.png", case.file))).unwrap();
        assert_eq!(resized.dimensions(), expected.dimensions(), "{}", case.file);
        let differences = resized.iter().zip(expected.iter()).filter(|(a, b)| a != b).count();
        assert_eq!(differences, 0, "{}: of {} values", case.file, expected.len());

        let patches = image::process(&picture, &limits).unwrap();
        assert_eq!(patches.grid_thw, case.grid_thw, "{}", case.file);
        assert_eq!(patches.values.len(), patches.len() * 1176);
        let (w, h) = image::header_size(&fixture(&case.file)).unwrap();
        assert_eq!(image::grid_of(w, h, &limits).unwrap(), case.grid_thw, "{}", case.file);
    }
}

#[test]
fn patches_are_those_of_the_reference_to_the_last_bit() {
    let case = cases().into_iter().find(|c| c.file == "patches.png").unwrap();
    let patches = image::process(&image::decode(&fixture("patches.png")).unwrap(), &case.limits()).unwrap();
    let expected = fixture("patches.f32");
    let expected: Vec<f32> = expected.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(patches.values.len(), expected.len());
    let off = patches.values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(off <= 2.5e-7, "largest difference {off}");
}

#[test]
fn patch_order_by_hand() {
    // A 56x28 picture (two tokens side by side) whose red is the x, green the y coordinate.
    let picture = RgbImage::from_fn(56, 28, |x, y| ::image::Rgb([x as u8, y as u8, 7]));
    let limits = ImageLimits { min_pixels: 28 * 28, mean: [0.0; 3], std: [1.0; 3], ..Default::default() };
    let patches = image::process(&picture, &limits).unwrap();
    assert_eq!(patches.grid_thw, [1, 2, 4]);
    let value = |patch: usize, c: usize, t: usize, y: usize, x: usize| {
        (patches.values[patch * 1176 + c * 392 + t * 196 + y * 14 + x] * 255.0).round() as usize
    };
    // Patches of the first token, then of the second: (x0, y0) of each.
    let corners = [(0, 0), (14, 0), (0, 14), (14, 14), (28, 0), (42, 0), (28, 14), (42, 14)];
    for (patch, (x0, y0)) in corners.into_iter().enumerate() {
        for t in 0..2 {
            assert_eq!(value(patch, 0, t, 3, 5), x0 + 5);
            assert_eq!(value(patch, 1, t, 3, 5), y0 + 3);
            assert_eq!(value(patch, 2, t, 3, 5), 7);
        }
    }
}

#[test]
fn sixteen_bit_colour_is_read_by_its_high_byte() {
    let mut png = Vec::new();
    let picture = ::image::ImageBuffer::from_fn(3, 1, |x, _| ::image::Rgb([0x12ffu16, 0xff00, x as u16]));
    ::image::DynamicImage::ImageRgb16(picture)
        .write_to(&mut std::io::Cursor::new(&mut png), ::image::ImageFormat::Png)
        .unwrap();
    assert_eq!(image::decode(&png).unwrap().as_raw()[..3], [0x12, 0xff, 0]);
}

#[test]
fn a_truncated_file_is_an_error_in_every_format() {
    // What is behind the pixels of a PNG may be missing.
    for name in ["plain.png", "420.jpg", "progressive.jpg", "lossy.webp", "plain.bmp", "plain.tiff"] {
        let bytes = fixture(name);
        for keep in [bytes.len() / 2, bytes.len() * 9 / 10] {
            let error = image::decode(&bytes[..keep]).expect_err(name);
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn damage_never_panics() {
    for name in ["420.jpg", "progressive.jpg", "palette.png", "lossy.webp", "two_frames.gif"] {
        let whole = fixture(name);
        for k in 0..200 {
            let mut bytes = whole.clone();
            let at = k * 7919 % bytes.len();
            bytes[at] ^= 1 << (k % 8);
            // Errors and pictures are both fine.
            let _ = image::decode(&bytes);
        }
    }
}

#[test]
fn what_is_no_image_is_named() {
    assert_eq!(image::decode(&[]).unwrap_err(), ImageError::Empty);
    let error = image::decode(b"<html>not found</html>").unwrap_err().to_string();
    assert!(error.contains("not an image") && error.contains("3c 68"), "{error}");
    assert!(image::header_size(b"\xff\xd8\xff\xe0\x00").unwrap_err().to_string().contains("JPEG"));
}

#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    // A PNG header that states 60000 x 60000 pixels: 10.8 GB decoded.
    let mut bomb = fixture("plain.png");
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = image::decode(&bomb).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { width: 60_000, height: 60_000, .. }), "{error}");
    assert!(matches!(image::decode_within(&fixture("plain.png"), 100), Err(ImageError::TooLarge { .. })));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn too_elongated_is_an_error() {
    let limits = ImageLimits::default();
    assert!(image::process(&RgbImage::new(400, 2), &limits).is_ok());
    assert!(matches!(image::process(&RgbImage::new(402, 2), &limits), Err(ImageError::AspectRatio { .. })));
}

proptest! {
    #[test]
    fn resized_sides_are_multiples_within_the_limits(
        w in 1u32..3000, h in 1u32..3000, min in 784u64..200_000, extra in 200_000u64..2_000_000,
        run_min in 0u64..400_000, run_extra in 0u64..2_000_000, is_run: bool,
    ) {
        let run = if is_run { RunPixels { min_pixels: run_min, max_pixels: run_min + run_extra } } else { Default::default() };
        let limits = ImageLimits { min_pixels: min, max_pixels: min + extra, run, ..Default::default() };
        match image::plan(w, h, &limits) {
            Ok(plan) => {
                let (w, h) = plan.last;
                prop_assert_eq!((w % 28, h % 28), (0, 0));
                prop_assert!(w > 0 && h > 0);
                let area = u64::from(w) * u64::from(h);
                // Very elongated pictures keep one token's height, whatever that makes of their area.
                prop_assert!(area >= min && (area <= min + extra || w.min(h) == 28), "{}x{}", w, h);
            }
            Err(e) => prop_assert!(w.max(h) > 200 * w.min(h) || is_run, "{}", e),
        }
    }

    #[test]
    fn a_flat_picture_stays_flat(w in 1u32..60, h in 1u32..60, out_w in 1u32..90, out_h in 1u32..90, v: u8) {
        // The fixed-point weights of a position sum to one within what rounding forgives.
        let flat = RgbImage::from_pixel(w, h, ::image::Rgb([v; 3]));
        prop_assert!(image::resize_bicubic(&flat, out_w, out_h).iter().all(|p| *p == v));
    }
}

/// Base64 of the bytes of a file, or of a picture's values behind its width and height.
fn unpacked(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[derive(Deserialize)]
struct Pixels(u32, u32, String);

impl Pixels {
    fn image(&self) -> RgbImage {
        RgbImage::from_raw(self.0, self.1, unpacked(&self.2)).unwrap()
    }
}

/// Transparent and turned files of every kind, against transformers' `convert_to_rgb` after Pillow's `exif_transpose`,
/// and against PIL's `convert("RGB")` of the file as it is opened.
#[test]
fn transparency_and_orientation_are_those_of_the_references() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        file: String,
        white: Pixels,
        dropped: Pixels,
    }
    let cases: Vec<Case> = serde_json::from_slice(&fixture("decode.json")).unwrap();
    assert_eq!(cases.len(), 95);
    let easyr1 =
        ImageLimits { alpha: Alpha::Drop, exif_orientation: ExifOrientation::Ignore, ..ImageLimits::default() };
    let mut wrong = Vec::new();
    for case in cases {
        let file = unpacked(&case.file);
        for (limits, expected) in [(ImageLimits::default(), case.white.image()), (easyr1.clone(), case.dropped.image())]
        {
            let found = image::decode_with(&file, &limits).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            let size = image::upright_size(&file, limits.exif_orientation).unwrap();
            if found != expected || size != found.dimensions() {
                wrong.push(format!(
                    "{} {:?}: {:?} {:?} {:?} {:?}",
                    case.name,
                    limits.alpha,
                    found.dimensions(),
                    expected.dimensions(),
                    &found.as_raw()[..9.min(found.as_raw().len())],
                    &expected.as_raw()[..9.min(expected.as_raw().len())]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_png_without_its_end_is_read_where_pillow_reads_it() {
    #[derive(Deserialize)]
    struct Case {
        name: String,
        file: String,
        /// For each number of bytes cut off: the check sum of the pixels, or nothing where Pillow refuses.
        reads: Vec<Option<u32>>,
    }
    let cases: Vec<Case> = serde_json::from_slice(&fixture("truncated.json")).unwrap();
    assert_eq!(cases.len(), 16);
    let mut wrong = Vec::new();
    for case in cases {
        let file = unpacked(&case.file);
        let limits = ImageLimits { alpha: Alpha::Drop, ..ImageLimits::default() };
        for (cut, expected) in case.reads.iter().enumerate() {
            let found = image::decode_with(&file[..file.len() - cut], &limits).ok().map(|p| crc32(p.as_raw()));
            if found != *expected {
                wrong.push(format!("{}, {cut} bytes less: {found:?}, not {expected:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Deserialize)]
#[allow(clippy::type_complexity)]
struct Size(u32, u32, u64, u64, u64, u64, usize, Option<(u32, u32)>, Option<(u32, u32)>, Option<[usize; 2]>);

/// EasyR1's `process_image` and transformers' `smart_resize`, written in Python.
#[test]
fn sizes_are_those_of_the_references() {
    let sizes: Vec<Size> = serde_json::from_slice(&fixture("sizes.json")).unwrap();
    assert_eq!(sizes.len(), 1500);
    let (mut grids, mut both) = (0, 0);
    for Size(w, h, min, max, least, most, factor, reduced, enlarged, grid) in sizes {
        let limits = ImageLimits {
            min_pixels: least,
            max_pixels: most,
            patch_size: factor / 2,
            run: RunPixels { min_pixels: min, max_pixels: max },
            ..Default::default()
        };
        let case = format!("{w}x{h} within {min}..{max}, then {least}..{most}");
        match (image::plan(w, h, &limits), grid) {
            (Ok(plan), Some(grid)) => {
                assert_eq!((plan.reduced, plan.enlarged), (reduced, enlarged), "{case}");
                assert_eq!(image::grid_of(w, h, &limits).unwrap(), [1, grid[0], grid[1]], "{case}");
                grids += 1;
                both += usize::from(reduced.is_some() && enlarged.is_some());
            }
            (Err(ImageError::AspectRatio { width, height, .. }), None) => assert_eq!((width, height), (w, h)),
            (found, expected) => panic!("{case}: {found:?}, not {expected:?}"),
        }
    }
    assert!(grids > 1400 && both > 50, "{grids} {both}");
}

#[test]
fn pixels_within_the_limits_of_a_run() {
    #[derive(Deserialize)]
    struct Case {
        file: String,
        run: [u64; 2],
        first: [u32; 2],
        pixels: Pixels,
    }
    let cases: Vec<Case> = serde_json::from_slice(&fixture("run.json")).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let [min_pixels, max_pixels] = case.run;
        let limits = ImageLimits {
            min_pixels: 784,
            max_pixels: 12_845_056,
            run: RunPixels { min_pixels, max_pixels },
            ..Default::default()
        };
        let picture = image::decode(&unpacked(&case.file)).unwrap();
        let first = image::process_image(&picture, &limits).unwrap();
        assert_eq!(first.dimensions(), (case.first[0], case.first[1]));
        let expected = case.pixels.image();
        assert_eq!(image::resize_bicubic(&first, case.pixels.0, case.pixels.1), expected, "{:?}", case.run);
        // The two halves are the whole, and the run's limits do not act on the second.
        let patches = image::process(&picture, &limits).unwrap();
        assert_eq!(image::to_patches(&first, &limits).unwrap(), patches);
        let none = ImageLimits { run: RunPixels::default(), ..limits.clone() };
        assert_eq!(image::to_patches(&first, &none).unwrap(), patches);
        assert_eq!(patches.grid_thw, [1, case.pixels.1 as usize / 14, case.pixels.0 as usize / 14]);
    }
}

/// A zlib stream of `side * (side + 1)` zero bytes, as the PNG encoder writes it.
fn zlib_zeros(side: u32) -> Vec<u8> {
    let mut png = Vec::new();
    let blank = ::image::GrayImage::new(side, side);
    blank.write_to(&mut std::io::Cursor::new(&mut png), ::image::ImageFormat::Png).unwrap();
    chunks(&png).filter(|(name, _)| name == b"IDAT").flat_map(|(_, body)| body.to_vec()).collect()
}

/// Name and body of each chunk of a PNG.
fn chunks(png: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = 8;
    std::iter::from_fn(move || {
        let head = png.get(at..at + 8)?;
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let body = &png[at + 8..at + 8 + length];
        at += length + 12;
        Some((head[4..].try_into().unwrap(), body))
    })
}

/// A PNG of these chunks, with right check sums.
fn png_of(parts: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
        })
    };
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, body) in parts {
        png.extend((body.len() as u32).to_be_bytes());
        let named = [name.as_slice(), body].concat();
        png.extend(&named);
        png.extend(crc(&named).to_be_bytes());
    }
    png
}

fn ihdr(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, color, 0, 0, 0]].concat()
}

/// Peak memory of this process so far, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Small files that ask for much memory or time: each is an error, and takes little of both.
#[test]
fn bombs_of_every_format_are_refused() {
    let zeros = zlib_zeros(8192); // 67 MB in 65 kB
    assert!(zeros.len() < 1 << 20);
    let tiny = {
        let mut png = Vec::new();
        RgbImage::new(4, 4).write_to(&mut std::io::Cursor::new(&mut png), ::image::ImageFormat::Png).unwrap();
        png
    };
    let idat: Vec<u8> = chunks(&tiny).find(|(name, _)| name == b"IDAT").unwrap().1.to_vec();
    // A frame of 65535 x 65535 on a screen of 1 x 1.
    let gif = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x2c\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00\x3b";
    let mut offset = gif.to_vec();
    offset[20] = 1; // begins one pixel to the right
    let profile = [b"x\0\0".as_slice(), &zeros].concat();
    let mut huge = fixture("420.jpg");
    let sof = huge.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    huge[sof + 5..sof + 9].fill(0xFF);
    for (name, bytes, refused) in [
        ("gif", gif.to_vec(), true),
        ("gif with an offset", offset, true),
        // Whether a profile, a text or what follows the last row is looked at is the decoder's affair; it must not be
        // kept.
        (
            "profile",
            png_of(&[(b"IHDR", ihdr(4, 4, 8, 2)), (b"iCCP", profile), (b"IDAT", idat.clone()), (b"IEND", vec![])]),
            false,
        ),
        ("pixels", png_of(&[(b"IHDR", ihdr(4, 4, 8, 0)), (b"IDAT", zeros.clone()), (b"IEND", vec![])]), false),
        (
            "text",
            png_of(&[
                (b"IHDR", ihdr(4, 4, 8, 2)),
                (b"zTXt", [b"k\0\0", &zeros[..]].concat()),
                (b"IDAT", idat.clone()),
                (b"IEND", vec![]),
            ]),
            false,
        ),
        ("large png", png_of(&[(b"IHDR", ihdr(60_000, 60_000, 16, 6)), (b"IDAT", zeros), (b"IEND", vec![])]), true),
        ("large jpeg", huge, true),
        ("long", [tiny, vec![0; 17 << 20]].concat(), true),
    ] {
        let (start, before) = (std::time::Instant::now(), peak());
        let done = image::decode(&bytes);
        assert!(!refused || done.is_err(), "{name}");
        if let Err(error) = done {
            assert!(error.to_string().len() < 400, "{name}: {error}");
            assert!(!name.starts_with("gif") || error.to_string().contains("decoded_pixels="), "{name}: {error}");
        }
        assert!(start.elapsed().as_secs() < 20, "{name}: {:?}", start.elapsed());
        assert!(peak() - before < 200 << 20, "{name}: {} MB", (peak() - before) >> 20);
    }
}

/// Memory follows from the pixel limit, not from what a format makes of a pixel.
#[test]
fn buffers_follow_from_the_pixel_limit() {
    let encode = |picture: ::image::DynamicImage, format| {
        let mut bytes = Vec::new();
        picture.write_to(&mut std::io::Cursor::new(&mut bytes), format).unwrap();
        bytes
    };
    use ::image::{DynamicImage, ImageFormat};
    let (w, h) = (90, 90);
    let limit = u64::from(w * h);
    let tiff = |picture| encode(picture, ImageFormat::Tiff);
    // Two buffers of three bytes per pixel, and two of twelve.
    assert!(image::decode_within(&tiff(DynamicImage::new_rgb8(w, h)), limit).is_ok());
    let floats = tiff(DynamicImage::ImageRgb32F(::image::Rgb32FImage::new(w, h)));
    let error = image::decode_within(&floats, limit).unwrap_err().to_string();
    assert!(error.contains("194400 bytes") && error.contains("decoded_pixels="), "{error}");
    assert!(image::decode_within(&floats, 3 * limit).is_ok());
    // Sixteen bits and alpha are what a pixel may have.
    let deep = encode(DynamicImage::new_rgba16(w, h), ImageFormat::Png);
    assert!(image::decode_within(&deep, limit).is_ok());
    assert!(matches!(image::decode_within(&deep, limit - 1), Err(ImageError::TooLarge { .. })));
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
        assert!(image::decode_within(&encode(DynamicImage::new_rgb8(w, h), format), limit).is_ok(), "{format:?}");
    }
}

/// Of an animation or a file of several pages the first picture is wanted; the others may be as large as they like.
#[test]
fn what_follows_the_first_picture_is_no_bomb() {
    for file in ["two_frames.gif", "plain.tiff", "420.jpg"] {
        let long = [fixture(file), vec![0; 20 << 20]].concat();
        assert_eq!(image::decode(&long).unwrap(), image::decode(&fixture(file)).unwrap(), "{file}");
    }
}

#[test]
fn scans_over_and_over_are_refused() {
    let jpeg = fixture("progressive.jpg");
    let (w, h) = image::header_size(&jpeg).unwrap();
    let pixels = u64::from(w) * u64::from(h);
    assert!(image::decode_within(&jpeg, pixels).is_ok());
    // The last scan again and again.
    let last = jpeg.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    let end = jpeg.windows(2).rposition(|w| w == [0xFF, 0xD9]).unwrap();
    let mut many = jpeg[..end].to_vec();
    (0..2000).for_each(|_| many.extend(&jpeg[last..end]));
    many.extend(&jpeg[end..]);
    let error = image::decode_within(&many, 20 * pixels).unwrap_err().to_string();
    assert!(error.contains("scans over") && error.contains("picture_passes="), "{error}");
    // A second frame header is not what is decoded.
    let sof = jpeg.windows(2).position(|w| w == [0xFF, 0xC2]).unwrap();
    let length = 2 + usize::from(u16::from_be_bytes([jpeg[sof + 2], jpeg[sof + 3]]));
    let mut twice = jpeg[..sof + length].to_vec();
    let mut other = jpeg[sof..sof + length].to_vec();
    other[5] = 0x7F;
    twice.extend(other);
    twice.extend(&jpeg[sof + length..]);
    assert!(image::decode(&twice).is_err());
}

#[test]
fn limits_of_a_model_folder_are_bounded() {
    let limits = |min, max| ImageLimits { min_pixels: min, max_pixels: max, ..Default::default() };
    let error = limits(5_000_000_000, 5_000_000_000).validate().unwrap_err().to_string();
    assert!(error.contains("min_pixels (5000000000)") && error.contains("resized_pixels="), "{error}");
    // A large upper limit alone enlarges nothing.
    limits(3136, u64::MAX / 2).validate().unwrap();
    let frames = ImageLimits { temporal_patch_size: 64, ..limits(3_000_000, 4_000_000) };
    let error = image::process(&RgbImage::new(50, 50), &frames).unwrap_err().to_string();
    assert!(error.contains("64 frames a patch"), "{error}");
}
