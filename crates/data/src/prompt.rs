//! From a sample to the prompt: format prompt, `<image>` placeholders, chat template.

use std::path::Path;

use guard::limits;
use minijinja::context;

use crate::error::{BadRow, DataError};
use crate::processor::{Content, Encoded, Processor};
use crate::sample::Sample;
use crate::template::Template;

/// Where a picture stands in a problem.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// Names of the built-in format prompts.
pub const BUILT_IN: [&str; 7] = ["math", "math_perception", "r1v", "dapo", "look_back", "srpo", "none"];

const MATH: &str = "{{ content | trim }} Think about the problem step by step first, inside <think> </think> tags. \
                    After that, give the final answer inside \\boxed{}.";
/// VGPO's wording.
const MATH_PERCEPTION: &str = "{{ content | trim }} You first think through the reasoning process as an internal monologue, \
                               enclosed within <think> </think> tags. Then, provide your final answer enclosed within \\boxed{}.";
const R1V: &str = "{{ content | trim }} Think about the problem first, inside <think> </think> tags, and then give the final \
                   answer inside <answer> </answer> tags.";
const DAPO: &str = "Work out the problem below step by step. The last line of your response must read Answer: $ANSWER, where \
                    $ANSWER stands for the answer itself.\n\n{{ content | trim }}\n\nThe last line begins with \"Answer:\".";
/// Asks for the span that the reward of Look-Back wants.
const LOOK_BACK: &str = "{{ content | trim }} Think about the problem first, inside <think> </think> tags. While you think, look at \
                         the picture again at least once and write what you see there inside <back> </back> tags, then think on. \
                         After that, give the final answer inside \\boxed{}.";
/// Asks for the span that SRPO weighs apart.
const SRPO: &str = "{{ content | trim }} First write all that you see in the picture and need inside <perception> </perception> tags, \
                    then reason from it inside <think> </think> tags. After that, give the final answer inside \\boxed{}.";

/// A Jinja template around the problem, which it sees as `content`.
#[derive(Debug)]
pub struct FormatPrompt {
    name: String,
    template: Template,
}

impl FormatPrompt {
    /// A built-in one ([`BUILT_IN`]), or a file that ends in `.jinja`.
    ///
    /// # Errors
    /// An unknown name, an unreadable file, a template that is not Jinja or that leaves `content` out.
    pub fn new(name: &str) -> Result<Self, DataError> {
        let source = match name {
            "math" => MATH.to_owned(),
            "math_perception" => MATH_PERCEPTION.to_owned(),
            "r1v" => R1V.to_owned(),
            "dapo" => DAPO.to_owned(),
            "look_back" => LOOK_BACK.to_owned(),
            "srpo" => SRPO.to_owned(),
            "none" => "{{ content }}".to_owned(),
            file if file.ends_with(".jinja") => {
                guard::file::read_text(Path::new(file), limits().template_bytes).map_err(|e| DataError::io(file, e))?
            }
            _ => {
                let reason = format!("is neither one of {} nor a .jinja file", BUILT_IN.join(", "));
                return Err(DataError::Template { name: name.to_owned(), reason });
            }
        };
        Self::from_source(name, source)
    }

    /// A template from its text; `name` is for messages.
    ///
    /// # Errors
    /// Text that is not Jinja or that leaves `content` out.
    pub fn from_source(name: &str, source: String) -> Result<Self, DataError> {
        let fail = |reason: String| DataError::Template { name: name.to_owned(), reason };
        let template = Template::new(&guard::echo(name), &source, |environment| {
            environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        });
        let format = Self { name: name.to_owned(), template: template.map_err(|e| fail(e.to_string()))? };
        // A template that forgets the problem would train on noise for hours.
        const PROBE: &str = "the-problem-itself";
        if !format.render(PROBE)?.contains(PROBE) {
            return Err(fail("does not write the problem; put {{ content }} into it".to_owned()));
        }
        Ok(format)
    }

    /// The name or file that it was made from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The template around `content`.
    ///
    /// # Errors
    /// A template that fails at run time.
    pub fn render(&self, content: &str) -> Result<String, DataError> {
        self.template
            .render(context! { content })
            .map_err(|e| DataError::Template { name: self.name.clone(), reason: e.to_string() })
    }
}

/// Splits at each `<image>`: text, picture, text, ... with empty texts left out.
pub fn split_at_images(text: &str) -> Vec<Content> {
    let mut content = Vec::new();
    for (k, piece) in text.split(IMAGE_PLACEHOLDER).enumerate() {
        if k > 0 {
            content.push(Content::Image(k - 1));
        }
        if !piece.is_empty() {
            content.push(Content::Text(piece.to_owned()));
        }
    }
    content
}

/// What can be said about a row without a template or tokenizer: its problem, its answer, and its `<image>` placeholders, which
/// must be as many as its pictures.
///
/// # Errors
/// A [`BadRow`] naming what is wrong.
pub fn check_row(sample: &Sample) -> Result<(), BadRow> {
    let bad = |reason: &str| BadRow { id: sample.id.clone(), index: sample.index, reason: reason.to_owned() };
    if sample.problem.trim().is_empty() {
        return Err(bad("the problem is empty"));
    }
    if sample.answer.trim().is_empty() && sample.solution.as_deref().is_none_or(|s| s.trim().is_empty()) {
        return Err(bad("the answer is empty"));
    }
    check_placeholders(sample, &sample.problem)
}

fn check_placeholders(sample: &Sample, text: &str) -> Result<(), BadRow> {
    let placeholders = text.matches(IMAGE_PLACEHOLDER).count();
    if placeholders == sample.images.len() {
        return Ok(());
    }
    let reason = format!(
        "placeholder count differs: the problem has {placeholders} {IMAGE_PLACEHOLDER} and the row has {} images",
        sample.images.len()
    );
    Err(BadRow { id: sample.id.clone(), index: sample.index, reason })
}

/// The message of a sample, checked as far as that goes without looking at a picture.
fn message(sample: &Sample, format: &FormatPrompt) -> Result<Vec<Content>, BadRow> {
    check_row(sample)?;
    let text = format.render(&sample.problem).map_err(|e| set_aside(sample, e))?;
    // Once more: a template can write the problem twice, or a placeholder of its own.
    check_placeholders(sample, &text)?;
    Ok(split_at_images(&text))
}

/// The prompt of a sample: format prompt, pictures at their placeholders, chat template.
///
/// # Errors
/// A [`BadRow`]: placeholders and pictures that differ in number, a picture that cannot be decoded or is too large, an empty
/// problem or answer, special tokens in the text.
pub fn build_prompt(
    sample: &Sample,
    format: &FormatPrompt,
    processor: &Processor,
    system: Option<&str>,
) -> Result<Encoded, BadRow> {
    let content = message(sample, format)?;
    processor.encode(system, &content, &sample.images).map_err(|e| set_aside(sample, e))
}

/// The length of [`build_prompt`]'s `input_ids`, no pixel decoded: for setting over-long prompts aside.
///
/// # Errors
/// As [`build_prompt`], except that damage behind an image header goes unseen.
pub fn count_prompt_tokens(
    sample: &Sample,
    format: &FormatPrompt,
    processor: &Processor,
    system: Option<&str>,
) -> Result<usize, BadRow> {
    let content = message(sample, format)?;
    processor.count_tokens(system, &content, &sample.images).map_err(|e| set_aside(sample, e))
}

fn set_aside(sample: &Sample, error: DataError) -> BadRow {
    BadRow { id: sample.id.clone(), index: sample.index, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_anywhere() {
        let text = |s: &str| Content::Text(s.into());
        assert_eq!(split_at_images("<image>sum?"), [Content::Image(0), text("sum?")]);
        assert_eq!(
            split_at_images("a<image><image> b<image>"),
            [text("a"), Content::Image(0), Content::Image(1), text(" b"), Content::Image(2)]
        );
        assert_eq!(split_at_images("none"), [text("none")]);
    }

    #[test]
    fn built_in_formats_keep_the_problem() {
        for name in BUILT_IN {
            let out = FormatPrompt::new(name).unwrap().render("  <image>{{ x }} & <b>?").unwrap();
            assert!(out.contains("<image>{{ x }} & <b>?"), "{name}: {out}");
        }
        assert_eq!(FormatPrompt::new("none").unwrap().render(" as is ").unwrap(), " as is ");
        assert!(
            FormatPrompt::new("math_perception")
                .unwrap()
                .render("p")
                .unwrap()
                .ends_with("Then, provide your final answer enclosed within \\boxed{}.")
        );
    }

    #[test]
    fn bad_formats_are_named() {
        assert!(FormatPrompt::new("maths").unwrap_err().to_string().contains("math_perception"));
        assert!(FormatPrompt::new("no-such.jinja").unwrap_err().to_string().contains("no-such.jinja"));
        let error = FormatPrompt::from_source("x.jinja", "no variable".into()).unwrap_err().to_string();
        assert!(error.contains("{{ content }}"), "{error}");
        assert!(FormatPrompt::from_source("x.jinja", "{% if %}".into()).is_err());
    }
}
