//! Words: which may stand beside a value, and which turn it into something else.

use crate::math::units;

/// Words that turn the value beside them into a bound, a range, a guess, a denial or one of several.
#[rustfmt::skip]
const TURNS: &[&str] = &[
    "not", "no", "none", "never", "neither", "nor", "cannot", "wrong", "incorrect", "false", "untrue", "invalid",
    "impossible", "rejected", "extraneous",
    "undefined", "unknown", "unsure", "uncertain", "unclear", "doubtful", "excluded", "excluding", "except",
    "exclusive", "inclusive", "besides", "unless", "if",
    "or", "either", "else", "otherwise", "least", "most", "more", "less", "fewer", "greater", "larger", "smaller",
    "bigger", "than", "minimum", "maximum",
    "max", "tops", "up", "upward", "upwards", "onward", "onwards", "over", "under", "above", "below", "beyond",
    "past", "beneath", "exceeds", "exceeding",
    "about", "around", "approximately", "approx", "roughly", "nearly", "almost", "circa", "near", "close", "closer",
    "ish", "so", "plus", "minus", "between",
    "among", "amongst", "within", "till", "until", "through", "before", "after", "maybe", "perhaps", "possibly",
    "probably", "supposedly", "likely", "unlikely", "might",
    "may", "could", "guess", "guesses", "guessing", "estimate", "estimates", "estimated", "estimation", "bound",
    "bounds", "lower", "upper", "candidate",
    "candidates", "example", "examples", "instance", "etc", "others", "other", "another", "any", "some", "something",
    "several", "half", "twice", "double", "triple",
    "thrice", "squared", "cubed", "doubled", "halved", "factorial", "sometimes", "usually", "often", "hardly",
    "barely", "scarcely", "but", "however", "though",
    "although", "wait", "sorry", "instead", "rather", "unlike", "versus", "vs", "works", "fails", "exists", "fits",
    "holds", "satisfies", "partly", "partially",
    "theoretically", "allegedly", "questionable", "mistaken", "mistake", "error", "inaccurate", "doubt", "idk",
    "assume", "assuming", "suppose", "say", "first",
    "second", "third", "point", "halves", "thirds", "quarters", "fourths", "fifths", "sixths", "sevenths", "eighths",
    "ninths", "tenths", "hundredths", "thousandths", "too", "also", "even", "yet", "still", "doesn't", "isn't",
    "aren't", "don't", "wasn't", "won't", "can't", "couldn't",
    "shouldn't", "wouldn't", "didn't", "odd", "prime", "give", "take", "range", "ranges", "case", "cases", "best",
    "many", "much", "worst", "outside", "low", "high", "side",
];

/// Words of grammar, which no noun phrase ends in or begins with.
#[rustfmt::skip]
const GRAMMAR: &[&str] = &[
    "the", "a", "an", "of", "in", "on", "at", "to", "from", "for", "with", "by", "as", "is", "are", "was", "were",
    "be", "been", "being", "am", "has", "have", "had",
    "do", "does", "did", "will", "would", "should", "must", "can", "and", "this", "that", "these", "those", "it",
    "its", "he", "she", "they", "we", "i", "you", "them",
    "his", "her", "their", "our", "my", "your", "who", "which", "what", "where", "when", "why", "how", "because",
    "since", "while", "then", "thus", "hence",
    "therefore", "there", "here", "just", "only", "very", "really", "again", "yes", "ok", "okay", "us", "me", "via",
    "without", "across", "against", "along",
    "always", "perhaps", "alas", "unless", "afterwards", "towards", "says", "means", "gives", "equals", "equal",
    "makes", "needs", "remains", "looks", "seems", "was",
];

/// Nouns without a plural in s.
#[rustfmt::skip]
const PLURALS: &[&str] = &[
    "people", "children", "men", "women", "feet", "teeth", "mice", "geese", "sheep", "fish", "deer", "oxen", "dice",
    "vertices", "indices", "matrices", "axes", "radii",
    "foci", "nuclei", "percent", "yuan", "yen", "pence", "pi", "oclock", "o'clock", "fold", "data", "criteria",
    "staff", "players", "kids", "adults", "cattle",
    "money", "water", "bread", "milk", "rice", "sugar", "flour", "salt", "paper", "time", "distance", "length",
    "area", "volume",
];

/// Adverbs that measure: `3 hours ago`, `5 m long`.
pub(super) const MEASURES: &[&str] = &[
    "ago", "later", "earlier", "old", "long", "wide", "tall", "deep", "thick", "away", "apart", "high", "east", "west",
    "north", "south",
];

/// Whether a word turns a value beside it into something that is none.
pub(in crate::math) fn turns(word: &str) -> bool {
    TURNS.contains(&word) || word.ends_with("n't")
}

/// Whether a word may stand in a noun phrase: it is no word of grammar and turns nothing.
pub(super) fn is_open(word: &str) -> bool {
    !word.is_empty()
        && !turns(word)
        && !GRAMMAR.contains(&word)
        && word.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\''))
}

/// Whether words of a sentence stand beside a value, which are then taken for factors.
pub(in crate::math) fn has_prose(text: &str) -> bool {
    // These have a meaning in formulas.
    const MEANT: &[&str] = &["and", "or", "in", "max", "none", "no", "undefined"];
    let bytes = text.as_bytes();
    text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'').any(|word| {
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        let command = at > 0 && matches!(bytes[at - 1], b'\\' | b'_' | b'{');
        let lower = word.to_ascii_lowercase();
        word.len() > 1
            && word.len() < 16
            && !command
            && !(word.len() == 2 && word.bytes().all(|b| b.is_ascii_uppercase()))
            && !MEANT.contains(&lower.as_str())
            && (turns(&lower) || GRAMMAR.contains(&lower.as_str()))
    })
}

/// Whether a word names what is counted or measured, wherever it stands behind a number.
pub(in crate::math) fn is_counted(word: &str) -> bool {
    if units::is_unit_word(word) {
        return true;
    }
    let word = word.to_lowercase();
    PLURALS.contains(&word.as_str()) || word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") && is_open(&word)
}

/// The words that may stand beside a value of one side.
#[derive(Debug, Clone, Copy)]
pub(in crate::math) struct Known<'a> {
    /// The ground truth: its words are those of whoever wrote the question.
    pub(in crate::math) trusted: bool,
    /// The words of the ground truth, in lower case; an answer may use them.
    pub(in crate::math) truth: &'a str,
    /// Whether the ground truth is a rounded number, for which `about 3.14` is an answer.
    pub(in crate::math) rounded: bool,
}

impl Known<'_> {
    /// Whether a word may be a unit behind a value, or what is counted by it.
    pub(in crate::math) fn beside(&self, word: &str) -> bool {
        if is_counted(word) {
            return true;
        }
        let lower = word.to_lowercase();
        let given_by_truth = || self.truth.split(|c: char| !c.is_alphanumeric()).any(|own| own == lower);
        is_open(&lower) && (self.trusted && lower.len() > 2 || lower.len() > 1 && given_by_truth())
    }

    /// Whether a word is a noun when nothing speaks against it, as behind 1: `1 cake`.
    pub(in crate::math) fn may_be_noun(&self, word: &str) -> bool {
        word.len() > 2 && is_open(&word.to_lowercase())
    }

    /// Whether all words of a phrase may stand behind a value: adjectives, and a noun at the end.
    pub(in crate::math) fn phrase(&self, text: &str) -> bool {
        if text.len() > 80 || units::factors(text).is_some() {
            return text.len() <= 80;
        }
        if text.contains(crate::math::names::is_ideograph) {
            return super::chinese::is_measured(text) || self.trusted || self.truth.contains(&text.to_lowercase());
        }
        let words: Vec<String> = words(text).map(|word| word.to_lowercase()).collect();
        let Some((last, first)) = words.split_last() else { return true };
        // `cm long`, `of water` is left to the statement.
        first.len() <= 3 && self.beside(last) && first.iter().all(|word| is_open(word) || units::is_unit_word(word))
    }
}

/// The words of a phrase without signs around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '~' | '.' | ',' | '(' | ')'))
        .filter(|word| !word.is_empty() && *word != "/")
}
