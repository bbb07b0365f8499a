//! The orders of the parent to the loop.

use std::os::fd::OwnedFd;

use log::warn;
use mio::Token;

use super::{Server, LISTENERS};
use crate::server::acceptor::Acceptor;
use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::shared::channel::Order;

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Obeys the orders that have come.
    pub(super) fn obey(&mut self) {
        while let Some(order) = self.connections.cx.station.lifeline.order() {
            self.admission.wake();
            let of =
                |slot| move |acceptor: &Acceptor| acceptor.neighbour.is_some_and(|neighbour| neighbour.slot == slot);
            match order {
                Order::Watch { slot, sockets } => {
                    self.drop_acceptors(of(slot));
                    sockets.into_iter().for_each(|socket| self.watch(slot, socket));
                }
                Order::Release { slot } => {
                    self.drop_acceptors(of(slot));
                    self.connections.cx.station.lifeline.released();
                }
                Order::Log { file } => {
                    if let Some(log) = &mut self.connections.cx.logs.access {
                        log.reopen(file);
                    }
                }
                // It keeps no program.
                Order::End => {}
                Order::HandOver { slot, to } => self.connections.passing.add_outlet(slot, to),
                Order::Move { slot, part, to } => self.connections.begin_to_move(slot, part, to),
                Order::TakeRest { from } => self.taking.add_rest(from),
                Order::Look => {
                    let now = self.connections.cx.clock.now;
                    self.acceptors.iter_mut().for_each(|(_, acceptor)| acceptor.notice(now));
                }
            }
        }
    }

    /// Stops accepting from some listeners.
    pub(super) fn drop_acceptors(&mut self, of: impl Fn(&Acceptor) -> bool) {
        self.acceptors.retain(|_, acceptor| {
            let goes = of(acceptor);
            if goes {
                acceptor.deregister(&self.connections.poll);
            }
            !goes
        });
    }

    fn watch(&mut self, slot: usize, socket: OwnedFd) {
        let mut acceptor = Acceptor::neighbour(slot, socket, self.connections.cx.clock.now);
        let entry = self.acceptors.vacant_entry();
        match acceptor.register(&self.connections.poll, Token(LISTENERS - entry.key())) {
            Ok(()) => _ = entry.insert(acceptor),
            Err(error) => {
                warn!(
                    "{} cannot accept from the queue of worker={slot}: epoll_ctl(2): {error}",
                    self.connections.cx.station.tag
                )
            }
        }
    }
}
