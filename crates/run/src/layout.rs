//! The names in a run folder, each declared once. What they hold is said in [`crate::folder`] and
//! [`crate::checkpoint`].

/// The resolved configuration.
pub const CONFIG: &str = "config.toml";
/// What was measured, one line a step.
pub const METRICS: &str = "metrics.jsonl";
/// The folder of responses, a file a step.
pub const ROLLOUTS: &str = "rollouts";
/// The folder of the tokens of some responses of a step, a file a step.
pub const TOKENS: &str = "tokens";
/// The folder of the pictures that [`TOKENS`] name, each once.
pub const PICTURES: &str = "pictures";
/// What the run is, and how it stands.
pub const RUN: &str = "run.json";
/// The run as one page, written at its end.
pub const REPORT: &str = "report.html";
/// [`METRICS`] as a table.
pub const CSV: &str = "metrics.csv";
/// The folder of event files, which TensorBoard reads.
pub const TENSORBOARD: &str = "tensorboard";
/// Rows that were set aside, each with its reason.
pub const SET_ASIDE: &str = "set_aside.jsonl";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of the policies that a KL term compares with.
pub const REFERENCE: &str = "reference";
/// The folder of what ranks say of themselves while they run, a file a rank.
pub const RANKS: &str = ".ranks";
/// Held while a process trains in the folder.
pub const LOCK: &str = ".lock";
/// A file that asks for a checkpoint and the end of the run.
pub const STOP: &str = "STOP";
/// In a checkpoint: the model, a folder that transformers loads, or PEFT where it is an adapter.
pub const MODEL: &str = "hf";
/// In a checkpoint: the adapter, where the model has it merged into its weights.
pub const ADAPTER: &str = "adapter";
/// In a checkpoint: moments and master weights.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// In a checkpoint: where the run stands; without it a folder is no checkpoint.
pub const STATE: &str = "trainer.json";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Files of `folder` that hold one of the names as a literal, before their tests.
    fn literals(folder: &Path, found: &mut Vec<String>, read: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                literals(&path, found, read);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("layout.rs") {
                *read += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                // Examples in comments may show a name.
                let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
                let code: Vec<&str> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
                let code = code.join("\n");
                // `rollouts` and `reference` are also words of other files and tables.
                for name in [CONFIG, METRICS, RUN, REPORT, CSV, SET_ASIDE, CHECKPOINTS, MODEL, OPTIMIZER, STATE] {
                    if code.contains(&format!("\"{name}\"")) {
                        found.push(format!("{}: {name}", path.display()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_is_declared_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (mut found, mut read) = (vec![], 0);
        literals(&root.join("bin"), &mut found, &mut read);
        for entry in std::fs::read_dir(root.join("crates")).unwrap() {
            literals(&entry.unwrap().path().join("src"), &mut found, &mut read);
        }
        assert!(read > 200, "the sources are not where they were: {read}");
        assert!(found.is_empty(), "use run::layout: {found:?}");
    }
}
