//! Who holds what, by shape alone.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use comm::threads;
use kernels::Shard;
use model_qwen2vl::{ParamSource, QwenVl, QwenVlConfig, TensorParallel};

type B = burn_flex::Flex<f32, i32>;

/// Notes what is asked for and makes next to nothing.
struct Notes {
    tensor: TensorParallel,
    shards: BTreeMap<String, Shard>,
}

impl ParamSource<B> for Notes {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let shard = self.tensor.shard(name, &shape);
        assert_eq!(shard.part_shape(), shape, "{name}");
        self.shards.insert(name.to_string(), shard);
        Tensor::zeros([1; D], &Default::default())
    }
}

fn shards(config: &QwenVlConfig, rank: usize, size: usize) -> BTreeMap<String, Shard> {
    let tensor = TensorParallel::shapes(&config.text, rank, size).unwrap();
    let mut notes = Notes { tensor: tensor.clone(), shards: BTreeMap::new() };
    let _shapes_only: QwenVl<B> = QwenVl::build_parallel(config.clone(), &mut notes, tensor);
    notes.shards
}

/// Of the published sizes every element is some rank's, and one rank's alone if copies are left out; ranks have parts of
/// equal size.
#[test]
fn every_element_is_there_once() {
    for (preset, sizes) in [
        ("toy", &[1, 2, 4][..]),
        ("3b", &[1, 2, 4, 8]),
        ("7b", &[1, 2, 4]),
        ("32b", &[1, 2, 4, 8]),
        ("qwen2vl-7b", &[2, 4]),
        ("qwen3vl-8b", &[2, 8]),
    ] {
        let config = QwenVlConfig::preset(preset).unwrap();
        let alone = shards(&config, 0, 1);
        assert!(alone.values().all(|shard| shard.is_whole() && shard.first));
        for &size in sizes {
            let ranks: Vec<_> = (0..size).map(|rank| shards(&config, rank, size)).collect();
            for (name, whole) in &alone {
                let of_ranks: Vec<&Shard> = ranks.iter().map(|shards| &shards[name]).collect();
                let what = format!("{preset} over {size}: {name}");
                assert!(of_ranks.iter().all(|s| s.shape == whole.shape && s.axis == of_ranks[0].axis), "{what}");
                let mut firsts: Vec<_> = of_ranks.iter().filter(|s| s.first).map(|s| s.range.clone()).collect();
                let copies = |s: &&Shard| firsts.contains(&s.range);
                assert!(of_ranks.iter().all(copies), "{what}");
                firsts.sort_by_key(|range| range.start);
                let mut end = 0;
                for range in firsts {
                    assert!(range.start == end && range.end > end, "{what}: {range:?}");
                    end = range.end;
                }
                assert_eq!(end, whole.shape[of_ranks[0].axis], "{what}");
            }
            let elements = |shards: &BTreeMap<String, Shard>| shards.values().map(Shard::len).sum::<usize>();
            assert!(ranks.iter().all(|shards| elements(shards) == elements(&ranks[0])), "{preset} over {size}");
        }
    }
}

/// The heads of a rank: 32b has 40 query and 8 key/value heads of 128, over 8 ranks 5 and 1. 3b has 16 and 2: of 8 ranks
/// four have the same key/value head.
#[test]
fn heads_by_hand() {
    let of = |preset: &str, rank: usize, name: &str| {
        let shard = shards(&QwenVlConfig::preset(preset).unwrap(), rank, 8)[name].clone();
        (shard.axis, shard.range, shard.first)
    };
    let attn = |part: &str| format!("model.layers.1.self_attn.{part}");
    assert_eq!(of("32b", 3, &attn("q_proj.weight")), (0, 1920..2560, true));
    assert_eq!(of("32b", 3, &attn("v_proj.bias")), (0, 384..512, true));
    assert_eq!(of("32b", 3, &attn("o_proj.weight")), (1, 1920..2560, true));
    assert_eq!(of("32b", 3, "model.layers.0.mlp.up_proj.weight"), (0, 10368..13824, true));
    assert_eq!(of("32b", 3, "model.layers.0.mlp.down_proj.weight"), (1, 10368..13824, true));
    assert_eq!(of("32b", 3, "lm_head.weight"), (0, 57024..76032, true));
    assert_eq!(of("32b", 3, "model.norm.weight"), (0, 0..5120, false));
    assert_eq!(of("3b", 3, &attn("k_proj.weight")), (0, 0..128, false));
    assert_eq!(of("3b", 4, &attn("k_proj.weight")), (0, 128..256, true));
    assert_eq!(of("3b", 5, &attn("k_proj.bias")), (0, 128..256, false));
    assert_eq!(of("3b", 5, "model.embed_tokens.weight"), (0, 94960..113952, true));
    assert_eq!(of("3b", 5, "visual.blocks.0.attn.qkv.weight"), (0, 0..3840, false));
}

/// What cannot be shared out is one error that says what can, on all ranks.
#[test]
fn the_numbers_that_are_possible_are_named() {
    let seven = QwenVlConfig::preset("7b").unwrap();
    let error = TensorParallel::shapes(&seven.text, 0, 8).unwrap_err().to_string();
    let expected = "8 ranks cannot share out a decoder of 28 heads, 4 key/value heads and an MLP of 18944: \
                    parallel.tensor can be 1, 2, 4";
    assert_eq!(error, expected);
    let toy = QwenVlConfig::preset("toy").unwrap(); // 4 heads, 2 key/value heads, an MLP of 352
    let errors = threads::run(3, |ranks| TensorParallel::new(&toy.text, &ranks).unwrap_err().to_string());
    assert!(errors.iter().all(|error| error.ends_with("can be 1, 2, 4")), "{errors:?}");
}
