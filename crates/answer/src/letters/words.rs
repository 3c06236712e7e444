//! The words of a text with their places and what stands behind them, and which parts of it only explain.

/// A run of letters and digits of one script.
#[derive(Debug)]
pub(super) struct Word<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// In lower case, as English words are compared.
    pub(super) lower: String,
    /// What stands between it and the next one.
    pub(super) gap: &'a str,
}

impl Word<'_> {
    /// Whether a sentence ends behind it.
    pub(super) fn stops(&self) -> bool {
        stops(self.gap)
    }

    pub(super) fn is_one_of(&self, words: &[&str]) -> bool {
        words.contains(&self.lower.as_str())
    }
}

/// Whether a sentence ends in what stands between two words.
pub(super) fn stops(gap: &str) -> bool {
    gap.contains(['!', '?', ';', '。', '！', '？', '；'])
        || gap.contains("\n\n")
        || gap.match_indices('.').any(|(at, _)| gap[at + 1..].chars().next().is_none_or(char::is_whitespace))
}

/// Longest word that is looked at; longer ones mean nothing here.
const MAX_WORD: usize = 24;

/// The Latin words of a text.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\'' | '’');
    let mut found: Vec<Word> = Vec::new();
    let mut at = 0;
    while let Some(from) = text[at..].find(|c: char| c.is_ascii_alphanumeric()) {
        let start = at + from;
        if let Some(last) = found.last_mut() {
            last.gap = &text[last.end..start];
        }
        let end = start + text[start..].find(|c| !part(c)).unwrap_or(text.len() - start);
        let lower = if end - start <= MAX_WORD { text[start..end].to_ascii_lowercase() } else { String::new() };
        found.push(Word { start, end, lower: lower.replace('’', "'"), gap: &text[end..] });
        at = end;
    }
    found
}

/// Words that begin a part of a sentence which explains, concedes or supposes.
#[rustfmt::skip]
const SUBORDINATE: &[&str] = &[
    "because", "since", "although", "though", "while", "whereas", "despite", "if", "unless", "as", "given", "when",
    "even", "considering", "supposing", "assuming",
];
/// The same in Chinese.
const SUBORDINATE_HAN: &[&str] = &["因为", "由于", "虽然", "尽管", "如果", "假如", "若", "理由", "原因是"];
/// What ends such a part: a conclusion is drawn.
const CONCLUSION: &[&str] = &["so", "thus", "therefore", "hence", "then", "consequently", "but", "however"];
const CONCLUSION_HAN: &[&str] = &["所以", "因此", "故", "可知", "但", "综上"];

/// The parts of a text that explain, as byte ranges in their order. One at the beginning of its sentence reaches to its
/// comma, any other to the end of the sentence, both at most to a conclusion.
pub(super) fn explanations(text: &str, words: &[Word]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut from = 0;
    for (k, word) in words.iter().enumerate() {
        if word.start < from || !word.is_one_of(SUBORDINATE) {
            continue;
        }
        let before = k.checked_sub(1).map(|k| &words[k]);
        // `the same as option B`
        if word.lower == "as"
            && before.is_some_and(|word| word.is_one_of(&["same", "such", "well", "serves", "labeled"]))
        {
            continue;
        }
        let first = before.is_none_or(|word| word.stops() || word.is_one_of(CONCLUSION));
        let end = words[k..].iter().position(|word| word.stops() || first && word.gap.contains([',', '，']));
        let end = end.map_or(words.len(), |end| k + end + 1);
        let end = words[k + 1..end].iter().position(|word| word.is_one_of(CONCLUSION)).map_or(end, |at| k + 1 + at);
        let end = words.get(end).map_or(text.len(), |word| word.start);
        found.push((word.start, end));
        from = end;
    }
    found.extend(explanations_han(text));
    found.sort_unstable();
    // One within another, or reaching into it, is part of it.
    let mut apart: Vec<(usize, usize)> = Vec::with_capacity(found.len());
    for (from, to) in found {
        match apart.last_mut() {
            Some(last) if from < last.1 => last.1 = last.1.max(to),
            _ => apart.push((from, to)),
        }
    }
    apart
}

fn explanations_han(text: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let conclusions = occurrences(text, CONCLUSION_HAN);
    for (start, word) in occurrences(text, SUBORDINATE_HAN) {
        let inside = start + word.len();
        if found.last().is_some_and(|(_, end)| start < *end) {
            continue;
        }
        let before = text[..start].trim_end();
        let first = before.is_empty() || before.ends_with(['。', '；', '！', '？', '.', '\n']);
        let signs: &[char] = if first { &['。', '；', '\n', '，', ','] } else { &['。', '；', '\n'] };
        let mut end = text[inside..].find(signs).map_or(text.len(), |end| inside + end);
        // `若半径加倍，则答案为C`: what would follow is supposed as well.
        let follows = text[end..].trim_start_matches(['，', ',', ' ']);
        if first && ["则", "那么"].iter().any(|word| follows.starts_with(word)) {
            end = text[end..].find(['。', '；', '\n']).map_or(text.len(), |at| end + at);
        }
        let next = conclusions.partition_point(|(at, _)| *at < inside);
        found.push((start, conclusions.get(next).map_or(end, |(at, _)| end.min(*at))));
    }
    found
}

/// Where these words stand, in their order; at one place the first that fits.
pub(super) fn occurrences<'w>(text: &str, words: &[&'w str]) -> Vec<(usize, &'w str)> {
    text.char_indices()
        .filter(|(_, c)| !c.is_ascii())
        .filter_map(|(at, _)| Some((at, *words.iter().find(|word| text[at..].starts_with(**word))?)))
        .collect()
}
