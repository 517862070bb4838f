//! Numbers as people read them.

/// A minus sign, which is wider than a hyphen and lines up with digits.
const MINUS: char = '\u{2212}';
/// Keeps a number and its unit on one line.
const NO_BREAK_SPACE: char = '\u{a0}';

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with a fixed count of decimals and grouped thousands; in scientific notation beyond 10^15.
pub(crate) fn decimal(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "not a number".to_owned();
    }
    if value.abs() >= 1e15 {
        return format!("{value:.1e}").replace('-', &MINUS.to_string());
    }
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut text = String::new();
    // A value that rounds to zero has no sign.
    if value < 0.0 && plain.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        text.push(MINUS);
    }
    text.push_str(&whole.parse().map(grouped).unwrap_or_else(|_| whole.to_owned()));
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A number with so many significant digits, whole ones all kept: `0.04123`, `12.35`, `12,346`.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return decimal(value, 0);
    }
    let exponent = value.abs().log10().floor() as i32;
    if exponent < -5 {
        return format!("{value:.*e}", digits.saturating_sub(1)).replace('-', &MINUS.to_string());
    }
    decimal(value, (digits as i32 - 1 - exponent).max(0) as usize)
}

/// A share as whole per cent, or with one decimal below 10 %: `0.374` as `37 %`.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let decimals = usize::from(value.abs() < 9.95 && value != 0.0);
    format!("{}{NO_BREAK_SPACE}%", decimal(value, decimals))
}

/// A share in per cent with one decimal, as for a column of them: `0.9988` as `99.9 %`.
pub(crate) fn percent_with_decimal(share: f64) -> String {
    // Cut off, not rounded: 100 % and 0 % are said of everything and of nothing.
    let tenths = if share > 0.5 { (share * 1000.0).floor() } else { (share * 1000.0).ceil() };
    format!("{}{NO_BREAK_SPACE}%", decimal(tenths / 10.0, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_print() {
        assert_eq!(
            [0, 999, 1_000, 60_664, 1_234_567].map(grouped),
            ["0", "999", "1,000", "60,664", "1,234,567"]
        );
        assert_eq!(decimal(-1234.56, 1), "\u{2212}1,234.6");
        assert_eq!(decimal(-0.001, 2), "0.00");
        assert_eq!(decimal(f64::NAN, 2), "not a number");
        assert_eq!(decimal(3e20, 0), "3.0e20");
        assert_eq!(
            [0.041_234, 12.346, 12_345.6].map(|value| significant(value, 4)),
            ["0.04123", "12.35", "12,346"]
        );
        assert_eq!(significant(1.5e-7, 2), "1.5e\u{2212}7");
        assert_eq!(
            [0.374, 0.0521, 0.0, 1.0].map(percent),
            ["37\u{a0}%", "5.2\u{a0}%", "0\u{a0}%", "100\u{a0}%"]
        );
    }
}
