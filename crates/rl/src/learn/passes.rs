//! Cutting groups into passes of a bounded number of packed tokens.

use ::policy::Prompt;
use burn::tensor::{Int, Tensor};
use kernels::Kernels;
use kernels::host::int_tensor;

use crate::policy::PackGroup;

/// A prompt and its responses' token ids: the unit of work.
#[derive(Debug, Clone)]
pub struct GroupRef<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Responses, none empty.
    pub responses: Vec<&'a [u32]>,
}

/// Some responses of some groups: `(group, its responses)`, indices into the batch.
pub type MicroBatch = Vec<(usize, Vec<usize>)>;

/// What is computed together.
#[derive(Debug, Clone, PartialEq)]
pub enum Pass {
    /// Whole groups in one go.
    Together(MicroBatch),
    /// A group that does not fit: its prompt, and then its responses in parts.
    Parts(usize, Vec<Vec<usize>>),
}

impl Pass {
    /// Backward passes through the policy: one a part, and one for their prompt.
    pub(super) fn backwards(&self) -> usize {
        match self {
            Self::Together(_) => 1,
            Self::Parts(_, parts) => parts.len() + 1,
        }
    }
}

/// Cuts groups into passes of at most `budget` packed tokens at a time, each prompt computed once. A group that does
/// not fit is cut between responses; a single response is never cut. A part counts with its prompt, which is kept while
/// it is computed. With a budget of 0 each group is computed whole and by itself, so that its numbers do not depend on
/// its neighbours.
pub fn passes(groups: &[GroupRef], budget: usize) -> Vec<Pass> {
    if budget == 0 {
        let alone = |(g, group): (usize, &GroupRef)| Pass::Together(vec![(g, (0..group.responses.len()).collect())]);
        return groups.iter().enumerate().map(alone).collect();
    }
    let mut passes: Vec<Pass> = Vec::new();
    let mut current: MicroBatch = Vec::new();
    let mut tokens = 0;
    for (g, group) in groups.iter().enumerate() {
        let prompt = group.prompt.len();
        let whole = prompt + group.responses.iter().map(|r| r.len()).sum::<usize>();
        if tokens + whole > budget && !current.is_empty() {
            passes.push(Pass::Together(std::mem::take(&mut current)));
            tokens = 0;
        }
        if tokens + whole <= budget || group.responses.len() < 2 {
            current.push((g, (0..group.responses.len()).collect()));
            tokens += whole;
            continue;
        }
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut size = budget;
        for (i, response) in group.responses.iter().enumerate() {
            match parts.last_mut() {
                Some(part) if size + response.len() <= budget => part.push(i),
                _ => {
                    parts.push(vec![i]);
                    size = prompt;
                }
            }
            size += response.len();
        }
        passes.push(Pass::Parts(g, parts));
    }
    if !current.is_empty() {
        passes.push(Pass::Together(current));
    }
    passes
}

impl<'a> GroupRef<'a> {
    /// The token ids of some of its responses.
    pub(crate) fn some(&self, responses: &[usize]) -> Vec<&'a [u32]> {
        responses.iter().map(|&r| self.responses[r]).collect()
    }
}

/// The groups of a micro-batch as a policy packs them.
pub(super) fn pack<'a>(groups: &[GroupRef<'a>], batch: &MicroBatch) -> Vec<PackGroup<'a>> {
    batch.iter().map(|(g, responses)| (groups[*g].prompt, groups[*g].some(responses))).collect()
}

/// Token ids of the responses of a micro-batch, one after the other.
pub(super) fn targets<B: Kernels>(groups: &[GroupRef], micro: &MicroBatch, device: &B::Device) -> Tensor<B, 1, Int> {
    let responses = micro.iter().flat_map(|(g, rs)| rs.iter().map(|&r| groups[*g].responses[r]));
    int_tensor(responses.flatten().map(|&id| id as usize), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(len: usize) -> Prompt {
        Prompt {
            input_ids: vec![7; len],
            position_ids: Default::default(),
            pixel_values: Default::default(),
            image_grid_thw: vec![],
        }
    }

    #[test]
    fn passes_hold_every_response_and_every_prompt_once() {
        let (p, q) = (prompt(10), prompt(3));
        let ids = [1u32; 50];
        let group = |p, lens: &[usize]| GroupRef { prompt: p, responses: lens.iter().map(|&l| &ids[..l]).collect() };
        let groups = vec![group(&p, &[5, 6, 7]), group(&q, &[1]), group(&p, &[20, 20, 20]), group(&q, &[2, 2])];
        for budget in [1, 12, 35, 60, 1000] {
            let mut seen = Vec::new();
            let mut prompts = Vec::new();
            for pass in passes(&groups, budget) {
                let parts: Vec<MicroBatch> = match pass {
                    Pass::Together(micro) => {
                        prompts.extend(micro.iter().map(|(g, _)| *g));
                        vec![micro]
                    }
                    Pass::Parts(g, parts) => {
                        assert!(parts.len() > 1, "{budget}: {parts:?}");
                        prompts.push(g);
                        parts.into_iter().map(|part| vec![(g, part)]).collect()
                    }
                };
                for micro in parts {
                    let sizes = micro.iter().map(|(g, rs)| {
                        let responses: usize = rs.iter().map(|&r| groups[*g].responses[r].len()).sum();
                        groups[*g].prompt.len() + responses
                    });
                    let responses: usize = micro.iter().map(|(_, rs)| rs.len()).sum();
                    assert!(sizes.sum::<usize>() <= budget || responses == 1, "{budget}: {micro:?}");
                    seen.extend(micro.iter().flat_map(|(g, rs)| rs.iter().map(move |r| (*g, *r))));
                }
            }
            assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]);
            assert_eq!(prompts, [0, 1, 2, 3], "{budget}");
        }
        assert_eq!(passes(&groups, 1000).len(), 1);
    }
}
