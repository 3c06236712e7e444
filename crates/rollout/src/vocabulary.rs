//! Which ids of a vocabulary are never drawn.

use data::Processor;

/// Ids that no program samples, ascending: `vision` tokens of the model's config and of the tokenizer, one of which
/// without its picture would break the sequence, and the ids below `vocab` (rows of the embedding) that the tokenizer
/// has no token for. Published models pad their embeddings, so that such an id can be likely and has no text.
///
/// The mask acts on what is *drawn*, greedily or not. Log-probs, of the sampler and of every scoring pass alike, are
/// those of the full distribution: the ids count in the denominator and in neither ratio, and training pushes them down
/// as it does every other token that was not drawn, which keeps them unlikely for servers that mask nothing.
pub fn never_sampled(vision: Vec<u32>, processor: &Processor, vocab: usize) -> Vec<u32> {
    let mut ids = vision;
    ids.extend([
        processor.vision_start_id(),
        processor.vision_end_id(),
        processor.image_pad_id(),
        processor.video_pad_id(),
    ]);
    ids.extend(processor.token_id("<|vision_pad|>"));
    ids.extend((0..vocab as u32).filter(|&id| processor.token(id).is_none()));
    ids.sort_unstable();
    ids.dedup();
    ids
}
