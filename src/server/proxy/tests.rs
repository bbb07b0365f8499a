//! Headers as proxies send them, and as clients may forge them.

use super::*;

const SIG: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a";

fn v2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let len = u16::try_from(behind.len()).expect("short").to_be_bytes();
    [SIG, &[command, family], &len, behind].concat()
}

fn v4() -> Vec<u8> {
    [[203, 0, 113, 9], [10, 0, 0, 1], [0x30, 0x39, 0, 80]].concat()
}

fn v6() -> Vec<u8> {
    let address: Ipv6Addr = "2001:db8::7".parse().expect("an address");
    [&address.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0xff, 0xff, 1, 187]].concat()
}

/// Parses it with a request after it, and after each of its bytes.
fn header(bytes: &[u8]) -> Header {
    let whole = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    let Found::Header(header) = parse(&whole) else { panic!("{:?} {bytes:?}", parse(&whole)) };
    assert_eq!(header.len + header.skip, bytes.len(), "{bytes:?}");
    for end in 0..header.len {
        assert_eq!(parse(&whole[..end]), Found::NeedMore, "{end} of {bytes:?}");
    }
    for end in header.len..whole.len() {
        assert_eq!(parse(&whole[..end]), Found::Header(header), "{end} of {bytes:?}");
    }
    header
}

fn source(bytes: &[u8]) -> Option<String> {
    header(bytes).source.map(|source| source.to_string())
}

#[test]
fn words_say_whose_a_connection_is() {
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.9 10.0.0.1 12345 80", Some("203.0.113.9:12345")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", Some("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::7 ::1 0 443", Some("[2001:db8::7]:0")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN", None),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
        ("PROXY UNKNOWN \u{e9} whatever", None),
    ] {
        assert_eq!(source(format!("{line}\r\n").as_bytes()).as_deref(), expected, "{line}");
    }
}

#[test]
fn bytes_say_whose_a_connection_is() {
    let tlv = [&v4()[..], b"\x04\0\x03\0\0\0", b"\xe0\0\x02ab"].concat();
    let long = [&v6()[..], &vec![0xee; 65_000]].concat();
    for (bytes, expected) in [
        (v2(0x21, 0x11, &v4()), Some("203.0.113.9:12345")),
        (v2(0x21, 0x21, &v6()), Some("[2001:db8::7]:65535")),
        (v2(0x21, 0x11, &tlv), Some("203.0.113.9:12345")),
        (v2(0x21, 0x21, &long), Some("[2001:db8::7]:65535")),
        // The proxy's own connection: a health check of its backend.
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &v4()), None),
        (v2(0x20, 0xff, b"\x03\0\x04abcd"), None),
        // Unspecified.
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x00, b"\x04\0\x01\0"), None),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x12, &v4()), None),
    ] {
        assert_eq!(source(&bytes).as_deref(), expected, "{bytes:?}");
    }
    assert_eq!(header(&v2(0x21, 0x11, &tlv)).skip, 11, "what is of no use is not held");
}

#[test]
fn what_is_no_header_is_refused_by_its_earliest_byte() {
    for (bytes, needed) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], 1),
        (b"\x16\x03\x01\x02\0", 1),
        (b"\r\nGET / HTTP/1.1\r\n", 3),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
        (b"PROXX TCP4", 5),
        (b"PROXY\tTCP4", 6),
        (b"proxy TCP4", 1),
        (b" PROXY TCP4", 1),
        (b"PROXY \r\n", 8),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 33),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 32),
        (b"PROXY TCP4\r\n", 12),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 30),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 33),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", 34),
        (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 30),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", 33),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", 24),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", 32),
        (b"PROXY TCP6 ::1%1 ::1 1 2\r\n", 26),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 33),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", 33),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 36),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \r\n", 29),
        (b"PROXY TCP4 1.2.3.4\n1.2.3.4 1 2\r\n", 32),
        (b"PROXY UNKNOWN\xff\r\n", 16),
        (b"PROXY UNKNOWNS\r\n", 16),
    ] {
        let decided = (0..=bytes.len()).find(|end| parse(&bytes[..*end]) != Found::NeedMore);
        assert_eq!(decided, Some(needed), "{:?}", String::from_utf8_lossy(bytes));
        assert!(matches!(parse(bytes), Found::Invalid(_)), "{bytes:?}");
    }
    // The parser does not wait for an endless line.
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    assert_eq!(parse(&endless[..106]), Found::NeedMore);
    assert_eq!(parse(&endless[..107]), Found::Invalid(MALFORMED));
    for bytes in [
        v2(0x11, 0x11, &v4()),
        v2(0x22, 0x11, &v4()),
        v2(0x2f, 0x11, &v4()),
        v2(0x01, 0x11, &v4()),
        v2(0x21, 0x41, &v4()),
        v2(0x21, 0x13, &v4()),
        v2(0x21, 0x11, &v4()[..11]),
        v2(0x21, 0x21, &v4()),
        v2(0x21, 0x11, b""),
    ] {
        assert_eq!(parse(&bytes), Found::Invalid(MALFORMED), "{bytes:?}");
    }
}

#[test]
fn random_bytes_are_judged_alike_however_they_come() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let examples = [
        b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 80\r\nGET /".to_vec(),
        b"PROXY UNKNOWN\r\nGET /".to_vec(),
        v2(0x21, 0x11, &[&v4()[..], b"\x04\0\x03\0\0\0"].concat()),
        v2(0x21, 0x21, &v6()),
        v2(0x20, 0, b""),
    ];
    for _ in 0..20_000 {
        let mut bytes = examples[random(examples.len())].clone();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        fuzzing::proxy_header(&bytes);
    }
}
