//! The ranks of a run by what they share: copies of the model, which share the work out, and the parts of each copy.

use ::policy::ModelCopy;
use comm::Ranks;

use crate::error::TrainError;

/// `rank = data * tensor.size() + tensor`: the ranks that have a copy of the model together are neighbours, which
/// launchers place on one machine.
#[derive(Debug, Clone, Default)]
pub struct RankGroups {
    /// All.
    pub world: Ranks,
    /// One of each copy of the model: those that have the same part of it. Rows and groups are dealt out over them.
    pub data: Ranks,
    /// Those that have a copy of the model together; they make the same calls with the same rows.
    pub tensor: Ranks,
}

impl RankGroups {
    /// One device.
    pub fn solo() -> Self {
        Self::default()
    }

    /// All `world`, with `tensor` ranks to each copy of the model.
    ///
    /// # Errors
    /// A number of ranks that `tensor` does not divide; a copy whose ranks are on several machines; a rank that is
    /// gone.
    pub fn new(world: &Ranks, tensor: usize) -> Result<Self, TrainError> {
        let tensor = tensor.max(1);
        if !world.size().is_multiple_of(tensor) {
            return Err(TrainError::Input(format!(
                "parallel.tensor: {tensor} ranks have a copy of the model together, and {} were started; start a multiple \
                 of {tensor}, or lower it",
                world.size()
            )));
        }
        if tensor == 1 {
            return Ok(Self { world: world.clone(), data: world.clone(), tensor: Ranks::solo() });
        }
        let copy = world.split("ranks of a copy", world.rank() / tensor)?;
        let data = world.split("ranks of a part", world.rank() % tensor)?;
        let here = copy.of_node("machine of a copy")?.size();
        if world.any("copies on several machines", here != tensor)? {
            return Err(TrainError::Input(format!(
                "parallel.tensor: the {tensor} ranks of a copy of the model are not all on one machine, whose links they \
                 need; place neighbours together (mpirun --map-by ppr:N:node with N a multiple of {tensor})"
            )));
        }
        Ok(Self { world: world.clone(), data, tensor: copy })
    }

    /// This rank's copy of the model among all, which write files of weights together.
    pub(crate) fn copy(&self) -> ModelCopy {
        ModelCopy { index: self.data.rank(), count: self.data.size() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_a_copy() {
        let places = comm::threads::run(6, |ranks| {
            let groups = RankGroups::new(&ranks, 2).unwrap();
            (groups.data.rank(), groups.data.size(), groups.tensor.rank(), groups.tensor.size())
        });
        let expected: Vec<_> = (0..6).map(|rank| (rank / 2, 3, rank % 2, 2)).collect();
        assert_eq!(places, expected);
        let said = |of_node: usize, size: usize, tensor: usize| {
            comm::threads::run_on(of_node, size, |ranks| RankGroups::new(&ranks, tensor).unwrap_err().to_string())
        };
        assert!(said(6, 6, 4).iter().all(|said| said.contains("6 were started") && said.contains("multiple of 4")));
        assert!(said(3, 6, 2).iter().all(|said| said.contains("not all on one machine")));
    }
}
