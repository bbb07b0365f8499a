//! PURE. The format of the access log: a known one, or a template with variables, which have the names that nginx uses.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The format of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFormat {
    /// The common log format of NCSA httpd: `remote - - [time] "request line" status bytes`.
    Common,
    /// [`Common`](AccessLogFormat::Common), followed by the fields Referer and User-Agent.
    Combined,
    /// [`Combined`](AccessLogFormat::Combined), preceded by the requested host and followed by the duration in
    /// microseconds.
    Vhost,
    /// A JSON object (RFC 8259) on each line.
    Json,
    /// A format of your own, such as `$remote_addr "$request" $status $duration_us`. A variable may be in braces:
    /// `${status}`.
    ///
    /// | variable | what it is |
    /// |---|---|
    /// | `$remote_addr` | the address of the client: [`Request::client`](crate::Request::client), or 0.0.0.0 if it has none |
    /// | `$peer_addr` | the address of the peer of the connection: [`Request::peer`](crate::Request::peer) |
    /// | `$remote_user` | always `-`, for compatibility with other servers |
    /// | `$time_local`, `$time_iso8601`, `$msec` | when the response was complete: `21/Nov/2026:09:44:05 +0000`, `2026-11-21T09:44:05+00:00`, seconds since 1970 |
    /// | `$request` | the request line |
    /// | `$request_method`, `$request_uri`, `$server_protocol` | its parts |
    /// | `$scheme`, `$host` | from the client's request: [`Request::scheme`](crate::Request::scheme), [`Request::host`](crate::Request::host) |
    /// | `$http_NAME` | the first header field of this name, with `_` for `-`: `$http_user_agent` |
    /// | `$status`, `$body_bytes_sent` | the status of the response, and the bytes of its body that were sent |
    /// | `$request_time`, `$duration_us` | the duration: in seconds with milliseconds, in microseconds |
    /// | `$worker`, `$pid` | the worker and its process id |
    Template(String),
}

impl AccessLogFormat {
    pub(super) const NAMES: [(&'static str, AccessLogFormat); 4] = [
        ("common", AccessLogFormat::Common),
        ("combined", AccessLogFormat::Combined),
        ("vhost", AccessLogFormat::Vhost),
        ("json", AccessLogFormat::Json),
    ];

    pub(super) fn parse(text: &str) -> std::result::Result<AccessLogFormat, String> {
        if let Some((_, format)) = AccessLogFormat::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(format.clone());
        }
        if !text.contains('$') {
            return Err("must be common, combined, vhost, json, or a line with variables as in $remote_addr".to_owned());
        }
        Ok(AccessLogFormat::Template(text.to_owned()))
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        match self {
            AccessLogFormat::Template(text) => Template::parse(text).map(drop),
            _ => Ok(()),
        }
    }

    /// The template of this format; `None` for JSON.
    pub(crate) fn template(&self) -> Option<Template> {
        const COMMON: &str = "$remote_addr - - [$time_local] \"$request\" $status $body_bytes_sent";
        let text = match self {
            AccessLogFormat::Json => return None,
            AccessLogFormat::Common => COMMON.to_owned(),
            AccessLogFormat::Combined => format!("{COMMON} \"$http_referer\" \"$http_user_agent\""),
            AccessLogFormat::Vhost => {
                format!("$host {COMMON} \"$http_referer\" \"$http_user_agent\" $duration_us")
            }
            AccessLogFormat::Template(text) => text.clone(),
        };
        // The text was checked before.
        Template::parse(&text).ok()
    }
}

/// Parses a value of the setting `access-log-format`.
impl FromStr for AccessLogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<AccessLogFormat> {
        let format = AccessLogFormat::parse(text).and_then(|format| format.check().map(|()| format));
        format.map_err(|problem| Error::config("access-log-format", problem))
    }
}

/// Formats a value of the setting `access-log-format`.
impl fmt::Display for AccessLogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogFormat::Template(text) => f.pad(text),
            known => {
                let name = AccessLogFormat::NAMES.iter().find(|(_, format)| format == known);
                f.pad(name.map_or("", |(name, _)| name))
            }
        }
    }
}

/// The parts of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) parts: Vec<Part>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Variable(Variable),
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    Client,
    Peer,
    User,
    TimeLocal,
    TimeIso,
    /// The same with milliseconds; has no name.
    TimeMillis,
    Millis,
    Request,
    Method,
    Target,
    Version,
    Scheme,
    Host,
    /// The value of a header field.
    Field(String),
    Status,
    Bytes,
    Seconds,
    Micros,
    /// In seconds with microseconds; has no name.
    Exact,
    Worker,
    Process,
}

/// The maximum number of variables, and of bytes of text between them. Every line then has room for the values.
const VARIABLES_MAX: usize = 24;
const TEXT_MAX: usize = 512;

const FIELD_PREFIX: &str = "http_";

const VARIABLES: [(&str, Variable); 18] = [
    ("remote_addr", Variable::Client),
    ("peer_addr", Variable::Peer),
    ("remote_user", Variable::User),
    ("time_local", Variable::TimeLocal),
    ("time_iso8601", Variable::TimeIso),
    ("msec", Variable::Millis),
    ("request", Variable::Request),
    ("request_method", Variable::Method),
    ("request_uri", Variable::Target),
    ("server_protocol", Variable::Version),
    ("scheme", Variable::Scheme),
    ("host", Variable::Host),
    ("status", Variable::Status),
    ("body_bytes_sent", Variable::Bytes),
    ("request_time", Variable::Seconds),
    ("duration_us", Variable::Micros),
    ("worker", Variable::Worker),
    ("pid", Variable::Process),
];

impl Template {
    pub(crate) fn parse(text: &str) -> std::result::Result<Template, String> {
        if let Some(wrong) = text.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(format!("must be one line of text, without {}", wrong.escape_default()));
        }
        let mut pieces = text.split('$');
        let mut parts: Vec<Part> = pieces.next().filter(|text| !text.is_empty()).map(text_part).into_iter().collect();
        let mut count = 0;
        for piece in pieces {
            let (name, behind) = name(piece)?;
            parts.push(Part::Variable(variable(name)?));
            parts.extend((!behind.is_empty()).then(|| text_part(behind)));
            count += 1;
        }
        if count > VARIABLES_MAX || text.len() > TEXT_MAX + count * 32 {
            return Err(format!("must have at most {VARIABLES_MAX} variables and {TEXT_MAX} bytes of text"));
        }
        Ok(Template { parts })
    }
}

fn text_part(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// Splits off the name at the beginning, which may be in braces.
fn name(piece: &str) -> std::result::Result<(&str, &str), String> {
    if let Some(braced) = piece.strip_prefix('{') {
        return braced.split_once('}').ok_or_else(|| format!("must close the brace of ${{{braced}"));
    }
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    Ok(piece.split_at(piece.find(|c| !is_in_name(c)).unwrap_or(piece.len())))
}

fn variable(name: &str) -> std::result::Result<Variable, String> {
    if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
        return Ok(variable.clone());
    }
    match name.strip_prefix(FIELD_PREFIX) {
        Some(field) if !field.is_empty() => Ok(Variable::Field(field.replace('_', "-"))),
        _ => {
            let names: Vec<String> = VARIABLES.iter().map(|(name, _)| format!("${name}")).collect();
            Err(format!(
                "has an unknown variable ${name}; known are {}, and $http_NAME for header fields",
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_variables() {
        let text = |text: &str| Part::Text(text.to_owned());
        for (template, parts) in [
            ("$status", vec![Part::Variable(Variable::Status)]),
            ("a $status", vec![text("a "), Part::Variable(Variable::Status)]),
            (
                "${status}ms\t$pid",
                vec![Part::Variable(Variable::Status), text("ms\t"), Part::Variable(Variable::Process)],
            ),
            ("$status$worker.", vec![Part::Variable(Variable::Status), Part::Variable(Variable::Worker), text(".")]),
            (
                "\"$http_x_request_id\"",
                vec![text("\""), Part::Variable(Variable::Field("x-request-id".to_owned())), text("\"")],
            ),
        ] {
            assert_eq!(Template::parse(template), Ok(Template { parts }), "{template}");
        }
        for format in AccessLogFormat::NAMES.map(|(_, format)| format) {
            assert_eq!(format.template().is_none(), format == AccessLogFormat::Json, "{format:?}");
        }
    }

    #[test]
    fn a_format_is_read_as_it_is_written() {
        for text in ["common", "combined", "vhost", "json", "$status \"$request\""] {
            assert_eq!(text.parse::<AccessLogFormat>().expect(text).to_string(), text);
        }
        let long = "x".repeat(TEXT_MAX + 33) + "$pid";
        let many = "$pid ".repeat(VARIABLES_MAX + 1);
        for (text, problem) in [
            ("", "access-log-format: must be common, combined, vhost, json, or a line with variables"),
            ("plain", "must be common"),
            ("$", "has an unknown variable $; known are $remote_addr, "),
            ("$nothing", "has an unknown variable $nothing; known are $remote_addr, "),
            ("$http_", "has an unknown variable $http_;"),
            ("${status", "must close the brace of ${status"),
            ("$status\n", "must be one line of text, without \\n"),
            ("\x1b$status", "without \\u{1b}"),
            (&long, "at most 24 variables and 512 bytes"),
            (&many, "at most 24 variables"),
        ] {
            let found = text.parse::<AccessLogFormat>().expect_err(text).to_string();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
