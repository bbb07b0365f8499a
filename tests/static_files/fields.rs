//! Fields and types that the site's owner adds.

use super::{ask, Site};

#[test]
fn fields_are_added_by_path() {
    let site = Site::new("fields");
    site.write("index.html", "front");
    site.write("assets/a.js", "script");
    site.write("assets/b.woff2", "font");
    site.write("dir/x", "x");
    let mut server = site.serve(&[
        "--cache-control",
        "no-cache",
        "--header",
        "/assets/* Cache-Control: max-age=31536000, immutable",
        "--header",
        "Cross-Origin-Opener-Policy: same-origin",
        "--header",
        "/*.woff2 Access-Control-Allow-Origin: *",
        "--header",
        "/*.woff2 Cross-Origin-Opener-Policy:",
    ]);
    let mut client = server.connect();
    let (kept, asked) = (Some("max-age=31536000, immutable"), Some("no-cache"));
    let own = Some("same-origin");
    for (target, status, cache, opener, origin) in [
        ("/", 200, asked, own, None),
        ("/index", 200, asked, own, None),
        ("/assets/a.js", 200, kept, own, None),
        ("/assets//a.js?x", 200, kept, own, None),
        ("/assets/b.woff2", 200, kept, None, Some("*")),
        // What is no content of a file is not to be kept.
        ("/assets/none", 404, None, own, None),
        ("/assets/none.woff2", 404, None, None, Some("*")),
        ("/dir", 302, None, own, None),
        ("/%", 400, None, own, None),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, status, "{target}");
        let found = ["cache-control", "cross-origin-opener-policy", "access-control-allow-origin"];
        assert_eq!(found.map(|field| answer.field(field)), [cache, opener, origin], "{target}");
    }
    let tag = client.get("/assets/a.js").field("etag").expect("a tag").to_owned();
    let same = ask(&mut client, "/assets/a.js", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.field("cache-control")), (304, kept));

    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n";
    for (target, fields, origin, methods, headers) in [
        ("/assets/b.woff2", preflight.to_owned(), Some("*"), Some("GET, HEAD"), None),
        (
            "/assets/b.woff2",
            format!("{preflight}Access-Control-Request-Headers: range, x-a\r\n"),
            Some("*"),
            Some("GET, HEAD"),
            Some("range, x-a"),
        ),
        ("/assets/a.js", preflight.to_owned(), None, None, None),
        ("/assets/b.woff2", String::new(), Some("*"), None, None),
        ("*", String::new(), None, None, None),
    ] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
        let found = ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"];
        assert_eq!(found.map(|field| answer.field(field)), [origin, methods, headers], "{target}");
    }
}

#[test]
fn types_follow_the_extension_and_can_be_set() {
    let site = Site::new("types");
    let own = ["a.ts", "a.mpd", "a.svgz", "README", "a.md", "a.xyz", "Notes", "a.html"];
    for name in own {
        site.write(name, name);
    }
    site.write(".well-known/apple-app-site-association", "{}");
    let mut server = site.serve(&[
        "--type",
        "html=text/html; charset=utf-8",
        "--type",
        "xyz=chemical/x-xyz",
        "--type",
        "notes=text/plain",
    ]);
    for (target, content_type) in [
        ("/a.ts", "video/mp2t"),
        ("/a.mpd", "application/dash+xml"),
        ("/a.svgz", "image/svg+xml"),
        ("/README", "text/plain; charset=utf-8"),
        ("/.well-known/apple-app-site-association", "application/json"),
        ("/a.md", "text/markdown; charset=utf-8"),
        ("/a.xyz", "chemical/x-xyz"),
        ("/Notes", "text/plain"),
        ("/a.html", "text/html; charset=utf-8"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(content_type)), "{target}");
        assert_eq!(answer.field("content-encoding").is_some(), target == "/a.svgz", "{target}");
    }
}
