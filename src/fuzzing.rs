//! The entry points of the fuzzers (tests/fuzz), each with the invariants that must hold for any bytes. Not part of the
//! API: compiled only for the fuzzers (`--cfg fuzzing`), and for unit tests that run each briefly.
#![allow(missing_docs, unreachable_pub)]

use std::ffi::OsString;

use crate::admin::status::{Fact, Model, Readings, Snapshot};
pub use crate::parent::successor::variable::fuzz as upgrade_variable;
pub use crate::server::access_log::fuzzing::line as access_log_line;
#[cfg(fuzzing)]
pub use crate::server::http::fuzzing::accepted;
pub use crate::server::http::fuzzing::{chunked, conditions, connection, forwarded, head, range};
pub use crate::server::proxy::fuzzing::proxy_header;
#[cfg(all(feature = "tls", fuzzing))]
pub use crate::server::tls::fuzzing::fuzz as tls;
pub use crate::shared::channel::fuzzing::records;
use crate::shared::config::{Config, Setting};
pub use crate::shared::handover::record::fuzz as handover;

/// Commands of the admin process to the parent, as bytes and as clients send them.
pub fn commands(bytes: &[u8]) {
    use crate::admin::{decode, encode, parse};
    if let Some(request) = decode(bytes) {
        assert_eq!(encode(request).as_deref(), Some(bytes));
    }
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').map_or((&*text, None), |(path, query)| (path, Some(query)));
    match parse(path, query) {
        Ok(request) => assert_eq!(encode(request).and_then(|bytes| decode(&bytes)), Some(request)),
        Err(problem) => assert_is_a_line(&problem),
    }
}

/// Facts of the parent for the admin process, and the pages that show them: a series of facts, each preceded by its
/// length in two bytes.
pub fn facts(bytes: &[u8]) {
    let (mut model, mut rest) = (Model::default(), bytes);
    while let Some((len, behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes(*len)).min(behind.len());
        let (fact, behind) = behind.split_at(len);
        rest = behind;
        if let Some(fact) = Fact::decode(fact) {
            assert!(Fact::decode(&fact.encode()).is_some(), "{fact:?}");
            model.learn(fact);
        }
    }
    let readings = Readings::default();
    let snapshot = Snapshot::new(&model, &readings);
    let json = snapshot.to_json();
    assert!(json.starts_with('{') && json.trim_end().ends_with('}') && !json.trim_end().contains(char::is_control));
    let (_, _) = (snapshot.to_text(), snapshot.to_metrics());
}

/// Values of flags or variables: a `NAME=VALUE` on each line.
pub fn settings(bytes: &[u8]) {
    let mut config = Config::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let Some(setting) = Setting::named(name) else { continue };
        if let Err(problem) = setting.apply(&mut config, value) {
            assert_is_a_line(&problem);
        }
        let source = |_: &str| Some(OsString::from(value));
        if let Some((_, found, _)) = setting.variable_set(&source) {
            assert_eq!(found, value);
        }
    }
}

/// A file of variables.
pub fn env_file(bytes: &[u8]) {
    use crate::shared::config::env_file::parse;
    match parse(bytes) {
        Ok(lines) => {
            // Writing it and parsing it again gives the same.
            let written: Vec<u8> =
                lines.iter().flat_map(|it| [it.name.as_bytes(), b"=", &it.value, b"\n"].concat()).collect();
            let again = parse(&written).expect("what was read can be read");
            let is_same = lines.iter().map(|it| (&it.name, &it.value)).eq(again.iter().map(|it| (&it.name, &it.value)));
            // A carriage return at the end is removed with the line feed.
            let ends_in_return = lines.iter().any(|it| it.value.ends_with(b"\r"));
            assert!(ends_in_return || is_same);
            assert!(lines.iter().all(|it| !it.name.is_empty() && !it.value.contains(&0)));
        }
        Err(flaw) => {
            assert_is_a_line(&flaw.problem);
            assert!(flaw.problem.len() < 512 && !flaw.problem.contains(char::is_control), "{flaw:?}");
        }
    }
}

/// The variables by which a service manager passes sockets. No socket is taken, since the descriptors are the fuzzer's
/// own.
#[cfg(fuzzing)]
pub fn listen_fds(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).replace('\0', "");
    let (count, names) = text.split_once('\n').unwrap_or((&text, ""));
    crate::sys::process::set_variable("LISTEN_PID", std::process::id().to_string());
    crate::sys::process::set_variable("LISTEN_FDS", count);
    crate::sys::process::set_variable("LISTEN_FDNAMES", names);
    if let Ok(fds) = crate::parent::service::listed() {
        assert!(fds.iter().all(|(fd, _)| *fd >= 3));
    }
}

/// A message to people must be one line.
fn assert_is_a_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(['\n', '\r']), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    /// Runs each target briefly with damaged examples, so that the simplest mistakes are found without a fuzzer. Leaves
    /// out `listen_fds`, which sets variables of the process that other tests read.
    #[test]
    fn every_target_runs() {
        let mut draw = random_below(0x9E37_79B9_7F4A_7C15);
        let mut random = move |below: usize| draw(below as u64) as usize;
        let number = |n: u64| n.to_le_bytes();
        let fact = [&64_u16.to_le_bytes()[..], &[2, 11, 0, 1, 2, 1, 5, 0].map(number).concat()].concat();
        type Target = fn(&[u8]);
        let targets: [(Target, &[&[u8]]); 15] = [
            (env_file, &[b"# a\nA=1\r\n FORKPOOL_WORKERS=2\n\nexport B=x\n", b"A=b=c\n_1= \"x\" \n"]),
            (forwarded, &[b"192.0.2.7, [2001:db8::7]:1", b"for=\"[2001:db8::7]:1\";proto=https, for=_x;host=\"a\""]),
            (
                proxy_header,
                &[
                    b"PROXY TCP4 192.0.2.1 192.0.2.2 65535 80\r\nGET /",
                    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\xc0\0\x02\x02\xff\xff\0\x50\x04\0\0GET /",
                ],
            ),
            (head, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]),
            (chunked, &[b"3\r\nabc\r\n0\r\n\r\n"]),
            (connection, &[b"\x02\x03\x04\x05GET / HTTP/1.1\r\nHost: a\r\n\r\n"]),
            (range, &[b"\xff\0\0\0\0\0\0\0bytes=0-9, -5, 200-", b"\x08\0\0\0\0\0\0\x000-1, 3-3, -2"]),
            (conditions, &[b"If-None-Match: \"a\", W/\"b\"", b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"]),
            (access_log_line, &[b"GET /a\"b HTTP/1.1\r\nHost: a\r\nReferer: \\\x01\xff\r\n\r\n"]),
            (records, &[b"\x02LRAASDMQ", b"\x09LRB\0\0XXXFwords"]),
            (upgrade_variable, &[b"3\n4 5,-,6 127.0.0.1:80\n- 7 udp:127.0.0.1:53\n8 - unix:/run/a b"]),
            (handover, &[b"\x01\x05\x02\0\0\0\xe8\x03\0\0\xc0\0\x02\x01\x50\0GET / HT", b"\x01\0\0\0\0\0\0\0\0\0"]),
            (commands, &[b"\0\0\0\0\0\0\0\0\0", b"/scale?workers=4", b"/log?level=debug"]),
            (facts, &[&fact]),
            (
                settings,
                &[b"listen=127.0.0.1:80,unix:/x\nworkers=auto\ndrain-timeout=1h 2m\nmax-rss=1G", b"admin=a\r\x01"],
            ),
        ];
        for (target, examples) in targets {
            for example in examples {
                target(example);
                for _ in 0..500 {
                    let mut bytes = example.to_vec();
                    for _ in 0..1 + random(3) {
                        let at = random(bytes.len() + 1);
                        match random(3) {
                            0 if at < bytes.len() => bytes[at] = random(256) as u8,
                            1 => bytes.truncate(at),
                            _ => bytes.insert(at, random(256) as u8),
                        }
                    }
                    target(&bytes);
                }
            }
        }
    }
}
