//! PURE. Values as people write them: durations, sizes, numbers, permission bits. Errors read `must be …`.
#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Parses `30` and `30s`, `500ms`, `2m`, `1h`, and sums and fractions of these: `1m30s`, `1.5s`.
///
/// # Errors
///
/// What the text must be.
pub fn duration(text: &str) -> Result<Duration, String> {
    let problem = || "must be a duration: seconds, or a number with a unit as in 500ms, 30s, 2m, 1h".to_owned();
    let millis = sum(text, |unit, is_alone| match unit {
        "ms" => Some(1),
        "" if is_alone => Some(1000),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    });
    millis.map(Duration::from_millis).ok_or_else(problem)
}

/// Formats a duration so that it can be parsed again, in seconds or hours if they are whole.
pub(super) fn shown_duration(duration: Duration) -> String {
    match (duration.as_millis(), duration.subsec_millis()) {
        (0, _) => "0".to_owned(),
        (_, 0) if duration.as_secs() % 3600 == 0 => format!("{}h", duration.as_secs() / 3600),
        (_, 0) => format!("{}s", duration.as_secs()),
        (millis, _) => format!("{millis}ms"),
    }
}

/// Parses `8192`, `8k` and `8KiB`, `1m` and `1MiB`, `1g` and `1GiB`: powers of 1024. `kB`, `MB` and `GB` are powers of
/// 1000. Fractions such as `1.5MiB` are accepted if they are whole bytes.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let problem = || "must be a size: bytes, or a number with a unit as in 8KiB, 1MiB".to_owned();
    let (_, unit) = split_unit(text);
    let each = match unit {
        "" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(problem()),
    };
    let bytes = sum(text, |_, is_alone| is_alone.then_some(each));
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(problem)
}

/// The sum of numbers with units, such as `1m30s`. `each` says how much a unit is; its second argument is whether the
/// number is the whole text. `None` if that is malformed, too large, or no whole number.
fn sum(text: &str, each: impl Fn(&str, bool) -> Option<u64>) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() || text.is_empty() {
        let (number, after) = split_unit(rest);
        let unit = &after[..after.bytes().take_while(u8::is_ascii_alphabetic).count()];
        let each = each(unit, number.len() + unit.len() == text.len())?;
        total = total.checked_add(multiplied(number, each)?)?;
        rest = &after[unit.len()..];
        if unit.is_empty() && !rest.is_empty() {
            return None;
        }
    }
    Some(total)
}

/// A decimal number such as `1.5` times a whole one, if that is whole.
fn multiplied(number: &str, each: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(each)?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(each)?;
    (part % scale == 0).then(|| whole.checked_add(part / scale)).flatten()
}

/// Formats a size so that it can be parsed again, in the largest unit of which it is a multiple.
pub(super) fn shown_bytes(bytes: usize) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// Parses a number of decimal digits and nothing else.
pub(super) fn number<N: FromStr>(text: &str) -> Result<N, String> {
    let (number, unit) = split_unit(text);
    let parsed = number.parse().ok().filter(|_| unit.is_empty());
    parsed.ok_or_else(|| "must be a whole number".into())
}

/// Parses permission bits in octal: `660`, `0660`, `0o660`.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| octal);
    mode.ok_or_else(|| "must be permission bits in octal, as in 0660".into())
}

/// Parses a yes or no.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("must be yes or no".into()),
    }
}

/// Parses a name or path: any text that is not empty.
pub(super) fn text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must not be empty".into()),
        text => Ok(text.to_owned()),
    }
}

/// Whether a text consists of visible ASCII and blanks, as the value of a header field does.
pub(super) fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// Refuses what is no host name. Refuses a port, too, since the port that a client has asked does not matter.
pub(super) fn host_name(text: &str) -> Result<(), String> {
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match !text.is_empty() && text.bytes().all(is_in_name) {
        true => Ok(()),
        false => Err("must be a host name without a port, as in pool.example".to_owned()),
    }
}

/// The items of a list separated by commas or blanks.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(|separator: char| separator == ',' || separator.is_whitespace()).filter(|item| !item.is_empty())
}

/// Whether `value` is within `range`.
pub(super) fn within<V: PartialOrd + Debug>(value: V, range: RangeInclusive<V>) -> Result<(), String> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(format!("must be {:?} to {:?}", range.start(), range.end())),
    }
}

/// Whether a timeout is valid. Zero is never, less than a millisecond cannot be told from zero, and more than a day is
/// surely a wrong unit.
pub(super) fn timeout(value: Duration, min: Duration) -> Result<(), String> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    match value.is_zero() || (min..=DAY).contains(&value) {
        true => Ok(()),
        false => Err(format!("must be {min:?} to 24h, or 0 for never")),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", Some(0)),
            ("30", Some(30_000)),
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551615", None),
            ("18446744073709551616ms", None),
            ("", None),
            ("s", None),
            ("1.5s", Some(1500)),
            ("1m30s", Some(90_000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("0.5h", Some(1_800_000)),
            ("1.5ms", None),
            ("1.", None),
            (".5s", None),
            ("1.5.5s", None),
            ("1m30", None),
            ("30 1m", None),
            ("+1", None),
            ("-1", None),
            ("1 s", None),
            ("1S", None),
            ("1d", None),
            ("1s1", None),
        ] {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for (millis, text) in [(0, "0"), (1, "1ms"), (1500, "1500ms"), (25_000, "25s"), (60_000, "60s")] {
            let value = Duration::from_millis(millis);
            assert_eq!((shown_duration(value).as_str(), duration(text)), (text, Ok(value)));
        }
        for (value, text) in
            [(0, "0"), (500, "500"), (8192, "8KiB"), (1025, "1025"), (3 << 20, "3MiB"), (1 << 30, "1GiB")]
        {
            assert_eq!((shown_bytes(value).as_str(), bytes(text)), (text, Ok(value)));
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("8192", Some(8192)),
            ("8k", Some(8192)),
            ("8K", Some(8192)),
            ("8KiB", Some(8192)),
            ("1m", Some(1 << 20)),
            ("1M", Some(1 << 20)),
            ("1MiB", Some(1 << 20)),
            ("2g", Some(2 << 30)),
            ("2GiB", Some(2 << 30)),
            ("99999999999GiB", None),
            ("8kB", Some(8000)),
            ("1MB", Some(1_000_000)),
            ("1.5MB", Some(1_500_000)),
            ("1.5MiB", Some(3 << 19)),
            ("2GB", Some(2_000_000_000)),
            ("0.3KiB", None),
            ("1.5", None),
            ("1MiB1", None),
            ("1MiB1KiB", None),
            ("8kb", None),
            ("k", None),
            ("", None),
            ("+8", None),
            ("8 KiB", None),
        ] {
            assert_eq!(bytes(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn numbers_and_modes() {
        for (text, expected) in
            [("0", Some(0)), ("12", Some(12)), ("", None), ("+1", None), ("1k", None), ("4294967296", None)]
        {
            assert_eq!(number::<u32>(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("660", Some(0o660)),
            ("0660", Some(0o660)),
            ("0o660", Some(0o660)),
            ("0", Some(0)),
            ("8", None),
            ("+7", None),
            ("", None),
            ("0o", None),
            ("rw", None),
            ("77777777777777", None),
        ] {
            assert_eq!(mode(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn host_names() {
        for text in ["a", "pool", "pool.example", "my_pool-1.default.svc.cluster.local", "10.0.0.1"] {
            assert_eq!(host_name(text), Ok(()), "{text}");
        }
        for text in ["", "pool:9000", "http://pool", "*", "*.example", "a b", "[::1]", "b\u{fc}cher.example"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists() {
        for (text, items) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            ("a b", &["a", "b"]),
            (" a, b ,\tc\n", &["a", "b", "c"]),
            ("", &[]),
            (" , ", &[]),
        ] {
            assert_eq!(list(text).collect::<Vec<_>>(), items, "{text:?}");
        }
    }

    #[test]
    fn a_timeout_is_never_or_between_its_least_and_a_day() {
        let least = Duration::from_millis(100);
        for (value, good) in [
            (Duration::ZERO, true),
            (Duration::from_nanos(1), false),
            (Duration::from_millis(99), false),
            (least, true),
            (Duration::from_secs(86_400), true),
            (Duration::from_millis(86_400_001), false),
            (Duration::MAX, false),
        ] {
            assert_eq!(timeout(value, least).is_ok(), good, "{value:?}");
        }
    }
}
