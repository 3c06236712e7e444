//! Bytes of activations: of a pass that learns, and of one that only computes.
//!
//! The tensors that are alive at one time were counted in the sources of the layers, attention, head and tower, as a
//! GPU runs them; `d`, `q`, `kv`, `m` are the widths of the residual stream, of a rank's queries, of its keys and of
//! its MLP. What is a thousandth of these (indexes, angles, statistics of rows) is left out.

use kernels::bounds::{COUNTABLE, HEAD_LOGITS, SCORES};
use model_qwen2vl::config::MlpKind;

use crate::{ModelShapes, RankGrid};

/// The longest texts and pictures, and what is computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassSize {
    /// Packed tokens.
    pub tokens: usize,
    /// Tokens of them that stand for parts of pictures.
    pub image_tokens: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens of the longest response; 0 in a prefill.
    pub response: usize,
    /// Image tokens of the largest picture.
    pub picture: usize,
}

/// What a pass that learns holds beside weights and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassMemory {
    /// What the forward keeps for the backward.
    pub kept: usize,
    /// The most that comes and goes: the head, a layer, or a block of the tower.
    pub passing: usize,
}

/// Widths of a stack of blocks on one rank.
#[derive(Debug, Clone, Copy)]
struct Widths {
    d: usize,
    q: usize,
    kv: usize,
    /// Elements a token of what goes into the MLP's activation function, of its output, and of both and their gradients
    /// where most of them are alive.
    mlp: [usize; 3],
    /// Elements of the MLP's largest weight.
    largest: usize,
    heads: usize,
    blocks: usize,
}

impl Widths {
    fn mlp(kind: MlpKind, m: usize) -> [usize; 3] {
        match kind {
            MlpKind::Gated => [2 * m, m, 5 * m],
            MlpKind::Plain(_) => [m, m, 3 * m],
        }
    }

    fn decoder(shapes: &ModelShapes, grid: RankGrid) -> Self {
        let t = &shapes.architecture().text;
        let m = t.intermediate_size.div_ceil(grid.tensor);
        let heads = t.num_attention_heads.div_ceil(grid.tensor);
        Self {
            d: t.hidden_size,
            q: heads * t.head_dim,
            kv: t.num_key_value_heads.div_ceil(grid.tensor) * t.head_dim,
            mlp: Self::mlp(MlpKind::Gated, m),
            largest: 2 * m * t.hidden_size,
            heads,
            blocks: t.num_hidden_layers,
        }
        .adapted(shapes)
    }

    /// The same where adapters learn: no weight has a gradient, and what an adapter adds to a layer's outputs stands
    /// beside them, in parts and put together, before it is added.
    fn adapted(self, shapes: &ModelShapes) -> Self {
        let [before, after, learning] = self.mlp;
        match shapes.has_adapters() {
            false => self,
            true => Self { largest: 0, mlp: [before, after + 2 * before, learning + 2 * before], ..self },
        }
    }

    fn tower(shapes: &ModelShapes) -> Self {
        let v = &shapes.architecture().vision;
        let (w, mlp) = (v.hidden_size, Self::mlp(v.mlp, v.intermediate_size));
        let tower = Self { d: w, q: w, kv: w, mlp, largest: mlp[0] * w, heads: v.num_heads, blocks: v.depth };
        if shapes.trains_vision() { tower.adapted(shapes) } else { tower }
    }

    /// What the backward of one block takes beside its input where all of it is computed again: of the MLP, or of
    /// attention with its scores.
    fn again(self, rows: usize, scores: usize, size: usize) -> usize {
        let Self { d, q, kv, mlp, .. } = self;
        let mlp = rows * size * (4 * d + 2 * q + 2 * kv + mlp[2]) + 4 * self.largest;
        let attention = rows * (size * (2 * d + 5 * q + 2 * kv) + 4 * (2 * q + 2 * kv)) + 2 * scores * size;
        mlp.max(attention)
    }

    /// The same where what the forward made is there.
    fn once(self, rows: usize, scores: usize, size: usize) -> usize {
        let Self { d, q, kv, mlp, .. } = self;
        let mlp = rows * size * (2 * d + mlp[2] - mlp[0]) + 4 * self.largest;
        let attention = rows * (size * (d + 3 * q) + 4 * (2 * q + 2 * kv)) + 2 * scores * size;
        mlp.max(attention)
    }

    /// A forward that keeps nothing.
    fn forward(self, rows: usize, scores: usize, size: usize) -> usize {
        let Self { d, q, kv, mlp, .. } = self;
        let mlp = rows * size * (3 * d + mlp[0] + mlp[1]);
        mlp.max(rows * size * (3 * d + 3 * q + 4 * kv) + scores * size)
    }
}

/// Scores that are held where each of the `queries` of the longest segment looks at `keys`.
fn scores(heads: usize, queries: usize, keys: usize) -> usize {
    let segment = heads.saturating_mul(queries).saturating_mul(keys);
    if segment < COUNTABLE { SCORES.max(segment) } else { SCORES }
}

impl PassSize {
    fn decoder_scores(&self, heads: usize) -> usize {
        let (p, r) = (self.prompt, self.response);
        scores(heads, p, p).max(scores(heads, r, p + r))
    }

    fn tower_scores(&self, shapes: &ModelShapes, widths: Widths) -> usize {
        let patches = self.picture * shapes.architecture().vision.merge_unit();
        scores(widths.heads, patches, patches)
    }

    fn patches(&self, shapes: &ModelShapes, grid: RankGrid) -> usize {
        (self.image_tokens * shapes.architecture().vision.merge_unit()).div_ceil(grid.tensor)
    }
}

/// Bytes of a chunk of logits and, in a backward, of the head's gradient, which is summed over chunks in f32.
fn head(shapes: &ModelShapes, grid: RankGrid, rows: usize, backward: bool) -> usize {
    let (t, size) = (&shapes.architecture().text, shapes.dtype.size());
    let vocab = t.vocab_size.div_ceil(grid.tensor);
    let chunk = (HEAD_LOGITS / vocab).clamp(1, rows.max(1));
    let sums = if rows > chunk { 2 } else { 1 };
    let gradient = if backward && !shapes.has_adapters() { 4 * sums * vocab * t.hidden_size } else { 0 };
    // The states of the rows, their gradient in chunks and then as a whole.
    let states = if backward { 3 } else { 1 };
    chunk * vocab * size + gradient + states * rows * t.hidden_size * size
}

/// A pass that learns; `recompute` keeps the layers' inputs alone, `tower` lets the vision tower learn, too.
pub(crate) fn learning(
    shapes: &ModelShapes,
    grid: RankGrid,
    pass: &PassSize,
    recompute: bool,
    tower: bool,
) -> PassMemory {
    let (size, n) = (shapes.dtype.size(), pass.tokens);
    let decoder = Widths::decoder(shapes, grid);
    let input = n * decoder.d * size;
    let scores = pass.decoder_scores(decoder.heads);
    let (layers, layer) = match recompute {
        true => (decoder.blocks * input, decoder.again(n, scores, size)),
        false => (shapes.activation_bytes() * n, decoder.once(n, scores, size)),
    };
    // The last layer's output, the final hidden states and their gradient.
    let mut kept = layers + input;
    let mut passing = (2 * input + head(shapes, grid, n, true)).max(input + layer);
    let patches = pass.patches(shapes, grid);
    if tower && patches > 0 {
        let widths = Widths::tower(shapes);
        let v = &shapes.architecture().vision;
        let (row, scores) = (patches * size, pass.tower_scores(shapes, widths));
        let (blocks, block) = match recompute {
            true => (widths.blocks * row * widths.d, widths.again(patches, scores, size)),
            false => (widths.blocks * row * (8 * widths.d + widths.mlp[0]), widths.once(patches, scores, size)),
        };
        let own = row * (v.patch_dim() + widths.d) + blocks;
        // The tower goes backward when the decoder has given its inputs back.
        passing = passing.max((own + block).saturating_sub(kept + own));
        kept += own;
    }
    PassMemory { kept, passing }
}

/// The most that a forward pass over prompts takes: the tower first, the decoder then.
pub(crate) fn computing(shapes: &ModelShapes, grid: RankGrid, pass: &PassSize) -> usize {
    let size = shapes.dtype.size();
    let decoder = Widths::decoder(shapes, grid);
    let decoding = decoder.forward(pass.tokens, pass.decoder_scores(decoder.heads), size);
    let patches = pass.patches(shapes, grid);
    if patches == 0 {
        return decoding;
    }
    let widths = Widths::tower(shapes);
    let pixels = patches * shapes.architecture().vision.patch_dim() * (4 + size);
    decoding.max(pixels + widths.forward(patches, pass.tower_scores(shapes, widths), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;
    use model_qwen2vl::QwenVlConfig;

    const ALONE: RankGrid = RankGrid { data: 1, tensor: 1 };

    fn shapes() -> ModelShapes {
        ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16)
    }

    fn text(tokens: usize) -> PassSize {
        PassSize { tokens, image_tokens: 0, prompt: 1500, response: 1024, picture: 0 }
    }

    /// 16,384 tokens of 7b: inputs of 28 layers and the last output, and the head with two f32 sums of its gradient.
    #[test]
    fn a_pass_keeps_inputs_and_the_head_is_the_most() {
        let pass = learning(&shapes(), ALONE, &text(16_384), true, true);
        let input = 16_384 * 3584 * 2;
        assert_eq!(pass.kept, 29 * input);
        let chunk = (1 << 29) / 152_064;
        assert_eq!(chunk, 3530);
        assert_eq!(pass.passing, 2 * input + chunk * 152_064 * 2 + 2 * 4 * 152_064 * 3584 + 3 * input);
        // A rank of four has a quarter of the head, and four times the rows in a chunk.
        let part = learning(&shapes(), RankGrid { data: 1, tensor: 4 }, &text(16_384), true, true);
        assert_eq!(part.kept, pass.kept);
        assert!(part.passing < pass.passing && part.passing > pass.passing / 4);
    }

    /// Without `recompute` all layers keep all that their backward reads.
    #[test]
    fn nothing_computed_again_is_kept() {
        let layer = 4 * 3584 + 2 * 3584 + 2 * 512 + 2 * 18_944;
        let pass = learning(&shapes(), ALONE, &text(1024), false, true);
        assert_eq!(pass.kept, 1024 * 2 * (28 * layer + 3584));
    }

    /// A tower that learns keeps the inputs of its blocks, four patches an image token.
    #[test]
    fn a_tower_that_learns_keeps_its_inputs() {
        let pictures = PassSize { image_tokens: 4096, picture: 1024, ..text(16_384) };
        let without = learning(&shapes(), ALONE, &text(16_384), true, true);
        let with = learning(&shapes(), ALONE, &pictures, true, true);
        assert_eq!(with.kept - without.kept, 4 * 4096 * 2 * (1176 + 33 * 1280));
        assert_eq!(learning(&shapes(), ALONE, &pictures, true, false), without);
    }

    /// 16 heads of a picture of 8,192 patches have more scores than are held otherwise; of 21,400 patches more than a
    /// kernel counts, so the default takes them a few at a time.
    #[test]
    fn a_large_picture_holds_its_scores() {
        assert_eq!(scores(16, 8192, 8192), 1 << 30);
        assert_eq!(scores(16, 21_400, 21_400), 1 << 27);
        assert_eq!(scores(28, 1024, 2048), 1 << 27);
    }
}
