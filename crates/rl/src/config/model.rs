//! `[model]`: which weights are trained.

use super::field::choice;
use super::section::section;

choice! {
    /// Where the initial weights come from.
    pub enum Init {
        /// The weights in the model folder.
        Pretrained = "",
        /// Random weights, the architecture of the embedded toy model (about one million parameters).
        Toy = "toy",
        /// Random weights, a few million parameters: large enough to measure, small enough for a CPU.
        Small = "small",
        /// Random weights, the architecture of Qwen2.5-VL-3B.
        B3 = "3b",
        /// Random weights, the architecture of Qwen2.5-VL-7B.
        B7 = "7b",
        /// Random weights, the architecture of Qwen2.5-VL-32B.
        B32 = "32b",
    }
}

section! {
    /// The model that is trained.
    pub struct Model {
        /// A Hugging Face model folder (config.json, tokenizer.json, preprocessor_config.json,
        /// *.safetensors), or "toy" for the model that is built into the program.
        path: String = String::from("toy"),
        /// Empty: start from the folder's weights. Otherwise start from random weights of this size;
        /// the tokenizer and the image processor still come from `path`.
        init: Init = Init::Pretrained,
        /// Seed of the random weights, where there are any.
        init_seed: u64 = 1 => 0..=i64::MAX as u64,
        /// Keep the vision tower as it is and train only the decoder.
        freeze_vision_tower: bool = false,
    }
}
