//! What a handler may return.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use log::error;

use crate::error::report;
use crate::server::answer::response::Response;

/// What a handler may return: a [`Response`], text, bytes, a status, a status with one of these, or a [`Result`] of two
/// of these.
///
/// | value | response |
/// |---|---|
/// | `&'static str`, `String` | 200, plain text in UTF-8 |
/// | `Vec<u8>`, `&'static [u8]` | 200, `application/octet-stream` |
/// | `u16` | this status, without a body |
/// | `(u16, T)` | as `T`, with this status |
/// | `Result<T, E>` | as `T` or as `E` |
/// | `Box<dyn Error>`, [`io::Error`] | 500; the log gets the error with its sources, the client does not |
///
/// So a handler can use `?`, with any error that converts to `Box<dyn Error>`, or with a type of your own that
/// implements this trait:
///
/// ```
/// use std::error::Error;
///
/// use forkpool::{IntoResponse, Request, Response};
///
/// enum Failure {
///     NotFound,
///     Other(Box<dyn Error>),
/// }
///
/// impl<E: Into<Box<dyn Error>>> From<E> for Failure {
///     fn from(error: E) -> Failure {
///         Failure::Other(error.into())
///     }
/// }
///
/// impl IntoResponse for Failure {
///     fn into_response(self) -> Response {
///         match self {
///             Failure::NotFound => Response::text("no such page\n").status(404),
///             Failure::Other(error) => error.into_response(),
///         }
///     }
/// }
///
/// fn answer(request: &Request<'_>) -> Result<String, Failure> {
///     let number: u32 = request.path().strip_prefix("/double/").ok_or(Failure::NotFound)?.parse()?;
///     Ok(format!("{}\n", number * 2))
/// }
///
/// assert_eq!(answer(&Request::builder("GET", "/double/21").build()).into_response().body_bytes(), Some(&b"42\n"[..]));
/// assert_eq!(answer(&Request::builder("GET", "/double/x").build()).into_response().status_code(), 500);
/// assert_eq!(answer(&Request::builder("GET", "/").build()).into_response().status_code(), 404);
/// ```
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    // It costs the hot path nothing.
    #[inline(always)]
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::bytes(BYTES, self)
    }
}

impl IntoResponse for &'static [u8] {
    fn into_response(self) -> Response {
        Response::bytes(BYTES, self)
    }
}

/// The type of bytes of which nothing is known (RFC 2046 section 4.5.1).
const BYTES: &str = "application/octet-stream";

impl IntoResponse for u16 {
    /// # Panics
    ///
    /// Unless the status is between 200 and 599.
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl<T: IntoResponse> IntoResponse for (u16, T) {
    /// # Panics
    ///
    /// Unless the status is between 200 and 599.
    fn into_response(self) -> Response {
        self.1.into_response().status(self.0)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    #[inline]
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for Box<dyn Error> {
    fn into_response(self) -> Response {
        failed(&*self)
    }
}

impl IntoResponse for Box<dyn Error + Send + Sync> {
    fn into_response(self) -> Response {
        failed(&*self)
    }
}

impl IntoResponse for io::Error {
    fn into_response(self) -> Response {
        failed(&self)
    }
}

/// Logs an error of a handler, which may tell too much for a client, and makes its response.
#[cold]
pub(crate) fn failed(error: &(dyn Error + 'static)) -> Response {
    error!("a handler failed: {}", report(error));
    Response::text("the server failed to answer this request\n").status(500)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(value: impl IntoResponse) -> (u16, Option<String>, String) {
        let response = value.into_response();
        let body = response.body_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (response.status_code(), response.header_value("content-type").map(str::to_owned), body.unwrap_or_default())
    }

    #[test]
    fn values_become_responses() {
        let text = Some("text/plain; charset=utf-8".to_owned());
        assert_eq!(seen("a"), (200, text.clone(), "a".to_owned()));
        assert_eq!(seen("b".to_owned()), (200, text.clone(), "b".to_owned()));
        assert_eq!(seen(vec![b'c']), (200, Some(BYTES.to_owned()), "c".to_owned()));
        assert_eq!(seen(204), (204, None, String::new()));
        assert_eq!(seen((201, "d")), (201, text.clone(), "d".to_owned()));
        assert_eq!(seen(Ok::<_, Response>((202, "e"))), (202, text, "e".to_owned()));
        assert_eq!(seen(Err::<Response, _>(404)), (404, None, String::new()));
    }

    #[test]
    fn clients_do_not_see_errors() {
        let failing = || -> Result<&'static str, Box<dyn Error>> { Err("the password is hunter2")? };
        let (status, _, body) = seen(failing());
        assert_eq!((status, body.as_str()), (500, "the server failed to answer this request\n"));
    }
}
