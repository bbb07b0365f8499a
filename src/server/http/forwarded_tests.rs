//! The clients that proxies name, and what clients and broken proxies may do to that.

use super::*;
use crate::server::http::{Codec, Limits, Next, Scratch, Via};

const LIMITS: Limits = Limits { target: 8 << 10, head: 64 << 10, fields: 128, body: 0, requests: 0, utf8_query: true };

/// The client, its scheme and the host that it asked.
fn said(
    peer: Option<&str>,
    proxies: &str,
    header: ForwardedHeader,
    fields: &str,
) -> (Option<String>, &'static str, String) {
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let mut config = crate::shared::config::Config::default();
    crate::shared::config::settings()
        .find(|setting| setting.name() == "trusted-proxies")
        .expect("it is a setting")
        .apply(&mut config, proxies)
        .expect(proxies);
    let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
    match codec.next(head.as_bytes(), &mut scratch, &LIMITS, &mut |_| false).1 {
        Next::Request(request) => {
            request.peer = peer.map(|peer| SocketAddr::new(peer.parse().expect(peer), 4711));
            request.via = Some(Via { trust: TrustedProxies { proxies: &config.server.proxies, header }, source: None });
            let host = request.host().expect("it has one").to_owned();
            (request.client().map(|client| client.to_string()), request.scheme(), host)
        }
        other => panic!("{other:?}"),
    }
}

fn client(peer: &str, fields: &str) -> String {
    said(Some(peer), "10.0.0.0/8,fd00::/8", ForwardedHeader::Auto, fields).0.expect("an address")
}

#[test]
fn the_client_is_the_last_address_that_is_no_trusted_proxy_s() {
    for (peer, value, expected) in [
        // Fields of an untrusted peer are ignored.
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("::ffff:192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "203.0.113.9", "203.0.113.9"),
        // What the client has invented comes first.
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "10.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2,10.0.0.3", "203.0.113.9"),
        // All of them are trusted: the first has made the request.
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        // Ports, brackets, and what is no address.
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "  203.0.113.9\t", "203.0.113.9"),
        ("10.0.0.1", ", ,203.0.113.9,, ", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9.", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.009", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:x", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:123456", "10.0.0.1"),
        ("10.0.0.1", "[203.0.113.9]", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::7", "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::7]443", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", "\"203.0.113.9\"", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9;x", "10.0.0.1"),
        ("10.0.0.1", "\u{e9}", "10.0.0.1"),
    ] {
        assert_eq!(client(peer, &format!("X-Forwarded-For: {value}\r\n")), expected, "{peer} {value:?}");
    }
    // Each proxy may add a field of its own.
    let lines = "X-Forwarded-For: 198.51.100.1\r\nx-forwarded-for: 203.0.113.9\r\nX-FORWARDED-FOR: 10.0.0.2\r\n";
    assert_eq!(client("10.0.0.1", lines), "203.0.113.9");
}

#[test]
fn forwarded_says_the_same_in_its_own_words() {
    for (value, expected) in [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=203.0.113.9;proto=http;by=10.0.0.1", "203.0.113.9"),
        ("for=\"203.0.113.9:4711\"", "203.0.113.9"),
        ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
        ("for=\"[2001:db8::7]:_port\" ; by=x", "2001:db8::7"),
        ("by=10.0.0.1;host=\"a,b\";for=203.0.113.9", "203.0.113.9"),
        ("for=198.51.100.1, for=203.0.113.9, for=10.0.0.2", "203.0.113.9"),
        ("for=198.51.100.1;host=\", for=192.0.2.1, for=203.0.113.9", "203.0.113.9"),
        ("for=\", for=203.0.113.9", "203.0.113.9"),
        ("for=\"\\\", for=203.0.113.9;host=\"a\"", "203.0.113.9"),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("for=203.0.113.9;for=198.51.100.1", "10.0.0.1"),
        ("for=203.0.113.9;for=unknown", "10.0.0.1"),
        ("203.0.113.9", "10.0.0.1"),
        ("for=203.0.113.9 x", "10.0.0.1"),
        ("for=\"203.0.113.9\"x", "10.0.0.1"),
        ("for=\"203.0.113.9", "10.0.0.1"),
        ("for=\"203.0.113\\.9\"", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
        ("", "10.0.0.1"),
    ] {
        assert_eq!(client("10.0.0.1", &format!("Forwarded: {value}\r\n")), expected, "{value:?}");
    }
}

#[test]
fn the_field_that_the_proxies_set_decides() {
    let both = "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n";
    for (header, fields, expected) in [
        (ForwardedHeader::Auto, both, "192.0.2.2"),
        (ForwardedHeader::XForwardedFor, both, "192.0.2.2"),
        (ForwardedHeader::Forwarded, both, "192.0.2.1"),
        (ForwardedHeader::Auto, "Forwarded: for=192.0.2.1\r\n", "192.0.2.1"),
        (ForwardedHeader::XForwardedFor, "Forwarded: for=192.0.2.1\r\n", "10.0.0.1"),
        (ForwardedHeader::Forwarded, "X-Forwarded-For: 192.0.2.2\r\n", "10.0.0.1"),
    ] {
        assert_eq!(
            said(Some("10.0.0.1"), "10.0.0.0/8", header, fields).0.as_deref(),
            Some(expected),
            "{header:?} {fields}"
        );
    }
}

#[test]
fn scheme_and_host_are_those_of_the_client_s_hop() {
    for (fields, scheme, host) in [
        ("", "http", "h"),
        ("X-Forwarded-Proto: https\r\n", "https", "h"),
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: a.example:8443\r\n",
            "https",
            "a.example:8443",
        ),
        ("X-Forwarded-Proto: wss\r\n", "https", "h"),
        ("X-Forwarded-Proto: javascript\r\n", "http", "h"),
        ("X-Forwarded-Host: a b\r\n", "http", "h"),
        ("X-Forwarded-Host: a/b\r\n", "http", "h"),
        ("X-Forwarded-Host:\r\n", "http", "h"),
        // Added by each proxy, or set by the first alone.
        ("X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\nX-Forwarded-Proto: https, http\r\n", "https", "h"),
        ("X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n", "https", "h"),
        // What the client has invented comes first.
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https, http\r\n", "http", "h"),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: evil.example, a.example\r\n", "http", "a.example"),
        ("Forwarded: for=192.0.2.1;proto=https;host=a.example\r\n", "https", "a.example"),
        ("Forwarded: for=6.6.6.6;proto=https;host=evil.example, for=192.0.2.1;proto=http\r\n", "http", "h"),
        (
            "Forwarded: for=192.0.2.1;host=\"a.example:80\";proto=https, for=10.0.0.2;host=b\r\n",
            "https",
            "a.example:80",
        ),
    ] {
        let found = said(Some("10.0.0.1"), "10.0.0.0/8", ForwardedHeader::Auto, fields);
        assert_eq!((found.1, found.2.as_str()), (scheme, host), "{fields}");
        let found = said(Some("192.0.2.9"), "10.0.0.0/8", ForwardedHeader::Auto, fields);
        assert_eq!((found.1, found.2.as_str()), ("http", "h"), "who is not trusted says nothing: {fields}");
    }
}

#[test]
fn who_comes_by_a_unix_socket_is_trusted_by_name_alone() {
    let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(said(None, "0.0.0.0/0 ::/0", ForwardedHeader::Auto, fields), (None, "http", "h".to_owned()));
    let client = Some("192.0.2.1".to_owned());
    assert_eq!(said(None, "unix", ForwardedHeader::Auto, fields), (client, "https", "h".to_owned()));
    assert_eq!(said(None, "unix", ForwardedHeader::Auto, "").0, None);
    assert_eq!(said(None, "", ForwardedHeader::Auto, fields).0, None);
}

#[test]
fn a_chain_without_end_is_not_followed() {
    let many = "10.0.0.2,".repeat(5_000);
    assert_eq!(client("10.0.0.1", &format!("X-Forwarded-For: 192.0.2.1, {many}\r\n")), "10.0.0.2");
    let most = "10.0.0.2,".repeat(HOPS_MAX - 1);
    assert_eq!(client("10.0.0.1", &format!("X-Forwarded-For: 192.0.2.1, {most}\r\n")), "192.0.2.1");
    let lines = "X-Forwarded-For: 10.0.0.2\r\n".repeat(100);
    assert_eq!(client("10.0.0.1", &format!("X-Forwarded-For: 192.0.2.1\r\n{lines}")), "10.0.0.2");
}
