//! Responses, and their kinds of body.

pub(crate) mod deferred;
pub(crate) mod file;
pub(crate) mod guard;
pub(crate) mod notice;
pub(crate) mod receive;
pub(crate) mod responder;
pub(crate) mod response;
pub(crate) mod stream;
pub(crate) mod upgrade;
