//! Decoded paths, queries and forms.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use super::request::Request;

impl<'a> Request<'a> {
    /// The path, percent-decoded; U+FFFD replaces what is not UTF-8. An encoded slash (`%2F`) becomes a slash, so use
    /// [`segments`](Request::segments) where the two differ, and check for `..` before you use it as a path of files.
    ///
    /// ```
    /// # use forkpool::Request;
    /// assert_eq!(Request::builder("GET", "/caf%C3%A9").build().decoded_path(), "/café");
    /// ```
    pub fn decoded_path(&self) -> Cow<'a, str> {
        percent_decode_str(self.path()).decode_utf8_lossy()
    }

    /// The segments of the path, between its slashes, each percent-decoded as in
    /// [`decoded_path`](Request::decoded_path). A path that ends in a slash has an empty last segment.
    ///
    /// ```
    /// # use forkpool::Request;
    /// let mut builder = Request::builder("GET", "/users/A%2FB/notes");
    /// assert_eq!(builder.build().segments().collect::<Vec<_>>(), ["users", "A/B", "notes"]);
    /// ```
    pub fn segments(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let path = self.path();
        path.strip_prefix('/').unwrap_or(path).split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy())
    }

    /// The names and values of the query, decoded as a browser encodes a form (`a=1&b=x+y`); U+FFFD replaces what is
    /// not UTF-8. Empty without a query.
    ///
    /// ```
    /// # use forkpool::Request;
    /// let mut builder = Request::builder("GET", "/search?q=caf%C3%A9+noir&page=2");
    /// let request = builder.build();
    /// let page = request.query_pairs().find(|(name, _)| name == "page").map(|(_, value)| value.parse());
    /// assert_eq!(page, Some(Ok(2)));
    /// assert_eq!(request.query_value("q").as_deref(), Some("café noir"));
    /// ```
    pub fn query_pairs(&self) -> Pairs<'a> {
        Pairs(form_urlencoded::parse(self.query().unwrap_or_default().as_bytes()))
    }

    /// The first value of the query with this name, decoded; see [`query_pairs`](Request::query_pairs).
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The names and values of a form in the body, in the same way. Empty unless the Content-Type is
    /// `application/x-www-form-urlencoded`.
    ///
    /// ```
    /// # use forkpool::Request;
    /// let form = Request::builder("POST", "/").header("Content-Type", "application/x-www-form-urlencoded");
    /// let mut form = form.body("text=buy+milk&done");
    /// let pairs: Vec<_> = form.build().form_pairs().collect();
    /// assert_eq!(pairs, [("text".into(), "buy milk".into()), ("done".into(), "".into())]);
    /// ```
    pub fn form_pairs(&self) -> Pairs<'a> {
        let media_type = self.header("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default();
        let is_form = media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded");
        Pairs(form_urlencoded::parse(if is_form { self.body() } else { b"" }))
    }
}

/// Decoded names and values of a query or a form, in the order sent. Returned by [`Request::query_pairs`] and
/// [`Request::form_pairs`].
#[derive(Clone)]
pub struct Pairs<'a>(form_urlencoded::Parse<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl fmt::Debug for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_formed_is_kept_or_replaced() {
        let mut builder = Request::builder("GET", "/a%zz/%ff/?a=%ff&&b=%zz&=c&d");
        let request = builder.build();
        assert_eq!(request.decoded_path(), "/a%zz/\u{fffd}/");
        assert_eq!(request.segments().collect::<Vec<_>>(), ["a%zz", "\u{fffd}", ""]);
        let pairs: Vec<_> = request.query_pairs().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["a=\u{fffd}", "b=%zz", "=c", "d="]);
        assert_eq!(request.query_value("x"), None);
        assert_eq!(Request::builder("POST", "/").body("a=b").build().form_pairs().count(), 0);
    }
}
