//! Sections: one declaration gives the struct, its defaults, its reader, its printer and its reference.

use toml::Value;

/// One key of a section, as the reference shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyDoc {
    /// The key, without its section.
    pub name: &'static str,
    /// The type in words.
    pub kind: String,
    /// The default, as TOML.
    pub default: String,
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
pub(crate) struct KeyError {
    /// Dotted path of the key.
    pub path: String,
    pub problem: KeyProblem,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeyProblem {
    /// No such key; the keys that stand beside it.
    Unknown { siblings: Vec<String> },
    /// A wrong type or value, in words.
    Wrong(String),
}

impl KeyError {
    pub fn wrong(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_string(), problem: KeyProblem::Wrong(reason.into()) }
    }
    pub fn unknown(path: String, siblings: Vec<String>) -> Self {
        Self { path, problem: KeyProblem::Unknown { siblings } }
    }
}

/// A part of the configuration tree that holds keys or further parts.
pub(crate) trait Node {
    /// Sets what `value` names and leaves the rest.
    fn apply(&mut self, path: &str, value: &Value) -> Result<(), KeyError>;
    /// Sets the key at `rest` below this node from the text of an override.
    fn apply_text(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError>;
    /// Prints the node as TOML, each key under its documentation.
    fn write(&self, path: &str, out: &mut String);
    /// Lists the node's sections for the reference.
    fn describe(path: &str, out: &mut Vec<SectionDoc>);
}

/// `path.key`, or `key` at the root.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// The lines of a doc comment as one paragraph.
pub(crate) fn paragraph(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_string()
}

/// Appends `text` as `# ` lines of at most 100 columns.
pub(crate) fn write_comment(text: &str, out: &mut String) {
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

/// Declares a section. The doc comments become the comments of the printed file and of the reference.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $kdoc:literal])* $key:ident : $type:ty = $default:expr, )*
        }
        $( sections { $( $(#[doc = $sdoc:literal])* $sub:ident : $sub_type:ty, )* } )?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $kdoc])* pub $key: $type, )*
            $( $( $(#[doc = $sdoc])* pub $sub: $sub_type, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $( $sub: Default::default(), )* )?
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

            fn siblings() -> Vec<String> {
                Self::NAMES.iter().map(|name| name.to_string()).collect()
            }
        }

        impl $crate::config::section::Node for $name {
            fn apply(
                &mut self,
                path: &str,
                value: &toml::Value,
            ) -> Result<(), $crate::config::section::KeyError> {
                use $crate::config::section::{KeyError, join};
                let toml::Value::Table(table) = value else {
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
                        _ => return Err(KeyError::unknown(place, Self::siblings())),
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
                        format!("is a section; set one of its keys: {}", Self::NAMES.join(", ")),
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
                    _ => Err(KeyError::unknown(place, Self::siblings())),
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
            }

            fn describe(path: &str, out: &mut Vec<$crate::config::section::SectionDoc>) {
                out.push($crate::config::section::SectionDoc {
                    header: format!("[{path}]"),
                    doc: $crate::config::section::paragraph(Self::DOC),
                    keys: Self::key_docs(),
                });
                $( $( <$sub_type as $crate::config::section::Node>::describe(
                    &$crate::config::section::join(path, stringify!($sub)),
                    out,
                ); )* )?
            }
        }
    };
}
pub(crate) use section;
