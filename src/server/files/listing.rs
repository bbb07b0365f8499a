//! PURE. The page that lists a directory.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::time::SystemTime;

use super::name::encode;
use crate::server::http::fixdate;

/// A directory entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// The length of a file in bytes; `None` for a directory.
    pub(super) len: Option<u64>,
    pub(super) modified: SystemTime,
}

/// The part of a long directory that a page shows.
#[derive(Debug)]
pub(super) struct Page {
    /// From one.
    pub(super) number: usize,
    pub(super) pages: usize,
    /// Set if only this number of names was read.
    pub(super) cut_at: Option<usize>,
}

/// An HTML page without scripts or external resources. Directories come first, then files, each sorted by name.
pub(super) fn page(directory: &str, is_root: bool, mut entries: Vec<Entry>, shown: &Page) -> String {
    entries.sort_by(|one, other| (one.len.is_some(), &one.name).cmp(&(other.len.is_some(), &other.name)));
    let title = escape(directory);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<table>\n<tr><th>Name<th>Size<th>Modified\n"
    );
    if !is_root {
        page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for Entry { name, len, modified } in &entries {
        let slash = if len.is_some() { "" } else { "/" };
        let shown = escape(&String::from_utf8_lossy(name));
        let len = len.map(|len| len.to_string()).unwrap_or_default();
        let modified = fixdate(*modified);
        let _ =
            writeln!(page, "<tr><td><a href=\"./{}{slash}\">{shown}{slash}</a><td>{len}<td>{modified}", encode(name));
    }
    page.push_str("</table>\n");
    let Page { number, pages, cut_at } = *shown;
    if pages > 1 {
        let _ = write!(page, "<p>");
        if number > 1 {
            let _ = write!(page, "<a href=\"?page={}\">previous</a> ", number - 1);
        }
        let _ = write!(page, "page {number} of {pages}");
        if number < pages {
            let _ = write!(page, " <a href=\"?page={}\">next</a>", number + 1);
        }
        page.push('\n');
    }
    if let Some(most) = cut_at {
        let _ = writeln!(page, "<p>Only the first {most} entries that were found are listed.");
    }
    page
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;\
                     color-scheme:light dark}:root{color-scheme:light dark}table{border-collapse:collapse;width:100%}\
                     td,th{text-align:left;padding:.1em 1em .1em 0;overflow-wrap:anywhere}\
                     td:nth-child(n+2),th:nth-child(n+2){text-align:right;white-space:nowrap;\
                     font-variant-numeric:tabular-nums}";

/// Escapes text for HTML and quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALONE: Page = Page { number: 1, pages: 1, cut_at: None };

    fn entry(name: &[u8], len: Option<u64>) -> Entry {
        Entry { name: name.to_vec(), len, modified: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn entries_are_sorted_escaped_and_encoded() {
        let entries = vec![
            entry(b"b", Some(7)),
            entry(b"<script>\"'&", Some(0)),
            entry(b"z", None),
            entry(b"javascript:x", Some(1)),
            entry(b"\xff", Some(1)),
            entry(b"a b", None),
        ];
        let page = page("/<i>/", false, entries, &Page { number: 2, pages: 3, cut_at: Some(6) });
        assert!(page.contains("<title>/&lt;i&gt;/</title>") && page.contains("<h1>/&lt;i&gt;/</h1>"), "{page}");
        let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("<tr><td><a href=")).collect();
        let date = "Thu, 01 Jan 1970 00:00:00 GMT";
        assert_eq!(
            rows,
            [
                "\"../\">../</a><td><td>".to_owned(),
                format!("\"./a%20b/\">a b/</a><td><td>{date}"),
                format!("\"./z/\">z/</a><td><td>{date}"),
                format!("\"./%3Cscript%3E%22%27%26\">&lt;script&gt;&quot;&#39;&amp;</a><td>0<td>{date}"),
                format!("\"./b\">b</a><td>7<td>{date}"),
                format!("\"./javascript%3Ax\">javascript:x</a><td>1<td>{date}"),
                format!("\"./%FF\">\u{fffd}</a><td>1<td>{date}"),
            ]
        );
        assert!(page.contains("<p>Only the first 6 entries"), "{page}");
        assert!(page.contains("<a href=\"?page=1\">previous</a> page 2 of 3 <a href=\"?page=3\">next</a>"), "{page}");
    }

    #[test]
    fn times_that_no_date_can_say_are_the_nearest_that_one_can() {
        let entry = |modified| Entry { modified, ..entry(b"a", Some(1)) };
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        let page = page("/", true, vec![entry(far), entry(SystemTime::UNIX_EPOCH - Duration::from_secs(1))], &ALONE);
        assert!(page.contains("Fri, 31 Dec 9999 23:59:59 GMT"), "{page}");
        assert!(page.contains("Thu, 01 Jan 1970 00:00:00 GMT"), "{page}");
    }

    #[test]
    fn the_root_has_no_directory_above() {
        let page = page("/", true, Vec::new(), &ALONE);
        assert!(!page.contains("..") && !page.contains("<p>"), "{page}");
    }
}
