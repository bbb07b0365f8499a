//! Paths without a file: an application's pages, listings, pages without an extension, and the page for errors.

use std::fs;
use std::os::unix::fs::symlink;

use super::{ask, date, statuses, Site, SECRET};

#[test]
fn an_application_s_pages_are_all_its_index() {
    let site = Site::new("spa");
    site.write("index.html", "app");
    site.write("app.js", "script");
    site.write("assets/x.css", "style");
    let mut server = site.serve(&["--spa", "yes"]);
    let page = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let data = "Accept: application/json\r\n";
    let mut client = server.connect();
    for (target, accept, status, body) in [
        ("/", "", 200, "app"),
        ("/users", "", 200, "app"),
        ("/users/7/edit?x=1.5", "", 200, "app"),
        ("/v1.2/users", "", 200, "app"),
        ("/assets/", "", 200, "app"),
        ("/app.js/deeper", "", 200, "app"),
        ("/app.js", page, 200, "script"),
        ("/users/john.doe", page, 200, "app"),
        ("/release/v1.2", page, 200, "app"),
        ("/users", "Accept: */*\r\n", 200, "app"),
        ("/users", data, 404, "not found\n"),
        ("/users/john.doe", "", 404, "not found\n"),
        ("/users/john.doe", data, 404, "not found\n"),
        ("/missing.js", "Accept: */*\r\n", 404, "not found\n"),
        ("/assets/missing.css", "Accept: text/css,*/*;q=0.1\r\n", 404, "not found\n"),
        ("/.hidden", page, 404, "not found\n"),
        ("/..", page, 400, "the path is malformed\n"),
    ] {
        let answer = ask(&mut client, target, accept);
        assert_eq!((answer.status, answer.text()), (status, body), "{target} {accept}");
        let is_chosen = !["/", "/app.js", "/.hidden", "/.."].contains(&target);
        assert_eq!(answer.field("vary") == Some("Accept"), is_chosen, "{target}: {answer:?}");
    }
}

#[test]
fn a_directory_is_listed_when_that_is_asked_for() {
    let site = Site::new("listing");
    site.write("directory/<b>&\"'.txt", "12345");
    site.write("directory/b c.txt", "");
    site.write("directory/z/x", "");
    site.write("indexed/index.html", "front");
    symlink("../../outside/secret.txt", site.path("directory/out")).expect("a link");
    symlink("b c.txt", site.path("directory/in")).expect("a link");
    let mut server = site.serve(&["--listing", "yes"]);
    assert_eq!(server.get("/directory").status, 302);
    assert_eq!(server.get("/indexed/").text(), "front");
    assert_eq!(server.get("/none/").status, 404);
    let list = server.get("/directory/");
    assert_eq!(list.field("content-type"), Some("text/html; charset=utf-8"));
    let hrefs = list.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let hrefs: Vec<&str> = hrefs.collect();
    assert_eq!(hrefs, ["../", "./z/", "./%3Cb%3E%26%22%27.txt", "./b%20c.txt", "./in"]);
    assert!(list.text().contains("&lt;b&gt;&amp;&quot;&#39;.txt</a><td>5<td>"), "{}", list.text());
    let mut client = server.connect();
    for href in &hrefs[1..] {
        assert_eq!(client.get(&format!("/directory{}", &href[1..])).status, 200, "{href}");
    }
}

#[test]
fn a_long_listing_has_pages() {
    let site = Site::new("pages");
    for n in 0..2001 {
        site.write(&format!("d/{n:04}"), "");
    }
    site.write("d/z/x", "");
    let mut server = site.serve(&["--listing", "yes"]);
    let mut client = server.connect();
    for (target, first, last, links) in [
        ("/d/", "./z/", "./0998", &["?page=2"][..]),
        ("/d/?page=2", "./0999", "./1998", &["?page=1", "?page=3"]),
        ("/d/?x=1&page=3", "./1999", "./2000", &["?page=2"]),
        ("/d/?page=1000", "./1999", "./2000", &["?page=2"]),
        ("/d/?page=0", "./z/", "./0998", &["?page=2"]),
        ("/d/?page=-1", "./z/", "./0998", &["?page=2"]),
    ] {
        let answer = client.get(target);
        let hrefs = answer.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let (pages, names): (Vec<&str>, Vec<&str>) = hrefs.skip(1).partition(|href| href.starts_with('?'));
        assert_eq!((names.first(), names.last()), (Some(&first), Some(&last)), "{target}");
        assert_eq!(pages, links, "{target}");
    }
}

#[test]
fn a_page_has_no_extension_in_its_url() {
    let site = Site::new("clean");
    site.write("index.html", "front");
    site.write("about.html", "about");
    site.write("about us.html", "us");
    site.write("blog.html", "blog");
    site.write("blog/post.html", "post");
    site.write("file", "file");
    site.write("file.html", "other");
    site.write("bare/x", "x");
    site.write(".secret.html", SECRET);
    fs::create_dir(site.path("odd.html")).expect("a directory");
    symlink("../outside/secret.txt", site.path("out.html")).expect("a link");
    let mut server = site.serve(&["--header", "/*.html Cache-Control: no-cache"]);
    for (target, body) in [
        ("/about", "about"),
        ("/about?x", "about"),
        ("/about%20us", "us"),
        ("/blog", "blog"),
        ("/blog/post", "post"),
        ("/about.html", "about"),
        ("/index", "front"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (200, body), "{target}");
        assert_eq!(answer.field("content-type"), Some("text/html"), "{target}");
        assert_eq!(answer.field("cache-control"), Some("no-cache"), "{target}");
    }
    assert_eq!(server.get("/file").text(), "file");
    statuses(
        &mut server,
        &[("/about/", 404), ("/blog/", 404), ("/bare", 302), ("/odd", 404), ("/out", 404), ("/.secret", 404)],
    );
}

#[test]
fn the_site_has_its_own_page_for_404() {
    let site = Site::new("nothing");
    site.write("404.html", "nothing here");
    date(&site.path("404.html"), 1_700_000_000);
    date(&site.write("404.html.gz", "packed"), 1_700_000_000);
    let mut server = site.serve(&["--cache-control", "max-age=60", "--header", "X-A: b"]);
    let mut client = server.connect();
    for target in ["/none", "/none/", "/.hidden", "/none.js"] {
        let fields = "Range: bytes=0-1\r\nIf-None-Match: *\r\nIf-Match: \"x\"\r\n";
        let answer = ask(&mut client, target, fields);
        assert_eq!((answer.status, answer.text()), (404, "nothing here"), "{target}");
        assert_eq!((answer.field("content-type"), answer.field("x-a")), (Some("text/html"), Some("b")), "{target}");
        for field in ["etag", "last-modified", "accept-ranges", "cache-control"] {
            assert_eq!(answer.field(field), None, "{target}");
        }
    }
    let packed = ask(&mut client, "/none", "Accept-Encoding: gzip\r\n");
    assert_eq!((packed.status, packed.text(), packed.field("content-encoding")), (404, "packed", Some("gzip")));
    client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().field("content-length"), Some("12"));
    assert_eq!(client.get("/404").status, 200);
}
