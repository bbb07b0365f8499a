//! PURE. Paths below a prefix.
#![forbid(unsafe_code)]

/// Where a path is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Below<'p> {
    /// Below the prefix: the rest, with its slash.
    Path(&'p str),
    /// The prefix without a slash at its end. The relative reference to the same with one.
    Itself(String),
    Elsewhere,
}

/// Looks for a path below a prefix, which has no slash at its end.
pub(super) fn below<'p>(prefix: &str, path: &'p str) -> Below<'p> {
    match path.strip_prefix(prefix) {
        Some(rest) if prefix.is_empty() || rest.starts_with('/') => Below::Path(rest),
        Some("") => Below::Itself(format!("{}/", prefix.rsplit('/').next().unwrap_or_default())),
        _ => Below::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::server::files::Files;
    use crate::server::http::Request;

    #[test]
    fn paths_are_below_a_prefix_by_whole_segments() {
        for (prefix, path, expected) in [
            ("", "/a", Below::Path("/a")),
            ("", "*", Below::Path("*")),
            ("/a/b", "/a/b/c", Below::Path("/c")),
            ("/a/b", "/a/b/", Below::Path("/")),
            ("/a/b", "/a/b", Below::Itself("b/".to_owned())),
            ("/a/b", "/a/bc", Below::Elsewhere),
            ("/a/b", "/a", Below::Elsewhere),
            ("/a/b", "/c", Below::Elsewhere),
        ] {
            assert_eq!(below(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn files_are_served_below_a_prefix_also_when_opened_again() {
        let root = std::env::temp_dir().join(format!("forkpool-prefix-{}", std::process::id()));
        fs::create_dir_all(root.join("d")).expect("a writable directory");
        fs::write(root.join("a.txt"), "a").expect("a writable directory");
        let files = Files::open(&root).and_then(|files| files.prefix("/static/").reopen()).expect("a directory");
        let get = |path: &str| files.answer(&Request::builder("GET", path).build());
        assert_eq!(get("/static/a.txt").status_code(), 200);
        assert_eq!((get("/a.txt").status_code(), get("/statics").status_code()), (404, 404));
        for (path, location) in [("/static?q", "static/?q"), ("/static/d", "d/")] {
            let response = get(path);
            assert_eq!((response.status_code(), response.header_value("Location")), (302, Some(location)), "{path}");
        }
        // Dot segments do not lead out of the prefix either.
        assert_eq!(get("/static/../a.txt").status_code(), 400);
        fs::remove_dir_all(root).expect("ours");
    }
}
