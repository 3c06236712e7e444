//! YAML as EasyR1 reads it (PyYAML below OmegaConf), with the line of each value.
//!
//! Built from the parser's events, so that what a stranger's file may cost is decided here: aliases (a few lines of
//! which stand for billions of values), repeated keys, merge keys, tags and OmegaConf's `${...}` are refused by name.

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::EasyR1Error;

/// A value of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlNode {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub content: YamlContent,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum YamlContent {
    /// A text, and whether it stood in quotes: without them it may be a number.
    Scalar(String, bool),
    /// `[a, b]`, or lines that begin with a dash.
    List(Vec<YamlNode>),
    /// Keys with their values, in order.
    Map(Vec<(String, YamlNode)>),
}

/// Levels of lists and mappings: EasyR1's files have five.
const MOST_DEEP: usize = 32;
/// Values of a file: EasyR1's have about a hundred.
const MOST_VALUES: usize = 10_000;

/// Reads one document; an empty one is an empty mapping.
///
/// # Errors
/// Text that is no YAML, or YAML that is refused.
pub(crate) fn read(name: &str, text: &str) -> Result<YamlNode, EasyR1Error> {
    let mut reader = YamlReader { name, events: Parser::new_from_str(text), text, values: 0 };
    reader.document()
}

struct YamlReader<'a> {
    name: &'a str,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    values: usize,
}

impl<'a> YamlReader<'a> {
    fn fail<T>(&self, line: usize, reason: impl Into<String>) -> Result<T, EasyR1Error> {
        Err(EasyR1Error::Syntax { at: format!("{}:{line}", self.name), reason: reason.into() })
    }

    /// The next event with its line.
    fn next(&mut self) -> Result<(Event<'a>, usize), EasyR1Error> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => {
                let line = error.marker().line();
                // PyYAML says the same of a tab, and nobody sees one.
                let tab = self.text.lines().enumerate().find(|(_, text)| {
                    let indent: &str = &text[..text.len() - text.trim_start().len()];
                    indent.contains('\t') && !text.trim_start().starts_with('#')
                });
                match tab {
                    Some((index, _)) if index < line => self.fail(
                        index + 1,
                        "a tab stands in front of the text, and YAML indents with blanks alone; replace it by blanks",
                    ),
                    _ => self.fail(line, error.info().to_string()),
                }
            }
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn document(&mut self) -> Result<YamlNode, EasyR1Error> {
        let empty = YamlNode { line: 1, content: YamlContent::Map(Vec::new()) };
        let mut found = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(found.unwrap_or(empty)),
                (Event::StreamStart | Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::DocumentStart(_), line) if found.is_some() => {
                    return self.fail(line, "a second document begins here; write one file for each");
                }
                (Event::DocumentStart(_), _) => {
                    let (event, line) = self.next()?;
                    found = Some(self.value(event, line, 0)?);
                }
                (_, line) => return self.fail(line, "a value stands outside the document"),
            }
        }
    }

    fn value(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<YamlNode, EasyR1Error> {
        self.values += 1;
        if self.values > MOST_VALUES {
            return self.fail(line, format!("more than {MOST_VALUES} values"));
        }
        if depth > MOST_DEEP {
            return self.fail(line, format!("more than {MOST_DEEP} levels of lists and mappings"));
        }
        let content = match event {
            Event::Scalar(_, _, _, Some(tag)) => return self.refuse_tag(line, &tag.suffix),
            Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) => {
                return self.refuse_tag(line, &tag.suffix);
            }
            Event::Scalar(text, style, _, None) => {
                if text.contains("${") || text == "???" {
                    return self.fail(
                        line,
                        format!("`{}` is OmegaConf's and is not filled in here; write the value", guard::echo(&text)),
                    );
                }
                YamlContent::Scalar(text.into_owned(), style != ScalarStyle::Plain)
            }
            Event::SequenceStart(_, None) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break YamlContent::List(list),
                        (event, line) => list.push(self.value(event, line, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(_, None) => YamlContent::Map(self.entries(depth)?),
            Event::Alias(_) => {
                return self.fail(line, "an alias (`*name`) repeats a value from elsewhere; write the value itself");
            }
            other => return self.fail(line, format!("{other:?} where a value should stand")),
        };
        Ok(YamlNode { line, content })
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(String, YamlNode)>, EasyR1Error> {
        let mut entries: Vec<(String, YamlNode)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, ..), line) => (text.into_owned(), line),
                (_, line) => return self.fail(line, "a key is a list, a mapping or an alias; write a name"),
            };
            let (name, line) = key;
            if name == "<<" {
                return self.fail(line, "a merge key (`<<`) repeats keys from elsewhere; write them out");
            }
            let (event, at) = self.next()?;
            let value = self.value(event, at, depth + 1)?;
            if let Some((_, before)) = entries.iter().find(|(key, _)| *key == name) {
                let first = before.line;
                let name = guard::echo(&name);
                return self.fail(line, format!("`{name}` stands in line {first} already; leave one of them out"));
            }
            entries.push((name, YamlNode { line, ..value }));
        }
    }

    fn refuse_tag<T>(&self, line: usize, suffix: &str) -> Result<T, EasyR1Error> {
        self.fail(line, format!("the tag `{}` is not read; write a plain value", guard::echo(suffix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, message: &str) {
        let said = read("x.yaml", text).unwrap_err().to_string();
        assert_eq!(said, format!("x.yaml:{message}"), "{text}");
    }

    #[test]
    fn lines_and_values() {
        let node = read("x.yaml", "# a file\na:\n  b: [1, '2']\n  c:\n").unwrap();
        let YamlContent::Map(entries) = node.content else { panic!() };
        assert_eq!((entries[0].0.as_str(), entries[0].1.line), ("a", 2));
        let YamlContent::Map(inner) = &entries[0].1.content else { panic!() };
        let scalar = |text: &str, quoted, line| YamlNode { line, content: YamlContent::Scalar(text.into(), quoted) };
        assert_eq!(inner[0].1.content, YamlContent::List(vec![scalar("1", false, 3), scalar("2", true, 3)]));
        assert_eq!(inner[1].1.line, 4);
        assert_eq!(read("x.yaml", "").unwrap().content, YamlContent::Map(vec![]));
    }

    #[test]
    fn what_is_refused_names_its_line() {
        refused(
            "data:\n\tseed: 1\n",
            "2: not valid YAML: a tab stands in front of the text, and YAML indents with blanks alone; replace it by \
             blanks",
        );
        refused("a: 1\nb: 2\na: 3\n", "3: not valid YAML: `a` stands in line 1 already; leave one of them out");
        refused(
            "a: &x [1, 1]\nb: [*x, *x]\n",
            "2: not valid YAML: an alias (`*name`) repeats a value from elsewhere; write the value itself",
        );
        refused(
            "a: ${oc.env:HOME}\n",
            "1: not valid YAML: `${oc.env:HOME}` is OmegaConf's and is not filled in here; write the value",
        );
        refused(
            "a: !!python/object:os.system x\n",
            "1: not valid YAML: the tag `python/object:os.system` is not read; write a plain value",
        );
        refused("a: 1\n---\nb: 2\n", "2: not valid YAML: a second document begins here; write one file for each");
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        refused(&deep, "1: not valid YAML: more than 32 levels of lists and mappings");
        let many = format!("a: [{}]", "1,".repeat(10_001));
        refused(&many, "1: not valid YAML: more than 10000 values");
    }

    #[test]
    fn hostile_text_ends_in_time() {
        for text in [
            "[".repeat(1 << 20),
            "{".repeat(1 << 20),
            "? ".repeat(1 << 18),
            "- ".repeat(1 << 18),
            "a: |\n".repeat(1 << 16),
        ] {
            let clock = std::time::Instant::now();
            let _ = read("x.yaml", &text);
            assert!(clock.elapsed().as_secs() < 20, "{:?} took {:?}", &text[..4], clock.elapsed());
        }
    }
}
