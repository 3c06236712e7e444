//! The model folder's chat template, rendered as transformers renders it.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;

use super::chat::one_question;
use super::{ChatMessage, Content};
use crate::template::{Template, TemplateError};

pub(super) struct ChatTemplate {
    template: Template,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl ChatTemplate {
    /// `name` is the file that the template stands in.
    ///
    /// # Errors
    /// What is no template, or costs too much for the shortest of prompts.
    pub(super) fn new(
        name: &str,
        source: &str,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, TemplateError> {
        let template = Template::new(name, &without_generation_tags(source), setup)?;
        let template = Self { template, bos_token, eos_token };
        // One that fails here may want a system message; one that never ends would not end for any row.
        match template.render(&one_question(None, &[Content::Text("?".into())])) {
            Err(error @ TemplateError::Limit(_)) => Err(error),
            _ => Ok(template),
        }
    }

    /// A conversation, ready for the assistant to answer; texts are joined.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<String, TemplateError> {
        let message = |m: &ChatMessage| context! { role => m.role.as_str(), content => content_of(&m.content) };
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
        };
        self.template.render(context)
    }
}

/// As transformers sets up Jinja.
fn setup(environment: &mut Environment<'static>) {
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    // Not the library's own, which escapes < and > for HTML.
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, minijinja::Error> {
        let indent: Option<usize> = options.get("indent")?;
        let ascii: Option<bool> = options.get("ensure_ascii")?;
        options.assert_all_used()?;
        if ascii == Some(true) {
            return Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                "tojson: ensure_ascii = true is not supported",
            ));
        }
        let text = match indent {
            Some(width) => indented(&value, width),
            None => serde_json::to_string(&value),
        };
        text.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
    });
}

/// `{% generation %}` marks what to train on and prints nothing: a comment in its place keeps the rules for the blanks
/// around it.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, end)) = after.split_once("%}") else { break };
        out.push_str(before);
        if matches!(tag.trim_matches(|c: char| c == '-' || c.is_whitespace()), "generation" | "endgeneration") {
            let dash = |there: bool| if there { "-" } else { "" };
            out += &format!("{{#{} {}#}}", dash(tag.starts_with('-')), dash(tag.ends_with('-')));
            rest = end;
        } else {
            out.push_str("{%");
            rest = after;
        }
    }
    out + rest
}

fn indented(value: &Value, width: usize) -> serde_json::Result<String> {
    let spaces = " ".repeat(width);
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn content_of(content: &[Content]) -> Value {
    match content {
        // Templates of text models know only strings.
        [] => Value::from(""),
        [Content::Text(text)] => Value::from(text.as_str()),
        parts => {
            let part = |part: &Content| match part {
                Content::Text(text) => context! { type => "text", text => text },
                Content::Image(_) => context! { type => "image" },
            };
            parts.iter().map(part).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_transformers_adds_to_jinja() {
        let source = "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}\
                      {% generation %}{{ m.content }}{%- endgeneration %}{{ {'a': 1}|tojson(indent=2, ensure_ascii=false) }}{% break %}{% endfor %}";
        let template = ChatTemplate::new("x.jinja", source, None, None).unwrap();
        let text = template.render(&one_question(Some("be brief"), &[Content::Text("hi".into())])).unwrap();
        assert_eq!(text, "hi{\n  \"a\": 1\n}");
        let ascii = ChatTemplate::new("x.jinja", "{{ messages|tojson(ensure_ascii=true) }}", None, None).unwrap();
        assert!(
            ascii
                .render(&one_question(None, &[Content::Text("hi".into())]))
                .unwrap_err()
                .to_string()
                .contains("ensure_ascii")
        );
    }
}
