//! Validators, ranges and precompressed siblings.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::{ask, date, Site};

#[test]
fn copies_have_the_same_validators_and_times_near_1970_do_not_count() {
    let site = Site::new("replicas");
    for name in ["a.txt", "b.txt"] {
        site.write(name, "same");
        date(&site.path(name), 1_700_000_000);
    }
    for name in ["c.txt", "d.txt"] {
        site.write(name, "same");
        date(&site.path(name), 1);
    }
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    let [a, b, c, d] = ["/a.txt", "/b.txt", "/c.txt", "/d.txt"].map(|target| client.get(target));
    assert!(a.field("etag").is_some() && a.field("etag") == b.field("etag"));
    assert_eq!(a.field("last-modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    assert!(c.field("etag").is_some() && c.field("etag") != d.field("etag"));
    assert_eq!((c.field("last-modified"), d.field("last-modified")), (None, None));
    // Both were packed by a tool that gives all files the same time.
    for since in
        ["If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]
    {
        assert_eq!(ask(&mut client, "/c.txt", &format!("{since}\r\n")).status, 200, "{since}");
    }
    let part = "Range: bytes=1-2\r\nIf-Range: Thu, 01 Jan 1970 00:00:01 GMT\r\n";
    assert_eq!(ask(&mut client, "/c.txt", part).status, 200);
    // Another content of the same length, and the same time again.
    fs::rename(site.write("new", "else"), site.path("c.txt")).expect("one directory");
    date(&site.path("c.txt"), 1);
    let tag = c.field("etag").expect("a tag");
    assert_eq!(ask(&mut client, "/c.txt", &format!("If-None-Match: {tag}\r\n")).text(), "else");
}

#[test]
fn a_range_of_an_empty_file_is_not_satisfiable() {
    let site = Site::new("empty");
    site.write("empty.txt", "");
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    for range in ["0-", "0-1048575", "-100", "0-0,5-"] {
        let answer = ask(&mut client, "/empty.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("content-range"), answer.text()), (200, None, ""), "{range}");
    }
}

#[test]
fn an_older_precompressed_file_of_the_same_second_is_not_sent() {
    let site = Site::new("second");
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (name, original, sibling, is_current) in [
        ("older", 500_000_001, 499_000_001, false),
        ("same", 500_000_001, 500_000_001, true),
        ("newer", 500_000_001, 500_000_002, true),
        ("in-seconds", 500_000_001, 0, true),
        ("in-microseconds", 500_123_456, 500_123_000, true),
        ("in-100ns", 500_123_456, 500_123_400, true),
        ("older-by-microseconds", 500_123_456, 500_122_000, false),
    ] {
        for (path, nanos) in [(format!("{name}.js"), original), (format!("{name}.js.gz"), sibling)] {
            let path = site.write(&path, &path);
            let time = second + Duration::from_nanos(nanos);
            fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("it is ours");
        }
        let mut server = site.serve(&[]);
        let answer = ask(&mut server.connect(), &format!("/{name}.js"), "Accept-Encoding: gzip\r\n");
        assert_eq!(answer.field("content-encoding").is_some(), is_current, "{name}");
    }
}

#[test]
fn precompressed_siblings_are_negotiated() {
    let site = Site::new("coding");
    for (name, second) in [
        ("a.js", 1000),
        ("a.js.br", 1000),
        ("a.js.zst", 2000),
        ("a.js.gz", 1000),
        ("b.js", 2000),
        ("b.js.br", 1999),
        ("b.js.gz", 2000),
        ("c.png", 1000),
        ("c.png.gz", 1000),
        ("d.js", 1000),
    ] {
        date(&site.write(name, name), second);
    }
    fs::create_dir(site.path("d.js.br")).expect("a directory");
    symlink("../outside/secret.txt", site.path("d.js.gz")).expect("a link");
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    let all = "gzip, deflate, br, zstd";
    for (target, accepted, coding, body) in [
        ("/a.js", "", None, "a.js"),
        ("/a.js", "identity", None, "a.js"),
        ("/a.js", "gzip", Some("gzip"), "a.js.gz"),
        ("/a.js", all, Some("br"), "a.js.br"),
        ("/a.js", "gzip;q=1, br;q=0.5", Some("gzip"), "a.js.gz"),
        ("/a.js", "br;q=0, *", Some("zstd"), "a.js.zst"),
        ("/a.js", "*;q=0", None, "a.js"),
        ("/a.js", "identity, br;q=0.9", None, "a.js"),
        // Out of date, and not there.
        ("/b.js", all, Some("gzip"), "b.js.gz"),
        ("/b.js", "br, zstd", None, "b.js"),
        ("/c.png", all, None, "c.png"),
        // A directory, and a link that leads out.
        ("/d.js", all, None, "d.js"),
    ] {
        let fields = if accepted.is_empty() { String::new() } else { format!("Accept-Encoding: {accepted}\r\n") };
        let answer = ask(&mut client, target, &fields);
        assert_eq!((answer.status, answer.text()), (200, body), "{target} {accepted}");
        assert_eq!(answer.field("content-encoding"), coding, "{target} {accepted}");
        let vary = (target != "/c.png").then_some("Accept-Encoding");
        assert_eq!(answer.field("vary"), vary, "{target} {accepted}");
        let content_type = if target == "/c.png" { "image/png" } else { "text/javascript; charset=utf-8" };
        assert_eq!(answer.field("content-type"), Some(content_type), "{target} {accepted}");
    }

    let plain = ask(&mut client, "/a.js", "");
    let encoded = ask(&mut client, "/a.js", "Accept-Encoding: br\r\n");
    let (plain, encoded) = (plain.field("etag").expect("a tag"), encoded.field("etag").expect("a tag"));
    assert_ne!(plain, encoded);
    for (fields, status, coding, body) in [
        ("Range: bytes=2-\r\n".to_owned(), 206, Some("br"), "js.br"),
        // Several parts would not be one encoded body.
        ("Range: bytes=0-0,5-6\r\n".to_owned(), 200, Some("br"), "a.js.br"),
        (format!("Range: bytes=0-0\r\nIf-Range: {plain}\r\n"), 200, Some("br"), "a.js.br"),
        (format!("Range: bytes=0-0\r\nIf-Range: {encoded}\r\n"), 206, Some("br"), "a"),
        (format!("If-None-Match: {encoded}\r\n"), 304, None, ""),
        (format!("If-None-Match: {plain}\r\n"), 200, Some("br"), "a.js.br"),
    ] {
        let answer = ask(&mut client, "/a.js", &format!("Accept-Encoding: br\r\n{fields}"));
        assert_eq!(
            (answer.status, answer.field("content-encoding"), answer.text()),
            (status, coding, body),
            "{fields}"
        );
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"), "{fields}");
    }
    drop(server);

    let mut server = site.serve(&["--precompressed", "no"]);
    let answer = ask(&mut server.connect(), "/a.js", "Accept-Encoding: br\r\n");
    assert_eq!((answer.text(), answer.field("vary")), ("a.js", None));
}

#[test]
fn ranges_and_conditions_hold_at_every_size() {
    let site = Site::new("ranges");
    // Read behind the head, sent by the kernel together with it, and sent behind it.
    for len in [1000, 16_384, 16_385, 65_536, 65_537, 3_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
        site.write(&format!("{len}.txt"), &bytes);
        let target = format!("/{len}.txt");
        let mut server = site.serve(&["--cache-control", "no-cache"]);
        let mut client = server.connect();
        let whole = ask(&mut client, &target, "");
        assert!(whole.status == 200 && whole.body == bytes, "{len}");
        let part = ask(&mut client, &target, "Range: bytes=-7\r\n");
        assert!(part.status == 206 && part.body == bytes[len - 7..], "{len}");
        let several = ask(&mut client, &target, &format!("Range: bytes=0-1,500-{}\r\n", len - 1));
        assert_eq!((several.status, several.body.len() > len - 498), (206, true), "{len}");
        assert_eq!(ask(&mut client, &target, &format!("Range: bytes={len}-\r\n")).status, 416);
        let tag = whole.field("etag").expect("a tag");
        let same = ask(&mut client, &target, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((same.status, same.field("etag"), same.field("vary")), (304, Some(tag), Some("Accept-Encoding")));
        assert_eq!(same.field("cache-control"), Some("no-cache"));
        assert_eq!(ask(&mut client, &target, "If-Match: \"other\"\r\n").status, 412);
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer_to_head().field("content-length"), Some(len.to_string().as_str()));
        assert_eq!(ask(&mut client, &target, "").body.len(), len);
    }
}
