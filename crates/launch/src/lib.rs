//! From a path to something that runs: the one place that opens models, and the one that starts a training run.
//!
//! | question | file |
//! |---|---|
//! | what does `--model PATH` name, and how is it opened | [`ModelFolder`] in `folder` |
//! | how did the run of a model ask its questions | [`RunSettings`] in `run` |
//! | what is below adapters, and do a checkpoint's fit | `adapted` |
//! | do the files of a folder belong to one model, and what ends its responses | `checks` |
//! | the embedded toy model | `toy` |
//! | from a configuration to a run | [`train()`] |
//!
//! `rl` knows a policy, this crate knows the model: whoever trains another one writes another `train`.
//!
//! ```no_run
//! use burn::tensor::DType;
//! use launch::{ModelFolder, PictureOptions};
//!
//! // A folder in the Hugging Face layout, a run folder of `train`, or a checkpoint of one.
//! let folder = ModelFolder::open("runs/toy".as_ref())?;
//! let processor = folder.processor(PictureOptions::default())?;
//! let end = folder.end_tokens(&processor)?;
//! let model = folder.load::<burn_flex::Flex>(DType::F32, &Default::default())?;
//! println!("{} layers; a response ends with one of {end:?}", model.config.text.num_hidden_layers);
//! # Ok::<(), rl::TrainError>(())
//! ```

mod adapted;
mod checks;
mod folder;
mod names;
mod run;
mod toy;
mod train;

pub use checks::end_tokens;
pub use folder::{ModelFolder, PictureOptions};
pub use names::check_model_names;
pub use run::RunSettings;
pub use toy::{toy_config, toy_world, write_toy_folder};
pub use train::{configured, stage_prompts, train, train_on};
