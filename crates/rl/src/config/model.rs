//! `[model]`: which weights are trained.

use super::section::section;

section! {
    /// The model that is trained.
    pub struct Model {
        /// A Hugging Face model folder (config.json, tokenizer.json, preprocessor_config.json,
        /// *.safetensors), or "toy" for the model that is built into the program.
        path: String = String::from("toy"),
        /// Family of the model that is built in, by its `model_type`; a folder's is in its config.json. Empty: the
        /// first that the program knows. A name that is none gets the list.
        family: String = String::new(),
        /// Empty: start from the folder's weights. Otherwise start from random weights of this architecture; the
        /// tokenizer and the image processor still come from `path`. A name that is none gets the list.
        init: String = String::new(),
        /// Seed of the random weights, where there are any.
        init_seed: u64 = 1 => 0..=i64::MAX as u64,
        /// Keep the vision tower as it is and train only the decoder.
        freeze_vision_tower: bool = false,
    }
}
