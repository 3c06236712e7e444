//! A decoder that ranks share out against one that one rank has: the ranks are threads of this process.

mod computed;
mod decoded;
mod files;
mod shards;

pub(crate) use computed::in_parts;

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use comm::Ranks;
use kernels::{Kernels, ParamVisitor, Shard};
use model_qwen2vl::QwenVl;

/// Parameters, or what belongs to them, put together from the parts of all ranks.
struct Whole<'a> {
    ranks: &'a Ranks,
    /// This rank's values by name; those of a name that is not here are not put together.
    own: &'a BTreeMap<String, Vec<f32>>,
    whole: BTreeMap<String, Vec<f32>>,
}

/// A part as it travels: axis, range, whether it is the first of its copies, values; none if the rank has no value.
type Sent = Option<(usize, [usize; 2], bool, Vec<f32>)>;

impl<B: Kernels> ParamVisitor<B> for Whole<'_> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        assert_eq!(tensor.shape().num_elements(), shard.len(), "{name}: {shard:?}");
        let sent: Sent = self.own.get(name).map(|values| {
            assert_eq!(values.len(), shard.len(), "{name}: {shard:?}");
            (shard.axis, [shard.range.start, shard.range.end], shard.first, values.clone())
        });
        let all = self.ranks.gather("part", &sent).unwrap();
        assert!(all.iter().all(|part| part.is_some() == sent.is_some()), "{name}: some ranks have it, some not");
        if sent.is_none() {
            return;
        }
        let mut whole = vec![f32::NAN; shard.shape.iter().product()];
        let mut firsts = 0;
        let mut of_first: BTreeMap<[usize; 2], Vec<f32>> = BTreeMap::new();
        for (axis, [start, end], first, values) in all.into_iter().flatten() {
            let shard = Shard { axis, range: start..end, ..shard.clone() };
            if first {
                firsts += values.len();
                let mut at = 0;
                for range in shard.elements() {
                    let len = range.len();
                    whole[range].copy_from_slice(&values[at..at + len]);
                    at += len;
                }
                assert!(of_first.insert([start, end], values).is_none(), "{name}: two first copies");
            } else {
                assert!(of_first[&[start, end]] == values, "{name}: copies differ");
            }
        }
        assert!(firsts == whole.len() && !whole.iter().any(|v| v.is_nan()), "{name}: not every element once");
        self.whole.insert(name.to_string(), whole);
    }
}

/// `own` of all ranks put together, by name.
fn whole<B: Kernels>(model: &QwenVl<B>, own: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let ranks = model.tensor_parallel().ranks().clone();
    let mut whole = Whole { ranks: &ranks, own, whole: BTreeMap::new() };
    model.clone().visit(&mut whole);
    whole.whole
}

/// Cases of golden prompts and the numbers of ranks that can share their models out. With 4 ranks there are copies of
/// key/value heads; of `sharded_bf16` and `qwen3_vl_untied_two_images` all ranks have the same.
const CASES: [(&str, &[usize]); 6] = [
    ("one_image_tied", &[2, 4]),
    ("one_image_untied", &[2]),
    ("sharded_bf16", &[2, 4]),
    ("qwen2_vl_tied_gqa", &[2, 4]),
    ("qwen3_vl_tied_gqa", &[2, 4]),
    ("qwen3_vl_untied_two_images", &[3]),
];
