//! Units: which measure the same, how they are spelled, and which letters are none.

use super::check;

#[test]
fn units_of_different_quantities() {
    check(&[
        ("5 cm", "5 kg", false),
        (r"5\text{ cm}", r"5\text{ s}", false),
        ("60 km/h", "60 m/s", false),
        ("36 km/h", "10 m/s", true),
        (r"36\text{ km/h}", r"10\ \mathrm{m/s}", true),
        ("60 km/h", "60 km/h", true),
        ("60 km/h", "60", true),
        ("60", "60 km/h", true),
        ("60 mph", r"60\text{ miles per hour}", true),
        ("2 m/s", "2 cm/s", false),
        ("2 m/s", "200 cm/s", true),
        ("2 m/s", "2 m/s^2", false),
        ("5 cm", "5 cm^2", true),
        ("1 L", "1000 cm^3", true),
        ("5 years", "5 days", false),
        ("1 year", "12 months", true),
        ("5 apples", "5", true),
        (r"10 \text{ N}", r"10 \text{ kg m/s}^2", true),
        (r"10 \text{ N}", r"10 \text{ J}", false),
        ("8 N/C", "8 V/m", true),
        ("8 N/C", "8 V/s", false),
        ("25°C", "25 K", false),
        ("25°C", r"25^\circ \text{F}", false),
    ]);
}

#[test]
fn spellings_of_units() {
    let (root, quarter) = (r"6\sqrt{2}", r"\frac{25\pi}{4}");
    let both = [
        (root, r"6\sqrt{2}cm"),
        (r"4\sqrt{3}", r"4\sqrt{3}cm"),
        (r"4\sqrt{3}\text{ cm}", r"4\sqrt{3}cm"),
        (quarter, r"\frac{25\pi}{4}cm^2"),
        (r"4+2\sqrt3", r"(4+2\sqrt3)cm"),
        (root, r"6\sqrt2 m"),
        (r"4\pi", r"4\pi m^2"),
        (r"\frac52", r"\frac{5}{2} m"),
        ("10", r"10 \mathrm{~m} / \mathrm{s}"),
        ("10 m/s", r"10 \mathrm{~m} / \mathrm{s}"),
        ("9.8", r"9.8 \mathrm{~m} / \mathrm{s}^{2}"),
        ("9.8", r"9.8\,\mathrm{m/s^2}"),
        (r"9.8\text{ m/s}^2", r"9.8\,\mathrm{m/s^2}"),
        (r"9.8\text{ m/s}^2", r"9.8 \mathrm{~m} \cdot \mathrm{s}^{-2}"),
        ("5", "5 N"),
        ("6", "6 V"),
        ("2.5", "2.5 A"),
        ("40", "40 J"),
        ("8", "8 K"),
        ("2", r"2 \Omega"),
        ("2", "2Ω"),
        ("5", r"V=5\ \mathrm{m}^3"),
        ("100 Pa", "100 N/m^2"),
        ("5 J", "5 N m"),
        ("10 m/s", r"The speed is $10 \mathrm{~m} / \mathrm{s}$."),
        ("8", "8 N/C"),
        ("25", "25°C"),
        ("25", "25℃"),
        ("25°C", "25℃"),
        ("25", r"25^{\circ}\mathrm{C}"),
        ("25°C", r"25^{\circ}\mathrm{C}"),
        ("25°C", r"25^{\circ}\text{C}"),
        ("25°C", "25 degrees Celsius"),
        (r"10 \text{ N}", "10 N"),
        ("6 V", r"6\,\text{V}"),
        ("10 N", r"10 \mathrm{~N}"),
        (r"x = 10\text{ m}", r"10 \mathrm{~m}"),
        ("10", r"v = 10 \mathrm{~m} / \mathrm{s}"),
        ("5", "5m²"),
        ("3.5", "3.5m/s"),
        ("12", "12平方厘米"),
        (r"12\text{ cm}^2", r"12\text{平方厘米}"),
        ("5 N, 6 N", "5, 6"),
    ];
    let turned: Vec<_> = both.iter().flat_map(|&(a, b)| [(a, b, true), (b, a, true)]).collect();
    check(&turned);
    check(&[
        (root, r"6\sqrt{3}cm", false),
        ("10 N", "10 V", false),
        (r"10 \mathrm{~m} / \mathrm{s}", r"10 \mathrm{~km} / \mathrm{h}", false),
        (r"36 \mathrm{~km} / \mathrm{h}", r"10 \mathrm{~m} / \mathrm{s}", true),
    ]);
}

#[test]
fn letters_that_are_variables() {
    check(&[
        ("5N", "5 N", true),
        ("5 N", "5N", true),
        ("5N", "5", false),
        ("5", "5N", false),
        ("5 N", "4 N + N", true),
        ("6V", "6", false),
        ("6", "6V", false),
        ("P = 6V", "6", false),
        ("P = 6 V", "6", false),
        ("P = 6 V", "P = 6V", true),
        ("2x m", "2x", false),
        ("2x", "2x m", false),
        ("2 + 3 m", "5", false),
        ("2 + 3 m", "3m+2", true),
        ("(2 m)^2", "4", false),
        ("(2 m)^2", "4m^2", true),
        (r"\frac{1}{2} h", r"\frac12", false),
        (r"\frac{1}{2} m", r"\frac{m}{2}", true),
        (r"\frac{\sqrt3}{2}mg", r"\frac{\sqrt3}{2}", false),
        (r"3 V_1", "3", false),
        ("5 N, 2 M", "5, 2", false),
        ("AB", "BA", true),
        ("AC", "CA", true),
    ]);
}

#[test]
fn prefixes_and_sums_of_units() {
    check(&[
        (r"5\text{ ft }6\text{ in}", "66 inches", true),
        ("5 feet 6 inches", "5.5 ft", true),
        ("5 feet 6 inches", "5 feet 5 inches", false),
        ("5 feet 6 inches", "30 feet", false),
        ("1 hour 30 minutes", "90 minutes", true),
        ("1 hour 30 minutes", "1.5 hours", true),
        ("90 min", "1 h 30 min", true),
        ("2 kg 500 g", "2.5 kg", true),
        ("2米30厘米", "2.3米", true),
        ("5 cm 6 kg", "30 cm", false),
        (r"5\ k\Omega", r"5000\ \Omega", true),
        (r"5\,\text{k}\Omega", "5 kΩ", true),
        (r"5\,\mathrm{k}\Omega", r"5 k\Omega", true),
        (r"5\ k\Omega", "5", true),
        (r"5\ k\Omega", r"5\ \Omega", false),
        (r"2\,\text{M}\Omega", r"2000\ k\Omega", true),
        (r"20\ \mu\text{F}", r"20\ \mu F", true),
        (r"20\ \mu\mathrm{m}", "0.02 mm", true),
        ("20 μm", "20", true),
        (r"3\mu", "3", false),
        ("1 km", "1000 m", true),
        ("1,000 km", "1000000 m", true),
    ]);
}
