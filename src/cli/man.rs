//! The man page, as roff for man(1).

use super::output::put;
use super::text::{self, Section};
use super::verbs::VERBS;

/// The whole page: the help of the binary, and that of every verb.
pub(super) fn page() -> String {
    let mut page = Page(format!(".TH FORKPOOL 1 \"\" \"forkpool {}\"\n", env!("CARGO_PKG_VERSION")));
    page.heading(".SH", "NAME");
    // man(1) looks for exactly one dash.
    page.0.push_str("forkpool \\- pre\\-fork worker pool\n");
    page.heading(".SH", "SYNOPSIS");
    page.0.push_str(".nf\n");
    for usage in [None].into_iter().chain(VERBS.iter().map(Some)).map(text::usage) {
        page.line(&usage);
    }
    page.0.push_str(".fi\n");
    page.heading(".SH", "DESCRIPTION");
    page.prose(text::ABOUT, ".SS");
    page.heading(".SH", "OPTIONS");
    page.options(text::sections(None));
    for verb in VERBS {
        page.heading(".SH", &format!("forkpool {}", verb.name).to_uppercase());
        page.line(&format!("{}.", verb.summary));
        page.0.push_str(".PP\n");
        page.prose(verb.about, ".SS");
        let mut sections = text::sections(Some(verb));
        // The other options of `exec` are above.
        sections.truncate(1);
        page.options(sections);
        if verb.is_exec() {
            page.0.push_str(".PP\n");
            page.line(&format!("Of the options above, these hold for a program: {}.", text::shared_with_exec()));
        }
    }
    page.prose(text::AFTER, ".SH");
    page.0
}

/// The roff written so far.
struct Page(String);

impl Page {
    fn heading(&mut self, request: &str, heading: &str) {
        put(&mut self.0, format_args!("{request} \"{heading}\"\n"));
    }

    fn options(&mut self, sections: Vec<Section>) {
        for (heading, options) in sections {
            self.heading(".SS", heading);
            for (spelled, description) in options {
                self.0.push_str(".TP\n.B ");
                self.line(&spelled);
                self.line(&description);
            }
        }
    }

    /// Converts help text: a line that ends in a colon is a heading, and indented lines stay as they are.
    fn prose(&mut self, text: &str, request: &str) {
        let (mut is_kept, mut is_parted) = (false, false);
        for line in text.lines() {
            let keeps = line.starts_with(' ');
            if keeps != is_kept {
                self.0.push_str(if keeps { ".nf\n" } else { ".fi\n" });
                is_kept = keeps;
            }
            match line.strip_suffix(':') {
                Some(heading) if heading.starts_with(|c: char| c.is_ascii_uppercase()) => {
                    self.heading(request, heading);
                }
                _ if line.is_empty() => {
                    is_parted = true;
                    continue;
                }
                _ => {
                    self.0.push_str(if is_parted { ".PP\n" } else { "" });
                    self.line(line);
                }
            }
            is_parted = false;
        }
        self.0.push_str(if is_kept { ".fi\n" } else { "" });
    }

    /// Writes a line of text in which nothing is a request.
    fn line(&mut self, text: &str) {
        if text.starts_with(['.', '\'']) {
            self.0.push_str("\\&");
        }
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\e"),
                '-' => self.0.push_str("\\-"),
                '\u{a0}' => self.0.push_str("\\ "),
                '\'' => self.0.push_str("\\(aq"),
                '~' => self.0.push_str("\\(ti"),
                '^' => self.0.push_str("\\(ha"),
                c => self.0.push(c),
            }
        }
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request() {
        let mut page = Page(String::new());
        page.prose("Heading:\n  .x 'y'\n  a\\b\n\n.z --q\nmore:\n", ".SS");
        let lines =
            [".SS \"Heading\"", ".nf", "  .x \\(aqy\\(aq", "  a\\eb", ".fi", ".PP", "\\&.z \\-\\-q", "more:", ""];
        assert_eq!(page.0, lines.join("\n"));
    }
}
