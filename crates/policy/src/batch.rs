//! Prompts and their responses, packed without padding between them.

use std::ops::Range;

use burn::tensor::{Int, Tensor, backend::Backend};
use kernels::attention::packed::Packed;
use kernels::host::int_tensor;
use kernels::rope::{Rope, Rotary};
use kernels::{AttentionPlan, Kernels, ResponseRows};

use crate::Prompt;

/// A group to pack: a prompt and the token ids of some of its responses.
pub type PackGroup<'a> = (&'a Prompt, Vec<&'a [u32]>);

/// Adds idle rows up to a multiple of `multiple`; how many.
fn add_idle(ids: &mut Vec<usize>, positions: &mut [Vec<i64>; 3], multiple: usize) -> usize {
    let (count, len) = (ids.len(), ids.len().next_multiple_of(multiple));
    ids.resize(len, 0);
    positions.iter_mut().for_each(|axis| axis.resize(len, 0));
    len - count
}

/// What packing must know of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Packing {
    /// Placeholder of one merged image token.
    pub image_token_id: u32,
    /// How the decoder's heads turn with a token's positions.
    pub rope: Rope,
}

/// Prompts and their responses, packed without padding between them: for each group its prompt, then its responses. At
/// the end stand idle rows where the backend wants a multiple of so many ([`Kernels::TOKENS`]): tokens of id 0 that
/// nobody attends to and that predict nothing.
#[derive(Debug, Clone)]
pub struct PackedBatch<B: Backend> {
    /// Rows of each prompt.
    pub prompts: Vec<Range<usize>>,
    /// Rows of each response, in the order given.
    pub responses: Vec<ResponseRows>,
    /// Rows of image tokens, all prompts together.
    pub image_rows: Vec<usize>,
    /// Packed rows, `N`, idle ones included; in a [part](Self::part) with those of its prompt.
    pub tokens: usize,
    /// Token ids `[N]`; in a part those of its responses only, `[R]`.
    pub ids: Tensor<B, 1, Int>,
    /// Angles of the same tokens.
    pub rotary: Rotary<B>,
    /// Who attends to whom.
    pub plan: AttentionPlan<B>,
    /// Where image embeddings go; none without images, and in a part.
    pub images: Option<ImageRows<B>>,
    /// For each of these tokens a hash of all tokens before it in its sequence and of itself: the same however
    /// sequences are packed.
    pub keys: Vec<u64>,
}

/// The hash of a sequence `before` with the token `id` behind it (FNV-1a over words).
fn key(before: u64, id: u32) -> u64 {
    (before ^ (u64::from(id) + 1)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29)
}

/// The hashes of the tokens `ids` that continue a sequence with the hash `before`.
fn keys(before: u64, ids: &[u32]) -> impl Iterator<Item = u64> {
    ids.iter().scan(before, |hash, id| {
        *hash = key(*hash, *id);
        Some(*hash)
    })
}

/// The hash of no token.
const EMPTY: u64 = 0xCBF2_9CE4_8422_2325;

/// Which rows of a packed batch are image tokens, as indices on the device.
#[derive(Debug, Clone)]
pub struct ImageRows<B: Backend> {
    /// Where row `i` of the batch comes from in `[embedded ids; image embeddings]`, `[N]`.
    pub source: Tensor<B, 1, Int>,
    /// Rows of image tokens, `[M]`.
    pub image_rows: Tensor<B, 1, Int>,
    /// The other rows, `[N - M]`.
    pub text_rows: Tensor<B, 1, Int>,
    /// Token ids of the other rows, `[N - M]`.
    pub text_ids: Tensor<B, 1, Int>,
}

impl<B: Backend> ImageRows<B> {
    /// Of tokens `ids`, of which those at `image_rows` are placeholders of images; none without any.
    fn new(ids: &[usize], image_rows: &[usize], device: &B::Device) -> Option<Self> {
        if image_rows.is_empty() {
            return None;
        }
        let mut source: Vec<usize> = (0..ids.len()).collect();
        for (j, &row) in image_rows.iter().enumerate() {
            source[row] = ids.len() + j;
        }
        let text_rows: Vec<usize> = (0..ids.len()).filter(|&i| source[i] == i).collect();
        Some(Self {
            source: int_tensor(source, device),
            image_rows: int_tensor(image_rows.iter().copied(), device),
            text_ids: int_tensor(text_rows.iter().map(|&i| ids[i]), device),
            text_rows: int_tensor(text_rows, device),
        })
    }
}

impl<B: Kernels> PackedBatch<B> {
    /// Packs groups of one prompt and any number of (non-empty) responses.
    pub fn new(packing: impl Into<Packing>, groups: &[PackGroup], device: &B::Device) -> Self {
        Self::rounded(packing, groups, B::TOKENS, device)
    }

    /// A prompt without idle rows: [parts](Self::part) continue it.
    pub fn shared(packing: impl Into<Packing>, prompt: &Prompt, device: &B::Device) -> Self {
        Self::rounded(packing, &[(prompt, vec![])], 1, device)
    }

    /// Packs groups, with as many idle rows as make their number a multiple of `multiple`.
    fn rounded(packing: impl Into<Packing>, groups: &[PackGroup], multiple: usize, device: &B::Device) -> Self {
        let Packing { image_token_id, rope } = packing.into();
        let (mut prompts, mut responses) = (Vec::new(), Vec::new());
        let mut ids: Vec<usize> = Vec::new();
        let mut hashes: Vec<u64> = Vec::new();
        let mut positions: [Vec<i64>; 3] = Default::default();
        for (g, (prompt, group)) in groups.iter().enumerate() {
            prompts.push(ids.len()..ids.len() + prompt.len());
            ids.extend(prompt.input_ids.iter().map(|&i| i as usize));
            hashes.extend(keys(EMPTY, &prompt.input_ids));
            let before = hashes.last().copied().unwrap_or(EMPTY);
            for (all, own) in positions.iter_mut().zip(&prompt.position_ids) {
                all.extend(own);
            }
            let first = prompt.next_position();
            for response in group {
                responses.push(ResponseRows { rows: ids.len()..ids.len() + response.len(), prompt: g });
                ids.extend(response.iter().map(|&i| i as usize));
                hashes.extend(keys(before, response));
                for all in &mut positions {
                    all.extend((0..response.len() as i64).map(|t| first + t));
                }
            }
        }
        let idle = add_idle(&mut ids, &mut positions, multiple);
        hashes.resize(ids.len(), EMPTY);
        let image_rows: Vec<usize> =
            prompts.iter().flat_map(|r| r.clone()).filter(|&i| ids[i] == image_token_id as usize).collect();
        Self {
            plan: AttentionPlan::causal(&prompts, &responses, device).with_idle(idle),
            rotary: rope.table(&positions, device),
            tokens: ids.len(),
            images: ImageRows::new(&ids, &image_rows, device),
            ids: int_tensor(ids, device),
            prompts,
            responses,
            image_rows,
            keys: hashes,
        }
    }

    /// Responses that continue a prompt which is computed apart from them, see
    /// [`Scoring::share`](crate::Scoring::share). Rows are numbered as if the prompt came first.
    pub fn part(packing: impl Into<Packing>, prompt: &Prompt, responses: &[&[u32]], device: &B::Device) -> Self {
        let packing = packing.into();
        let p = prompt.len();
        let (of_responses, mut hashes) = (responses, Vec::new());
        let mut ids: Vec<usize> = responses.iter().flat_map(|r| r.iter().map(|&id| id as usize)).collect();
        let mut end = p;
        let responses: Vec<ResponseRows> = responses
            .iter()
            .map(|r| {
                end += r.len();
                ResponseRows { rows: end - r.len()..end, prompt: 0 }
            })
            .collect();
        let first = prompt.next_position();
        let positions: Vec<i64> = responses.iter().flat_map(|r| (0..r.rows.len() as i64).map(|t| first + t)).collect();
        let mut positions = [positions.clone(), positions.clone(), positions];
        let idle = add_idle(&mut ids, &mut positions, B::TOKENS);
        let before = keys(EMPTY, &prompt.input_ids).last().unwrap_or(EMPTY);
        hashes.extend(of_responses.iter().flat_map(|response| keys(before, response)));
        hashes.resize(ids.len(), EMPTY);
        Self {
            plan: AttentionPlan::continuing(p, &responses, device).with_idle(idle),
            rotary: packing.rope.table(&positions, device),
            tokens: end + idle,
            ids: int_tensor(ids, device),
            prompts: std::iter::once(0..p).collect(),
            image_rows: prompt.image_rows(packing),
            responses,
            images: None,
            keys: hashes,
        }
    }

    /// What a layer must know of these tokens; tokens of a part have no prompt in it yet.
    pub fn packed(&self) -> Packed<'_, B> {
        Packed::new(&self.rotary, &self.plan)
    }

    /// Rows whose hidden state predicts each response token, response by response, and nothing else.
    pub fn predicting_rows(&self) -> Vec<usize> {
        let mut rows = Vec::new();
        for r in &self.responses {
            rows.push(self.prompts[r.prompt].end - 1);
            rows.extend(r.rows.start..r.rows.end - 1);
        }
        rows
    }
}
