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
        /// Random weights, Qwen2-VL of the size of the toy model.
        Qwen2Toy = "qwen2vl-toy",
        /// Random weights, the architecture of Qwen2-VL-2B.
        Qwen2B2 = "qwen2vl-2b",
        /// Random weights, the architecture of Qwen2-VL-7B.
        Qwen2B7 = "qwen2vl-7b",
        /// Random weights, the architecture of Qwen2-VL-72B.
        Qwen2B72 = "qwen2vl-72b",
        /// Random weights, Qwen3-VL of the size of the toy model.
        Qwen3Toy = "qwen3vl-toy",
        /// Random weights, the architecture of Qwen3-VL-2B.
        Qwen3B2 = "qwen3vl-2b",
        /// Random weights, the architecture of Qwen3-VL-4B.
        Qwen3B4 = "qwen3vl-4b",
        /// Random weights, the architecture of Qwen3-VL-8B.
        Qwen3B8 = "qwen3vl-8b",
        /// Random weights, the architecture of Qwen3-VL-32B.
        Qwen3B32 = "qwen3vl-32b",
    }
}

choice! {
    /// Families of models, by their `model_type`.
    pub enum ModelFamily {
        /// Qwen2.5-VL.
        Qwen2_5 = "qwen2_5_vl",
        /// Qwen2-VL.
        Qwen2 = "qwen2_vl",
        /// Qwen3-VL.
        Qwen3 = "qwen3_vl",
    }
}

section! {
    /// The model that is trained.
    pub struct Model {
        /// A Hugging Face model folder (config.json, tokenizer.json, preprocessor_config.json,
        /// *.safetensors), or "toy" for the model that is built into the program.
        path: String = String::from("toy"),
        /// Family of the model that is built in. A folder's is in its config.json.
        family: ModelFamily = ModelFamily::Qwen2_5,
        /// Empty: start from the folder's weights. Otherwise start from random weights of this size;
        /// the tokenizer and the image processor still come from `path`.
        init: Init = Init::Pretrained,
        /// Seed of the random weights, where there are any.
        init_seed: u64 = 1 => 0..=i64::MAX as u64,
        /// Keep the vision tower as it is and train only the decoder.
        freeze_vision_tower: bool = false,
    }
}
