//! PURE. Reads the few fields of a certificate that the pool needs (RFC 5280 section 4.1). The library that verifies
//! certificates checks them whole; this only looks, and takes what it cannot read for absent.
#![forbid(unsafe_code)]

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT Extensions`.
const EXTENSIONS: u8 = 0xa3;
/// `[2] dNSName` in a GeneralName.
const DNS_NAME: u8 = 0x82;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// What a certificate says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CertificateFields<'a> {
    /// The encoded names of who has signed it and of whom it is for.
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// From when until when it is valid, in seconds since 1970.
    pub(super) from: u64,
    pub(super) until: u64,
    /// The host names that it is for, in lower case.
    pub(super) names: Vec<String>,
}

/// `None` if it is no certificate.
pub(super) fn read(der: &[u8]) -> Option<CertificateFields<'_>> {
    let (certificate, _) = inside(SEQUENCE, der)?;
    let (fields, _) = inside(SEQUENCE, certificate)?;
    let fields = inside(VERSION, fields).map_or(fields, |(_, rest)| rest);
    // The serial number, and the algorithm of the signature.
    let (_, fields) = element(fields)?;
    let (_, fields) = element(fields)?;
    let (issuer, fields) = element(fields)?;
    let (validity, fields) = inside(SEQUENCE, fields)?;
    let (from, rest) = element(validity)?;
    let (until, _) = element(rest)?;
    let (subject, fields) = element(fields)?;
    // The public key; there may be identifiers before the extensions.
    let (_, mut fields) = element(fields)?;
    let mut names = Vec::new();
    while let Some((found, rest)) = element(fields) {
        if found.tag == EXTENSIONS {
            names = inside(SEQUENCE, found.content).and_then(|(list, _)| alternative_names(list)).unwrap_or_default();
        }
        fields = rest;
    }
    Some(CertificateFields {
        issuer: issuer.whole,
        subject: subject.whole,
        from: time(&from)?,
        until: time(&until)?,
        names,
    })
}

/// Whether these bytes are one value in DER, such as a certificate or a key.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    inside(SEQUENCE, bytes).is_some_and(|(_, rest)| rest.is_empty())
}

/// Whether this begins as PKCS#12 (RFC 7292 section 4): with the version 3, which neither certificates nor keys have.
pub(super) fn is_pkcs12(bytes: &[u8]) -> bool {
    inside(SEQUENCE, bytes).is_some_and(|(content, _)| content.starts_with(&[0x02, 1, 3]))
}

fn alternative_names(mut extensions: &[u8]) -> Option<Vec<String>> {
    while !extensions.is_empty() {
        let (extension, rest) = inside(SEQUENCE, extensions)?;
        extensions = rest;
        let (name, mut value) = inside(OBJECT_IDENTIFIER, extension)?;
        if name != SUBJECT_ALT_NAME {
            continue;
        }
        // Whether it is critical may stand in between.
        while let Some((part, rest)) = element(value) {
            if part.tag == OCTET_STRING {
                let (list, _) = inside(SEQUENCE, part.content)?;
                return Some(host_names(list));
            }
            value = rest;
        }
    }
    None
}

fn host_names(mut list: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((name, rest)) = element(list) {
        if let (DNS_NAME, Ok(name)) = (name.tag, std::str::from_utf8(name.content)) {
            names.push(name.to_ascii_lowercase());
        }
        list = rest;
    }
    names
}

/// A value with its tag and length.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// The first value, and what follows it.
fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    let whole = &bytes[..bytes.len() - rest.len()];
    Some((Element { tag, content, whole }, rest))
}

/// The contents of the first value if it has this tag, and what follows it.
fn inside(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = element(bytes)?;
    (found.tag == tag).then_some((found.content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, in seconds since 1970. A time before that is 0.
fn time(at: &Element<'_>) -> Option<u64> {
    let digits = std::str::from_utf8(at.content).ok()?.strip_suffix('Z')?;
    let (year, rest) = digits.split_at_checked(if at.tag == GENERALIZED_TIME { 4 } else { 2 })?;
    let year: i64 = number(year)?;
    let year = match at.tag {
        GENERALIZED_TIME => year,
        UTC_TIME if year < 50 => 2000 + year,
        UTC_TIME => 1900 + year,
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |index: usize| number(rest.get(2 * index..2 * index + 2)?);
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(u64::try_from(seconds).unwrap_or(0))
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// The days from 1970 to a date of the Gregorian calendar, counted from March, so that a leap day ends a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let mut out = vec![tag];
        match len {
            0..=127 => out.push(len as u8),
            _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
        }
        out.extend_from_slice(content);
        out
    }

    fn certificate() -> Vec<u8> {
        let time = |tag, text: &str| encoded(tag, text.as_bytes());
        let validity = [time(UTC_TIME, "991231235959Z"), time(GENERALIZED_TIME, "20500101000000Z")].concat();
        let names =
            [encoded(DNS_NAME, b"A.example"), encoded(0x87, &[127, 0, 0, 1]), encoded(DNS_NAME, b"*.b.example")];
        let names = encoded(OCTET_STRING, &encoded(SEQUENCE, &names.concat()));
        let critical = encoded(0x01, &[0xff]);
        let extension = encoded(SEQUENCE, &[encoded(OBJECT_IDENTIFIER, SUBJECT_ALT_NAME), critical, names].concat());
        let other = encoded(SEQUENCE, &[encoded(OBJECT_IDENTIFIER, &[0x55, 0x1d, 0x0f]), encoded(4, b"x")].concat());
        let fields = [
            encoded(VERSION, &encoded(2, &[2])),
            encoded(2, &[7]),
            encoded(SEQUENCE, b""),
            encoded(SEQUENCE, b"issuer"),
            encoded(SEQUENCE, &validity),
            encoded(SEQUENCE, b"subject"),
            encoded(SEQUENCE, &[0; 200]),
            encoded(EXTENSIONS, &encoded(SEQUENCE, &[other, extension].concat())),
        ];
        encoded(SEQUENCE, &[encoded(SEQUENCE, &fields.concat()), encoded(SEQUENCE, b"")].concat())
    }

    #[test]
    fn a_certificate_says_whom_it_is_for_and_until_when() {
        let der = certificate();
        let said = read(&der).expect("a certificate");
        assert_eq!(said.names, ["a.example", "*.b.example"]);
        assert_eq!((said.from, said.until), (946_684_799, 2_524_608_000));
        assert_eq!((said.issuer, said.subject), (&b"\x30\x06issuer"[..], &b"\x30\x07subject"[..]));
    }

    #[test]
    fn what_is_cut_or_damaged_is_no_certificate_and_no_panic() {
        let der = certificate();
        for len in 0..der.len() {
            assert_eq!(read(&der[..len]), None, "{len}");
        }
        for index in 0..der.len() {
            for value in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = der.clone();
                damaged[index] = value;
                let _ = read(&damaged);
            }
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (date, expected) in
            [((1970, 1, 1), 0), ((2000, 2, 29), 11_016), ((2000, 3, 1), 11_017), ((2026, 11, 28), 20_785)]
        {
            assert_eq!(days(date.0, date.1, date.2), expected, "{date:?}");
        }
    }
}
