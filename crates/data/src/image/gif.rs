//! What the first frame of a GIF leaves uncovered, as Pillow fills it.

use super::alpha::Transparency;

/// Colour and kind of the pixels that a decoder leaves clear: those of the transparent colour, and those of the
/// screen that the first frame does not cover. Pillow fills these with the transparent colour, or with the first one
/// where there is none.
pub(super) fn uncovered(bytes: &[u8]) -> Transparency {
    let (index, palette) = first_frame(bytes).unwrap_or_default();
    let at = 3 * usize::from(index.unwrap_or(0));
    let colour = palette.get(at..at + 3).map_or([0; 3], |c| [c[0], c[1], c[2]]);
    Transparency::Uncovered { colour, clear: index.is_some() }
}

/// Index of the transparent colour, and the palette, of the first frame.
fn first_frame(bytes: &[u8]) -> Option<(Option<u8>, &[u8])> {
    // The lowest three bits are the logarithm of the colours, less one.
    let palette = |at: usize, flags: u8| match flags & 0x80 {
        0 => Some([].as_slice()),
        _ => bytes.get(at..at + (3 << ((flags & 7) + 1))),
    };
    let global = palette(13, *bytes.get(10)?)?;
    let mut at = 13 + global.len();
    let mut transparent = None;
    loop {
        match bytes.get(at)? {
            0x21 => {
                let label = *bytes.get(at + 1)?;
                at += 2;
                if let (0xF9, Some(&[4, flags, _, _, index])) = (label, bytes.get(at..at + 5)) {
                    transparent = (flags & 1 == 1).then_some(index);
                }
                // Blocks, up to an empty one.
                while let length @ 1.. = *bytes.get(at)? {
                    at += 1 + usize::from(length);
                }
                at += 1;
            }
            0x2C => {
                let local = palette(at + 10, *bytes.get(at + 9)?)?;
                return Some((transparent, if local.is_empty() { global } else { local }));
            }
            _ => return None,
        }
    }
}
