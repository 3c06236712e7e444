//! `[data]`: what is read, and how a row becomes a prompt.

use ::data::{Alpha, DataSpec, ExifOrientation, Keys};

use super::Config;
use super::field::choices;
use super::section::section;

choices!(Alpha {
    /// Pictures with transparency are laid on white.
    White = "white",
    /// The alpha channel is dropped.
    Drop = "drop",
});
choices!(ExifOrientation {
    /// Pictures are turned as their EXIF says.
    Apply = "apply",
    /// They are left as stored.
    Ignore = "ignore",
});

section! {
    /// Data sets and prompts.
    pub struct Data {
        /// Training data: parquet or JSONL files, folders, globs, `path@split`, a data set on the Hugging Face hub
        /// (`owner/name`, `owner/name@split`, `owner/name@revision@split`) or `toy:NAME?key=value`. An
        /// entry may be a table {path, weight}; `weight` is how often its rows are seen in an epoch.
        train_files: Vec<DataSpec> = Vec::new(),
        /// Validation data, in the same forms. Empty: no validation.
        val_files: Vec<DataSpec> = Vec::new(),
        /// Column of the problem text, with an `<image>` placeholder where each image stands, or with numbered ones
        /// (`<image 1>`, `<image1>`, `<image_1>`), which name their images.
        prompt_key: String = String::from("problem"),
        /// Column of the reference answer.
        answer_key: String = String::from("answer"),
        /// Column of the images; where it is missing, numbered columns (`image_1`, `image_2` ...) are read.
        image_key: String = String::from("images"),
        /// Column of a worked response; supervised stages learn it.
        solution_key: String = String::from("solution"),
        /// Column of a name for the row, used in messages; the row number where it is absent.
        id_key: String = String::from("id"),
        /// Column of the task's name, for metrics by task, where there is one.
        task_key: String = String::from("task"),
        /// Folder that relative image paths start from, and that no image path may leave (docs/limits.md). Empty: the
        /// folder of the data file.
        image_dir: String = String::new(),
        /// How the problem is put into words: "math", "math_perception", "r1v", "dapo", "look_back", "srpo", "none", or
        /// a Jinja file that uses `content`.
        format_prompt: String = String::from("math"),
        /// System message in front of each prompt. Empty: the chat template's own.
        system_prompt: String = String::new(),
        /// Longest prompt in tokens, images included.
        max_prompt_length: usize = 2048 => 1..=1_048_576,
        /// Longest response in tokens; generation stops there.
        max_response_length: usize = 2048 => 1..=1_048_576,
        /// Prompts in one training step, each answered `rollout.n` times.
        rollout_batch_size: usize = 512 => 1..=1_048_576,
        /// Validation prompts generated together; it changes speed and memory, not the result.
        val_batch_size: usize = 512 => 1..=1_048_576,
        /// Validate on the first so many rows only. 0: all.
        val_max_samples: usize = 0 => 0..=1_000_000_000_000,
        /// Visit the training rows in a new random order each epoch.
        shuffle: bool = true,
        /// Seed of that order.
        seed: u64 = 1 => 0..=i64::MAX as u64,
        /// Let the first step of a stage take the rows of its first epoch that cost most, in turn the longest prompts
        /// and those with the most image tokens: memory that does not suffice then shows in the first minute and not
        /// hours later. The other rows keep their order, and each is seen as often as without it. All rows are looked
        /// at before the stage begins.
        worst_first: bool = false,
        /// Images with fewer pixels are enlarged to this many before the image processor resizes them within the limits
        /// of the model folder (EasyR1's process_image). 0: none is.
        min_pixels: usize = 262_144 => 0..=268_435_456,
        /// Images with more pixels are reduced to this many before the image processor resizes them within the limits
        /// of the model folder. 0: none is.
        max_pixels: usize = 4_194_304 => 0..=4_294_967_296,
        /// What becomes of transparency: "white" lays the image on white, as transformers does; "drop" drops the alpha
        /// channel, as PIL's convert("RGB") and EasyR1 do.
        alpha: Alpha = Alpha::White,
        /// "apply" turns images as their EXIF says, as transformers' load_image does; "ignore" leaves them as they are
        /// stored, as EasyR1 does.
        exif_orientation: ExifOrientation = ExifOrientation::Apply,
        /// Set rows aside whose prompt exceeds `max_prompt_length`; otherwise the first one ends the run.
        filter_overlong_prompts: bool = true,
    }
}

impl Data {
    /// The form of answer that a built-in prompt asks for; `None` for "none" and files of the user's, of which it is
    /// not known.
    pub(crate) fn asked_form(&self) -> Option<&'static str> {
        match self.format_prompt.as_str() {
            "math" | "math_perception" | "look_back" | "srpo" => Some("\\boxed{}"),
            "r1v" => Some("<answer> tags"),
            "dapo" => Some("a last line \"Answer: ...\""),
            _ => None,
        }
    }
}

impl Config {
    /// The names of the columns.
    pub fn to_keys(&self) -> Keys {
        let data = &self.data;
        Keys {
            prompt_key: data.prompt_key.clone(),
            answer_key: data.answer_key.clone(),
            image_key: data.image_key.clone(),
            solution_key: data.solution_key.clone(),
            id_key: data.id_key.clone(),
            task_key: data.task_key.clone(),
            extra: Vec::new(),
        }
    }
}
