//! The loop: begins requests when they are due, and counts what becomes of each.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::lane::{broken, Idle, Lane, Plan, Step};
use super::schedule::{Demand, Request, Schedule};
use super::tally::{Class, Tally};
use super::wire::Tls;

/// How often the client looks for requests that have timed out, for how the connections are spread, and whether it has
/// been told to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long a lane does nothing after a failure: a client that asks a closed port again at once counts only itself.
const REST: Duration = Duration::from_millis(10);

/// How long the load goes on and how much of it there is.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) connections: usize,
    pub(crate) requests: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) demand: Demand,
    pub(crate) late: Duration,
    /// A request that has not come further for so long has failed.
    pub(crate) patience: Duration,
    pub(crate) until_eof: bool,
    /// Tell each failure on stderr.
    pub(crate) verbose: bool,
}

#[derive(Debug)]
pub(crate) struct Client {
    plan: Plan,
    course: Course,
    poll: Poll,
    lanes: Vec<Lane>,
    /// The lanes that can take a request; those that waited longest first, so that each idle connection has its turn.
    free: VecDeque<usize>,
    resting: VecDeque<(Instant, usize)>,
    buffer: Vec<u8>,
    schedule: Schedule,
    /// The one to be begun next.
    next: Request,
    /// Wakes it when that is due, since epoll_wait(2) knows whole milliseconds only. None where nothing is ever due.
    timer: Option<TimerFd>,
    begun: Instant,
    /// Requests that were begun.
    requests: u64,
    /// How many of them there are to be, once that is known.
    wanted: Option<u64>,
    is_told_to_stop: Arc<AtomicBool>,
    is_stopping: bool,
    tally: Tally,
}

impl Client {
    /// # Errors
    /// Of epoll_create(2) and timerfd_create(2), and of epoll_ctl(2) for a standard input that cannot be watched.
    pub(crate) fn new(plan: Plan, course: Course, is_told_to_stop: Arc<AtomicBool>) -> io::Result<Client> {
        let (poll, now) = (Poll::new()?, Instant::now());
        if course.until_eof {
            poll.registry().register(&mut SourceFd(&io::stdin().as_raw_fd()), STDIN, Interest::READABLE)?;
        }
        let timer = course.demand.rate.map(|_| timer(&poll)).transpose()?;
        let mut schedule = Schedule::new(course.demand.clone());
        let client = || plan.tls.map(Tls::client).transpose().map_err(io::Error::other);
        Ok(Client {
            lanes: (0..course.connections).map(|_| Ok(Lane::new(now, client()?))).collect::<io::Result<_>>()?,
            free: (0..course.connections).collect(),
            resting: VecDeque::new(),
            buffer: vec![0; 64 * 1024],
            next: schedule.draw(),
            schedule,
            timer,
            begun: now,
            requests: 0,
            wanted: course.requests,
            is_told_to_stop,
            is_stopping: false,
            tally: Tally::new(now),
            plan,
            course,
            poll,
        })
    }

    /// Makes the requests, and waits for what becomes of the last of them.
    ///
    /// # Errors
    /// Of epoll_wait(2) and timerfd_settime(2).
    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        let mut next_look = self.begun + LOOK;
        loop {
            let now = Instant::now();
            match self.course.duration.map(|duration| self.begun + duration) {
                Some(end) if now >= end => self.stop(end),
                _ if self.is_told_to_stop.load(Ordering::Relaxed) => self.stop(now),
                _ => {}
            }
            if now >= next_look {
                next_look = now + LOOK;
                self.look_for_time_outs(now);
                self.look_at_spread();
            }
            self.begin_due(now);
            if self.is_all_begun() && self.tally.total() == self.requests {
                self.tally.end(Instant::now());
                return Ok(self.tally);
            }
            let wait = self.wait(next_look);
            if let Some(timer) = &self.timer {
                // Of length 0 it would never end (timerfd_settime(2)).
                let end = Expiration::OneShot(TimeSpec::from_duration(wait.max(Duration::from_nanos(1))));
                timer.set(end, TimerSetTimeFlags::empty())?;
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    STDIN => self.read_stdin()?,
                    TIMER => {}
                    Token(lane) => self.proceed(lane),
                }
            }
        }
    }

    /// Begins no requests but those that are due already.
    fn stop(&mut self, at: Instant) {
        if self.is_stopping {
            return;
        }
        self.is_stopping = true;
        let (mut schedule, mut next, mut begun_or_due) = (self.schedule.clone(), self.next, self.requests);
        while next.after.is_some_and(|after| after < at - self.begun) {
            begun_or_due += 1;
            next = schedule.draw();
        }
        self.wanted = Some(self.wanted.map_or(begun_or_due, |wanted| wanted.min(begun_or_due)));
        self.tally.end(at);
    }

    /// Until something is due.
    fn wait(&self, next_look: Instant) -> Duration {
        let rested = self.resting.front().map(|(until, _)| *until);
        let due = if self.free.is_empty() || self.is_all_begun() { None } else { self.next_due() };
        let next = [rested, due].into_iter().flatten().fold(next_look, Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    fn is_all_begun(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.requests >= wanted)
    }

    /// When the next request is due; `None` when it is whenever a lane is free.
    fn next_due(&self) -> Option<Instant> {
        self.next.after.map(|after| self.begun + after)
    }

    fn begin_due(&mut self, now: Instant) {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, lane)| lane));
        }
        while !self.is_all_begun() {
            let due = self.next_due().unwrap_or(now);
            if due > now {
                return;
            }
            let Some(lane) = self.free.pop_front() else { return };
            self.requests += 1;
            let request = std::mem::replace(&mut self.next, self.schedule.draw());
            self.begin(lane, request, due);
        }
    }

    fn begin(&mut self, index: usize, request: Request, due: Instant) {
        let now = Instant::now();
        if self.look(index) == Idle::Open {
            let lane = &mut self.lanes[index];
            match request.is_renewal {
                true => lane.close(),
                false if lane.reuse(&self.plan, request.kind, due, now) == Idle::Open => return,
                false => {}
            }
        }
        let source = self.next_source();
        self.tally.connections += 1;
        let lane = &mut self.lanes[index];
        if let Err(error) = lane.connect(&self.plan, source, request.kind, due, now) {
            return self.fail(index, broken(&error, true, Class::ResetConnecting));
        }
        let Some(stream) = lane.stream() else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(stream, Token(index), interest).is_err() {
            return self.fail(index, Class::Local);
        }
        // On loopback it is often connected already, or refused.
        self.proceed(index);
    }

    /// Looks whether the connection is open still that the lane's last request has left.
    fn look(&mut self, index: usize) -> Idle {
        let lane = &mut self.lanes[index];
        if lane.stream().is_none() {
            return Idle::Closed;
        }
        let found = lane.look();
        if found == Idle::Closed {
            self.tally.closed_idle += 1;
        } else if let (Idle::Excess, Some((kind, before))) = (found, lane.before) {
            self.tally.retract(kind, before);
        }
        found
    }

    fn next_source(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.plan.address.ip() else { return None };
        let last = u8::try_from(2 + self.tally.connections % 249).ok()?;
        address.is_loopback().then_some(Ipv4Addr::new(127, 0, 0, last))
    }

    fn proceed(&mut self, index: usize) {
        if self.lanes[index].is_free() {
            self.look(index);
            return;
        }
        let step = self.lanes[index].proceed(&self.plan, &mut self.buffer);
        self.finish(index, step);
    }

    fn finish(&mut self, index: usize, step: Step) {
        let at = match step {
            Step::Pending => return,
            Step::Failed(class) => return self.fail(index, class),
            Step::Answered(at) => at,
        };
        let lane = &mut self.lanes[index];
        let latency = at - lane.due;
        let (kind, class) = (lane.kind, if latency > self.course.late { Class::Late } else { Class::Ok });
        if let (None, Some(worker)) = (lane.before, lane.answer.worker) {
            *self.tally.workers.entry(worker).or_default() += 1;
        }
        if let (None, Some(is_resumed)) = (lane.before, lane.is_resumed()) {
            let has_tickets = std::mem::replace(&mut lane.has_tickets, self.plan.tls.is_some_and(|tls| tls.resumes));
            *if is_resumed { &mut self.tally.resumed } else { &mut self.tally.full } += 1;
            self.tally.missed += u64::from(has_tickets && !is_resumed);
        }
        if self.plan.is_keep_alive && !lane.answer.closes {
            lane.keep(class);
        } else {
            lane.close();
        }
        self.tally.answered(kind, class, latency, at);
        self.free.push_back(index);
    }

    fn fail(&mut self, index: usize, class: Class) {
        let now = Instant::now();
        if self.course.verbose {
            let lane = &self.lanes[index];
            let (age, after) = (now - lane.due, now - self.begun);
            eprintln!("{} after {} us, {} ms into the load{lane}", class.name(), age.as_micros(), after.as_millis());
        }
        self.lanes[index].close();
        self.tally.failed(self.lanes[index].kind, class);
        self.resting.push_back((now + REST, index));
    }

    fn look_for_time_outs(&mut self, now: Instant) {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            if !lane.is_free() && now.saturating_duration_since(lane.progress) > self.course.patience {
                self.fail(index, Class::TimedOut);
            }
        }
    }

    /// How many of the open connections each worker has, once every lane has had its first.
    fn look_at_spread(&mut self) {
        if !self.is_stopping && self.tally.connections >= self.lanes.len() as u64 {
            self.tally.spread(self.lanes.iter().filter_map(|lane| lane.worker));
        }
    }

    /// Nothing is expected there but its end.
    fn read_stdin(&mut self) -> io::Result<()> {
        match io::stdin().read(&mut self.buffer) {
            Ok(0) => self.stop(Instant::now()),
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        Ok(())
    }
}

const STDIN: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

fn timer(poll: &Poll) -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
    Ok(timer)
}
