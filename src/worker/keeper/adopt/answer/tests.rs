//! Each address that a program may bind, for each address that a pool may have.

use super::*;

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

const TCP: SocketFacts = SocketFacts { is_tcp: true, inode: 7, inherits: None, is_watched: false };

/// What a program gets that binds `asked`: which of the pool's sockets, and what is reported.
fn bind(asked: &str, offered: &[&str]) -> (Reply, Option<Finding>) {
    Answers::new(offered.iter().map(|offered| at(offered)).collect()).bind(at(asked), TCP)
}

#[test]
fn the_socket_that_fits_is_given() {
    for (asked, offered, expected) in [
        ("0.0.0.0:80", &["0.0.0.0:80"][..], Some(0)),
        ("[::]:80", &["0.0.0.0:80"], Some(0)),
        ("127.0.0.1:80", &["0.0.0.0:80"], Some(0)),
        ("[::1]:80", &["0.0.0.0:80"], Some(0)),
        ("10.0.0.5:80", &["0.0.0.0:80"], Some(0)),
        ("[2001:db8::5]:80", &["0.0.0.0:80"], None),
        ("[::ffff:10.0.0.5]:80", &["0.0.0.0:80"], Some(0)),
        ("0.0.0.0:81", &["0.0.0.0:80"], None),
        ("0.0.0.0:80", &["127.0.0.1:80"], Some(0)),
        ("[::]:80", &["127.0.0.1:80"], Some(0)),
        ("[::1]:80", &["127.0.0.1:80"], Some(0)),
        ("127.0.0.2:80", &["127.0.0.1:80"], Some(0)),
        ("10.0.0.5:80", &["127.0.0.1:80"], None),
        ("127.0.0.1:80", &["10.0.0.5:80"], None),
        ("[::]:80", &["[::]:80"], Some(0)),
        ("[::1]:80", &["[::]:80"], Some(0)),
        ("[2001:db8::5]:80", &["[::]:80"], Some(0)),
        // IPv6 for an IPv4 program.
        ("0.0.0.0:80", &["[::]:80"], None),
        ("127.0.0.1:80", &["[::1]:80"], None),
        ("127.0.0.1:80", &["[::ffff:127.0.0.1]:80"], None),
        // The best of several.
        ("0.0.0.0:80", &["[::]:80", "0.0.0.0:80"], Some(1)),
        ("[::]:80", &["0.0.0.0:80", "[::]:80"], Some(1)),
        ("127.0.0.1:80", &["0.0.0.0:81", "10.0.0.5:80", "127.0.0.1:80"], Some(2)),
        ("[::1]:80", &["127.0.0.1:80", "[::1]:80"], Some(1)),
        ("[::]:80", &["10.0.0.5:80", "10.0.0.6:80"], Some(0)),
        ("0.0.0.0:80", &[], None),
        ("0.0.0.0:0", &["0.0.0.0:0"], None),
    ] {
        let (reply, _) = bind(asked, offered);
        assert_eq!(reply, expected.map_or(Reply::GoOn, Reply::Give), "{asked} of {offered:?}");
    }
}

/// Properties of all pairs and triples of addresses that differ in relevant ways.
#[test]
fn no_program_is_given_what_it_did_not_ask_for() {
    let addresses = [
        "0.0.0.0",
        "127.0.0.1",
        "127.0.0.2",
        "10.0.0.5",
        "::",
        "::1",
        "2001:db8::5",
        "::ffff:0.0.0.0",
        "::ffff:10.0.0.5",
    ];
    let ports = [80, 81];
    let all: Vec<SocketAddr> = addresses
        .iter()
        .flat_map(|ip| ports.map(|port| SocketAddr::new(ip.parse().expect("an IP address"), port)))
        .collect();
    for (asked, first) in all.iter().flat_map(|asked| all.iter().map(move |first| (asked, first))) {
        for second in &all {
            let offered = [*first, *second];
            let (reply, note) = Answers::new(offered.to_vec()).bind(*asked, TCP);
            let Reply::Give(index) = reply else {
                assert_eq!(reply, Reply::GoOn);
                assert!(!offered.contains(asked), "{asked} is one of {offered:?}");
                continue;
            };
            let given = offered[index];
            assert_eq!(given.port(), asked.port());
            assert!(asked.is_ipv6() || given.is_ipv4(), "{asked} got {given}");
            assert!(!offered.contains(asked) || given == *asked, "{asked} got {given}");
            let (ip, own) = (asked.ip().to_canonical(), given.ip().to_canonical());
            let is_wider = own.is_unspecified() && !ip.is_unspecified();
            assert_eq!(matches!(note, Some(Finding::Wider { .. })), is_wider, "{asked} got {given}");
            assert!(is_wider || ip == own || ip.is_unspecified() || ip.is_loopback() && own.is_loopback());
            // The other one does not take away what the first alone gives.
            assert!(matches!(bind(&asked.to_string(), &[&given.to_string()]).0, Reply::Give(0)));
        }
    }
}

#[test]
fn the_inherited_descriptor_is_used_unless_another_one_was_given() {
    let mut answers = Answers::new(vec![at("0.0.0.0:80"), at("0.0.0.0:81")]);
    assert!(!answers.is_unused(0) && !answers.is_unused(1));
    for (port, inherits, unused) in [
        (80, None, [true, false]),
        // The number at which the other socket was inherited.
        (81, Some(0), [true, true]),
        (80, Some(0), [false, true]),
        (80, None, [false, true]),
    ] {
        answers.bind(at(&format!("0.0.0.0:{port}")), SocketFacts { inherits, ..TCP });
        assert_eq!([answers.is_unused(0), answers.is_unused(1)], unused, "{port} {inherits:?}");
    }
    assert!(!answers.is_unused(2));
}

#[test]
fn only_tcp_is_given() {
    let mut answers = Answers::new(vec![at("0.0.0.0:80")]);
    assert_eq!(answers.bind(at("0.0.0.0:80"), SocketFacts { is_tcp: false, ..TCP }), (Reply::GoOn, None));
    for (protocol, tcp) in [("TCP", true), ("TCPv6", true), ("MPTCP", true), ("UDP", false), ("UNIX-STREAM", false)] {
        assert_eq!(is_tcp(protocol), tcp, "{protocol}");
    }
}

#[test]
fn each_kind_of_news_is_told_once() {
    let mut answers = Answers::new(vec![at("0.0.0.0:80"), at("[::]:81")]);
    let (asked, given) = (at("0.0.0.0:80"), at("0.0.0.0:80"));
    assert_eq!(answers.bind(asked, TCP), (Reply::Give(0), Some(Finding::Given { asked, given })));
    assert_eq!(answers.bind(asked, TCP), (Reply::Give(0), None));
    let local = at("127.0.0.1:80");
    assert_eq!(answers.bind(local, TCP), (Reply::Give(0), Some(Finding::Wider { asked: local, given })));
    assert_eq!(answers.bind(local, TCP), (Reply::Give(0), None));
    let (asked, given) = (at("0.0.0.0:81"), at("[::]:81"));
    assert_eq!(answers.bind(asked, TCP), (Reply::GoOn, Some(Finding::IsIpv6 { asked, given })));
    assert_eq!(answers.hidden(), (Reply::GoOn, Some(Finding::Hidden)));
    assert_eq!(answers.hidden(), (Reply::GoOn, None));
    let watched = SocketFacts { is_watched: true, ..TCP };
    assert_eq!(answers.bind(local, watched), (Reply::GoOn, Some(Finding::WatchedTooEarly { asked: local })));
}

#[test]
fn a_program_that_listens_elsewhere_is_told_of_once() {
    let mut answers = Answers::new(vec![at("0.0.0.0:80")]);
    let bound = |inode| SocketFacts { inode, ..TCP };
    assert_eq!(answers.bind(at("0.0.0.0:0"), bound(1)), (Reply::GoOn, None));
    assert_eq!(answers.bind(at("0.0.0.0:90"), bound(2)), (Reply::GoOn, None));
    assert_eq!(answers.listen(1, false), (Reply::GoOn, None));
    assert_eq!(answers.listen(3, false), (Reply::GoOn, None), "not seen to be bound");
    assert_eq!(answers.elsewhere(), Some((at("0.0.0.0:90"), false)));
    let elsewhere = Finding::Elsewhere { at: at("0.0.0.0:90"), own: Some(at("0.0.0.0:80")) };
    assert_eq!(answers.listen(2, false), (Reply::GoOn, Some(elsewhere)));
    assert_eq!(answers.listen(2, false), (Reply::GoOn, None));
    assert_eq!(answers.listen(4, true), (Reply::Done, None));
    assert_eq!(answers.elsewhere(), Some((at("0.0.0.0:90"), true)));
}

#[test]
fn what_nobody_accepts_from_is_told() {
    let mut answers = Answers::new(vec![at("0.0.0.0:80"), at("[::]:80")]);
    assert_eq!(answers.ready(), Some(Finding::ByNumber));
    answers.bind(at("[::]:80"), TCP);
    assert_eq!(answers.ready(), Some(Finding::Unclaimed { at: at("0.0.0.0:80") }));
    answers.bind(at("0.0.0.0:80"), TCP);
    assert_eq!(answers.ready(), None);
    assert_eq!(Answers::new(Vec::new()).ready(), None, "Unix sockets alone");
}

#[test]
fn a_flood_of_binds_is_not_remembered() {
    let mut answers = Answers::new(Vec::new());
    for inode in 0..10_000 {
        answers.bind(at("0.0.0.0:90"), SocketFacts { inode, ..TCP });
        assert!(answers.bound.len() <= BOUND_MAX && answers.reported.len() <= 8);
    }
    assert_eq!(answers.listen(9_999, false).1, Some(Finding::Elsewhere { at: at("0.0.0.0:90"), own: None }));
}

#[test]
fn a_socket_blocks_only_whoever_has_it_alone() {
    assert_eq!(nonblocking(true, false), Some(true));
    assert_eq!(nonblocking(true, true), Some(true));
    assert_eq!(nonblocking(false, false), Some(false));
    assert_eq!(nonblocking(false, true), None);
}

#[test]
fn flags_are_read() {
    let fdinfo = |flags: &str| format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t9\nino:\t77\n");
    for (text, expected) in [
        ("02", Some((false, false))),
        ("04002", Some((true, false))),
        ("02000002", Some((false, true))),
        ("02004002", Some((true, true))),
        ("", None),
        ("9", None),
    ] {
        assert_eq!(flags(&fdinfo(text)), expected, "{text}");
    }
    assert_eq!(flags(""), None);
}

#[test]
fn addresses_are_read_from_any_bytes() {
    let v4 = [&2_u16.to_ne_bytes()[..], &80_u16.to_be_bytes(), &[10, 0, 0, 5], &[0; 8]].concat();
    assert_eq!(address(&v4), Some(at("10.0.0.5:80")));
    assert_eq!(address(&v4[..8]), Some(at("10.0.0.5:80")));
    let ip: Ipv6Addr = "2001:db8::5".parse().expect("an IP address");
    let v6 = [&10_u16.to_ne_bytes()[..], &80_u16.to_be_bytes(), &[1, 2, 3, 4], &ip.octets(), &[0; 4]].concat();
    assert_eq!(ADDRESS_MAX, std::mem::size_of::<libc::sockaddr_un>());
    assert_eq!(address(&v6), Some(at("[2001:db8::5]:80")));
    for len in 0..v4.len() {
        assert_eq!(address(&v4[..len]).is_some(), len >= 8);
    }
    for len in 0..v6.len() {
        assert_eq!(address(&v6[..len]).is_some(), len >= 24);
    }
    // Unix sockets, netlink, none.
    for family in [0_u16, 1, 3, 9, 11, 16, u16::MAX] {
        let bytes = [&family.to_ne_bytes()[..], &[0xff; 26]].concat();
        assert_eq!(address(&bytes), None);
    }
}

#[test]
fn paths_are_read_from_any_bytes() {
    for (bytes, expected) in [
        (&b"\x01\x00/run/a.sock\0"[..], Some(&b"/run/a.sock"[..])),
        (b"\x01\x00/run/a.sock", Some(b"/run/a.sock")),
        // Abstract, without a name, of another family, and cut.
        (b"\x01\x00\0name", None),
        (b"\x01\x00", None),
        (b"\x02\x00/run/a.sock", None),
        (b"\x01", None),
        (b"", None),
    ] {
        assert_eq!(path(bytes), expected, "{bytes:?}");
    }
}
