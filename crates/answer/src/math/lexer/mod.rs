//! From an answer, in LaTeX or plain text, to tokens.

mod fixed;

use fixed::{command, sign};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Pow;

use super::names::{function_name, greek, greek_or_constant, is_ideograph};
use super::numerals::superscript;
use super::token::{Kind, Rel, Token};
use super::words::conjunction;

/// How a comma between two digits is read where it may be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commas {
    /// `1,234` is one number.
    Thousands,
    /// `1,234` is two numbers.
    List,
    /// `1,22` is 1.22.
    Decimal,
}

/// Most tokens in one answer.
const MAX_TOKENS: usize = 4000;

/// The tokens of `text`; `None` when there are too many, or when a character has no place in an answer.
pub(super) fn tokens(text: &str, commas: Commas) -> Option<Vec<Token>> {
    nested(text, commas, 0)
}

/// Deepest nesting of fonts.
const MAX_DEPTH: usize = 8;

fn nested(text: &str, commas: Commas, depth: usize) -> Option<Vec<Token>> {
    if depth > MAX_DEPTH {
        return None;
    }
    let tabular = text.contains(r"\begin");
    let braced = tabular && text.contains(r"\right.");
    let mut lexer =
        Lexer { text, at: 0, out: Vec::new(), spaced: false, commas, tabular, braced, system: false, depth };
    while lexer.at < text.len() {
        lexer.next()?;
        if lexer.out.len() > MAX_TOKENS {
            return None;
        }
    }
    Some(lexer.out)
}

pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) out: Vec<Token>,
    pub(super) spaced: bool,
    pub(super) commas: Commas,
    /// Inside a text with tables `\\x` is a row break and x; elsewhere it is a command with one backslash too many.
    tabular: bool,
    /// Whether a brace may open that a `\right.` closes, before the rows of a system of equations.
    braced: bool,
    /// Whether such a brace has just been read.
    system: bool,
    depth: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn push(&mut self, kind: Kind) {
        self.out.push(Token { kind, spaced: self.spaced, upright: false });
        self.spaced = false;
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace());
        self.at += rest.len() - trimmed.len();
    }

    fn next(&mut self) -> Option<()> {
        let rest = self.rest();
        let c = rest.chars().next()?;
        if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit())) {
            return self.number();
        }
        if c.is_ascii_alphabetic() {
            self.letters();
            return Some(());
        }
        if c == '\\' {
            return self.backslash();
        }
        self.at += c.len_utf8();
        let kind = match c {
            _ if c.is_whitespace() => {
                self.spaced = true;
                return Some(());
            }
            // Signs of currency, emphasis and quotation carry no value.
            '$' | '€' | '£' | '¥' | '₹' | '₽' | '"' | '“' | '”' | '`' | '\u{200b}' | '\u{feff}' | '#' | '~' =>
            {
                self.spaced = true;
                return Some(());
            }
            '*' if self.rest().starts_with('*') => {
                self.at += 1;
                // `x**2` is a power; `**5**` is emphasis.
                let operand =
                    |kind: &Kind| matches!(kind, Kind::Number(..) | Kind::Letter(_) | Kind::Word(_) | Kind::Close(_));
                let after = self.rest().trim_start().chars().next();
                if self.out.last().is_some_and(|token| operand(&token.kind))
                    && after.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '(' | '{' | '-'))
                {
                    Kind::Power
                } else {
                    return Some(());
                }
            }
            // `AB//CD`, as parallels are typed.
            '/' if self.rest().starts_with('/')
                && matches!(self.out.last(), Some(Token { kind: Kind::Letter(_) | Kind::Word(_), .. })) =>
            {
                self.at += 1;
                Kind::Letter('∥')
            }
            '^' => {
                if let Some(length) = degree_sign(self.rest()) {
                    self.at += length;
                    Kind::Degree
                } else {
                    Kind::Power
                }
            }
            '!' if self.rest().starts_with('=') => {
                self.at += 1;
                Kind::Rel(Rel::Ne)
            }
            '=' if self.rest().starts_with('=') => {
                self.at += 1;
                Kind::Rel(Rel::Eq)
            }
            '=' if self.rest().starts_with('<') => {
                self.at += 1;
                Kind::Rel(Rel::Le)
            }
            '<' | '>' if self.rest().starts_with('=') => {
                self.at += 1;
                Kind::Rel(if c == '<' { Rel::Le } else { Rel::Ge })
            }
            '∛' | '∜' => return self.root_sign(if c == '∛' { "3" } else { "4" }),
            // `x &= 1` is one equation.
            '&' if self.rest().trim_start().starts_with('=') => return Some(()),
            // A full stop that ends a sentence.
            '.' | '。' | '…' | '?' | '∴' => {
                self.spaced = true;
                return Some(());
            }
            _ => match sign(c) {
                Some(kind) => kind,
                None => return self.unusual(c),
            },
        };
        self.push(kind);
        Some(())
    }

    /// A character with a value of its own: fractions, raised digits, letters of other alphabets. It has been read.
    fn unusual(&mut self, c: char) -> Option<()> {
        let kind = match c {
            '¼' | '½' | '¾' | '⅓' | '⅔' | '⅕' | '⅙' | '⅛' => {
                let (a, b) = match c {
                    '¼' => (1, 4),
                    '½' => (1, 2),
                    '¾' => (3, 4),
                    '⅓' => (1, 3),
                    '⅔' => (2, 3),
                    '⅕' => (1, 5),
                    '⅙' => (1, 6),
                    _ => (1, 8),
                };
                Kind::Number(BigRational::new(a.into(), b.into()), None)
            }
            _ => {
                if let Some(digit) = superscript(c) {
                    let mut digits = digit.to_string();
                    while let Some(next) = self.rest().chars().next()
                        && let Some(digit) = superscript(next)
                    {
                        digits.push(digit);
                        self.at += next.len_utf8();
                        if digits.len() > 20 {
                            return None;
                        }
                    }
                    // `³√8`
                    if self.rest().starts_with('√') {
                        self.at += '√'.len_utf8();
                        return self.root_sign(&digits);
                    }
                    self.push(Kind::Power);
                    Kind::Number(BigRational::from_integer(digits.parse::<BigInt>().ok()?), None)
                } else if let ('⁻', Some(digit)) = (c, self.rest().chars().next().and_then(superscript)) {
                    self.at += self.rest().chars().next().map_or(0, char::len_utf8);
                    for kind in [Kind::Power, Kind::Open('{'), Kind::Minus] {
                        self.push(kind);
                    }
                    let mut digits = digit.to_string();
                    while digits.len() < 20
                        && let Some(next) = self.rest().chars().next()
                        && let Some(digit) = superscript(next)
                    {
                        digits.push(digit);
                        self.at += next.len_utf8();
                    }
                    self.push(Kind::Number(BigRational::from_integer(digits.parse::<BigInt>().ok()?), None));
                    Kind::Close('}')
                } else if c == 'ⁿ' {
                    self.push(Kind::Power);
                    Kind::Letter('n')
                } else if c.is_alphabetic() {
                    self.foreign(c);
                    return Some(());
                } else if matches!(c, '∠' | '△' | '□' | '⊙' | '∥' | '⊥' | '∘') {
                    Kind::Letter(c)
                } else {
                    return None;
                }
            }
        };
        self.push(kind);
        Some(())
    }

    /// A root with its index.
    fn root_sign(&mut self, index: &str) -> Option<()> {
        let index = BigRational::from_integer(index.parse::<BigInt>().ok()?);
        for kind in [Kind::Command("sqrt".into()), Kind::Open('['), Kind::Number(index, None), Kind::Close(']')] {
            self.push(kind);
        }
        Some(())
    }

    /// The content of the brace group at the cursor, which moves behind it; without a group the next character.
    fn group(&mut self) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        if !rest.starts_with('{') {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            self.at += length;
            return &rest[..length];
        }
        let mut depth = 0usize;
        for (at, b) in rest.bytes().enumerate() {
            match b {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at += at + 1;
                return &rest[1..at];
            }
        }
        // Unclosed: all that is left.
        self.at = self.text.len();
        &rest[1..]
    }

    fn backslash(&mut self) -> Option<()> {
        let rest = &self.rest()[1..];
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        if length == 0 {
            return self.escaped(rest.chars().next());
        }
        let mut name = &rest[..length];
        // `\quadx` is a blank and x.
        for blank in ["qquad", "quad"] {
            if name.len() > blank.len() && name.starts_with(blank) {
                name = blank;
            }
        }
        self.at += 1 + name.len();
        if self.layout(name) {
            return Some(());
        }
        let kind = match name {
            "text" | "textbf" | "textit" | "textrm" | "mbox" | "textnormal" | "hbox" | "textsf" | "texttt"
            | "textsc" | "emph" | "mathrm" | "mathbf" | "mathit" | "mathsf" | "mathtt" | "boldsymbol" | "bm"
            | "operatorname" | "mathop" | "underline" | "textup" | "mathnormal" => return self.styled(name),
            "mathbb" | "Bbb" => {
                let content = self.group();
                match content.trim() {
                    "R" => Kind::Command("R".into()),
                    letter => Kind::Word(format!("𝕊{letter}")),
                }
            }
            "mathcal" | "mathscr" | "mathfrak" => {
                let content = self.group().trim();
                Kind::Word(format!("𝒮{content}"))
            }
            "vec" | "overrightarrow" | "overleftarrow" | "hat" | "widehat" | "bar" | "tilde" | "widetilde"
            | "overset" | "stackrel" => {
                let mark = if matches!(name, "vec" | "overrightarrow") { "→" } else { name };
                let mut content = self.group().to_owned();
                if matches!(name, "overset" | "stackrel") {
                    content.push_str(self.group());
                }
                content.retain(|c| !c.is_whitespace());
                Kind::Word(format!("{mark}{content}"))
            }
            "overline" | "dot" => return self.overline(),
            "begin" => {
                let name = self.group().trim_end_matches('*').to_owned();
                if name == "array" || name == "tabular" {
                    self.group();
                }
                Kind::Begin(if std::mem::take(&mut self.system) { "cases".to_owned() } else { name })
            }
            "end" => Kind::End(self.group().trim_end_matches('*').to_owned()),
            "not" => {
                self.skip_blanks();
                if self.rest().starts_with('=') {
                    self.at += 1;
                    Kind::Rel(Rel::Ne)
                } else {
                    return None;
                }
            }
            "circ" => {
                // 60\circ without the hat.
                if matches!(self.out.last(), Some(Token { kind: Kind::Number(..), .. })) {
                    Kind::Degree
                } else {
                    Kind::Letter('∘')
                }
            }
            "frac" | "dfrac" | "tfrac" | "cfrac" | "nicefrac" => {
                self.push(Kind::Command("frac".into()));
                return self.single_digits();
            }
            "binom" | "dbinom" | "tbinom" => {
                self.push(Kind::Command("binom".into()));
                return self.single_digits();
            }
            _ => match command(name).or_else(|| greek(name).map(Kind::Letter)) {
                Some(kind) => kind,
                None => Kind::Command(name.to_owned()),
            },
        };
        self.push(kind);
        Some(())
    }

    /// Commands that set type and say nothing; whether `name` is one. It has been read.
    fn layout(&mut self, name: &str) -> bool {
        match name {
            "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "biggl"
            | "biggr" | "middle" => {
                // `\left.` is no bracket at all.
                if self.rest().starts_with('.') && name != "middle" {
                    self.at += 1;
                }
                if self.braced
                    && name == "left"
                    && let Some(inside) = self.rest().trim_start().strip_prefix(r"\{").map(str::trim_start)
                    && inside.starts_with(r"\begin")
                {
                    self.at = self.text.len() - inside.len();
                    self.system = true;
                }
            }
            "displaystyle" | "textstyle" | "limits" | "nolimits" | "rm" | "bf" | "it" | "scriptstyle" | "boldmath"
            | "cal" | "sf" | "strut" | "mathstrut" | "hfill" | "noindent" | "centering" | "large" | "Large"
            | "therefore" | "because" => {}
            "quad" | "qquad" | "enspace" | "thinspace" | "space" | "newline" => {
                self.spaced = true;
            }
            "hspace" | "vspace" | "phantom" | "label" | "tag" | "color" | "vphantom" | "hphantom" => {
                self.group();
            }
            // Only the conclusion is the answer.
            "Rightarrow" | "implies" | "Longrightarrow" => {
                self.out.clear();
            }
            _ => return false,
        }
        true
    }

    /// `\frac12`: an argument without braces is one digit.
    fn single_digits(&mut self) -> Option<()> {
        for _ in 0..2 {
            self.skip_blanks();
            let Some(digit) = self.rest().chars().next().and_then(|c| c.to_digit(10)) else { break };
            self.at += 1;
            let value = BigRational::from_integer(digit.into());
            self.push(Kind::Number(value, Some(digit.to_string())));
        }
        Some(())
    }

    /// A backslash and a sign.
    fn escaped(&mut self, sign: Option<char>) -> Option<()> {
        let Some(c) = sign else {
            self.at += 1;
            return Some(());
        };
        self.at += 1 + c.len_utf8();
        let kind = match c {
            '{' => Kind::Open('S'),
            '}' => Kind::Close('S'),
            '%' => Kind::Percent,
            '|' => Kind::Bar,
            '&' => Kind::And,
            '\\' => {
                let next = self.rest().chars().next();
                let command = next
                    .is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '[' | ']' | '(' | ')' | '{' | '}' | ','));
                if !self.tabular && command {
                    // One backslash too many: the second one starts the command.
                    self.at -= 1;
                    return Some(());
                }
                // \\[2pt]
                if self.tabular && next == Some('[') {
                    let skip = self.rest().find(']').filter(|&n| n < 8).map_or(0, |n| n + 1);
                    self.at += skip;
                }
                Kind::Row
            }
            // Blanks of several widths, `\$`, `\(`, `\[` and so on.
            _ => {
                self.spaced = true;
                return Some(());
            }
        };
        self.push(kind);
        Some(())
    }

    /// `\text{...}` and the fonts.
    fn styled(&mut self, command: &str) -> Option<()> {
        if self.rest().starts_with('*') {
            self.at += 1;
        }
        let content = self.group().trim_matches(|c: char| c.is_whitespace() || c == '~');
        let words = matches!(
            command,
            "text"
                | "textbf"
                | "textit"
                | "textrm"
                | "mbox"
                | "textnormal"
                | "hbox"
                | "textsf"
                | "texttt"
                | "textsc"
                | "emph"
                | "textup"
        );
        let mut letters = content.chars();
        let kind = match (letters.next(), letters.as_str()) {
            (None, _) => {
                self.spaced = true;
                return Some(());
            }
            _ if let Some(joining) = conjunction(content) => joining,
            (Some(c), "") if c.is_alphabetic() && !is_ideograph(c) && (!words || greek_or_constant(c)) => {
                Kind::Letter(c)
            }
            _ if !words && function_name(content) => Kind::Command(content.to_owned()),
            _ if !words && (content.starts_with('\\') || content.bytes().any(|b| b.is_ascii_digit())) => {
                // \mathbf{12}, \boldsymbol{\alpha}: the font means nothing.
                let mut inner = nested(content, self.commas, self.depth + 1)?;
                if let Some(first) = inner.first_mut() {
                    first.spaced |= std::mem::take(&mut self.spaced);
                }
                inner.iter_mut().for_each(|token| token.upright |= command == "mathrm");
                self.out.extend(inner);
                return Some(());
            }
            // `3\text{ cm and }4`
            _ if let Some((before, last)) = content.rsplit_once(char::is_whitespace)
                && matches!(self.out.last(), Some(Token { kind: Kind::Number(..) | Kind::Close(_), .. }))
                && let Some(joining) = conjunction(last) =>
            {
                let before = before.trim_end_matches([' ', ',']).to_owned();
                self.push(Kind::Text(before));
                joining
            }
            _ => Kind::Text(content.to_owned()),
        };
        self.out.push(Token { kind, spaced: std::mem::take(&mut self.spaced), upright: command == "mathrm" });
        Some(())
    }

    /// A line over digits after a decimal point repeats them; over letters it is a segment's name.
    fn overline(&mut self) -> Option<()> {
        let content = self.group().trim();
        if let Some(Token { kind: Kind::Number(value, _), .. }) = self.out.last_mut()
            && !content.is_empty()
            && content.len() < 100
            && content.bytes().all(|b| b.is_ascii_digit())
        {
            // How many decimals stand before is seen from the source: all digits since the point.
            let before = &self.text[..self.at];
            let open = before.rfind('\\')?;
            let head = before[..open].trim_end();
            let decimals = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            if !head[..head.len() - decimals].ends_with('.') || decimals > 1000 {
                return None;
            }
            let ten = BigInt::from(10);
            let repeated = BigRational::new(content.parse::<BigInt>().ok()?, Pow::pow(&ten, content.len()) - 1u32);
            *value += repeated / BigRational::from_integer(Pow::pow(&ten, decimals));
            return Some(());
        }
        let name: String = content.chars().filter(|c| !c.is_whitespace()).collect();
        let mut letters = name.chars();
        match (letters.next(), letters.next()) {
            (None, _) => {}
            (Some(letter), None) => self.push(Kind::Letter(letter)),
            _ => self.push(Kind::Word(name)),
        }
        Some(())
    }
}

/// The length of `\circ` or `{\circ}` after a hat.
fn degree_sign(rest: &str) -> Option<usize> {
    let inner = rest.trim_start();
    let braced = inner.strip_prefix('{');
    let after = braced.unwrap_or(inner).trim_start();
    let after = after
        .strip_prefix("\\circ")
        .or_else(|| after.strip_prefix("\\degree"))
        .or_else(|| after.strip_prefix("∘"))
        .or_else(|| after.strip_prefix('°'))?;
    if after.starts_with(|c: char| c.is_ascii_alphabetic()) && braced.is_some() {
        return None;
    }
    let after = if braced.is_some() { after.trim_start().strip_prefix('}')? } else { after };
    Some(rest.len() - after.len())
}
