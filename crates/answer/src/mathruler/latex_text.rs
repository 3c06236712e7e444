//! LaTeX to plain text, as pylatexenc 2.11 does it in its default setting, which is what mathruler calls.
//!
//! Much of mathruler's behaviour is really this converter's: a fraction becomes `a/b` without brackets, so that
//! `\frac{1}{x+1}` reads `1/x+1`; the index of a root is lost; an unknown macro vanishes and leaves its argument.
//! Only what can stand in an answer is reproduced here; document macros are not.

use super::symbols::symbol;

/// Deepest nesting of groups, arguments and environments that is followed.
const MAX_DEPTH: usize = 100;

/// Deepest nesting of macros and environments within each other; Python's stack ends before.
const MAX_MACROS: usize = 200;

/// What reading may cost beyond one look at each character. A macro whose arguments are cut off by the end is read
/// again as if it had none, and each of those within it: without a bound that doubles with every level.
const FREE_WORK: usize = 5_000;

/// Longest text, in bytes, that an accent is put on.
const MAX_ACCENTED: usize = 4096;

/// The text of `latex`, or `None` where the converter would raise an error.
pub(super) fn latex_to_text(latex: &str) -> Option<String> {
    let chars: Vec<char> = latex.chars().collect();
    let work = FREE_WORK + chars.len();
    let mut walker = Walker { chars, at: 0, depth: 0, in_math: false, macros: 0, work };
    let mut out = String::with_capacity(latex.len());
    while walker.at < walker.chars.len() {
        out.push_str(&walker.run(Stop::Brace)?);
        // A stray closing brace is skipped.
        walker.at += 1;
    }
    Some(out)
}

#[derive(Clone, Copy, PartialEq)]
enum Stop<'a> {
    /// `}`, left unread, or the end.
    Brace,
    /// `]` at this level, left unread, or the end.
    Bracket,
    /// `\)` or `\]`, read, or the end.
    Math(char),
    /// `\end{name}`, read, or the end.
    End(&'a str),
}

struct Walker {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    in_math: bool,
    /// How many macros are being read within each other.
    macros: usize,
    /// What reading may still cost; nothing more is read when it is used up.
    work: usize,
}

/// What is done with the arguments of a macro.
enum Action {
    /// They are put one after the other.
    Join,
    /// They are dropped.
    Drop,
    /// The pieces stand around the arguments; when an argument is missing, `%s` is printed for each.
    Around(&'static [&'static str]),
    /// The last one is taken.
    Last,
    /// `√(x)`; an error without x.
    Sqrt,
    /// Every letter becomes one of a mathematical alphabet.
    Style(Style),
    /// A combining sign follows every character.
    Accent(char),
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Italic,
    Sans,
    DoubleStruck,
    Monospace,
    Script,
    Fraktur,
}

/// The argument specification (`{` mandatory, `[` optional, `*` star) and the action of a macro that takes arguments.
fn macro_spec(name: &str) -> Option<(&'static str, Action)> {
    use Action::*;
    Some(match name {
        "text" | "textrm" | "textit" | "textbf" | "textsc" | "textsl" | "emph" | "mathrm" => ("{", Join),
        "mbox" | "textmd" | "textsf" | "texttt" | "textup" | "label" | "bibliography" => ("{", Drop),
        "hphantom" | "vphantom" | "xleftarrow" | "xrightarrow" => ("[{", Drop),
        "hspace" => ("*{", Drop),
        "color" => ("[", Drop),
        "frac" | "nicefrac" => ("{{", Around(&["", "/", ""])),
        "ket" => ("{", Around(&["|", "⟩"])),
        "bra" => ("{", Around(&["⟨", "|"])),
        "url" => ("{", Around(&["<", ">"])),
        "sqrt" => ("[{", Sqrt),
        "textcolor" | "colorbox" => ("[{{", Last),
        "ensuremath"
        | "overline"
        | "underline"
        | "widehat"
        | "widetilde"
        | "wideparen"
        | "overleftarrow"
        | "overrightarrow"
        | "overleftrightarrow"
        | "underleftarrow"
        | "underrightarrow"
        | "underleftrightarrow"
        | "overbrace"
        | "underbrace"
        | "overgroup"
        | "undergroup"
        | "overbracket"
        | "underbracket"
        | "overlinesegment"
        | "underlinesegment"
        | "overleftharpoon"
        | "overrightharpoon" => ("{", Around(&["", ""])),
        "mathbf" => ("{", Style(self::Style::Bold)),
        "mathit" => ("{", Style(self::Style::Italic)),
        "mathsf" => ("{", Style(self::Style::Sans)),
        "mathbb" => ("{", Style(self::Style::DoubleStruck)),
        "mathtt" => ("{", Style(self::Style::Monospace)),
        "mathcal" | "mathscr" => ("{", Style(self::Style::Script)),
        "mathfrak" => ("{", Style(self::Style::Fraktur)),
        "vec" => ("{", Accent('\u{20d7}')),
        "hat" | "^" => ("{", Accent('\u{302}')),
        "bar" => ("{", Accent('\u{305}')),
        "=" => ("{", Accent('\u{304}')),
        "dot" | "." => ("{", Accent('\u{307}')),
        "ddot" | "\"" => ("{", Accent('\u{308}')),
        "tilde" | "~" => ("{", Accent('\u{303}')),
        "acute" | "'" => ("{", Accent('\u{301}')),
        "grave" | "`" => ("{", Accent('\u{300}')),
        "breve" | "u" => ("{", Accent('\u{306}')),
        "check" | "v" => ("{", Accent('\u{30c}')),
        "c" => ("{", Accent('\u{327}')),
        "H" => ("{", Accent('\u{30b}')),
        "k" => ("{", Accent('\u{328}')),
        "b" => ("{", Accent('\u{331}')),
        "d" => ("{", Accent('\u{323}')),
        "r" => ("{", Accent('\u{30a}')),
        "not" => ("{", Accent('\u{338}')),
        _ => return None,
    })
}

impl Walker {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn spend(&mut self, work: usize) -> Option<()> {
        let left = self.work.checked_sub(work);
        self.work = left.unwrap_or(0);
        left.map(|_| ())
    }

    fn skip_blanks(&mut self) {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Text up to `stop`.
    fn run(&mut self, stop: Stop) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut out = String::new();
        while let Some(c) = self.peek(0) {
            self.spend(1)?;
            match c {
                '}' => break,
                ']' if stop == Stop::Bracket => break,
                '{' => {
                    self.at += 1;
                    out.push_str(&self.run(Stop::Brace)?);
                    self.at += 1;
                }
                '\\' => match self.macro_name() {
                    name if stop == Stop::Math(')') && name == ")" => break,
                    name if stop == Stop::Math(']') && name == "]" => break,
                    name if name == "end" => {
                        let from = self.at;
                        match (self.environment_name(), stop) {
                            (Some(found), Stop::End(wanted)) if found == wanted => break,
                            // The end of something that has not begun is dropped.
                            (Some(_), _) => {}
                            (None, _) => {
                                self.at = from;
                                out.push_str(r"\end");
                            }
                        }
                    }
                    name => self.macro_text(&name, &mut out)?,
                },
                _ => self.plain(&mut out),
            }
        }
        self.depth -= 1;
        Some(out)
    }

    /// One character, or one of the few sequences that TeX reads as another sign.
    fn plain(&mut self, out: &mut String) {
        let c = self.chars[self.at];
        let (next, third) = (self.peek(1), self.peek(2));
        let (text, length) = match (c, next) {
            ('~', _) => ("\u{a0}", 1),
            ('&', _) => ("   ", 1),
            ('`', Some('`')) => ("“", 2),
            ('\'', Some('\'')) => ("”", 2),
            ('-', Some('-')) if third == Some('-') => ("—", 3),
            ('-', Some('-')) => ("–", 2),
            ('!', Some('`')) => ("¡", 2),
            ('?', Some('`')) => ("¿", 2),
            _ => {
                out.push(c);
                self.at += 1;
                return;
            }
        };
        out.push_str(text);
        self.at += length;
    }

    /// Reads a backslash and the name after it; blanks after a name of letters belong to it.
    fn macro_name(&mut self) -> String {
        self.at += 1;
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_alphabetic()) {
            name.push(c);
            self.at += 1;
        }
        if name.is_empty() {
            if let Some(c) = self.peek(0) {
                name.push(c);
                self.at += 1;
            }
        } else if !self.in_math {
            self.skip_blanks();
        }
        name
    }

    fn macro_text(&mut self, name: &str, out: &mut String) -> Option<()> {
        if self.macros == MAX_MACROS {
            return None;
        }
        self.macros += 1;
        let done = self.macro_text_within(name, out);
        self.macros -= 1;
        done
    }

    fn macro_text_within(&mut self, name: &str, out: &mut String) -> Option<()> {
        match name {
            "(" | "[" => {
                let outside = std::mem::replace(&mut self.in_math, true);
                let content = self.run(Stop::Math(if name == "(" { ')' } else { ']' }))?;
                self.in_math = outside;
                push_equation(content.trim(), name == "[", out);
            }
            "begin" => self.environment(out)?,
            "\\" => {
                if self.peek(0) == Some('*') {
                    self.at += 1;
                }
                self.arguments("[");
                out.push('\n');
            }
            "item" => out.push_str("\n  * "),
            "vspace" => {
                self.arguments("*{");
                out.push('\n');
            }
            "cos" | "sin" | "tan" | "ln" | "log" | "exp" => out.push_str(name),
            "," | ";" | ":" | " " => out.push(' '),
            "&" | "$" | "{" | "}" | "%" | "#" | "_" => out.push_str(name),
            "-" => out.push('\u{ad}'),
            _ => match macro_spec(name) {
                Some((spec, action)) => {
                    let before = self.at;
                    let arguments = self.arguments(spec);
                    if arguments.is_none() {
                        self.at = before;
                    }
                    apply(&action, arguments, out)?;
                }
                None => out.push_str(symbol(name).unwrap_or("")),
            },
        }
        Some(())
    }

    /// The texts of the arguments; an optional one that is absent is empty. `None` when a mandatory one is missing.
    fn arguments(&mut self, spec: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        for kind in spec.chars() {
            let before = self.at;
            self.skip_blanks();
            match (kind, self.peek(0)) {
                ('*', Some('*')) => self.at += 1,
                ('[', Some('[')) => {
                    self.at += 1;
                    found.push(self.run(Stop::Bracket)?);
                    if self.peek(0) != Some(']') {
                        return None;
                    }
                    self.at += 1;
                }
                ('*' | '[', _) => {
                    self.at = before;
                    if kind == '[' {
                        found.push(String::new());
                    }
                }
                (_, Some('{')) => {
                    self.at += 1;
                    found.push(self.run(Stop::Brace)?);
                    self.at += 1;
                }
                (_, None) => return None,
                // A stray closing brace counts as an empty argument.
                (_, Some('}')) => {
                    self.at += 1;
                    found.push(String::new());
                }
                (_, Some('\\')) => {
                    let name = self.macro_name();
                    let mut text = String::new();
                    match macro_spec(&name) {
                        // As an argument a macro stands alone, without arguments of its own.
                        Some((_, action)) => apply(&action, None, &mut text)?,
                        None => self.macro_text(&name, &mut text)?,
                    }
                    found.push(text);
                }
                _ => {
                    let mut text = String::new();
                    self.plain(&mut text);
                    found.push(text);
                }
            }
        }
        Some(found)
    }

    /// The `{name}` after `\begin` or `\end`.
    fn environment_name(&mut self) -> Option<String> {
        self.skip_blanks();
        if self.peek(0) != Some('{') {
            return None;
        }
        let length = self.chars[self.at..].iter().position(|&c| c == '}');
        self.spend(length.unwrap_or(self.chars.len() - self.at) / 16)?;
        let length = length?;
        let name = self.chars[self.at + 1..self.at + length].iter().collect();
        self.at += length + 1;
        Some(name)
    }

    fn environment(&mut self, out: &mut String) -> Option<()> {
        let before = self.at;
        let Some(name) = self.environment_name() else {
            self.at = before;
            out.push_str(r"\begin");
            return Some(());
        };
        match name.as_str() {
            "array" | "pmatrix" | "bmatrix" | "smallmatrix" | "psmallmatrix" | "bsmallmatrix" => {
                if name == "array" {
                    self.arguments("[{");
                }
                self.matrix(&name, out)
            }
            "equation" | "equation*" | "eqnarray" | "eqnarray*" | "align" | "align*" | "gather" | "gather*"
            | "multline" | "multline*" => {
                let outside = std::mem::replace(&mut self.in_math, true);
                let content = self.run(Stop::End(&name))?;
                self.in_math = outside;
                push_equation(content.trim(), true, out);
                Some(())
            }
            "tabular" => {
                self.arguments("{");
                out.push_str(&self.run(Stop::End(&name))?);
                Some(())
            }
            _ => {
                out.push_str(&self.run(Stop::End(&name))?);
                Some(())
            }
        }
    }

    /// `[ 1 2; 3 4 ]`, the cells padded on the left to the widest; a cell without any source is left out.
    fn matrix(&mut self, environment: &str, out: &mut String) -> Option<()> {
        let mut rows: Vec<Vec<String>> = vec![Vec::new()];
        let mut cell = String::new();
        let mut cell_start = self.at;
        loop {
            let here = self.at;
            let Some(c) = self.peek(0) else { break };
            self.spend(1)?;
            let mut ends = None;
            match c {
                '}' => {
                    // Unbalanced: what follows is not part of the matrix.
                    break;
                }
                '&' => {
                    self.at += 1;
                    ends = Some(false);
                }
                '\\' => {
                    let name = self.macro_name();
                    if name == "end" {
                        if self.environment_name().is_none_or(|found| found != environment) {
                            continue;
                        }
                        if here > cell_start {
                            push_cell(&mut rows, &mut cell);
                        }
                        return {
                            push_matrix(&rows, out);
                            Some(())
                        };
                    } else if name == "\\" {
                        self.arguments("[");
                        ends = Some(true);
                    } else {
                        self.macro_text(&name, &mut cell)?;
                    }
                }
                '{' => {
                    self.at += 1;
                    cell.push_str(&self.run(Stop::Brace)?);
                    self.at += 1;
                }
                _ => self.plain(&mut cell),
            }
            if let Some(new_row) = ends {
                if here > cell_start {
                    push_cell(&mut rows, &mut cell);
                }
                if new_row {
                    rows.push(Vec::new());
                }
                cell_start = self.at;
            }
        }
        if self.at > cell_start {
            push_cell(&mut rows, &mut cell);
        }
        push_matrix(&rows, out);
        Some(())
    }
}

fn push_cell(rows: &mut [Vec<String>], cell: &mut String) {
    if let Some(row) = rows.last_mut() {
        row.push(cell.trim().to_owned());
    }
    cell.clear();
}

fn push_matrix(rows: &[Vec<String>], out: &mut String) {
    // One very wide cell would pad all others to its width; past any sane matrix the padding is left out.
    let widest = rows.iter().flatten().map(|cell| cell.chars().count()).max().unwrap_or(0).min(256);
    out.push_str("[ ");
    for (r, row) in rows.iter().enumerate() {
        if r > 0 {
            out.push_str("; ");
        }
        for (c, cell) in row.iter().enumerate() {
            if c > 0 {
                out.push(' ');
            }
            out.extend(std::iter::repeat_n(' ', widest.saturating_sub(cell.chars().count())));
            out.push_str(cell);
        }
    }
    out.push_str(" ]");
}

fn push_equation(content: &str, display: bool, out: &mut String) {
    if display {
        out.push_str("\n    ");
        out.push_str(&content.replace('\n', "\n    "));
        out.push('\n');
    } else {
        out.push_str(content);
    }
}

fn apply(action: &Action, arguments: Option<Vec<String>>, out: &mut String) -> Option<()> {
    match (action, arguments) {
        (Action::Join, Some(texts)) => texts.iter().for_each(|text| out.push_str(text)),
        (Action::Join | Action::Drop, _) => {}
        (Action::Around(pieces), Some(texts)) => {
            for (at, piece) in pieces.iter().enumerate() {
                out.push_str(piece);
                out.push_str(texts.get(at).map_or("", String::as_str));
            }
        }
        (Action::Around(pieces), None) => out.push_str(&pieces.join("%s")),
        (Action::Sqrt, Some(texts)) => {
            out.push_str("√(");
            out.push_str(texts.last()?);
            out.push(')');
        }
        (Action::Last, Some(texts)) => out.push_str(texts.last()?),
        (Action::Sqrt | Action::Last, None) => return None,
        (Action::Style(style), Some(texts)) => {
            out.extend(texts.iter().flat_map(|t| t.chars()).map(|c| styled(c, *style)))
        }
        (Action::Style(_), None) => {}
        (Action::Accent(sign), texts) => {
            let text = texts.map_or_else(|| " ".to_owned(), |texts| texts.concat());
            // Accents on accents double the text each time.
            if text.len() > MAX_ACCENTED {
                return None;
            }
            for c in text.trim().chars() {
                out.extend([c, *sign]);
            }
        }
    }
    Some(())
}

/// The letter of a mathematical alphabet (Unicode block U+1D400), with the letters that Unicode had before that block.
fn styled(c: char, style: Style) -> char {
    let (upper, lower) = match style {
        Style::Bold => (0x1D400, 0x1D41A),
        Style::Italic => (0x1D434, 0x1D44E),
        Style::Sans => (0x1D5A0, 0x1D5BA),
        Style::DoubleStruck => (0x1D538, 0x1D552),
        Style::Monospace => (0x1D670, 0x1D68A),
        Style::Script => (0x1D49C, 0x1D4B6),
        Style::Fraktur => (0x1D504, 0x1D51E),
    };
    let earlier = match (style, c) {
        (Style::Italic, 'h') => 'ℎ',
        (Style::DoubleStruck, 'C') => 'ℂ',
        (Style::DoubleStruck, 'H') => 'ℍ',
        (Style::DoubleStruck, 'N') => 'ℕ',
        (Style::DoubleStruck, 'P') => 'ℙ',
        (Style::DoubleStruck, 'Q') => 'ℚ',
        (Style::DoubleStruck, 'R') => 'ℝ',
        (Style::DoubleStruck, 'Z') => 'ℤ',
        (Style::Script, 'B') => 'ℬ',
        (Style::Script, 'E') => 'ℰ',
        (Style::Script, 'F') => 'ℱ',
        (Style::Script, 'H') => 'ℋ',
        (Style::Script, 'I') => 'ℐ',
        (Style::Script, 'L') => 'ℒ',
        (Style::Script, 'M') => 'ℳ',
        (Style::Script, 'R') => 'ℛ',
        (Style::Script, 'e') => 'ℯ',
        (Style::Script, 'g') => 'ℊ',
        (Style::Script, 'o') => 'ℴ',
        (Style::Fraktur, 'C') => 'ℭ',
        (Style::Fraktur, 'H') => 'ℌ',
        (Style::Fraktur, 'I') => 'ℑ',
        (Style::Fraktur, 'R') => 'ℜ',
        (Style::Fraktur, 'Z') => 'ℨ',
        _ => '\0',
    };
    if earlier != '\0' {
        return earlier;
    }
    let offset = |start: u32, from: char| char::from_u32(start + (c as u32 - from as u32)).unwrap_or(c);
    match c {
        'A'..='Z' => offset(upper, 'A'),
        'a'..='z' => offset(lower, 'a'),
        _ => c,
    }
}
