//! The addresses of the pool, which the parent reserves for as long as the pool serves.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::shared::listener::Reserved;

/// The reserved addresses. Workers that are being forked share them, and only change their own copies.
#[derive(Debug)]
pub(in crate::parent) struct Addresses {
    reserved: Rc<Vec<Reserved>>,
    /// Whether the pool stops, so that only its workers hold sockets.
    are_released: bool,
}

impl Addresses {
    pub(super) fn new(reserved: Vec<Reserved>) -> Addresses {
        Addresses { reserved: Rc::new(reserved), are_released: false }
    }

    /// All of them; none once they are released.
    pub(in crate::parent) fn all(&self) -> &Rc<Vec<Reserved>> {
        &self.reserved
    }

    /// To change them; `None` while a worker is being forked.
    pub(super) fn all_mut(&mut self) -> Option<&mut Vec<Reserved>> {
        Rc::get_mut(&mut self.reserved)
    }

    /// The sockets that stay here while the pool serves: those that all workers share.
    pub(super) fn shared(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let shared = self.reserved.iter().filter(|it| !matches!(it, Reserved::Tcp(_)));
        shared.filter_map(Reserved::fd)
    }

    /// The names in the file system belong to this pool from now on.
    pub(in crate::parent) fn take_names(&mut self) {
        self.all_mut().into_iter().flatten().for_each(Reserved::take_over);
    }

    /// The names in the file system belong to the pool that takes over.
    pub(super) fn leave_names(&mut self) {
        self.all_mut().into_iter().flatten().for_each(Reserved::hand_over);
    }

    /// Drops the sockets, for good.
    pub(super) fn release(&mut self) {
        self.are_released = true;
        self.reserved = Rc::default();
    }

    pub(super) fn are_released(&self) -> bool {
        self.are_released
    }
}
