//! Reading a file of JSON lines, or one JSON list, an object at a time: such files outgrow memory.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Map, Value};

type Object = Result<Map<String, Value>, String>;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Calls `take` with the place of each object and the object, or why it is none.
///
/// # Errors
/// A file that cannot be read, or that begins as a list but is none.
pub(crate) fn each(path: &Path, take: impl FnMut(String, Object)) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut start = Vec::new();
    reader.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start).map_err(unreadable)?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    // Empty lines count as lines, so they are kept for whoever counts.
    while start.trim_ascii_start().is_empty() {
        if reader.read_until(b'\n', &mut start).map_err(unreadable)? == 0 {
            return Ok(());
        }
    }
    let list = start.trim_ascii_start().starts_with(b"[");
    let mut reader = BufReader::new(std::io::Cursor::new(start).chain(reader));
    match list {
        true => list_of(&mut reader, take).map_err(|e| format!("begins as a JSON list but is none: {e}")),
        false => lines_of(&mut reader, take).map_err(unreadable),
    }
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("JSON, but not an object".to_owned()),
    }
}

fn lines_of(reader: &mut impl BufRead, mut take: impl FnMut(String, Object)) -> std::io::Result<()> {
    let (mut line, mut number) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        if !line.trim_ascii().is_empty() {
            let parsed = match std::str::from_utf8(&line) {
                Err(_) => Err("not UTF-8".to_owned()),
                Ok(text) => serde_json::from_str(text).map_err(|e| format!("not JSON: {e}")).and_then(object),
            };
            take(format!("line {number}"), parsed);
        }
        line.clear();
    }
    Ok(())
}

fn list_of(reader: &mut impl BufRead, take: impl FnMut(String, Object)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    Each(take).deserialize(&mut json)?;
    json.end()
}

/// A list whose entries are given away one by one.
struct Each<F>(F);

impl<'a, F: FnMut(String, Object)> DeserializeSeed<'a> for Each<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'a, F: FnMut(String, Object)> Visitor<'a> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut number = 0usize;
        while let Some(value) = list.next_element::<Value>().map_err(A::Error::custom)? {
            number += 1;
            (self.0)(format!("entry {number}"), object(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(String, bool)>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut found = Vec::new();
        each(file.path(), |place, row| found.push((place, row.is_ok()))).map(|()| found)
    }

    #[test]
    fn places_are_counted_from_one() {
        let places = |found: &[(&str, bool)]| Ok(found.iter().map(|(p, ok)| ((*p).to_owned(), *ok)).collect());
        assert_eq!(read(b"{}\n\n{}\r\n[1]\n\xff\n{"), {
            places(&[("line 1", true), ("line 3", true), ("line 4", false), ("line 5", false), ("line 6", false)])
        });
        assert_eq!(read(b"\xEF\xBB\xBF\n\n {\"a\":1}"), places(&[("line 3", true)]));
        assert_eq!(read(b"\n [{}, 3,\n{}] \n"), {
            places(&[("entry 1", true), ("entry 2", false), ("entry 3", true)])
        });
        for empty in [&b""[..], b"\n\n", b"\xEF\xBB\xBF", b"[]"] {
            assert_eq!(read(empty), Ok(vec![]));
        }
        for broken in [&b"[{}"[..], b"[{}] x", b"[{} {}]"] {
            assert!(read(broken).unwrap_err().starts_with("begins as a JSON list but is none"));
        }
        let missing = each(Path::new("/nowhere/at/all"), |_, _| {}).unwrap_err();
        assert!(missing.starts_with("cannot be read"), "{missing}");
    }
}
