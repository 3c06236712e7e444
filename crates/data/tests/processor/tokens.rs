//! Tokens and text: streams, threads, tokenizers of all kinds.

use std::sync::{Arc, LazyLock};

use data::{Dataset, FormatPrompt, ImageSource, Keys, Processor, build_prompt, count_prompt_tokens, toy};
use serde_json::{Value, json};

use crate::support::{TOY, edited, png, refusal, sample};
use proptest::prelude::*;

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
fn pieces_make_up_the_response() {
    let text = "né 漢字 😀!";
    let ids = BYTES.encode_text(text).unwrap();
    let pieces = BYTES.pieces(&ids, text).unwrap();
    // é has two bytes, 漢 and 字 three each, 😀 four: the last byte's token has the character.
    let expected =
        ["n", "", "é", " ", "", "", "漢", "", "", "字", " ", "", "", "", "😀", "!"].map(String::from).to_vec();
    assert_eq!(pieces, expected);
    // Cut inside a character, and a special token, which has no text.
    let mut cut = BYTES.encode_text("a😀").unwrap();
    cut.truncate(3);
    cut.push(BYTES.special_ids()[0]);
    let text = BYTES.decode(&cut, true).unwrap();
    let pieces = BYTES.pieces(&cut, &text).unwrap();
    assert_eq!((pieces.len(), pieces.concat()), (4, text));
    assert_eq!(BYTES.pieces(&[], "").unwrap(), Vec::<String>::new());
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

    /// Whatever bytes a model writes.
    #[test]
    fn pieces_of_random_bytes_make_up_what_they_decode_to(ids in prop::collection::vec(0u32..256, 0..40)) {
        let text = BYTES.decode(&ids, true).unwrap();
        let pieces = BYTES.pieces(&ids, &text).unwrap();
        prop_assert_eq!(pieces.len(), ids.len());
        prop_assert_eq!(pieces.concat(), text);
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
