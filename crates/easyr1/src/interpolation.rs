//! OmegaConf's `${...}`: another key's value, or a variable of the environment, in the place of a value or within one.
//!
//! Everything is filled in when all files and overrides have been read, as in EasyR1: `${data.max_prompt_length}` is
//! what the last of them says. `${.name}` and `${..name}` count from where they stand, `${oc.env:NAME,default}` asks
//! the environment, `\${` is the text `${`. Other resolvers call code of whoever wrote the program, and are refused.

use crate::value::{ValueKind, python_text};
use crate::yaml::{YamlContent, YamlNode};

/// What is filled in within what is filled in.
const MOST_DEEP: usize = 32;
/// Places that are filled in for one value: a few lines can ask for billions.
const MOST_PLACES: usize = 1000;
/// Bytes of a text that is put together.
const MOST_BYTES: usize = 64 << 10;

/// Where values are looked up.
pub(crate) trait Lookup {
    /// The node at a dotted path, as it stands there, and its type.
    ///
    /// # Errors
    /// Why there is none.
    fn look_up(&self, path: &str) -> Result<(YamlNode, ValueKind), String>;
}

/// Whether something of a value is to be filled in.
pub(crate) fn is_open(node: &YamlNode) -> bool {
    match &node.content {
        YamlContent::Scalar(text, _) => text.contains("${"),
        YamlContent::List(list) => list.iter().any(is_open),
        YamlContent::Map(entries) => entries.iter().any(|(_, node)| is_open(node)),
    }
}

/// The value at `path` with everything filled in.
///
/// # Errors
/// What cannot be filled in, and why.
pub(crate) fn fill(values: &dyn Lookup, path: &str, node: &YamlNode) -> Result<YamlNode, String> {
    Filling { values, places: 0 }.node(path, node, 0)
}

struct Filling<'a> {
    values: &'a dyn Lookup,
    places: usize,
}

/// A part of a text.
enum FilledPart {
    Text(String),
    /// What a place stands for, with its type.
    Value(YamlNode, ValueKind),
}

impl Filling<'_> {
    fn node(&mut self, path: &str, node: &YamlNode, depth: usize) -> Result<YamlNode, String> {
        if !is_open(node) {
            return Ok(node.clone());
        }
        let below = |name: &str| format!("{path}.{name}");
        let content = match &node.content {
            YamlContent::Scalar(text, _) => return self.scalar(path, text, node.line, depth),
            YamlContent::List(list) => {
                let one = |(index, node): (usize, &YamlNode)| self.node(&below(&index.to_string()), node, depth);
                YamlContent::List(list.iter().enumerate().map(one).collect::<Result<_, _>>()?)
            }
            YamlContent::Map(entries) => {
                let one = |(name, node): &(String, YamlNode)| Ok((name.clone(), self.node(&below(name), node, depth)?));
                YamlContent::Map(entries.iter().map(one).collect::<Result<_, String>>()?)
            }
        };
        Ok(YamlNode { line: node.line, content })
    }

    /// A place alone has the value as it is; among other text it becomes text.
    fn scalar(&mut self, path: &str, text: &str, line: usize, depth: usize) -> Result<YamlNode, String> {
        let mut parts = self.parts(path, text, depth)?;
        if let [FilledPart::Value(..)] = parts[..]
            && let Some(FilledPart::Value(node, _)) = parts.pop()
        {
            return Ok(YamlNode { line, ..node });
        }
        Ok(YamlNode { line, content: YamlContent::Scalar(joined(parts)?, true) })
    }

    /// Cuts a text into what is plain and what is filled in.
    fn parts(&mut self, path: &str, text: &str, depth: usize) -> Result<Vec<FilledPart>, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, place) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('\\') {
                parts.push(FilledPart::Text(format!("{before}${{")));
                rest = &place[2..];
                continue;
            }
            if !before.is_empty() {
                parts.push(FilledPart::Text(before.to_string()));
            }
            let Some(length) = closed(&place[2..]) else {
                return Err(format!("`{}` has no closing brace", guard::echo(place)));
            };
            parts.push(self.place(path, &place[2..2 + length], depth + 1)?);
            rest = &place[2 + length + 1..];
        }
        if !rest.is_empty() {
            parts.push(FilledPart::Text(rest.to_string()));
        }
        Ok(parts)
    }

    /// What stands between the braces; places within it are filled in first.
    fn place(&mut self, path: &str, inner: &str, depth: usize) -> Result<FilledPart, String> {
        self.places += 1;
        if depth > MOST_DEEP || self.places > MOST_PLACES {
            return Err(format!(
                "`${{{}}}` leads in a circle, or to more than {MOST_PLACES} places",
                guard::echo(inner)
            ));
        }
        let inner = joined(self.parts(path, inner, depth)?)?;
        let inner = inner.trim();
        if let Some(asked) = inner.strip_prefix("oc.env:") {
            return environment(asked).map(|node| FilledPart::Value(node, ValueKind::TextOrNull));
        }
        if inner.contains(':') {
            return Err(format!("`${{{}}}` calls a resolver, of which only oc.env is known here", guard::echo(inner)));
        }
        let target = absolute(path, inner)?;
        let (node, kind) = self.values.look_up(&target)?;
        Ok(FilledPart::Value(self.node(&target, &node, depth)?, kind))
    }
}

/// One text of all parts.
fn joined(parts: Vec<FilledPart>) -> Result<String, String> {
    let mut out = String::new();
    for part in parts {
        match part {
            FilledPart::Text(text) => out += &text,
            FilledPart::Value(node, kind) => {
                let value = kind.read(&node)?;
                out += &python_text(value.as_ref()).ok_or("a list or a mapping cannot stand within a text")?;
            }
        }
        if out.len() > MOST_BYTES {
            return Err(format!("what is filled in has more than {MOST_BYTES} bytes"));
        }
    }
    Ok(out)
}

/// Bytes up to the brace that closes what was opened before the text.
fn closed(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// The path of `name` as written in the value at `path`: a dot in front is the section that the value stands in, each
/// further one the section around it.
fn absolute(path: &str, name: &str) -> Result<String, String> {
    let name = name.replace('[', ".").replace(']', "");
    let dots = name.len() - name.trim_start_matches('.').len();
    if dots == 0 {
        return Ok(name);
    }
    let parts: Vec<&str> = path.split('.').collect();
    let Some(kept) = parts.len().checked_sub(dots) else {
        return Err(format!("`${{{}}}` leads out of the file", guard::echo(&name)));
    };
    let mut kept = parts[..kept].to_vec();
    kept.push(name.trim_start_matches('.'));
    Ok(kept.join("."))
}

/// `NAME` or `NAME,default`.
fn environment(asked: &str) -> Result<YamlNode, String> {
    let (name, default) = match asked.split_once(',') {
        Some((name, default)) => (name.trim(), Some(default.trim())),
        None => (asked.trim(), None),
    };
    // Names that the system could not look up.
    let is_name = !name.is_empty() && !name.contains(['=', '\0']);
    let found = is_name.then(|| std::env::var(name).ok()).flatten();
    let unquoted = |text: &str| {
        let inner = ['"', '\''].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).map(str::to_string);
        (inner.clone().unwrap_or_else(|| text.to_string()), inner.is_some())
    };
    let (text, is_quoted) = match (found, default) {
        (Some(text), _) => (text, true),
        (None, Some(default)) => unquoted(default),
        (None, None) => {
            let name = guard::echo(name);
            return Err(format!(
                "the environment variable {name} is not set; set it, or write ${{oc.env:{name},default}}"
            ));
        }
    };
    Ok(YamlNode { line: 0, content: YamlContent::Scalar(text, is_quoted) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    /// The entries of a mapping, all texts or null.
    struct Entries(YamlNode);

    impl Lookup for Entries {
        fn look_up(&self, path: &str) -> Result<(YamlNode, ValueKind), String> {
            let mut node = &self.0;
            for part in path.split('.') {
                let YamlContent::Map(entries) = &node.content else { return Err(format!("{path} is none")) };
                let found = entries.iter().find(|(name, _)| name == part);
                node = found.map(|(_, node)| node).ok_or_else(|| format!("there is no {path}"))?;
            }
            Ok((node.clone(), ValueKind::TextOrNull))
        }
    }

    fn filled(text: &str, path: &str) -> Result<String, String> {
        let entries = Entries(yaml::read("x.yaml", text).unwrap());
        let (node, kind) = entries.look_up(path)?;
        let node = fill(&entries, path, &node)?;
        Ok(python_text(kind.read(&node)?.as_ref()).unwrap())
    }

    /// Recorded from OmegaConf 2.4.
    #[test]
    fn places_are_filled_in_as_omegaconf_does() {
        for (text, path, expected) in [
            ("a: 1\nb: ${a}\n", "b", "1"),
            ("s:\n  a: 1\n  b: ${.a}\n", "s.b", "1"),
            ("s:\n  c: ${..t}\nt: 7\n", "s.c", "7"),
            ("a: x\nb: pre_${a}/${a}\n", "b", "pre_x/x"),
            ("a: \\${b}\n", "a", "${b}"),
            ("k: s\ns: 3\nb: ${${k}}\n", "b", "3"),
            ("a: null\nb: ${a}\n", "b", "None"),
            ("a: ${oc.env:VISUAL_RL_NO_SUCH_VARIABLE,dflt}\n", "a", "dflt"),
            ("a: ${oc.env:VISUAL_RL_NO_SUCH_VARIABLE, \"a b\"}\n", "a", "a b"),
        ] {
            assert_eq!(filled(text, path).as_deref(), Ok(expected), "{text}");
        }
        assert!(!filled("a: ${oc.env:PATH}\n", "a").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_filled_in_is_said() {
        let circle = "`${b}` leads in a circle, or to more than 1000 places";
        for (text, message) in [
            ("a: ${b}\nb: ${a}\n", circle),
            ("a: ${no.such}\n", "there is no no.such"),
            ("a: ${b\n", "`${b` has no closing brace"),
            ("a: ${now:%Y}\n", "`${now:%Y}` calls a resolver, of which only oc.env is known here"),
            ("a: ${...b}\n", "`${...b}` leads out of the file"),
            (
                "a: ${oc.env:VISUAL_RL_NO_SUCH_VARIABLE}\n",
                "the environment variable VISUAL_RL_NO_SUCH_VARIABLE is not set; set it, or write ${oc.env:VISUAL_RL_NO_SUCH_VARIABLE,default}",
            ),
        ] {
            assert_eq!(filled(text, "a"), Err(message.to_string()), "{text}");
        }
        // A few lines that ask for billions of places, or of bytes.
        let mut wide = "v0: x\n".to_string();
        (1..30).for_each(|i| wide += &format!("v{i}: ${{v{j}}}${{v{j}}}${{v{j}}}\n", j = i - 1));
        assert!(filled(&wide, "v29").unwrap_err().contains("more than 1000 places"));
        let long = format!("a: {}\nb: {}\n", "x".repeat(10_000), "${a}".repeat(100));
        assert_eq!(filled(&long, "b"), Err("what is filled in has more than 65536 bytes".to_string()));
    }
}
