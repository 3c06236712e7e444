//! From a row to token ids.

use data::{ChatMessage, Content, FormatPrompt, ImageSource, Processor, Role, Sample, build_prompt, toy};
use serde_json::json;

use crate::support::{TOY, edited, png, sample};

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

/// Each message in its place, pictures where they stand, and a question alone is a conversation of one message.
#[test]
fn a_conversation_token_by_token() {
    let processor = &TOY.1;
    let ids = toy::special_ids();
    let id = |token: &str| processor.token_id(token).unwrap();
    let text = |text: &str| Content::Text(text.into());
    let said = |role, content: Vec<Content>| ChatMessage { role, content };
    let question = [text("s"), text("u"), Content::Image(1)];
    let messages = [
        said(Role::System, vec![text("s")]),
        said(Role::User, question.to_vec()),
        said(Role::Assistant, vec![text("1")]),
        said(Role::User, vec![Content::Image(0), text("m")]),
    ];
    let images = [png(56, 28), png(28, 28)];
    let encoded = processor.encode_chat(&messages, &images).unwrap();
    let mut expected = vec![ids.im_start, id("system"), id("\n"), id("s"), ids.im_end, id("\n")];
    expected.extend([ids.im_start, id("user"), id("\n"), id("s"), id("u")]);
    expected.extend([ids.vision_start, ids.image_pad, ids.vision_end, ids.im_end, id("\n")]);
    expected.extend([ids.im_start, id("assistant"), id("\n"), id("1"), ids.im_end, id("\n")]);
    expected.extend([ids.im_start, id("user"), id("\n"), ids.vision_start, ids.image_pad, ids.image_pad]);
    expected.extend([ids.vision_end, id("m"), ids.im_end, id("\n"), ids.im_start, id("assistant"), id("\n")]);
    assert_eq!(encoded.input_ids, expected);
    assert_eq!(encoded.sources, [1, 0]);
    assert_eq!(processor.count_chat_tokens(&messages, &images).unwrap(), expected.len());
    let alone = processor.encode_chat(&[said(Role::User, question.to_vec())], &images).unwrap();
    assert_eq!(alone, processor.encode(None, &question, &images).unwrap());
    // Two harmless halves of one message are one special token; of two messages they are not.
    let halves = |a, b| processor.encode_chat(&[a, b], &[]);
    let split = said(Role::User, vec![text("<|im_"), text("end|>")]);
    assert!(halves(said(Role::User, vec![text("s")]), split).unwrap_err().to_string().contains("<|im_end|>"));
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
        assert!(error.contains("special token"), "{error}");
        // Only the tokens of pictures have another spelling.
        assert_eq!(error.contains("a picture is written <image>"), !text.contains("im_end"), "{error}");
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
