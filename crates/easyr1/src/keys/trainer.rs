//! `trainer`.

use super::keys;
use crate::table::{Fate::*, KeyEntry};

const PLACES: &[&str] = &["trainer.output_dir", "trainer.experiment_name"];

pub(crate) const KEYS: &[KeyEntry] = keys! {
    "total_epochs": Int = "15" => Derived(&["trainer.total_epochs"],
        "the rows left over at the end of an epoch are not dropped here, so a run may have a step more for every few \
         epochs");
    "max_steps": IntOrNull = "null" => Derived(&["trainer.max_steps"], "null is 0");
    "project_name": Text = "easy_r1" => Derived(PLACES,
        "the run folder is checkpoints/PROJECT/EXPERIMENT, as there, where no save_checkpoint_path is given");
    "experiment_name": Text = "demo" => Derived(PLACES, "the last part of the run folder");
    "logger": Words = "[console, wandb]" => Ignored("what a run writes is listed in docs/metrics.md");
    "nnodes": Int = "1" => Ignored("one process a device: mpirun or srun says how many (docs/many-gpus.md)");
    "n_gpus_per_node": Int = "8" => Ignored("one process a device: mpirun -np N train ... (docs/many-gpus.md)");
    "max_try_make_batch": Int = "20" => Derived(&["trainer.max_try_make_batch"],
        "-1 is 0, no limit; at the limit EasyR1 fails, and here the batch is taken as it is, with a warning");
    "critic_warmup": Int = "0" => Only(&["0"], "it holds back the policy's updates, critic or not; set it to 0");
    "val_freq": Int = "-1" => Derived(&["trainer.val_freq"], "-1 is 0");
    "val_before_train": Bool = "true" => Same("trainer.val_before_train");
    "val_only": Bool = "false" => Only(&["false"], "`eval` measures a model without training it (docs/evaluation.md)");
    "val_generations_to_log": Int = "0" => Derived(&["trainer.val_generations_to_log"], "less than 0 is 0");
    "save_freq": Int = "-1" => Derived(&["trainer.save_freq"], "-1 is 0: at the end alone");
    "save_limit": Int = "-1" => Derived(&["trainer.save_limit"],
        "-1 is 0, all; the newest are kept here, EasyR1 keeps the best one besides");
    "save_model_only": Bool = "false" => Ignored("a checkpoint always has what a run goes on from");
    "save_checkpoint_path": TextOrNull = "null" => Derived(PLACES, "the run folder itself");
    "load_checkpoint_path": TextOrNull = "null" => Only(&["null"],
        "EasyR1's checkpoints are shards of FSDP; merge one with its model_merger.py and name the folder as \
         worker.actor.model.model_path");
    "ray_timeline": TextOrNull = "null" => Ignored("there is no Ray here; metrics.jsonl has the time of each phase");
    "find_last_checkpoint": Bool = "true" => Derived(&["trainer.resume"], "true is \"auto\", false is \"none\"");
};
