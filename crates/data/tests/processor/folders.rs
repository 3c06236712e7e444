//! Model folders: their files, their settings, their chat templates.

use std::path::Path;

use data::{Content, FormatPrompt, Processor, toy};
use serde_json::{Value, json};

use crate::support::{edited, png, refusal};

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
