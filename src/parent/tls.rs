//! The parent's part of TLS: it draws the secrets of session tickets, and warns when certificates expire.
//!
//! It owns the secrets. Its input: the time. Its output: lines in the log. Without the feature `tls` it does nothing.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::journal::Journal;
#[cfg(feature = "tls")]
use super::subject::Subject;
use crate::error::Result;
use crate::shared::config::Config;
#[cfg(feature = "tls")]
use crate::shared::tls::{SecretBoard, Secrets};
#[cfg(feature = "tls")]
use crate::sys::clock;
use crate::time::Time;

/// How long before it expires to warn of a certificate, and how often.
#[cfg(feature = "tls")]
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How long to wait after the system had no random numbers.
#[cfg(feature = "tls")]
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The parent's part of TLS.
#[derive(Debug)]
pub(super) struct Tls {
    #[cfg(feature = "tls")]
    secrets: Option<SecretBoard>,
    /// When to check the certificates again.
    next_check: Time,
    /// When to try again to draw a secret.
    #[cfg(feature = "tls")]
    retry: Time,
}

impl Tls {
    /// `inherited` are the secrets of the pool from which this one takes over.
    ///
    /// # Errors
    ///
    /// If there is no memory for the secrets, or no random numbers.
    pub(super) fn new(config: &Config, inherited: Option<OwnedFd>, now: Time) -> Result<Tls> {
        #[cfg(not(feature = "tls"))]
        drop(inherited);
        let next_check = if config.listening.tls.is_wanted() { now } else { Time::NEVER };
        Ok(Tls {
            #[cfg(feature = "tls")]
            secrets: match config.listening.tls.is_wanted() {
                true => SecretBoard::new(&config.listening.tls.tickets, inherited)?,
                false => None,
            },
            next_check,
            #[cfg(feature = "tls")]
            retry: now,
        })
    }

    /// The secrets for a worker.
    #[cfg(feature = "tls")]
    pub(super) fn secrets(&self) -> Option<Secrets> {
        self.secrets.as_ref().map(SecretBoard::secrets)
    }

    /// The secrets for the pool that takes over. If they cannot be passed on, its clients shake hands anew.
    pub(super) fn pass_on(&self) -> Option<OwnedFd> {
        #[cfg(feature = "tls")]
        if let Some(copy) = self.secrets.as_ref().map(SecretBoard::copy) {
            return copy
                .inspect_err(|error| {
                    log::warn!("cannot pass the secrets of session tickets on with memfd_create(2): {error}")
                })
                .ok();
        }
        None
    }

    pub(super) fn deadline(&self) -> Time {
        #[cfg(feature = "tls")]
        if let Some(secrets) = &self.secrets {
            return self.next_check.min(secrets.deadline().max(self.retry));
        }
        self.next_check
    }

    /// Draws a secret, and checks the certificates, if it is time.
    pub(super) fn check(&mut self, config: &Config, journal: &mut Journal, now: Time) {
        #[cfg(feature = "tls")]
        if let Some(secrets) = self.secrets.as_mut().filter(|secrets| secrets.deadline() <= now && self.retry <= now) {
            if let Err(error) = secrets.turn(now) {
                self.retry = now + RETRY_DELAY;
                journal.log(log::Level::Error, Subject::pool("ticket_secret_failed"), error.report());
            }
        }
        if self.next_check <= now {
            self.next_check = now + WARN_INTERVAL;
            warn_of_expiry(config, journal);
        }
    }

    /// Other certificates may be in use.
    pub(super) fn check_soon(&mut self, config: &Config, now: Time) {
        if config.listening.tls.is_wanted() {
            self.next_check = now;
        }
    }
}

#[cfg(feature = "tls")]
fn warn_of_expiry(config: &Config, journal: &mut Journal) {
    let Some(keyring) = &config.server.tls else { return };
    let now = clock::unix_millis() / 1000;
    for (file, until) in keyring.expiries() {
        if let Some(how) = how_it_expires(until, now) {
            let text = format!("certificate {} {how}; renew it and restart", file.display());
            journal.log(log::Level::Warn, Subject::pool("certificate_expires"), text);
        }
    }
}

/// What to say about a certificate that is valid until then, if something has to be said.
#[cfg(feature = "tls")]
fn how_it_expires(until: u64, now: u64) -> Option<String> {
    let Some(left) = until.checked_sub(now) else { return Some("has expired".to_owned()) };
    let is_soon = left < EXPIRES_SOON.as_secs();
    is_soon.then(|| match left / WARN_INTERVAL.as_secs() {
        0 => "expires within a day".to_owned(),
        1 => "expires in 1 day".to_owned(),
        days => format!("expires in {days} days"),
    })
}

#[cfg(not(feature = "tls"))]
fn warn_of_expiry(_: &Config, _: &mut Journal) {}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_expired_is_told_from_one_that_will() {
        const DAY: u64 = 24 * 3600;
        for (until, said) in [
            (100 * DAY - 1, Some("has expired")),
            (100 * DAY, Some("expires within a day")),
            (101 * DAY, Some("expires in 1 day")),
            (113 * DAY, Some("expires in 13 days")),
            (114 * DAY, None),
        ] {
            assert_eq!(how_it_expires(until, 100 * DAY).as_deref(), said, "{until}");
        }
    }
}
