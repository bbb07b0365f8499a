//! The end of this pool and the beginning of the next one, or the other way round.
//!
//! It owns the ends of the streams to the pool that takes over from this one, and to the one that this one takes over
//! from. In come the supervisor's wish for an upgrade, and what the two streams say; out come facts for the supervisor.
//!
//! **Upgrade.** The parent executes its own program again, with every socket open and a variable that says which is
//! which. The new parent gives the sockets to its own slots, in the order of the group, and starts its workers; they
//! serve beside the old ones. When all are ready it begins to steer, writes the pid file, and says so; the old pool
//! then drains. Until that word the old pool does nothing but wait, and forgets the new one if it exits or is late. A
//! stop that the old pool is asked for before that word ends both, also while it is a lame duck; after it, the old
//! one alone, which is leaving anyway.

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
use crate::parent::successor::{Inheritance, Predecessor, Successor};
use crate::parent::supervisor::{Event, Pid};
use crate::parent::wakeups::Wakeups;
use crate::shared::config::{Address, Config};
use crate::shared::listener::{self, AdminListener, Reserved, SlotSockets};

/// The pools before and behind this one, while they are there.
#[derive(Debug)]
pub(super) struct Takeover {
    /// The new binary during an upgrade.
    successor: Option<Successor>,
    /// The pool that this one takes over from, until it has let go of the sockets.
    predecessor: Option<Predecessor>,
}

impl Takeover {
    pub(super) fn new(predecessor: Option<Predecessor>) -> Takeover {
        Takeover { successor: None, predecessor }
    }

    pub(super) fn has_successor(&self) -> bool {
        self.successor.is_some()
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
        admin: Option<&Admin>,
        wakeups: &Wakeups,
        journal: &mut Journal,
    ) -> Event {
        let addresses: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
        let slots = sockets.slots().iter().filter_map(|slot| sockets.of(*slot));
        let admin_address = config.admin.as_ref().map(ToString::to_string).unwrap_or_default();
        let admin = admin.and_then(|admin| Some((admin_address.as_str(), admin.listener().fd()?)));
        let spawned = match process::id() {
            1 => Err(io::Error::other("as PID 1 this process cannot leave; replace the container")),
            _ => Successor::spawn(&addresses, sockets.reserved(), &slots.collect::<Vec<_>>(), admin),
        };
        let heard = spawned.and_then(|successor| {
            let registered = wakeups.listen_to(successor.stream(), Source::Successor).map_err(io::Error::other);
            registered.map(|()| successor)
        });
        match heard {
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

    /// Whether the new binary has said that it serves, now that it has said something or is gone.
    pub(super) fn hear_successor(&mut self, wakeups: &Wakeups) -> bool {
        let Some(successor) = &mut self.successor else { return false };
        let serves = successor.serves();
        if !serves {
            // It is gone, which its exit will tell; or it has closed its end, and its time-out will.
            wakeups.forget(successor.stream());
        }
        serves
    }

    /// The new binary is no business of this pool's any more: it has exited, or it serves. When what is returned is
    /// dropped, the stream ends, which tells it that it has everything.
    pub(super) fn end_successor(&mut self) -> Option<Successor> {
        self.successor.take()
    }

    /// This pool serves: tells the one that has started it, which may leave, and waits for that.
    pub(super) fn serve(&mut self, wakeups: &Wakeups) {
        let Some(predecessor) = &mut self.predecessor else { return };
        predecessor.serve();
        if let Err(error) = wakeups.listen_to(predecessor.stream(), Source::Predecessor) {
            error!("cannot listen to the old pool: {error}");
        }
    }

    /// The other pool has let go of the sockets, or is gone. Whether that is new.
    pub(super) fn hear_predecessor(&mut self) -> bool {
        self.predecessor.take().is_some()
    }
}

/// Where to listen.
pub(super) struct Addresses {
    pub(super) reserved: Vec<Reserved>,
    /// The slots' sockets that another pool has handed over.
    pub(super) slots: Vec<SlotSockets>,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) admin: Option<AdminListener>,
}

/// What another pool hands over, what a service manager gives, else what is configured.
pub(super) fn addresses(config: &Config) -> Result<Addresses> {
    let admin = |handed_over: &mut dyn FnMut(&str) -> Option<OwnedFd>| {
        let listen = |address: &Address| AdminListener::listen(address, handed_over(&address.to_string()));
        config.admin.as_ref().map(listen).transpose()
    };
    let taken = Inheritance::take()
        .map_err(|source| Error::system("take over the sockets of the pool that has started this one", source))?;
    let Some(mut inheritance) = taken else {
        let given = service::given()?;
        let mut reserved = match given.is_empty() {
            true => listener::reserve(&config.addresses, config.backlog, config.unix_mode, |_| None)?,
            false => given,
        };
        reserved.extend(listener::reserve_udp(&config.udp, |_| None)?);
        return Ok(Addresses { reserved, slots: Vec::new(), predecessor: None, admin: admin(&mut |_| None)? });
    };
    let mut reserved = inheritance.given()?;
    if reserved.is_empty() {
        let handed_over = |address: &str| inheritance.reserved(address);
        reserved = listener::reserve(&config.addresses, config.backlog, config.unix_mode, handed_over)?;
    }
    reserved.extend(listener::reserve_udp(&config.udp, |name| inheritance.udp(name))?);
    let admin = admin(&mut |address| inheritance.admin(address))?;
    let (slots, predecessor) = inheritance.finish();
    Ok(Addresses { reserved, slots, predecessor: Some(predecessor), admin })
}
