//! Messages, requests and responses that are values of the application's types, as JSON (feature `serde`).

use std::error::Error as StdError;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::Serialize;

use crate::parent::handle::{Handle, Target};
use crate::server::answer::into_response::{failed, IntoResponse};
use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::shared::message::MessageError;
use crate::worker::{Sender, Worker};

/// Encodes a value as a message, for example for [`Handle::broadcast`] or [`Worker::send_with`].
///
/// Messages are JSON (RFC 8259), which programs in other languages, logs and people can read.
///
/// # Errors
///
/// If the type cannot be represented in JSON, such as a map whose keys are not strings.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TypedError> {
    serde_json::to_vec(value).map_err(|error| TypedError::Encode(error.into()))
}

/// Decodes a message; the reverse of [`encode`].
///
/// ```
/// # fn main() -> Result<(), forkpool::TypedError> {
/// let (done, total): (u32, u32) = forkpool::decode(&forkpool::encode(&(3, 10))?)?;
/// assert_eq!((done, total), (3, 10));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`TypedError::Decode`] if the message is no value of that type. There are no other errors.
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, TypedError> {
    serde_json::from_slice(message).map_err(|error| TypedError::Decode(error.into()))
}

impl Response {
    /// Makes a 200 response with a value as JSON (RFC 8259). A value that cannot be represented in JSON, such as a map
    /// whose keys are not strings, is logged and becomes a 500.
    ///
    /// Serialised JSON is sent by [`json_text`](Response::json_text).
    ///
    /// ```
    /// # use forkpool::Response;
    /// let response = Response::json(&[("answer", 42)]);
    /// assert_eq!(response.body_bytes(), Some(&br#"[["answer",42]]"#[..]));
    /// ```
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Response {
        match serde_json::to_string(value) {
            Ok(text) => Response::json_text(text),
            Err(error) => failed(&error),
        }
    }
}

impl Request<'_> {
    /// Reads the body as a value in JSON, whatever its Content-Type.
    ///
    /// ```
    /// # use forkpool::{Request, Response, TypedError};
    /// fn double(request: &Request<'_>) -> Result<Response, TypedError> {
    ///     let number: u32 = request.json()?;
    ///     Ok(Response::json(&(number * 2)))
    /// }
    ///
    /// # use forkpool::IntoResponse;
    /// let answer = |body| double(&Request::builder("POST", "/").body(body).build()).into_response();
    /// assert_eq!(answer("21").body_bytes(), Some(&b"42"[..]));
    /// assert_eq!(answer("x").status_code(), 400);
    /// ```
    ///
    /// # Errors
    ///
    /// [`TypedError::Decode`] if the body is not a value of that type, which as a response is a 400.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, TypedError> {
        decode(self.body())
    }
}

/// What the client has sent is its own mistake (400); other errors are logged and become a 500.
impl IntoResponse for TypedError {
    fn into_response(self) -> Response {
        match self {
            TypedError::Decode(error) => {
                Response::text(format!("the body is not what is expected: {error}\n")).status(400)
            }
            error => failed(&error),
        }
    }
}

/// What went wrong with a typed message or body.
#[derive(Debug)]
#[non_exhaustive]
pub enum TypedError {
    /// The value cannot be represented in JSON.
    Encode(Box<dyn StdError + Send + Sync>),
    /// The message is not a value of that type.
    Decode(Box<dyn StdError + Send + Sync>),
    /// The message could not be sent.
    Send(MessageError),
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypedError::Encode(_) => f.write_str("cannot encode the value as JSON"),
            TypedError::Decode(_) => f.write_str("the JSON is not a value of the expected type"),
            TypedError::Send(error) => error.fmt(f),
        }
    }
}

impl StdError for TypedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            TypedError::Encode(error) | TypedError::Decode(error) => Some(&**error),
            TypedError::Send(error) => error.source(),
        }
    }
}

impl From<MessageError> for TypedError {
    fn from(error: MessageError) -> TypedError {
        TypedError::Send(error)
    }
}

impl Worker {
    /// As [`send`](Worker::send), for a value. The parent decodes it by [`decode`].
    ///
    /// # Errors
    ///
    /// [`TypedError::Encode`], and those of [`send`](Worker::send).
    pub fn send_typed<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), TypedError> {
        Ok(self.send(&encode(value)?)?)
    }
}

impl Sender {
    /// As [`Worker::send_typed`].
    ///
    /// # Errors
    ///
    /// As [`Worker::send_typed`].
    pub fn send_typed<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), TypedError> {
        Ok(self.send(&encode(value)?)?)
    }
}

impl Handle<'_> {
    /// As [`send`](Handle::send), for a value. The worker decodes it by [`decode`].
    ///
    /// # Errors
    ///
    /// [`TypedError::Encode`], and those of [`send`](Handle::send).
    pub fn send_typed<T: Serialize + ?Sized>(&self, target: impl Into<Target>, value: &T) -> Result<(), TypedError> {
        Ok(self.send(target, &encode(value)?)?)
    }
}
