//! The loop: begins requests when they are due, and counts what becomes of each.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::lane::{broken, Idle, Lane, Plan, Step};
use crate::tally::{Class, Tally};

/// How often the client looks for such requests, and whether it has been told to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long a lane does nothing after a failure: a client that asks a closed port again at once counts only itself.
const REST: Duration = Duration::from_millis(10);

/// How long the load goes on and how much of it there is.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) connections: usize,
    pub(crate) requests: Option<u64>,
    pub(crate) duration: Option<Duration>,
    /// Requests a second, due at even distances whatever the server does; without it, as many as it answers.
    pub(crate) rate: Option<f64>,
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
    /// Of epoll_create(2), and of epoll_ctl(2) for a standard input that cannot be watched.
    pub(crate) fn new(plan: Plan, course: Course, is_told_to_stop: Arc<AtomicBool>) -> io::Result<Client> {
        let (poll, now) = (Poll::new()?, Instant::now());
        if course.until_eof {
            poll.registry().register(&mut SourceFd(&io::stdin().as_raw_fd()), STDIN, Interest::READABLE)?;
        }
        Ok(Client {
            lanes: (0..course.connections).map(|_| Lane::new(now)).collect(),
            free: (0..course.connections).collect(),
            resting: VecDeque::new(),
            buffer: vec![0; 64 * 1024],
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
    /// Of epoll_wait(2).
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
            }
            self.begin_due(now);
            if self.is_all_begun() && self.tally.total() == self.requests {
                self.tally.end(Instant::now());
                return Ok(self.tally);
            }
            match self.poll.poll(&mut events, Some(self.wait(next_look))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    STDIN => self.read_stdin()?,
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
        let begun_or_due = self.course.rate.map_or(0, |rate| due_count(rate, at - self.begun)).max(self.requests);
        self.wanted = Some(self.wanted.map_or(begun_or_due, |wanted| wanted.min(begun_or_due)));
        self.tally.end(at);
    }

    /// Until something is due, in whole milliseconds, rounded up (epoll_wait(2)).
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
        let rate = self.course.rate?;
        Some(self.begun + Duration::from_secs_f64(self.requests as f64 / rate))
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
            self.begin(lane, due);
        }
    }

    fn begin(&mut self, index: usize, due: Instant) {
        let now = Instant::now();
        if self.look(index) == Idle::Open && self.lanes[index].reuse(&self.plan, due, now) == Idle::Open {
            return;
        }
        let source = self.next_source();
        self.tally.connections += 1;
        let lane = &mut self.lanes[index];
        if let Err(error) = lane.connect(&self.plan, source, due, now) {
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
        } else if let (Idle::Excess, Some(before)) = (found, lane.before) {
            self.tally.retract(before);
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
        let class = if latency > self.course.late { Class::Late } else { Class::Ok };
        if let (None, Some(worker)) = (lane.before, lane.answer.worker) {
            *self.tally.workers.entry(worker).or_default() += 1;
        }
        if self.plan.is_keep_alive && !lane.answer.closes {
            lane.keep(class);
        } else {
            lane.close();
        }
        self.tally.answered(class, latency, at);
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
        self.tally.failed(class);
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

/// How many requests are due so long after the first.
fn due_count(rate: f64, after: Duration) -> u64 {
    (after.as_secs_f64() * rate).ceil() as u64
}
