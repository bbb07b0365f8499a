//! The sockets of the pool: the reserved addresses, the slots' sockets, which worker looks after which queue, and the
//! repair of sockets that workers have broken.
//!
//! Its input: which workers serve ([`Roster`]), the sockets that workers have made, and the kernel's reports. Its
//! output: orders to workers, and events for the supervisor about workers to be replaced. It does not know why a worker
//! serves or not.
//!
//! - `addresses.rs`: the reserved addresses
//! - `custody.rs`: the parent's copies of the slots' sockets; `groups.rs`: their order in the kernel's groups;
//!   `steer.rs`: what the kernel is told about them
//! - `neighbours.rs`: PURE. Which workers look after each slot's queue besides its own
//! - `orders.rs`: how workers are told, and when the sockets of a removed slot are closed
//! - `queue_watch.rs`: the queues of workers with their own servers
//! - `mending.rs`: sockets that workers have broken

mod addresses;
mod custody;
mod groups;
mod mending;
mod neighbours;
mod orders;
mod queue_watch;
mod steer;

use std::rc::Rc;

use self::addresses::Addresses;
use self::custody::Custody;
use self::mending::{Mending, SHARED};
use self::neighbours::Neighbours;
use self::orders::{close_one_retired, may_have_program, send_orders};
use self::queue_watch::QueueWatch;
use self::steer::Steer;
use crate::error::{Error, Result};
use crate::parent::journal::Journal;
use crate::parent::leaving;
use crate::parent::process::{Process, Roster};
use crate::parent::source::Source;
use crate::parent::subject::Subject;
use crate::parent::supervisor::{Event, Pid, Recycle};
use crate::parent::wakeups::Wakeups;
use crate::shared::channel::NumberedSocket;
use crate::shared::config::Config;
use crate::shared::listener::{Reserved, SlotSockets};
use crate::shared::scoreboard::ParentBoard;
use crate::shared::steer::Steering;
use crate::time::Time;

/// All sockets through which clients reach the pool.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) addresses: Addresses,
    custody: Custody,
    neighbours: Neighbours,
    queue_watch: QueueWatch,
    mending: Mending,
    board: Rc<ParentBoard>,
}

impl Sockets {
    /// With these addresses, and the slots' sockets that the old pool has handed over. Registers for wake-ups when a
    /// socket is shut down.
    pub(super) fn new(
        reserved: Vec<Reserved>,
        inherited: Vec<SlotSockets>,
        steering: Steering,
        cpus: Rc<[usize]>,
        board: Rc<ParentBoard>,
        config: &Config,
        wakeups: &Wakeups,
    ) -> Result<Sockets> {
        let mending = Mending::new().map_err(|source| Error::system("watch sockets with epoll_create(2)", source))?;
        wakeups.listen_to(mending.hangups(), Source::Hangups)?;
        let sockets = Sockets {
            addresses: Addresses::new(reserved),
            custody: Custody::new(Steer::new(Rc::clone(&board), cpus, steering), inherited),
            neighbours: Neighbours::new(config.workers.neighbours),
            queue_watch: QueueWatch::default(),
            mending,
            board,
        };
        for slot in sockets.custody.slots() {
            guard(*slot, &sockets.custody, &sockets.mending);
        }
        sockets.addresses.shared().for_each(|socket| sockets.mending.guard(socket));
        Ok(sockets)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let mending = self.mending.deadline().filter(|_| !self.are_released());
        [self.queue_watch.deadline(), mending, self.custody.deadline()].into_iter().flatten().min()
    }

    /// The slots' sockets.
    pub(super) fn custody(&self) -> &Custody {
        &self.custody
    }

    /// Whether all sockets are here that a slot's worker needs.
    pub(super) fn are_complete(&self, slot: usize) -> bool {
        self.custody.sockets(slot).is_some_and(|sockets| sockets.is_complete(self.addresses.all()))
    }
}

/// Which pool has the sockets: another one, this one, or none.
impl Sockets {
    /// No other pool serves: this one steers.
    pub(super) fn begin_to_steer(&mut self) {
        self.custody.begin_to_steer();
    }

    /// No other pool has the sockets any more.
    pub(super) fn own(&mut self) {
        self.custody.begin_counting();
    }

    /// This pool serves and steers, while the old pool still has the sockets. The old pool may have had more slots;
    /// while it served, its workers looked after them.
    pub(super) fn take_over(&mut self, wanted: usize, now: Time) {
        self.custody.begin_to_steer();
        let surplus: Vec<usize> = self.custody.slots().iter().copied().filter(|slot| *slot >= wanted).collect();
        surplus.into_iter().for_each(|slot| self.custody.retire(slot, now));
    }

    /// Another pool serves, and counts connections from now on.
    pub(super) fn hand_over(&mut self) {
        self.custody.stop_counting();
        self.addresses.leave_names();
    }

    /// Drops the sockets of all addresses. Once the workers have accepted the queued connections and closed theirs, the
    /// ports are free.
    pub(super) fn release(&mut self) {
        self.queue_watch = QueueWatch::default();
        self.custody.clear();
        self.addresses.release();
    }

    pub(super) fn are_released(&self) -> bool {
        self.addresses.are_released()
    }
}

/// Which workers serve, and which look after whose queue.
impl Sockets {
    /// Updates where new connections go, and which worker looks after which queue. `are_copied` says that a process
    /// that was just forked, or the new binary in an upgrade, may have copies of all the parent's descriptors.
    pub(super) fn settle(&mut self, roster: &mut Roster, wakeups: &Wakeups, are_copied: bool, now: Time) {
        if self.are_released() {
            return;
        }
        loop {
            self.custody.seat(&leaving::fed(roster, now), now);
            send_orders(&mut self.neighbours, &mut self.custody, roster, &self.board, now);
            if are_copied || !close_one_retired(&mut self.custody, &self.neighbours, now) {
                break;
            }
        }
        self.queue_watch.arm(roster, &self.board, &self.custody, wakeups.poll());
    }

    /// The slot will have no more workers.
    pub(super) fn retire(&mut self, slot: usize, now: Time) {
        self.custody.retire(slot, now);
    }

    /// A worker has let go of the sockets in the oldest order to it.
    pub(super) fn released(&mut self, pid: Pid) {
        self.neighbours.released(pid);
    }

    /// The workers that wait for connections to the same sockets as this one.
    pub(super) fn sharers(&self, pid: Pid, slot: usize, roster: &Roster) -> Vec<Pid> {
        let have_all_shared = self.addresses.all().iter().any(Reserved::is_shared);
        let shares = |other: Pid, process: &Process| {
            let has_same = have_all_shared || self.neighbours.share((pid, slot), (other, process.slot));
            // Others do not read orders.
            process.slot == slot || has_same && process.is_neighbour(&self.board)
        };
        roster.iter().filter(|(other, it)| *other != pid && shares(*other, it)).map(|(other, _)| other).collect()
    }

    /// A worker has ended, and its copies are gone.
    pub(super) fn gone(&mut self, pid: Pid) {
        self.neighbours.gone(pid);
    }

    /// A worker asks to check which slots the kernel chooses.
    pub(super) fn check_steering(&mut self, now: Time) {
        self.custody.settle_idle(now);
    }

    /// A connection has come to a worker with its own server. While a pool stops, workers hold the queues, but their
    /// events still come.
    pub(super) fn connection_arrived(&mut self, now: Time) {
        if !self.are_released() {
            self.queue_watch.begin(now);
        }
    }

    /// Checks these queues, if it is time.
    pub(super) fn look_at_queues(&mut self, roster: &Roster, now: Time) {
        self.queue_watch.look(roster, &self.board, &self.custody, now);
    }
}

/// Whether the sockets are sound.
impl Sockets {
    /// Keeps copies of the sockets that a worker has made.
    pub(super) fn keep(&mut self, slot: usize, made: Vec<NumberedSocket>, journal: &mut Journal) {
        if made.is_empty() || self.are_released() {
            return;
        }
        let mut sockets = SlotSockets::made(made, self.addresses.all());
        let flaws = sockets.drop_flawed(self.addresses.all());
        tell_flaws(slot, &flaws, journal);
        sockets.relieve(self.addresses.all());
        self.custody.keep(slot, sockets);
        guard(slot, &self.custody, &self.mending);
    }

    /// Makes sure that a slot's next worker gets sound sockets; it makes new ones for those that are not. Restores
    /// their options, unless a program holds them, too, and may need its own. Returns whether one may.
    pub(super) fn prepare(
        &mut self,
        slot: usize,
        roster: &Roster,
        config: &Config,
        journal: &mut Journal,
        now: Time,
    ) -> (bool, Option<Event>) {
        self.custody.revive(slot);
        let (own_are_free, shared_are_free) =
            (!may_have_program(slot, roster, &self.custody), !may_have_program(SHARED, roster, &self.custody));
        let flaws = self.custody.check(slot, self.addresses.all(), own_are_free.then_some(config.listening.backlog));
        tell_flaws(slot, &flaws, journal);
        (!own_are_free, self.mend_shared(shared_are_free, config, journal, now))
    }

    /// A socket was shut down.
    pub(super) fn look(&mut self, config: &Config, journal: &mut Journal, now: Time) -> Option<Event> {
        self.mending.clear_hangups();
        if self.are_released() {
            return None;
        }
        for slot in self.custody.slots().to_vec() {
            let flaws = self.custody.check(slot, self.addresses.all(), None);
            tell_flaws(slot, &flaws, journal);
            if !flaws.is_empty() {
                self.mending.note(slot);
            }
        }
        if self.mending.rests(SHARED, now) {
            self.mending.note(SHARED);
            return None;
        }
        self.mend_shared(false, config, journal, now)
    }

    /// A worker cannot accept on one of its own sockets. If they are sound, the fault is in the process.
    pub(super) fn socket_failed(
        &mut self,
        pid: Pid,
        roster: &Roster,
        config: &Config,
        journal: &mut Journal,
        now: Time,
    ) -> Vec<Event> {
        let Some(slot) = roster.slot_of(pid) else { return Vec::new() };
        let restart = self.look(config, journal, now);
        let recycle = self.are_complete(slot).then_some(Event::Recycle { pid, why: Recycle::Socket });
        restart.into_iter().chain(recycle).collect()
    }

    /// Returns which workers must be replaced because their sockets are broken, if it is time.
    pub(super) fn mend(&mut self, roster: &Roster, config: &Config, journal: &mut Journal, now: Time) -> Vec<Event> {
        if self.are_released() {
            return Vec::new();
        }
        let due = self.mending.take_due(now);
        let mended = due.into_iter().filter_map(|slot| match slot {
            SHARED => self.mend_shared(false, config, journal, now),
            slot if self.are_complete(slot) || slot >= roster.supervisor.slots().wanted() => None,
            slot => {
                // Until it has sockets again.
                self.mending.note(slot);
                self.mending.begin_rest(slot, now);
                let pid = roster.serving_by_slot().get(&slot).copied()?;
                Some(Event::Recycle { pid, why: Recycle::Socket })
            }
        });
        mended.collect()
    }

    fn mend_shared(&mut self, are_free: bool, config: &Config, journal: &mut Journal, now: Time) -> Option<Event> {
        let reserved = self.addresses.all_mut()?;
        self.mending.mend_shared(reserved, config, are_free, journal, now).then_some(Event::Restart)
    }
}

fn tell_flaws(slot: usize, flaws: &[String], journal: &mut Journal) {
    for flaw in flaws {
        let text = format!("worker={slot} has a broken socket; its next worker makes a new one: {flaw}");
        journal.log_limited(log::Level::Warn, Subject::slot("broken_socket", slot), text);
    }
}

fn guard(slot: usize, custody: &Custody, mending: &Mending) {
    let sockets = custody.sockets(slot).map(SlotSockets::all).unwrap_or_default();
    sockets.into_iter().for_each(|socket| mending.guard(socket));
}
