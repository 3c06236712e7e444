//! The one check of what a weight file may hold: the writer asks it before a file counts, the reader before a file is used, so that
//! nothing is written that cannot be read again.

use safetensors::tensor::Dtype;

/// A number that is none: where it stands in its tensor, and what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NotFinite {
    /// Index in the flat tensor.
    pub at: usize,
    /// NaN or an infinity.
    pub value: f64,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at element {}", self.value, self.at)
    }
}

/// The first NaN or infinity in a tensor's little-endian `bytes`; none in a type that has no such numbers.
pub fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<NotFinite> {
    // In all four formats a number is NaN or infinite exactly where all bits of its exponent are set.
    let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    let four = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let eight = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    let (at, value) = match dtype {
        Dtype::F32 => {
            let at = bytes.chunks_exact(4).position(|b| four(b) & 0x7F80_0000 == 0x7F80_0000)?;
            (at, f64::from(f32::from_bits(four(&bytes[4 * at..]))))
        }
        Dtype::BF16 => {
            let at = bytes.chunks_exact(2).position(|b| pair(b) & 0x7F80 == 0x7F80)?;
            (at, half::bf16::from_bits(pair(&bytes[2 * at..])).to_f64())
        }
        Dtype::F16 => {
            let at = bytes.chunks_exact(2).position(|b| pair(b) & 0x7C00 == 0x7C00)?;
            (at, half::f16::from_bits(pair(&bytes[2 * at..])).to_f64())
        }
        Dtype::F64 => {
            let mask = 0x7FF0_0000_0000_0000;
            let at = bytes.chunks_exact(8).position(|b| eight(b) & mask == mask)?;
            (at, f64::from_bits(eight(&bytes[8 * at..])))
        }
        _ => return None,
    };
    Some(NotFinite { at, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_seen_through() {
        let largest = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xFF80_0001)] {
            for at in [0, 3, 6] {
                let mut values: Vec<f32> = largest.to_vec();
                values.insert(at, bad);
                let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let f64s: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
                let small: Vec<f32> =
                    values.iter().map(|v| if v.is_finite() { v.signum() * 60000.0 } else { *v }).collect();
                let bf16s: Vec<u8> = small.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
                let f16s: Vec<u8> = small.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
                for (bytes, dtype) in
                    [(&f32s, Dtype::F32), (&f64s, Dtype::F64), (&bf16s, Dtype::BF16), (&f16s, Dtype::F16)]
                {
                    let found = first_not_finite(bytes, dtype).unwrap_or_else(|| panic!("{dtype:?} {bad} at {at}"));
                    assert_eq!((found.at, found.value.is_nan()), (at, bad.is_nan()), "{dtype:?} {bad}");
                }
            }
        }
        let good: Vec<u8> = largest.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(first_not_finite(&good, Dtype::F32), None);
        assert_eq!(first_not_finite(&[0xFF; 8], Dtype::I64), None);
    }
}
