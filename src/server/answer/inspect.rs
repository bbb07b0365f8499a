//! What a response says, for tests of handlers and for code that wraps one.

use crate::server::answer::response::{Body, Response};

impl Response {
    /// The status, 200 to 599. [`status`](Response::status) sets it.
    ///
    /// A response that is made later ([`deferred`](Response::deferred), [`receive`](Response::receive)) has 200 until
    /// then, and one of [`upgrade`](Response::upgrade) 426, since only the server knows whether it will be 101.
    pub fn status_code(&self) -> u16 {
        self.head.status
    }

    /// The value of the first header field with this name; case does not matter. Only what the application has set:
    /// the server adds Date, Content-Length and Connection when it sends the response.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The header fields that the application has set, as names and values: Content-Type first, then in the order in
    /// which they were added.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let content_type = self.head.content_type.as_deref().map(|content_type| ("Content-Type", content_type));
        content_type.into_iter().chain(self.head.fields())
    }

    /// The body, if it is in memory: `None` for a file, a stream, and a response that is made later or takes over the
    /// connection.
    pub fn body_bytes(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::Shared(bytes) => Some(bytes),
            Body::File(_) | Body::Stream(_) | Body::Deferred(_) | Body::Upgrade(_) | Body::Receive(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_what_was_set() {
        let response =
            Response::html("<p>gone").status(410).header("Cache-Control", " no-store ").header("X-A", "b: c");
        assert_eq!(response.status_code(), 410);
        let fields: Vec<_> = response.headers().collect();
        let content_type = ("Content-Type", "text/html; charset=utf-8");
        assert_eq!(fields, [content_type, ("Cache-Control", "no-store"), ("X-A", "b: c")]);
        assert_eq!((response.header_value("x-a"), response.header_value("Date")), (Some("b: c"), None));
        assert_eq!(response.body_bytes(), Some(&b"<p>gone"[..]));
        assert_eq!(Response::shared("a/b", [1, 2].into()).body_bytes(), Some(&[1, 2][..]));
        let (_responder, deferred) = Response::deferred();
        assert_eq!((deferred.status_code(), deferred.body_bytes()), (200, None));
    }
}
