//! What is laid beside the CPU backend on wgpu only: attention as a whole.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use kernels::{AttentionPlan, Kernels, ResponseRows};

type B = burn_wgpu::Wgpu<f32, i32>;

fn values<B: Backend, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Attention over a shared prompt with its gradients, beside the CPU's (which finite differences check).
#[test]
fn attention_matches_on_wgpu() {
    fn run<B: Kernels>() -> Vec<Vec<f32>> {
        let device = Default::default();
        let (heads, kv_heads, hd, rows) = (4, 2, 16, 30);
        let wave = |seed: f32, h: usize| {
            let data: Vec<f32> = (0..rows * h * hd).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
            Tensor::<B, 3>::from_data(TensorData::new(data, [rows, h, hd]), &device)
        };
        // Two prompts of 7 and 5 tokens; three responses of 4, 6 and 1, and one of 7.
        let prompts = [0..7, 18..23];
        let response = |rows, prompt| ResponseRows { rows, prompt };
        let responses = [response(7..11, 0), response(11..17, 0), response(17..18, 0), response(23..30, 1)];
        let plan = AttentionPlan::<B>::causal(&prompts, &responses, &device);
        let (q, k, v, d_o) = (wave(0.1, heads), wave(0.2, kv_heads), wave(0.3, kv_heads), wave(0.4, heads));
        let (o, saved) = B::packed_attention(q.clone(), k.clone(), v.clone(), &plan);
        let grads = B::packed_attention_backward([q, k, v], o.clone(), &saved, d_o, &plan);
        std::iter::once(o).chain(grads).map(values).collect()
    }
    let (gpu, cpu) = (run::<B>(), run::<burn_flex::Flex<f32, i32>>());
    assert_eq!((gpu.len(), cpu.len()), (4, 4));
    for (name, (gpu, cpu)) in ["o", "dq", "dk", "dv"].iter().zip(gpu.iter().zip(&cpu)) {
        let gap = largest_difference(gpu, cpu);
        println!("{name} {gap:.1e}");
        assert!(gap < 2e-5, "{name}: {gap:.1e}");
    }
}
