//! PURE. The file name to which a request's path leads below the root.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use percent_encoding::{percent_decode_str, percent_encode, AsciiSet, NON_ALPHANUMERIC};

/// A request's path as a path below the root: decoded, relative, and without `.` and `..` segments. Empty segments are
/// ignored, as in nginx and lighttpd, since composed URLs often have an extra slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// Empty for the root itself; else segments separated by single slashes.
    path: Cow<'a, [u8]>,
    is_directory: bool,
}

/// Not a path, or one that clients resolve before they send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Name<'a> {
    /// Parses the path of a request's target, as sent.
    ///
    /// # Errors
    ///
    /// For an incomplete percent-encoding; for an encoded slash or NUL, which no file name contains; for a `.` or `..`
    /// segment (RFC 3986 section 5.2.4 makes the client remove them, and a proxy that has not removed them may have
    /// been deceived); and for a path that does not begin with a slash.
    pub(super) fn read(path: &'a str) -> Result<Name<'a>, Malformed> {
        let path = path.strip_prefix('/').ok_or(Malformed)?;
        if path.is_empty() {
            return Ok(Name { path: Cow::Borrowed(b""), is_directory: true });
        }
        let is_directory = path.ends_with('/');
        let mut path = decode(path.strip_suffix('/').unwrap_or(path)).ok_or(Malformed)?;
        let mut has_empty = false;
        for segment in path.split(|byte| *byte == b'/') {
            match segment {
                b"" => has_empty = true,
                b"." | b".." => return Err(Malformed),
                _ => {}
            }
        }
        if has_empty {
            let segments = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
            path = Cow::Owned(segments.collect::<Vec<_>>().join(&b'/'));
        }
        Ok(Name { is_directory: is_directory || path.is_empty(), path })
    }

    /// The path relative to the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether it ended with a slash.
    pub(super) fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Whether a segment begins with a dot, except `/.well-known/`, which is meant for requests (RFC 8615).
    pub(super) fn is_hidden(&self) -> bool {
        let mut segments = self.path.split(|byte| *byte == b'/').enumerate();
        segments.any(|(place, segment)| segment.starts_with(b".") && (place, segment) != (0, b".well-known"))
    }

    /// Whether its last segment has a dot, as the names of files do, unlike those of an application's pages.
    pub(super) fn has_dot(&self) -> bool {
        !self.is_directory && self.path.rsplit(|byte| *byte == b'/').next().is_some_and(|last| last.contains(&b'.'))
    }

    /// The path of a file in the directory that this names.
    pub(super) fn join(&self, file: &[u8]) -> Vec<u8> {
        match &*self.path {
            b"" => file.to_vec(),
            path => [path, b"/", file].concat(),
        }
    }

    /// The relative reference from its URL, which has no final slash, to the same with one. Works whatever prefix a
    /// proxy has added, and names no host.
    pub(super) fn slash(&self) -> String {
        let last = self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        encode(last) + "/"
    }

    /// The same path, with the slash at the beginning of a request's path.
    pub(super) fn rooted(&self) -> Vec<u8> {
        let end: &[u8] = if self.is_directory && !self.path.is_empty() { b"/" } else { b"" };
        [b"/", &*self.path, end].concat()
    }

    /// As text for people.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
pub(super) fn encode(segment: &[u8]) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encode(segment, RESERVED).to_string()
}

/// Percent-decodes text that is well-formed (the crate leaves the rest as it is) and contains no slash or NUL.
fn decode(text: &str) -> Option<Cow<'_, [u8]>> {
    let is_good = |rest: &str| {
        let code = rest.get(..2).filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        code.is_some_and(|code| !matches!(code, "00" | "2f" | "2F"))
    };
    let is_all_good = text.split('%').skip(1).all(is_good) && !text.contains('\0');
    is_all_good.then(|| percent_decode_str(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_files_below_the_root() {
        for (path, expected) in [
            ("/", Ok(("", true))),
            ("/a", Ok(("a", false))),
            ("/a/", Ok(("a", true))),
            ("/a/b.c", Ok(("a/b.c", false))),
            ("/a%20b", Ok(("a b", false))),
            ("/%61%2E%2e%2ex", Ok(("a...x", false))),
            ("/%25%32%66", Ok(("%2f", false))),
            ("/...", Ok(("...", false))),
            ("/a%5c..%5cb", Ok(("a\\..\\b", false))),
            ("/%C3%A9", Ok(("\u{e9}", false))),
            ("/*", Ok(("*", false))),
            ("", Err(Malformed)),
            ("*", Err(Malformed)),
            ("a", Err(Malformed)),
            ("/.", Err(Malformed)),
            ("/./", Err(Malformed)),
            ("/..", Err(Malformed)),
            ("/../a", Err(Malformed)),
            ("/a/../b", Err(Malformed)),
            ("/a/..", Err(Malformed)),
            ("/%2e", Err(Malformed)),
            ("/%2E%2e/a", Err(Malformed)),
            ("/.%2e/a", Err(Malformed)),
            ("/a%2fb", Err(Malformed)),
            ("/..%2Fa", Err(Malformed)),
            ("/a%00", Err(Malformed)),
            ("/%", Err(Malformed)),
            ("/%4", Err(Malformed)),
            ("/a%zz", Err(Malformed)),
            ("/%%41", Err(Malformed)),
            ("/%+1", Err(Malformed)),
            ("//", Ok(("", true))),
            ("///", Ok(("", true))),
            ("//a", Ok(("a", false))),
            ("/a//b", Ok(("a/b", false))),
            ("/a///", Ok(("a", true))),
            ("//..//a", Err(Malformed)),
        ] {
            let found = Name::read(path);
            let found = found.as_ref().map(|name| (name.shown(), name.is_directory())).map_err(|error| *error);
            assert_eq!(found, expected.map(|(path, is_directory)| (path.into(), is_directory)), "{path}");
        }
    }

    #[test]
    fn names_begin_with_dots_and_have_some() {
        for (path, is_hidden, has_dot) in [
            ("/", false, false),
            ("/a", false, false),
            ("/a.b", false, true),
            ("/a.b/", false, false),
            ("/a.b/c", false, false),
            ("/.a", true, true),
            ("/%2ea/b", true, false),
            ("/a/.b/c", true, false),
            ("/.well-known/a", false, false),
            ("/.well-known/.a", true, true),
            ("/a/.well-known/b", true, false),
            ("/.well-known2", true, true),
        ] {
            let name = Name::read(path).expect(path);
            assert_eq!((name.is_hidden(), name.has_dot()), (is_hidden, has_dot), "{path}");
        }
    }

    /// Random paths of the relevant bytes. Each accepted path stays below the root, and is found again when encoded.
    #[test]
    fn what_is_accepted_stays_below_the_root() {
        const PIECES: [&str; 16] =
            ["/", "/", "/", ".", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%", "a", "%41", "%ff", "\\"];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut accepted = 0;
        for _ in 0..20_000 {
            let path: String = (0..1 + random() % 8).map(|_| PIECES[(random() % 16) as usize]).collect();
            let Ok(name) = Name::read(&path) else { continue };
            accepted += 1;
            assert!(!name.path().contains(&0), "{path}");
            let is_plain = |segment: &[u8]| !segment.is_empty() && segment != b"." && segment != b"..";
            let mut segments = name.path().split(|byte| *byte == b'/');
            assert!(name.path().is_empty() || segments.all(is_plain), "{path}");
            let encoded: Vec<String> = name.path().split(|byte| *byte == b'/').map(encode).collect();
            let again = format!("/{}", encoded.join("/"));
            assert_eq!(Name::read(&again).map(|again| again.path().to_vec()), Ok(name.path().to_vec()), "{path}");
            assert!(!name.slash().trim_end_matches('/').contains(['/', ':', '?', '#', '\\']), "{path}");
        }
        assert!(accepted > 1000, "{accepted}");
    }
}
