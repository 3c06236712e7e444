//! `worker`: actor, rollout, reference, reward, critic.

use super::keys;
use crate::table::{Fate::*, KeyEntry};

const OVERWRITTEN: &str = "EasyR1 itself overwrites it";
const LAYOUT: &str = "how EasyR1 lays weights out over devices; parallel.* does that here, and --dry-run counts it";
const VLLM: &str = "a setting of vLLM; responses are sampled with the trained weights themselves here";
const MICRO: &str = "it bounds memory and changes no result; actor.micro_batch_tokens does that here";
const DTYPES: &[&str] = &["actor.optim.moments_dtype", "actor.optim.master_weights"];

pub(crate) const WORKER: &[KeyEntry] = keys! {
    "hybrid_engine": Bool = "true" => Ignored("sampler and trainer always share the devices");
};

pub(crate) const ACTOR: &[KeyEntry] = keys! {
    "strategy": Text = "fsdp" => Ignored(LAYOUT);
    "global_batch_size": Int = "256" => Same("actor.global_batch_size");
    "micro_batch_size_per_device_for_update": Int = "4" => Ignored(MICRO);
    "micro_batch_size_per_device_for_experience": Int = "16" => Ignored(MICRO);
    "max_grad_norm": Number = "1.0" => Same("actor.max_grad_norm");
    "clip_ratio_low": Number = "0.2" => Same("actor.clip_ratio_low");
    "clip_ratio_high": Number = "0.3" => Same("actor.clip_ratio_high");
    "clip_ratio_dual": Number = "3.0" => Derived(&["actor.clip_ratio_dual"],
        "left out for cispo and sapo, which do not read it");
    "loss_avg_mode": Text = "token" => Derived(&["actor.loss_avg_mode"], "token or seq; PAPO has it under algorithm");
    "loss_type": Text = "default" => Derived(&["actor.loss_type"],
        "default is \"ppo\"; gspo, gspo_token, cispo, sapo have the same names");
    "ppo_epochs": Int = "1" => Same("actor.ppo_epochs");
    "padding_free": Bool = "true" => Ignored("batches are always packed without padding");
    "dynamic_batching": Bool = "true" => Ignored("passes are always cut by tokens");
    "ulysses_size": Int = "1" => Ignored("there is no sequence parallelism; parallel.tensor shares a model out");
    "use_torch_compile": Bool = "true" => Ignored("there is no PyTorch here");
    "tau_positive": Number = "1.0" => Same("algorithm.sapo.tau_positive");
    "tau_negative": Number = "1.05" => Same("algorithm.sapo.tau_negative");
    "global_batch_size_per_device": Int = "-1" => Ignored(OVERWRITTEN);
    "disable_kl": Bool = "false" => Ignored(OVERWRITTEN);
    "use_kl_loss": Bool = "false" => Ignored(OVERWRITTEN);
    "kl_penalty": Text = "kl" => Ignored(OVERWRITTEN);
    "kl_coef": Number = "0.0" => Ignored(OVERWRITTEN);
};

pub(crate) const MODEL: &[KeyEntry] = keys! {
    "model_path": TextOrNull = "null" => Derived(&["model.path"], "it must be given");
    "tokenizer_path": TextOrNull = "null" => Only(&["null"],
        "the tokenizer is the model folder's; put its files there and leave the key out");
    "override_config": Dict = "{}" => Only(&["{}"], "the architecture is config.json's in the model folder; change it there");
    "enable_gradient_checkpointing": Bool = "true" => Derived(&["actor.recompute"],
        "true is \"auto\", which recomputes where memory asks for it, false is \"never\"");
    "trust_remote_code": Bool = "true" => Ignored("no code of a model folder is run");
    "freeze_vision_tower": Bool = "false" => Same("model.freeze_vision_tower");
};

pub(crate) const LORA: &[KeyEntry] = keys! {
    "rank": Int = "0" => Derived(&["model.lora.enable", "model.lora.rank"], "0 is enable = false");
    "alpha": Int = "64" => Derived(&["model.lora.alpha"], "where rank is above 0");
    "target_modules": Text = "all-linear" => Derived(&["model.lora.target_modules"],
        "names with commas between them become a list");
    "exclude_modules": TextOrNull = "null" => Derived(&["model.lora.exclude_modules"], "null is none");
};

pub(crate) const OPTIM: &[KeyEntry] = keys! {
    "lr": Number = "1e-6" => Same("actor.optim.lr");
    "betas": Pair = "[0.9, 0.999]" => Same("actor.optim.betas");
    "weight_decay": Number = "1e-2" => Derived(&["actor.optim.weight_decay"],
        "on matrices; EasyR1 decays norms and biases, too");
    "strategy": Text = "adamw" => Derived(DTYPES,
        "adamw_bf16 has moments in bf16 and keeps what bf16 weights lose in a second bf16 number, which is what \
         master_weights does");
    "lr_warmup_ratio": Number = "0.0" => Derived(&["actor.optim.lr_warmup_ratio"], "not where lr_warmup_steps is given");
    "lr_warmup_steps": IntOrNull = "null" => Derived(&["actor.optim.lr_warmup_steps"],
        "EasyR1 counts training steps, here they are optimizer steps: times those of a training step");
    "min_lr_ratio": NumberOrNull = "null" => Derived(&["actor.optim.min_lr_ratio"],
        "null is 0; read for a cosine alone, as there");
    "lr_scheduler_type": Text = "constant" => Same("actor.optim.lr_scheduler_type");
    "training_steps": Int = "-1" => Ignored(OVERWRITTEN);
};

pub(crate) const FSDP: &[KeyEntry] = keys! {
    "enable_full_shard": Bool = "true" => Ignored(LAYOUT);
    "enable_cpu_offload": Bool = "false" => Ignored("nothing is moved to the host's memory and back");
    "enable_rank0_init": Bool = "true" => Ignored(LAYOUT);
    "use_orig_params": Bool = "false" => Ignored(LAYOUT);
    "torch_dtype": TextOrNull = "null" => Derived(&["actor.optim.master_weights", "actor.optim.grads_dtype"],
        "null and fp32 keep weights in 32 bits; bf16 keeps gradients in 16, and weights, too, where the optimizer is \
         plain adamw");
    "fsdp_size": Int = "-1" => Ignored(LAYOUT);
    "mp_param_dtype": Text = "bf16" => Derived(&["trainer.dtype"],
        "bf16 is \"auto\", fp32 is \"f32\"; fp16 is refused: its range is too small");
    "mp_reduce_dtype": Text = "fp32" => Ignored("gradients of devices are always summed in 32 bits");
    "mp_buffer_dtype": Text = "fp32" => Ignored("positions and norms are always computed in 32 bits");
};

pub(crate) const OFFLOAD: &[KeyEntry] = keys! {
    "offload_params": Bool = "false" => Ignored("nothing is moved to the host's memory and back; --dry-run says what fits");
    "offload_optimizer": Bool = "false" => Ignored("nothing is moved to the host's memory and back; --dry-run says what fits");
};

pub(crate) const ROLLOUT: &[KeyEntry] = keys! {
    "name": Text = "vllm" => Ignored(VLLM);
    "n": Int = "1" => Same("rollout.n");
    "temperature": Number = "1.0" => Same("rollout.temperature");
    "top_p": Number = "1.0" => Same("rollout.top_p");
    "top_k": Int = "-1" => Only(&["-1"], "there is no top-k; use top_p");
    "seed": Int = "1" => Derived(&["trainer.seed"], "the same number, other draws");
    "limit_images": Int = "0" => Ignored("a prompt may have any number of pictures");
    "dtype": Text = "bf16" => Ignored(VLLM);
    "gpu_memory_utilization": Number = "0.6" => Ignored(VLLM);
    "ignore_eos": Bool = "false" => Only(&["false"], "a response ends at the model's end token; set it to false");
    "enforce_eager": Bool = "false" => Ignored(VLLM);
    "enable_chunked_prefill": Bool = "false" => Ignored(VLLM);
    "tensor_parallel_size": Int = "2" => Ignored("a setting of vLLM; parallel.tensor shares a model out over devices");
    "max_model_len": IntOrNull = "null" => Ignored(VLLM);
    "max_num_batched_tokens": Int = "8192" => Ignored(VLLM);
    "disable_log_stats": Bool = "true" => Ignored(VLLM);
    "disable_tqdm": Bool = "false" => Ignored(VLLM);
    "val_override_config": Dict = "{}" => Derived(&["rollout.val_temperature", "rollout.val_top_p", "rollout.val_n"],
        "temperature, top_p and n; without them validation samples as training does, one response each");
    "prompt_length": Int = "-1" => Ignored(OVERWRITTEN);
    "response_length": Int = "-1" => Ignored(OVERWRITTEN);
    "trust_remote_code": Bool = "false" => Ignored(OVERWRITTEN);
};

pub(crate) const REFERENCE: &[KeyEntry] = keys! {
    "strategy": Text = "fsdp" => Ignored(LAYOUT);
    "micro_batch_size_per_device_for_experience": Int = "-1" => Ignored(OVERWRITTEN);
    "padding_free": Bool = "false" => Ignored(OVERWRITTEN);
    "dynamic_batching": Bool = "false" => Ignored(OVERWRITTEN);
    "ulysses_size": Int = "1" => Ignored(OVERWRITTEN);
    "use_torch_compile": Bool = "true" => Ignored(OVERWRITTEN);
};

pub(crate) const REWARD: &[KeyEntry] = keys! {
    "reward_function": TextOrNull = "null" => Derived(
        &["reward.reward_type", "reward.accuracy_weight", "reward.format_weight", "reward.function"],
        "math.py, r1v.py and dapo.py as EasyR1 and its forks ship them are built-in rules; any other file, and a copy \
         of these that was changed, runs as Python");
    "reward_function_kwargs": Dict = "{}" => Derived(
        &["reward.format_weight", "reward.overlong_buffer_length", "reward.overlong_penalty_factor",
          "reward.function_kwargs"],
        "arguments of the function");
    "skip_special_tokens": Bool = "true" => Only(&["true"], "rewards read responses without special tokens");
    "num_cpus": Int = "1" => Ignored("a share of Ray's; reward.num_processes says how many run at once");
    "reward_function_name": TextOrNull = "null" => Ignored(OVERWRITTEN);
};

pub(crate) const CRITIC: &[KeyEntry] = keys! {
    "strategy": Text = "fsdp" => Ignored(LAYOUT);
    "global_batch_size": Int = "256" => Ignored(LAYOUT);
    "micro_batch_size_per_device_for_update": Int = "4" => Ignored(LAYOUT);
    "micro_batch_size_per_device_for_experience": Int = "16" => Ignored(LAYOUT);
    "max_grad_norm": Number = "1.0" => Ignored(LAYOUT);
    "cliprange_value": Number = "0.5" => Ignored(LAYOUT);
    "loss_avg_mode": Text = "token" => Ignored(LAYOUT);
    "ppo_epochs": Int = "1" => Ignored(LAYOUT);
    "padding_free": Bool = "false" => Ignored(LAYOUT);
    "dynamic_batching": Bool = "true" => Ignored(LAYOUT);
    "ulysses_size": Int = "1" => Ignored(LAYOUT);
    "global_batch_size_per_device": Int = "-1" => Ignored(OVERWRITTEN);
};
