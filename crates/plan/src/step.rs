//! What a rank computes in a step, part by part: from the configuration, the architecture and the number of ranks.

use rl::TrainError;
use rl::config::{Config, SftStage};
use rl::recipe::Recipe;

use crate::parameters::CountedOn;
use crate::speed::{CountedWork, DeviceSpeeds, Seconds, WorkKind};
use crate::work::{GroupSize, decode_bytes, decoder_flops, optimizer_bytes, tower_flops};
use crate::{MemoryPlan, ModelShapes, RankGrid, ZeroStage, cache};

/// Launches of a decoded token: for each layer, and beside the layers (docs/architecture.md).
const LAUNCHES: [f64; 2] = [10.0, 4.0];

/// Tokens of a step's rows, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepLengths {
    /// Of a prompt, those of its picture included.
    pub prompt: f64,
    /// Image tokens among them; they are taken to be one picture.
    pub image: f64,
    /// Of a response; in a supervised stage of a worked one.
    pub response: f64,
}

impl StepLengths {
    /// The longest that a run lets them be.
    pub fn longest(run: &Config, shapes: &ModelShapes) -> Self {
        Self {
            prompt: run.data.max_prompt_length as f64,
            image: cache::picture(run, shapes) as f64,
            response: run.data.max_response_length as f64,
        }
    }
}

/// A part of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPart {
    /// What it is, in words.
    pub name: &'static str,
    /// What it asks of the device of one rank.
    pub work: CountedWork,
}

/// A step of one rank; all ranks do it at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct StepWork {
    /// In the order of the step.
    pub parts: Vec<StepPart>,
    /// Tokens of responses that all ranks learn from.
    pub tokens: f64,
}

impl StepWork {
    /// Seconds of all parts, one after the other: nothing is taken to hide behind anything else.
    pub fn seconds(&self, speeds: &DeviceSpeeds) -> Seconds {
        self.parts.iter().fold(Seconds::default(), |sum, part| sum + speeds.seconds(&part.work))
    }
}

/// A rank that is asked what it does.
struct RankStep<'a> {
    run: &'a Config,
    shapes: &'a ModelShapes,
    grid: RankGrid,
    plan: &'a MemoryPlan,
    /// What is learned from: prompts of one rank.
    groups: f64,
    group: GroupSize,
    /// Patches of a prompt's picture.
    patches: f64,
    parts: Vec<StepPart>,
}

/// A step of reinforcement learning of a rank of `grid` that holds `plan`.
///
/// # Errors
/// A configuration that names no algorithm.
pub fn rl_step(
    run: &Config,
    shapes: &ModelShapes,
    grid: RankGrid,
    plan: &MemoryPlan,
    lengths: &StepLengths,
) -> Result<StepWork, TrainError> {
    let prompts = run.data.rollout_batch_size;
    let n = run.rollout.n as f64;
    let mut step = RankStep::new((run, shapes, grid, plan), prompts, n, lengths);
    let sampled = if run.algorithm.needs_greedy() { n + 1.0 } else { n };
    step.sampling(sampled);
    step.scoring(&Recipe::<CountedOn>::new(run)?);
    step.learning(run.actor.ppo_epochs as f64, run.optimizer_steps(prompts) as f64);
    Ok(StepWork { parts: step.parts, tokens: prompts as f64 * n * lengths.response })
}

/// The same of a supervised step.
pub fn sft_step(
    run: &Config,
    stage: &SftStage,
    (shapes, grid, plan): (&ModelShapes, RankGrid, &MemoryPlan),
    lengths: &StepLengths,
) -> StepWork {
    let mut step = RankStep::new((run, shapes, grid, plan), stage.batch_size, 1.0, lengths);
    step.learning(1.0, 1.0);
    StepWork { parts: step.parts, tokens: stage.batch_size as f64 * lengths.response }
}

impl<'a> RankStep<'a> {
    fn new(
        (run, shapes, grid, plan): (&'a Config, &'a ModelShapes, RankGrid, &'a MemoryPlan),
        prompts: usize,
        responses: f64,
        lengths: &StepLengths,
    ) -> Self {
        let group = GroupSize { prompt: lengths.prompt, responses, response: lengths.response };
        let patches = lengths.image * shapes.architecture().vision.merge_unit() as f64;
        let groups = prompts.div_ceil(grid.data) as f64;
        Self { run, shapes, grid, plan, groups, group, patches, parts: vec![] }
    }

    fn add(&mut self, name: &'static str, work: CountedWork) {
        if work != CountedWork::none(work.kind) {
            self.parts.push(StepPart { name, work });
        }
    }

    fn tensor(&self) -> f64 {
        self.grid.tensor as f64
    }

    fn width(&self) -> usize {
        self.shapes.dtype.size()
    }

    /// Operations of a rank for a pass of the decoder, and for one of the tower, over the pictures that are dealt out
    /// to it.
    fn pass(&self) -> [f64; 2] {
        let architecture = self.shapes.architecture();
        let picture = if self.patches > 0.0 { tower_flops(architecture, self.patches) } else { 0.0 };
        [decoder_flops(architecture, &self.group), picture].map(|flops| self.groups * flops / self.tensor())
    }

    fn sampling(&mut self, responses: f64) {
        let architecture = self.shapes.architecture();
        let [_, tower] = self.pass();
        self.add("vision tower", CountedWork { flops: tower, ..CountedWork::none(WorkKind::Vision) });
        let sampled = GroupSize { responses, ..self.group };
        let prompt = decoder_flops(architecture, &GroupSize { responses: 0.0, ..sampled });
        let all = decoder_flops(architecture, &sampled);
        let share = self.groups / self.tensor();
        self.add("prefill", CountedWork { flops: share * prompt, ..CountedWork::none(WorkKind::Prefill) });
        let rounds = (self.groups * responses / self.plan.rows as f64).max(1.0);
        let layers = architecture.text.num_hidden_layers as f64;
        let bytes = decode_bytes(architecture, &sampled, [self.groups, rounds], self.width()) / self.tensor();
        self.add(
            "decoding",
            CountedWork {
                flops: share * (all - prompt),
                bytes,
                launches: rounds * sampled.response * (LAUNCHES[0] * layers + LAUNCHES[1]),
                ..CountedWork::none(WorkKind::Decode)
            },
        );
        let tokens = self.groups * (sampled.prompt + responses * sampled.response);
        self.add("sums over the ranks of a copy, sampling", self.sums(tokens, 1.0));
    }

    fn scoring(&mut self, recipe: &Recipe<CountedOn>) {
        let passes = recipe.scoring_passes(self.run);
        let [decoder, tower] = self.pass();
        let flops = passes.decoder * decoder + passes.tower * tower;
        self.add("scoring, log-probs and streams", CountedWork { flops, ..CountedWork::none(WorkKind::Score) });
        let tokens = self.groups * self.packed();
        self.add("sums over the ranks of a copy, scoring", self.sums(tokens, passes.decoder));
    }

    /// Tokens of a group.
    fn packed(&self) -> f64 {
        self.group.prompt + self.group.responses * self.group.response
    }

    /// What the ranks of a copy sum: in each layer twice of every token, in so many passes.
    fn sums(&self, tokens: f64, passes: f64) -> CountedWork {
        let text = &self.shapes.architecture().text;
        let values = 2.0 * (text.num_hidden_layers * text.hidden_size) as f64 * tokens * passes;
        CountedWork {
            local: all_reduced(self.tensor()) * values * self.width() as f64,
            ..CountedWork::none(WorkKind::Link)
        }
    }

    /// `epochs` passes over the groups, in `updates` optimizer steps.
    fn learning(&mut self, epochs: f64, updates: f64) {
        let trains_vision = !self.plan.images.1;
        let [decoder, tower] = self.pass();
        let again = f64::from(u8::from(self.plan.recompute));
        // Forward, and backward to the inputs; to the weights, too, where they learn.
        let adapters = self.shapes.has_adapters();
        let passes = again + if adapters { 2.0 } else { 3.0 };
        let tower = if trains_vision { tower * passes } else { 0.0 };
        let flops = epochs * (decoder * passes + tower);
        self.add("update: forward and backward", CountedWork { flops, ..CountedWork::none(WorkKind::Update) });
        // Of a layer that is computed again one sum is not.
        let sums = self.sums(self.groups * self.packed(), epochs * (2.0 + again / 2.0));
        self.add("sums over the ranks of a copy, update", sums);

        let grid = self.grid;
        let learned = match adapters {
            true => self.shapes.adapters_of_rank(grid),
            false => self.shapes.of_rank(grid, !trains_vision),
        } as f64;
        let packed = epochs * self.groups * self.packed();
        let backwards = (packed / self.run.actor.micro_batch_tokens as f64).ceil().max(updates);
        let mut exchanged = match self.plan.zero {
            ZeroStage::Off => CountedWork::none(WorkKind::Link),
            // Parts are summed in every pass inside of a machine, and once a step between machines.
            ZeroStage::Two => self.exchange(4.0 * learned, [backwards, updates]),
            ZeroStage::One => self.exchange(2.0 * 4.0 * learned, [updates, updates]),
        };
        let gathered = self.exchange(self.width() as f64 * learned, [updates, updates]);
        (exchanged.local, exchanged.network) = (exchanged.local + gathered.local, exchanged.network + gathered.network);
        self.add("gradients and weights between copies", exchanged);

        let own = if self.plan.zero == ZeroStage::Off { learned } else { learned / grid.data as f64 };
        let bytes = updates * own * optimizer_bytes(&self.run.actor.optim, self.width());
        self.add("optimizer", CountedWork { bytes, ..CountedWork::none(WorkKind::Optimizer) });
    }

    /// A reduce-scatter or all-gather of `bytes` over the copies, so often inside of machines and between them.
    fn exchange(&self, bytes: f64, [inside, between]: [f64; 2]) -> CountedWork {
        let copies = self.grid.data as f64;
        let here = self.grid.together() as f64;
        let machines = (copies / here).max(1.0);
        let part = |ranks: f64| (ranks - 1.0) / ranks;
        CountedWork {
            local: inside * bytes * part(here),
            network: between * bytes / here * part(machines),
            ..CountedWork::none(WorkKind::Link)
        }
    }
}

/// Bytes that a rank of `ranks` sends for each byte of an all-reduce.
fn all_reduced(ranks: f64) -> f64 {
    2.0 * (ranks - 1.0) / ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;
    use model_qwen2vl::QwenVlConfig;
    use rl::config::OldLogProbs;

    fn of(run: &Config, grid: RankGrid) -> StepWork {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        let zero = if grid.data > 1 { ZeroStage::Two } else { ZeroStage::Off };
        let plan = MemoryPlan::new(run, &shapes, grid, zero, 80 << 30).unwrap();
        rl_step(run, &shapes, grid, &plan, &StepLengths { prompt: 1500.0, image: 1200.0, response: 700.0 }).unwrap()
    }

    fn part<'a>(step: &'a StepWork, name: &str) -> Option<&'a CountedWork> {
        step.parts.iter().find(|part| part.name.starts_with(name)).map(|part| &part.work)
    }

    const EIGHT: RankGrid = RankGrid { data: 8, tensor: 1 };

    #[test]
    fn ranks_share_the_work_and_talk() {
        let mut run = Config::default();
        run.rollout.n = 8;
        let [one, eight] = [RankGrid::ALONE, EIGHT].map(|grid| of(&run, grid));
        let flops = |step: &StepWork| step.parts.iter().map(|part| part.work.flops).sum::<f64>();
        assert!((flops(&one) / flops(&eight) - 8.0).abs() < 1e-9);
        assert_eq!(one.tokens, eight.tokens);
        assert!(part(&one, "gradients").is_none());
        let said = part(&eight, "gradients").unwrap();
        assert!(said.local > 0.0 && said.network == 0.0, "one machine");
        let many = of(&run, RankGrid { data: 32, tensor: 1 });
        assert!(part(&many, "gradients").unwrap().network > 0.0);
        let shared = of(&run, RankGrid { data: 2, tensor: 4 });
        for name in ["prefill", "decoding", "scoring", "update", "vision"] {
            let [a, b] = [&shared, &eight].map(|step| part(step, name).unwrap().flops);
            assert!((a / b - 1.0).abs() < 1e-9, "{name}: {a} and {b}");
        }
        assert!(part(&shared, "sums over the ranks of a copy, update").unwrap().local > 0.0);
    }

    /// What an algorithm does not ask for is not counted.
    #[test]
    fn passes_are_those_of_the_recipe() {
        let mut run = Config::default();
        let scored = of(&run, EIGHT);
        run.actor.old_log_probs = OldLogProbs::Rollout;
        assert!(part(&of(&run, EIGHT), "scoring").is_none());
        run.actor.old_log_probs = OldLogProbs::Recompute;
        run.algorithm.disable_kl = false;
        run.algorithm.use_kl_loss = true;
        let referred = of(&run, EIGHT);
        let score = |step: &StepWork| part(step, "scoring").unwrap().flops;
        assert!(score(&referred) > 2.0 * score(&scored), "a pass of the reference policy, and its tower");
        let update = |step: &StepWork| part(step, "update").unwrap().flops;
        assert!(update(&scored) > 3.9 * score(&scored), "forward again, forward and backward, with the tower");
    }

    /// Seconds of an H100 by its data sheet: within the range of the arithmetic of bench/scaling.py.
    #[test]
    fn seven_billion_on_eight_cards() {
        let mut run = Config::default();
        (run.rollout.n, run.data.rollout_batch_size) = (8, 512);
        let sheet = crate::DataSheet::find("h100").unwrap();
        let seconds = of(&run, EIGHT).seconds(&DeviceSpeeds::of_sheet(sheet, DType::BF16));
        assert!(seconds.least < seconds.expected && seconds.expected < seconds.most);
        assert!(seconds.expected > 60.0 && seconds.expected < 400.0, "{seconds:?}");
    }
}
