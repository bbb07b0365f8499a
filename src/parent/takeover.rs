//! The end of this pool and the beginning of the next one, or the other way round.
//!
//! **Upgrade.** The parent executes its own program again, with every socket open and a variable that says which is
//! which. The new parent gives the sockets to its own slots, in the order of the group, and starts its workers; they
//! serve beside the old ones. When all are ready it begins to steer, writes the pid file, and says so; the old pool
//! then drains. Until that word the old pool does nothing but wait, and forgets the new one if it exits or is late. A
//! stop that the old pool is asked for before that word ends both, also while it is a lame duck; after it, the old
//! one alone, which is leaving anyway.

use std::os::fd::OwnedFd;

use super::spawn::fork_remedy;
use super::*;
use crate::shared::config::Address;
use crate::shared::listener::AdminListener;

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

impl Parent {
    pub(super) fn upgrade(&mut self) {
        let addresses: Vec<String> = self.config.addresses.iter().map(ToString::to_string).collect();
        let slots = self.custody.slots().iter().filter_map(|slot| self.custody.sockets(*slot));
        let admin_address = self.config.admin.as_ref().map(ToString::to_string).unwrap_or_default();
        let admin = self.admin.as_ref().and_then(|admin| Some((admin_address.as_str(), admin.listener().fd()?)));
        let spawned = match process::id() {
            1 => Err(io::Error::other("as PID 1 this process cannot leave; replace the container")),
            _ => Successor::spawn(&addresses, &self.reserved, &slots.collect::<Vec<_>>(), admin),
        };
        let heard = spawned.and_then(|successor| {
            let registered = self.listen_to(successor.stream(), Source::Successor).map_err(io::Error::other);
            registered.map(|()| successor)
        });
        match heard {
            Ok(successor) => {
                let pid = Pid(successor.pid);
                self.successor = Some(successor);
                self.tell(Event::SuccessorSpawned { pid });
            }
            Err(error) => {
                self.journal.upgrade_failure = Some(format!("{error}{}", fork_remedy(&error)));
                self.tell(Event::SuccessorGone { exit: None });
            }
        }
    }

    pub(super) fn hear_successor(&mut self) {
        let Some(successor) = &mut self.successor else { return };
        if successor.serves() {
            self.hand_over();
        } else {
            // It is gone, which its exit will tell; or it has closed its end, and its time-out will.
            self.wakeups.forget(successor.stream());
        }
    }

    /// The new pool serves: this one is history.
    pub(super) fn hand_over(&mut self) {
        self.tell(Event::SuccessorReady);
        // One that was told to leave before it said so leaves, and its exit is still to be told.
        if self.roster.supervisor.awaits_successor() {
            return;
        }
        // When this ends, the stream does, which tells it that it has everything.
        let Some(successor) = self.successor.take() else { return };
        self.custody.count_none();
        self.hand_over_admin();
        self.service.handed_over(successor.pid);
        if let Some(reserved) = Rc::get_mut(&mut self.reserved) {
            reserved.iter_mut().for_each(Reserved::hand_over);
        }
    }

    /// This pool serves: the one that has started it may leave.
    pub(super) fn take_over(&mut self, mut predecessor: Predecessor) {
        self.custody.begin_to_steer();
        // The other pool had more slots, perhaps; while it was there, its workers looked after them.
        let surplus = self.custody.slots().iter().copied().filter(|slot| *slot >= self.roster.supervisor.wanted());
        for slot in surplus.collect::<Vec<_>>() {
            self.custody.retire(slot, clock::now());
        }
        self.settle();
        self.pid.write_or_retry(self.config.pid_file.as_deref(), &mut self.journal);
        predecessor.serve();
        if let Some(reserved) = Rc::get_mut(&mut self.reserved) {
            reserved.iter_mut().for_each(Reserved::take_over);
        }
        if let Some(admin) = &mut self.admin {
            admin.take_over();
        }
        if let Err(error) = self.listen_to(predecessor.stream(), Source::Predecessor) {
            error!("cannot listen to the old pool: {error}");
        }
        self.predecessor = Some(predecessor);
    }

    /// The other pool has let go of the sockets, or is gone.
    pub(super) fn hear_predecessor(&mut self) {
        if self.predecessor.take().is_some() {
            self.custody.count_all_in();
        }
    }

    pub(super) fn reap_successor(&mut self, pid: Pid) {
        for fate in reap::fates(pid) {
            if let Fate::Exited(exit) = fate {
                // Its last word may be that it serves; then this is no longer our business.
                self.hear_successor();
                if self.successor.take().is_some() {
                    self.tell(Event::SuccessorGone { exit: Some(exit) });
                }
            }
        }
    }
}
