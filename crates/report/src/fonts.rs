//! Which font draws a character, and how wide it becomes: a small font of our own first, then those of the system, so
//! that digits, Latin, Greek and mathematics look the same on every machine, even on one without any font.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use resvg::usvg::FontResolver;
use resvg::usvg::fontdb::{Database, FaceInfo, ID, Source, Stretch, Style};
use skrifa::MetadataProvider;
use skrifa::prelude::{FontRef, LocationRef, Size};

/// Where it comes from, what it has and its licence: `fonts/` of this crate.
static OWN: &[u8] = include_bytes!("../fonts/DejaVuSans-subset.ttf");

/// The font of a character.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FontChoice {
    /// None: no font has it, and a box is drawn.
    pub font: Option<ID>,
    /// Width in units of the font size.
    pub advance: f32,
}

/// The fonts that pictures are drawn with.
#[derive(Debug)]
pub struct Fonts {
    own: ID,
    database: Arc<Database>,
    /// Whether fonts of the system may be used, too.
    system: bool,
    /// All fonts, and those of the system, the best first. They are looked for when the first character needs them.
    all: OnceLock<(Arc<Database>, Vec<ID>)>,
    known: Mutex<HashMap<char, FontChoice>>,
}

impl Fonts {
    /// The font of this crate alone.
    pub fn embedded() -> Self {
        Self::new(false)
    }

    /// The font of this crate, and for what it does not have the fonts of the system. They are looked for once in a
    /// process.
    pub fn system() -> &'static Self {
        static FONTS: OnceLock<Fonts> = OnceLock::new();
        FONTS.get_or_init(|| Self::new(true))
    }

    fn new(system: bool) -> Self {
        let mut database = Database::new();
        let ids = database.load_font_source(Source::Binary(Arc::new(OWN)));
        let own = ids.first().copied().unwrap_or(ID::dummy());
        Self { own, database: Arc::new(database), system, all: OnceLock::new(), known: Mutex::default() }
    }

    /// The font of this crate.
    pub(crate) fn own(&self) -> ID {
        self.own
    }

    /// All fonts that were needed so far.
    pub(crate) fn database(&self) -> Arc<Database> {
        self.all.get().map_or(&self.database, |(all, _)| all).clone()
    }

    fn all(&self) -> &(Arc<Database>, Vec<ID>) {
        self.all.get_or_init(|| {
            let mut all = Database::clone(&self.database);
            if self.system {
                all.load_system_fonts();
            }
            let mut ranked: Vec<(u32, &str, ID)> =
                all.faces().filter(|face| face.id != self.own).filter_map(|face| rank(face)).collect();
            ranked.sort();
            let ranked = ranked.into_iter().map(|(_, _, id)| id).collect();
            (Arc::new(all), ranked)
        })
    }

    /// The font that draws `c`: the same in layout and drawing.
    pub(crate) fn find(&self, c: char) -> FontChoice {
        if let Some(choice) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&c) {
            return *choice;
        }
        let choice = self.search(c);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(c, choice);
        choice
    }

    fn search(&self, c: char) -> FontChoice {
        if let Some(advance) = advance(&self.database, self.own, c) {
            return FontChoice { font: Some(self.own), advance };
        }
        let (all, ranked) = self.all();
        let found = ranked.iter().find_map(|&id| Some(FontChoice { font: Some(id), advance: advance(all, id, c)? }));
        // The box, or as much as a browser with a font for it needs.
        found.unwrap_or(FontChoice { font: None, advance: if is_wide(c) { 1.0 } else { 0.6 } })
    }

    /// Width of `c` in one font, in units of its size; none if the font does not have it.
    pub(crate) fn advance(&self, font: ID, c: char) -> Option<f32> {
        advance(&self.database(), font, c)
    }

    /// What the drawing library asks: the font of a text, and of a character that this one does not have.
    pub(crate) fn resolver(&self) -> FontResolver<'_> {
        FontResolver {
            select_font: Box::new(|_, _| Some(self.own)),
            select_fallback: Box::new(|c, used, _| self.find(c).font.filter(|font| !used.contains(font))),
        }
    }
}

fn advance(database: &Database, font: ID, c: char) -> Option<f32> {
    database.with_face_data(font, |data, index| {
        let font = FontRef::from_index(data, index).ok()?;
        let glyph = font.charmap().map(c).filter(|glyph| glyph.to_u32() != 0)?;
        let units = font.metrics(Size::unscaled(), LocationRef::default()).units_per_em;
        let advance = font.glyph_metrics(Size::unscaled(), LocationRef::default()).advance_width(glyph)?;
        Some(advance / f32::from(units.max(1)))
    })?
}

/// How far a face is from plain upright sans-serif text, smallest first, and its name; none for what has no letters of
/// its own. Of the forms that East Asian countries give one character, those of simplified Chinese come first, as most
/// data sets of the field that are not in English are Chinese.
fn rank(face: &FaceInfo) -> Option<(u32, &str, ID)> {
    let name = face.families.first()?.0.as_str();
    if name.replace(' ', "").trim_start_matches('.').starts_with("LastResort") {
        return None;
    }
    let has = |part: &str| name.contains(part);
    let penalties = [
        (face.style != Style::Normal, 100),
        (face.stretch != Stretch::Normal, 50),
        (has("Serif") || has("Song") || has("Ming"), 20),
        (face.monospaced || has("Mono"), 10),
        ([" JP", " KR", " TC", " HK"].iter().any(|region| name.ends_with(region)), 1),
    ];
    let penalty: u32 = penalties.iter().filter(|(applies, _)| *applies).map(|(_, penalty)| penalty).sum();
    Some((penalty + u32::from(face.weight.0.abs_diff(400)) / 10, name, face.id))
}

/// Whether a character is as wide as it is high: East Asian scripts and emoji.
pub(crate) fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0xFE30..=0xFE4F
        | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD)
}
