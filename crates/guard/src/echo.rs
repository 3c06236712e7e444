//! The echo of what a user or a file says: one line that a terminal can show, cut where it is long.

/// Characters of one echoed value: a path or a key is recognised by its ends.
const ECHO: usize = 240;
/// Characters of one line of a message, which may hold several echoes.
const LINE: usize = 2_000;
/// Lines of a message.
const LINES: usize = 400;

/// `text` as one line of at most about 300 characters: control characters are escaped (a terminal would obey them), and
/// of a longer text both ends are kept, with the number of bytes between them.
pub fn echo(text: &str) -> String {
    escaped(&cut(text, ECHO), false)
}

/// A whole message, made ready for a terminal or a log: line breaks stay, other control characters are escaped, each
/// line keeps both of its ends, and of very many lines the first and the last are kept.
pub fn printable(message: &str) -> String {
    let lines: Vec<&str> = message.split('\n').collect();
    let shown = |line: &&str| escaped(&cut(line, LINE), true);
    if lines.len() <= LINES {
        return lines.iter().map(shown).collect::<Vec<_>>().join("\n");
    }
    let half = LINES / 2;
    let mut out: Vec<String> = lines[..half].iter().map(shown).collect();
    out.push(format!("... {} lines ...", lines.len() - LINES));
    out.extend(lines[lines.len() - half..].iter().map(shown));
    out.join("\n")
}

/// `text` with its line breaks and tabs and without a cut, other control characters escaped: for reports of any length.
pub fn harmless(text: &str) -> String {
    text.split('\n').map(|line| escaped(line, true)).collect::<Vec<_>>().join("\n")
}

/// Both ends of a text of more than `most` characters.
fn cut(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    // A character has at least one byte.
    if text.len() <= most || text.chars().nth(most).is_none() {
        return text.into();
    }
    let head = text.char_indices().nth(most / 2).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().nth_back(most / 2 - 1).map_or(0, |(at, _)| at);
    format!("{}...({} bytes)...{}", &text[..head], tail - head, &text[tail..]).into()
}

fn escaped(text: &str, tabs: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' if tabs => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Control characters, and those that reorder or hide what stands beside them.
            c if c.is_control()
                || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}') =>
            {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept() {
        assert_eq!(echo("a path"), "a path");
        let long = format!("/head{}tail.json", "x".repeat(100_000));
        let shown = echo(&long);
        assert!(shown.starts_with("/headxx") && shown.ends_with("tail.json") && shown.len() < 300, "{shown}");
        assert!(shown.contains("(99774 bytes)"), "{shown}");
        // Characters of several bytes are not cut in two.
        let wide = "é".repeat(ECHO) + "ü";
        assert!(echo(&wide).ends_with('ü') && echo(&wide).contains("(2 bytes)"), "{}", echo(&wide));
        assert_eq!(echo(&"é".repeat(ECHO)), "é".repeat(ECHO));
    }

    #[test]
    fn a_terminal_obeys_nothing() {
        assert_eq!(echo("a\u{1b}[2J\u{7}\r\nb\u{9b}1m\u{202e}c"), "a\\u{1b}[2J\\u{7}\\r\\nb\\u{9b}1m\\u{202e}c");
        assert_eq!(printable("one\n\ttwo\u{1b}]0;x\u{7}"), "one\n\ttwo\\u{1b}]0;x\\u{7}");
        let report = format!("a\u{1b}[2J|\tb\n{}", "x".repeat(100_000));
        assert_eq!(harmless(&report), report.replace('\u{1b}', "\\u{1b}"));
    }

    #[test]
    fn messages_are_bounded_by_lines_and_their_length() {
        let message = format!("first {}\nlast", "y".repeat(1 << 20));
        let shown = printable(&message);
        assert!(shown.starts_with("first y") && shown.ends_with("\nlast") && shown.len() < 2_200);
        let many: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
        let shown = printable(&many);
        assert_eq!(shown.lines().count(), LINES + 1 - 1 + usize::from(!shown.ends_with('\n')));
        assert!(shown.starts_with("line 0\n") && shown.contains("line 99999"));
    }
}
