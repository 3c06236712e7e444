//! YAML as EasyR1 reads it (PyYAML below OmegaConf), with the line of each value.
//!
//! Built from the parser's events, so that what a stranger's file may cost is decided here: an alias (a few lines of
//! which stand for billions of values) counts with all that it stands for. Repeated keys and tags beside YAML's own are
//! refused by name; `${...}` is left to [`crate::interpolation`].

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

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
/// Values of a file, those of an alias at each place where it stands: EasyR1's files have about a hundred.
const MOST_VALUES: usize = 10_000;

/// Reads one document; an empty one is an empty mapping.
///
/// # Errors
/// Text that is no YAML, or YAML that is refused.
pub(crate) fn read(name: &str, text: &str) -> Result<YamlNode, EasyR1Error> {
    let events = Parser::new_from_str(text);
    let mut reader = YamlReader { name, events, text, values: 0, bytes: 0, anchors: HashMap::new() };
    reader.document()
}

/// A value with a name (`&name`), and what it costs wherever it is repeated (`*name`).
struct Anchored {
    node: YamlNode,
    values: usize,
    bytes: usize,
}

struct YamlReader<'a> {
    name: &'a str,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    values: usize,
    /// Of all texts.
    bytes: usize,
    /// By the parser's number of the name.
    anchors: HashMap<usize, Anchored>,
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
                let has_tab =
                    line.checked_sub(1).and_then(|at| self.text.lines().nth(at)).map(|text| text.contains('\t'));
                match tab {
                    Some((index, _)) if index < line => self.fail(
                        index + 1,
                        "a tab stands in front of the text, and YAML indents with blanks alone; replace it by blanks",
                    ),
                    _ if has_tab == Some(true) => {
                        self.fail(line, format!("{}; there is a tab in this line, replace it by blanks", error.info()))
                    }
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

    /// Counts values and the bytes of texts.
    fn count(&mut self, line: usize, values: usize, bytes: usize) -> Result<(), EasyR1Error> {
        self.values += values;
        self.bytes += bytes;
        if self.values > MOST_VALUES {
            return self
                .fail(line, format!("more than {MOST_VALUES} values, those of aliases at each of their places"));
        }
        let limit = guard::limits().config_bytes;
        if self.bytes > limit.size() {
            return self.fail(line, format!("more than {} bytes of texts; {}", limit.value, limit.raise()));
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<YamlNode, EasyR1Error> {
        let before = (self.values, self.bytes);
        if let Event::Alias(anchor) = event {
            return self.repeated(anchor, line, depth);
        }
        self.count(line, 1, 0)?;
        self.check_depth(line, depth)?;
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(line, 0, text.len())?;
                let is_quoted = self.is_quoted(line, style, tag.as_deref())?;
                (self.scalar(line, text.into_owned(), is_quoted)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(line, tag.as_deref(), "seq")?;
                (YamlContent::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(line, tag.as_deref(), "map")?;
                (YamlContent::Map(self.entries(depth)?), anchor)
            }
            other => return self.fail(line, format!("{other:?} where a value should stand")),
        };
        let node = YamlNode { line, content };
        if anchor > 0 {
            let (values, bytes) = (self.values - before.0, self.bytes - before.1);
            self.anchors.insert(anchor, Anchored { node: node.clone(), values, bytes });
        }
        Ok(node)
    }

    fn check_depth(&self, line: usize, depth: usize) -> Result<(), EasyR1Error> {
        match depth > MOST_DEEP {
            true => self.fail(line, format!("more than {MOST_DEEP} levels of lists and mappings")),
            false => Ok(()),
        }
    }

    /// The value of an alias.
    fn repeated(&mut self, anchor: usize, line: usize, depth: usize) -> Result<YamlNode, EasyR1Error> {
        let Some(found) = self.anchors.get(&anchor) else {
            return self.fail(line, "an alias (`*name`) stands inside the value that it repeats");
        };
        let (values, bytes, levels) = (found.values, found.bytes, found.node.levels());
        self.count(line, values, bytes)?;
        self.check_depth(line, depth + levels)?;
        let content = self.anchors.get(&anchor).map(|found| found.node.content.clone());
        Ok(YamlNode { line, content: content.unwrap_or(YamlContent::List(vec![])) })
    }

    fn scalar(&self, line: usize, text: String, is_quoted: bool) -> Result<YamlContent, EasyR1Error> {
        match text == "???" {
            true => self.fail(line, "`???` is OmegaConf's mark of a value that is to be given; give it"),
            false => Ok(YamlContent::Scalar(text, is_quoted)),
        }
    }

    /// Whether a scalar is a text whatever it looks like.
    fn is_quoted(&self, line: usize, style: ScalarStyle, tag: Option<&Tag>) -> Result<bool, EasyR1Error> {
        match tag {
            None => Ok(style != ScalarStyle::Plain),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
            Some(tag) if tag.is_yaml_core_schema() && ["int", "float", "bool", "null"].contains(&&*tag.suffix) => {
                Ok(false)
            }
            Some(tag) => self.refuse_tag(line, tag),
        }
    }

    fn check_tag(&self, line: usize, tag: Option<&Tag>, name: &str) -> Result<(), EasyR1Error> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() || tag.suffix != name => self.refuse_tag(line, tag),
            _ => Ok(()),
        }
    }

    fn refuse_tag<T>(&self, line: usize, tag: &Tag) -> Result<T, EasyR1Error> {
        self.fail(line, format!("the tag `{}` is not read; write a plain value", guard::echo(&tag.suffix)))
    }

    fn list(&mut self, depth: usize) -> Result<Vec<YamlNode>, EasyR1Error> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                (event, line) => list.push(self.value(event, line, depth + 1)?),
            }
        }
    }

    /// The entries of a mapping. What it merges (`<<`) stands before its own keys, which win, as PyYAML has it.
    fn entries(&mut self, depth: usize) -> Result<Vec<(String, YamlNode)>, EasyR1Error> {
        let mut merged: Vec<(String, YamlNode)> = Vec::new();
        let mut own: Vec<(String, YamlNode)> = Vec::new();
        loop {
            let (event, line) = match self.next()? {
                (Event::MappingEnd, _) => {
                    merged.retain(|(name, _)| !own.iter().any(|(other, _)| other == name));
                    merged.extend(own);
                    return Ok(merged);
                }
                found => found,
            };
            let YamlContent::Scalar(name, is_quoted) = self.value(event, line, depth + 1)?.content else {
                return self.fail(line, "a key is a list or a mapping; write a name");
            };
            let (event, at) = self.next()?;
            let value = self.value(event, at, depth + 1)?;
            if name == "<<" && !is_quoted {
                self.merge(line, value, &mut merged)?;
                continue;
            }
            if let Some((_, before)) = own.iter().find(|(key, _)| *key == name) {
                let first = before.line;
                let name = guard::echo(&name);
                return self.fail(line, format!("`{name}` stands in line {first} already; leave one of them out"));
            }
            own.push((name, YamlNode { line, ..value }));
        }
    }

    /// Lays the entries of a merge key's mappings over those of earlier ones; in a list the first mapping wins.
    fn merge(&self, line: usize, value: YamlNode, merged: &mut Vec<(String, YamlNode)>) -> Result<(), EasyR1Error> {
        let list = match value.content {
            YamlContent::List(list) => list,
            _ => vec![value],
        };
        for node in list.into_iter().rev() {
            let YamlContent::Map(entries) = node.content else {
                return self.fail(line, "a merge key (`<<`) takes a mapping or a list of mappings");
            };
            for (name, value) in entries {
                match merged.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, before)) => *before = value,
                    None => merged.push((name, value)),
                }
            }
        }
        Ok(())
    }
}

impl YamlNode {
    /// Levels of lists and mappings in it: 0 for a text.
    fn levels(&self) -> usize {
        match &self.content {
            YamlContent::Scalar(..) => 0,
            YamlContent::List(list) => 1 + list.iter().map(Self::levels).max().unwrap_or(0),
            YamlContent::Map(entries) => 1 + entries.iter().map(|(_, node)| node.levels()).max().unwrap_or(0),
        }
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
        refused("a: &x [1, *x]\n", "1: not valid YAML: an alias (`*name`) stands inside the value that it repeats");
        refused("b: *x\na: &x 1\n", "1: not valid YAML: while parsing node, found unknown anchor");
        refused("a:\n  <<: 5\n", "2: not valid YAML: a merge key (`<<`) takes a mapping or a list of mappings");
        refused("a: ???\n", "1: not valid YAML: `???` is OmegaConf's mark of a value that is to be given; give it");
        refused(
            "a:\tx\n",
            "1: not valid YAML: ':' must be followed by a valid YAML whitespace; there is a tab in this line, replace it \
             by blanks",
        );
        refused(
            "a: !!python/object:os.system x\n",
            "1: not valid YAML: the tag `python/object:os.system` is not read; write a plain value",
        );
        refused("a: 1\n---\nb: 2\n", "2: not valid YAML: a second document begins here; write one file for each");
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        refused(&deep, "1: not valid YAML: more than 32 levels of lists and mappings");
        let many = format!("a: [{}]", "1,".repeat(10_001));
        refused(&many, "1: not valid YAML: more than 10000 values, those of aliases at each of their places");
    }

    /// What PyYAML makes of both, in the flow style that it can be written in.
    #[test]
    fn aliases_and_merge_keys_are_what_they_stand_for() {
        for (text, plain) in [
            ("a: &x 1\nb: *x\n", "{a: 1, b: 1}"),
            ("a: &x 1\nb: &x 2\nc: *x\n", "{a: 1, b: 2, c: 2}"),
            ("a: &x name\n*x : 3\n", "{a: name, name: 3}"),
            ("b: &b {p: 1, q: 2}\nc:\n  <<: *b\n  q: 3\n", "{b: {p: 1, q: 2}, c: {p: 1, q: 3}}"),
            ("b: &b {p: 1}\nc:\n  p: 9\n  <<: *b\n", "{b: {p: 1}, c: {p: 9}}"),
            ("a: &a {p: 1, z: 5}\nb: &b {p: 2}\nc:\n  <<: [*a, *b]\n", "{a: {p: 1, z: 5}, b: {p: 2}, c: {p: 1, z: 5}}"),
            ("a: &a {p: 1}\nb: &b {p: 2}\nc:\n  <<: *a\n  <<: *b\n", "{a: {p: 1}, b: {p: 2}, c: {p: 2}}"),
            ("a: &a {p: 1}\nb: &b\n  <<: *a\n  q: 2\nc:\n  <<: *b\n", "{a: {p: 1}, b: {p: 1, q: 2}, c: {p: 1, q: 2}}"),
            ("b: &b {p: 1}\nc:\n  '<<': *b\n", "{b: {p: 1}, c: {'<<': {p: 1}}}"),
            ("a: !!str 1\nb: !!int '2'\n", "{a: '1', b: 2}"),
        ] {
            assert_eq!(bare(read("x.yaml", text).unwrap()), bare(read("x.yaml", plain).unwrap()), "{text}");
        }
    }

    /// Without lines.
    fn bare(node: YamlNode) -> YamlNode {
        let content = match node.content {
            YamlContent::List(list) => YamlContent::List(list.into_iter().map(bare).collect()),
            YamlContent::Map(entries) => {
                YamlContent::Map(entries.into_iter().map(|(name, node)| (name, bare(node))).collect())
            }
            scalar => scalar,
        };
        YamlNode { line: 0, content }
    }

    #[test]
    fn aliases_of_aliases_cost_what_they_stand_for() {
        let laughs = |first: &str| {
            let mut text = format!("a0: &a0 {first}\n");
            (1..30).for_each(|i| text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")));
            text
        };
        refused(&laughs("x"), "6: not valid YAML: more than 10000 values, those of aliases at each of their places");
        let said = read("x.yaml", &laughs(&"x".repeat(100_000))).unwrap_err().to_string();
        assert!(said.contains("bytes of texts"), "{said}");
        let mut deep = "a0: &a0 [x]\n".to_string();
        (1..40).for_each(|i| deep += &format!("a{i}: &a{i} [*a{}]\n", i - 1));
        refused(&deep, "32: not valid YAML: more than 32 levels of lists and mappings");
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
