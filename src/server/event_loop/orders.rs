//! The orders of the parent to the loop.

use std::os::fd::OwnedFd;

use log::warn;

use super::Server;
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
            match order {
                Order::Watch { slot, sockets } => {
                    self.acceptors.drop_slot(slot, &self.connections.poll);
                    sockets.into_iter().for_each(|socket| self.watch(slot, socket));
                }
                Order::Release { slot } => {
                    self.acceptors.drop_slot(slot, &self.connections.poll);
                    self.connections.cx.station.lifeline.released();
                }
                Order::Log { file } => {
                    if let Some(log) = &mut self.connections.cx.logs.access {
                        log.reopen(file);
                    }
                }
                // It keeps no program.
                Order::End => {}
                Order::HandOver { slot, to, is_successor } => self.passing.add_outlet(slot, to, is_successor),
                Order::Move { slot, selection, to } => {
                    self.passing.begin_to_move(slot, selection, to, &self.connections)
                }
                Order::EmptyQueue { from } => self.taking.add_rest(from),
                Order::Look => {
                    let now = self.connections.cx.clock.now;
                    self.acceptors.notice_all(now);
                }
            }
        }
    }

    fn watch(&mut self, slot: usize, socket: OwnedFd) {
        let acceptor = Acceptor::neighbour(slot, socket, self.connections.cx.clock.now);
        let acceptor = acceptor.secured_by(self.handshakes.endpoint.as_ref());
        if let Err(error) = self.acceptors.add(acceptor, &self.connections.poll) {
            let tag = &self.connections.cx.station.tag;
            warn!("{tag} cannot accept from the queue of worker={slot}: epoll_ctl(2): {error}");
        }
    }
}
