//! `[trainer]`: how long, how often, where.

use std::path::{Path, PathBuf};

use super::field::choice;
use super::section::section;

choice! {
    /// The device library.
    pub enum Backend {
        /// The fastest one that was compiled in and finds a device.
        Auto = "auto",
        /// CPU.
        Flex = "flex",
        /// CPU, the reference.
        Ndarray = "ndarray",
        /// Metal, DX12, Vulkan or WebGPU.
        Wgpu = "wgpu",
        /// Vulkan.
        Vulkan = "vulkan",
        /// NVIDIA.
        Cuda = "cuda",
    }
}

choice! {
    /// Number format of weights and activations.
    pub enum Dtype {
        /// bf16 where the backend computes in it, else f32.
        Auto = "auto",
        /// 32 bits.
        F32 = "f32",
        /// 16 bits with the range of 32.
        Bf16 = "bf16",
    }
}

choice! {
    /// What a checkpoint has of the model.
    pub enum SaveFormat {
        /// The adapter where adapters learn, else the weights.
        Auto = "auto",
        /// The adapter, as PEFT has it.
        Adapter = "adapter",
        /// The weights, with the adapter merged into them.
        Merged = "merged",
        /// Both.
        Both = "both",
    }
}

section! {
    /// Length of the run, validation, checkpoints, device.
    pub struct TrainerSection {
        /// Folder of the run: config.toml, metrics.jsonl, rollouts/ and checkpoints/.
        output_dir: String = String::from("runs/default"),
        /// A name for the run; where it is given the run folder is a folder of this name in `output_dir`.
        experiment_name: String = String::new(),
        /// Passes over the training data.
        total_epochs: usize = 1 => 0..=1_000_000,
        /// Training steps, however many epochs that makes. 0: as `total_epochs` says.
        max_steps: usize = 0 => 0..=1_000_000_000_000,
        /// With `algorithm.online_filtering`: rounds of generation for one batch. After them a batch that is not
        /// full is trained on as it is, and an empty one is a step without an update, both with a warning. 0: no
        /// limit.
        max_try_make_batch: usize = 20 => 0..=1_000_000,
        /// Validate each so many steps. 0: only where `val_before_train` says and at the end.
        val_freq: usize = 0 => 0..=1_000_000_000_000,
        /// Validate before the first step.
        val_before_train: bool = true,
        /// Validation responses that are kept in full in each validation.
        val_generations_to_log: usize = 3 => 0..=1_048_576,
        /// Checkpoint each so many steps. 0: only at the end and when interrupted.
        save_freq: usize = 0 => 0..=1_000_000_000_000,
        /// Checkpoints kept, the newest. 0: all.
        save_limit: usize = 3 => 0..=1_000_000,
        /// What is in a checkpoint's `hf/`: the "adapter" alone, as PEFT has it, or the weights with the adapter
        /// "merged" into them; then a folder `adapter/` beside it has what a run goes on from, and with "both" it is a
        /// whole folder of PEFT, with tokenizer and processor. "auto": "adapter" with `model.lora.enable`; else there
        /// are the weights.
        save: SaveFormat = SaveFormat::Auto,
        /// Write checkpoints in a thread while training goes on; the next one waits for it, and so does the end of the
        /// run. Until it is written, a GPU's weights and optimizer state are in the host's memory (of several ranks
        /// each has its share), on the CPU twice where training has changed them. `false`: training waits, and one
        /// tensor at a time is in the host's memory; of several ranks the share of each is there either way.
        save_async: bool = true,
        /// "auto": go on from the newest checkpoint in the run folder that can be read, where there is one. "none":
        /// start anew. Otherwise the folder of a checkpoint.
        resume: String = String::from("auto"),
        /// Seed of sampling and of masks.
        seed: u64 = 1 => 0..=i64::MAX as u64,
        /// The device library; "auto" takes the fastest that was compiled in.
        backend: Backend = Backend::Auto,
        /// Number format of weights and activations; "auto" is bf16 where the backend computes in it.
        dtype: Dtype = Dtype::Auto,
        /// Check what the device computes: on a GPU the short form of `doctor` before the run, which refuses to go on
        /// when a value is wrong, and on every backend a number in each optimizer step that shows lost work.
        check_device: bool = true,
        /// Write every sampled response to rollouts/step_N.jsonl.
        log_rollouts: bool = true,
        /// Groups of a step of which every token is kept, with its log-prob, advantage, factor and streams, in
        /// tokens/step_N.jsonl, and their pictures in pictures/: the first ones whose pictures the first rank has. 0:
        /// nothing is.
        log_tokens: usize = 2 => 0..=1_048_576,
        /// For those groups, each so many steps and in the first: the cosine of each response token to each image
        /// token, which takes one more forward pass over the groups. 0: never.
        log_heat_freq: usize = 10 => 0..=1_000_000_000_000,
        /// The most MiB of tokens/ and pictures/ together: where there is more, every second step of the older half is
        /// removed, as often as it takes.
        log_tokens_mib: usize = 256 => 1..=1_048_576,
    }
}

/// Where a run starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The newest checkpoint of the run folder, or the beginning.
    Auto,
    /// The beginning.
    None,
    /// This checkpoint.
    From(PathBuf),
}

impl TrainerSection {
    /// `output_dir`, with `experiment_name` as a folder in it where one is given.
    pub fn run_dir(&self) -> PathBuf {
        // Joining an empty name would add a trailing separator.
        if self.experiment_name.is_empty() {
            PathBuf::from(&self.output_dir)
        } else {
            Path::new(&self.output_dir).join(&self.experiment_name)
        }
    }

    /// `resume`, read.
    pub fn resume(&self) -> Resume {
        match self.resume.as_str() {
            "auto" | "" => Resume::Auto,
            "none" => Resume::None,
            folder => Resume::From(PathBuf::from(folder)),
        }
    }
}
