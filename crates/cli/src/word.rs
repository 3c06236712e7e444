//! Arguments that are one of a fixed set of words: help and completions list them.

use std::fmt::Display;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// The parser of one of `names`, which are those of `T`.
///
/// ```
/// #[derive(clap::Parser)]
/// struct Sort {
///     #[arg(long, value_parser = cli::word::<bool>(["true", "false"]))]
///     reverse: bool,
/// }
/// ```
pub fn word<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    // A name that the type does not know is refused in its own words.
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>().map_err(|error| error.to_string()))
}

/// The parser of one of `values`, each of which has a name and a line about it; an empty one says nothing.
///
/// # Panics
/// Where a value has no name among them, which is a mistake of the program.
pub fn one_of<T>(values: impl IntoIterator<Item = (&'static str, &'static str, T)>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
{
    let values: Vec<_> = values.into_iter().collect();
    let listed = values.iter().map(|(name, about, _)| match *about {
        "" => PossibleValue::new(*name),
        about => PossibleValue::new(*name).help(about.trim_end_matches('.')),
    });
    PossibleValuesParser::new(listed.collect::<Vec<_>>()).map(move |name| {
        let found = values.iter().find(|(known, ..)| *known == name).map(|(.., value)| value.clone());
        found.expect("the parser lets pass what it lists")
    })
}
