//! The model folder's chat template, rendered as transformers renders it.

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};

use super::Content;
use crate::error::DataError;

pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// The error is the template's own complaint.
    pub(super) fn new(
        source: String,
        bos_token: Option<String>,
        eos_token: Option<String>,
    ) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        // As transformers sets up Jinja.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        // Not the library's own, which escapes < and > for HTML.
        environment.add_filter("tojson", |value: Value| -> Result<String, minijinja::Error> {
            serde_json::to_string(&value).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
        });
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, bos_token, eos_token })
    }

    /// One user message, ready for the assistant to answer.
    pub(super) fn render(&self, system: Option<&str>, content: &[Content]) -> Result<String, DataError> {
        let mut messages = Vec::new();
        if let Some(system) = system {
            messages.push(context! { role => "system", content => system });
        }
        messages.push(context! { role => "user", content => user_content(content) });
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|e| DataError::Prompt(format!("the chat template failed: {e}")))
    }
}

fn user_content(content: &[Content]) -> Value {
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
