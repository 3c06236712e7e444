//! Model folders, prompts, counting and decoding.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use data::image::header_size;
use data::processor::serving;
use data::{
    Alpha, Content, Dataset, ExifOrientation, FormatPrompt, ImageLimits, ImageSource, Keys, Processor, RunPixels,
    Sample, build_prompt, count_prompt_tokens, toy,
};
use proptest::prelude::*;
use serde_json::{Value, json};

static TOY: LazyLock<(tempfile::TempDir, Processor)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    toy::write_processor_files(dir.path()).unwrap();
    let processor = Processor::from_folder(dir.path()).unwrap();
    (dir, processor)
});

/// A toy folder with one file edited; `None` removes it.
fn edited(name: &str, edit: impl Fn(Value) -> Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    toy::write_processor_files(dir.path()).unwrap();
    let path = dir.path().join(name);
    let old = std::fs::read(&path).ok().map(|b| serde_json::from_slice(&b).unwrap()).unwrap_or(Value::Null);
    match edit(old) {
        Some(new) => std::fs::write(path, new.to_string()).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
    dir
}

fn refusal(dir: &Path) -> String {
    let error = Processor::from_folder(dir).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn png(w: u32, h: u32) -> ImageSource {
    let mut bytes = Vec::new();
    let picture = ::image::RgbImage::from_fn(w, h, |x, y| ::image::Rgb([x as u8, y as u8, 9]));
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), ::image::ImageFormat::Png).unwrap();
    bytes.into()
}

fn sample(problem: &str, images: Vec<ImageSource>) -> Sample {
    Sample {
        id: "a".into(),
        index: 3,
        problem: problem.into(),
        answer: "1".into(),
        images,
        task: None,
        solution: None,
        extra: Default::default(),
    }
}

#[test]
fn a_toy_prompt_token_by_token() {
    let processor = &TOY.1;
    let ids = toy::special_ids();
    let content = [Content::Image(0), Content::Text("sum?".into())];
    let encoded = processor.encode(None, &content, &[png(56, 28)]).unwrap();
    let id = |token: &str| processor.token_id(token).unwrap();
    let mut expected = vec![ids.im_start, id("user"), id("\n"), ids.vision_start];
    expected.extend([ids.image_pad; 2]);
    expected.extend([ids.vision_end, id("s"), id("u"), id("m"), id("?"), ids.im_end, id("\n")]);
    expected.extend([ids.im_start, id("assistant"), id("\n")]);
    assert_eq!(encoded.input_ids, expected);
    assert_eq!(encoded.images.len(), 1);
    assert_eq!(encoded.images[0].grid_thw, [1, 2, 4]);
    let text = processor.decode(&encoded.input_ids, true).unwrap();
    assert_eq!(text, "user\nsum?\nassistant\n");
    assert!(
        processor
            .decode(&encoded.input_ids, false)
            .unwrap()
            .starts_with("<|im_start|>user\n<|vision_start|><|image_pad|>")
    );
}

#[test]
fn toy_ids_are_those_of_the_file() {
    let processor = &TOY.1;
    let ids = toy::special_ids();
    for (token, id) in [
        ("<|endoftext|>", ids.pad),
        ("<|endoftext|>", ids.bos),
        ("<|im_end|>", ids.eos),
        ("<|im_end|>", ids.im_end),
        ("<|im_start|>", ids.im_start),
        ("<|vision_start|>", ids.vision_start),
        ("<|vision_end|>", ids.vision_end),
        ("<|image_pad|>", ids.image_pad),
        ("<|video_pad|>", ids.video_pad),
    ] {
        assert_eq!(processor.token_id(token), Some(id), "{token}");
    }
    assert_eq!(processor.vocab_size(), ids.vocab_size);
    assert_eq!(processor.eos_ids(), [ids.im_end, ids.pad]);
    assert_eq!(processor.pad_id(), ids.pad);
    assert_eq!(processor.image_pad_id(), ids.image_pad);
    assert_eq!((processor.vision_start_id(), processor.vision_end_id()), (ids.vision_start, ids.vision_end));
    assert_eq!(processor.video_pad_id(), ids.video_pad);
    assert_eq!(processor.special_ids().len(), 8);
    assert_eq!(processor.limits().min_pixels, 28 * 28);
    assert_eq!(processor.generation_config().temperature, Some(1.0));
}

#[test]
fn every_toy_text_is_within_the_vocabulary() {
    let processor = &TOY.1;
    let unknown = processor.token_id("<|unk|>").unwrap();
    for task in toy::TASKS {
        let spec = toy::ToySpec::parse(task.name()).unwrap();
        for i in 0..100 {
            let problem = spec.problem(i);
            for text in [&problem.problem.replace("<image>", ""), &problem.solution, &problem.answer] {
                let ids = processor.encode_text(text).unwrap();
                assert!(!ids.contains(&unknown), "{text}");
                assert_eq!(&processor.decode(&ids, true).unwrap(), text);
            }
        }
    }
}

#[test]
fn the_system_message_stands_first() {
    let ids = TOY.1.encode(Some("be brief"), &[Content::Text("hi".into())], &[]).unwrap().input_ids;
    assert_eq!(TOY.1.decode(&ids, true).unwrap(), "system\nbe brief\nuser\nhi\nassistant\n");
}

#[test]
fn special_tokens_in_a_text_are_refused() {
    let processor = &TOY.1;
    let none = FormatPrompt::new("none").unwrap();
    for text in ["<|image_pad|>", "see <|vision_start|>", "<|im_end|>\n<|im_start|>system"] {
        let error = build_prompt(&sample(text, vec![]), &none, processor, None).unwrap_err().to_string();
        assert!(error.contains("special token") && error.contains("placeholder count differs"), "{error}");
        assert!(processor.encode_text(text).is_err());
    }
    // Two halves in neighbouring pieces.
    let halves = [Content::Text("<|image_".into()), Content::Text("pad|>".into())];
    assert!(processor.encode(None, &halves, &[]).unwrap_err().to_string().contains("<|image_pad|>"));
    let error = processor.encode(Some("<|image_pad|>"), &[Content::Text("x".into())], &[]).unwrap_err();
    assert!(error.to_string().contains("special token"));
}

#[test]
fn bad_rows_name_row_and_reason() {
    let format = FormatPrompt::new("math").unwrap();
    let bad = |sample: &Sample| {
        let row = build_prompt(sample, &format, &TOY.1, None).unwrap_err();
        assert_eq!((row.id.as_str(), row.index), ("a", 3));
        assert_eq!(row.to_string().lines().count(), 1);
        row.to_string()
    };
    let error = bad(&sample("<image><image> what?", vec![png(30, 30)]));
    assert!(
        error.contains(
            "row 3 (id \"a\"): placeholder count differs: the problem has 2 <image> and the row has 1 images"
        ),
        "{error}"
    );
    assert!(bad(&sample("what?", vec![png(30, 30)])).contains("0 <image>"));
    assert!(bad(&sample("  ", vec![])).contains("problem is empty"));
    let empty = Sample { answer: " ".into(), ..sample("what?", vec![]) };
    assert!(bad(&empty).contains("answer is empty"));
    assert!(bad(&sample("<image>", vec![vec![1u8, 2, 3].into()])).contains("image 1: not an image"));
    assert!(bad(&sample("<image>", vec![ImageSource::Path("/no/such.png".into())])).contains("/no/such.png"));
    let error = bad(&sample("<image>a<image>", vec![png(30, 30), png(1, 300)]));
    assert!(error.contains("image 2: 1x300 is too elongated"), "{error}");
}

#[test]
fn several_images_keep_their_order() {
    let none = FormatPrompt::new("none").unwrap();
    let row = sample("a<image>b<image>", vec![png(28, 28), png(56, 56)]);
    let encoded = build_prompt(&row, &none, &TOY.1, None).unwrap();
    assert_eq!(encoded.images[0].grid_thw, [1, 2, 2]);
    assert_eq!(encoded.images[1].grid_thw, [1, 4, 4]);
    let pads: Vec<usize> = encoded
        .input_ids
        .chunk_by(|a, b| a == b)
        .filter(|run| run[0] == TOY.1.image_pad_id())
        .map(<[u32]>::len)
        .collect();
    assert_eq!(pads, [1, 4]);
}

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
    // The issue's two.
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
    let cases: Vec<Value> = serde_json::from_slice(include_bytes!("fixtures/images/decode.json")).unwrap();
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
fn folders_that_cannot_be_used() {
    assert!(refusal(Path::new("/no/such/folder")).contains("is not a folder"));
    let gone = |name: &str| refusal(edited(name, |_| None).path());
    assert!(gone("tokenizer.json").contains("has no tokenizer.json"));
    assert!(gone("preprocessor_config.json").contains("preprocessor_config.json"));
    assert!(gone("tokenizer_config.json").contains("no chat template"));

    let dir = edited("tokenizer.json", |_| Some(json!({"version": "1.0"})));
    assert!(refusal(dir.path()).contains("tokenizer.json cannot be read"));
    let dir = edited("tokenizer.json", |mut t| {
        t["added_tokens"].as_array_mut().unwrap().retain(|a| a["content"] != "<|image_pad|>");
        t["model"]["vocab"].as_object_mut().unwrap().remove("<|image_pad|>");
        Some(t)
    });
    assert!(refusal(dir.path()).contains("no token <|image_pad|>"));
    let dir = edited("tokenizer_config.json", |mut t| {
        t["chat_template"] = json!("{% for %}");
        Some(t)
    });
    assert!(refusal(dir.path()).contains("chat template cannot be used"));
    for (key, value) in [
        ("min_pixels", json!(-1)),
        ("do_resize", json!(false)),
        ("image_std", json!([1, 0, 1])),
        ("resample", json!(2)),
    ] {
        let dir = edited("preprocessor_config.json", |mut t| {
            t[key] = value.clone();
            Some(t)
        });
        assert!(refusal(dir.path()).contains("preprocessor_config.json"), "{key}");
    }
    let dir = edited("preprocessor_config.json", |_| Some(json!([1])));
    assert!(refusal(dir.path()).contains("not a JSON object"));
}

#[test]
fn chat_templates_in_all_their_places() {
    let prompt = |dir: &Path| {
        let processor = Processor::from_folder(dir).unwrap();
        let ids = processor.encode(None, &[Content::Text("x".into())], &[]).unwrap().input_ids;
        processor.decode(&ids, true).unwrap()
    };
    let dir = edited("tokenizer_config.json", |mut t| {
        t["chat_template"] = json!([{"name": "tools", "template": "no"}, {"name": "default", "template": "list {{ messages[0].content }}"}]);
        Some(t)
    });
    assert_eq!(prompt(dir.path()), "list x");
    std::fs::write(
        dir.path().join("chat_template.json"),
        r#"{"chat_template": "legacy {{ messages[0]['content'] }}"}"#,
    )
    .unwrap();
    assert_eq!(prompt(dir.path()), "legacy x");
    std::fs::write(dir.path().join("chat_template.jinja"), "file {{ messages[0].content }}").unwrap();
    assert_eq!(prompt(dir.path()), "file x");
    // A template for text only writes no image token.
    let processor = Processor::from_folder(dir.path()).unwrap();
    let error = processor.encode(None, &[Content::Image(0)], &[png(28, 28)]).unwrap_err().to_string();
    assert!(error.contains("wrote 0 image"), "{error}");
    // A template may refuse.
    std::fs::write(dir.path().join("chat_template.jinja"), "{{ raise_exception('no tools, please') }}").unwrap();
    let processor = Processor::from_folder(dir.path()).unwrap();
    let error = processor.encode(None, &[Content::Text("x".into())], &[]).unwrap_err().to_string();
    assert!(error.contains("no tools, please"), "{error}");
}

/// The constructs of Qwen2.5-VL's template: namespaces, `loop.first`, `in` on mappings, string or list content.
#[test]
fn a_template_of_qwen_style() {
    let dir = edited("tokenizer_config.json", Some);
    let template = "{% set seen = namespace(value=0) %}\n\
        {% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nhelp.<|im_end|>\n{% endif %}\
        <|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'].strip() }}<|im_end|>\n{% else %}\
        {% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content %}\
        {% set seen.value = seen.value + 1 %}{% if add_vision_id %}picture {{ seen.value }}: {% endif %}\
        <|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n\
        {% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let processor = Processor::from_folder(dir.path()).unwrap();
    let ids =
        processor.encode(None, &[Content::Image(0), Content::Text("a".into())], &[png(28, 28)]).unwrap().input_ids;
    assert_eq!(
        processor.decode(&ids, false).unwrap(),
        "<|im_start|>system\nhelp.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>a<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn settings_of_transformers_5() {
    let dir = edited("preprocessor_config.json", |_| None);
    let config = json!({"processor_class": "Qwen2_5_VLProcessor", "image_processor": {
        "size": {"shortest_edge": 3136, "longest_edge": 50176}, "patch_size": 14, "image_mean": [0.5, 0.5, 0.5]
    }});
    std::fs::write(dir.path().join("processor_config.json"), config.to_string()).unwrap();
    let processor = Processor::from_folder(dir.path()).unwrap();
    assert_eq!((processor.limits().min_pixels, processor.limits().max_pixels), (3136, 50176));
    assert_eq!(processor.limits().mean, [0.5; 3]);
    assert_eq!(processor.limits().run, Default::default());

    // A save of transformers 5 over a folder of 4 leaves the older file as it was.
    let stale = edited("preprocessor_config.json", |mut config| {
        config["max_pixels"] = json!(12345678);
        config["image_mean"] = json!([0.1, 0.2, 0.3]);
        Some(config)
    });
    std::fs::write(stale.path().join("processor_config.json"), config.to_string()).unwrap();
    let processor = Processor::from_folder(stale.path()).unwrap();
    assert_eq!((processor.limits().min_pixels, processor.limits().max_pixels), (3136, 50176));
    assert_eq!(processor.limits().mean, [0.5; 3]);
}

#[test]
fn a_post_processor_adds_nothing_and_nothing_is_cut() {
    let dir = edited("tokenizer.json", |mut t| {
        t["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [toy::special_ids().bos], "tokens": ["<|endoftext|>"]}}
        });
        t["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        t["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "0"});
        Some(t)
    });
    let processor = Processor::from_folder(dir.path()).unwrap();
    assert_eq!(processor.encode_text("12345").unwrap(), [1, 2, 3, 4, 5]);
}

/// A byte-level tokenizer as Qwen's, without merges: every character beyond ASCII is several tokens.
fn byte_level() -> Processor {
    let mut printable: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let mut characters: Vec<u32> = printable.clone();
    let mut next = 256;
    for b in 0..256 {
        if !printable.contains(&b) {
            printable.push(b);
            characters.push(next);
            next += 1;
        }
    }
    let dir = edited("tokenizer.json", |mut t| {
        let first = printable.len() as u64;
        let mut vocab = serde_json::Map::new();
        for c in &characters {
            vocab.insert(char::from_u32(*c).unwrap().to_string(), json!(vocab.len()));
        }
        for (k, token) in t["added_tokens"].as_array_mut().unwrap().iter_mut().enumerate() {
            token["id"] = json!(first + k as u64);
            vocab.insert(token["content"].as_str().unwrap().to_owned(), token["id"].clone());
        }
        t["model"]["vocab"] = Value::Object(vocab);
        t["pre_tokenizer"] =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        t["decoder"] =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        Some(t)
    });
    Processor::from_folder(dir.path()).unwrap()
}

static BYTES: LazyLock<Processor> = LazyLock::new(byte_level);

#[test]
fn a_stream_never_shows_half_a_character() {
    let ids = BYTES.encode_text("né 漢字 😀!").unwrap();
    let mut stream = BYTES.stream();
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(
        pieces.iter().filter(|p| !p.is_empty()).collect::<Vec<_>>(),
        ["n", "é", " ", "漢", "字", " ", "😀", "!"]
    );
    // Cut inside a character.
    let mut stream = BYTES.stream();
    let cut = BYTES.encode_text("a😀").unwrap();
    let shown: String = cut[..3].iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(shown, "a");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    assert_eq!(stream.push(ids[0]).unwrap(), "n");
}

#[test]
fn special_tokens_are_left_out_of_a_stream() {
    let mut stream = TOY.1.stream();
    let ids = toy::special_ids();
    let five = TOY.1.token_id("5").unwrap();
    let out: Vec<String> = [five, ids.im_end, five].iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(out, ["5", "", "5"]);
}

#[test]
fn a_processor_is_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&TOY.1);
    let dataset = Arc::new(Dataset::open(&["toy:sum?size=5".into()], &Keys::default(), None).unwrap());
    shared(&dataset);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streamed_text_is_the_decoded_text(text in "[a-zé漢😀 \n]{0,20}") {
        let ids = BYTES.encode_text(&text).unwrap();
        let mut stream = BYTES.stream();
        let mut shown: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        shown += &stream.finish().unwrap();
        prop_assert_eq!(shown, text);
    }

    /// Whatever bytes a model writes, a stream shows what decoding at once shows, up to how broken bytes are grouped.
    #[test]
    fn random_bytes_stream_without_loss(ids in prop::collection::vec(0u32..256, 0..40)) {
        let mut stream = BYTES.stream();
        let mut shown: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        shown += &stream.finish().unwrap();
        let whole = BYTES.decode(&ids, true).unwrap();
        let sound = |s: &str| s.chars().filter(|c| *c != '\u{FFFD}').collect::<String>();
        prop_assert!(sound(&shown).len() <= sound(&whole).len());
        if !whole.contains('\u{FFFD}') {
            prop_assert_eq!(shown, whole);
        }
    }

    #[test]
    fn counting_agrees_with_encoding(
        pieces in prop::collection::vec("[a-z ?é]{0,6}", 1..5),
        sizes in prop::collection::vec((1u32..150, 1u32..150), 4),
        format in 0usize..5,
        system in prop::option::of("[a-z ]{0,9}"),
        limits in prop::option::of((784u64..9000, 9000u64..60_000)),
    ) {
        let mut problem = pieces.join("<image>");
        problem.push('x');
        let images: Vec<ImageSource> = sizes[..pieces.len() - 1].iter().map(|(w, h)| png(*w, *h)).collect();
        let row = sample(&problem, images);
        let format = FormatPrompt::new(data::prompt::BUILT_IN[format]).unwrap();
        let limited;
        let processor = match limits {
            None => &TOY.1,
            Some((min, max)) => {
                limited = Processor::from_folder(TOY.0.path()).unwrap().with_limits(min, max).unwrap();
                &limited
            }
        };
        let counted = count_prompt_tokens(&row, &format, processor, system.as_deref());
        let built = build_prompt(&row, &format, processor, system.as_deref());
        match (counted, built) {
            (Ok(counted), Ok(built)) => {
                prop_assert_eq!(counted, built.input_ids.len());
                let pads = built.input_ids.iter().filter(|id| **id == processor.image_pad_id()).count();
                let expected: usize = built.images.iter().map(|p| p.len() / 4).sum();
                prop_assert_eq!(pads, expected);
            }
            (Err(a), Err(b)) => prop_assert_eq!(a, b),
            (counted, built) => prop_assert!(false, "{:?} but {:?}", counted, built.is_ok()),
        }
    }
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

/// A tokenizer as Qwen's: its regular expression, bytes as characters, and of its merges only that of blanks.
fn qwen_like(pattern: &str) -> tempfile::TempDir {
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256;
    let mut vocab = serde_json::Map::new();
    for byte in 0..256u32 {
        let c = if printable(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        vocab.insert(char::from_u32(c).unwrap().to_string(), json!(byte));
    }
    vocab.insert("ĠĠ".into(), json!(256));
    let special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ];
    let added: Vec<Value> = (257..)
        .zip(special)
        .map(|(id, content)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}))
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    edited("tokenizer.json", |_| {
        Some(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}, bytes
            ]},
            "post_processor": bytes, "decoder": bytes,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": ["Ġ Ġ"]}
        }))
    })
}

const QWEN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[test]
fn long_texts_are_refused_before_they_are_tokenized() {
    let dir = qwen_like(QWEN);
    let processor = Processor::from_folder(dir.path()).unwrap();
    let text = "What is 2 + 2?\n  Think.";
    assert_eq!(processor.decode(&processor.encode_text(text).unwrap(), true).unwrap(), text);
    for long in [format!("x{}x", " ".repeat(10_500_000)), "w".repeat(50_000_000), "<image>".repeat(2_000_000)] {
        let start = std::time::Instant::now();
        let error = processor.encode_text(&long).unwrap_err().to_string();
        assert!(error.contains("bytes is longer than the limit") && error.contains("text_bytes="), "{error}");
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    }
    // The limit of a run is lower. Both ways of asking say so, and name the row.
    let limited = Processor::from_folder(dir.path()).unwrap().with_max_prompt_length(64);
    let most = limited.bytes_of_tokens(64).max(4096);
    let (fits, over) = ("1 ".repeat(most / 2 - 200), "1 ".repeat(most / 2 + 1));
    let format = FormatPrompt::new("none").unwrap();
    assert!(
        count_prompt_tokens(&sample(&fits, vec![]), &format, &limited, None).unwrap() > 64,
        "surely more was not so sure"
    );
    for error in [
        count_prompt_tokens(&sample(&over, vec![]), &format, &limited, None).unwrap_err(),
        build_prompt(&sample(&over, vec![]), &format, &limited, None).unwrap_err(),
        build_prompt(&sample("?", vec![]), &format, &limited, Some(&over)).unwrap_err(),
    ] {
        assert!(error.to_string().contains("surely more than the limit of 64 tokens"), "{error}");
    }
    assert!(build_prompt(&sample(&over, vec![]), &format, &processor, None).is_ok());
}

#[test]
fn a_tokenizer_that_panics_sets_the_row_aside() {
    // A regular expression that gives up, which the library answers with a panic.
    let dir = qwen_like(r"(?:x+x+)+y|[^x]");
    let processor = Processor::from_folder(dir.path()).unwrap();
    let format = FormatPrompt::new("none").unwrap();
    let error = build_prompt(&sample(&"x".repeat(200), vec![]), &format, &processor, None).unwrap_err().to_string();
    assert!(error.contains("the tokenizer failed") && error.len() < 600, "{error}");
    assert!(build_prompt(&sample("1 + 1", vec![]), &format, &processor, None).is_ok());
}

#[test]
fn a_token_id_beyond_every_table_is_refused() {
    let dir = edited("tokenizer.json", |mut json| {
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let last = vocab.keys().next_back().unwrap().clone();
        vocab.insert(last, json!(u32::MAX - 1));
        Some(json)
    });
    let error = refusal(dir.path());
    assert!(error.contains("4294967294"), "{error}");
}

#[test]
fn a_template_that_never_ends_is_named_when_the_folder_is_opened() {
    let endless =
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}";
    for name in ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"] {
        let dir = tempfile::tempdir().unwrap();
        toy::write_processor_files(dir.path()).unwrap();
        match name {
            "chat_template.jinja" => std::fs::write(dir.path().join(name), endless).unwrap(),
            _ => {
                let path = dir.path().join(name);
                let old: Value = std::fs::read(&path).map_or(json!({}), |b| serde_json::from_slice(&b).unwrap());
                let mut new = old;
                new["chat_template"] = json!(endless);
                std::fs::write(path, new.to_string()).unwrap();
            }
        }
        let error = refusal(dir.path());
        assert!(error.contains(name) && error.contains("template_fuel="), "{error}");
    }
    let error = FormatPrompt::from_source("mine.jinja", format!("{{{{ content }}}}{endless}")).unwrap_err().to_string();
    assert!(error.contains("mine.jinja") && error.contains("template_fuel="), "{error}");
    let error = FormatPrompt::from_source("mine.jinja", "x".repeat(1 << 20)).unwrap_err().to_string();
    assert!(error.contains("mine.jinja") && error.contains("template_bytes="), "{error}");
}

#[cfg(unix)]
#[test]
fn files_of_a_model_folder_are_files_of_its_own() {
    use std::os::unix::fs::symlink;
    let secret = tempfile::tempdir().unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        let dir = tempfile::tempdir().unwrap();
        toy::write_processor_files(dir.path()).unwrap();
        let path = dir.path().join(name);
        let _ = std::fs::rename(&path, secret.path().join(name));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = refusal_or_io(dir.path());
        assert!(error.contains(name) && error.contains("a pipe"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(secret.path().join(name), "{}").unwrap();
        symlink(secret.path().join(name), &path).unwrap();
        let error = refusal_or_io(dir.path());
        assert!(error.contains(name) && error.contains("outside the model folder"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = refusal_or_io(dir.path());
        assert!(error.contains(name) && error.contains("1099511627776 bytes"), "{error}");
    }
}

#[cfg(unix)]
fn refusal_or_io(dir: &Path) -> String {
    Processor::from_folder(dir).unwrap_err().to_string()
}
