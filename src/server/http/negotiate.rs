//! Content negotiation: which of the offered representations a client prefers (RFC 9110 section 12).
#![forbid(unsafe_code)]

use super::coding::weight;
use super::request::Request;

impl Request<'_> {
    /// Chooses a content coding for the response by Accept-Encoding, from those that you offer, your favourite first:
    /// `["br", "gzip"]`. Returns `None` if the body should be sent as it is.
    ///
    /// Name the choice in Content-Encoding, and send `Vary: Accept-Encoding` whatever it is.
    ///
    /// ```
    /// # use forkpool::Request;
    /// let mut request = Request::builder("GET", "/").header("Accept-Encoding", "gzip, deflate, br;q=0.9");
    /// assert_eq!(request.build().preferred_encoding(&["br", "gzip"]), Some("gzip"));
    /// assert_eq!(request.build().preferred_encoding(&["zstd"]), None);
    /// ```
    pub fn preferred_encoding<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        let wanted = self.wanted("Accept-Encoding");
        let weight_of = |coding: &str| {
            let named = wanted.iter().find(|(name, _)| is_same_coding(name, coding));
            named.or_else(|| wanted.iter().find(|(name, _)| *name == "*")).map_or(0, |(_, weight)| *weight)
        };
        let plain = wanted.iter().find(|(name, _)| name.eq_ignore_ascii_case("identity")).map_or(0, |found| found.1);
        best(offered.iter().map(|coding| (*coding, weight_of(coding))))
            .filter(|(_, weight)| *weight >= plain)
            .map(|best| best.0)
    }

    /// Chooses a media type for the response by Accept, from those that you offer, your favourite first:
    /// `["text/html", "application/json"]`. Returns the first if the client accepts anything, and `None` if it accepts
    /// none of them, for which the status is 406. Parameters, except for the weight, are ignored.
    ///
    /// ```
    /// # use forkpool::Request;
    /// let mut request = Request::builder("GET", "/").header("Accept", "application/json, text/*;q=0.5");
    /// assert_eq!(request.build().preferred_type(&["text/html", "application/json"]), Some("application/json"));
    /// assert_eq!(request.build().preferred_type(&["image/png"]), None);
    /// ```
    pub fn preferred_type<'o>(&self, offered: &[&'o str]) -> Option<&'o str> {
        if self.header_bytes("Accept").is_none() {
            return offered.first().copied();
        }
        let wanted = self.wanted("Accept");
        // The most specific range decides (RFC 9110 section 12.5.1).
        let weight_of = |offer: &str| {
            let offer = essence(offer);
            let whole = offer.split_once('/').unwrap_or((offer, ""));
            let matching = |range: &str| match range.split_once('/') {
                Some(("*", "*")) => Some(0),
                Some((kind, "*")) if kind.eq_ignore_ascii_case(whole.0) => Some(1),
                _ if range.eq_ignore_ascii_case(offer) => Some(2),
                _ => None,
            };
            let ranges = wanted.iter().filter_map(|(range, weight)| matching(range).map(|rank| (rank, *weight)));
            ranges.max_by_key(|(rank, _)| *rank).map_or(0, |(_, weight)| weight)
        };
        best(offered.iter().map(|offer| (*offer, weight_of(offer)))).map(|best| best.0)
    }

    /// The elements of a field with weights in thousandths. One with a malformed weight is ignored.
    fn wanted(&self, field: &str) -> Vec<(&str, u16)> {
        let fields = self.headers().filter(|(name, _)| name.eq_ignore_ascii_case(field));
        let values = fields.filter_map(|(_, value)| std::str::from_utf8(value).ok());
        let elements = values.flat_map(|value| value.split(','));
        elements
            .filter_map(|element| {
                let said = element.split(';').skip(1).find_map(|parameter| {
                    let parameter = parameter.trim();
                    parameter.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("q=")).then(|| weight(parameter))
                });
                said.unwrap_or(Some(1000)).map(|weight| (essence(element), weight))
            })
            .collect()
    }
}

/// An element without its parameters.
fn essence(element: &str) -> &str {
    element.split(';').next().unwrap_or_default().trim()
}

/// RFC 9110 section 8.4.1.3: x-gzip is gzip.
fn is_same_coding(one: &str, other: &str) -> bool {
    let plain =
        |name: &str| if name.eq_ignore_ascii_case("x-gzip") { "gzip".to_owned() } else { name.to_ascii_lowercase() };
    plain(one) == plain(other)
}

/// The first of those with the highest weight, if that is not 0.
fn best<'o>(weighed: impl Iterator<Item = (&'o str, u16)>) -> Option<(&'o str, u16)> {
    weighed.filter(|(_, weight)| *weight > 0).reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_chosen_by_weight_and_then_by_the_order_of_the_offer() {
        for (accepted, expected) in [
            ("", None),
            ("gzip", Some("gzip")),
            ("br, x-gzip", Some("br")),
            ("X-GZIP", Some("gzip")),
            ("gzip;q=1.0, br;q=0.9", Some("gzip")),
            ("*", Some("br")),
            ("*, br;q=0", Some("gzip")),
            ("br;q=0, gzip;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("gzip;q=2", None),
        ] {
            let mut builder = Request::builder("GET", "/").header("Accept-Encoding", accepted);
            assert_eq!(builder.build().preferred_encoding(&["br", "gzip"]), expected, "{accepted}");
        }
        assert_eq!(Request::builder("GET", "/").build().preferred_encoding(&["br"]), None);
    }

    #[test]
    fn media_types_are_chosen_by_the_most_specific_range() {
        const OFFERED: [&str; 2] = ["text/html; charset=utf-8", "application/json"];
        for (accepted, expected) in [
            ("", None),
            ("*/*", Some(OFFERED[0])),
            ("application/*", Some(OFFERED[1])),
            ("application/json;q=0.5, TEXT/HTML;level=1;q=0.4", Some(OFFERED[1])),
            ("text/html;q=0, */*;q=0.1", Some(OFFERED[1])),
            ("image/png", None),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(OFFERED[0])),
        ] {
            let mut builder = Request::builder("GET", "/").header("Accept", accepted);
            assert_eq!(builder.build().preferred_type(&OFFERED), expected, "{accepted}");
        }
        assert_eq!(Request::builder("GET", "/").build().preferred_type(&OFFERED), Some(OFFERED[0]));
    }
}
