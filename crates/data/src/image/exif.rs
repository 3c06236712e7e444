//! How a picture is to be turned, found in its metadata as Pillow's `ImageOps.exif_transpose` finds it: the
//! orientation tag of the EXIF block (JPEG APP1, PNG eXIf or a raw profile in text, WebP EXIF, TIFF itself), or else
//! `tiff:Orientation` of the XMP block. No pixel is decoded. What cannot be read is no orientation.

use std::borrow::Cow;

use ::image::{ImageFormat, imageops};
use serde::{Deserialize, Serialize};

use super::{RgbImage, png};

/// Whether pictures are turned as their EXIF orientation says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExifOrientation {
    /// Turned as they are meant to be looked at, as transformers' `load_image` does.
    #[default]
    Apply,
    /// Left as they are stored, as PIL's `Image.open` gives them and with it EasyR1. (A TIFF is turned all the same:
    /// Pillow does that when it opens one.)
    Ignore,
}

impl ExifOrientation {
    /// The name in a configuration and on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Ignore => "ignore",
        }
    }
}

impl std::str::FromStr for ExifOrientation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Apply, Self::Ignore]
            .into_iter()
            .find(|e| e.name() == name)
            .ok_or_else(|| format!("{name:?} is neither \"apply\" nor \"ignore\""))
    }
}

/// One of the eight orientations of EXIF; 1 leaves a picture as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// Width and height of a picture that is stored as `(width, height)`.
    pub(super) fn size(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.0 >= 5 { (height, width) } else { (width, height) }
    }

    /// The picture upright.
    pub(super) fn turn(self, image: RgbImage) -> RgbImage {
        use imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
        match self.0 {
            2 => flip_horizontal(&image),
            3 => rotate180(&image),
            4 => flip_vertical(&image),
            // Mirrored along the falling diagonal, and along the rising one.
            5 => flip_horizontal(&rotate90(&image)),
            6 => rotate90(&image),
            7 => flip_horizontal(&rotate270(&image)),
            8 => rotate270(&image),
            _ => image,
        }
    }
}

/// The orientation of an encoded picture under `setting`.
pub(super) fn orientation(bytes: &[u8], format: ImageFormat, setting: ExifOrientation) -> Orientation {
    if setting == ExifOrientation::Ignore && format != ImageFormat::Tiff {
        return Orientation(1);
    }
    let Metadata { exif, xmp } = match format {
        ImageFormat::Jpeg => of_jpeg(bytes),
        ImageFormat::Png => png::metadata(bytes),
        ImageFormat::WebP => of_webp(bytes),
        ImageFormat::Tiff => Metadata {
            exif: Some(bytes.into()),
            xmp: Ifd::open(bytes).and_then(|ifd| ifd.get(XMP)).map(|v| v.bytes.into()),
        },
        _ => Metadata::default(),
    };
    let tag = exif.as_deref().and_then(|exif| Ifd::open(without_header(exif))?.get(ORIENTATION));
    let found = match tag {
        Some(tag) => tag.integer(),
        None => xmp.as_deref().and_then(orientation_of_xmp),
    };
    Orientation(found.filter(|o| (1..=8).contains(o)).unwrap_or(1) as u8)
}

/// The first extra sample of a TIFF: 0 unspecified, 1 premultiplied alpha, 2 alpha; nothing where the tag is missing.
pub(super) fn extra_sample(tiff: &[u8]) -> Option<u64> {
    Ifd::open(tiff)?.get(EXTRA_SAMPLES)?.first()
}

/// The metadata blocks that can hold an orientation.
#[derive(Default)]
pub(super) struct Metadata<'a> {
    /// A TIFF header and its directory, possibly behind `Exif\0\0`.
    pub(super) exif: Option<Cow<'a, [u8]>>,
    /// XML.
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}

const ORIENTATION: u16 = 0x0112;
const XMP: u16 = 700;
const EXTRA_SAMPLES: u16 = 338;
const EXIF_HEADER: &[u8] = b"Exif\0\0";

/// Some writers put the header twice.
fn without_header(exif: &[u8]) -> &[u8] {
    let once = exif.strip_prefix(EXIF_HEADER).unwrap_or(exif);
    once.strip_prefix(EXIF_HEADER).unwrap_or(once)
}

/// The digit behind the first `tiff:Orientation="` or `tiff:Orientation>`.
fn orientation_of_xmp(xmp: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = rest.windows(NAME.len()).position(|w| w == NAME) {
        rest = &rest[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"));
        if let Some(digit) = value.and_then(<[u8]>::first).filter(|b| b.is_ascii_digit()) {
            return Some(i64::from(digit - b'0'));
        }
    }
    None
}

/// The APP1 segments before the scan. An EXIF block that is too long for one segment goes on in the next.
fn of_jpeg(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    let mut at = 2;
    while let Some(&byte) = bytes.get(at) {
        if byte != 0xFF {
            at += 1;
            continue;
        }
        match bytes.get(at + 1).copied() {
            // Padding, and markers without a body.
            Some(0xFF) => at += 1,
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 2,
            None | Some(0xD9 | 0xDA) => break,
            Some(code) => {
                let Some(length) = bytes.get(at + 2..at + 4) else { break };
                let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                let body = bytes.get(at + 4..end).unwrap_or_default();
                if code == 0xE1 && body.starts_with(EXIF_HEADER) {
                    match &mut found.exif {
                        Some(exif) => exif.to_mut().extend(&body[EXIF_HEADER.len()..]),
                        None => found.exif = Some(body.into()),
                    }
                } else if code == 0xE1
                    && let Some(xmp) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0")
                {
                    found.xmp = Some(xmp.into());
                }
                at = end;
            }
        }
    }
    found
}

/// The chunks that the flags of the extended header announce; those of other files are not read.
fn of_webp(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    let mut flags = 0u8;
    let mut rest = bytes.get(12..).unwrap_or_default();
    while rest.len() >= 8 {
        let (head, body) = rest.split_at(8);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(chunk) = body.get(..length) else { break };
        match &head[..4] {
            b"VP8X" => flags = chunk.first().copied().unwrap_or(0),
            b"EXIF" if flags & 8 != 0 && found.exif.is_none() => found.exif = Some(chunk.into()),
            b"XMP " if flags & 4 != 0 && found.xmp.is_none() => found.xmp = Some(chunk.into()),
            _ => {}
        }
        // Chunks begin at even offsets.
        rest = body.get(length + length % 2..).unwrap_or_default();
    }
    found
}

/// The first directory of a TIFF file, which an EXIF block is.
struct Ifd<'a> {
    data: &'a [u8],
    big_endian: bool,
    /// BigTIFF: counts and offsets of 8 bytes.
    wide: bool,
    at: usize,
}

/// A value of a directory.
struct Tag<'a> {
    kind: u16,
    count: u64,
    bytes: &'a [u8],
    big_endian: bool,
}

fn unsigned(bytes: &[u8], big_endian: bool) -> u64 {
    let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
}

impl<'a> Ifd<'a> {
    fn open(data: &'a [u8]) -> Option<Self> {
        let (big_endian, wide) = match data.get(..4)? {
            // Pillow knows files with the bytes of the 42 exchanged.
            b"II\x2a\0" | b"II\0\x2a" => (false, false),
            b"MM\0\x2a" | b"MM\x2a\0" => (true, false),
            b"II\x2b\0" => (false, true),
            b"MM\0\x2b" => (true, true),
            _ => return None,
        };
        let offset = if wide { data.get(8..16)? } else { data.get(4..8)? };
        let at = usize::try_from(unsigned(offset, big_endian)).ok()?;
        Some(Self { data, big_endian, wide, at })
    }

    /// The value of a tag; of several entries the first one that can be read. Entries behind the end of the data are
    /// missing.
    fn get(&self, tag: u16) -> Option<Tag<'a>> {
        let (counter, entry, word) = if self.wide { (8, 20, 8) } else { (2, 12, 4) };
        let read = |at: usize, length: usize| self.data.get(at..at.checked_add(length)?);
        let number = |bytes: &[u8]| unsigned(bytes, self.big_endian);
        let count = number(read(self.at, counter)?);
        for k in 0..usize::try_from(count).ok()? {
            let at = self.at.checked_add(counter)?.checked_add(k.checked_mul(entry)?)?;
            let Some(bytes) = read(at, entry) else { break };
            if number(&bytes[..2]) != u64::from(tag) {
                continue;
            }
            let kind = number(&bytes[2..4]) as u16;
            let count = number(&bytes[4..4 + word]);
            let Some(length) = size_of_kind(kind).and_then(|size| usize::try_from(count.checked_mul(size)?).ok())
            else {
                continue;
            };
            let value = match &bytes[4 + word..] {
                inline if length <= word => inline.get(..length),
                offset => usize::try_from(number(offset)).ok().and_then(|at| read(at, length)),
            };
            if let Some(bytes) = value.filter(|bytes| !bytes.is_empty()) {
                return Some(Tag { kind, count, bytes, big_endian: self.big_endian });
            }
        }
        None
    }
}

/// Bytes of one value of a TIFF type.
fn size_of_kind(kind: u16) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}

impl Tag<'_> {
    /// The first of its unsigned numbers.
    fn first(&self) -> Option<u64> {
        let size = usize::try_from(size_of_kind(self.kind)?).ok()?;
        self.bytes.get(..size).map(|bytes| unsigned(bytes, self.big_endian))
    }

    /// A single whole number.
    fn integer(&self) -> Option<i64> {
        // Short, long, their signed forms, and what BigTIFF adds.
        let whole = matches!(self.kind, 3 | 4 | 6 | 8 | 9 | 13 | 16);
        self.first().filter(|_| whole && self.count == 1).and_then(|v| i64::try_from(v).ok())
    }
}
