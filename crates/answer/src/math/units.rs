//! Units after a number.

use std::collections::HashMap;
use std::sync::LazyLock;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Pow;

/// The powers of metre, kilogram, second, ampere, kelvin, mole; of money, years, degrees Celsius and Fahrenheit.
type Dimension = [i32; 10];

/// A unit that converts: what it measures, and its size in the base units.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    pub(crate) dimension: Dimension,
    pub(crate) scale: BigRational,
}

const fn base(at: usize) -> Dimension {
    let mut powers = [0; 10];
    powers[at] = 1;
    powers
}

const LENGTH: Dimension = base(0);
const MASS: Dimension = base(1);
const TIME: Dimension = base(2);
const CURRENT: Dimension = base(3);
const MONEY: Dimension = base(6);
const CALENDAR: Dimension = base(7);
const VOLUME: Dimension = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SPEED: Dimension = [1, 0, -1, 0, 0, 0, 0, 0, 0, 0];
const FREQUENCY: Dimension = [0, 0, -1, 0, 0, 0, 0, 0, 0, 0];
const FORCE: Dimension = [1, 1, -2, 0, 0, 0, 0, 0, 0, 0];
const PRESSURE: Dimension = [-1, 1, -2, 0, 0, 0, 0, 0, 0, 0];
const ENERGY: Dimension = [2, 1, -2, 0, 0, 0, 0, 0, 0, 0];
const POWER: Dimension = [2, 1, -3, 0, 0, 0, 0, 0, 0, 0];
const CHARGE: Dimension = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0];
const VOLTAGE: Dimension = [2, 1, -3, -1, 0, 0, 0, 0, 0, 0];
const RESISTANCE: Dimension = [2, 1, -3, -2, 0, 0, 0, 0, 0, 0];
const CAPACITY: Dimension = [-2, -1, 4, 2, 0, 0, 0, 0, 0, 0];
const FIELD: Dimension = [0, 1, -2, -1, 0, 0, 0, 0, 0, 0];

/// (names, what it measures, numerator, denominator)
const UNITS: &[(&[&str], Dimension, u64, u64)] = &[
    (&["nanometer", "nanometers"], LENGTH, 1, 1_000_000_000),
    (&["mm", "millimeter", "millimeters", "millimetre", "millimetres", "毫米"], LENGTH, 1, 1000),
    (&["cm", "centimeter", "centimeters", "centimetre", "centimetres", "厘米"], LENGTH, 1, 100),
    (&["dm", "decimeter", "decimeters", "分米"], LENGTH, 1, 10),
    (&["m", "meter", "meters", "metre", "metres", "米"], LENGTH, 1, 1),
    (&["km", "kilometer", "kilometers", "kilometre", "kilometres", "千米", "公里"], LENGTH, 1000, 1),
    (&["in", "inch", "inches"], LENGTH, 254, 10_000),
    (&["ft", "foot", "feet"], LENGTH, 3048, 10_000),
    (&["yd", "yard", "yards"], LENGTH, 9144, 10_000),
    (&["mi", "mile", "miles"], LENGTH, 1_609_344, 1000),
    (&["mg", "milligram", "milligrams"], MASS, 1, 1_000_000),
    (&["g", "gram", "grams", "克"], MASS, 1, 1000),
    (&["kg", "kilogram", "kilograms", "千克", "公斤"], MASS, 1, 1),
    (&["lb", "lbs", "pound", "pounds"], MASS, 45_359_237, 100_000_000),
    (&["oz", "ounce", "ounces"], MASS, 28_349_523_125, 1_000_000_000_000),
    (&["millisecond", "milliseconds", "毫秒"], TIME, 1, 1000),
    (&["s", "sec", "second", "seconds", "秒"], TIME, 1, 1),
    (&["min", "mins", "minute", "minutes", "分钟"], TIME, 60, 1),
    (&["h", "hr", "hrs", "hour", "hours", "小时"], TIME, 3600, 1),
    (&["day", "days", "天"], TIME, 86_400, 1),
    (&["week", "weeks"], TIME, 604_800, 1),
    (&["ml", "mL", "milliliter", "milliliters", "毫升"], VOLUME, 1, 1_000_000),
    (&["l", "L", "liter", "liters", "litre", "litres", "升"], VOLUME, 1, 1000),
    (&["cent", "cents"], MONEY, 1, 100),
    (&["dollar", "dollars", "usd", "USD"], MONEY, 1, 1),
    (&["year", "years", "yr", "yrs"], CALENDAR, 1, 1),
    (&["month", "months"], CALENDAR, 1, 12),
    (&["mph"], SPEED, 1_609_344, 3_600_000),
    (&["kmh", "kph"], SPEED, 1000, 3600),
    (&["hz", "Hz", "hertz"], FREQUENCY, 1, 1),
    (&["kHz"], FREQUENCY, 1000, 1),
    (&["MHz"], FREQUENCY, 1_000_000, 1),
    (&["GHz"], FREQUENCY, 1_000_000_000, 1),
    (&["N", "newton", "newtons", "牛", "牛顿"], FORCE, 1, 1),
    (&["kN"], FORCE, 1000, 1),
    (&["Pa", "pascal", "pascals", "帕"], PRESSURE, 1, 1),
    (&["kPa"], PRESSURE, 1000, 1),
    (&["MPa"], PRESSURE, 1_000_000, 1),
    (&["J", "joule", "joules", "焦", "焦耳"], ENERGY, 1, 1),
    (&["kJ"], ENERGY, 1000, 1),
    (&["kWh"], ENERGY, 3_600_000, 1),
    (&["W", "watt", "watts", "瓦"], POWER, 1, 1),
    (&["kW"], POWER, 1000, 1),
    (&["A", "amp", "amps", "ampere", "amperes", "安", "安培"], CURRENT, 1, 1),
    (&["mA"], CURRENT, 1, 1000),
    (&["C", "coulomb", "coulombs", "库仑"], CHARGE, 1, 1),
    (&["V", "volt", "volts", "伏", "伏特"], VOLTAGE, 1, 1),
    (&["kV"], VOLTAGE, 1000, 1),
    (&["Ω", "ohm", "ohms", "欧", "欧姆"], RESISTANCE, 1, 1),
    (&["F", "farad", "farads"], CAPACITY, 1, 1),
    (&["T", "tesla"], FIELD, 1, 1),
    (&["K", "kelvin", "kelvins"], base(4), 1, 1),
    (&["mol", "mole", "moles"], base(5), 1, 1),
    (&["°C", "℃", "celsius", "摄氏度"], base(8), 1, 1),
    (&["°F", "℉", "fahrenheit"], base(9), 1, 1),
];

/// Words that are units, or stand in for one, without a size to convert by.
const OTHERS: &[&str] = &[
    "unit", "units", "square", "sq", "cubic", "cu", "degree", "degrees", "deg", "rad", "radian", "radians", "yuan",
    "euro", "euros", "rupees", "pence", "people", "students", "times", "ways", "points", "per", "acres", "acre",
    "gallon", "gallons", "quart", "quarts", "pint", "pints", "cup", "cups", "ton", "tons", "old", "apples", "books",
    "元",
];

/// Most units in one, as in kg m / s^2.
const MAX_FACTORS: usize = 6;

/// The rows of [`UNITS`] by name: answers may name thousands of units.
static NAMES: LazyLock<HashMap<&str, (Dimension, u64, u64)>> = LazyLock::new(|| {
    let row = |(names, dimension, above, below): &'static (&[&'static str], _, _, _)| {
        names.iter().map(|&name| (name, (*dimension, *above, *below)))
    };
    UNITS.iter().flat_map(row).collect()
});

/// The row of a name, and the power that a Chinese prefix means.
fn row(name: &str) -> Option<(&'static (Dimension, u64, u64), i32)> {
    let (name, power) = match (name.strip_prefix("平方"), name.strip_prefix("立方")) {
        (Some(name), _) => (name, 2),
        (_, Some(name)) => (name, 3),
        _ => (name, 1),
    };
    let row = NAMES.get(name).or_else(|| NAMES.get(name.to_ascii_lowercase().as_str()))?;
    Some((row, power))
}

/// The unit of that name.
pub(crate) fn unit(name: &str) -> Option<Unit> {
    let mut letters = name.chars();
    if let Some(prefix) = letters.next()
        && (matches!(prefix, 'μ' | 'µ') || letters.as_str() == "Ω")
    {
        return prefixed(prefix, letters.as_str());
    }
    let (&(dimension, above, below), power) = row(name)?;
    Unit { dimension, scale: BigRational::new(above.into(), below.into()) }.power(power)
}

/// The unit of that name behind a prefix that is a letter of its own, as in kΩ and μF.
pub(crate) fn prefixed(prefix: char, name: &str) -> Option<Unit> {
    let (above, below) = match prefix {
        'M' => (1_000_000u64, 1u64),
        'k' => (1000, 1),
        'm' => (1, 1000),
        'μ' | 'µ' => (1, 1_000_000),
        _ => return None,
    };
    let &(dimension, own_above, own_below) = NAMES.get(name)?;
    let scale = BigRational::new(above.into(), below.into()) * BigRational::new(own_above.into(), own_below.into());
    Some(Unit { dimension, scale })
}

/// Whether a plain word after a number is a unit.
pub(crate) fn is_unit_word(word: &str) -> bool {
    unit(word).is_some() || OTHERS.contains(&word) || OTHERS.contains(&word.to_ascii_lowercase().as_str())
}

/// Whether a letter can be a unit, which it is only in certain places.
pub(crate) fn is_symbol(letter: char) -> bool {
    matches!(letter, 'm' | 's' | 'g' | 'h' | 'l' | 'L' | 'N' | 'V' | 'A' | 'J' | 'K' | 'W' | 'C' | 'F' | 'T' | 'Ω')
}

impl Unit {
    /// The unit to a small whole power.
    fn power(self, power: i32) -> Option<Self> {
        if power == 1 {
            return Some(self);
        }
        if power == 0 || !(-6..=6).contains(&power) {
            return None;
        }
        let part = |part: &BigInt| Pow::pow(part, power.unsigned_abs());
        let (above, below) = (part(self.scale.numer()), part(self.scale.denom()));
        // No size is zero.
        let scale = if power > 0 { BigRational::new(above, below) } else { BigRational::new(below, above) };
        Some(Self { dimension: self.dimension.map(|own| own * power), scale })
    }

    /// Whether both are powers of a length: such a power is lost easily, as in `15\text{ cm}` for an area.
    pub(crate) fn both_lengths(&self, other: &Self) -> bool {
        [self, other].iter().all(|unit| unit.dimension[1..].iter().all(|&power| power == 0))
    }
}

/// The product of units, each to its power; `None` when one of them has no size.
pub(crate) fn product(mut factors: Vec<(Option<Unit>, i32)>) -> Option<Unit> {
    if factors.len() == 1 {
        let (unit, power) = factors.remove(0);
        return unit?.power(power);
    }
    if factors.is_empty() || factors.len() > MAX_FACTORS {
        return None;
    }
    let mut result = Unit { dimension: [0; 10], scale: BigRational::from_integer(1.into()) };
    for (unit, power) in factors {
        let unit = unit?.power(power)?;
        for (sum, power) in result.dimension.iter_mut().zip(unit.dimension) {
            *sum += power;
        }
        result.scale *= unit.scale;
    }
    Some(result)
}

/// The power that a word before a unit means: `square cm`.
pub(crate) fn power_word(word: &str) -> Option<i32> {
    match word.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "square" | "sq" => Some(2),
        "cubic" | "cu" => Some(3),
        _ => None,
    }
}

/// The unit that a phrase like `square cm`, `cm^2`, `m/s` or `meters per second` means, when it is one that converts.
pub(crate) fn phrase(text: &str) -> Option<Unit> {
    product(factors(text)?)
}

/// The units of a phrase, each with its power.
pub(crate) fn factors(text: &str) -> Option<Vec<(Option<Unit>, i32)>> {
    // Longer ones are no units.
    if text.len() > 60 {
        return None;
    }
    let text = text.replace('/', " / ").replace(['·', '⋅', '~'], " ").replace(r"\cdot", " ");
    let (mut sign, mut power) = (1, 1);
    let mut factors = Vec::new();
    for word in text.split_whitespace() {
        match word.to_ascii_lowercase().as_str() {
            "/" | "per" => sign = -1,
            "degree" | "degrees" => {}
            _ => match power_word(word) {
                Some(before) => power = before,
                None => {
                    let (unit, own) = powered(word.trim_end_matches('.'))?;
                    factors.push((Some(unit), sign * power * own));
                    power = 1;
                }
            },
        }
    }
    Some(factors)
}

/// `cm^2`, `cm²`, `s^{-1}`: a unit and its power.
fn powered(word: &str) -> Option<(Unit, i32)> {
    if let Some((name, exponent)) = word.split_once('^') {
        let exponent: i32 = exponent.trim_matches(['{', '}']).parse().ok()?;
        return Some((unit(name)?, exponent)).filter(|_| (-6..=6).contains(&exponent));
    }
    for (sign, power) in [('²', 2), ('³', 3)] {
        if let Some(name) = word.strip_suffix(sign) {
            return Some((unit(name)?, power));
        }
    }
    Some((unit(word)?, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases() {
        let area: Dimension = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (text, dimension, above, below) in [
            ("cm", LENGTH, 1, 100),
            ("square cm", area, 1, 10_000),
            ("cm^{2}", area, 1, 10_000),
            ("平方厘米", area, 1, 10_000),
            ("m³", VOLUME, 1, 1),
            ("L", VOLUME, 1, 1000),
            ("hours", TIME, 3600, 1),
            ("km/h", SPEED, 5, 18),
            ("cm per day", SPEED, 1, 8_640_000),
            ("m s^{-1}", SPEED, 1, 1),
            ("kg·m/s^2", FORCE, 1, 1),
            ("degrees Celsius", base(8), 1, 1),
        ] {
            let scale = BigRational::new(above.into(), below.into());
            assert_eq!(phrase(text), Some(Unit { dimension, scale }), "{text}");
        }
        for text in ["", "apples", "cm per apple", "cm^99", "cm^99999999999", "square", "m m m m m m m", "degrees"] {
            assert_eq!(phrase(text), None, "{text}");
        }
        assert!(is_unit_word("mph") && !is_unit_word("sin"));
    }
}
