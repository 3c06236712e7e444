//! From a sample to the prompt: format prompt, placeholders of pictures, chat template.
//!
//! A text says where its pictures stand in one of two ways. `<image>` takes the next picture of the row; there must
//! be as many as pictures. `<image 1>`, `<image1>` or `<image_1>` (in any case) takes the picture of that number,
//! counted from 1; a number may come back (the picture stands there again), and every picture must be named. A text
//! that does both is refused, as no order is certain.

use std::path::Path;

use guard::limits;
use minijinja::context;

use crate::error::{BadRow, DataError};
use crate::processor::{Content, Encoded, Processor};
use crate::sample::Sample;
use crate::template::Template;

/// Where the next picture stands in a problem.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// A placeholder in a text: the number of its picture from 1, or none where it takes the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placeholder {
    start: usize,
    end: usize,
    number: Option<usize>,
}

/// `<image>`, and `<image` in any case followed by an optional blank, `_` or `-`, a number and `>`.
fn placeholders(text: &str) -> Vec<Placeholder> {
    const HEAD: &str = "<image";
    let mut found = Vec::new();
    // Offsets are the same in both.
    for (start, _) in text.to_ascii_lowercase().match_indices(HEAD) {
        let rest = &text[start + HEAD.len()..];
        let Some((inside, _)) = rest.split_once('>') else { break };
        let end = start + HEAD.len() + inside.len() + 1;
        let digits = inside.strip_prefix([' ', '_', '-']).unwrap_or(inside);
        let number = match inside {
            "" if text[start..].starts_with(IMAGE_PLACEHOLDER) => None,
            _ if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => continue,
            // More digits than a number has are no picture that anybody has.
            _ => Some(digits.parse().unwrap_or(usize::MAX)),
        };
        found.push(Placeholder { start, end, number });
    }
    found
}

/// Whether a text says where a picture stands.
pub fn names_pictures(text: &str) -> bool {
    !placeholders(text).is_empty()
}

/// A text in which every number of a numbered placeholder is what `renumber` makes of it.
pub(crate) fn renumbered(text: &str, renumber: impl Fn(usize) -> Result<usize, String>) -> Result<String, String> {
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for placeholder in placeholders(text) {
        out.push_str(&text[at..placeholder.start]);
        match placeholder.number {
            None => out.push_str(IMAGE_PLACEHOLDER),
            Some(number) => out.push_str(&format!("<image {}>", renumber(number)?)),
        }
        at = placeholder.end;
    }
    out.push_str(&text[at..]);
    Ok(out)
}

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

/// Text and pictures in the order of a message, of a text with `images` pictures beside it; empty texts are left out.
///
/// # Errors
/// Placeholders that do not fit the number of pictures, in words.
pub fn split_at_images(text: &str, images: usize) -> Result<Vec<Content>, String> {
    let found = placeholders(text);
    let plain = found.iter().filter(|p| p.number.is_none()).count();
    let numbered = found.len() - plain;
    let differs = |reason: String| Err(format!("placeholder count differs: {reason}"));
    if plain > 0 && numbered > 0 {
        return differs(format!(
            "the problem has both {IMAGE_PLACEHOLDER} and numbered placeholders; which picture stands where is not certain"
        ));
    }
    if numbered == 0 && plain != images {
        return differs(format!("the problem has {plain} {IMAGE_PLACEHOLDER} and the row has {images} images"));
    }
    let mut named = vec![numbered == 0; images];
    let (mut content, mut at) = (Vec::new(), 0);
    let push_text = |content: &mut Vec<Content>, text: &str| {
        if !text.is_empty() {
            content.push(Content::Text(text.to_owned()));
        }
    };
    for (k, placeholder) in found.iter().enumerate() {
        let number = placeholder.number.unwrap_or(k + 1);
        let shown = &text[placeholder.start..placeholder.end];
        match number.checked_sub(1).and_then(|index| named.get_mut(index)) {
            Some(named) => *named = true,
            None if number == 0 => return differs(format!("the problem has {shown}; pictures are counted from 1")),
            None => return differs(format!("the problem has {shown} and the row has {images} images")),
        }
        push_text(&mut content, &text[at..placeholder.start]);
        content.push(Content::Image(number - 1));
        at = placeholder.end;
    }
    push_text(&mut content, &text[at..]);
    match named.iter().position(|named| !named) {
        None => Ok(content),
        Some(k) => differs(format!("no placeholder names image {} of the row's {images}", k + 1)),
    }
}

/// What can be said about a row without a template or tokenizer: its problem, its answer, and its placeholders, which
/// must fit its pictures.
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
    split(sample, &sample.problem).map(drop)
}

fn split(sample: &Sample, text: &str) -> Result<Vec<Content>, BadRow> {
    split_at_images(text, sample.images.len()).map_err(|reason| BadRow {
        id: sample.id.clone(),
        index: sample.index,
        reason,
    })
}

/// The message of a sample, checked as far as that goes without looking at a picture.
fn message(sample: &Sample, format: &FormatPrompt) -> Result<Vec<Content>, BadRow> {
    check_row(sample)?;
    let text = format.render(&sample.problem).map_err(|e| set_aside(sample, e))?;
    // Once more: a template can write the problem twice, or a placeholder of its own.
    split(sample, &text)
}

/// The prompt of a sample: format prompt, pictures at their placeholders, chat template.
///
/// # Errors
/// A [`BadRow`]: placeholders and pictures that differ in number, a picture that cannot be decoded or is too large, an
/// empty problem or answer, special tokens in the text.
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
        assert_eq!(split_at_images("<image>sum?", 1).unwrap(), [Content::Image(0), text("sum?")]);
        assert_eq!(
            split_at_images("a<image><image> b<image>", 3).unwrap(),
            [text("a"), Content::Image(0), Content::Image(1), text(" b"), Content::Image(2)]
        );
        assert_eq!(split_at_images("none", 0).unwrap(), [text("none")]);
        // No placeholder, whatever it looks like.
        for other in
            ["<images>", "<image", "<image >", "<image one>", "<image 1 >", "< image 1>", "<image  1>", "<Image>"]
        {
            assert_eq!(split_at_images(other, 0).unwrap(), [text(other)]);
        }
    }

    #[test]
    fn numbered_placeholders_name_their_pictures() {
        let images = |text: &str, n: usize| -> Vec<usize> {
            let content = split_at_images(text, n).unwrap_or_else(|e| panic!("{text}: {e}"));
            content.iter().filter_map(|c| if let Content::Image(k) = c { Some(*k) } else { None }).collect()
        };
        assert_eq!(images("Compare <image 1> and <image 2>.", 2), [0, 1]);
        assert_eq!(images("<image2> or <image1>? <image_2> again", 2), [1, 0, 1]);
        assert_eq!(images("<image-1>", 1), [0]);
        assert_eq!(images("<Image 1> or <IMAGE_2>", 2), [0, 1]);
        let many: String = (1..=12).rev().map(|k| format!("<image {k}>")).collect();
        assert_eq!(images(&many, 12), (0..12).rev().collect::<Vec<_>>());
        for (text, n, reason) in [
            ("<image 1> <image 3>", 2, "<image 3> and the row has 2 images"),
            ("<image 1>", 2, "no placeholder names image 2 of the row's 2"),
            ("<image 0>", 1, "counted from 1"),
            ("<image1>", 0, "the row has 0 images"),
            ("<image><image 1>", 1, "both"),
            ("<image 99999999999999999999999>", 1, "the row has 1 images"),
        ] {
            let error = split_at_images(text, n).unwrap_err();
            assert!(error.contains("placeholder count differs") && error.contains(reason), "{text}: {error}");
        }
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
