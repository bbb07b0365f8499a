//! Workers that become another program ([`Worker::exec`](crate::Worker::exec)). It knows nothing of lifelines: it is
//! told to finish by SIGTERM, and is ready when its sign is seen.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::exec;
use crate::supervisor::Stage;

/// Notifications that are taken in at a time: whoever sends without end must not keep the parent.
const NOTIFICATIONS: usize = 64;

impl Parent {
    /// By what the program of a worker will be seen to be ready.
    pub(super) fn expect_sign(&mut self, pid: Pid, sign: Sign) {
        let token = Token(token(pid).0 | SIGN);
        let registered = match &sign {
            Sign::Execution => Ok(()),
            Sign::Notification(socket) => self.listen_to(socket, token),
            Sign::Timer(timer) => self.listen_to(timer, token),
        };
        if let Err(error) = registered {
            // The boot time-out will replace it.
            error!("{} cannot be seen to be ready: {error}", self.tag(pid));
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.program = Some(sign);
        }
    }

    /// A worker is about to become another program.
    pub(super) fn executes(&mut self, pid: Pid) {
        let is_leaving = self.supervisor.process(pid).is_some_and(|(_, process)| process.stage.is_leaving());
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.program.get_or_insert(Sign::Execution);
        if is_leaving {
            // It was asked by the lifeline, perhaps after its last look there.
            signal(pid, Signal::SIGTERM);
        }
    }

    /// A worker has become another program.
    pub(super) fn executed(&mut self, pid: Pid) {
        if let Some(Process { program: Some(Sign::Execution), .. }) = self.processes.get(&pid) {
            self.ready(pid);
        }
    }

    /// A program's timer has rung, or somebody has sent it a notification.
    pub(super) fn look_for_sign(&mut self, pid: Pid) {
        let Some(process) = self.processes.get(&pid) else { return };
        let is_ready = match &process.program {
            None | Some(Sign::Execution) => false,
            Some(Sign::Timer(_)) => true,
            Some(Sign::Notification(socket)) => self.notifications(pid, socket),
        };
        // A program that reloads says so more than once.
        let was_ready = self.supervisor.process(pid).is_none_or(|(_, process)| process.stage != Stage::Starting);
        if is_ready && !was_ready {
            self.ready(pid);
        }
    }

    /// A program was reaped: nobody sends to its socket any more.
    pub(super) fn forget_program(pid: Pid, sign: &Sign) {
        if let (Sign::Notification(_), Ok(pid)) = (sign, u32::try_from(pid.0)) {
            // Gone already is as good.
            let _ = fs::remove_file(exec::notify_path(pid));
        }
    }

    /// Takes in what was sent to a program's socket, and whether that says that it is ready (sd_notify(3)).
    fn notifications(&self, pid: Pid, socket: &UnixDatagram) -> bool {
        let mut is_ready = false;
        let mut message = [0; 4096];
        for _ in 0..NOTIFICATIONS {
            match socket.recv(&mut message) {
                Ok(len) => is_ready |= message[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return is_ready,
                Err(error) => debug!("{} notified badly: {error}", self.tag(pid)),
            }
        }
        self.listen_again(socket.as_raw_fd(), Token(token(pid).0 | SIGN));
        is_ready
    }
}
