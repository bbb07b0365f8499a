//! PURE. An address to listen on, as written in a flag, a variable or a call.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `:PORT`: all interfaces, IPv6 and IPv4 (IPv4 alone if the kernel has no IPv6).
    Any(u16),
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The longest path: `sun_path` without its final NUL (unix(7)).
    const UNIX_PATH_MAX: usize = 107;

    /// The port of an IPv4 address; `None` for port 0, which means a new port each time.
    pub(crate) fn ipv4_port(&self) -> Option<u16> {
        match self {
            Address::Tcp(SocketAddr::V4(tcp)) => Some(tcp.port()).filter(|port| *port != 0),
            _ => None,
        }
    }

    /// Whether other hosts may be able to connect.
    pub(crate) fn is_reached_from_outside(&self) -> bool {
        match self {
            Address::Any(_) => true,
            Address::Tcp(tcp) => !tcp.ip().to_canonical().is_loopback(),
            Address::Unix(_) => false,
        }
    }

    /// Whether a connection to `other` might also belong to this address.
    ///
    /// `[::]` and an IPv4 address do not overlap: next to an IPv4 address with the same port, `[::]` accepts IPv6 only.
    pub(crate) fn covers(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Unix(path), Address::Unix(other)) => path == other,
            (Address::Any(port), Address::Any(other)) => port == other && *port != 0,
            (Address::Any(port), Address::Tcp(other)) => *port == other.port() && *port != 0,
            (Address::Tcp(tcp), Address::Tcp(other)) => {
                let same_family = tcp.is_ipv4() == other.is_ipv4();
                let same_ip = tcp.ip() == other.ip() || tcp.ip().is_unspecified() && same_family;
                tcp.port() == other.port() && tcp.port() != 0 && same_ip
            }
            _ => false,
        }
    }

    fn unix(path: &str) -> Result<Address, String> {
        if path.is_empty() {
            return Err("needs a path, as in unix:/run/app.sock".into());
        }
        if path.starts_with('@') || path.contains('\0') {
            return Err("is abstract, so no permissions protect it; give a path, as in unix:/run/app.sock".into());
        }
        if path.len() > Address::UNIX_PATH_MAX {
            let (length, max) = (path.len(), Address::UNIX_PATH_MAX);
            return Err(format!("has a path of {length} bytes and may have {max}; choose a shorter one"));
        }
        if path.ends_with('/') {
            return Err("names a directory; add the socket's name, as in unix:/run/app.sock".into());
        }
        Ok(Address::Unix(PathBuf::from(path)))
    }
}

impl FromStr for Address {
    /// What is wrong, to follow the text: `needs a port, …`.
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Address::unix(path);
        }
        if text.is_empty() {
            return Err(format!("is empty; {FORMS}"));
        }
        if text.contains('/') {
            let remedy = match text.contains("://") {
                true => format!("is a URL; {FORMS}"),
                false => format!("looks like a path; write unix:{text}"),
            };
            return Err(remedy);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("is only a port; write :{text} for every interface, or 127.0.0.1:{text}"));
        }
        if let Ok(IpAddr::V6(ip)) = text.parse() {
            return Err(format!("needs brackets and a port, as in [{ip}]:8000"));
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            return Err(format!("needs a port, as in {text}:8000"));
        };
        let port = parse_port(port)?;
        match host {
            "" => return Ok(Address::Any(port)),
            // `localhost` always means this host (RFC 6761 section 6.3). IPv4, since some kernels have no IPv6.
            "localhost" => return Ok(Address::Tcp((Ipv4Addr::LOCALHOST, port).into())),
            _ => {}
        }
        let tcp = text.parse::<SocketAddr>().map_err(|_| match host.starts_with('[') {
            true => format!("has no IPv6 address in its brackets; {FORMS}"),
            false => format!("has no IP address, and host names are not looked up; {FORMS}"),
        })?;
        Ok(Address::Tcp(tcp))
    }
}

const FORMS: &str = "write 127.0.0.1:8000, [::1]:8000, :8000 (every interface) or unix:/run/app.sock";

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or_else(|| "needs a port from 0 (a free one) to 65535".into())
}

impl fmt::Display for Address {
    /// Formats the address so that it can be parsed again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any(port) => write!(f, ":{port}"),
            Address::Tcp(tcp) => write!(f, "{tcp}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_connect() {
        for (text, outside) in [
            ("127.0.0.1:1", false),
            ("127.1.2.3:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("localhost:1", false),
            ("unix:/run/x", false),
            (":1", true),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("192.0.2.1:1", true),
        ] {
            let address = text.parse::<Address>().expect(text);
            assert_eq!(address.is_reached_from_outside(), outside, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "127.0.0.1:8000",
            "0.0.0.0:0",
            "[::1]:8000",
            "[::]:65535",
            "[fe80::1%2]:80",
            ":8000",
            ":0",
            "unix:/run/x.sock",
            "unix:run/x.sock",
            "unix:x",
            "unix:/tmp/with blank,comma",
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.into()), "{text}");
        }
        assert_eq!(":8000".parse(), Ok(Address::Any(8000)));
        assert_eq!("localhost:8000".parse(), "127.0.0.1:8000".parse::<Address>());
        assert_eq!("unix:/x".parse(), Ok(Address::Unix("/x".into())));
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        let longest = format!("unix:/{}", "x".repeat(106));
        assert!(longest.parse::<Address>().is_ok());
        for (text, remedy) in [
            ("", "write 127.0.0.1:8000"),
            ("8000", "write :8000"),
            ("127.0.0.1", "as in 127.0.0.1:8000"),
            ("localhost", "as in localhost:8000"),
            ("[::1]", "as in [::1]:8000"),
            ("::1", "as in [::1]:8000"),
            ("::1:8000", "brackets"),
            ("[::zz]:8000", "no IPv6 address"),
            ("127.0.0.1:", "0 (a free one) to 65535"),
            ("127.0.0.1:65536", "0 (a free one) to 65535"),
            ("127.0.0.1:+80", "0 (a free one) to 65535"),
            ("127.0.0.1:http", "0 (a free one) to 65535"),
            ("127.0.0.256:80", "has no IP address"),
            ("example.org:80", "host names are not looked up"),
            ("*:80", ":8000 (every interface)"),
            ("http://127.0.0.1:80", "is a URL"),
            ("/run/x.sock", "write unix:/run/x.sock"),
            ("unix:", "needs a path"),
            ("unix:/run/", "names a directory"),
            ("unix:@name", "abstract"),
            ("unix:\0name", "abstract"),
            (&format!("{longest}x"), "108 bytes"),
        ] {
            let problem = text.parse::<Address>().expect_err(text);
            assert!(problem.contains(remedy), "{text}: {problem}");
            assert!(!problem.contains('\n'), "{text}: {problem}");
        }
    }

    #[test]
    fn addresses_overlap_when_one_connection_could_be_for_both() {
        for (one, other, overlap) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            (":0", ":0", false),
            (":0", "127.0.0.1:0", false),
            (":80", ":80", true),
            (":80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            (":80", "[::]:80", true),
            (":80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", false),
            ("[::]:80", "0.0.0.0:80", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            let parsed = |text: &str| text.parse::<Address>().expect("a valid address");
            let (one, other) = (parsed(one), parsed(other));
            assert_eq!(one.covers(&other) || other.covers(&one), overlap, "{one} and {other}");
        }
    }

    #[test]
    fn only_a_fixed_port_of_ipv4_keeps_ipv6_to_itself() {
        for (text, port) in
            [("127.0.0.1:80", Some(80)), ("0.0.0.0:0", None), ("[::]:80", None), (":80", None), ("unix:/x", None)]
        {
            assert_eq!(text.parse::<Address>().expect("a valid address").ipv4_port(), port, "{text}");
        }
    }
}
