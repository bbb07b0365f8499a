//! PURE. Patterns of paths: `*` matches any part of a name, `?` one byte of it, and `**` any directories.
#![forbid(unsafe_code)]

/// A pattern, split before the name with its first wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The part without wildcards: one file, or a directory above all matches.
    pub(crate) base: String,
    /// The names below it; if empty, everything below it matches.
    names: Vec<String>,
}

/// Names that only match if the pattern spells them: caches that programs write when they start, and code of others.
const IGNORED: [&[u8]; 2] = [b"node_modules", b"__pycache__"];

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        let has_wildcard = |name: &&str| name.contains(['*', '?']);
        let names: Vec<&str> = text.split('/').collect();
        let at = names.iter().position(has_wildcard).unwrap_or(names.len());
        let base = match names[..at].join("/") {
            base if base.is_empty() && at > 0 => "/".to_owned(),
            base if base.is_empty() => ".".to_owned(),
            base => base,
        };
        Pattern { base, names: names[at..].iter().filter(|name| !name.is_empty()).map(|it| (*it).to_owned()).collect() }
    }

    /// Whether a file matches, given the names that lead to it from the base.
    pub(crate) fn means(&self, path: &[&[u8]]) -> bool {
        match self.names.as_slice() {
            [] => path.iter().all(|name| is_plain(name)),
            names => matches(names, path),
        }
    }

    /// Whether a file below this directory could match.
    pub(crate) fn may_mean_below(&self, directory: &[&[u8]]) -> bool {
        match self.names.as_slice() {
            [] => directory.iter().all(|name| is_plain(name)),
            names => leads(names, directory),
        }
    }
}

fn matches(names: &[String], path: &[&[u8]]) -> bool {
    match (names.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((name, others)), _) if name == "**" => {
            matches(others, path)
                || path.split_first().is_some_and(|(first, rest)| is_plain(first) && matches(names, rest))
        }
        (Some((name, others)), Some((first, rest))) => is_name(name, first) && matches(others, rest),
        _ => false,
    }
}

/// Whether something below a directory could match.
fn leads(names: &[String], directory: &[&[u8]]) -> bool {
    match (names.split_first(), directory.split_first()) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((name, others)), Some((first, rest))) if name == "**" => {
            leads(others, directory) || (is_plain(first) && leads(names, rest))
        }
        (Some((name, others)), Some((first, rest))) => is_name(name, first) && leads(others, rest),
    }
}

/// Whether a name is an ordinary one: not hidden, no backup file, and not ignored.
fn is_plain(name: &[u8]) -> bool {
    !name.starts_with(b".") && !name.ends_with(b"~") && !IGNORED.contains(&name)
}

/// Whether a name matches.
fn is_name(wildcards: &str, name: &[u8]) -> bool {
    if wildcards.as_bytes() == name {
        return true;
    }
    (wildcards.starts_with('.') || is_plain(name)) && is_like(wildcards.as_bytes(), name, Some(b'?'))
}

/// Whether a text matches: `*` stands for any number of bytes, and `any` for one.
///
/// Backtracks to the latest star only, so no pattern takes long.
pub(super) fn is_like(wildcards: &[u8], text: &[u8], any: Option<u8>) -> bool {
    let (mut at, mut of_text) = (0, 0);
    let mut star = None;
    while of_text < text.len() {
        match wildcards.get(at) {
            Some(b'*') => {
                star = Some((at, of_text));
                at += 1;
            }
            Some(byte) if any == Some(*byte) || *byte == text[of_text] => (at, of_text) = (at + 1, of_text + 1),
            _ => match &mut star {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, of_text) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    wildcards[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<&[u8]> {
        path.split('/').filter(|name| !name.is_empty()).map(str::as_bytes).collect()
    }

    #[test]
    fn a_base_is_what_has_no_wildcard() {
        for (text, base) in [
            ("src", "src"),
            ("src/", "src/"),
            ("src/*.rs", "src"),
            ("src/**/*.rs", "src"),
            ("*.js", "."),
            ("**", "."),
            ("/srv/*/app", "/srv"),
            ("/*", "/"),
            ("/", "/"),
            ("./a b/c?.txt", "./a b"),
        ] {
            assert_eq!(Pattern::new(text).base, base, "{text}");
        }
    }

    #[test]
    fn files_that_are_meant() {
        for (text, path, is_meant) in [
            ("src", "a.rs", true),
            ("src", "a/b/c.rs", true),
            ("src", "", true),
            ("src", ".git/index", false),
            ("src", "a/.b.swp", false),
            ("src", "a.rs~", false),
            ("src", "node_modules/a/b.js", false),
            ("src", "a/__pycache__/b.pyc", false),
            ("src/*.rs", "a.rs", true),
            ("src/*.rs", "a/b.rs", false),
            ("src/*.rs", "a.rst", false),
            ("src/*.rs", ".a.rs", false),
            ("src/.*.rs", ".a.rs", true),
            ("src/**/*.rs", "a.rs", true),
            ("src/**/*.rs", "a/b/c.rs", true),
            ("src/**/*.rs", "a/.b/c.rs", false),
            ("src/**", "a/b", true),
            ("src/**/a/*", "b/a/c/a/d", true),
            ("src/*/a", "b/a", true),
            ("src/*/node_modules/a", "b/node_modules/a", true),
            ("src/?.rs", "a.rs", true),
            ("src/?.rs", "ab.rs", false),
            ("src/*a*b*c", "xaybzc", true),
            ("src/*a*b*c", "xaybzd", false),
            ("src/*", "\u{e9}", true),
        ] {
            assert_eq!(Pattern::new(text).means(&names(path)), is_meant, "{text} {path}");
        }
    }

    #[test]
    fn only_directories_that_can_matter_are_looked_into() {
        for (text, directory, may) in [
            ("src", "a/b", true),
            ("src", "a/node_modules", false),
            ("src/*.rs", "", true),
            ("src/*.rs", "a", false),
            ("src/*/b/*.rs", "a", true),
            ("src/*/b/*.rs", "a/b", true),
            ("src/*/b/*.rs", "a/c", false),
            ("src/**/*.rs", "a/b/c", true),
            ("src/**/*.rs", ".git", false),
            ("src/?/**", "bb", false),
        ] {
            assert_eq!(Pattern::new(text).may_mean_below(&names(directory)), may, "{text} {directory}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let name = [b'a'; 255];
        assert!(!is_like("*a*a*a*a*a*a*a*a*a*a*a*a*b".as_bytes(), &name, Some(b'?')));
        let deep: Vec<&[u8]> = vec![b"a"; 40];
        assert!(!Pattern::new("x/**/**/**/b").means(&deep));
    }
}
