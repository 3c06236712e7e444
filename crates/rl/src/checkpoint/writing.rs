//! A checkpoint on its way to the disk. Each rank writes its files, in a thread or at once; when all of them are there,
//! rank 0 adds `trainer.json` and gives the folder its name. Until then a checkpoint of the same step stays whole.
//!
//! A thread talks to no other rank: MPI is the main thread's. So of several ranks the main threads say to each other
//! what came of it, in [`Writing::finish`]; alone, the thread also finishes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use ::policy::{ModelError, Staged};
use comm::Ranks;
use run::checkpoint as layout;
use serde::{Deserialize, Serialize};

use super::TrainerState;
use crate::error::TrainError;

/// How often a thread that writes is asked whether it is done, where it is waited for.
const TICK: Duration = Duration::from_millis(5);

/// CRC-32 of files by their paths in a checkpoint.
type Checksums = BTreeMap<String, String>;

/// Where a checkpoint goes.
#[derive(Debug, Clone)]
pub(crate) struct WritingPlan {
    /// The folder of checkpoints.
    pub dir: PathBuf,
    /// What `trainer.json` will say.
    pub state: TrainerState,
    /// So many checkpoints are kept, the newest (0: all), when this one is complete.
    pub limit: usize,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    plan: WritingPlan,
    own: OwnPart,
}

/// What this rank writes.
#[derive(Debug)]
enum OwnPart {
    Thread(JoinHandle<Result<Checksums, TrainError>>),
    Done(Result<Checksums, TrainError>),
}

/// What a rank could not write, as the others hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PartFailure {
    /// Its numbers are no numbers.
    diverged: bool,
    reason: String,
}

impl WritingPlan {
    /// Adds `trainer.json`, gives the folder its name, and then removes what is too old.
    fn complete(&self, checksums: Checksums) -> Result<(), TrainError> {
        layout::complete(&self.dir, self.state.step, &self.state, checksums)?;
        layout::keep_newest(&self.dir, self.limit);
        Ok(())
    }

    /// The error of a checkpoint that is not there.
    fn failed(&self, error: TrainError) -> TrainError {
        if error.is_of_device() || matches!(error, TrainError::Diverged { .. } | TrainError::Ranks(_)) {
            return error;
        }
        let kept = layout::list(&self.dir).pop().map_or("no earlier checkpoint exists".to_string(), |(_, path)| {
            format!("the newest checkpoint is {}", path.display())
        });
        TrainError::Checkpoint {
            path: layout::path_of(&self.dir, self.state.step),
            reason: format!("cannot be written: {error}; {kept}; make room and give the same command again"),
        }
    }
}

impl Writing {
    /// Begins to write what each rank has [staged](super::stage): in a thread, or, if not `in_thread`, here and now.
    /// All of `world` call this.
    ///
    /// # Errors
    /// A folder that cannot be made; ranks that are gone. What else goes wrong [`finish`](Self::finish) says.
    pub(crate) fn start(plan: WritingPlan, staged: Staged, world: &Ranks, in_thread: bool) -> Result<Self, TrainError> {
        if world.is_first() {
            layout::begin(&plan.dir, plan.state.step).map_err(|error| plan.failed(error.into()))?;
        }
        world.barrier("a checkpoint is begun")?;
        let alone = world.is_solo();
        let own = match in_thread {
            false => OwnPart::Done(write(&plan, staged, alone)),
            true => {
                let plan = plan.clone();
                OwnPart::Thread(std::thread::spawn(move || write(&plan, staged, alone)))
            }
        };
        Ok(Self { plan, own })
    }

    /// Whether this rank has written what it has to.
    pub(crate) fn is_done(&self) -> bool {
        match &self.own {
            OwnPart::Thread(thread) => thread.is_finished(),
            OwnPart::Done(_) => true,
        }
    }

    /// Waits until this rank has written what it has to.
    pub(crate) fn wait(&self) {
        while !self.is_done() {
            std::thread::sleep(TICK);
        }
    }

    /// Waits until all of `world` have written, and gives the folder its name: where the checkpoint is. All of them
    /// call this.
    ///
    /// # Errors
    /// On all ranks where one has failed: [`TrainError::Diverged`] for what no reader would take, and anything the file
    /// system refuses, a full disk above all. The half-written folder is removed, earlier checkpoints stay.
    pub(crate) fn finish(self, world: &Ranks) -> Result<PathBuf, TrainError> {
        let Self { plan, own } = self;
        let result = finished(&plan, own.result(), world);
        if result.is_err() && world.is_first() {
            layout::discard(&plan.dir, plan.state.step);
        }
        result.map(|()| layout::path_of(&plan.dir, plan.state.step)).map_err(|error| plan.failed(error))
    }

    /// Waits for what this rank writes, after an error of the run. Alone the checkpoint becomes whole; of several
    /// ranks, who do not agree on anything any more, it does not.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub(crate) fn after_error(self, world: &Ranks) -> Result<(), TrainError> {
        match world.is_solo() {
            true => self.finish(world).map(|_| ()),
            false => self.own.result().map(|_| ()).map_err(|error| self.plan.failed(error)),
        }
    }
}

impl OwnPart {
    fn result(self) -> Result<Checksums, TrainError> {
        match self {
            Self::Done(result) => result,
            Self::Thread(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
}

/// Writes this rank's files, and finishes where it is `alone`.
fn write(plan: &WritingPlan, staged: Staged, alone: bool) -> Result<Checksums, TrainError> {
    let partial = layout::partial_of(&plan.dir, plan.state.step);
    staged.write(&partial).map_err(|error| match error {
        ModelError::NotFinite { .. } => TrainError::Diverged { what: error.to_string(), way: String::new() },
        other => other.into(),
    })?;
    let checksums = layout::checksums(&partial, staged.tensor_files())?;
    // Its memory is not needed any more.
    drop(staged);
    if alone {
        plan.complete(checksums)?;
        return Ok(Checksums::new());
    }
    Ok(checksums)
}

/// What all ranks have written, made a checkpoint by rank 0.
fn finished(plan: &WritingPlan, own: Result<Checksums, TrainError>, world: &Ranks) -> Result<(), TrainError> {
    if world.is_solo() {
        return own.map(|_| ());
    }
    let told = own.as_ref().map(Clone::clone).map_err(|error| match error {
        TrainError::Diverged { what, .. } => PartFailure { diverged: true, reason: what.clone() },
        other => PartFailure { diverged: false, reason: other.to_string() },
    });
    let told = world.gather("parts of a checkpoint", &told)?;
    let mut checksums = own?;
    for (rank, part) in told.into_iter().enumerate() {
        match part {
            Ok(sums) => checksums.extend(sums),
            Err(PartFailure { diverged: true, reason }) => {
                return Err(TrainError::Diverged { what: reason, way: String::new() });
            }
            Err(PartFailure { reason, .. }) => {
                return Err(TrainError::Input(format!("the part of rank {rank} is not there ({reason})")));
            }
        }
    }
    let mut done = Ok(());
    let told = world.from_first("a checkpoint is there", || {
        done = plan.complete(checksums);
        done.as_ref().err().map(ToString::to_string)
    })?;
    match told {
        Some(reason) if done.is_ok() => Err(TrainError::Input(reason)),
        _ => done,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::policy::StagedTensor;
    use burn::tensor::DType;

    use super::*;
    use crate::config::Config;

    fn plan(dir: &Path, step: u64) -> WritingPlan {
        let state = TrainerState { step, ..TrainerState::beginning(&Config::default()) };
        WritingPlan { dir: dir.into(), state, limit: 1 }
    }

    /// A file of a rank with one number.
    fn staged(rank: usize, value: f32) -> Staged {
        let mut staged = Staged::default();
        let tensor = StagedTensor::of_bytes("x".into(), value.to_le_bytes().to_vec(), DType::F32, vec![1]);
        staged.tensors(&format!("part-{rank}.safetensors"), vec![tensor]);
        staged
    }

    /// Writes the checkpoint of step 1 on three ranks and looks at what there is before that of step 2 is finished and
    /// after it.
    fn second(dir: &Path, part: impl Fn(usize) -> Staged + Sync) -> Vec<Result<PathBuf, TrainError>> {
        let paths = comm::threads::run(3, |ranks| {
            let first = Writing::start(plan(dir, 1), staged(ranks.rank(), 1.0), &ranks, false).unwrap();
            first.finish(&ranks).unwrap()
        });
        assert!(paths.iter().all(|path| *path == layout::path_of(dir, 1)));
        comm::threads::run(3, |ranks| {
            let writing = Writing::start(plan(dir, 2), part(ranks.rank()), &ranks, true).unwrap();
            writing.wait();
            ranks.barrier("all have written").unwrap();
            assert_eq!(layout::list(dir), [(1, layout::path_of(dir, 1))], "whole before all ranks have said so");
            ranks.barrier("all have looked").unwrap();
            writing.finish(&ranks)
        })
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_whole_when_all_ranks_have_written() {
        let dir = tempfile::tempdir().unwrap();
        let made = second(dir.path(), |rank| staged(rank, 2.0));
        assert!(made.into_iter().all(|path| path.unwrap() == layout::path_of(dir.path(), 2)));
        // Only now is the one before it removed: no more than one is kept.
        assert_eq!(names(dir.path()), ["global_step_2"]);
        let path = layout::path_of(dir.path(), 2);
        assert_eq!(layout::verify(&path, 0, 1), Ok(()));
        let sums: serde_json::Value = serde_json::from_str(&layout::read_state(&path).unwrap()).unwrap();
        assert_eq!(sums["checksums"].as_object().unwrap().len(), 3, "the files of all ranks have checksums");
    }

    #[test]
    fn what_one_rank_cannot_write_is_an_error_on_all() {
        // A name that no file may have; a number that no reader takes.
        let unwritable = |rank: usize| match rank {
            1 => {
                let mut staged = Staged::default();
                staged.text(&"x".repeat(300), vec![]);
                staged
            }
            _ => staged(rank, 2.0),
        };
        let diverged = |rank: usize| staged(rank, if rank == 2 { f32::NAN } else { 2.0 });
        let dir = tempfile::tempdir().unwrap();
        for error in second(dir.path(), unwritable) {
            let said = error.unwrap_err().to_string();
            for word in ["global_step_2: cannot be written", "too long", "the newest checkpoint is", "global_step_1"] {
                assert!(said.contains(word), "{word:?} is not in: {said}");
            }
        }
        assert_eq!(names(dir.path()), ["global_step_1"]);
        let dir = tempfile::tempdir().unwrap();
        for error in second(dir.path(), diverged) {
            let error = error.unwrap_err();
            assert!(matches!(&error, TrainError::Diverged { what, .. } if what.contains("x is not finite")), "{error}");
        }
        assert_eq!(names(dir.path()), ["global_step_1"]);
    }

    /// After an error of the run the checkpoint becomes whole where there is one rank; ranks leave the last one.
    #[test]
    fn an_error_of_the_run_waits() {
        let dir = tempfile::tempdir().unwrap();
        let alone = Ranks::solo();
        Writing::start(plan(dir.path(), 1), staged(0, 1.0), &alone, true).unwrap().after_error(&alone).unwrap();
        assert_eq!(names(dir.path()), ["global_step_1"]);
        comm::threads::run(2, |ranks| {
            let writing = Writing::start(plan(dir.path(), 2), staged(ranks.rank(), 2.0), &ranks, true).unwrap();
            writing.after_error(&ranks).unwrap();
        });
        assert_eq!(names(dir.path()), [".global_step_2.partial", "global_step_1"]);
    }
}
