//! Which certificate a client gets: by the name that it asks for, and the signatures that it understands.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    /// The name in the latest ClientHello on this thread. The library passes it only to the resolver of certificates.
    static SERVER_NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The host name in the ClientHello that was just processed, if there was one.
pub(crate) fn take_server_name() -> Option<Box<str>> {
    SERVER_NAME.take()
}

/// The certificates, by the names that they are for.
#[derive(Debug)]
pub(super) struct Choice {
    all: Vec<Arc<CertifiedKey>>,
    /// The indexes of those for a name, in the order of the settings. A wildcard is a name that begins with a dot.
    by_name: HashMap<String, Vec<usize>>,
}

impl Choice {
    /// The certificates with the names that they are for, in lower case. The first is for all other names.
    pub(super) fn new(certificates: impl IntoIterator<Item = (Arc<CertifiedKey>, Vec<String>)>) -> Choice {
        let mut choice = Choice { all: Vec::new(), by_name: HashMap::new() };
        for (index, (key, names)) in certificates.into_iter().enumerate() {
            choice.all.push(key);
            for name in names {
                let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&name).to_owned();
                choice.by_name.entry(name).or_default().push(index);
            }
        }
        choice
    }

    /// The indexes of the certificates for a name: those that have it exactly, then those with a wildcard for its first
    /// label.
    fn named(&self, name: &str) -> impl Iterator<Item = usize> + '_ {
        let name = name.to_ascii_lowercase();
        let wildcard = name.find('.').and_then(|dot| self.by_name.get(&name[dot..]));
        self.by_name.get(&name).into_iter().chain(wildcard).flatten().copied()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        SERVER_NAME.set(hello.server_name().map(|name| name.to_ascii_lowercase().into()));
        let schemes = hello.signature_schemes();
        let is_understood = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = hello.server_name().into_iter().flat_map(|name| self.named(name));
        // A client that understands none of those gets an error that says so.
        let keys = || named.map(|index| &self.all[index]).chain(&self.all);
        keys().find(is_understood).or_else(|| self.all.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_own_certificate_before_that_of_a_wildcard() {
        let mut choice = Choice { all: Vec::new(), by_name: HashMap::new() };
        for (index, names) in
            [&["a.example"][..], &["*.example", "example"], &["b.example", "a.example"]].iter().enumerate()
        {
            for name in *names {
                let name = name.strip_prefix('*').unwrap_or(name).to_owned();
                choice.by_name.entry(name).or_default().push(index);
            }
        }
        for (name, found) in [
            ("a.example", &[0, 2, 1][..]),
            ("A.Example", &[0, 2, 1]),
            ("b.example", &[2, 1]),
            ("c.example", &[1]),
            ("example", &[1]),
            ("c.d.example", &[]),
            (".example", &[1, 1]),
            ("", &[]),
        ] {
            assert_eq!(choice.named(name).collect::<Vec<_>>(), found, "{name}");
        }
    }
}
