//! A model folder whose weights are all zero and take no room on the disk.
#![allow(dead_code)] // each test binary uses a part

use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

/// Width of the decoder and of its MLP, in place of the fixture's 64 and 84.
const WIDTH: usize = 2048;
const WIDE: usize = 8192;
/// Shards, and layers in each.
pub(crate) const SHARDS: usize = 4;
const LAYERS: usize = 4;

/// Bytes of a shard in bf16, of which the layers' matrices are nearly all.
pub(crate) const SHARD_BYTES: u64 = 2 * (LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * WIDE)) as u64;

/// Writes `config.json` and the shards: the fixture `untied_mha` with a decoder of 16 wider layers, a billion weights.
pub(crate) fn write_large_model(folder: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/untied_mha");
    let config = std::fs::read(fixture.join("config.json")).unwrap();
    std::fs::write(folder.join("config.json"), wider_config(&config).to_string()).unwrap();

    let bytes = std::fs::read(fixture.join("model.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> =
        metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.iter().map(wider).collect())).collect();
    tensors.sort();
    let mut index = Map::new();
    for shard in 0..SHARDS {
        let mut own = Vec::new();
        for (name, shape) in &tensors {
            match name.strip_prefix("model.layers.") {
                Some(rest) => own.extend(rest.strip_prefix("0.").into_iter().flat_map(|part| {
                    let layers = shard * LAYERS..(shard + 1) * LAYERS;
                    layers.map(move |layer| (format!("model.layers.{layer}.{part}"), shape.clone()))
                })),
                None if shard == 0 => own.push((name.clone(), shape.clone())),
                None => {}
            }
        }
        let file = format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1);
        index.extend(own.iter().map(|(name, _)| (name.clone(), json!(file))));
        write_zeros(&folder.join(file), &own);
    }
    let index = json!({ "metadata": {}, "weight_map": index });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn wider(size: &usize) -> usize {
    match size {
        64 => WIDTH,
        84 => WIDE,
        other => *other,
    }
}

fn wider_config(config: &[u8]) -> Value {
    let mut config: Value = serde_json::from_slice(config).unwrap();
    let text = &mut config["text_config"];
    for (key, value) in [
        ("hidden_size", WIDTH),
        ("intermediate_size", WIDE),
        ("num_hidden_layers", SHARDS * LAYERS),
        ("num_attention_heads", WIDTH / 128),
        ("num_key_value_heads", WIDTH / 128),
    ] {
        text[key] = json!(value);
    }
    text["layer_types"] = json!(vec!["full_attention"; SHARDS * LAYERS]);
    text["rope_parameters"]["mrope_section"] = json!([16, 24, 24]);
    config["vision_config"]["out_hidden_size"] = json!(WIDTH);
    config
}

/// A safetensors file in bf16 that is a header and a hole.
fn write_zeros(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}
