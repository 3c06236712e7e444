//! Whether this process was started as one of several, which is known before anything of MPI is touched.

use std::env::var;

/// What a launcher (`mpirun`, `srun`) says of the process that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Processes of the job, 2 or more.
    pub ranks: usize,
    /// This one, from 0.
    pub rank: usize,
}

/// Variables with the number of processes and with the process's own number: Open MPI's, that of MPICH, Intel MPI and
/// Cray, and Slurm's. Slurm's `SLURM_NTASKS` will not do: a batch script has it, too, and is one process.
const VARIABLES: [[&str; 2]; 3] = [
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"],
    ["PMI_SIZE", "PMI_RANK"],
    ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"],
];

/// What started this process; none where it is the only one of its job. The first of the launchers that has left a
/// variable decides: `mpirun` within a Slurm job leaves both.
pub fn launcher() -> Option<Launched> {
    launched(|name| var(name).ok())
}

/// The variables that a child which is a program of its own must not see: it would take itself for a rank.
pub fn launcher_variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().flatten()
}

fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let number = |name| variable(name).and_then(|text| text.trim().parse().ok());
    let (ranks, rank) = VARIABLES.iter().find_map(|[ranks, rank]| Some((number(ranks)?, number(rank).unwrap_or(0))))?;
    (ranks > 1).then_some(Launched { ranks, rank })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Launched> {
        launched(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")]), None);
        let third = Some(Launched { ranks: 4, rank: 3 });
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3")]), third);
        assert_eq!(of(&[("PMI_SIZE", "4"), ("PMI_RANK", "3")]), third);
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "3")]), third);
        // A batch script of Slurm is one process, whatever it is about to start.
        assert_eq!(of(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]), None);
        // mpirun in an interactive step of Slurm: the step has one task.
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "1"), ("PMI_SIZE", "4"), ("PMI_RANK", "3")]), third);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "many")]), None);
    }
}
