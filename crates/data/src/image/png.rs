//! What PNG files need beside a decoder: their metadata and transparent colour as Pillow reads them, and the end of a
//! file that was cut off behind the last pixel.

use std::borrow::Cow;
use std::io::{Read, Write};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc, Decompress, FlushDecompress, Status};

use super::exif::Metadata;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The chunks of a file: kind, and as much of the data as is there.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// Length and kind that the next chunk states.
    fn head(&self) -> Option<(usize, &'a [u8])> {
        let head = self.rest.get(..8)?;
        Some((u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize, &head[4..]))
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, kind) = self.head()?;
        let body = &self.rest[8..];
        let data = &body[..length.min(body.len())];
        self.rest = body.get(length.saturating_add(4)..).unwrap_or_default();
        Some((kind, data))
    }
}

fn chunks(bytes: &[u8]) -> Chunks<'_> {
    Chunks { rest: bytes.strip_prefix(SIGNATURE).unwrap_or_default() }
}

/// The eXIf chunk, or the block that other programs write as text; and the XMP block. They may stand behind the pixels.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let (mut found, mut raw) = (Metadata::default(), None);
    for (kind, data) in chunks(bytes) {
        match kind {
            b"eXIf" => found.exif = Some(data.into()),
            b"tEXt" | b"zTXt" | b"iTXt" => match text(kind, data) {
                Some((b"XML:com.adobe.xmp", xmp)) if kind == b"iTXt" => found.xmp = Some(xmp),
                Some((b"Raw profile type exif", hex)) => raw = raw_profile(&hex),
                _ => {}
            },
            _ => {}
        }
    }
    found.exif = found.exif.or(raw.map(Cow::Owned));
    found
}

/// Longest text that is unpacked, as in Pillow.
const MAX_TEXT: u64 = 1 << 20;

/// Keyword and text of a text chunk. Only texts that can hold metadata are unpacked.
fn text<'a>(kind: &[u8], data: &'a [u8]) -> Option<(&'a [u8], Cow<'a, [u8]>)> {
    let until_zero = |data: &'a [u8]| {
        let at = data.iter().position(|b| *b == 0)?;
        Some((&data[..at], &data[at + 1..]))
    };
    let (keyword, mut rest) = until_zero(data)?;
    if !matches!(keyword, b"XML:com.adobe.xmp" | b"Raw profile type exif") {
        return None;
    }
    let packed = match kind {
        b"tEXt" => false,
        b"zTXt" => {
            rest = rest.get(1..)?;
            true
        }
        _ => {
            let packed = *rest.first()? == 1;
            // Flag, method, language, translated keyword.
            rest = until_zero(until_zero(rest.get(2..)?)?.1)?.1;
            packed
        }
    };
    if !packed {
        return Some((keyword, rest.into()));
    }
    let mut unpacked = Vec::new();
    ZlibDecoder::new(rest).take(MAX_TEXT).read_to_end(&mut unpacked).ok()?;
    Some((keyword, unpacked.into()))
}

/// The hexadecimal digits behind the third line.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|b| *b == b'\n').skip(3);
    let digits: Vec<u8> = lines.flatten().filter(|b| !b.is_ascii_whitespace()).copied().collect();
    let digit = |b: u8| char::from(b).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect()
}

/// The one colour that the tRNS chunk of a grey or RGB file makes clear, in 8 bits as Pillow compares it: of a sample
/// of more bits by its low byte, of one of 2 or 4 bits with what the pixels are scaled to.
pub(super) fn clear_colour(bytes: &[u8]) -> Option<[u8; 3]> {
    let mut form = None;
    for (kind, data) in chunks(bytes).take_while(|(kind, _)| *kind != b"IDAT") {
        match (kind, form) {
            (b"IHDR", _) => form = Some((*data.get(8)?, *data.get(9)?)),
            (b"tRNS", Some((depth, 0))) if data.len() >= 2 => {
                return Some(
                    [match depth {
                        1 if data[..2] == [0, 0] => 0,
                        1 => 255,
                        _ => data[1],
                    }; 3],
                );
            }
            (b"tRNS", Some((_, 2))) if data.len() >= 6 => return Some([data[1], data[3], data[5]]),
            _ => {}
        }
    }
    None
}

/// The file as it would be had it not been cut off, if all of its pixels are there: Pillow asks for no more. It does
/// not look at the check sum of the pixels' chunks, and the end of the compressed stream may be missing; a chunk that
/// begins behind the last pixel must be whole. Nothing for a file that Pillow refuses, or of more than `most` bytes
/// of pixels.
pub(super) fn mended(bytes: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut all = chunks(bytes);
    let (_, head) = all.next().filter(|(kind, data)| *kind == b"IHDR" && data.len() == 13)?;
    let size = raw_size(head).filter(|size| *size <= most)?;
    let mut rows = PixelRows { inflate: Decompress::new(true), raw: Vec::new(), size: usize::try_from(size).ok()? };
    let mut before = SIGNATURE.len() + 12 + head.len();
    let mut begun = false;
    while !rows.complete() {
        let (kind, data) = all.next()?;
        match kind == b"IDAT" {
            true => rows.add(data)?,
            // Pixels that go on behind another chunk are not read.
            false if begun => return None,
            false => before += 12 + data.len(),
        }
        begun |= kind == b"IDAT";
    }
    // Whatever is no chunk is not read, and neither is what stands behind the end.
    while let Some((length, _)) = all.head().filter(|(_, kind)| *kind != b"IEND" && kind.iter().all(is_word)) {
        let (_, data) = all.next()?;
        if data.len() < length {
            return None;
        }
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::none());
    packed.write_all(&rows.raw[..rows.size]).ok()?;
    let mut out = bytes.get(..before)?.to_vec();
    for (kind, data) in [(b"IDAT", packed.finish().ok()?), (b"IEND", Vec::new())] {
        out.extend(u32::try_from(data.len()).ok()?.to_be_bytes());
        let mut sum = Crc::new();
        for part in [kind.as_slice(), &data] {
            sum.update(part);
            out.extend_from_slice(part);
        }
        out.extend(sum.sum().to_be_bytes());
    }
    Some(out)
}

fn is_word(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || *b == b'_'
}

/// Rows as they come out of the compressed stream.
struct PixelRows {
    inflate: Decompress,
    raw: Vec<u8>,
    /// Bytes of all rows.
    size: usize,
}

impl PixelRows {
    fn complete(&self) -> bool {
        self.raw.len() >= self.size
    }

    /// Unpacks the data of one more chunk, to its end or a little behind the last row; nothing when it is damaged.
    fn add(&mut self, data: &[u8]) -> Option<()> {
        let mut rest = data;
        while self.raw.len() <= self.size {
            self.raw.reserve(1 << 16);
            let (read, written) = (self.inflate.total_in(), self.raw.len());
            let status = self.inflate.decompress_vec(rest, &mut self.raw, FlushDecompress::None).ok()?;
            rest = &rest[(self.inflate.total_in() - read) as usize..];
            let stuck = self.inflate.total_in() == read && self.raw.len() == written;
            if status == Status::StreamEnd || stuck {
                break;
            }
        }
        Some(())
    }
}

/// Bytes of all rows of an image, each behind its filter: of the whole, or of the seven parts of an interlaced one.
fn raw_size(head: &[u8]) -> Option<u64> {
    let number = |at: usize| u64::from(u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (width, height) = (number(0), number(4));
    let channels = match head[9] {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let part = |width: u64, height: u64| match width {
        0 => Some(0),
        _ => (width.checked_mul(channels * u64::from(head[8]))?.div_ceil(8) + 1).checked_mul(height),
    };
    if head[12] == 0 {
        return part(width, height);
    }
    // Adam7: first column and row of each part, and the steps between its pixels.
    let parts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let each = parts.map(|(x, y, across, down): (u64, u64, u64, u64)| {
        part(width.saturating_sub(x).div_ceil(across), height.saturating_sub(y).div_ceil(down))
    });
    each.into_iter().try_fold(0u64, |sum, part| sum.checked_add(part?))
}
