//! What is checked, one subject per file.

mod attention;
mod decoding;
mod elements;
mod focus;
mod head;
mod layers;
pub(crate) mod memory;
mod model;
mod norms;
mod products;
mod speed;

use kernels::Kernels;

use crate::NamedCheck;

/// The operations of [`Kernels`], each beside its plain default on the CPU; `tests` asks that none is left out.
fn operations<B: Kernels>() -> impl Iterator<Item = NamedCheck<B>> {
    let checks: Vec<NamedCheck<B>> = vec![
        ("affine", elements::affine),
        ("rms_norm", norms::rms_norm),
        ("layer_norm", norms::layer_norm),
        ("activate", elements::activate),
        ("add_rows", elements::add_rows),
        ("take_rows", elements::take_rows),
        ("rotate", elements::rotate),
        ("rotate_qkv", elements::rotate_qkv),
        ("swiglu", elements::swiglu),
        ("packed_attention", attention::packed),
        ("decode_attention", attention::decode),
        ("decode_heads", attention::decode_heads),
        ("log_probs", head::log_probs),
        ("kl_divergence", head::kl_divergence),
        ("sample", head::sample),
        ("adamw", elements::adamw),
        ("accumulate", elements::sums),
        ("visual_focus", focus::visual_focus),
    ];
    checks.into_iter()
}

/// Everything.
pub(crate) fn long<B: Kernels>() -> impl Iterator<Item = NamedCheck<B>> {
    let first: [NamedCheck<B>; 1] = [("products", products::products)];
    let last: [NamedCheck<B>; 3] =
        [("layers", layers::layers), ("decoding", decoding::decoding), ("speed", speed::speed)];
    first.into_iter().chain(operations()).chain(last)
}

/// What takes seconds.
pub(crate) fn short<B: Kernels>() -> impl Iterator<Item = NamedCheck<B>> {
    let first: [NamedCheck<B>; 1] = [("products", products::products)];
    first.into_iter().chain(operations())
}

#[cfg(test)]
mod tests {
    /// An operation that is new in `Kernels` has to be compared with its default here.
    #[test]
    fn no_operation_is_left_out() {
        let no_values =
            ["device_memory", "free_memory", "persistent", "release_uploads", "refused_launch", "logits_at_once"];
        // They take several ranks, and are looked at by `train --check-devices`.
        let collectives = ["reduce_scatter", "begin_reduce_scatter", "all_reduce", "all_gather"];
        let declared = include_str!("../../../kernels/src/ops/mod.rs");
        let (_, body) = declared.split_once("pub trait Kernels").expect("the trait");
        let (body, _) = body.split_once("\n}\n").expect("its end");
        let checks = [
            include_str!("attention.rs"),
            include_str!("elements.rs"),
            include_str!("focus.rs"),
            include_str!("head.rs"),
            include_str!("norms.rs"),
            include_str!("../product.rs"),
        ]
        .concat();
        let names = body
            .lines()
            .filter_map(|line| line.strip_prefix("    fn "))
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a name"));
        let missing: Vec<&str> = names
            .filter(|name| !no_values.contains(name) && !collectives.contains(name))
            .filter(|name| !["B::", "Kernels>::"].iter().any(|of| checks.contains(&format!("{of}{name}("))))
            .collect();
        assert!(missing.is_empty(), "operations of Kernels that the doctor does not look at: {missing:?}");
    }
}
