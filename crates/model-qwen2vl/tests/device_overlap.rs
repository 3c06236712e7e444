//! The sums of gradients beside the backward that goes on, on CUDA: which calls a step makes of the driver and of NCCL,
//! and in which order, under the stand-ins for both (tools/standin). The stand-in refuses every kernel, copy and
//! release of memory that a collective has and that nothing has waited for, so that a wait that is missing fails here.
#![cfg(feature = "cuda")]

#[path = "common/echo.rs"]
mod echo;
#[path = "../../../tests/support/standin.rs"]
mod standin;

use std::process::Command;

use burn::tensor::{DType, IndexingUpdateOp, Tensor};
use burn_cuda::{Cuda, CudaDevice};
use comm::Ranks;
use kernels::host::int_tensor;
use kernels::params::SummedOver;
use kernels::zero::{GradientList, ReducedGradients, ZeroLayout};
use kernels::{Gradients, head, host};
use model_qwen2vl::{QwenVl, QwenVlConfig};
use policy::{PackedBatch, Pictures, Scoring};
use standin::{DriverLog, Event, Standin, count};

type B = Cuda<f32, i32>;

/// Layers of the preset that is trained.
const LAYERS: usize = 4;
/// Passes of a step.
const PASSES: usize = 2;

/// Runs the test `name` of this file under the stand-ins, and reads the driver's log.
fn logged(name: &str, settings: &[(&str, &str)]) -> Option<DriverLog> {
    let standin = Standin::built()?;
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]).current_dir(place.path());
    standin.under(&mut command, place.path());
    standin.with_nccl(&mut command);
    let output = command.envs(settings.iter().copied()).output().unwrap();
    let log = DriverLog::read(place.path());
    let refused: Vec<_> = log.0.iter().filter(|event| "RXO".contains(event.kind)).take(5).collect();
    assert!(refused.is_empty(), "the driver refused calls: {refused:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{error}");
    Some(log)
}

/// What the stand-in says where there is no compiler for it.
fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "skipped where CI is set: {why}");
    println!("SKIPPED: {why}");
}

/// The gradients of two passes on the first of two ranks, and their norm.
#[test]
#[ignore = "computes nothing and is run by the tests below, under the stand-ins"]
fn gradients_on_two_ranks() {
    let device = CudaDevice::default();
    let layout = ZeroLayout::of(&echo::ranks(2), &Ranks::solo()).unwrap();
    let mut model = QwenVl::<B>::random(QwenVlConfig::preset("toy").unwrap(), 1, DType::F32, &device);
    let mut list = GradientList::default();
    model.visit(&mut list);
    let reduced = ReducedGradients::new(&layout, &device, list);
    let mut grads = Gradients::<B>::default().summed(SummedOver::Parts(reduced));
    grads.begin(PASSES);
    for pass in 0..PASSES {
        let prompt = model.prompt(vec![7 + pass as u32; 9], vec![], vec![]).unwrap();
        let response = [20u32, 21, 22];
        let batch = PackedBatch::new(&model.config, &[(&prompt, vec![&response[..]; 2])], &device);
        let (hidden, tape) = model.forward_saving(&batch, Pictures::Embedded(None), true);
        let rows = int_tensor(batch.predicting_rows(), &device);
        let targets = int_tensor([20, 21, 22, 20, 21, 22], &device);
        let (weight, name) = model.head();
        let states = hidden.clone().select(0, rows.clone());
        let d_log_probs = Tensor::ones([6], &device);
        let dh = head::log_probs_backward(states, weight, targets, 1.0, d_log_probs, None, name, &mut grads);
        grads.done_first(name);
        let d_hidden = hidden.zeros_like().select_assign(0, rows, dh, IndexingUpdateOp::Add);
        model.backward(tape, &batch, d_hidden, &mut grads);
        grads.end_pass();
    }
    grads.finish();
    let sums = grads.take_sums().unwrap().take().unwrap();
    assert_eq!(host::floats(sums.squared_norm(&device)).unwrap(), [0.0], "the stand-in computes nothing");
}

fn is_sum(event: &Event) -> bool {
    event.kind == 'N' && event.details.starts_with("reduce-scatter")
}

fn is_hold(event: &Event) -> bool {
    event.kind == 'E' && event.details == "hold context"
}

/// Of each time that sums were begun and then waited for: how many were begun, and launches in between.
fn flights(log: &DriverLog, is_wait: fn(&Event) -> bool) -> Vec<(usize, usize)> {
    let (mut flights, mut begun, mut launches, mut open) = (Vec::new(), 0, 0, 0);
    for event in &log.0 {
        if is_sum(event) {
            (begun, open, launches) = (begun + 1, open + 1, 0);
        } else if event.kind == 'L' {
            launches += 1;
        } else if is_wait(event) && open > 0 {
            if begun > 0 {
                flights.push((begun, launches));
            }
            (begun, open) = (0, open - 1);
        }
    }
    assert_eq!(open, 0, "sums that nothing waits for");
    flights
}

/// A layer's sums go to NCCL's stream behind its backward, and what is held for them comes behind the launches of the
/// next layer's backward: no kernel of that waits for them.
#[test]
fn sums_are_under_way_while_the_next_layer_is_computed() {
    let Some(log) = logged("gradients_on_two_ranks", &[]) else { return };
    let order: Vec<&Event> = log.0.iter().filter(|event| "ENW".contains(event.kind)).collect();
    for i in (0..order.len()).filter(|&i| is_sum(order[i])) {
        let before = [&order[i - 2], &order[i - 1]].map(|event| format!("{} {}", event.kind, event.details));
        assert_eq!(before, ["E record context", "W event"], "before call {i}");
    }
    let flights = flights(&log, is_hold);
    println!("sums begun together, and launches before the first is waited for: {flights:?}");
    // A layer of the decoder has more kernels, and fewer than a hundred are no layer's backward.
    // A layer's backward has more than 20 launches, nothing else between sums has. Weights and biases of q, k and v are
    // in one tensor each; the output, the MLP's two, two norms; the last norm with the first layer.
    let layers: Vec<usize> = flights.iter().filter(|(_, launches)| *launches > 20).map(|(begun, _)| *begun).collect();
    assert!(layers.len() >= PASSES * (LAYERS - 1), "{flights:?}");
    assert_eq!(layers.iter().filter(|begun| [7, 8].contains(begun)).count(), PASSES * (LAYERS - 1), "{flights:?}");
    assert!(layers.iter().all(|begun| *begun <= 8), "more than a layer's sums are under way: {flights:?}");
    let count = |is: fn(&Event) -> bool| log.0.iter().filter(|event| is(event)).count();
    assert_eq!(count(is_hold), count(is_sum), "each is waited for once");
}

/// Where the driver has no events of contexts, the host waits for the kernels before a call, and for the call only when
/// the next layer is computed.
#[test]
fn an_older_driver_sums_beside_the_backward_too() {
    let Some(log) = logged("gradients_on_two_ranks", &[("STANDIN_DRIVER", "12040")]) else { return };
    assert_eq!(count(&log.0, 'E'), 0);
    let flights = flights(&log, |event| event.kind == 'Y' && event.details == "event of a collective");
    println!("sums begun together, and launches before the first is waited for: {flights:?}");
    assert!(flights.iter().filter(|(_, launches)| *launches > 20).count() >= PASSES * (LAYERS - 1), "{flights:?}");
}
