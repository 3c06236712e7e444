//! Every limit on what a foreign file may cost, in one place, with its reason.
//!
//! A program reads [`VARIABLE`] once at its start ([`Limits::parse`], [`set`]); a library user who sets nothing has the
//! defaults.

use std::sync::OnceLock;

/// The environment variable that changes limits: `name=value` pairs with commas between them.
pub const VARIABLE: &str = "VISUAL_RL_LIMITS";

/// One limit as it is in force, with the name that raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Its name in [`VARIABLE`] and in `docs/limits.md`.
    pub name: &'static str,
    /// Its value, in the unit that its documentation names.
    pub value: u64,
}

impl Limit {
    /// The value as a size in memory.
    pub fn size(self) -> usize {
        usize::try_from(self.value).unwrap_or(usize::MAX)
    }

    /// How to raise it, for the end of a message.
    pub fn raise(self) -> String {
        format!("{VARIABLE}={}=... raises the limit", self.name)
    }
}

/// The documentation of one limit.
#[derive(Debug, Clone, Copy)]
pub struct LimitDoc {
    /// Name, and value where nothing is set.
    pub default: Limit,
    /// What it bounds, in which unit, and why it has this value.
    pub doc: &'static [&'static str],
}

/// No limit can be raised further: products with the bytes of a pixel or a token stay within 64 bits.
const LARGEST: u64 = 1 << 48;

macro_rules! limits {
    ($( $(#[doc = $doc:literal])* $name:ident = $value:expr; )*) => {
        /// The limits in force.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Limits {
            $( $(#[doc = $doc])* pub $name: Limit, )*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $name: Limit { name: stringify!($name), value: $value }, )* }
            }
        }

        impl Limits {
            /// Name, default and reason of every limit, in order.
            pub fn docs() -> Vec<LimitDoc> {
                vec![$( LimitDoc { default: Self::default().$name, doc: &[$( $doc ),*] }, )*]
            }

            fn find(&mut self, name: &str) -> Option<&mut Limit> {
                match name {
                    $( stringify!($name) => Some(&mut self.$name), )*
                    _ => None,
                }
            }
        }
    };
}

limits! {
    /// Bytes of one JSON file of a model folder other than the tokenizer (config.json, generation_config.json, the
    /// index of the weights). The longest published ones have some hundred kB; parsed, JSON takes ten times its size.
    settings_bytes = 16 << 20;
    /// Bytes of tokenizer.json, vocab.json or merges.txt. Qwen's tokenizer.json has 11 MB, the largest published ones
    /// 35 MB.
    tokenizer_bytes = 128 << 20;
    /// Bytes of a chat template or format prompt. Published ones have up to 40 kB; the compiler of templates recurses
    /// along long expressions, so that the source bounds its depth.
    template_bytes = 64 << 10;
    /// Bytes of a configuration file (TOML) of a program.
    config_bytes = 4 << 20;
    /// Bytes of the header of a safetensors file. A model of 1000 layers has 2 MB.
    weights_header_bytes = 32 << 20;
    /// Bytes of a file of a run folder or of results that is read whole.
    record_bytes = 2 << 30;
    /// Pixels of one picture before it is resized; Pillow refuses twice as many. Decoding takes up to 8 bytes per pixel
    /// beside the 3 of the picture itself, and an encoded picture of more than 8 bytes per pixel of this limit is not
    /// read.
    decoded_pixels = 89_478_485;
    /// Passes of a progressive JPEG over all pixels of the limit before: a scan of a few bytes costs a pass. Encoders
    /// write about 10.
    picture_passes = 16;
    /// Pixels of one picture after it is resized: 42,799 tokens of 28 x 28 pixels, and 0.8 GB of patches.
    resized_pixels = 1 << 25;
    /// Bytes of one JSON row of a data set, pictures in base64 included.
    row_bytes = 1 << 30;
    /// Bytes of the id of a row; a longer one is taken for none, and the row is named by its number.
    id_bytes = 4096;
    /// Bytes of decoded parquet row groups that are kept in memory, of all files together.
    parquet_cache_bytes = 256 << 20;
    /// Bytes of one parquet row group, decoded, up to which it is decoded whole; of a larger one single pages are read.
    parquet_group_bytes = 512 << 20;
    /// Bytes of one text that is tokenized, where the length limit of prompts does not give a lower one. Tokenizers
    /// take some hundred bytes of memory for each byte of a long word, and a second for each megabyte.
    text_bytes = 4 << 20;
    /// Steps of one rendering of a chat template or format prompt. A template takes some hundred steps and 20 to 40 for
    /// each picture.
    template_fuel = 500_000;
    /// Bytes that one rendering of a template may handle in all, its own strings and its output together.
    template_bytes_handled = 128 << 20;
    /// Levels of lists and objects within one another in a template.
    template_depth = 64;
    /// Seconds of one rendering of a template; one takes less than a millisecond.
    template_seconds = 5;
    /// A switch: 1 lets the picture paths of rows leave their folder (see below); a data set of a stranger could name
    /// any picture of yours.
    outside_pictures = 0;
}

impl Limits {
    /// The defaults, changed as `text` says: `decoded_pixels=200000000,template_fuel=1e6`.
    ///
    /// # Errors
    /// A name that is no limit, a value that is no whole number from 1 to 2^48.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let shown = crate::echo(pair);
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!("{VARIABLE}: {shown:?} is not name=value"));
            };
            let Some(limit) = limits.find(name.trim()) else {
                let names: Vec<&str> = Self::docs().iter().map(|doc| doc.default.name).collect();
                return Err(format!("{VARIABLE}: there is no limit {shown:?}; there are {}", names.join(", ")));
            };
            limit.value = whole(value.trim())
                .filter(|value| (1..=LARGEST).contains(value))
                .ok_or_else(|| format!("{VARIABLE}: {shown:?}: expected a whole number from 1 to {LARGEST}"))?;
        }
        Ok(limits)
    }
}

/// A whole number, also as `2e9`.
fn whole(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        // Exact within the largest limit.
        (number.fract() == 0.0 && (0.0..=LARGEST as f64).contains(&number)).then_some(number as u64)
    })
}

static IN_FORCE: OnceLock<Limits> = OnceLock::new();

/// Sets the limits of this process, before anything asks for them.
///
/// # Errors
/// Limits that are already in force.
pub fn set(limits: Limits) -> Result<(), String> {
    IN_FORCE.set(limits).map_err(|_| "the limits are already in force".to_owned())
}

/// The limits in force: those that were [`set`], or the defaults.
pub fn limits() -> &'static Limits {
    IN_FORCE.get_or_init(Limits::default)
}

/// `docs/limits.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Limits on foreign files\n\n\
         Model folders, pictures, data and templates may come from strangers. What they may cost is bounded; beyond a limit a row is set\n\
         aside, or the program ends with one error that names the file and the limit. The table is generated from\n\
         `crates/guard/src/limits.rs`. The environment variable raises (or lowers) limits for every program:\n\n\
         ```\n\
         VISUAL_RL_LIMITS=decoded_pixels=200000000,template_fuel=2e6 train --config run.toml\n\
         ```\n\n\
         | limit | default | what it bounds, and why |\n|---|---|---|\n",
    );
    for doc in Limits::docs() {
        let lines: Vec<&str> = doc.doc.iter().map(|line| line.trim()).collect();
        out.push_str(&format!("| `{}` | {} | {} |\n", doc.default.name, doc.default.value, lines.join(" ")));
    }
    out.push_str(RULES);
    out
}

/// The rules that are no numbers.
const RULES: &str = "
## Files

Every file that is read by its name must be a regular file: a pipe, device, socket or folder in its place is an error, never a wait.
(`grade` and `eval --from` also read their input from a pipe, as it comes.)

## Links in a model folder

A link in a model folder is followed if it ends in a file of the same folder, or in the `blobs` folder of the Hugging Face cache
whose snapshot the folder is (there every file is a link to `../../blobs/`). Weights (`*.safetensors`) may also be links to anywhere
else: they are parsed and never copied. Any other link is refused when the folder is loaded: its target would be copied into every
checkpoint. Copy the file instead (`cp -L`).

## Pictures outside the data folder

A picture path of a row is taken relative to `data.image_dir` (`--image-dir`), or to the folder of the data file. It must lie in that
folder once `..` and links are resolved; otherwise the row is set aside. For data with absolute paths name a folder that holds all of
them, `data.image_dir=/data/images` or even `/`. `VISUAL_RL_LIMITS=outside_pictures=1` follows every path and link.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_by_name() {
        let limits = Limits::parse(" decoded_pixels=200000000, template_fuel=1e6,").unwrap();
        assert_eq!((limits.decoded_pixels.value, limits.template_fuel.value), (200_000_000, 1_000_000));
        assert_eq!(
            Limits { decoded_pixels: Limits::default().decoded_pixels, ..limits }.decoded_pixels.value,
            89_478_485
        );
        assert_eq!(Limits::parse("").unwrap(), Limits::default());
    }

    #[test]
    fn bad_settings_are_named() {
        for (text, part) in [
            ("decoded_pixel=1", "there is no limit"),
            ("decoded_pixels", "is not name=value"),
            ("decoded_pixels=0", "from 1 to"),
            ("decoded_pixels=-1", "from 1 to"),
            ("decoded_pixels=1.5", "from 1 to"),
            ("decoded_pixels=1e300", "from 1 to"),
            ("decoded_pixels=18446744073709551615", "from 1 to"),
        ] {
            let error = Limits::parse(text).unwrap_err();
            assert!(error.contains(part) && error.contains(VARIABLE), "{text}: {error}");
        }
        assert!(Limits::parse(&"x".repeat(100_000)).unwrap_err().len() < 1_000);
    }

    #[test]
    fn the_documentation_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == reference(),
            "docs/limits.md is out of date; run UPDATE_DOCS=1 cargo test -p guard"
        );
    }
}
