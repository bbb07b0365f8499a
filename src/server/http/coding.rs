//! Which content coding a client prefers (RFC 9110 section 12.5.3).

/// A content coding in which files may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Brotli,
    Zstandard,
    Gzip,
}

impl Coding {
    /// The server's order of preference: the smaller first.
    const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];

    /// Its name in Accept-Encoding and Content-Encoding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstandard => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &str) -> bool {
        // RFC 9110 section 8.4.1.3: x-gzip is gzip.
        name.eq_ignore_ascii_case(self.name()) || self == Coding::Gzip && name.eq_ignore_ascii_case("x-gzip")
    }
}

/// The codings that a client prefers to none, best first. `fields` are the values of its Accept-Encoding fields.
pub(crate) fn preferred<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Vec<Coding> {
    let mut weights = Weights::default();
    for field in fields {
        // A field that is not UTF-8 names no coding.
        for element in std::str::from_utf8(field).unwrap_or_default().split(',') {
            weights.take(element);
        }
    }
    let mut codings: Vec<(u16, Coding)> = Coding::ALL.into_iter().map(|coding| (weights.of(coding), coding)).collect();
    codings.retain(|(weight, _)| *weight > 0 && *weight >= weights.identity.unwrap_or(0));
    // Stable, so that equals stay in the server's order.
    codings.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    codings.into_iter().map(|(_, coding)| coding).collect()
}

/// The weight of each coding, in thousandths.
#[derive(Default)]
struct Weights {
    named: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    /// Of `*`: all codings that are not named.
    others: Option<u16>,
}

impl Weights {
    /// Parses `gzip;q=0.5`. The first weight of a coding counts; a malformed element is ignored.
    fn take(&mut self, element: &str) {
        let (name, parameter) = element.split_once(';').unwrap_or((element, "q=1"));
        let Some(weight) = weight(parameter.trim()) else { return };
        let name = name.trim();
        let place = match Coding::ALL.iter().position(|coding| coding.is_named(name)) {
            Some(place) => &mut self.named[place],
            None if name == "*" => &mut self.others,
            None if name.eq_ignore_ascii_case("identity") => &mut self.identity,
            None => return,
        };
        place.get_or_insert(weight);
    }

    fn of(&self, coding: Coding) -> u16 {
        let named = Coding::ALL.iter().zip(&self.named).find_map(|(one, weight)| weight.filter(|_| *one == coding));
        named.or(self.others).unwrap_or(0)
    }
}

/// `q=0.5` in thousandths: `weight` of RFC 9110 section 12.4.2.
pub(super) fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_preferred_by_weight_and_then_by_size() {
        for (fields, expected) in [
            (&[][..], ""),
            (&[""], ""),
            (&["gzip"], "gzip"),
            (&["GZIP"], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["gzip, deflate, br, zstd"], "br zstd gzip"),
            (&["gzip", "br"], "br gzip"),
            (&["gzip;q=1, br;q=0.9"], "gzip br"),
            (&["gzip ; Q=0.001 ,br;q=0"], "gzip"),
            (&["gzip;q=0.5, *;q=0.7"], "br zstd gzip"),
            (&["*"], "br zstd gzip"),
            (&["*;q=0"], ""),
            (&["*;q=0, gzip"], "gzip"),
            (&["br;q=0, *"], "zstd gzip"),
            (&["identity, gzip;q=0.5"], ""),
            (&["identity;q=0.5, gzip;q=0.5, br;q=0.4"], "gzip"),
            (&["identity;q=0"], ""),
            (&["gzip;q=0, gzip"], ""),
            // Malformed elements are ignored.
            (&["gzip;q=2"], ""),
            (&["gzip;q=1.001"], ""),
            (&["gzip;q=0.0001"], ""),
            (&["gzip;q=-0"], ""),
            (&["gzip;q="], ""),
            (&["gzip;level=9"], ""),
            (&["gzip;q=0.+5"], ""),
            (&["compress, deflate;q=x, ,;"], ""),
            (&["gzipped, brotli"], ""),
        ] {
            let found = preferred(fields.iter().map(|field| field.as_bytes()));
            let found: Vec<&str> = found.into_iter().map(Coding::name).collect();
            assert_eq!(found.join(" "), expected, "{fields:?}");
        }
        assert_eq!(preferred([&b"gzip, \xff"[..]].into_iter()), []);
    }
}
