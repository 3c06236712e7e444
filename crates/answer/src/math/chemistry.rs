//! Chemical formulas: `H2O`, `H_2O` and `H₂O` are one, `HO2` is another.

#[rustfmt::skip]
const ELEMENTS: &[&str] = &[
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga",
    "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn",
    "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm",
    "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg",
    "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa",
    "U", "Np", "Pu", "Am",
];
/// Longest formula, in bytes.
const MAX_BYTES: usize = 80;

/// Whether two answers are the same formula; `None` when one of them is none, or may be algebra instead.
pub(super) fn same(truth: &str, given: &str) -> Option<bool> {
    let (truth, given) = (Formula::read(truth)?, Formula::read(given)?);
    let same = truth.spelling == given.spelling;
    // `V_1P_2` is a product as well, and commutes.
    (same || truth.plain).then_some(same)
}

/// A formula in one spelling.
struct Formula {
    spelling: String,
    /// Whether a count stands right behind its element, where algebra has none.
    plain: bool,
}

impl Formula {
    fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut text = text.to_owned();
        for command in [r"\mathrm", r"\text", r"\ce", r"\rm", r"\left", r"\right", r"\,"] {
            text = text.replace(command, "");
        }
        let plain = text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_alphabetic() && pair[1].is_ascii_digit());
        let mut spelling = String::new();
        for c in text.chars() {
            match c {
                '₀'..='₉' => spelling.extend(char::from_digit(c as u32 - '₀' as u32, 10)),
                '⁺' => spelling.push_str(if spelling.contains('^') { "+" } else { "^+" }),
                '⁻' => spelling.push_str(if spelling.contains('^') { "-" } else { "^-" }),
                _ if super::numerals::superscript(c).is_some() => {
                    spelling.push('^');
                    spelling.extend(super::numerals::superscript(c));
                }
                '_' | '{' | '}' | '$' | '~' => {}
                '•' | '⋅' => spelling.push('·'),
                '−' => spelling.push('-'),
                c if c.is_whitespace() => {}
                c => spelling.push(c),
            }
        }
        let atoms = atoms(spelling.trim_end_matches(['.', '。']))?;
        spelling.truncate(spelling.trim_end_matches(['.', '。']).len());
        (atoms > 1 || plain).then_some(Self { spelling, plain })
    }
}

/// How many element signs a formula has; `None` when it is none.
fn atoms(formula: &str) -> Option<usize> {
    let (mut rest, mut atoms, mut depth) = (formula, 0, 0i32);
    let mut counts = 0;
    if rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    while let Some(c) = rest.chars().next() {
        if let Some(charge) = rest.strip_prefix('^') {
            let charge = charge.trim_start_matches(|c: char| c.is_ascii_digit());
            return (matches!(charge, "+" | "-") && depth == 0 && atoms > 0).then_some(atoms + 1);
        }
        let length = match c {
            '(' | '[' => {
                depth += 1;
                1
            }
            ')' | ']' => {
                depth -= 1;
                1
            }
            '·' => c.len_utf8(),
            _ if c.is_ascii_digit() => {
                counts += 1;
                1
            }
            _ => {
                let element =
                    [2, 1].into_iter().find(|&n| rest.get(..n).is_some_and(|name| ELEMENTS.contains(&name)))?;
                atoms += 1;
                element
            }
        };
        if depth < 0 {
            return None;
        }
        rest = &rest[length..];
    }
    (depth == 0 && counts > 0).then_some(atoms)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn formulas() {
        for (truth, given, verdict) in [
            ("H2O", "H₂O", Some(true)),
            ("H2O", r"\mathrm{H_2O}", Some(true)),
            ("H2O", "HO2", Some(false)),
            ("Ca(OH)_2", "Ca(OH)₂", Some(true)),
            ("SO_4^{2-}", "SO₄²⁻", Some(true)),
            ("SO4^{2-}", "SO3^{2-}", Some(false)),
            ("CuSO4·5H2O", "CuSO₄·5H₂O", Some(true)),
            ("V_1P_2", "P_2V_1", None),
            ("AB", "BA", None),
            ("x2", "x2", None),
            ("2HO", "H2O", None),
            ("CO", "OC", None),
        ] {
            assert_eq!(same(truth, given), verdict, "{truth} {given}");
        }
    }
}
