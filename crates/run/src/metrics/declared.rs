//! The metrics of this project, each declared once.

use super::registry::Reduction::*;
use super::registry::{Metric, Reduction, Section};

const fn metric(name: &'static str, unit: &'static str, reduction: Reduction, meaning: &'static str) -> Metric {
    Metric { name, unit, reduction, meaning }
}

/// Every metric that a run writes, by subject.
pub(crate) const DECLARED: &[Section] = &[
    Section {
        title: "The step",
        note: "",
        metrics: &[
            metric("step", "-", Last, "number of the step over all stages"),
            metric("stage", "text", Last, "name of its stage"),
            metric("data/set_aside", "rows", Last, "distinct rows set aside so far, before a resume, too"),
        ],
    },
    Section {
        title: "Supervised stages",
        note: "Besides `actor/grad_norm`, `actor/skipped_steps` and `actor/lr`.",
        metrics: &[metric(
            "sft/loss",
            "nats",
            TokenMean,
            "mean negative log-prob of the tokens of the worked responses",
        )],
    },
    Section {
        title: "Rewards and responses",
        note: "Over the responses that are trained on.",
        metrics: &[
            metric("reward", "-", ResponseMean, "the reward"),
            metric("accuracy", "-", ResponseMean, "its part for the answer"),
            metric("format", "-", ResponseMean, "its part for the form of the response"),
            metric(
                "reward/{metric}",
                "-",
                ResponseMean,
                "further numbers of the reward: `overlong`, or what a reward command returns (mean over the \
                 responses for which it returned that number)",
            ),
            metric("response_length/mean", "tokens", ResponseMean, "length of a response, the end token included"),
            metric("response_length/max", "tokens", Max, "the longest"),
            metric("response_length/min", "tokens", Min, "the shortest"),
            metric(
                "response_length/clip_ratio",
                "share",
                ResponseMean,
                "share of responses cut at `data.max_response_length`; a warning from 0.95 on",
            ),
            metric("prompt_length/mean", "tokens", PromptMean, "length of a prompt, images included"),
            metric(
                "group/zero_variance_share",
                "share",
                PromptMean,
                "share of groups whose rewards are all equal: they teach nothing",
            ),
        ],
    },
    Section {
        title: "Everything that was sampled",
        note: "The same over everything that was sampled in the step, whether dynamic sampling kept it or not. \
               Under dynamic sampling these are the\nlearning curves: `reward` and `accuracy` are then means over \
                prompts that were chosen for being solved sometimes. Absent where groups\nthat were carried over \
               filled the batch.",
        metrics: &[
            metric("sampled/reward", "-", PromptMean, "the reward: mean over prompts of the mean over their responses"),
            metric("sampled/accuracy", "-", PromptMean, "its part for the answer, likewise"),
            metric("sampled/zero_variance_share", "share", PromptMean, "share of groups whose rewards are all equal"),
        ],
    },
    Section {
        title: "Dynamic sampling",
        note: "A step that kept no prompt has these, `sampled/`, `reward` (of all that was sampled) and times, \
               and no `actor/` keys.",
        metrics: &[
            metric("filter/rounds", "-", Last, "rounds of generation"),
            metric("filter/kept_share", "share", PromptMean, "share of prompts kept"),
            metric("filter/carried", "prompts", Sum, "prompts left for the next batch"),
        ],
    },
    Section {
        title: "Update",
        note: "Means over the optimizer steps of the batch that had a loss; where none had, they are absent.",
        metrics: &[
            metric("actor/loss", "-", StepMean, "the whole loss"),
            metric("actor/pg_loss", "-", StepMean, "its policy term"),
            metric(
                "actor/clip_fraction_low",
                "share",
                StepTokenMean,
                "tokens whose ratio was clipped below; a warning where this and the two below sum to 0.95 or more",
            ),
            metric("actor/clip_fraction_high", "share", StepTokenMean, "tokens whose ratio was clipped above"),
            metric(
                "actor/clip_fraction_dual",
                "share",
                StepTokenMean,
                "tokens whose ratio was clipped by the dual clip, where that is on",
            ),
            metric("actor/ppo_kl", "nats", StepTokenMean, "mean of `old - new` log-prob"),
            metric("actor/ratio_mean", "-", StepTokenMean, "mean ratio"),
            metric("actor/kl", "nats", StepTokenMean, "divergence from the reference, where the loss has a KL term"),
            metric("actor/kl_loss", "-", StepMean, "its term in the loss"),
            metric("actor/entropy", "nats", StepTokenMean, "entropy (`actor.entropy_type`)"),
            metric("actor/entropy_loss", "-", StepMean, "its term in the loss, where there is one"),
            metric(
                "actor/kl_prcp",
                "nats",
                StepTokenMean,
                "PAPO: divergence from the policy that sees the perturbed picture; over tokens of responses whose \
                  prompt has one",
            ),
            metric(
                "actor/masked_entropy",
                "nats",
                StepTokenMean,
                "PAPO: entropy of the policy that sees the perturbed picture; over the same tokens",
            ),
            metric("actor/papo_loss", "-", StepMean, "PAPO's terms in the loss"),
            metric(
                "actor/rollout_gap",
                "nats",
                StepTokenMean,
                "mean absolute difference between the old log-probs and the sampler's",
            ),
            metric(
                "actor/rollout_correction",
                "-",
                StepTokenMean,
                "mean importance weight between trainer and sampler, where the correction is on",
            ),
            metric(
                "actor/grad_norm",
                "-",
                WholeStepMean,
                "global norm before clipping, over the optimizer steps that were taken; null where all were \
                 skipped",
            ),
            metric(
                "actor/skipped_steps",
                "share",
                WholeStepMean,
                "share of all optimizer steps that were skipped, because the gradient was not finite or, with \
                 `actor.mask_truncated`, because every response was cut",
            ),
            metric("actor/lr", "-", Last, "learning rate of the last optimizer step"),
            metric(
                "critic/kl",
                "nats",
                ResponseMean,
                "divergence where the KL is taken in the reward: mean over responses of the mean over their tokens",
            ),
            metric("critic/kl_coef", "-", Last, "its coefficient"),
        ],
    },
    Section {
        title: "Sampler against trainer",
        note: "Where the log-probs are recomputed; else of the first optimizer step, its mean alone, and not where groups were \
               carried over. `actor.mismatch_warning` and `actor.mismatch_limit` watch the mean.",
        metrics: &[
            metric(
                "mismatch/log_prob_abs_mean",
                "nats",
                TokenMean,
                "mean absolute gap between the sampler's log-probs and the trainer's",
            ),
            metric("mismatch/log_prob_abs_max", "nats", Max, "the largest gap"),
            metric("mismatch/kl", "nats", TokenMean, "divergence between the two"),
        ],
    },
    Section {
        title: "VGPO",
        note: "Over tokens of responses whose prompt has an image.",
        metrics: &[
            metric("vgpo/focus_mean", "-", TokenMean, "mean visual focus (equation 4)"),
            metric("vgpo/late_early_halves", "-", ResponseMean, "focus of the late half over the early one"),
            metric("vgpo/late_early_thirds", "-", ResponseMean, "focus of the late third over the early one"),
            metric(
                "vgpo/late_early_cosine_halves",
                "-",
                Batch,
                "the same of the cosines behind the focus, by halves: mean late cosine over mean early cosine, \
                 each over responses. The focus `(S + 1) / 2` pins its ratio near 1; this one is not pinned. \
                 Absent where the early cosines are not above 0 on average",
            ),
            metric(
                "vgpo/late_early_cosine_thirds",
                "-",
                Batch,
                "the same of the cosines behind the focus, by thirds: mean late cosine over mean early cosine, \
                 each over responses",
            ),
            metric(
                "vgpo/top_tokens_late",
                "share",
                ResponseMean,
                "share of the top 40% visual tokens that lie in the late half",
            ),
            metric("vgpo/top_tokens_early", "share", ResponseMean, "share of them that lie in the early half"),
            metric("vgpo/gate_pass_rate", "share", TokenMean, "share of tokens that pass the gate of equation 6"),
            metric("vgpo/token_factor_mean", "-", TokenMean, "`1 + psi` (equation 8)"),
            metric("vgpo/token_factor_min", "-", Min, "its smallest"),
            metric("vgpo/token_factor_max", "-", Max, "its largest"),
            metric("vgpo/trajectory_factor_mean", "-", ResponseMean, "`1 + phi` (equation 11)"),
            metric("vgpo/trajectory_factor_min", "-", Min, "its smallest"),
            metric("vgpo/trajectory_factor_max", "-", Max, "its largest"),
            metric(
                "vgpo/phi_length_correlation",
                "-",
                Batch,
                "Pearson's correlation of `phi` with the response length, both less the mean of their group. Near \
                  1 with `inter_score = \"sum\"`",
            ),
            metric(
                "vgpo/non_finite_responses",
                "responses",
                Sum,
                "responses whose focus was not a number and that kept their plain advantage",
            ),
        ],
    },
    Section {
        title: "Other shapings",
        note: "Over responses whose prompt has an image, unless it says otherwise.",
        metrics: &[
            metric(
                "vppo/dependency_mean",
                "nats",
                ResponseMean,
                "dependency on the picture (k3 of the log-probs): mean over responses of the mean over their tokens",
            ),
            metric("vppo/kept_tokens", "share", TokenMean, "share of the tokens of all responses that get a gradient"),
            metric("vppo/trajectory_weight_max", "-", Max, "largest weight of a response"),
            metric(
                "pgpo/dependency_mean",
                "nats",
                TokenMean,
                "mean divergence between a token's prediction with the picture and without it",
            ),
            metric("pgpo/token_weight_max", "-", Max, "largest token weight"),
            metric(
                "pgpo/weakened_tokens",
                "share",
                TokenMean,
                "share of tokens that get less than their plain advantage",
            ),
            metric(
                "pgpo/non_finite_responses",
                "responses",
                Sum,
                "responses to prompts with a picture whose divergence is no number, and that kept their plain \
                 advantage",
            ),
            metric("pepo/lambda", "share", Last, "share of PEPO's weights that is in force (step / max_steps)"),
            metric("pepo/token_weight_min", "-", Min, "smallest token weight"),
            metric("pepo/token_weight_max", "-", Max, "largest token weight"),
            metric(
                "entropy/term_mean",
                "-",
                TokenMean,
                "what the entropy-based advantage adds to a token; over all responses",
            ),
            metric(
                "entropy/capped_tokens",
                "share",
                TokenMean,
                "share of the same tokens at which `abs(A) / kappa` caps it",
            ),
            metric(
                "srpo/shaped_responses",
                "share",
                ResponseMean,
                "share of all responses that have a description, whose tokens are weighted",
            ),
            metric(
                "srpo/undecoded_responses",
                "responses",
                Sum,
                "responses in which no description could be looked for, as a token of theirs does not decode",
            ),
        ],
    },
    Section {
        title: "Validation",
        note: "After the step; greedy, one response per row, unless it says otherwise.",
        metrics: &[
            metric("val/accuracy", "share", ResponseMean, "accuracy"),
            metric("val/reward", "-", ResponseMean, "reward"),
            metric("val/accuracy/{task}", "share", ResponseMean, "accuracy on the rows of a task"),
            metric(
                "val/sampled_accuracy",
                "share",
                PromptMean,
                "mean accuracy of `rollout.val_n` responses at `rollout.val_temperature`, where that is above 0",
            ),
            metric("val/pass_at_n", "share", PromptMean, "the best of them"),
            metric("val/response_length", "tokens", ResponseMean, "length of a response"),
            metric("val/samples", "rows", Sum, "rows"),
            metric("val/focus_mean", "-", TokenMean, "mean visual focus of the responses"),
            metric("val/late_early_halves", "-", ResponseMean, "its late half over the early one"),
            metric("val/late_early_cosine_halves", "-", Batch, "the same of the cosines behind it"),
            metric(
                "val_before/{metric}",
                "-",
                Last,
                "the validation before the first step of an RL stage, on its first line; keys as under `val/`, \
                 and reduced as there",
            ),
        ],
    },
    Section {
        title: "Seconds",
        note: "",
        metrics: &[
            metric("time/rollout_s", "s", Clock, "sampling"),
            metric("time/rollout_vision_s", "s", Clock, "of that, encoding images"),
            metric("time/rollout_prefill_s", "s", Clock, "of that, reading prompts"),
            metric("time/rollout_decode_s", "s", Clock, "of that, decoding responses"),
            metric("time/reward_s", "s", Clock, "grading"),
            metric("time/old_log_probs_s", "s", Clock, "recomputing the log-probs of the policy that sampled"),
            metric(
                "time/streams_s",
                "s",
                Clock,
                "what shapings and terms of the loss need besides: reference, perturbed pictures, focus",
            ),
            metric("time/advantages_s", "s", Clock, "advantages and their shaping"),
            metric(
                "time/token_log_s",
                "s",
                Clock,
                "keeping the tokens of some groups (`trainer.log_tokens`), their heat included",
            ),
            metric("time/gradients_s", "s", Clock, "forward and backward passes"),
            metric("time/optimizer_s", "s", Clock, "optimizer steps"),
            metric("time/validation_s", "s", Clock, "validation"),
            metric("time/step_s", "s", Clock, "the whole step"),
        ],
    },
    Section {
        title: "Speed",
        note: "",
        metrics: &[
            metric("perf/rollout_tokens_per_s", "tokens/s", Rate, "response tokens, while sampling"),
            metric("perf/update_tokens_per_s", "tokens/s", Rate, "packed tokens (each prompt once), in the update"),
            metric("perf/tokens_per_s", "tokens/s", Rate, "tokens of the whole step"),
        ],
    },
    Section {
        title: "Ranks",
        note: "Of runs on several devices: what rank 0 gave to collective operations in the step.",
        metrics: &[
            metric("comm/gradient_bytes", "bytes", Last, "gradients that were summed, f32"),
            metric("comm/parameter_bytes", "bytes", Last, "its part of the parameters, which went to all"),
            metric("comm/sampled_bytes", "bytes", Last, "numbers by which ranks that share a head out sample a token"),
            metric("comm/record_bytes", "bytes", Last, "records of rows and responses, votes, sums"),
            metric("comm/calls", "-", Last, "collective operations"),
        ],
    },
];
