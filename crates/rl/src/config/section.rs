//! Sections: one declaration gives the struct, its defaults, its reader, its printer and its reference.

use std::any::Any;
use std::fmt::{Debug, Display};
use std::ops::{RangeInclusive, RangeToInclusive};

use serde_json::json;
pub use toml::Value;

use super::checks::Checks;

/// The values that a numeric key may have: from one number to another, or up to one.
pub trait Bounds<T> {
    /// As the reference shows it.
    fn text(&self) -> String;
    /// As JSON Schema says it.
    fn schema(&self) -> serde_json::Value;
    /// What is wrong with a value, `None` where nothing is.
    fn problem(&self, value: &T) -> Option<String>;
}

impl<T: PartialOrd + Display + serde::Serialize> Bounds<T> for RangeInclusive<T> {
    fn text(&self) -> String {
        format!("{} to {}", self.start(), self.end())
    }
    fn schema(&self) -> serde_json::Value {
        json!({ "minimum": self.start(), "maximum": self.end() })
    }
    fn problem(&self, value: &T) -> Option<String> {
        let (low, high) = (self.start(), self.end());
        match value {
            value if value < low => Some(format!("must be at least {low}, is {value} (the range is {low} to {high})")),
            value if value > high => Some(format!("must be at most {high}, is {value} (the range is {low} to {high})")),
            _ => None,
        }
    }
}

// The lower end of a share or a weight, which may be open, is checked with what depends on it.
impl Bounds<f64> for RangeToInclusive<f64> {
    fn text(&self) -> String {
        format!("up to {:?}", self.end)
    }
    fn schema(&self) -> serde_json::Value {
        json!({ "maximum": self.end })
    }
    fn problem(&self, value: &f64) -> Option<String> {
        (*value > self.end).then(|| format!("must be at most {:?}, is {value:?}", self.end))
    }
}

/// One key of a section, as the reference shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyDoc {
    /// The key, without its section.
    pub name: &'static str,
    /// The type in words.
    pub kind: String,
    /// The default, as TOML.
    pub default: String,
    /// The smallest and largest value of a number.
    pub range: String,
    /// What JSON Schema says of its values.
    pub schema: serde_json::Value,
    /// What it means.
    pub doc: String,
}

/// One section of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionDoc {
    /// The header: `[actor.optim]`, or `[[stages]]` for a list.
    pub header: String,
    /// What it is about.
    pub doc: String,
    /// Its keys in order.
    pub keys: Vec<KeyDoc>,
}

/// Why a value could not be set; the caller adds the place.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyError {
    /// Dotted path of the key.
    pub path: String,
    /// What is wrong with it.
    pub problem: KeyProblem,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyProblem {
    /// No such key.
    Unknown {
        /// The keys that stand beside it.
        siblings: Vec<String>,
    },
    /// A wrong type or value, in words.
    Wrong(String),
}

impl KeyError {
    /// A wrong type or value of the key at `path`.
    pub fn wrong(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_string(), problem: KeyProblem::Wrong(reason.into()) }
    }
    /// No key at `path`, but `siblings` beside it.
    pub fn unknown(path: String, siblings: Vec<String>) -> Self {
        Self { path, problem: KeyProblem::Unknown { siblings } }
    }
}

/// A part of the configuration tree that holds keys or further parts.
pub trait Node {
    /// Sets what `value` names and leaves the rest.
    fn apply(&mut self, path: &str, value: &Value) -> Result<(), KeyError>;
    /// Sets the key at `rest` below this node from the text of an override.
    fn apply_text(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError>;
    /// Prints the node as TOML, each key under its documentation.
    fn write(&self, path: &str, out: &mut String);
    /// Collects the numbers that lie outside their ranges.
    fn check(&self, path: &str, checks: &mut Checks);
    /// Lists the node's sections for the reference.
    fn describe(&self, path: &str, out: &mut Vec<SectionDoc>);
}

/// The settings of one algorithm: the section `[algorithm.NAME]`. [`section!`](crate::section) implements [`Node`];
/// what is left to say by hand is which values contradict one another.
pub trait Settings: Node + Clone + Debug + Default + PartialEq + Send + Sync + 'static {
    /// Values that mean nothing, by their keys without the section. Always checked, whether or not the algorithm is
    /// in force; the upper ends of ranges stand beside the keys.
    fn validate(&self, checks: &mut Checks) {
        let _ = checks;
    }
}

/// [`Settings`] of a type that is not known: what a configuration holds of each algorithm.
pub trait AnySettings: Node + Debug + Send + Sync {
    /// [`Settings::validate`].
    fn validate_any(&self, checks: &mut Checks);
    /// A copy.
    fn clone_any(&self) -> Box<dyn AnySettings>;
    /// Whether `other` is of the same type and equal.
    fn equals(&self, other: &dyn AnySettings) -> bool;
    /// For a cast to the type.
    fn as_any(&self) -> &dyn Any;
    /// For a cast to the type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<S: Settings> AnySettings for S {
    fn validate_any(&self, checks: &mut Checks) {
        self.validate(checks);
    }
    fn clone_any(&self) -> Box<dyn AnySettings> {
        Box::new(self.clone())
    }
    fn equals(&self, other: &dyn AnySettings) -> bool {
        other.as_any().downcast_ref::<S>() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// `path.key`, or `key` at the root.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// What JSON Schema says of a type and of the range of a key.
pub fn bounded(mut kind: serde_json::Value, ranges: Vec<serde_json::Value>) -> serde_json::Value {
    for (name, value) in ranges.iter().filter_map(serde_json::Value::as_object).flatten() {
        kind[name] = value.clone();
    }
    kind
}

/// The lines of a doc comment as one paragraph.
pub fn paragraph(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_string()
}

/// Appends `text` as `# ` lines of at most 100 columns.
pub fn write_comment(text: &str, out: &mut String) {
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.chars().count() > 98 {
            out.push('\n');
            width = 0;
        }
        if width == 0 {
            out.push('#');
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.chars().count();
    }
    if width > 0 {
        out.push('\n');
    }
}

/// Declares a section. The doc comments become the comments of the printed file and of the reference; a number has a
/// range after `=>`, which bounds memory, time and every product of sizes.
///
/// ```
/// rl::section! {
///     /// Later tokens get more of the advantage.
///     pub struct LateConfig {
///         /// How much more the last token gets than the first.
///         slope: f64 = 0.5 => ..=10.0,
///     }
/// }
/// assert_eq!(LateConfig::default().slope, 0.5);
/// ```
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $kdoc:literal])* $key:ident : $type:ty = $default:expr $( => $range:expr )?, )*
        }
        $( sections { $( $(#[doc = $sdoc:literal])* $sub:ident : $sub_type:ty, )* } )?
        $( open { $(#[doc = $odoc:literal])* $open:ident : $open_type:ty, } )?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $kdoc])* $vis $key: $type, )*
            $( $( $(#[doc = $sdoc])* $vis $sub: $sub_type, )* )?
            $( $(#[doc = $odoc])* $vis $open: $open_type, )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $( $sub: Default::default(), )* )?
                    $( $open: Default::default(), )?
                }
            }
        }

        #[allow(dead_code)]
        impl $name {
            pub(crate) const DOC: &'static [&'static str] = &[$( $doc ),*];
            pub(crate) const NAMES: &'static [&'static str] =
                &[$( stringify!($key), )* $( $( stringify!($sub), )* )?];

            pub(crate) fn key_docs() -> Vec<$crate::config::section::KeyDoc> {
                #[allow(unused_variables)]
                let defaults = Self::default();
                vec![$( $crate::config::section::KeyDoc {
                    name: stringify!($key),
                    kind: <$type as $crate::config::field::Field>::kind(),
                    default: $crate::config::field::Field::to_text(&defaults.$key),
                    range: Vec::<String>::from([$( $crate::config::section::Bounds::<$type>::text(&($range)) )?]).concat(),
                    schema: $crate::config::section::bounded(
                        <$type as $crate::config::field::Field>::schema(),
                        vec![$( $crate::config::section::Bounds::<$type>::schema(&($range)) )?],
                    ),
                    doc: $crate::config::section::paragraph(&[$( $kdoc ),*]),
                }, )*]
            }

            pub(crate) fn write_keys(&self, out: &mut String) {
                $(
                    $crate::config::section::write_comment(
                        &$crate::config::section::paragraph(&[$( $kdoc ),*]),
                        out,
                    );
                    out.push_str(stringify!($key));
                    out.push_str(" = ");
                    out.push_str(&$crate::config::field::Field::to_text(&self.$key));
                    out.push('\n');
                )*
            }

            fn siblings(&self) -> Vec<String> {
                let mut names: Vec<String> = Self::NAMES.iter().map(|name| name.to_string()).collect();
                names.extend(Vec::<Vec<String>>::from([$( self.$open.names() )?]).concat());
                names
            }
        }

        impl $crate::config::section::Node for $name {
            fn apply(
                &mut self,
                path: &str,
                value: &$crate::config::section::Value,
            ) -> Result<(), $crate::config::section::KeyError> {
                use $crate::config::section::{KeyError, join};
                let $crate::config::section::Value::Table(table) = value else {
                    return Err(KeyError::wrong(
                        path,
                        $crate::config::field::mismatch(&format!("a section [{path}]"), value),
                    ));
                };
                for (key, value) in table {
                    let place = join(path, key);
                    match key.as_str() {
                        $( stringify!($key) => {
                            self.$key = $crate::config::field::Field::from_value(value)
                                .map_err(|reason| KeyError::wrong(&place, reason))?;
                        } )*
                        $( $( stringify!($sub) => {
                            $crate::config::section::Node::apply(&mut self.$sub, &place, value)?;
                        } )* )?
                        _ => {
                            $( if let Some(section) = self.$open.named_mut(key) {
                                $crate::config::section::Node::apply(section, &place, value)?;
                                continue;
                            } )?
                            return Err(KeyError::unknown(place, self.siblings()));
                        }
                    }
                }
                Ok(())
            }

            fn apply_text(
                &mut self,
                path: &str,
                rest: &[&str],
                text: &str,
            ) -> Result<(), $crate::config::section::KeyError> {
                use $crate::config::section::{KeyError, join};
                let Some((key, below)) = rest.split_first() else {
                    return Err(KeyError::wrong(
                        path,
                        format!("is a section; set one of its keys: {}", self.siblings().join(", ")),
                    ));
                };
                let place = join(path, key);
                match *key {
                    $( stringify!($key) => {
                        if !below.is_empty() {
                            return Err(KeyError::wrong(&place, "is a key and has none below it"));
                        }
                        self.$key = $crate::config::field::Field::from_text(text)
                            .map_err(|reason| KeyError::wrong(&place, reason))?;
                        Ok(())
                    } )*
                    $( $( stringify!($sub) => {
                        $crate::config::section::Node::apply_text(&mut self.$sub, &place, below, text)
                    } )* )?
                    _ => {
                        $( if let Some(section) = self.$open.named_mut(key) {
                            return $crate::config::section::Node::apply_text(section, &place, below, text);
                        } )?
                        Err(KeyError::unknown(place, self.siblings()))
                    }
                }
            }

            fn write(&self, path: &str, out: &mut String) {
                out.push('\n');
                $crate::config::section::write_comment(
                    &$crate::config::section::paragraph(Self::DOC),
                    out,
                );
                out.push_str(&format!("[{path}]\n"));
                self.write_keys(out);
                $( $( $crate::config::section::Node::write(
                    &self.$sub,
                    &$crate::config::section::join(path, stringify!($sub)),
                    out,
                ); )* )?
                $( $crate::config::section::Node::write(&self.$open, path, out); )?
            }

            #[allow(unused_variables, unused_imports)]
            fn check(&self, path: &str, checks: &mut $crate::config::checks::Checks) {
                use $crate::config::section::{Bounds, join};
                $( $(
                    if let Some(reason) = Bounds::<$type>::problem(&($range), &self.$key) {
                        checks.out_of_range(join(path, stringify!($key)), reason);
                    }
                )? )*
                $( $( $crate::config::section::Node::check(&self.$sub, &join(path, stringify!($sub)), checks); )* )?
                $( $crate::config::section::Node::check(&self.$open, path, checks); )?
            }

            fn describe(&self, path: &str, out: &mut Vec<$crate::config::section::SectionDoc>) {
                out.push($crate::config::section::SectionDoc {
                    header: format!("[{path}]"),
                    doc: $crate::config::section::paragraph(Self::DOC),
                    keys: Self::key_docs(),
                });
                $( $( $crate::config::section::Node::describe(
                    &self.$sub,
                    &$crate::config::section::join(path, stringify!($sub)),
                    out,
                ); )* )?
                $( $crate::config::section::Node::describe(&self.$open, path, out); )?
            }
        }
    };
}
pub use section;
