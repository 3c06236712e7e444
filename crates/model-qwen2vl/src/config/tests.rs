//! Reading `config.json`.

use serde_json::Map;

use super::*;

#[test]
fn presets_are_consistent() {
    for family in FAMILIES {
        for name in family.presets {
            let c = QwenVlConfig::preset(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(c.family, family, "{name}");
            assert_eq!(c.text.mrope.sections().iter().sum::<usize>() * 2, c.text.head_dim, "{name}");
        }
    }
    let c = QwenVlConfig::preset("3b").unwrap();
    assert_eq!((c.text.head_dim, c.text.mrope.sections()), (128, [16, 24, 24]));
    assert!(QwenVlConfig::preset("4b").is_none());
}

#[test]
fn flat_and_nested_files_mean_the_same() {
    let flat = QwenVlConfig::preset("small").unwrap();
    let mut raw = flat.raw.clone();
    let map = raw.as_object_mut().unwrap();
    let mut text = Map::new();
    for key in [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
        "rms_norm_eps",
        "eos_token_id",
    ] {
        text.insert(key.into(), map.remove(key).unwrap());
    }
    map.remove("rope_theta");
    let scaling = map.remove("rope_scaling").unwrap();
    text.insert(
        "rope_parameters".into(),
        json!({"rope_type": "default", "rope_theta": 1e6, "mrope_section": scaling["mrope_section"]}),
    );
    map.insert("text_config".into(), Value::Object(text));
    let nested = QwenVlConfig::from_json(raw, Path::new("x")).unwrap();
    assert_eq!(nested.text, flat.text);
    assert_eq!(nested.vision, flat.vision);
    assert_eq!(nested.eos_token_ids, flat.eos_token_ids);
}

#[test]
fn unusual_but_legal_files() {
    let read = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut raw = QwenVlConfig::preset("3b").unwrap().raw;
        change(raw.as_object_mut().unwrap());
        QwenVlConfig::from_json(raw, Path::new("config.json")).unwrap()
    };
    let bare = read(&|map| {
        map.remove("rope_scaling");
        map.remove("rms_norm_eps");
    });
    assert_eq!((bare.text.mrope.sections(), bare.text.rms_norm_eps), ([16, 24, 24], 1e-5));
    let both = read(&|map| {
        map.insert("rope_parameters".into(), json!({"rope_theta": 5.0, "mrope_section": [24, 20, 20]}));
    });
    assert_eq!((both.text.mrope.sections(), both.text.rope_theta), ([16, 24, 24], 1e6));
    let axial = read(&|map| {
        map["vision_config"]["rope_parameters"] = json!({"rope_type": "axial", "rope_theta": 100.0});
    });
    assert_eq!((both.vision.rope_theta, axial.vision.rope_theta), (1e4, 100.0));
    let tied = read(&|map| {
        let text = map.clone();
        map.insert("text_config".into(), Value::Object(text));
        map.insert("tie_word_embeddings".into(), json!(false));
    });
    assert!(tied.text.tie_word_embeddings);
}

#[test]
fn errors_name_the_key() {
    let break_it = |path: &[&str], value: Value| {
        let mut raw = QwenVlConfig::preset("small").unwrap().raw;
        let mut at = &mut raw;
        for key in path {
            at = &mut at[*key];
        }
        *at = value;
        QwenVlConfig::from_json(raw, Path::new("config.json")).unwrap_err().to_string()
    };
    assert!(break_it(&["model_type"], json!("llama")).contains("model_type"));
    assert!(break_it(&["hidden_size"], json!("big")).contains("hidden_size: expected a whole number"));
    assert!(break_it(&["num_key_value_heads"], json!(4)).contains("num_key_value_heads: 4 does not divide"));
    assert!(break_it(&["rope_scaling", "mrope_section"], json!([1, 2, 3])).contains("mrope_section"));
    // These sum to 32 where sums wrap at 64 bits.
    let wraps = json!([u64::MAX, 17, 16]);
    assert!(break_it(&["rope_scaling", "mrope_section"], wraps).contains("more than 64 bits hold"));
    for key in ["image_token_id", "bos_token_id", "vision_token_id", "eos_token_id"] {
        let error = break_it(&[key], json!((1u64 << 32) + 3));
        assert!(error.contains(key) && error.contains("4294967299 is no token id"), "{error}");
    }
    assert!(break_it(&["eos_token_id"], json!([1, 1u64 << 32])).contains("4294967296 is no token id"));
    for (path, key) in [
        (vec!["vocab_size"], "vocab_size"),
        (vec!["intermediate_size"], "intermediate_size"),
        (vec!["max_position_embeddings"], "max_position_embeddings"),
        (vec!["vision_config", "patch_size"], "vision_config.patch_size"),
        (vec!["vision_config", "temporal_patch_size"], "vision_config.temporal_patch_size"),
        (vec!["vision_config", "intermediate_size"], "vision_config.intermediate_size"),
    ] {
        let error = break_it(&path, json!(u64::MAX / 2));
        assert!(error.contains(key) && error.contains("must be at most"), "{error}");
    }
    let error = break_it(&["hidden_act"], json!(format!("\u{1b}[2J{}", "x".repeat(100_000))));
    assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    assert!(break_it(&["vision_config", "out_hidden_size"], json!(9)).contains("out_hidden_size is 9"));
    assert!(break_it(&["rms_norm_eps"], json!(-1)).contains("rms_norm_eps: must be above 0"));
    assert!(break_it(&["rope_theta"], json!(0)).contains("rope_theta: must be above 0"));
    assert!(break_it(&["num_hidden_layers"], json!(1e15 as u64)).contains("num_hidden_layers"));
    let axial = json!({"rope_type": "yarn", "rope_theta": 1e4});
    assert!(break_it(&["vision_config", "rope_parameters"], axial).contains("vision_config.rope_parameters.rope_type"));
    assert!(break_it(&["image_token_id"], json!(99999)).contains("image_token_id is 99999"));
    assert!(break_it(&["vision_config", "fullatt_block_indexes"], json!("x")).contains("fullatt_block_indexes"));
}

/// `config.json` of a preset with `value` at `path`.
fn changed(preset: &str, path: &[&str], value: Value) -> Result<QwenVlConfig, String> {
    let mut raw = QwenVlConfig::preset(preset).unwrap().raw;
    let mut at = &mut raw;
    for key in path {
        at = &mut at[*key];
    }
    *at = value;
    QwenVlConfig::from_json(raw, Path::new("config.json")).map_err(|e| e.to_string())
}

#[test]
fn what_no_family_has_is_refused_by_its_key() {
    let cases: &[(&str, &[&str], Value, &str)] = &[
        ("qwen3vl-8b", &["model_type"], json!("qwen3_vl_moe"), "mixture of experts"),
        (
            "qwen3vl-8b",
            &["model_type"],
            json!("llava"),
            "\"qwen2_vl\" (Qwen2-VL), \"qwen2_5_vl\" (Qwen2.5-VL), \"qwen3_vl\"",
        ),
        ("qwen3vl-8b", &["model_type"], Value::Null, "model_type: missing"),
        ("qwen3vl-8b", &["text_config", "num_experts"], json!(128), "text_config.num_experts"),
        ("qwen3vl-8b", &["text_config", "attention_bias"], json!(true), "text_config.attention_bias"),
        ("qwen3vl-8b", &["text_config", "use_sliding_window"], json!(true), "text_config.use_sliding_window"),
        ("qwen2vl-2b", &["use_sliding_window"], json!(true), "use_sliding_window"),
        (
            "qwen3vl-8b",
            &["text_config", "rope_scaling", "mrope_interleaved"],
            json!(false),
            "rope_scaling.mrope_interleaved",
        ),
        (
            "qwen3vl-8b",
            &["text_config", "rope_scaling", "rope_type"],
            json!("yarn"),
            "rope_scaling.rope_type: \"yarn\"",
        ),
        ("qwen2vl-7b", &["rope_scaling", "type"], json!("yarn"), "rope_scaling.type: \"yarn\""),
        ("qwen3vl-8b", &["text_config", "head_dim"], json!(127), "text_config.head_dim: 127 is odd"),
        ("qwen3vl-8b", &["text_config", "head_dim"], json!(1u64 << 62), "text_config.head_dim: must be at most"),
        ("qwen3vl-8b", &["text_config", "head_dim"], json!(1u64 << 23), "text_config.head_dim: 32 heads"),
        ("qwen2vl-7b", &["num_attention_heads"], json!(1u64 << 63), "num_attention_heads"),
        ("qwen2vl-7b", &["head_dim"], json!(64), "head_dim: 64 differs"),
        ("qwen3vl-8b", &["text_config", "hidden_act"], json!("gelu"), "text_config.hidden_act"),
        ("qwen3vl-8b", &["quantization_config"], json!({"bits": 4}), "quantization_config"),
        ("qwen3vl-8b", &["vision_config", "hidden_act"], json!("relu"), "vision_config.hidden_act"),
        ("qwen3vl-8b", &["vision_config", "num_position_embeddings"], json!(2303), "num_position_embeddings: 2303"),
        ("qwen3vl-8b", &["vision_config", "deepstack_visual_indexes"], json!([8, 24, 16]), "must increase"),
        ("qwen3vl-8b", &["vision_config", "deepstack_visual_indexes"], json!([8, 8]), "must increase"),
        ("qwen3vl-8b", &["vision_config", "deepstack_visual_indexes"], json!([8, 27]), "no block 27"),
        ("qwen3vl-8b", &["vision_config", "out_hidden_size"], json!(2048), "vision_config.out_hidden_size is 2048"),
        ("qwen3vl-8b", &["text_config", "num_hidden_layers"], json!(2), "deepstack_visual_indexes: 3 entries"),
        ("qwen2vl-7b", &["vision_config", "hidden_size"], json!(1280), "vision_config.hidden_size is 1280"),
        ("qwen2vl-7b", &["vision_config", "mlp_ratio"], json!(0.3333), "vision_config.mlp_ratio"),
    ];
    for (preset, path, value, part) in cases {
        let error = changed(preset, path, value.clone()).unwrap_err();
        assert!(error.contains(part), "{path:?} = {value}: {error}");
    }
    let f16 = QwenVlConfig::preset("qwen3vl-8b").unwrap().check_dtype(DType::F16).unwrap_err().to_string();
    assert!(f16.contains("linear_fc1") && f16.contains("bf16"), "{f16}");
    assert!(QwenVlConfig::preset("7b").unwrap().check_dtype(DType::F16).is_ok());
}

#[test]
fn families_have_their_own_defaults() {
    let without = |preset: &str, paths: &[&[&str]]| {
        let mut raw = QwenVlConfig::preset(preset).unwrap().raw;
        for path in paths {
            let (last, inner) = path.split_last().unwrap();
            let mut at = &mut raw;
            for key in inner {
                at = &mut at[*key];
            }
            at.as_object_mut().unwrap().remove(*last).unwrap();
        }
        QwenVlConfig::from_json(raw, Path::new("config.json")).unwrap()
    };
    let text: [&[&str]; 4] = [
        &["text_config", "rope_theta"],
        &["text_config", "rope_scaling"],
        &["text_config", "rms_norm_eps"],
        &["text_config", "head_dim"],
    ];
    let c = without("qwen3vl-8b", &text);
    assert_eq!((c.text.rope_theta, c.text.rms_norm_eps, c.text.head_dim), (5e5, 1e-6, 128));
    assert_eq!(c.text.mrope, MRope::Interleaved([24, 20, 20]));
    let vision = ["num_position_embeddings", "deepstack_visual_indexes", "hidden_act", "patch_size", "hidden_size"];
    let paths: Vec<[&str; 2]> = vision.iter().map(|key| ["vision_config", key]).collect();
    let c = without("qwen3vl-8b", &paths.iter().map(|p| &p[..]).collect::<Vec<_>>());
    assert_eq!(c.vision, QwenVlConfig::preset("qwen3vl-8b").unwrap().vision);
    let paths: Vec<[&str; 2]> =
        ["embed_dim", "mlp_ratio", "hidden_act"].iter().map(|key| ["vision_config", key]).collect();
    let c = without("qwen2vl-7b", &paths.iter().map(|p| &p[..]).collect::<Vec<_>>());
    assert_eq!(c.vision, QwenVlConfig::preset("qwen2vl-7b").unwrap().vision);
    assert_eq!((c.vision.hidden_size, c.vision.intermediate_size), (1280, 5120));
    let c = without("qwen2vl-7b", &[&["rope_theta"], &["rope_scaling"], &["rms_norm_eps"], &["image_token_id"]]);
    assert_eq!((c.text.rope_theta, c.text.rms_norm_eps, c.image_token_id), (1e6, 1e-5, 151655));
    assert_eq!(c.text.mrope, MRope::Sections([16, 24, 24]));
    assert_eq!(
        changed("qwen3vl-8b", &["vision_config", "deepstack_visual_indexes"], json!([]))
            .unwrap()
            .vision
            .features_width(),
        4096
    );
}

/// In older families the inner key ties, too; in Qwen3-VL the outer one alone counts.
#[test]
fn tying_is_the_families() {
    let tied = |preset: &str, outer: bool, inner: bool| {
        let mut raw = QwenVlConfig::preset(preset).unwrap().raw;
        if raw.get("text_config").is_none() {
            raw["text_config"] = raw.clone();
        }
        raw["tie_word_embeddings"] = json!(outer);
        raw["text_config"]["tie_word_embeddings"] = json!(inner);
        QwenVlConfig::from_json(raw, Path::new("config.json")).unwrap().text.tie_word_embeddings
    };
    for (preset, inner_counts) in [("qwen2vl-7b", true), ("7b", true), ("qwen3vl-8b", false)] {
        let found = [(false, false), (true, false), (false, true)].map(|(outer, inner)| tied(preset, outer, inner));
        assert_eq!(found, [false, true, inner_counts], "{preset}");
    }
}

#[test]
fn axes_take_turns() {
    let of = |mrope: MRope, axis: usize| (0..64).filter(|&j| mrope.axis(j) == axis).collect::<Vec<_>>();
    let interleaved = MRope::Interleaved([24, 20, 20]);
    let mut time: Vec<usize> = (0..60).step_by(3).collect();
    time.extend(60..64);
    assert_eq!(of(interleaved, 0), time);
    assert_eq!(of(interleaved, 1), (1..60).step_by(3).collect::<Vec<_>>());
    assert_eq!(of(interleaved, 2), (2..60).step_by(3).collect::<Vec<_>>());
    let sections = MRope::Sections([16, 24, 24]);
    assert_eq!(
        [0, 1, 2].map(|axis| of(sections, axis)),
        [(0..16).collect(), (16..40).collect(), (40..64).collect::<Vec<_>>()]
    );
}

#[test]
fn a_vocabulary_goes_where_the_file_has_it() {
    let ids = [
        ("bos_token_id", 7),
        ("eos_token_id", 8),
        ("vision_start_token_id", 1),
        ("vision_end_token_id", 2),
        ("image_token_id", 3),
        ("video_token_id", 4),
    ];
    for preset in ["toy", "qwen2vl-toy", "qwen3vl-toy"] {
        let c = QwenVlConfig::preset(preset).unwrap().with_vocabulary(99, ids).unwrap();
        assert_eq!((c.text.vocab_size, c.image_token_id, &c.eos_token_ids[..]), (99, 3, &[8][..]), "{preset}");
        let twice = c.raw.get("text_config").is_some() && c.raw.get("vocab_size").is_some();
        assert!(!twice, "{preset}: {}", c.raw);
    }
}
