//! The handshakes of a worker that are in progress (feature `hyper-tls`): how many there may be, which of them makes
//! room for another, and which have a turn.
//!
//! The rules are those of the built-in server (`server/event_loop/handshakes.rs`). A turn is what the runtime does
//! between two looks at the sockets: yielding waits for the next one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use super::state::{unless, State};
use crate::server::event_loop::eviction::{Eviction, Idle};
use crate::server::event_loop::handshakes::warn_of_limit;
use crate::server::tls::{CLIENT_TURN_MAX, STEPS};
use crate::sys::clock;
use crate::time::Time;

/// The handshakes in progress.
#[derive(Debug)]
pub(super) struct Handshakes {
    max: usize,
    state: Arc<State>,
    all: RefCell<Slab<Rc<Entry>>>,
    /// The serial number of the latest.
    serial: Cell<u32>,
    /// Which of them makes room for another.
    eviction: RefCell<Eviction>,
    /// When it was last logged that some do.
    warned: Cell<Option<Time>>,
    /// Notified when one has ended.
    ended: Notify,
    /// How many steps this turn has left.
    steps: Cell<u32>,
    /// Those that wait for the next turn.
    deferred: RefCell<VecDeque<Rc<Entry>>>,
    /// Notified when none does any more.
    calmed: Notify,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    since: Time,
    /// Whether some of it has come from the client.
    is_begun: Cell<bool>,
    /// Whether it was ended in favour of another.
    gives_way: Cell<bool>,
    /// Whether it waits for the next turn.
    is_deferred: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    /// Keeps whom to wake.
    fn keep(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Handshakes {
    pub(super) fn new(max: usize, state: &Arc<State>) -> Rc<Handshakes> {
        Rc::new(Handshakes {
            max,
            state: Arc::clone(state),
            all: RefCell::default(),
            serial: Cell::default(),
            eviction: RefCell::default(),
            warned: Cell::default(),
            ended: Notify::new(),
            steps: Cell::new(STEPS),
            deferred: RefCell::default(),
            calmed: Notify::new(),
        })
    }

    /// One more begins.
    pub(super) fn begin(self: &Rc<Self>) -> InProgress {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let entry = Rc::new(Entry {
            serial,
            since: clock::now(),
            is_begun: Cell::default(),
            gives_way: Cell::default(),
            is_deferred: Cell::default(),
            waker: RefCell::default(),
        });
        let index = self.all.borrow_mut().insert(Rc::clone(&entry));
        InProgress { handshakes: Rc::clone(self), entry, index }
    }

    /// Waits until none waits for a turn.
    pub(super) async fn calm(&self) {
        while !self.deferred.borrow().is_empty() {
            self.calmed.notified().await;
        }
    }

    /// Waits until one more may begin. Makes room for it if necessary.
    pub(super) async fn room(&self) {
        while self.is_crowded() {
            let now = clock::now();
            match self.longest_awaited(now) {
                Some(idle) => {
                    // What has arrived for it is read first.
                    yield_now().await;
                    if self.is_crowded() && self.is_still_awaited(idle) {
                        self.end(idle);
                    }
                }
                None => {
                    let due = self.eviction.borrow().due();
                    unless(sleep(due.since(now)), self.ended.notified()).await;
                }
            }
        }
    }

    fn is_crowded(&self) -> bool {
        self.all.borrow().len() >= self.max
    }

    /// The handshake that has waited longest for its client.
    fn longest_awaited(&self, now: Time) -> Option<Idle> {
        let mut eviction = self.eviction.borrow_mut();
        loop {
            let Some(first) = eviction.first() else {
                if !eviction.is_due(now) {
                    return None;
                }
                let all = self.all.borrow();
                let awaited = all.iter().filter_map(|(index, entry)| awaited(index, entry));
                eviction.note(awaited, all.len(), now);
                match eviction.first() {
                    Some(_) => continue,
                    None => return None,
                }
            };
            if self.is_still_awaited(first) {
                return Some(first);
            }
            eviction.drop_first();
        }
    }

    fn is_still_awaited(&self, idle: Idle) -> bool {
        self.all.borrow().get(idle.index).and_then(|entry| awaited(idle.index, entry)) == Some(idle)
    }

    /// Ends one in favour of another.
    fn end(&self, idle: Idle) {
        let mut warned = self.warned.get();
        warn_of_limit(&mut warned, &self.state.tag, self.max, clock::now());
        self.warned.set(warned);
        self.eviction.borrow_mut().drop_first();
        if let Some(entry) = self.all.borrow_mut().try_remove(idle.index) {
            entry.gives_way.set(true);
            entry.wake();
            self.ended.notify_waiters();
        }
    }

    /// Waits for a step in this turn, or in another one.
    fn poll_step(self: &Rc<Self>, entry: &Rc<Entry>, cx: &Context<'_>) -> Poll<()> {
        if let Some(left) = self.steps.get().checked_sub(1) {
            self.steps.set(left);
            return Poll::Ready(());
        }
        entry.keep(cx);
        if !entry.is_deferred.replace(true) {
            let mut deferred = self.deferred.borrow_mut();
            deferred.push_back(Rc::clone(entry));
            if deferred.len() == 1 {
                self.state.set_defers(true);
                spawn_local(Rc::clone(self).turns());
            }
        }
        Poll::Pending
    }

    /// Gives each turn its steps, until none waits for one.
    async fn turns(self: Rc<Self>) {
        loop {
            yield_now().await;
            self.steps.set(STEPS);
            for _ in 0..STEPS {
                let Some(entry) = self.deferred.borrow_mut().pop_front() else { break };
                entry.is_deferred.set(false);
                entry.wake();
            }
            if self.deferred.borrow().is_empty() {
                self.state.set_defers(false);
                return self.calmed.notify_waiters();
            }
        }
    }
}

/// Since when a handshake waits for its client, if it does. One that was begun counts from later on, so that those of
/// which nothing has come go first.
fn awaited(index: usize, entry: &Entry) -> Option<Idle> {
    let is_new = entry.is_begun.get();
    let since = if is_new { entry.since + CLIENT_TURN_MAX } else { entry.since };
    (!entry.is_deferred.get()).then_some(Idle { is_new, since, index, serial: entry.serial })
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct InProgress {
    handshakes: Rc<Handshakes>,
    entry: Rc<Entry>,
    index: usize,
}

impl InProgress {
    /// Something has come from the client.
    pub(super) fn has_begun(&self) {
        self.entry.is_begun.set(true);
    }

    /// The result of a future whose every poll is a step of the handshake.
    pub(super) async fn stepwise<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| match self.handshakes.poll_step(&self.entry, cx) {
            Poll::Ready(()) => future.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Waits until it is ended in favour of another.
    pub(super) async fn gives_way(&self) {
        poll_fn(|cx| match self.entry.gives_way.get() {
            true => Poll::Ready(()),
            false => {
                self.entry.keep(cx);
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether it was.
    pub(super) fn has_given_way(&self) -> bool {
        self.entry.gives_way.get()
    }

    /// It is over, whatever comes next.
    pub(super) fn end(&self) {
        let mut all = self.handshakes.all.borrow_mut();
        // Another one may have its place by now.
        if all.get(self.index).is_some_and(|entry| entry.serial == self.entry.serial) {
            all.remove(self.index);
            self.handshakes.ended.notify_waiters();
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.end();
    }
}
