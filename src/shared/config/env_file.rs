//! PURE. A file of variables: each line is `NAME=value`, a comment that begins with `#`, or empty.
//!
//! The value is everything after the first `=`: quotes are part of it, and nothing is expanded. So every reader of the
//! file gets the same values.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// The maximum length of a file. The environment of a program is no larger than a few of these (execve(2)).
pub(crate) const FILE_MAX: usize = 64 << 10;

/// A line that sets a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The line number, from 1.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

/// What is wrong with a file, and in which line; 0 is the file as a whole. The text contains no value, which may be a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) line: usize,
    pub(crate) problem: String,
}

/// Parses a whole file.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Line>, Flaw> {
    if bytes.len() > FILE_MAX {
        return Err(Flaw { line: 0, problem: format!("is longer than {FILE_MAX} bytes; is it the right file?") });
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut seen = BTreeMap::new();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let flaw = |problem: String| Flaw { line: number, problem };
        // Some editors end lines with CR LF.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = line.trim_ascii_start();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let Some(at) = text.iter().position(|byte| *byte == b'=') else {
            return Err(flaw("has no =; write NAME=value, or # before a comment".to_owned()));
        };
        let (name, value) = (&text[..at], &text[at + 1..]);
        let name = name_of(name).map_err(flaw)?;
        if value.contains(&0) {
            return Err(flaw(format!("the value of {name} holds a NUL, which no variable can")));
        }
        if let Some(before) = seen.insert(name.clone(), number) {
            return Err(flaw(format!("{name} is set in line {before} already; leave one out")));
        }
        lines.push(Line { number, name, value: value.to_vec() });
    }
    Ok(lines)
}

/// Checks the name of a variable: letters, digits and underscores, not starting with a digit.
fn name_of(name: &[u8]) -> Result<String, String> {
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let is_name = name.iter().all(is_in_name) && name.first().is_some_and(|first| !first.is_ascii_digit());
    if is_name {
        return Ok(name.iter().copied().map(char::from).collect());
    }
    let shown = name.get(..name.len().min(NAME_SHOWN)).unwrap_or_default().escape_ascii();
    Err(match name.trim_ascii_end() {
        b"" => "there is no name before the =".to_owned(),
        [b'e', b'x', b'p', b'o', b'r', b't', b' ', ..] => "this is no shell script; leave out export".to_owned(),
        trimmed if trimmed.len() < name.len() => {
            format!("{} is followed by a blank; write NAME=value", shown.to_string().trim_end())
        }
        _ => format!("{shown} is no name of a variable: letters, digits and underscores, no digit first"),
    })
}

/// How many bytes of an invalid name an error shows.
const NAME_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_as_they_are() {
        for (file, lines) in [
            ("", &[][..]),
            ("\n\n# a comment\n   # another = one\n", &[]),
            ("A=1", &[(1, "A", "1")]),
            ("A=1\n", &[(1, "A", "1")]),
            ("A=1\r\nB=2\r\n", &[(1, "A", "1"), (2, "B", "2")]),
            ("\n# x\n  _a1=\n", &[(3, "_a1", "")]),
            ("A= b \n", &[(1, "A", " b ")]),
            ("A=\"b\" 'c'\n", &[(1, "A", "\"b\" 'c'")]),
            ("A=$B ${C} `d` \\n ~\n", &[(1, "A", "$B ${C} `d` \\n ~")]),
            ("A=b=c==\n", &[(1, "A", "b=c==")]),
            ("A=b # c\n", &[(1, "A", "b # c")]),
            ("A=\u{e9}\t\u{1b}\n", &[(1, "A", "\u{e9}\t\u{1b}")]),
        ] {
            let found = parse(file.as_bytes()).unwrap_or_else(|flaw| panic!("{file:?}: {flaw:?}"));
            let found: Vec<_> = found.iter().map(|it| (it.number, it.name.as_str(), &it.value[..])).collect();
            let lines: Vec<_> = lines.iter().map(|(number, name, value)| (*number, *name, value.as_bytes())).collect();
            assert_eq!(found, lines, "{file:?}");
        }
        assert_eq!(parse(b"A=\xff\xfe\n").expect("bytes")[0].value, b"\xff\xfe");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_values() {
        for (file, line, problem) in [
            ("A=1\nnonsense secret\n", 2, "has no =; write NAME=value"),
            ("\n=secret\n", 2, "there is no name before the ="),
            ("A=1\nB=secret\0\n", 2, "the value of B holds a NUL"),
            ("export A=secret\n", 1, "leave out export"),
            ("A =secret\n", 1, "A is followed by a blank"),
            ("1A=secret\n", 1, "1A is no name of a variable"),
            ("A-B=secret\n", 1, "A-B is no name"),
            ("\u{e9}\u{1b}=secret\n", 1, "\\xc3\\xa9\\x1b is no name"),
            ("A=1\nB=2\nA=secret\n", 3, "A is set in line 1 already"),
            ("\u{feff}A=secret\n", 1, "is no name"),
        ] {
            let flaw = parse(file.as_bytes()).expect_err(file);
            assert_eq!(flaw.line, line, "{file:?}: {flaw:?}");
            assert!(flaw.problem.contains(problem) && !flaw.problem.contains("secret"), "{file:?}: {flaw:?}");
        }
        let most = [b"A=".as_slice(), &vec![b'x'; FILE_MAX - 2]].concat();
        assert_eq!(parse(&most).map(|lines| lines.len()), Ok(1));
        let flaw = parse(&[&most[..], b"x"].concat()).expect_err("too long");
        assert!(flaw.line == 0 && flaw.problem.contains("longer than 65536 bytes"), "{flaw:?}");
        let flaw = parse(&[vec![b'-'; 4000], b"=x".to_vec()].concat()).expect_err("no name");
        assert!(flaw.problem.len() < 200, "{flaw:?}");
    }
}
