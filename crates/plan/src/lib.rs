//! What a run asks of each device, by count: its memory, and the time of a step. From the configuration, the
//! architecture and the number of ranks, before anything is loaded; nothing here needs a device.
//!
//! ```
//! use burn::tensor::DType;
//! use model_qwen2vl::QwenVlConfig;
//! use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};
//! use rl::config::Config;
//!
//! let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
//! let ranks = RankGrid { data: 8, tensor: 1 };
//! let plan = |zero| MemoryPlan::new(&Config::default(), &shapes, ranks, zero, 80 << 30);
//! let [whole, part] = [plan(ZeroStage::One)?, plan(ZeroStage::Two)?];
//! assert_eq!(whole.gradients, 4 * shapes.counts()[0]);
//! assert_eq!(part.gradients, whole.gradients.div_ceil(8));
//! # Ok::<(), rl::TrainError>(())
//! ```
//!
//! | file | what |
//! |---|---|
//! | `parameters` | shapes of the parameters, and which part of them a rank has |
//! | `pass` | activations |
//! | `cache` | keys and values, image embeddings |
//! | `memory` | the sum of all, for an update and for sampling |
//! | `lower` | which keys lower it |
//! | `table` | all of it in words |
//! | `work` | operations and bytes of a pass |
//! | `step` | those of a step, part by part |
//! | `speed` | how fast a device is: measured by `bench`, or by its data sheet |
//! | `time` | the seconds of a step in words |

mod cache;
mod lower;
mod memory;
mod parameters;
mod pass;
mod speed;
mod step;
mod table;
mod time;
mod work;

pub use lower::{Lowered, lowered};
pub use memory::{MemoryPlan, RankGrid, ZeroStage};
pub use parameters::ModelShapes;
pub use pass::{PassMemory, PassSize};
pub use speed::{CountedWork, DATA_SHEETS, DataSheet, DeviceSpeeds, MeasuredWork, Seconds, StepFigures, WorkKind};
pub use step::{StepLengths, StepPart, StepWork, rl_step, sft_step};
pub use table::{stage, table};
pub use time::{StepCount, time_table};
pub use work::{GroupSize, decode_bytes, decoder_flops, optimizer_bytes, tower_flops};
