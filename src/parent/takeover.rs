//! Upgrades: the end of this pool and the beginning of the next one, or vice versa.
//!
//! It owns the streams to the pool that takes over from this one, and to the pool from which this one takes over. Its
//! input: the supervisor's request for an upgrade, and the messages on the two streams. Its output: events for the
//! supervisor.
//!
//! **Upgrade.** The parent executes its own program again, with all sockets open and a variable that describes them.
//! The new parent assigns the sockets to its own slots, in the order of the group, and starts its workers; they serve
//! beside the old ones. When all are ready it begins to steer, writes the pid file, and reports that it serves. The old
//! pool then drains. Until that report the old pool only waits, and forgets the new one if it exits or is late. A
//! request to stop that the old pool gets before the report ends both pools, even while it is a lame duck. After the
//! report it only ends the old pool, which is leaving anyway. An old pool of programs steers for a moment longer, so
//! that each program gets no connections before it is told to finish (`leaving.rs`); the new one steers again once the
//! stream ends.

use std::io;
use std::os::fd::OwnedFd;
use std::process;

use log::error;

use crate::error::{Error, Result};
use crate::parent::admin::Admin;
use crate::parent::journal::Journal;
use crate::parent::service;
use crate::parent::sockets::Sockets;
use crate::parent::source::Source;
use crate::parent::spawn::fork_remedy;
use crate::parent::successor::{HandedOver, Inheritance, Predecessor, Successor};
use crate::parent::supervisor::{Event, Pid};
use crate::parent::wakeups::Wakeups;
use crate::shared::config::{Address, Config};
use crate::shared::handover::Pair;
use crate::shared::listener::{self, AdminListener, Reserved, SlotSockets};

/// The pools before and after this one, while they exist.
#[derive(Debug)]
pub(super) struct Takeover {
    /// The new binary during an upgrade.
    successor: Option<Successor>,
    /// The same once it serves, while this pool still steers.
    served: Option<Successor>,
    /// The old pool, until it has released the sockets.
    predecessor: Option<Predecessor>,
}

impl Takeover {
    pub(super) fn new(predecessor: Option<Predecessor>) -> Takeover {
        Takeover { successor: None, served: None, predecessor }
    }

    pub(super) fn has_successor(&self) -> bool {
        self.successor.is_some()
    }

    /// Whether the new binary holds the sockets, while this pool still manages them.
    pub(super) fn holds_copies(&self) -> bool {
        self.successor.is_some() || self.served.is_some()
    }

    pub(super) fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The process of the new binary.
    pub(super) fn successor(&self) -> Option<Pid> {
        Some(Pid(self.successor.as_ref()?.pid))
    }

    /// Starts the new binary, with all sockets.
    pub(super) fn upgrade(
        &mut self,
        config: &Config,
        sockets: &Sockets,
        handed_over: HandedOver<'_>,
        admin: Option<&Admin>,
        wakeups: &Wakeups,
        journal: &mut Journal,
    ) -> Event {
        let addresses: Vec<String> = config.listened().iter().map(ToString::to_string).collect();
        let slots = sockets.custody().slots().iter().filter_map(|slot| sockets.custody().sockets(*slot));
        let admin_address = config.admin.address.as_ref().map(ToString::to_string).unwrap_or_default();
        let admin = admin.and_then(|admin| Some((admin_address.as_str(), admin.listener().fd()?)));
        let spawned = match process::id() {
            1 => Err(io::Error::other("as PID 1 this process cannot leave; replace the container")),
            _ => Successor::spawn(&addresses, sockets.addresses.all(), &slots.collect::<Vec<_>>(), handed_over, admin),
        };
        let reports = spawned.and_then(|successor| {
            let registered = wakeups.listen_to(successor.stream(), Source::Successor).map_err(io::Error::other);
            registered.map(|()| successor)
        });
        match reports {
            Ok(successor) => {
                let pid = Pid(successor.pid);
                self.successor = Some(successor);
                Event::SuccessorSpawned { pid }
            }
            Err(error) => {
                journal.upgrade_failure = Some(format!("{error}{}", fork_remedy(&error)));
                Event::SuccessorGone { exit: None }
            }
        }
    }

    /// Whether the new binary has reported that it serves, and in how many slots it takes connections over; called when
    /// it has sent something or has gone.
    pub(super) fn read_successor(&mut self, wakeups: &Wakeups) -> Option<usize> {
        let successor = self.successor.as_mut()?;
        let serves = successor.serves();
        if serves.is_none() {
            // If it has gone, its exit will show that; if it has closed its end, its timeout will.
            wakeups.forget(successor.stream());
        }
        serves
    }

    /// This pool no longer watches the new binary: it has exited, or it serves. Dropping the result ends the stream,
    /// which tells the new pool that it has everything.
    pub(super) fn end_successor(&mut self) -> Option<Successor> {
        self.successor.take()
    }

    /// This pool steers for a moment although the new one serves, which must not yet know that it has everything.
    pub(super) fn keep(&mut self, successor: Successor, wakeups: &Wakeups) {
        wakeups.forget(successor.stream());
        self.served = Some(successor);
    }

    /// The new pool has everything.
    pub(super) fn let_go(&mut self) {
        self.served = None;
    }

    /// This pool serves: reports that to the old pool, which may leave, and waits for that. Also reports the number of
    /// slots in which it takes connections over.
    pub(super) fn serve(&mut self, slots: usize, wakeups: &Wakeups) {
        let Some(predecessor) = &mut self.predecessor else { return };
        predecessor.serve(slots);
        if let Err(error) = wakeups.listen_to(predecessor.stream(), Source::Predecessor) {
            error!("cannot listen to the old pool: {error}");
        }
    }

    /// The old pool has released the sockets, or has gone. Returns whether that is new.
    pub(super) fn read_predecessor(&mut self) -> bool {
        self.predecessor.take().is_some()
    }
}

/// The addresses to listen on.
pub(super) struct Addresses {
    pub(super) reserved: Vec<Reserved>,
    /// The slots' sockets that the old pool has handed over.
    pub(super) slots: Vec<SlotSockets>,
    /// The pairs of sockets by which connections are passed on, by slot.
    pub(super) pairs: Vec<Option<Pair>>,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) admin: Option<AdminListener>,
    /// The secrets of the old pool's session tickets.
    pub(super) tickets: Option<OwnedFd>,
}

/// Reserves the addresses of a configuration.
fn reserve(config: &Config, handed_over: impl FnMut(&str) -> Option<OwnedFd>) -> Result<Vec<Reserved>> {
    let mut reserved =
        listener::reserve(&config.listened(), config.listening.backlog, config.listening.unix_mode, handed_over)?;
    // They come last.
    reserved[config.listening.addresses.len()..].iter_mut().for_each(Reserved::speak_tls);
    Ok(reserved)
}

/// The addresses from the old pool, from a service manager, or else from the configuration.
pub(super) fn addresses(config: &Config) -> Result<Addresses> {
    let admin = |handed_over: &mut dyn FnMut(&str) -> Option<OwnedFd>| {
        let listen = |address: &Address| AdminListener::listen(address, handed_over(&address.to_string()));
        config.admin.address.as_ref().map(listen).transpose()
    };
    let taken = Inheritance::take()
        .map_err(|source| Error::system("take over the sockets of the pool that has started this one", source))?;
    let Some(mut inheritance) = taken else {
        let given = service::given()?;
        let mut reserved = match given.is_empty() {
            true => reserve(config, |_| None)?,
            false if !config.listening.tls.addresses.is_empty() => {
                let problem = "the service manager gives the sockets (LISTEN_FDS), and none for TLS; leave one out";
                return Err(Error::config("tls-listen", problem));
            }
            false => given,
        };
        reserved.extend(listener::reserve_udp(&config.listening.udp, |_| None)?);
        return Ok(Addresses {
            reserved,
            slots: Vec::new(),
            pairs: Vec::new(),
            predecessor: None,
            admin: admin(&mut |_| None)?,
            tickets: None,
        });
    };
    let mut reserved = inheritance.given()?;
    if reserved.is_empty() {
        reserved = reserve(config, |address: &str| inheritance.reserved(address))?;
    }
    reserved.extend(listener::reserve_udp(&config.listening.udp, |name| inheritance.udp(name))?);
    let admin = admin(&mut |address| inheritance.admin(address))?;
    let pairs = inheritance.pairs();
    let tickets = inheritance.tickets();
    let (slots, predecessor) = inheritance.finish();
    Ok(Addresses { reserved, slots, pairs, predecessor: Some(predecessor), admin, tickets })
}
