//! A prompt computed once for responses that do not fit into one pass with each other: its keys and values are kept for
//! the parts, and the gradients that the parts send back to it are summed before its own backward.
//!
//! Nothing is approximated, since a prompt attends to nothing after it: its forward does not depend on the responses,
//! and all that they do to its gradients goes through its keys, its values and the last of its hidden states.

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::Kernels;
use kernels::attention::decode::PromptKv;
use kernels::attention::packed::{KvGradients, Packed};
use kernels::params::{Gradients, cast_to, to_f32};
use policy::{PackedBatch, Pictures, Prompt};

use crate::QwenVl;
use crate::decoder::DecoderSaved;
use crate::model::Tape;

/// What is kept of a prompt from one part of its group to the next.
pub struct SharedPrompt<B: Backend> {
    kv: PromptKv<B>,
    /// `[P, d]`
    hidden: Tensor<B, 2>,
}

/// The same in training.
pub struct TrainedPrompt<B: Backend> {
    shared: SharedPrompt<B>,
    batch: PackedBatch<B>,
    tape: Tape<B>,
    /// Sum of what the parts send back, `[P, d]` in f32.
    d_hidden: Tensor<B, 2>,
    d_kv: KvGradients<B>,
}

/// What the training forward of a part keeps.
pub struct PartTape<B: Backend>(DecoderSaved<B>);

impl<B: Kernels> QwenVl<B> {
    /// Computes a prompt for scoring its responses in parts.
    pub fn share(&self, prompt: &Prompt, image_embeds: Option<Tensor<B, 2>>) -> SharedPrompt<B> {
        let batch = PackedBatch::shared(&self.config, prompt, &self.device());
        let (hidden, kv) = self.prefill(&batch, image_embeds);
        SharedPrompt { kv, hidden }
    }

    /// Computes a prompt for training on its responses in parts; ends with [`backward_shared`](Self::backward_shared).
    pub fn share_saving(&self, prompt: &Prompt, pictures: Pictures<B>, recompute: bool) -> TrainedPrompt<B> {
        let batch = PackedBatch::shared(&self.config, prompt, &self.device());
        let mut kv = PromptKv::new();
        let (hidden, tape) = self.forward_keeping(&batch, pictures, recompute, Some(&mut kv));
        let d_hidden = Tensor::zeros(hidden.dims(), (&self.device(), DType::F32));
        let shared = SharedPrompt { kv, hidden };
        TrainedPrompt { shared, batch, tape, d_hidden, d_kv: KvGradients::default() }
    }

    /// Hidden states `[P + R, d]` of the prompt and of a [part](PackedBatch::part) of its responses.
    pub fn hidden_part(&self, shared: &SharedPrompt<B>, part: &PackedBatch<B>) -> Tensor<B, 2> {
        let mut packed = Packed { before: Some(&shared.kv), ..part.packed() };
        // Only the prompt has images, whose features its keys and values hold.
        let own = self.decoder.forward(self.embed(part, None).0, None, &mut packed);
        Tensor::cat(vec![shared.hidden.clone(), own], 0)
    }

    /// As [`hidden_part`](Self::hidden_part), with what the backward of the part needs.
    pub fn forward_saving_part(
        &self,
        prompt: &TrainedPrompt<B>,
        part: &PackedBatch<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, PartTape<B>) {
        let packed = Packed { before: Some(&prompt.shared.kv), ..self.packed(part) };
        let (own, saved) = self.decoder.forward_saving(self.embed(part, None).0, None, packed, recompute, None);
        (Tensor::cat(vec![prompt.shared.hidden.clone(), own], 0), PartTape(saved))
    }

    /// Adds the gradients of a part's own tokens for `d_hidden [P + R, d]`; the prompt's share waits in `prompt`.
    pub fn backward_part(
        &self,
        tape: PartTape<B>,
        prompt: &mut TrainedPrompt<B>,
        part: &PackedBatch<B>,
        d_hidden: Tensor<B, 2>,
        grads: &mut Gradients<B>,
    ) {
        let ([n, _], [p, _]) = (d_hidden.dims(), prompt.d_hidden.dims());
        prompt.d_hidden = prompt.d_hidden.clone().add(to_f32(d_hidden.clone().narrow(0, 0, p)));
        grads.set_adapters_only(self.adapters.is_some());
        let packed = Packed { before: Some(&prompt.shared.kv), ..self.packed(part) };
        let dx = self.decoder.backward(tape.0, packed, d_hidden.narrow(0, p, n - p), None, &mut prompt.d_kv, grads);
        self.decoder.embed_backward(part.ids.clone(), dx, grads);
    }

    /// Adds the prompt's gradients after all of its parts.
    pub fn backward_shared(&self, prompt: TrainedPrompt<B>, grads: &mut Gradients<B>) {
        let TrainedPrompt { shared, batch, tape, d_hidden, mut d_kv } = prompt;
        let d_hidden = cast_to(d_hidden, shared.hidden.dtype());
        drop(shared); // no part reads the keys and values any more
        self.backward_with(tape, &batch, d_hidden, &mut d_kv, grads);
    }
}
