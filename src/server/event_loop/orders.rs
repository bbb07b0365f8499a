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
    /// Looks after another slot's sockets, or lets go of them.
    pub(super) fn obey(&mut self) {
        while let Some(order) = self.connections.cx.station.lifeline.order() {
            self.admission.wake();
            let of =
                |slot| move |acceptor: &Acceptor| acceptor.neighbour.is_some_and(|neighbour| neighbour.slot == slot);
            match order {
                Order::Watch { slot, sockets } => {
                    self.let_go(of(slot));
                    sockets.into_iter().for_each(|socket| self.watch(slot, socket));
                }
                Order::Release { slot } => {
                    self.let_go(of(slot));
                    self.connections.cx.station.lifeline.released();
                }
                Order::Log { file } => {
                    if let Some(log) = &mut self.connections.cx.log {
                        log.reopen(file);
                    }
                }
                // It keeps no program.
                Order::End => {}
                // This server does not report yet that it takes connections over.
                Order::HandOver { .. } | Order::Move { .. } | Order::TakeRest { .. } => {}
                Order::Look => {
                    let now = self.connections.cx.clock.now;
                    self.acceptors.iter_mut().for_each(|(_, acceptor)| acceptor.notice(now));
                }
            }
        }
    }

    pub(super) fn let_go(&mut self, of: impl Fn(&Acceptor) -> bool) {
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
