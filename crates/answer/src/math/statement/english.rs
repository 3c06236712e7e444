//! Statements in English: taking lead and tail off a value.

use super::has_value;
use super::vocabulary::{MEASURES, is_counted, is_open, turns};

/// Words that say of what stands before them that it is what follows.
#[rustfmt::skip]
const PREDICATES: &[&str] = &[
    "is", "are", "was", "were", "equals", "equal", "becomes", "become", "remains", "remain", "gives", "give",
    "giving", "get", "gets", "got", "obtain", "obtains",
    "obtained", "have", "has", "had", "having", "find", "finds", "found", "yields", "yield", "yielding", "makes",
    "make", "making", "totals", "contains", "contain", "needs",
    "need", "costs", "cost", "takes", "take", "took", "weighs", "weigh", "measures", "measure", "earns", "earned",
    "pays", "paid", "pay", "spends", "spent", "scored",
    "scores", "sold", "sells", "bought", "buys", "ate", "eats", "saves", "saved", "receives", "received", "reads",
    "read", "walks", "walked", "runs", "ran", "travels",
    "traveled", "travelled", "drives", "drove", "uses", "used", "requires", "require", "produces", "produced",
    "collects", "collected", "owns", "hold", "gained", "won",
    "it's", "that's", "there's", "conclude", "concludes", "means", "reaches",
];
/// Predicates of several words, by their last one.
#[rustfmt::skip]
const PHRASES: &[&str] = &[
    "equal to", "increases by", "increased by", "decreases by", "decreased by", "is worth", "amounts to", "amount to",
    "comes to", "come to", "comes out to",
    "adds up to", "add up to", "sums to", "sum to", "evaluates to", "evaluate to", "simplifies to", "simplify to",
    "reduces to", "works out to", "results in",
    "result in", "leads to", "corresponds to", "must be", "should be", "will be", "would be", "to be", "has to be",
    "have to be", "out to be", "there is", "there are",
    "value of", "total of", "made of", "be equal to", "increase of", "decrease of", "length of", "area of",
    "volume of", "perimeter of", "radius of", "speed of", "probability of",
];
/// What may stand between a predicate and its value, and before a value that stands alone.
#[rustfmt::skip]
const FILLERS: &[&str] = &[
    "exactly", "just", "only", "simply", "precisely", "therefore", "thus", "then", "now", "also", "indeed", "clearly",
    "actually", "the", "a", "total", "of",
    "value", "number", "interval", "set", "point", "pair", "ordered", "integer", "fraction", "equation", "line",
    "matrix", "vector", "expression", "function", "polynomial",
    "that", "equal", "to", "altogether", "still", "by", "given", "as", "following", "be", "all", "in", "both",
    "always", "finally", "again", "worth", "approximately", "roughly", "about",
];
/// Words that lead to a value which stands alone.
#[rustfmt::skip]
const ALONE: &[&str] = &[
    "so", "thus", "therefore", "hence", "then", "finally", "and", "ok", "okay", "yes", "exactly", "only", "just",
    "precisely", "simply", "namely", "answer", "answers",
    "final", "ans", "result", "solution", "solutions", "total", "a", "of", "in", "the", "is", "which", "now",
    "overall", "altogether", "consequently", "i.e", "value", "conclusion",
    "sum", "to", "equals", "numbers", "roots", "about", "approximately", "roughly", "my", "our", "all",
];
/// Subjects that begin with these are one of several, or leave it open.
const OPEN_SUBJECTS: &[&str] = &["one", "another", "some", "any", "either", "part", "neither", "none", "half", "both"];
/// What is answered.
#[rustfmt::skip]
const ANSWERS: &[&str] = &[
    "answer", "solution", "value", "root", "possibility", "candidate", "option", "choice", "result", "guess",
    "estimate", "possible", "potential", "approximation", "correct",
    "plausible", "valid", "lower", "upper", "first", "wrong",
];
/// Words of a subject that deny or leave open what is said of it.
#[rustfmt::skip]
const SUBJECT_TURNS: &[&str] = &[
    "not", "cannot", "never", "wrong", "incorrect", "false", "neither", "nor", "none", "except", "unless", "if",
    "guess", "maybe", "perhaps", "possibly", "probably",
    "example", "instance", "bound", "bounds", "unlikely", "doubt", "hardly", "whether", "deny", "impossible",
    "doubtful", "unsure", "uncertain", "unclear", "questionable", "reject", "rejecting", "discard", "discarding",
    "besides", "suppose", "assume", "assuming", "supposing", "no", "without",
    "estimate", "approximation", "mistake", "nobody", "nothing", "barely", "scarcely", "almost", "nearly",
];
/// Right before a predicate they make it a possibility or a denial.
#[rustfmt::skip]
const MODALS: &[&str] = &[
    "not", "may", "might", "could", "can", "cannot", "never", "hardly", "barely", "scarcely", "maybe", "perhaps",
    "possibly", "probably", "no", "seldom", "rarely", "almost",
    "nearly", "sometimes", "often", "usually", "don't", "doesn't",
];
/// What begins an explanation.
#[rustfmt::skip]
const EXPLAINS: &[&str] = &[
    "because", "since", "as", "where", "using", "due", "thanks", "considering", "whereas", "while",
];
/// What begins a comparison with what is not the answer.
const CONTRASTS: &[&str] = &["rather than", "instead of", "unlike", "as opposed to", "and not", "not"];
/// What draws a conclusion.
const CONCLUDES: &[&str] = &["so", "thus", "therefore", "hence", "consequently", "which", "giving", "meaning"];
/// What begins the tail of a value: a phrase or a clause that says what it is of.
#[rustfmt::skip]
const TAILS: &[&str] = &[
    "of", "in", "on", "for", "from", "with", "per", "by", "that", "who", "which", "where", "left", "remaining",
    "altogether", "total", "each", "respectively", "together",
];
/// Further ones behind a noun: `12 ways to arrange them`.
const NOUN_TAILS: &[&str] = &["to", "at", "when", "after", "as"];
/// What is said of things that are counted, and leaves their number as it is.
const HAPPENS: &[&str] =
    &["remain", "remained", "passed", "left", "needed", "required", "eaten", "sold", "used", "full", "red"];
/// Most predicates that are tried, from the last.
const MAX_TRIES: usize = 12;

/// A word outside formulas, in lower case without signs around it.
struct EnglishWord {
    start: usize,
    end: usize,
    lower: String,
}

/// The words of a sentence, and its commas, outside of formulas and groups.
fn words(text: &str) -> (Vec<EnglishWord>, Vec<usize>) {
    let (mut found, mut commas): (Vec<EnglishWord>, Vec<usize>) = (Vec::new(), Vec::new());
    let (mut formula, mut depth) = (false, 0i32);
    let mut from: Option<usize> = None;
    let close = |found: &mut Vec<EnglishWord>, from: &mut Option<usize>, at: usize| {
        let Some(start) = from.take() else { return };
        let raw = &text[start..at];
        let end = start + raw.trim_end_matches(['-', '\'', '.']).len();
        if at - start <= 24 && found.last().is_none_or(|last| last.end <= start) {
            found.push(EnglishWord { start, end, lower: text[start..end].to_ascii_lowercase() });
        }
    };
    for (at, c) in text.char_indices() {
        let inside = formula || depth > 0;
        let letter = c.is_ascii_alphabetic() || from.is_some() && matches!(c, '\'' | '-');
        if letter && !inside && !text[..at].ends_with(|b: char| b.is_ascii_digit() || matches!(b, '\\' | '_' | '^')) {
            from.get_or_insert(at);
            continue;
        }
        if c == '.' && from.is_some() && text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        // `x2` and `f(x)` are names, not words.
        if from.is_some() && (c.is_ascii_digit() || matches!(c, '_' | '^' | '(')) {
            from = None;
        }
        close(&mut found, &mut from, at);
        match c {
            '$' => formula = !formula,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if !inside => {
                let digits = text[..at].ends_with(|c: char| c.is_ascii_digit())
                    && text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
                if !digits {
                    commas.push(at);
                }
            }
            _ => {}
        }
    }
    close(&mut found, &mut from, text.len());
    (found, commas)
}

/// The value that an English sentence states.
pub(super) fn stated(sentence: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let sentence = shortened(sentence);
    let mut starts = vec![0];
    let (words, commas) = words(sentence);
    starts.extend(commas.iter().map(|comma| comma + 1));
    starts.extend(pronouns(&words));
    starts.sort_unstable();
    for start in starts.into_iter().take(MAX_TRIES) {
        let clause = sentence[start..].trim();
        if start > 0 && !is_clause(sentence[..start].trim_end_matches([',', ' '])) {
            continue;
        }
        if let Some(value) = clause_value(clause, readable) {
            return Some(value);
        }
    }
    None
}

/// Where a clause of its own begins without a comma: `not 10 it's 9`.
fn pronouns(words: &[EnglishWord]) -> Vec<usize> {
    words
        .iter()
        .skip(1)
        .filter(|word| matches!(word.lower.as_str(), "it's" | "that's"))
        .map(|word| word.start)
        .collect()
}

/// Whether what stands before a comma is a clause or an adverb, and not the first of several values.
fn is_clause(text: &str) -> bool {
    let (words, _) = words(text);
    let open = |word: &EnglishWord| {
        matches!(
            word.lower.as_str(),
            "either" | "between" | "from" | "neither" | "if" | "unless" | "least" | "most" | "or"
        )
    };
    if words.iter().any(open) {
        return false;
    }
    !has_value(text)
        || words.iter().any(|word| {
            PREDICATES.contains(&word.lower.as_str()) || EXPLAINS.contains(&word.lower.as_str()) || word.lower == "not"
        })
}

/// The sentence from its last conclusion on, without what explains it or compares it with others.
fn shortened(sentence: &str) -> &str {
    let mut text = sentence;
    let (all, _) = words(text);
    let concluded = all.iter().filter(|word| word.start > 0).rev().find(|word| {
        CONCLUDES.contains(&word.lower.as_str())
            && has_value(&text[word.end..])
            && stands_as_clause(&text[word.end..], &word.lower)
    });
    if let Some(word) = concluded {
        text = &text[word.start..];
    }
    let (all, _) = words(text);
    for (k, word) in all.iter().enumerate() {
        let next = all.get(k + 1).map_or("", |word| word.lower.as_str());
        let two = format!("{} {next}", word.lower);
        let contrast = CONTRASTS.iter().any(|words| {
            *words == two
                || *words == word.lower && (word.lower != "not" || text[..word.start].trim_end().ends_with(','))
        });
        let explains = EXPLAINS.contains(&word.lower.as_str())
            && !(word.lower == "as" && all[k + 1..].iter().any(|word| turns(&word.lower)))
            && !(word.lower == "as" && matches!(next, "well" | "many" | "much"));
        if has_value(&text[..word.start]) && (explains || contrast) {
            return text[..word.start].trim_end_matches([',', ' ']);
        }
    }
    text
}

/// `which is 12` and `giving 12` conclude, `which is prime` does not.
fn stands_as_clause(after: &str, word: &str) -> bool {
    let next = after.trim_start();
    match word {
        "which" => ["is", "equals", "gives", "means", "makes"].iter().any(|verb| {
            next.strip_prefix(verb).is_some_and(|rest| {
                rest.trim_start().starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\' | '-'))
            })
        }),
        "giving" | "meaning" => next.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\' | '-')),
        "so" => !next.starts_with("that "),
        _ => true,
    }
}

/// The value of one clause.
fn clause_value(clause: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let (words, _) = words(clause);
    if let Some(value) = subject_value(clause, &words, readable) {
        return Some(value);
    }
    // Nothing but words that lead to a value which stands alone.
    let mut alone = 0;
    while words.get(alone).is_some_and(|word| ALONE.contains(&word.lower.as_str()) && only_words(&clause[..word.end])) {
        alone += 1;
    }
    let value_from = |from: usize| {
        let rest = clause[from..].trim_start_matches([' ', ',', ':', '=', '.', '\t', '：']);
        value_of(rest, readable)
    };
    let wanted = has_value(clause);
    let good = |value: &String| !wanted || has_value(value) || value.len() < 3 && !value.is_empty();
    let colon =
        clause.rfind(": ").map(|at| at + 1).or_else(|| clause.rfind([':', '：']).filter(|_| !clause.contains("\\")));
    if let Some(colon) = colon
        && is_safe_subject(&clause[..colon])
        && !clause[..colon].ends_with(|c: char| c.is_ascii_digit())
        && let Some(value) = value_from(colon).filter(good)
    {
        return Some(value);
    }
    for k in (0..words.len()).rev().take(MAX_TRIES) {
        let Some(start) = predicate(&words, k) else { continue };
        let lead = clause[..words[start].start].trim();
        if !has_value(&clause[words[k].end..]) && wanted || !leads(&words[..start], lead) {
            continue;
        }
        if let Some(value) = value_from(after_fillers(clause, &words, k + 1)).filter(good) {
            return Some(value);
        }
    }
    if alone > 0
        && let Some(value) = value_from(words[alone - 1].end).filter(good)
    {
        return Some(value);
    }
    measured(clause, &words, readable).or_else(|| value_of(clause, readable).filter(|value| wanted && has_value(value)))
}

/// Whether no formula or number stands in it.
fn only_words(text: &str) -> bool {
    !has_value(text)
}

/// Where the predicate that ends in word `k` begins.
fn predicate(words: &[EnglishWord], k: usize) -> Option<usize> {
    let ends = |phrase: &str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        let from = (k + 1).checked_sub(phrase.len())?;
        words[from..=k].iter().zip(&phrase).all(|(word, other)| word.lower == *other).then_some(from)
    };
    let longest = PHRASES.iter().filter_map(|phrase| ends(phrase)).min();
    longest.or_else(|| PREDICATES.contains(&words[k].lower.as_str()).then_some(k))
}

/// The place behind the fillers from word `k` on.
fn after_fillers(clause: &str, words: &[EnglishWord], mut k: usize) -> usize {
    let mut at = words[k - 1].end;
    while let Some(word) = words.get(k)
        && FILLERS.contains(&word.lower.as_str())
        && clause[at..word.start].chars().all(|c| c.is_whitespace() || matches!(c, ',' | ':'))
    {
        at = word.end;
        k += 1;
    }
    at
}

/// Whether the words before a predicate leave it as it is.
fn leads(words: &[EnglishWord], lead: &str) -> bool {
    if words.iter().rev().take(2).any(|word| MODALS.contains(&word.lower.as_str()) || word.lower.ends_with("n't")) {
        return false;
    }
    // `it is 9` begins anew, whatever was said of another value before.
    let pronoun = words.last().is_some_and(|word| {
        matches!(word.lower.as_str(), "it" | "which" | "that" | "this" | "there" | "they" | "we" | "i" | "he" | "she")
    });
    if pronoun && has_value(lead) {
        return !words
            .iter()
            .any(|word| SUBJECT_TURNS.contains(&word.lower.as_str()) && word.lower != "not" || word.lower == "or");
    }
    is_safe_subject(lead)
}

/// Whether a subject is one thing, and not denied.
fn is_safe_subject(lead: &str) -> bool {
    let (words, _) = words(lead);
    let from = words
        .iter()
        .position(|word| !ALONE.contains(&word.lower.as_str()) || matches!(word.lower.as_str(), "a" | "the"))
        .unwrap_or(0);
    let subject = &words[from..];
    if let Some(first) = subject.first() {
        let next = subject.get(1).map_or("", |word| word.lower.as_str());
        if OPEN_SUBJECTS.contains(&first.lower.as_str())
            || matches!(first.lower.as_str(), "a" | "an") && ANSWERS.contains(&next)
        {
            return false;
        }
        let bare_plural = matches!(first.lower.as_str(), "possible" | "potential" | "other" | "wrong");
        if bare_plural || first.lower == "at" && matches!(next, "least" | "most") {
            return false;
        }
    }
    words.iter().all(|word| !SUBJECT_TURNS.contains(&word.lower.as_str()) && !word.lower.ends_with("n't"))
}

/// `7 is the answer`, `x > 5 is our solution`.
fn subject_value(clause: &str, words: &[EnglishWord], readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let k = words.iter().position(|word| matches!(word.lower.as_str(), "is" | "are"))?;
    let next = words.get(k + 1)?;
    let definite = matches!(next.lower.as_str(), "the" | "our" | "my" | "your" | "their" | "his" | "her");
    let judged = matches!(next.lower.as_str(), "correct" | "right") && words.len() == k + 2;
    let rest = &words[k + 1..];
    if !(definite || judged) || rest.iter().any(|word| turns(&word.lower)) || has_value(&clause[words[k].end..]) {
        return None;
    }
    let before =
        words[..k].iter().take_while(|word| ALONE.contains(&word.lower.as_str()) || word.lower == "that").last();
    let from = before.map_or(0, |word| word.end);
    let value = clause[from..words[k].start].trim_matches([' ', ',', ':']);
    (has_value(value) && readable(value)).then(|| value.to_owned())
}

/// `... 3 hours ago`: the measure at the end of a clause whose verb is not known.
fn measured(clause: &str, words: &[EnglishWord], readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let (last, before) = words.split_last()?;
    if !MEASURES.contains(&last.lower.as_str()) {
        return None;
    }
    let lead = &before[..before.len().checked_sub(1)?];
    let from = lead.last()?.end;
    let value = clause[from..last.start].trim();
    (!lead.iter().any(|word| turns(&word.lower)) && value.starts_with(|c: char| c.is_ascii_digit()) && readable(value))
        .then(|| value.to_owned())
}

/// A value at the beginning of a text, when what follows it leaves it as it is.
fn value_of(text: &str, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let text = text.trim().trim_end_matches(['.', ',', ' ']);
    if text.is_empty() {
        return None;
    }
    let whole = text
        .strip_prefix(['(', '"'])
        .filter(|rest| !rest.contains('('))
        .and_then(|rest| rest.strip_suffix([')', '"']))
        .filter(|rest| !rest.contains(','));
    if readable(text) {
        return Some(text.to_owned());
    }
    if let Some(inner) = whole
        && readable(inner)
    {
        return Some(inner.to_owned());
    }
    let (words, commas) = words(text);
    for (k, word) in words.iter().enumerate().take(MAX_TRIES) {
        let value = text[..word.start].trim_end_matches([' ', ',', ':', '—', '–', '(']);
        if !has_value(value) {
            continue;
        }
        let tail = &words[k..];
        let begins = TAILS.contains(&word.lower.as_str()) || MEASURES.contains(&word.lower.as_str());
        let noun_then_tail = || {
            let ends = |word: &EnglishWord| {
                [TAILS, NOUN_TAILS, MEASURES].iter().any(|words| words.contains(&word.lower.as_str()))
            };
            let end = tail.iter().position(ends);
            let nouns = &tail[..end.unwrap_or(tail.len())];
            end.is_some() && (1..=4).contains(&nouns.len()) && nouns.iter().all(|word| is_open(&word.lower))
        };
        let more =
            matches!(word.lower.as_str(), "more" | "fewer") && tail.get(1).is_some_and(|word| is_open(&word.lower));
        let rest = if more { &tail[1..] } else { tail };
        let harmless = rest.iter().all(|word| !turns(&word.lower) || word.lower == "than" && more)
            && !has_digit(&text[word.start..]);
        if (harmless && (begins || more || noun_then_tail()) || remains(&text[word.start..], tail)) && readable(value) {
            return Some(value.to_owned());
        }
        if !begins && !is_open(&word.lower) && !more {
            break;
        }
    }
    // `7, as required`: a clause without a value behind the comma.
    commas.iter().take(MAX_TRIES).find_map(|comma| {
        let (value, tail) = (text[..*comma].trim(), &text[comma + 1..]);
        let (words, _) = self::words(tail);
        let explains = words.first().is_some_and(|word| {
            matches!(word.lower.as_str(), "as" | "which" | "that" | "where" | "with" | "because" | "since" | "using")
        });
        let harmless = explains && words.iter().all(|word| !turns(&word.lower)) && !has_digit(tail);
        (harmless && has_value(value) && readable(value)).then(|| value.to_owned())
    })
}

/// `birds remain`, `cookies were eaten`: what is counted, and that it is there, or what became of it.
fn remains(text: &str, tail: &[EnglishWord]) -> bool {
    let Some(verb) = tail.iter().position(|word| HAPPENS.contains(&word.lower.as_str())) else { return false };
    let (nouns, end) = match verb.checked_sub(1).map(|k| tail[k].lower.as_str()) {
        Some("are" | "were") => (&tail[..verb - 1], verb),
        _ => (&tail[..verb], verb),
    };
    let counted = nouns.last().is_none_or(|word| is_counted(&word.lower));
    let bare = nouns.is_empty() && tail[verb].lower != "remain";
    tail.len() == end + 1
        && !bare
        && counted
        && nouns.len() <= 3
        && nouns.iter().all(|word| is_open(&word.lower))
        && !has_digit(text)
}

/// Whether a tail computes or compares.
fn has_digit(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit() || matches!(c, '<' | '>' | '=' | '≤' | '≥' | '≠' | '$' | '\\' | '+'))
}
