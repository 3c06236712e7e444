//! How pictures are seen: limits, what a saved folder says of them, counting from headers.

use std::path::Path;

use data::image::header_size;
use data::processor::serving;
use data::{
    Alpha, Content, ExifOrientation, FormatPrompt, ImageLimits, ImageSource, Processor, RunPixels, build_prompt,
    count_prompt_tokens, toy,
};
use serde_json::{Value, json};

use crate::support::{TOY, edited, png, sample};

#[test]
fn limits_of_the_run_change_the_grid() {
    let dir = tempfile::tempdir().unwrap();
    toy::write_processor_files(dir.path()).unwrap();
    let own = || Processor::from_folder(dir.path()).unwrap();
    let grid = |processor: Processor, size: u32| {
        processor.encode(None, &[Content::Image(0)], &[png(size, size)]).unwrap().images[0].grid_thw
    };
    // 300 x 300 -> 100 x 100 -> 112 x 112: the nearest, though it is above the limit.
    assert_eq!(grid(own().with_limits(784, 100 * 100).unwrap(), 300), [1, 8, 8]);
    // 0 is no limit: as the folder says.
    assert_eq!(grid(own().with_limits(0, 0).unwrap(), 300), grid(own(), 300));
    assert_eq!(grid(own().with_limits(40_000, 0).unwrap(), 30), [1, 14, 14]);
    let error = own().with_limits(100, 10).unwrap_err().to_string();
    assert!(error.contains("min_pixels (100)"), "{error}");
}

/// Writes the limits of a run into the settings of a folder, as a run's checkpoints have them.
fn serve(dir: &Path, limits: &ImageLimits) {
    for name in ["processor_config.json", "preprocessor_config.json"] {
        let Ok(bytes) = std::fs::read(dir.join(name)) else { continue };
        if let Some(stated) = serving::restate(name, &bytes, limits).unwrap() {
            std::fs::write(dir.join(name), stated).unwrap();
        }
    }
}

/// A folder as a run saves it: exactly what the run did for us, and for one resize the nearest that can be said.
#[test]
fn a_saved_folder_says_how_its_pictures_were_seen() {
    let nested = |mut settings: Value| {
        settings["size"] = json!({"shortest_edge": 3136, "longest_edge": 12_845_056});
        for key in ["min_pixels", "max_pixels"] {
            settings.as_object_mut().unwrap().remove(key);
        }
        settings
    };
    let dir = edited("preprocessor_config.json", |old| Some(nested(old)));
    let settings: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("preprocessor_config.json")).unwrap()).unwrap();
    let two = json!({"processor_class": "Qwen2_5_VLProcessor", "image_processor": settings});
    std::fs::write(dir.path().join("processor_config.json"), two.to_string()).unwrap();
    let read = || Processor::from_folder(dir.path()).unwrap();
    let file =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap() };
    let own = read().limits().clone();

    // Nothing of the run's own: not a byte changes.
    let before = std::fs::read(dir.path().join("preprocessor_config.json")).unwrap();
    serve(dir.path(), &own);
    assert_eq!(std::fs::read(dir.path().join("preprocessor_config.json")).unwrap(), before);

    let run = read().with_limits(262_144, 1_003_520).unwrap();
    let run = run.with_picture_settings(Alpha::Drop, ExifOrientation::Ignore);
    serve(dir.path(), run.limits());
    // (512 - 14)^2 and (1001 + 14)^2
    let edges = json!({"shortest_edge": 248_004, "longest_edge": 1_030_225});
    for settings in [&file("preprocessor_config.json"), &file("processor_config.json")["image_processor"]] {
        assert_eq!(settings["size"], edges);
        assert_eq!((&settings["min_pixels"], &settings["max_pixels"]), (&json!(248_004), &json!(1_030_225)));
        assert_eq!(settings["training_pixels"]["max_pixels"], json!(1_003_520));
    }
    assert_eq!(read().limits(), run.limits());
    // Saved again by a run that begins with this folder and has other limits, or none.
    let next = read().with_limits(0, 50_000).unwrap();
    assert_eq!((next.limits().min_pixels, next.limits().max_pixels), (3136, 12_845_056));
    serve(dir.path(), next.limits());
    assert_eq!(read().limits(), next.limits());
    let none = read().with_limits(0, 0).unwrap().with_picture_settings(Alpha::White, ExifOrientation::Apply);
    serve(dir.path(), none.limits());
    assert_eq!(read().limits(), &own);
    assert!(file("preprocessor_config.json").get("training_pixels").is_none());

    // Limits that somebody has changed by hand count.
    serve(dir.path(), run.limits());
    let mut edited = file("processor_config.json");
    edited["image_processor"]["size"]["longest_edge"] = json!(500_000);
    edited["image_processor"]["max_pixels"] = json!(500_000);
    std::fs::write(dir.path().join("processor_config.json"), edited.to_string()).unwrap();
    let changed = read();
    assert_eq!((changed.limits().min_pixels, changed.limits().max_pixels), (248_004, 500_000));
    assert_eq!(changed.limits().run, RunPixels::default());
}

/// One resize within the limits that are written against the run's two: the same grid for most pictures, which the
/// run's own limits do not give.
#[test]
fn what_is_written_for_servers_comes_close_to_training() {
    let folder = ImageLimits { min_pixels: 3136, max_pixels: 12_845_056, ..ImageLimits::default() };
    // Squares, also of limits whose root lies between two multiples of 28: 70 and 98 pixels.
    for (min_pixels, max_pixels) in [(5000, 8000), (4950, 9700), (9700, 20_000), (192_074, 2_244_624), (40_000, 0)] {
        let trained = ImageLimits { run: RunPixels { min_pixels, max_pixels }, ..ImageLimits::default() };
        let trained = ImageLimits { min_pixels: 784, max_pixels: 12_845_056, ..trained };
        let (least, most) = serving::one_resize(&trained);
        let served = ImageLimits { min_pixels: least, max_pixels: most, run: RunPixels::default(), ..trained.clone() };
        for side in (20..2500).step_by(3) {
            let grid = |limits: &ImageLimits| data::image::grid_of(side, side, limits).unwrap();
            assert_eq!(grid(&served), grid(&trained), "{side} within {min_pixels}..{max_pixels}: {least}..{most}");
        }
    }
    for (min_pixels, max_pixels) in [(262_144, 4_194_304), (200_704, 1_003_520)] {
        let trained = ImageLimits { run: RunPixels { min_pixels, max_pixels }, ..folder.clone() };
        let (least, most) = serving::one_resize(&trained);
        let served = ImageLimits { min_pixels: least, max_pixels: most, ..folder.clone() };
        let naive = ImageLimits { min_pixels, max_pixels, ..folder.clone() };
        let grid = |limits: &ImageLimits, (w, h): (u32, u32)| data::image::grid_of(w, h, limits).unwrap();
        let (mut same, mut naively, mut square, mut count) = (0, 0, 0, 0);
        for side in (150..3000).step_by(7) {
            square += usize::from(grid(&served, (side, side)) != grid(&trained, (side, side)));
            for share in [45, 60, 75, 90, 110, 150] {
                let size = (side, side * share / 100);
                let expected = grid(&trained, size);
                // Between the limits nothing can differ.
                let area = u64::from(size.0) * u64::from(size.1);
                if area < min_pixels || area > max_pixels {
                    same += usize::from(grid(&served, size) == expected);
                    naively += usize::from(grid(&naive, size) == expected);
                    count += 1;
                } else {
                    assert_eq!(grid(&served, size), expected, "{size:?}");
                }
            }
        }
        assert_eq!(square, 0, "squares that differ");
        assert!(same * 100 > count * 68 && naively * 100 < count * 40, "{same} and {naively} of {count}");
    }
    // The two.
    let run = |min_pixels, max_pixels| {
        let trained = ImageLimits { run: RunPixels { min_pixels, max_pixels }, ..folder.clone() };
        let (min_pixels, max_pixels) = serving::one_resize(&trained);
        (trained, ImageLimits { min_pixels, max_pixels, ..folder.clone() })
    };
    for ((trained, served), size, grid) in
        [(run(262_144, 0), (224, 224), [1, 36, 36]), (run(0, 1_003_520), (1000, 1010), [1, 72, 72])]
    {
        assert_eq!(data::image::grid_of(size.0, size.1, &trained).unwrap(), grid);
        assert_eq!(data::image::grid_of(size.0, size.1, &served).unwrap(), grid);
    }
    // Limits of the run beyond the folder's own leave the folder's.
    let narrow = ImageLimits { run: RunPixels { min_pixels: 10, max_pixels: 1 << 40 }, ..folder.clone() };
    assert_eq!(serving::one_resize(&narrow), (3136, 12_845_056));
    assert_eq!(serving::one_resize(&folder), (3136, 12_845_056));
}

/// The length of a prompt is found from headers alone, of turned pictures as well.
#[test]
fn counting_looks_at_turned_pictures() {
    let cases: Vec<Value> = serde_json::from_slice(include_bytes!("../fixtures/images/decode.json")).unwrap();
    let mut turned = 0;
    for case in &cases {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(case["file"].as_str().unwrap()).unwrap();
        let picture = ImageSource::from(bytes);
        for setting in [ExifOrientation::Apply, ExifOrientation::Ignore] {
            // Seven by five pixels become 110 x 80 and so 112 x 84: both orders differ.
            let processor = Processor::from_folder(TOY.0.path()).unwrap().with_limits(8800, 0).unwrap();
            let processor = processor.with_picture_settings(Alpha::White, setting);
            let encoded = match processor.encode(None, &[Content::Image(0)], std::slice::from_ref(&picture)) {
                Ok(encoded) => encoded,
                Err(error) => panic!("{}: {error}", case["name"]),
            };
            let counted = processor.count_image_tokens(&picture).unwrap();
            assert_eq!(counted, processor.limits().tokens(encoded.images[0].grid_thw), "{}", case["name"]);
            turned += usize::from(encoded.images[0].grid_thw[1] > encoded.images[0].grid_thw[2]);
        }
    }
    assert!(turned > 30, "{turned}");
}

#[test]
fn headers_alone_are_read_for_counting() {
    // The second half of the file is gone: counting does not notice, building does.
    let ImageSource::Bytes(bytes) = png(100, 100) else { unreachable!() };
    let cut = &bytes[..bytes.len() / 2];
    assert_eq!(header_size(cut).unwrap(), (100, 100));
    let row = sample("<image>", vec![cut.to_vec().into()]);
    let none = FormatPrompt::new("none").unwrap();
    assert!(count_prompt_tokens(&row, &none, &TOY.1, None).is_ok());
    assert!(build_prompt(&row, &none, &TOY.1, None).unwrap_err().reason.contains("image 1: cannot decode"));
}
