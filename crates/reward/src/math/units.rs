//! Units after a number.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Pow;

/// A unit that converts: the base quantity, the power that it is raised to, and its size in the base unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) dimension: (&'static str, i32),
    pub(crate) scale: BigRational,
}

/// (names, quantity, numerator, denominator), sizes in metres, grams, seconds, litres, ...
const UNITS: &[(&[&str], &str, u64, u64)] = &[
    (&["mm", "millimeter", "millimeters", "millimetre", "millimetres"], "length", 1, 1000),
    (&["cm", "centimeter", "centimeters", "centimetre", "centimetres", "厘米"], "length", 1, 100),
    (&["dm", "decimeter", "decimeters", "分米"], "length", 1, 10),
    (&["m", "meter", "meters", "metre", "metres", "米"], "length", 1, 1),
    (&["km", "kilometer", "kilometers", "kilometre", "kilometres", "千米"], "length", 1000, 1),
    (&["in", "inch", "inches"], "length", 254, 10_000),
    (&["ft", "foot", "feet"], "length", 3048, 10_000),
    (&["yd", "yard", "yards"], "length", 9144, 10_000),
    (&["mi", "mile", "miles"], "length", 1_609_344, 1000),
    (&["mg", "milligram", "milligrams"], "mass", 1, 1000),
    (&["g", "gram", "grams", "克"], "mass", 1, 1),
    (&["kg", "kilogram", "kilograms", "千克"], "mass", 1000, 1),
    (&["lb", "lbs", "pound", "pounds"], "mass", 45_359_237, 100_000),
    (&["oz", "ounce", "ounces"], "mass", 28_349_523_125, 1_000_000_000),
    (&["s", "sec", "second", "seconds", "秒"], "time", 1, 1),
    (&["min", "mins", "minute", "minutes", "分钟"], "time", 60, 1),
    (&["h", "hr", "hrs", "hour", "hours", "小时"], "time", 3600, 1),
    (&["day", "days", "天"], "time", 86_400, 1),
    (&["week", "weeks"], "time", 604_800, 1),
    (&["ml", "mL", "milliliter", "milliliters"], "volume", 1, 1000),
    (&["l", "L", "liter", "liters", "litre", "litres"], "volume", 1, 1),
    (&["cent", "cents"], "money", 1, 100),
    (&["dollar", "dollars", "usd", "USD"], "money", 1, 1),
];

/// Words that are units, or stand in for one, without a size to convert by.
const OTHERS: &[&str] = &[
    "unit",
    "units",
    "square",
    "sq",
    "cubic",
    "cu",
    "degree",
    "degrees",
    "deg",
    "rad",
    "radian",
    "radians",
    "year",
    "years",
    "month",
    "months",
    "mph",
    "kmh",
    "kph",
    "yuan",
    "euro",
    "euros",
    "rupees",
    "pence",
    "people",
    "students",
    "times",
    "ways",
    "points",
    "meters/second",
    "per",
    "hz",
    "Hz",
    "kHz",
    "Pa",
    "kPa",
    "mol",
    "kJ",
    "kW",
    "kWh",
    "mA",
    "acres",
    "acre",
    "gallon",
    "gallons",
    "quart",
    "quarts",
    "pint",
    "pints",
    "cup",
    "cups",
    "ton",
    "tons",
    "old",
    "apples",
    "books",
    "元",
];

/// The unit of that name.
pub(crate) fn unit(name: &str) -> Option<Unit> {
    let lower = name.to_ascii_lowercase();
    let (_, dimension, above, below) = UNITS
        .iter()
        .find(|(names, ..)| names.contains(&name))
        .or_else(|| UNITS.iter().find(|(names, ..)| names.contains(&lower.as_str())))?;
    Some(Unit { dimension: (dimension, 1), scale: BigRational::new((*above).into(), (*below).into()) })
}

/// Whether a plain word after a number is a unit.
pub(crate) fn is_unit_word(word: &str) -> bool {
    unit(word).is_some() || OTHERS.contains(&word) || OTHERS.contains(&word.to_ascii_lowercase().as_str())
}

impl Unit {
    /// The unit to a small whole power.
    pub(crate) fn power(self, power: i32) -> Option<Self> {
        if !(1..=6).contains(&power) {
            return None;
        }
        let part = |part: &BigInt| Pow::pow(part, power.unsigned_abs());
        let scale = BigRational::new(part(self.scale.numer()), part(self.scale.denom()));
        Some(Self { dimension: (self.dimension.0, self.dimension.1 * power), scale })
    }
}

/// The unit that a phrase like `square cm`, `cm^2` or `meters` means, when it is one that converts.
pub(crate) fn phrase(text: &str) -> Option<Unit> {
    let mut words = text.split_whitespace();
    let mut power = 1;
    let mut word = words.next()?;
    match word.to_ascii_lowercase().as_str() {
        "square" | "sq" | "sq." => {
            power = 2;
            word = words.next()?;
        }
        "cubic" | "cu" | "cu." => {
            power = 3;
            word = words.next()?;
        }
        _ => {}
    }
    if words.next().is_some() {
        return None;
    }
    let word = word.trim_end_matches('.');
    let (name, exponent) = match word.split_once('^') {
        Some((name, exponent)) => (name, exponent.trim_matches(['{', '}']).parse().ok()?),
        None => match word.strip_suffix('²') {
            Some(name) => (name, 2),
            None => (word.strip_suffix('³').unwrap_or(word), if word.ends_with('³') { 3 } else { 1 }),
        },
    };
    unit(name)?.power(power * exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases() {
        let metre = |above: i64, below: i64| BigRational::new(above.into(), below.into());
        for (text, dimension, scale) in [
            ("cm", ("length", 1), metre(1, 100)),
            ("square cm", ("length", 2), metre(1, 10_000)),
            ("cm^{2}", ("length", 2), metre(1, 10_000)),
            ("m³", ("length", 3), metre(1, 1)),
            ("hours", ("time", 1), metre(3600, 1)),
        ] {
            assert_eq!(phrase(text), Some(Unit { dimension, scale }), "{text}");
        }
        for text in ["", "apples", "cm per day", "cm^99", "square"] {
            assert_eq!(phrase(text), None, "{text}");
        }
        assert!(is_unit_word("mph") && !is_unit_word("sin"));
    }
}
