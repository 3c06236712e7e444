//! Input that cannot be used: one error that names the thing, and nothing written.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tempfile::{TempDir, tempdir};

use super::{Run, call, files, image, model, usual};

#[test]
fn bad_arguments_are_refused() {
    for (options, needles) in [
        ("--temperature -1", &["--temperature -1"][..]),
        ("--temperature nan", &["--temperature NaN"]),
        ("--temperature inf", &["--temperature inf"]),
        ("--temperature 1e-30", &["--temperature", "0 (greedy)"]),
        ("--top-p 0", &["--top-p 0"]),
        ("--top-p -0.5", &["--top-p -0.5"]),
        ("--top-p 1.01", &["--top-p 1.01"]),
        ("--top-p nan", &["--top-p NaN"]),
        ("--min-new-tokens 9 --max-new-tokens 8", &["--min-new-tokens 9", "--max-new-tokens 8"]),
        ("--max-new-tokens 1000000", &["max_position_embeddings", "4096"]),
        ("--max-new-tokens 18446744073709551615", &["--max-new-tokens", "0..=1048576"]),
        ("--max-new-tokens -1", &["--max-new-tokens", "-1"]),
        ("--seed x", &["--seed", "x"]),
        ("--min-pixels 9000 --max-pixels 8000", &["min_pixels (9000)", "max_pixels (8000)"]),
        ("--min-pixels 99999999999", &["--min-pixels", "0..=4294967296"]),
        ("--min-pixels 400000000", &["min_pixels (400000000)", "resized_pixels="]),
        ("--alpha black", &["--alpha", "white, drop"]),
        ("--exif-orientation no", &["--exif-orientation", "apply, ignore"]),
        ("--format-prompt maths", &["maths", "math_perception"]),
        ("--backend tpu", &["--backend", "tpu", "ndarray"]),
        ("--dtype f8", &["--dtype", "f8", "bf16"]),
        ("--no-such x", &["--no-such"]),
        ("--focus-map map.jpg", &["--focus-map", ".svg", ".jpg"]),
        ("--focus-map map.png --max-new-tokens 0", &["--focus-map", "--max-new-tokens"]),
    ] {
        usual().with(options).refused(needles);
    }
}

#[test]
fn bad_prompts_are_refused() {
    let (model, image) = (model("tied_gqa"), [image("small.png")]);
    for prompt in ["", " \n"] {
        call(&model, &image, prompt).refused(&["--prompt is empty"]);
    }
    call(&model, &[], "<image>?").refused(&["1 <image>", "0 pictures"]);
    call(&model, &image, "<image> <image>").refused(&["2 <image>", "1 pictures"]);
    call(&model, &[], "?").with("--focus-map map.png").refused(&["--focus-map", "--image"]);
    for token in ["<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|im_end|>"] {
        call(&model, &image, &format!("a {token} b")).refused(&[token]);
        usual().with("--system").with(token).refused(&[token]);
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_backend_that_was_not_compiled_in_is_refused() {
    usual().with("--backend cuda").refused(&["cuda", "--features"]);
}

/// A path that cannot be written is known before anything is generated.
#[test]
fn unwritable_paths_are_refused() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/out");
    for option in ["--dump", "--focus-map"] {
        for path in [&missing, folder.path()] {
            let needles = [option, path.to_str().unwrap(), "cannot be written"];
            usual().path(option, path).refused(&needles);
        }
    }
    let same = folder.path().join("same");
    usual().path("--dump", &same).path("--focus-map", &same).refused(&["both name"]);
    assert_eq!(files(&folder), 0);
}

/// The header of a PNG file of any size; there is nothing behind it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(chunk);
    file.extend((!crc).to_be_bytes());
    // An empty IDAT chunk, so that the header is complete for every reader.
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

#[test]
fn bad_pictures_are_refused() {
    let folder = tempdir().unwrap();
    let good = image("small.png");
    let refused = |path: PathBuf, needle: &str| {
        // The second picture is named as such.
        call(&model("tied_gqa"), &[good.clone(), path], "?").refused(&["image 2", needle]);
    };
    let (png, jpeg) = (std::fs::read(&good).unwrap(), std::fs::read(image("photo.jpg")).unwrap());
    let mut thin = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(2010, 10).write_to(&mut thin, image::ImageFormat::Png).unwrap();
    for (name, bytes, needle) in [
        ("empty.png", &b""[..], "empty"),
        ("text.png", b"not a picture", "not an image"),
        ("half.png", &png[..png.len() / 2], "cannot decode"),
        ("half.jpg", &jpeg[..40], "decode"),
        ("bomb.png", &png_header(60_000, 60_000), "60000x60000"),
        ("thin.png", thin.get_ref(), "2010x10"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refused(path, needle);
    }
    refused(folder.path().join("missing.png"), "missing.png");
    refused(folder.path().to_path_buf(), "cannot read");
}

/// A copy of `tied_gqa` to damage.
fn copy() -> TempDir {
    let folder = tempdir().unwrap();
    for file in std::fs::read_dir(model("tied_gqa")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

#[test]
fn bad_model_folders_are_refused() {
    call(Path::new("no/such/folder"), &[], "?").refused(&["no/such/folder"]);
    call(&model("tied_gqa").join("config.json"), &[], "?").refused(&["config.json"]);
    for (missing, needle) in [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("chat_template.jinja", "chat template"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("model.safetensors", "model.safetensors"),
    ] {
        let folder = copy();
        std::fs::remove_file(folder.path().join(missing)).unwrap();
        call(folder.path(), &[], "?").refused(&[needle]);
    }
    // file, what stands there, what comes in its place, what the error names
    for (name, from, to, needle) in [
        ("tokenizer.json", "<|image_pad|>", "<|other|>", "<|image_pad|>"),
        ("tokenizer.json", "{", "[", "tokenizer.json"),
        ("config.json", "\"image_token_id\": 294", "\"image_token_id\": 290", "image_token_id = 290"),
        ("config.json", "\"vocab_size\": 304", "\"vocab_size\": 300", "[304, 64]"),
        ("generation_config.json", "284", "9999", "9999"),
        ("chat_template.jinja", "{%", "{% nonsense %}{%", "chat template"),
    ] {
        let folder = copy();
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        call(folder.path(), &[], "?").refused(&[needle]);
    }
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    call(folder.path(), &[], "?").refused(&["model.safetensors"]);
}

/// Weights that are numbers, but whose logits are not: what was sampled from them is no answer.
#[test]
fn outputs_that_are_no_numbers_are_an_error() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = metadata.tensors();
    let (_, norm) =
        tensors.iter().find(|(name, _)| name.ends_with("norm.weight") && !name.contains("layers.")).unwrap();
    assert_eq!(norm.dtype, Dtype::F32);
    let mut damaged = bytes.clone();
    let (start, end) = norm.data_offsets;
    for value in damaged[header + 8 + start..header + 8 + end].chunks_exact_mut(4) {
        value.copy_from_slice(&f32::MAX.to_le_bytes());
    }
    std::fs::write(&path, damaged).unwrap();
    for options in ["", "--temperature 1", "--temperature 1 --top-p 0.9"] {
        let output = call(folder.path(), &[], "?").with("--max-new-tokens 3").with(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.contains("not numbers") && said.lines().count() == 1, "{said}");
    }
}
