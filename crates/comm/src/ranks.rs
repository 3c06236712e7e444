//! The ranks of a group, as a program talks to them.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attached::Attached;
use crate::error::CommError;
use crate::transport::Transport;

/// A group of ranks. Copies are the same group. A group of one does nothing at all: a program on one device pays for
/// none of this.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    group: Option<Arc<Group>>,
}

#[derive(Debug)]
struct Group {
    transport: Arc<dyn Transport>,
    calls: Arc<Mutex<Calls>>,
    /// Compare number, name and length of each call over the ranks before it is made.
    check: bool,
    /// What is made once for this group.
    attached: Attached,
}

/// What the ranks of a process have called, in all of its groups.
#[derive(Debug, Default)]
struct Calls {
    number: u64,
    waiting: Option<(u64, &'static str, Instant)>,
    traffic: BTreeMap<&'static str, Traffic>,
}

/// A call that has not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The number of the call in this process.
    pub number: u64,
    /// Its name.
    pub name: &'static str,
    /// For how long.
    pub since: Duration,
}

/// What was given to calls of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Calls.
    pub calls: u64,
    /// Bytes that this rank gave.
    pub bytes: u64,
}

impl Ranks {
    /// The only rank of a run on one device.
    pub fn solo() -> Self {
        Self::default()
    }

    /// All ranks of a run; of one rank, [`solo`](Self::solo) is meant. With `check` every call first compares its
    /// number, its name and its length over the ranks.
    pub fn new(transport: Arc<dyn Transport>, check: bool) -> Self {
        match transport.size() {
            0 | 1 => Self::solo(),
            _ => Self {
                group: Some(Arc::new(Group { transport, calls: Arc::default(), check, attached: Attached::default() })),
            },
        }
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.transport.rank())
    }

    /// Ranks of the group, 1 or more.
    pub fn size(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.transport.size())
    }

    /// Whether there is no other rank.
    pub fn is_solo(&self) -> bool {
        self.group.is_none()
    }

    /// Whether this is rank 0, which writes files and speaks to a person.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn barrier(&self, name: &'static str) -> Result<(), CommError> {
        self.call(name, 0, |t| t.all_gather(&[]).map(|_| ())).map(|_| ())
    }

    /// What every rank gave, in the order of ranks.
    ///
    /// # Errors
    /// A rank that is gone, or that called something else.
    pub fn gather<T: Serialize + DeserializeOwned + Clone>(
        &self,
        name: &'static str,
        own: &T,
    ) -> Result<Vec<T>, CommError> {
        if self.is_solo() {
            return Ok(vec![own.clone()]);
        }
        let bytes = self.encode(name, own)?;
        let all = self.call(name, bytes.len(), |t| t.all_gather(&bytes))?.unwrap_or_default();
        all.iter().map(|bytes| self.decode(name, bytes)).collect()
    }

    /// What every rank gave, in the order of ranks, at rank `root`; elsewhere none.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn gather_to(&self, name: &'static str, root: usize, own: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>, CommError> {
        match self.call(name, own.len(), |t| t.gather_to(root, &own))? {
            Some(all) => Ok(all),
            None => Ok(Some(vec![own])),
        }
    }

    /// What rank 0 makes; on the other ranks `make` is not called.
    ///
    /// # Errors
    /// A rank that is gone, or that called something else.
    pub fn from_first<T: Serialize + DeserializeOwned>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> T,
    ) -> Result<T, CommError> {
        if self.is_solo() {
            return Ok(make());
        }
        if self.is_first() {
            let made = make();
            let bytes = self.encode(name, &made)?;
            self.call(name, bytes.len(), |t| t.broadcast(0, &bytes))?;
            return Ok(made);
        }
        let bytes = self.call(name, 0, |t| t.broadcast(0, &[]))?.unwrap_or_default();
        self.decode(name, &bytes)
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn any(&self, name: &'static str, yes: bool) -> Result<bool, CommError> {
        let mut votes = [f64::from(u8::from(yes))];
        self.sum(name, &mut votes)?;
        Ok(votes[0] > 0.0)
    }

    /// Sums over ranks, in place.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn sum(&self, name: &'static str, values: &mut [f64]) -> Result<(), CommError> {
        self.call(name, size_of_val(values), |t| t.sum_f64(values)).map(|_| ())
    }

    /// Sums over ranks in f32, in place.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn sum_f32(&self, name: &'static str, values: &mut [f32]) -> Result<(), CommError> {
        self.call(name, size_of_val(values), |t| t.sum_f32(values)).map(|_| ())
    }

    /// Sums over ranks of whole numbers, in place: no order of the sum can be told from the result.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn sum_i64(&self, name: &'static str, values: &mut [i64]) -> Result<(), CommError> {
        self.call(name, size_of_val(values), |t| t.sum_i64(values)).map(|_| ())
    }

    /// This rank's part of the sums over ranks; `own` has [`size`](Self::size) parts of equal length.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn reduce_scatter(&self, name: &'static str, own: Vec<f32>) -> Result<Vec<f32>, CommError> {
        match self.call(name, size_of_val(&own[..]), |t| t.reduce_scatter_f32(&own))? {
            Some(part) => Ok(part),
            None => Ok(own),
        }
    }

    /// The parts of all ranks one after the other; all have the same length.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn concat(&self, name: &'static str, own: Vec<u8>) -> Result<Vec<u8>, CommError> {
        Ok(self.call(name, own.len(), |t| t.concat(&own))?.unwrap_or(own))
    }

    /// The ranks that give the same `color`, in the same order.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn split(&self, name: &'static str, color: usize) -> Result<Self, CommError> {
        let part = self.call(name, size_of_val(&color), |t| t.split(color))?.flatten();
        let group = part.zip(self.group.as_ref()).map(|(transport, all)| {
            let (calls, attached) = (all.calls.clone(), Attached::default());
            Arc::new(Group { transport, calls, check: all.check, attached })
        });
        Ok(Self { group })
    }

    /// The ranks that run on the same machine as this one.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn of_node(&self, name: &'static str) -> Result<Self, CommError> {
        match self.call(name, 0, |t| t.node())? {
            Some(node) => self.split(name, node),
            None => Ok(Self::solo()),
        }
    }

    /// The call that this process waits in; for a thread that watches it.
    pub fn waiting(&self) -> Option<Waiting> {
        let calls = self.group.as_ref()?.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, name, since) = calls.waiting?;
        Some(Waiting { number, name, since: since.elapsed() })
    }

    /// What this rank gave to calls of each name so far.
    pub fn traffic(&self) -> BTreeMap<&'static str, Traffic> {
        let calls = self.group.as_ref().map(|group| group.calls.lock().unwrap_or_else(PoisonError::into_inner));
        calls.map_or_else(BTreeMap::new, |calls| calls.traffic.clone())
    }

    /// What belongs to this group: made by the first who asks for a `T`, given to all after it. In a group of one it is
    /// made each time. Where `make` makes calls, all ranks have to ask for it at the same point.
    ///
    /// # Errors
    /// What `make` says; the next one who asks tries again.
    pub fn attached<T: Any + Send + Sync, E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        match &self.group {
            Some(group) => group.attached.get(make),
            None => make().map(Arc::new),
        }
    }

    /// Before a call that goes another way than through here, if calls are compared: whether all ranks make it.
    ///
    /// # Errors
    /// A rank that is gone, or that makes another.
    pub fn agree(&self, name: &'static str) -> Result<(), CommError> {
        match self.group.as_ref().is_some_and(|group| group.check) {
            true => self.barrier(name),
            false => Ok(()),
        }
    }

    /// Counts bytes that went another way than through here: a device's own collectives.
    pub fn count(&self, name: &'static str, bytes: usize) {
        if let Some(group) = &self.group {
            let mut calls = group.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.add(name, bytes);
        }
    }

    /// Ends all ranks of the run with this exit code. Alone, this process.
    pub fn abort(&self, code: i32) -> ! {
        match &self.group {
            Some(group) => group.transport.abort(code),
            None => std::process::exit(code),
        }
    }

    /// Makes a call, none in a group of one: counts it, and says what this process waits in.
    fn call<T>(
        &self,
        name: &'static str,
        bytes: usize,
        make: impl FnOnce(&dyn Transport) -> Result<T, String>,
    ) -> Result<Option<T>, CommError> {
        let Some(group) = &self.group else { return Ok(None) };
        let number = {
            let mut calls = group.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.number += 1;
            calls.waiting = Some((calls.number, name, Instant::now()));
            calls.add(name, bytes);
            calls.number
        };
        let transport = &*group.transport;
        let checked = if group.check { compare(transport, name) } else { Ok(()) };
        let made = checked.and_then(|()| make(transport));
        group.calls.lock().unwrap_or_else(PoisonError::into_inner).waiting = None;
        made.map(Some).map_err(|reason| CommError { rank: transport.rank(), name, number, reason })
    }

    fn encode<T: Serialize>(&self, name: &'static str, value: &T) -> Result<Vec<u8>, CommError> {
        postcard::to_stdvec(value).map_err(|error| self.broken(name, &error.to_string()))
    }

    fn decode<T: DeserializeOwned>(&self, name: &'static str, bytes: &[u8]) -> Result<T, CommError> {
        postcard::from_bytes(bytes).map_err(|error| self.broken(name, &error.to_string()))
    }

    fn broken(&self, name: &'static str, reason: &str) -> CommError {
        let reason = format!("the ranks do not say the same thing: {reason}");
        CommError { rank: self.rank(), name, number: 0, reason }
    }
}

impl Calls {
    fn add(&mut self, name: &'static str, bytes: usize) {
        let traffic = self.traffic.entry(name).or_default();
        traffic.calls += 1;
        traffic.bytes += bytes as u64;
    }
}

/// Whether all ranks are about to make the same call.
fn compare(transport: &dyn Transport, name: &str) -> Result<(), String> {
    let all = transport.all_gather(name.as_bytes())?;
    match all.iter().position(|other| other != name.as_bytes()) {
        None => Ok(()),
        Some(rank) => Err(format!("rank {rank} calls `{}`", String::from_utf8_lossy(&all[rank]))),
    }
}
