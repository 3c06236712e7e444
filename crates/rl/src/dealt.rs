//! What the ranks of a run tell each other about rows and responses.
//!
//! *Records are everywhere, work is dealt out.* After rows are drawn and after responses are sampled, scored or graded,
//! every rank has the records of all of them: ids, log-probs, texts, scores, streams. So whatever is computed from
//! records (selection, advantages, shapings, mini-batches, metrics, the state in a checkpoint) is computed on every
//! rank from the same numbers in the same order, by code that knows no ranks. What a policy computes is dealt out: each
//! group has one rank that [holds](crate::prompts::Item::holder) its pictures and computes it. A response of 700 tokens
//! is 15 to 20 KB as a record; 512 x 8 of them are 80 MB a step.

use comm::{CommError, Ranks, deal};
use data::BadRow;
use kernels::Kernels;
use kernels::sampling::SAMPLED;
use kernels::zero::GRADIENTS;
use policy::Prompt;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::experience::Metrics;
use crate::learn::optimizer::PARAMETERS;
use crate::policy::Policy;
use crate::prompts::{Item, Prompts};
use crate::trajectory::{ScoredGroup, TokenStreams, Trajectory};

/// A row, or why it is set aside.
pub(crate) type DealtRow = Result<Item, BadRow>;

/// A row as it travels: everything but its pictures.
#[derive(Clone, Serialize, Deserialize)]
struct RowRecord {
    row: usize,
    id: String,
    problem: String,
    answer: String,
    solution: Option<Vec<u32>>,
    task: Option<String>,
    input_ids: Vec<u32>,
    position_ids: [Vec<i64>; 3],
    image_grid_thw: Vec<[usize; 3]>,
    whole_content: u64,
}

impl RowRecord {
    fn of(item: &Item) -> Self {
        Self {
            row: item.row,
            id: item.id.clone(),
            problem: item.problem.clone(),
            answer: item.answer.clone(),
            solution: item.solution.clone(),
            task: item.task.clone(),
            input_ids: item.prompt.input_ids.clone(),
            position_ids: item.prompt.position_ids.clone(),
            image_grid_thw: item.prompt.image_grid_thw.clone(),
            whole_content: item.whole_content(),
        }
    }

    fn item(self, holder: usize) -> Item {
        Item {
            row: self.row,
            id: self.id,
            problem: self.problem,
            answer: self.answer,
            solution: self.solution,
            task: self.task,
            columns: Default::default(),
            prompt: Prompt {
                input_ids: self.input_ids,
                position_ids: self.position_ids,
                pixel_values: Default::default(),
                image_grid_thw: self.image_grid_thw,
            },
            images: vec![],
            holder,
            known_content: Some(self.whole_content),
        }
    }
}

/// What all ranks made of `count` rows, in the order of the rows: `own` has this rank's with their places.
///
/// # Errors
/// A rank that is gone.
pub(crate) fn rows(ranks: &Ranks, own: Vec<(usize, DealtRow)>, count: usize) -> Result<Vec<DealtRow>, CommError> {
    if ranks.is_solo() {
        return Ok(own.into_iter().map(|(_, row)| row).collect());
    }
    type Told = Vec<(usize, Result<RowRecord, (String, usize, String)>)>;
    let record = |(place, row): &(usize, DealtRow)| match row {
        Ok(item) => (*place, Ok(RowRecord::of(item))),
        Err(bad) => (*place, Err((bad.id.clone(), bad.index, bad.reason.clone()))),
    };
    let told: Told = own.iter().map(record).collect();
    let mut all: Vec<Option<DealtRow>> = (0..count).map(|_| None).collect();
    for (rank, rows) in ranks.gather("rows", &told)?.into_iter().enumerate().filter(|(rank, _)| *rank != ranks.rank()) {
        for (place, row) in rows.into_iter().filter(|(place, _)| *place < count) {
            let bad = |(id, index, reason)| BadRow { id, index, reason };
            all[place] = Some(row.map(|record| record.item(rank)).map_err(bad));
        }
    }
    for (place, row) in own {
        let here = |item| Item { holder: ranks.rank(), ..item };
        all[place] = Some(row.map(here));
    }
    Ok(all.into_iter().flatten().collect())
}

/// The places of those of `items` that this rank holds.
pub(crate) fn held(ranks: &Ranks, items: &[Item]) -> Vec<usize> {
    (0..items.len()).filter(|&i| items[i].holder == ranks.rank()).collect()
}

/// The items at `places`, which ascend.
pub(crate) fn at(items: &[Item], places: &[usize]) -> Vec<Item> {
    places.iter().map(|&place| items[place].clone()).collect()
}

/// The groups of all `items`, in their order: `own` has this rank's, in the order of the items that it holds.
///
/// # Errors
/// A rank that is gone.
pub(crate) fn groups(ranks: &Ranks, items: Vec<Item>, own: Vec<ScoredGroup>) -> Result<Vec<ScoredGroup>, CommError> {
    if ranks.is_solo() {
        return Ok(own);
    }
    let told: Vec<(Vec<Trajectory>, Option<f64>)> =
        own.iter().map(|group| (group.trajectories.clone(), group.greedy)).collect();
    let mut told: Vec<_> = ranks.gather("responses", &told)?.into_iter().map(Vec::into_iter).collect();
    let mut own = own.into_iter();
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let record = told.get_mut(item.holder).and_then(Iterator::next);
        if item.holder == ranks.rank() {
            all.extend(own.next());
        } else if let Some((trajectories, greedy)) = record {
            all.push(ScoredGroup { item, trajectories, greedy, carried: false });
        }
    }
    Ok(all)
}

/// Lets `work` compute on the groups that this rank holds, and tells all ranks what it measured of their tokens.
///
/// # Errors
/// Those of `work`; a rank that is gone.
pub(crate) fn measured<T>(
    ranks: &Ranks,
    groups: &mut [ScoredGroup],
    work: impl FnOnce(&mut [ScoredGroup]) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    if ranks.is_solo() {
        return work(groups);
    }
    let held = |group: &&ScoredGroup| group.item.holder == ranks.rank();
    let mut own: Vec<ScoredGroup> = groups.iter().filter(held).cloned().collect();
    let done = work(&mut own)?;
    type Measured = Vec<Vec<(Vec<f32>, TokenStreams)>>;
    let of_group = |group: &ScoredGroup| {
        group.trajectories.iter().map(|t| (t.old_log_probs.clone(), t.streams.clone())).collect::<Vec<_>>()
    };
    let told: Measured = own.iter().map(of_group).collect();
    let mut told: Vec<_> = ranks.gather("streams", &told)?.into_iter().map(Vec::into_iter).collect();
    for group in groups.iter_mut() {
        let Some(record) = told.get_mut(group.item.holder).and_then(Iterator::next) else { continue };
        for (trajectory, (old, streams)) in std::iter::zip(&mut group.trajectories, record) {
            (trajectory.old_log_probs, trajectory.streams) = (old, streams);
        }
    }
    Ok(done)
}

/// Deals groups out that every rank has the pictures of.
pub(crate) fn take_turns(ranks: &Ranks, groups: &mut [ScoredGroup]) {
    for (place, group) in groups.iter_mut().enumerate() {
        group.item.holder = place % ranks.size();
        if group.item.holder != ranks.rank() {
            group.item.let_go();
        }
    }
}

/// Deals the groups of each optimizer step out by their tokens, `size` groups a step, and moves as few as possible from
/// the ranks that hold their pictures; those that came here are read again from the data.
///
/// # Errors
/// A row that cannot be read again.
pub(crate) fn place<B: Kernels, P: Policy<B>>(
    ranks: &Ranks,
    groups: &mut [ScoredGroup],
    size: usize,
    prompts: &Prompts,
    policy: &P,
) -> Result<(), TrainError> {
    if ranks.is_solo() {
        return Ok(());
    }
    for step in groups.chunks_mut(size.max(1)) {
        let tokens = |group: &ScoredGroup| {
            group.item.prompt.len() + group.trajectories.iter().map(|t| t.ids.len()).sum::<usize>()
        };
        let costs: Vec<usize> = step.iter().map(tokens).collect();
        let holders: Vec<usize> = step.iter().map(|group| group.item.holder).collect();
        let dealt = deal::rebalanced(&costs, &holders, ranks.size());
        for (group, holder) in std::iter::zip(step, dealt) {
            let item = &mut group.item;
            match (item.holder == ranks.rank(), holder == ranks.rank()) {
                (false, true) => prompts.fetch(item, policy)?,
                (true, false) => item.let_go(),
                _ => {}
            }
            item.holder = holder;
        }
    }
    Ok(())
}

/// What this rank has given to collective operations, and what of it was told before.
#[derive(Debug, Default)]
pub(crate) struct TrafficMeter {
    told: [u64; 5],
}

impl TrafficMeter {
    /// Metrics `comm/...` since the last time; none of a run on one device.
    pub(crate) fn metrics(&mut self, ranks: &Ranks) -> Metrics {
        if ranks.is_solo() {
            return Metrics::new();
        }
        let mut now = [0u64; 5];
        for (name, traffic) in ranks.traffic() {
            let kind = match name {
                GRADIENTS => 0,
                PARAMETERS => 1,
                SAMPLED => 2,
                _ => 3,
            };
            now[kind] += traffic.bytes;
            now[4] += traffic.calls;
        }
        let names =
            ["comm/gradient_bytes", "comm/parameter_bytes", "comm/sampled_bytes", "comm/record_bytes", "comm/calls"];
        let since = std::iter::zip(now, std::mem::replace(&mut self.told, now)).map(|(now, then)| (now - then) as f64);
        names.map(String::from).into_iter().zip(since).collect()
    }
}
