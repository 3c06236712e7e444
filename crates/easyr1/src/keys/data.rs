//! `data`.

use super::keys;
use crate::table::{Fate::*, KeyEntry};

pub(crate) const KEYS: &[KeyEntry] = keys! {
    "train_files": Files = "\"\"" => Derived(&["data.train_files"], "a list of one; none where it is empty");
    "val_files": Files = "\"\"" => Derived(&["data.val_files"], "a list of one; none where it is empty");
    "prompt_key": Text = "prompt" => Same("data.prompt_key");
    "answer_key": Text = "answer" => Same("data.answer_key");
    "image_key": Text = "images" => Same("data.image_key");
    "video_key": Text = "videos" => Ignored("no videos are read; a row without pictures is text");
    "image_dir": TextOrNull = "null" => Derived(&["data.image_dir"], "null is the folder of the data file");
    "video_fps": Number = "2.0" => Ignored("no videos are read");
    "max_prompt_length": Int = "512" => Same("data.max_prompt_length");
    "max_response_length": Int = "512" => Same("data.max_response_length");
    "rollout_batch_size": Int = "512" => Same("data.rollout_batch_size");
    "mini_rollout_batch_size": IntOrNull = "null" => Derived(&["trainer.max_try_make_batch"],
        "a round of dynamic sampling takes data.rollout_batch_size prompts here, so the limit of rounds is counted in \
         those");
    "val_batch_size": Int = "-1" => Derived(&["data.val_batch_size"],
        "-1, all at once, is the default of 512: it changes memory and speed only");
    "format_prompt": TextOrNull = "null" => Derived(&["data.format_prompt"],
        "a file that is there is used as it is; math, r1v, dapo and math_perception of EasyR1 and its forks stand for \
         the built-in prompts of those names, in words of their own, where the file is not there; null is \"none\"");
    "override_chat_template": TextOrNull = "null" => Only(&["null"],
        "the chat template is the model folder's; put the file there as chat_template.jinja");
    "shuffle": Bool = "true" => Same("data.shuffle");
    "seed": Int = "1" => Derived(&["data.seed"], "the same number, another order");
    "min_pixels": IntOrNull = "262144" => Derived(&["data.min_pixels"], "null, no limit, is 0");
    "max_pixels": IntOrNull = "4194304" => Derived(&["data.max_pixels"], "null, no limit, is 0");
    "filter_overlong_prompts": Bool = "true" => Derived(&["data.filter_overlong_prompts"],
        "where it is false, a prompt that is too long ends the run; EasyR1 cuts it");
    "filter_overlong_prompts_workers": Int = "16" => Ignored("all cores read ahead");
};
