//! The page itself: its parts, embedded in the program, and the HTML around them.

/// A part of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAsset {
    /// Its name below `assets/`.
    pub name: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// The whole of it.
    pub text: &'static str,
}

impl PageAsset {
    pub(crate) fn is_script(&self) -> bool {
        self.media_type == SCRIPT
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! assets {
    ($( $name:literal $kind:ident; )*) => {
        &[$( PageAsset { name: $name, media_type: $kind, text: include_str!(concat!("../assets/", $name)) }, )*]
    };
}

/// In the order in which the page takes them: a script uses those before it.
pub(crate) const ASSETS: &[PageAsset] = assets! {
    "vendor/uPlot.min.css" STYLE;
    "style.css" STYLE;
    "charts.css" STYLE;
    "rollouts.css" STYLE;
    "vendor/uPlot.iife.min.js" SCRIPT;
    "dom.js" SCRIPT;
    "source.js" SCRIPT;
    "colors.js" SCRIPT;
    "metrics.js" SCRIPT;
    "chart.js" SCRIPT;
    "curves.js" SCRIPT;
    "tokens.js" SCRIPT;
    "group.js" SCRIPT;
    "rollouts.js" SCRIPT;
    "validation.js" SCRIPT;
    "settings.js" SCRIPT;
    "app.js" SCRIPT;
};

const INDEX: &str = include_str!("../assets/index.html");
/// Where the parts go in `index.html`.
const HEAD: &str = "<!-- head -->";
const DATA: &str = "<!-- data -->";

/// A part of the page by its name below `assets/`.
pub fn asset(name: &str) -> Option<&'static PageAsset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

/// The page as a server shows it, with its parts beside it at `assets/NAME`.
pub fn index() -> String {
    let parts = ASSETS.iter().map(|asset| match asset.is_script() {
        true => format!("<script defer src=\"assets/{}\"></script>\n", asset.name),
        false => format!("<link rel=\"stylesheet\" href=\"assets/{}\">\n", asset.name),
    });
    INDEX.replace(HEAD, &parts.collect::<String>()).replace(DATA, "")
}

/// The page with all its parts inside, before and after its data. Nothing but what carries `nonce` is run or styles it,
/// and nothing is fetched.
pub(crate) fn around_data(nonce: &str) -> (String, String) {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; base-uri 'none'; \
         form-action 'none'"
    );
    let mut head = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n");
    let mut scripts = String::new();
    for asset in ASSETS {
        match asset.is_script() {
            true => scripts += &format!("<script nonce=\"{nonce}\">\n{}\n</script>\n", asset.text),
            false => head += &format!("<style nonce=\"{nonce}\">\n{}\n</style>\n", asset.text),
        }
    }
    let (before, after) = INDEX.split_once(DATA).unwrap_or((INDEX, ""));
    // The scripts come behind the data, which they find in the page.
    (before.replace(HEAD, &head), format!("{scripts}{after}"))
}
