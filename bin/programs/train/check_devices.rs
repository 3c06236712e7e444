//! `train --check-devices`: whether the devices of all ranks tell each other what they should, and how fast. Each
//! collective in both orders of streams; values, then a chain that goes wrong if kernels and collectives overtake each
//! other, then seconds by size.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use burn_cuda::{Cuda, CudaDevice};
use comm::Ranks;
use model_qwen2vl::ops::nccl::{CallInFlight, Communicator, StreamOrder, version};
use model_qwen2vl::params::cast_to;
use model_qwen2vl::pending::PendingCall;
use model_qwen2vl::{DeviceError, host};

use crate::common::OnBackend;

type B = Cuda<f32, i32>;

/// Elements whose values are compared: one, a few, more than a kernel's block, and a layer's.
const LENGTHS: [usize; 4] = [1, 1000, 65_537, 1 << 22];
/// Links of the chain, and its elements: enough for a kernel to be under way when the next call is made.
const CHAIN: [usize; 2] = [50, 1 << 24];
/// Bytes that are timed, and how often each.
const TIMED: [usize; 6] = [1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 26, 1 << 28];
const TIMES: usize = 20;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collective {
    AllReduce,
    ReduceScatter,
    AllGather,
}

use Collective::{AllGather, AllReduce, ReduceScatter};

impl Collective {
    const ALL: [Self; 3] = [AllReduce, ReduceScatter, AllGather];

    fn name(self) -> &'static str {
        match self {
            AllReduce => "all-reduce",
            ReduceScatter => "reduce-scatter",
            AllGather => "all-gather",
        }
    }

    fn run(self, communicator: &Communicator, x: Tensor<B, 1>) -> Result<Tensor<B, 1>, DeviceError> {
        let x = x.into_primitive().tensor();
        let done = match self {
            AllReduce => communicator.all_reduce(x),
            ReduceScatter => communicator.reduce_scatter(x),
            AllGather => communicator.all_gather(x),
        };
        Ok(Tensor::from_primitive(TensorPrimitive::Float(done?)))
    }

    /// The value of element `i` of `len` that rank `rank` of `ranks` has to get.
    fn expected(self, i: usize, len: usize, ranks: &Ranks) -> f32 {
        let sum = |i: usize| (0..ranks.size()).map(|rank| given(i, rank)).sum();
        match self {
            AllReduce => sum(i),
            ReduceScatter => sum(ranks.rank() * len + i),
            AllGather => given(i % (len / ranks.size()), i / (len / ranks.size())),
        }
    }

    /// Bytes that cross a link for each byte of the whole (NCCL's bus bandwidth).
    fn crossing(self, ranks: usize) -> f64 {
        let part = (ranks - 1) as f64 / ranks as f64;
        if self == AllReduce { 2.0 * part } else { part }
    }
}

/// What rank `rank` gives: sums of as many as 256 ranks are exact in bf16.
fn given(i: usize, rank: usize) -> f32 {
    ((i / 3 + rank) % 2) as f32
}

/// Elements that are wrong of one collective over `len` elements a rank.
fn wrong(
    which: Collective,
    communicator: &Communicator,
    ranks: &Ranks,
    device: &CudaDevice,
    (len, dtype): (usize, DType),
) -> Result<usize, DeviceError> {
    let len = if which == ReduceScatter { len * ranks.size() } else { len };
    let values: Vec<f32> = (0..len).map(|i| given(i, ranks.rank())).collect();
    let x = Tensor::<B, 1>::from_data(TensorData::new(values, [len]), device);
    let found = host::floats(which.run(communicator, cast_to(x, dtype))?)?;
    let len = found.len();
    Ok((0..len).filter(|&i| found[i] != which.expected(i, len, ranks)).count())
}

/// Elements that are wrong at the end of a chain of kernel, all-reduce, kernel, with nothing that waits in between.
fn wrong_in_chain(communicator: &Communicator, ranks: &Ranks, device: &CudaDevice) -> Result<usize, DeviceError> {
    let [links, len] = CHAIN;
    let mut x = Tensor::<B, 1>::zeros([len], device);
    for _ in 0..links {
        x = AllReduce.run(communicator, x.add_scalar(1.0))?.div_scalar(ranks.size() as f64);
    }
    Ok(host::floats(x)?.into_iter().filter(|&value| value != links as f32).count())
}

/// Elements that are wrong of reduce-scatters that are under way while kernels run which do not wait for them: of the
/// sums, and of what the kernels make meanwhile.
fn wrong_under_way(communicator: &Arc<Communicator>, ranks: &Ranks, device: &CudaDevice) -> Result<usize, DeviceError> {
    let [links, len] = CHAIN;
    let len = len.next_multiple_of(ranks.size()) + ranks.size();
    let mut x = Tensor::<B, 1>::zeros([len], device);
    let mut sum = Tensor::<B, 1>::zeros([len / ranks.size()], device);
    let mut waited_for = |(part, call): (Tensor<B, 1>, Option<CallInFlight>)| {
        if let Some(call) = call {
            call.wait()?;
        }
        sum = sum.clone().add(part);
        Ok::<(), DeviceError>(())
    };
    let mut before = None;
    for link in 0..links {
        // New memory, while the last call has that of its own.
        let given = Tensor::<B, 1>::full([len], link as f32, device).into_primitive().tensor();
        let (part, call) = communicator.begin_reduce_scatter(given)?;
        x = x.mul_scalar(1.0).add_scalar(1.0);
        let part = Tensor::from_primitive(TensorPrimitive::Float(part));
        before.replace((part, call)).map_or(Ok(()), &mut waited_for)?;
    }
    before.map_or(Ok(()), &mut waited_for)?;
    let expected = ranks.size() * links * (links - 1) / 2;
    let wrong = |values: Vec<f32>, expected: usize| values.into_iter().filter(|v| *v != expected as f32).count();
    Ok(wrong(host::floats(sum)?, expected) + wrong(host::floats(x)?, links))
}

/// Seconds of a call over `bytes`, the whole of it.
fn seconds(
    which: Collective,
    communicator: &Communicator,
    ranks: &Ranks,
    device: &CudaDevice,
    bytes: usize,
) -> Result<f64, DeviceError> {
    let len = (bytes / 4).next_multiple_of(ranks.size());
    let own = if which == AllGather { len / ranks.size() } else { len };
    let x = Tensor::<B, 1>::zeros([own], device);
    let mut clock = Instant::now();
    for i in 0..=TIMES {
        which.run(communicator, x.clone())?;
        if i == 0 {
            host::sync::<B>(device)?;
            clock = Instant::now();
        }
    }
    host::sync::<B>(device)?;
    Ok(clock.elapsed().as_secs_f64() / TIMES as f64)
}

/// The check as what a backend runs: CUDA's, for which it is asked.
pub(super) struct CheckDevices {
    /// All of them are checked together.
    pub ranks: Ranks,
}

impl OnBackend for CheckDevices {
    type Output = Result<(String, bool), DeviceError>;
    fn run<K: model_qwen2vl::Kernels>(self, device: K::Device, _: DType) -> Self::Output {
        match (&device as &dyn Any).downcast_ref::<CudaDevice>() {
            Some(device) => check_devices(&self.ranks, device),
            None => Err(DeviceError(format!("{device:?} is no CUDA device"))),
        }
    }
}

/// All checks on this rank's device; the report, and whether everything was right on all ranks.
///
/// # Errors
/// No NCCL; a device or a rank that fails.
fn check_devices(ranks: &Ranks, device: &CudaDevice) -> Result<(String, bool), DeviceError> {
    let mut out = format!("NCCL {}, {} ranks\n", version()?, ranks.size());
    let mut right = true;
    for order in [StreamOrder::Events, StreamOrder::Waiting] {
        let communicator = match Communicator::new(device, ranks, Some(order)) {
            Ok(communicator) => Arc::new(communicator),
            Err(error) if order == StreamOrder::Events => {
                out += &format!("order {order:?}: {error}\n");
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut count = 0;
        for which in Collective::ALL {
            for dtype in [DType::F32, DType::BF16] {
                for len in LENGTHS {
                    count += wrong(which, &communicator, ranks, device, (len, dtype))?;
                }
            }
        }
        let in_chain = wrong_in_chain(&communicator, ranks, device)?;
        let under_way = wrong_under_way(&communicator, ranks, device)?;
        let mut wrongs = [count as f64, in_chain as f64, under_way as f64];
        ranks.sum("wrong values", &mut wrongs)?;
        right &= wrongs == [0.0; 3];
        let [values, chain, beside] = wrongs;
        out += &format!(
            "order {order:?}: {values} wrong values, {chain} in a chain of {}, {beside} beside kernels\n",
            CHAIN[0]
        );
        out += &timed(&communicator, ranks, device)?;
    }
    Ok((out, right))
}

/// Microseconds and GB/s over the bus of each collective by size.
fn timed(communicator: &Communicator, ranks: &Ranks, device: &CudaDevice) -> Result<String, DeviceError> {
    let mut out = format!("  {:>12}", "bytes");
    for which in Collective::ALL {
        out += &format!("  {:>14} us  GB/s", which.name());
    }
    out.push('\n');
    for bytes in TIMED {
        out += &format!("  {bytes:>12}");
        for which in Collective::ALL {
            let seconds = seconds(which, communicator, ranks, device, bytes)?;
            let bus = which.crossing(ranks.size()) * bytes as f64 / seconds / 1e9;
            out += &format!("  {:>14.1}  {bus:>7.1}", 1e6 * seconds);
        }
        out.push('\n');
    }
    Ok(out)
}
