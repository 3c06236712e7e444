//! What the ranks of a run say of themselves while it goes on, `.ranks/R.json`: where one waits in vain, the others'
//! files say for whom.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::folder::{RunFolderError, at};
use crate::layout::RANKS;

/// What one rank says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The rank.
    pub rank: usize,
    /// The name of its machine.
    pub node: String,
    /// Its process there.
    pub pid: u32,
    /// The stage of the run; empty before the first one.
    pub stage: String,
    /// The step of it that the rank works on.
    pub step: u64,
    /// The part of the step; empty between two.
    pub phase: String,
    /// Seconds that it has been in it.
    pub phase_s: f64,
    /// The call to the other ranks that it waits in.
    pub call: Option<Call>,
    /// When this was written, in seconds since 1970.
    pub at: f64,
}

/// A call to other ranks that has not come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Its number.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// Seconds that the rank has waited.
    pub waited_s: f64,
}

fn file(root: &Path, rank: usize) -> PathBuf {
    root.join(RANKS).join(format!("{rank}.json"))
}

/// Seconds since 1970; 0 on a clock that is before it.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

impl Heartbeat {
    /// Writes it to the run folder `root`.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn write(&self, root: &Path) -> Result<(), RunFolderError> {
        let path = file(root, self.rank);
        std::fs::create_dir_all(root.join(RANKS)).map_err(at(&path))?;
        let text = serde_json::to_string(self).map_err(|error| at(&path)(error.into()))?;
        guard::file::replace(&path, text.as_bytes()).map_err(at(&path))
    }

    /// The last words of a rank; none where it has left none that can be read.
    pub fn read(root: &Path, rank: usize) -> Option<Self> {
        let text = guard::file::read_text(&file(root, rank), guard::limits().record_bytes).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Where it was, in words: `rollout of vgpo 12`.
    fn place(&self) -> String {
        match (self.stage.as_str(), self.phase.as_str()) {
            ("", _) => "the start of the run".into(),
            (stage, "") => format!("{stage} {}", self.step),
            (stage, phase) => format!("{phase} of {stage} {}", self.step),
        }
    }
}

/// Who keeps the others waiting: one line about a run of `ranks` ranks in the folder `root`, said by a rank that has
/// waited in `call` for longer than a run should. Ranks write every `period`; one that is much older has stopped.
pub fn late(root: &Path, ranks: usize, own: (usize, &Call), period: Duration) -> String {
    let beats: Vec<Option<Heartbeat>> = (0..ranks).map(|rank| Heartbeat::read(root, rank)).collect();
    describe(&beats, own, period.as_secs_f64(), now())
}

fn describe(beats: &[Option<Heartbeat>], (own, call): (usize, &Call), period: f64, now: f64) -> String {
    let here = |beat: &Option<Heartbeat>| {
        let waits = |c: &Call| c.name == call.name && c.number == call.number;
        beat.as_ref().is_some_and(|beat| beat.rank == own || beat.call.as_ref().is_some_and(waits))
    };
    let waiting = beats.iter().filter(|beat| here(beat)).count();
    let waits = format!("`{}` (call {})", call.name, call.number);
    let others = match waiting {
        0 | 1 => format!("rank {own} waits in {waits}"),
        several => format!("{several} ranks wait in {waits}"),
    };
    // Of those that are elsewhere, one that has stopped, or else the one that is behind.
    let order = |(rank, beat): &(usize, &Option<Heartbeat>)| {
        let age = beat.as_ref().map_or(f64::INFINITY, |beat| now - beat.at);
        let number = beat.as_ref().and_then(|beat| beat.call.as_ref()).map_or(0, |call| call.number);
        (age <= 3.0 * period, number, *rank)
    };
    let Some((rank, beat)) = beats.iter().enumerate().filter(|(_, beat)| !here(beat)).min_by_key(order) else {
        return format!("all {waiting} ranks have waited in {waits} for {:.0} s", call.waited_s);
    };
    let Some(beat) = beat else { return format!("rank {rank} has never given a sign of life; {others}") };
    let (age, place) = (now - beat.at, beat.place());
    let what = match &beat.call {
        _ if age > 3.0 * period => format!("has given no sign of life for {age:.0} s, the last one in {place}"),
        Some(other) => format!("waits in `{}` (call {}), in {place}", other.name, other.number),
        None => format!("has been in {place} for {:.0} s", beat.phase_s + age),
    };
    format!("rank {rank} ({}) {what}; {others}", beat.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64, name: &str) -> Call {
        Call { number, name: name.into(), waited_s: 910.0 }
    }

    fn beat(rank: usize, call: Option<Call>, at: f64) -> Option<Heartbeat> {
        let (node, phase) = (format!("node{}", rank / 2), "rollout".into());
        Some(Heartbeat { rank, node, pid: 1, stage: "vgpo".into(), step: 12, phase, phase_s: 905.0, call, at })
    }

    #[test]
    fn the_one_that_is_late_is_named() {
        let wait = call(1042, "kept groups");
        let say = |beats: &[Option<Heartbeat>]| describe(beats, (0, &wait), 10.0, 1000.0);
        let waiting = |rank| beat(rank, Some(wait.clone()), 995.0);
        assert_eq!(
            say(&[waiting(0), waiting(1), beat(2, None, 995.0), waiting(3)]),
            "rank 2 (node1) has been in rollout of vgpo 12 for 910 s; 3 ranks wait in `kept groups` (call 1042)"
        );
        assert_eq!(
            say(&[waiting(0), beat(1, Some(call(1040, "bad rows")), 995.0), beat(2, Some(call(1041, "x")), 995.0)]),
            "rank 1 (node0) waits in `bad rows` (call 1040), in rollout of vgpo 12; rank 0 waits in `kept groups` (call \
             1042)"
        );
        assert_eq!(
            say(&[waiting(0), beat(1, None, 995.0), beat(2, None, 900.0)]),
            "rank 2 (node1) has given no sign of life for 100 s, the last one in rollout of vgpo 12; rank 0 waits in \
             `kept groups` (call 1042)"
        );
        assert_eq!(
            say(&[waiting(0), None]),
            "rank 1 has never given a sign of life; rank 0 waits in `kept groups` (call 1042)"
        );
        assert_eq!(say(&[waiting(0), waiting(1)]), "all 2 ranks have waited in `kept groups` (call 1042) for 910 s");
    }

    #[test]
    fn what_was_written_is_read() {
        let place = tempfile::tempdir().unwrap();
        let written = beat(1, Some(call(3, "x")), now()).unwrap();
        written.write(place.path()).unwrap();
        assert_eq!(Heartbeat::read(place.path(), 1), Some(written));
        assert_eq!(Heartbeat::read(place.path(), 0), None);
        std::fs::write(file(place.path(), 0), "{half").unwrap();
        assert!(late(place.path(), 2, (1, &call(3, "x")), Duration::from_secs(1)).starts_with("rank 0 has never"));
    }
}
