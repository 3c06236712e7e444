//! Jinja templates of strangers: chat templates and format prompts, rendered within bounds.
//!
//! Three things bound a rendering. The library's fuel bounds its steps. Between the steps that can make much of little
//! stand checks of our own ([`bounds`]), which weigh what goes in and know what can come out: a string that is doubled
//! forty times needs few steps. And it runs on a thread with a stack of its own, which a long expression or a deep
//! value cannot use up.

mod bounds;
mod instrument;

use minijinja::machinery::{Vm, get_compiled_template, make_string_output};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use guard::limits;

/// Room for the recursion of the parser and of values: along an expression as long as the largest source.
const STACK: usize = 256 << 20;

/// A template, ready to be rendered as often as needed, from any thread.
#[derive(Debug)]
pub(crate) struct Template {
    /// What it is called in messages: a file, mostly.
    name: String,
    /// Holds the compiled template and nothing else.
    parsed: Environment<'static>,
    /// Filters, functions and settings. It holds no template, so that none can be included without its checks.
    runtime: Environment<'static>,
}

/// Why a template has no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// It costs more than it may, wherever it is used; the text names the file and the limit.
    Limit(String),
    /// Its own complaint; the text names the file.
    Failed(String),
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

/// The name under which the library knows a template.
const NAME: &str = "template";

impl Template {
    /// Compiles `source`; `name` is for messages, `setup` adds filters and settings.
    ///
    /// # Errors
    /// A source that is too long or no template.
    pub(crate) fn new(name: &str, source: &str, setup: fn(&mut Environment<'static>)) -> Result<Self, TemplateError> {
        let limit = limits().template_bytes;
        if source.len() as u64 > limit.value {
            return Err(TemplateError::Limit(format!(
                "{name}: the template has {} bytes, and the limit is {}; {}",
                source.len(),
                limit.value,
                limit.raise()
            )));
        }
        bounds::check_constants(source).map_err(|reason| TemplateError::Limit(format!("{name}: {reason}")))?;
        let mut parsed = Environment::new();
        setup(&mut parsed);
        let mut runtime = Environment::new();
        setup(&mut runtime);
        runtime.set_fuel(Some(limits().template_fuel.value));
        // It shows everything there is, at any size.
        runtime.remove_global("debug");
        bounds::install(&mut runtime);
        let compile = || parsed.add_template_owned(NAME, source.to_owned()).map_err(|e| own_words(&e));
        let failed = |reason: String| TemplateError::Failed(format!("{name}: {reason}"));
        let compiled = guard::on_stack(STACK, || guard::caught(compile)).map_err(failed)?;
        compiled.and_then(|done| done).map_err(|reason| failed(format!("is not a template: {reason}")))?;
        Ok(Self { name: name.to_owned(), parsed, runtime })
    }

    /// The text of the template for these variables.
    ///
    /// # Errors
    /// A template that costs too much or that fails.
    pub(crate) fn render(&self, variables: Value) -> Result<String, TemplateError> {
        let again = variables.clone();
        let done = match guard::on_stack(STACK, || guard::caught(|| self.render_here(variables))) {
            Ok(done) => done,
            // No thread just now is no fault of the row: here, as the values of a template are not deep.
            Err(_) => guard::caught(|| self.render_here(again)),
        };
        done.unwrap_or_else(|reason| Err(TemplateError::Failed(format!("{}: {reason}", self.name))))
    }

    fn render_here(&self, variables: Value) -> Result<String, TemplateError> {
        bounds::start();
        let done = self.evaluate(variables);
        let exceeded = bounds::end();
        let name = &self.name;
        done.map_err(|error| match exceeded {
            Some(reason) => TemplateError::Limit(format!("{name}: the template {reason}")),
            None if has_kind(&error, ErrorKind::OutOfFuel) => {
                let (steps, raise) = (limits().template_fuel.value, limits().template_fuel.raise());
                TemplateError::Limit(format!(
                    "{name}: the template takes more than {steps} steps (an endless loop?); {raise}"
                ))
            }
            None => TemplateError::Failed(format!("{name}: {}", own_words(&error))),
        })
    }

    fn evaluate(&self, variables: Value) -> Result<String, Error> {
        let template = self.parsed.get_template(NAME)?;
        let compiled = get_compiled_template(&template);
        let instructions = instrument::instrument(&compiled.instructions)?;
        let blocks = compiled.blocks.iter().map(|(name, block)| Ok((*name, instrument::instrument(block)?)));
        let blocks = blocks.collect::<Result<_, Error>>()?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        Vm::new(&self.runtime).eval(&instructions, variables, &blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

fn has_kind(error: &Error, kind: ErrorKind) -> bool {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if error.downcast_ref::<Error>().is_some_and(|e| e.kind() == kind) {
            return true;
        }
        at = error.source();
    }
    false
}

/// The library's message, which may quote what a template computed.
fn own_words(error: &Error) -> String {
    guard::echo(&error.to_string())
}

#[cfg(test)]
mod tests;
