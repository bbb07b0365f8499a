//! Responses, and their kinds of body.

#[cfg(feature = "http")]
mod convert;
pub(crate) mod deferred;
pub(crate) mod file;
pub(crate) mod guard;
pub(crate) mod inspect;
pub(crate) mod into_response;
pub(crate) mod notice;
pub(crate) mod reader;
pub(crate) mod receive;
pub(crate) mod responder;
pub(crate) mod response;
pub(crate) mod stream;
pub(crate) mod upgrade;
