//! Times of day: `2:30 PM`, `2:30 p.m.` and `14:30`.

/// Minutes of a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    minutes: u32,
    /// Whether it is known which half of the day is meant.
    sure: bool,
    /// Whether it says `am` or `pm`.
    marked: bool,
}

/// Longest text that is a time.
const MAX_BYTES: usize = 40;

impl Clock {
    /// The time that a whole answer is, if it is one.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut text = text.to_ascii_lowercase();
        for command in [r"\text", r"\mathrm", r"\textrm"] {
            text = text.replace(command, "");
        }
        text.retain(|c| !c.is_whitespace() && !matches!(c, '.' | '$' | '{' | '}' | '~' | '\\' | ','));
        let afternoon = match &text.as_bytes()[text.len().saturating_sub(2)..] {
            b"am" => Some(false),
            b"pm" => Some(true),
            _ => None,
        };
        let digits = if afternoon.is_some() { &text[..text.len() - 2] } else { &text };
        let (hour, minute) = match digits.split_once(':') {
            Some((hour, minute)) if minute.len() == 2 => (hour, minute),
            None if afternoon.is_some() => (digits, "00"),
            _ => return None,
        };
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u32>().ok(),
            false => None,
        };
        let (hour, minute) = (number(hour).filter(|_| hour.len() <= 2)?, number(minute)?);
        if minute > 59 || hour > 23 || afternoon.is_some() && !(1..=12).contains(&hour) {
            return None;
        }
        let hour = match afternoon {
            Some(afternoon) => hour % 12 + if afternoon { 12 } else { 0 },
            None => hour,
        };
        let sure = afternoon.is_some() || !(1..=12).contains(&hour);
        Some(Self { minutes: hour * 60 + minute, sure, marked: afternoon.is_some() })
    }

    /// Whether it says which half of the day it means; other texts may be ratios.
    pub(super) fn is_marked(self) -> bool {
        self.marked
    }

    /// Whether two answers are the same time.
    pub(super) fn same(self, other: Self) -> bool {
        let half = 12 * 60;
        match self.sure && other.sure {
            true => self.minutes == other.minutes,
            false => self.minutes % half == other.minutes % half,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn times() {
        let same = |a: &str, b: &str| Clock::read(a).zip(Clock::read(b)).is_some_and(|(a, b)| a.same(b));
        assert!(same("2:30 PM", "14:30") && same("12:00 a.m.", "0:00") && same("7 am", "07:00"));
        assert!(!same("2:30 am", "14:30") && !same("12 pm", "12 am"));
        for text in
            ["", "pm", "13 pm", "2:3 pm", "2:60 pm", "25:00", "1:2:30 pm", "am I", "é am", "12", "²:30 pm", "0 am"]
        {
            assert_eq!(Clock::read(text), None, "{text}");
        }
    }
}
