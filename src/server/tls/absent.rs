//! Without the feature `tls`: the names of this folder, for values that cannot exist. So only what makes an
//! [`Endpoint`] asks for the feature, and all that is behind it compiles to nothing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use mio::net::TcpStream;

use crate::server::http::TlsInfo;
use crate::shared::counters::HANDSHAKES;

pub(crate) const CLIENT_TURN_MAX: Duration = Duration::ZERO;

#[derive(Debug)]
pub(crate) enum Endpoint {}

impl Endpoint {
    pub(crate) fn is_for(&self, _: SocketAddr) -> bool {
        match *self {}
    }

    pub(crate) fn begin_turn(&self) {
        match *self {}
    }

    pub(crate) fn defers(&self) -> bool {
        match *self {}
    }

    pub(crate) fn handshakes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn is_crowded(&self) -> bool {
        match *self {}
    }

    pub(crate) fn counts(&self) -> [u64; HANDSHAKES] {
        match *self {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no handshake exists")]
pub(crate) enum Awaited {
    All,
    Rest,
}

#[derive(Debug)]
pub(crate) enum Stream {}

impl Stream {
    pub(crate) fn new(_: TcpStream, endpoint: Rc<Endpoint>) -> io::Result<Stream> {
        match *endpoint {}
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match *self {}
    }

    pub(crate) fn await_header(&mut self) {
        match *self {}
    }

    pub(crate) fn begin(&mut self, _: &[u8]) {
        match *self {}
    }

    pub(crate) fn handshake(&self) -> Option<Awaited> {
        match *self {}
    }

    pub(crate) fn give_way(&mut self) {
        match *self {}
    }

    pub(crate) fn info(&self) -> Option<&TlsInfo> {
        match *self {}
    }

    pub(crate) fn has_more(&self) -> bool {
        match *self {}
    }

    pub(crate) fn wants_write(&self) -> bool {
        match *self {}
    }

    pub(crate) fn held(&self) -> usize {
        match *self {}
    }

    pub(crate) fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn write(&mut self, _: &[u8], _: bool) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn write_from(
        &mut self,
        _: u64,
        _: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        match *self {}
    }

    pub(crate) fn is_refused(&self) -> bool {
        match *self {}
    }

    pub(crate) fn send_close_notify(&mut self) {
        match *self {}
    }

    pub(crate) fn give_up(&mut self) {
        match *self {}
    }

    pub(crate) fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn into_socket(self) -> Box<TlsSocket> {
        match self {}
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

#[derive(Debug)]
pub enum TlsSocket {}

impl TlsSocket {
    pub(crate) fn has_more(&self) -> bool {
        match *self {}
    }

    pub(crate) fn try_read(&mut self, _: &mut [u8]) -> io::Result<Option<usize>> {
        match *self {}
    }
}

impl Read for TlsSocket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Write for TlsSocket {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}
