//! PURE. Which files of a directory are served, and with which header fields and media types.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use super::choices::Symlinks;
use super::pattern::is_like;
use super::values::is_visible;

/// How the files of a directory are served.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) symlinks: Symlinks,
    pub(crate) dotfiles: bool,
    pub(crate) precompressed: bool,
    pub(crate) listing: bool,
    /// Serve `/index.html` for every page of an application that runs in the browser.
    pub(crate) spa: bool,
    pub(crate) cache_control: Option<String>,
    /// Header fields and media types. Later rules override earlier ones.
    pub(crate) headers: Vec<HeaderRule>,
    pub(crate) types: Vec<TypeRule>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            symlinks: Symlinks::Inside,
            dotfiles: false,
            precompressed: true,
            listing: false,
            spa: false,
            cache_control: None,
            headers: Vec::new(),
            types: Vec::new(),
        }
    }
}

/// A header field for the responses of some paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderRule {
    /// `None` for all paths.
    pattern: Option<String>,
    pub(crate) name: String,
    /// If empty, the field is not sent.
    pub(crate) value: String,
}

/// Reads `[/PATTERN] NAME: VALUE`.
impl FromStr for HeaderRule {
    type Err = String;

    fn from_str(text: &str) -> Result<HeaderRule, String> {
        let problem = || "must be [/PATTERN] NAME: VALUE, as in /assets/* Cache-Control: max-age=3600".to_owned();
        let (pattern, field) = match text.starts_with('/') {
            true => text.split_once(' ').map(|(pattern, field)| (Some(pattern), field)).ok_or_else(problem)?,
            false => (None, text),
        };
        let (name, value) = field.split_once(':').ok_or_else(problem)?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.bytes().all(is_in_token) {
            return Err(problem());
        }
        if !is_visible(value) {
            return Err(format!("the value of {name} must be visible ASCII"));
        }
        if let Some(own) = RESERVED.iter().find(|own| name.eq_ignore_ascii_case(own)) {
            return Err(format!("the server sets {own} itself"));
        }
        if name.eq_ignore_ascii_case("content-type") {
            return Err("media types are set by type, as in js=text/javascript".to_owned());
        }
        let pattern = pattern.map(str::to_owned);
        Ok(HeaderRule { pattern, name: name.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for HeaderRule {
    /// Formats the rule so that it can be parsed again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pattern) = &self.pattern {
            write!(f, "{pattern} ")?;
        }
        write!(f, "{}: {}", self.name, self.value)
    }
}

impl HeaderRule {
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether the rule applies to a path, which is decoded and begins with a slash.
    pub(crate) fn applies(&self, path: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| is_like(pattern.as_bytes(), path, None))
    }
}

/// The media type of files, by the extension of their names, or by the whole name of files without an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeRule {
    pub(crate) extension: String,
    pub(crate) media_type: String,
}

/// Reads `EXTENSION=TYPE`.
impl FromStr for TypeRule {
    type Err = String;

    fn from_str(text: &str) -> Result<TypeRule, String> {
        let problem = || "must be EXTENSION=TYPE, as in md=text/markdown; charset=utf-8".to_owned();
        let (extension, media_type) = text.split_once('=').ok_or_else(problem)?;
        let (extension, media_type) = (extension.trim(), media_type.trim());
        let extension = extension.strip_prefix('.').unwrap_or(extension);
        let essence = media_type.split(';').next().unwrap_or_default().trim_end();
        let is_type = essence
            .split_once('/')
            .is_some_and(|(kind, own)| [kind, own].iter().all(|it| !it.is_empty() && it.bytes().all(is_in_token)));
        let is_extension = !extension.is_empty() && !extension.contains(['.', '/']);
        match is_extension && is_type && is_visible(media_type) {
            true => Ok(TypeRule { extension: extension.to_owned(), media_type: media_type.to_owned() }),
            false => Err(problem()),
        }
    }
}

impl fmt::Display for TypeRule {
    /// Formats the rule so that it can be parsed again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.extension, self.media_type)
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
fn is_in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that frame a message or describe the file.
const RESERVED: [&str; 15] = [
    "Accept-Ranges",
    "Allow",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Date",
    "ETag",
    "Keep-Alive",
    "Last-Modified",
    "Location",
    "Proxy-Connection",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_paths() {
        for (pattern, path, is_meant) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/assets/*", "/assets/a/b.js", true),
            ("/assets/*", "/assets", false),
            ("/*.js", "/a/b.js", true),
            ("/*.js", "/a.js.map", false),
            ("/*.js", "/a.js/b.js", true),
            ("/a*b*c", "/a-b-b-c", true),
            ("/a*b*c", "/a-c-b", false),
            ("/index.html", "/index.html", true),
            ("/index.html", "/x/index.html", false),
            ("/**", "/a", true),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), path.as_bytes(), None), is_meant, "{pattern} {path}");
        }
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["X-A: b", "/assets/* Cache-Control: max-age=1, immutable", "/* X-A: "] {
            assert_eq!(text.parse::<HeaderRule>().expect(text).to_string(), text);
        }
        assert_eq!("/a  X-A :b ".parse::<HeaderRule>().expect("valid").to_string(), "/a X-A: b");
        for text in
            ["", "X-A", "/a", "/a X-A", ": b", "a b: c", "X-A: \u{e9}", "X-A: a\u{1}", "Date: x", "content-type: x"]
        {
            assert!(text.parse::<HeaderRule>().is_err(), "{text}");
        }
        for text in ["html=text/html; charset=utf-8", "README=text/plain"] {
            assert_eq!(text.parse::<TypeRule>().expect(text).to_string(), text);
        }
        assert_eq!(".A = b/c".parse::<TypeRule>().expect("valid").to_string(), "A=b/c");
        for text in ["", "a", "a=", "a=b", "=b/c", "a=/c", "a=b/", "tar.gz=b/c", "a=b/c;\u{7}", "a=b c/d"] {
            assert!(text.parse::<TypeRule>().is_err(), "{text}");
        }
    }
}
