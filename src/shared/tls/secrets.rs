//! The secrets of session tickets, in memory that the parent writes and workers read.
//!
//! A secret is known by its number, which grows by one with each period. The previous one still opens tickets, the
//! current one also seals them, and the next one lies ready, so that a worker never meets a number that it lacks.

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use ring::hkdf::{KeyType, Salt, HKDF_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::files::read;
use super::settings::TicketConfig;
use crate::error::{Error, Result};
use crate::sys::clock;
use crate::sys::shared::{self, ReadOnly, Writable};
use crate::time::Time;

/// The length of a secret in words, and in bytes.
const WORDS: usize = 4;
pub(super) const LEN: usize = WORDS * 8;

/// The number of secrets that the memory holds: one more than are in use, so that none is overwritten that is.
const PLACES: u64 = 4;

// The words: the current number, then the places: a number plus one, and a secret.
const CURRENT: usize = 0;
const PLACE: usize = 1;
const PLACE_WORDS: usize = 1 + WORDS;
const ALL: usize = PLACE + PLACES as usize * PLACE_WORDS;

/// A secret. It is overwritten when it is dropped.
pub(super) type Secret = Zeroizing<[u8; LEN]>;

/// The secrets, for workers.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    words: ReadOnly,
    period: Duration,
}

impl Secrets {
    /// The number of the secret for new tickets.
    pub(super) fn current(&self) -> u64 {
        self.words.words()[CURRENT].load(Acquire)
    }

    /// The secret with a number, if its tickets are to be opened.
    pub(super) fn get(&self, number: u64) -> Option<Secret> {
        let current = self.current();
        // Another process may have seen the next period begin.
        let is_valid = number.checked_add(1)? >= current && number <= current.checked_add(1)?;
        if !is_valid {
            return None;
        }
        let place = &self.words.words()[place(number)..][..PLACE_WORDS];
        let is_it = |word: u64| word == number.wrapping_add(1);
        let is_before = is_it(place[0].load(Acquire));
        let mut secret = Secret::default();
        for (bytes, word) in secret.chunks_exact_mut(8).zip(&place[1..]) {
            bytes.copy_from_slice(&word.load(Acquire).to_ne_bytes());
        }
        (is_before && is_it(place[0].load(Relaxed))).then_some(secret)
    }

    /// How long a ticket is valid.
    pub(super) fn lifetime(&self) -> Duration {
        self.period
    }

    /// As seconds since 1970.
    pub(super) fn now() -> u64 {
        clock::unix_millis() / 1000
    }
}

fn place(number: u64) -> usize {
    PLACE + (number % PLACES) as usize * PLACE_WORDS
}

/// Where the secrets come from.
enum Origin {
    /// Drawn at random.
    Random,
    /// Derived from a file that several hosts have, by the number of the period since 1970.
    File(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Random => "Random",
            Origin::File(_) => "File",
        })
    }
}

/// The secrets in the parent, which draws them.
#[derive(Debug)]
pub(crate) struct SecretBoard {
    words: Writable,
    readable: ReadOnly,
    origin: Origin,
    period: Duration,
    /// When the current period began, in milliseconds since 1970.
    began: u64,
    /// When to look whether it has ended.
    due: Time,
}

impl SecretBoard {
    /// The secrets that a configuration asks for; `None` for no tickets. Those of the pool from which this one takes
    /// over are used on.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, or the system has no memory or no random numbers.
    pub(crate) fn new(config: &TicketConfig, inherited: Option<OwnedFd>) -> Result<Option<SecretBoard>> {
        if config.period.is_zero() {
            return Ok(None);
        }
        let origin = match &config.secret {
            Some(path) => Origin::File(read_secret(path)?),
            None => Origin::Random,
        };
        let made = shared::words(c"forkpool-tickets", NonZeroUsize::MIN.saturating_add(ALL - 1));
        let (words, readable) =
            made.map_err(|source| Error::system("map the secrets of session tickets with mmap(2)", source))?;
        let period = config.period;
        let mut board = SecretBoard { words, readable, origin, period, began: clock::unix_millis(), due: clock::now() };
        // Those that follow from a file are what it says now.
        let inherited = inherited.filter(|_| matches!(board.origin, Origin::Random));
        let inherited = inherited.and_then(|file| board.restore(&file));
        if inherited.is_none() {
            let number = board.number_now().unwrap_or(1);
            board.fill(number)?;
        }
        board.turn(clock::now())?;
        Ok(Some(board))
    }

    pub(crate) fn secrets(&self) -> Secrets {
        Secrets { words: self.readable.clone(), period: self.period }
    }

    pub(crate) fn deadline(&self) -> Time {
        self.due
    }

    /// Begins the next period if the current one has ended.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers. The current secret is used on then.
    pub(crate) fn turn(&mut self, now: Time) -> Result<()> {
        if now < self.due {
            return Ok(());
        }
        let millis = clock::unix_millis();
        let period = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        // A clock that was set back lengthens no period.
        let passed = millis.saturating_sub(self.began);
        self.began = self.began.min(millis);
        let left = match self.number_now() {
            Some(number) => {
                if number != self.current() {
                    self.fill(number)?;
                }
                period - millis % period
            }
            None if passed >= period => {
                // After a long sleep, no secret may be used on that has had its time.
                let steps = (passed / period).min(PLACES);
                for _ in 0..steps {
                    self.fill(self.current() + 1)?;
                }
                self.began = millis;
                period
            }
            None => period - passed,
        };
        // Looking at least once an hour notices a clock that was set.
        self.due = now + Duration::from_millis(left.clamp(1, 3_600_000));
        Ok(())
    }

    fn current(&self) -> u64 {
        self.words.words()[CURRENT].load(Relaxed)
    }

    /// The number that the clock asks for, if several hosts must agree.
    fn number_now(&self) -> Option<u64> {
        match &self.origin {
            Origin::Random => None,
            Origin::File(_) => Some(clock::unix_millis() / u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Makes this number the current one, with its neighbours.
    fn fill(&mut self, number: u64) -> Result<()> {
        for number in [number.saturating_sub(1), number, number + 1] {
            let is_there = self.words.words()[place(number)].load(Relaxed) == number + 1;
            if !is_there {
                let secret = self.make(number)?;
                self.put(number, &secret);
            }
        }
        self.words.words()[CURRENT].store(number, Release);
        Ok(())
    }

    fn make(&self, number: u64) -> Result<Secret> {
        let mut secret = Secret::default();
        match &self.origin {
            Origin::Random => SystemRandom::new().fill(&mut secret[..]).map_err(|_| {
                let source = io::Error::last_os_error();
                Error::system("draw a secret for session tickets with getrandom(2)", source)
            })?,
            Origin::File(bytes) => {
                let salt = Salt::new(HKDF_SHA256, b"forkpool session tickets");
                let made = derive(&salt, bytes, &[&number.to_be_bytes()]);
                secret = made.ok_or_else(|| Error::config("tls-ticket-secret", "no secret can be derived from it"))?;
            }
        }
        Ok(secret)
    }

    fn put(&self, number: u64, secret: &Secret) {
        let place = &self.words.words()[place(number)..][..PLACE_WORDS];
        // A reader that is interrupted by this finds another number than before.
        place[0].store(0, Release);
        for (word, bytes) in place[1..].iter().zip(secret.chunks_exact(8)) {
            let mut value = [0; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(value), Release);
        }
        place[0].store(number + 1, Release);
    }

    /// A copy of the secrets, for the pool that takes over.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        // With room for all, so that it grows at no place where it is not overwritten.
        let mut bytes = Zeroizing::new(Vec::with_capacity((ALL + 1) * 8));
        bytes.extend_from_slice(&self.began.to_ne_bytes());
        self.words.words()[..ALL].iter().for_each(|word| bytes.extend_from_slice(&word.load(Relaxed).to_ne_bytes()));
        shared::file(c"forkpool-tickets", &bytes)
    }

    /// Takes the secrets of another pool; `None` if they are of no use here.
    fn restore(&mut self, file: &impl AsFd) -> Option<()> {
        let bytes = Zeroizing::new(read_all(file.as_fd(), (ALL + 1) * 8).ok()?);
        let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        let began = words.next()?;
        let read: Zeroizing<Vec<u64>> = Zeroizing::new(words.collect());
        if read.len() != ALL {
            return None;
        }
        self.began = began;
        self.words.words().iter().zip(&*read).for_each(|(word, value)| word.store(*value, Release));
        Some(())
    }
}

fn read_all(file: BorrowedFd<'_>, len: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::from(file.try_clone_to_owned()?);
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Checks the file that a configuration names, which is otherwise read at the start.
///
/// # Errors
///
/// If the file cannot be used.
pub(crate) fn check_secret(config: &TicketConfig) -> Result<()> {
    config.secret.as_deref().map_or(Ok(()), |path| read_secret(path).map(drop))
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let shown = path.display().to_string();
    let bytes = Zeroizing::new(read(path, "read the secret of session tickets in", "tls-ticket-secret")?);
    if bytes.len() < LEN {
        let problem = format!(
            "{shown} has {} bytes and needs at least {LEN}; make it with: openssl rand -out {shown} 80",
            bytes.len()
        );
        return Err(Error::config("tls-ticket-secret", problem));
    }
    Ok(bytes)
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        LEN
    }
}

/// HKDF (RFC 5869). `None` never happens with this length.
pub(super) fn derive(salt: &Salt, secret: &[u8], info: &[&[u8]]) -> Option<Secret> {
    let mut out = Secret::default();
    salt.extract(secret).expand(info, Len).and_then(|key| key.fill(&mut out[..])).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(period: Duration, secret: Option<&Path>, inherited: Option<OwnedFd>) -> SecretBoard {
        let config = TicketConfig { period, secret: secret.map(Path::to_owned) };
        SecretBoard::new(&config, inherited).expect("memory").expect("tickets are wanted")
    }

    fn known(secrets: &Secrets) -> Vec<u64> {
        (0..20).filter(|number| secrets.get(*number).is_some()).collect()
    }

    #[test]
    fn the_previous_the_current_and_the_next_secret_are_known() {
        let mut board = board(Duration::from_secs(3600), None, None);
        let secrets = board.secrets();
        assert_eq!((secrets.current(), known(&secrets)), (1, vec![0, 1, 2]));
        let next = secrets.get(2);
        for number in 2..10 {
            board.fill(number).expect("random numbers");
            assert_eq!((secrets.current(), known(&secrets)), (number, vec![number - 1, number, number + 1]));
        }
        assert!(secrets.get(u64::MAX).is_none());
        assert_ne!(next, secrets.get(9), "each is drawn");
    }

    #[test]
    fn a_period_ends_by_the_clock() {
        let mut board = board(Duration::from_secs(3600), None, None);
        let now = clock::now();
        assert!(board.deadline() > now);
        board.turn(board.deadline()).expect("random numbers");
        assert_eq!(board.current(), 1, "the clock that others see has not moved");
        board.began -= 3_600_000;
        board.turn(board.deadline()).expect("random numbers");
        assert_eq!(board.current(), 2);
        let old = board.secrets().get(2);
        board.began -= 100 * 3_600_000;
        board.turn(board.deadline()).expect("random numbers");
        assert_eq!(board.current(), 6);
        assert!(!known(&board.secrets()).into_iter().any(|number| board.secrets().get(number) == old));
    }

    #[test]
    fn the_pool_that_takes_over_has_the_same_secrets() {
        let first = board(Duration::from_secs(3600), None, None);
        let copy = first.copy().expect("a file in memory");
        let second = board(Duration::from_secs(3600), None, Some(copy));
        for number in [0, 1, 2] {
            assert_eq!(first.secrets().get(number), second.secrets().get(number));
        }
        assert_eq!(first.began, second.began);
        // Anything else is not taken.
        let other = shared::file(c"x", b"short").expect("a file in memory");
        let third = board(Duration::from_secs(3600), None, Some(other));
        assert_ne!(first.secrets().get(1), third.secrets().get(1));
    }

    #[test]
    fn hosts_with_the_same_file_have_the_same_secrets() {
        let path = std::env::temp_dir().join(format!("forkpool-tickets-{}", std::process::id()));
        fs::write(&path, [7; 48]).expect("written");
        // Long, so that it ends in neither of the two.
        let period = Duration::from_secs(24 * 3600);
        let (one, two) = (board(period, Some(&path), None), board(period, Some(&path), None));
        let current = one.current();
        let of = |board: &SecretBoard| board.secrets().get(current);
        assert_eq!(of(&one), of(&two));
        assert!(of(&one).is_some());
        assert!(!format!("{one:?}").contains("7, 7"), "no secret is shown");
        // The file was replaced before an upgrade.
        fs::write(&path, [8; 48]).expect("written");
        let upgraded = board(period, Some(&path), Some(one.copy().expect("a file in memory")));
        for number in [current, current + 1] {
            assert_ne!(upgraded.secrets().get(number), one.secrets().get(number), "{number}");
        }
        fs::write(&path, [7; 31]).expect("written");
        let error = read_secret(&path).expect_err("too short").report();
        assert!(error.contains("has 31 bytes and needs at least 32; make it with: openssl rand -out"), "{error}");
        fs::remove_file(&path).expect("removed");
    }
}
