//! The built-in server: a mio loop over listeners, connections and their deadlines, HTTP, responses and files.
//!
//! In come a [`Station`](station::Station) and [`Resources`](resources::Resources), which a worker or a test fills, and
//! a handler; out go bytes. It may not know the worker, nor any process.
//!
//! # Files
//!
//! - `event_loop/`: the mio loop: turns and events. connections.rs: the connections that it has, and what they share;
//!   stepping.rs: a step of one; pressure.rs: what happens when they hold too much; accepting.rs: how they come into it;
//!   admission.rs (PURE): when they may; places.rs (PURE): who makes room when all places are taken; steering.rs: that the
//!   kernel chooses well; orders.rs: the parent's; draining.rs: how it comes to its end; drain_notices.rs: who is told of
//!   that when; upgrades.rs: connections that the application has
//! - `budget.rs`: PURE. what connections may hold together; `memory.rs`: who of them waits for room
//! - `clock.rs`: PURE. the time of a turn, and that of the deadlines
//! - `stats.rs`: what is counted of answers
//! - `acceptor.rs`: one listening socket in that loop
//! - `station.rs`, `resources.rs`: what the server is given of its worker, and what it asks of it; so the whole server
//!   runs in tests.rs, unforked
//! - `adoption.rs`, `inbox.rs`: connections that it has not accepted itself; the parent's messages
//! - `deadlines.rs`: PURE. when to look at which connection
//! - `mailbox.rs`: how other threads wake the loop
//! - `connection/`: one client and one codec: reads, gives out requests; transport.rs: its socket, and what is known of
//!   that; input.rs: what it reads and keeps; send.rs: sends answers; timing.rs: how long it may wait; waiting.rs: for the
//!   application; guard.rs: a panic of the handler; proxied.rs: what a proxy says in front of it; linger.rs: the end of one
//!   whose client still sends; record.rs: what was sent, for the access log
//! - `client.rs`: the client's socket
//! - `context.rs`: what the connections of a worker share: buffers, configuration, the time
//! - `outgoing.rs`: an answer that takes more than one step
//! - `answer/`: response.rs: a head, and one of several kinds of body: responder.rs, deferred.rs: made later, on any
//!   thread; stream.rs: written while it is sent, by any thread; notice.rs: what the application is told meanwhile;
//!   file.rs: a file, whole or in ranges, on conditions, by sendfile; upgrade.rs, guard.rs: the connection itself;
//!   receive.rs: made from the request's body while that comes
//! - `files/`: a directory as a handler: name.rs (what a path names), accept.rs and listing.rs are PURE; fields.rs adds
//!   fields by path, directory.rs reads what listing.rs shows; root.rs resolves by
//!   openat2(2); held.rs keeps files open while their names mean them
//! - `access_log/`: a line for each answer: format.rs (PURE) says it, file.rs appends it
//! - `http/`: PURE. bytes to requests, heads of responses to bytes: head, lines, recall, host, body, encode, date;
//!   codec.rs: requests as they come; gathered.rs, pieces.rs: their bodies piece by piece; respond.rs: the answers;
//!   trailer.rs: fields behind them, and hints before them;
//!   forwarded.rs: for whom a proxy asks; conditions, ranges, codings; media_type.rs
//! - `proxy/`: PURE. the PROXY protocol's header, in front of a connection's first request
//! - `slow.rs`: requests that take the application long, for the log
//! - `instructions.rs`: tests only: the parts of the hot path that scripts/instructions counts
//!
//! # How it works
//!
//! **A connection's step.** One `recv` into the worker's shared buffer, every complete request in it to the handler,
//! all answers into one shared output buffer, one `send`. Bytes stay with the connection only when a request is
//! incomplete or the client has not taken an answer whole. A short read means that the socket is empty, so it is not
//! read again to see EAGAIN.
//!
//! **Deadlines look at the socket.** What is past its deadline takes one more step before it is ended, as if an event
//! had come: the event of bytes that came in time may not have been taken yet, when the worker was busy for long or
//! many connections were ready at once.
//!
//! Time in which the loop did not look at its connections counts for no deadline: their times are those of a clock
//! that stands still while a turn takes long, or while the process is stopped or frozen. The latter shows by going on
//! much later than it meant to, so the loop never sleeps to a deadline at once but half of the way, down to a quarter
//! of a second: a freeze takes at most half of what a client had left.
//!
//! **Slow readers.** An event tells that an answer can go on only when a good part of the socket's buffer is free. So
//! what the kernel holds for a client (SIOCOUTQ) is looked at four times within `--write-timeout`: what was taken of
//! it counts as progress, at `--min-rate` as for a body. The connection of a client that takes nothing is closed after
//! that time and a quarter of it at most: by an ordinary close, so that the client gets what the kernel has for it, and
//! sees by length or chunks that this is not all; by a reset where only the end of the connection would tell it.
//!
//! **Clients that have gone.** A client that closes its connection sends an end of file, and so does one that only says
//! that this was its last request. While the application makes an answer it is told of that at once, and what it makes
//! within five seconds is sent; then the connection is closed. A stream has that time from its latest byte: a client
//! that has gone resets the connection when it gets one. One that could not even send that is found by the kernel (TCP
//! keep-alive, which connections inherit from their listener).
//!
//! **What lasts.** A drain waits for what the application makes, and for the connections that it has taken over, which
//! count until it drops them (event_loop/lent.rs). It tells it so: each stream, deferred answer and upgraded connection
//! has its moment, ten milliseconds after the one before and within five seconds, so that their clients come back one
//! after the other.
//!
//! **Slow bodies.** The deadline of a body is its account: each byte adds the time that it may take at `--min-rate`,
//! up to `--body-timeout` from now. So a client may pause after a good start, and a byte now and then does not hold a
//! place. It costs no counter. A head has one time-out for the whole of it.
//!
//! **Places.** At `--max-connections`, or when descriptors run out, the connection that has been idle longest is
//! closed for a new one: first of those that are kept between two requests, then of those that have sent nothing yet;
//! never one with a request in progress. What has come on it is answered first, and one that has been idle for less
//! than ten milliseconds stays, as its client may be about to send. Nobody keeps a list for that: the deadline of an
//! idle connection tells since when it is idle, and `server/places.rs` notes the best 256 when a place is needed, for
//! the newcomers that follow. A worker without free places counts as full for the steering as before, so new
//! connections are led to workers that have some; where none has, each makes room. The kernel learns that a moment
//! late, so a newcomer may come to a full worker though another has room; it takes one idle connection's place then,
//! never a request's. What comes in that moment comes so, and no more. To leave it to a neighbour would be no exact
//! rule either: that has room only as far as it says, and takes what waits in another's queue two milliseconds later,
//! which every newcomer would wait where all are full.
//!
//! Of descriptors, connections leave some to files and to the application. The kernel gives out the lowest number that
//! is free, so the number of a new connection tells when they become few, and nothing is counted; from then on it is
//! looked before each newcomer. A file that is being sent from one of those that are left has idle connections make
//! room as well, so that the next one finds another.
//!
//! **Held memory.** Whenever a step leaves something with a connection, or did before, what its buffers take is
//! counted: heads and bodies that have not come whole, answers that were not taken. At `--max-held` a request of
//! which a part would have to be held is answered by 503, and a body that is coming waits in the kernel, unless its
//! memory is reserved already; what comes whole needs none and is served as ever. Those that wait go on in their
//! order as soon as there is room. When there has been none to speak of for five seconds, connections are ended until
//! an eighth of the limit is free: first those whose clients have been slow for as long (408, or a reset within an
//! answer), the slowest first, then the oldest of those that wait, which would otherwise wait for each other (503).
//! An answer beyond the limit that its client does not take is broken off at once. After much was held the
//! allocator's free memory is given back to the system (malloc_trim(3)).
//!
//! **A head that is known.** A worker keeps the last head that came twice, and what it says. A head of exactly the
//! same bytes is not parsed again: who polls, checks health or sends request after request on one connection mostly
//! sends the same.
//!
//! **A head that is rendered.** Answers mostly differ in the length of their body alone, so a worker keeps a head
//! that it rendered, and copies it for an answer that says the same, up to the length if that differs. The next
//! second's Date ends that.
//!
//! **Answers that take time.** The codec renders a response's head and tells how the body is to follow; the
//! connection sends it. What is small is copied behind the head and sent with it; the rest is an `Outgoing`, which
//! `connection.rs` lets proceed whenever the client takes more or a thread rings the connection's bell. The next
//! request of the connection is not read before that is done: order costs no queue. A bell names the connection by
//! its place and serial number, so one that rings late wakes nobody else.
//!
//! **Files.** A path is decoded into a name without dot segments, and the kernel resolves it below a descriptor of
//! the root (openat2(2)): there is no check of ours that a link or a renaming could be raced against. What is sent,
//! its length and its validators all come from the one descriptor that was opened. Small files are read behind their
//! head; up to 64 KiB the head waits in the kernel for what sendfile(2) adds; larger ones follow in packets of their
//! own. A file of up to 1 MiB that is asked for again stays open (`held.rs`), and each request asks the kernel by
//! statx(2), segment by segment from the root and without following links, whether its path still leads to that inode
//! in that state, on the root's mount; if not, it is opened anew. So a file is what its name means at the time of the
//! request. Contents are not held.
//!
//! **The access log.** A connection counts the bytes that its client's socket has taken, and remembers for each
//! answer between which counts its body lies; the line is made when the socket has taken the last of them, or the
//! connection ends. A worker collects lines for a second or 64 KiB and appends whole ones with one write(2), of at
//! most 4 KiB where that is no file: so much a pipe does not mix with others'. The parent opens the file, with the
//! rights that workers give up. While nobody reads, a worker keeps 64 KiB and loses what is more. On SIGUSR1 it opens
//! the path again and gives the new descriptor to each worker beside the lifeline, where its orders are; a worker
//! first writes to the old file what it has. What it has collected also lies in memory that outlives it, and the
//! parent writes that when the worker was killed: it copies at most 64 KiB and makes plain text of whatever it finds.
//! A worker that is killed between its write(2) and its note of that has these lines written twice.
//!
//! **Refusals.** Whole and valid heads go the short way, in one pass. Everything else is judged line by line from
//! the top. The rule that is broken by the earliest byte decides, under any limits and however the bytes came;
//! `http/lines.rs` has the table. After a refusal nothing is read as a request; the client's further bytes are read
//! and thrown away, for five seconds after the latest of them and thirty in all, up to 256 MiB: closing would reset the
//! answer away, and many clients write their whole body before they read (connection/linger.rs).
//!
//! # What a request costs
//!
//! A keep-alive request of 64 connections that are ready at once takes 931 instructions in user space,
//! `tests/tools/plaintext` being built as the shipped binary is (profile `dist`). By the files that they come from
//! (callgrind; what is inlined counts where it was written, `core` and `alloc` where they are called from cannot be
//! told):
//!
//! | instructions | where | for what |
//! |---:|---|---|
//! | 290 | connection, connection/send, connection/record | the step: what to do first, read, the budget, deadlines, send |
//! | 93 | server, mio, slab | the event's token to its connection, and the handler's guard |
//! | 112 | http | knowing the head, the answer's framing, the head that is rendered |
//! | 44 | client | TCP or Unix socket, the client's address |
//! | 67 | libc | comparing the request's head, copying the answer's head and body |
//! | 20 | libc | recv and send themselves |
//! | 230 | core, alloc, std | Option, Vec, slices, catch_unwind |
//! | 16 | the handler | |
//! | 60 | the rest | clocks and accept once a turn, and what is below one percent |
//!
//! What counts besides the number, found by sampling where time goes (`perf record -e cpu-clock`, `perf annotate`):
//!
//! - **memcmp of two empty Vecs took 180 cycles**, more than all the instructions saved before it: they point
//!   nowhere, and glibc's AVX-512 version loads from there under a mask, which does not fault but is assisted.
//! - **Moving a response took 60 cycles**: compiled for size a copy of more than 64 bytes is `rep movs`, and reading
//!   with wide loads what was just written in words waits for the stores. It is 80 bytes now instead of 104, and
//!   moved once less; so is the client's address.
//!
//! What did not help, and is not there:
//!
//! - Compiling for speed instead of size: before those two mends a tenth of the CPU time of pipelined requests, since
//!   then 3 %, and nothing that can be told from noise in the other workloads; the binary grows by a quarter. Who
//!   embeds the library chooses for himself.
//! - Collecting head and body for one writev(2): 500 instructions more in the kernel than copying a small body costs.
//! - io_uring for reading and writing, measured with another server that can do both: 0.05 system calls per request
//!   instead of 2, and as much time, since the same TCP code runs.
//!
//! # Decisions
//!
//! - **One heap of alarms instead of FIFO lists per time-out.** A connection has one alarm, which rings at the
//!   earliest moment its deadline was ever set to; if the deadline has moved on by then, the alarm is set again. A
//!   request therefore costs one store, as with the lists, the order of kinds does not matter, and a deadline is
//!   exact. `scripts/bench scale` shows what a request costs when a worker has more connections, `scripts/bench
//!   latency` whether any turn is long.
//! - **A request behind a deferred answer waits** instead of being answered out of a queue: nobody who pipelines
//!   needs more, and memory is bounded by construction.
//! - **The root is opened again by each worker**, so that a rolling restart follows a link that a deployment has
//!   turned; between restarts the directory stays the same, whatever becomes of its path.
//! - **`//`, `.` and `..` in a path are refused**, not resolved: clients resolve dot segments before they send, and a
//!   name that several paths have is cached several times. It also leaves a redirection no way to another host.
//! - **A file is held open only where statx(2) tells the truth at once**: on local file systems, and not behind a
//!   symbolic link, whose way inside the root only openat2(2) can judge. At most 32 files of up to 1 MiB, so that
//!   deleted ones keep little of the disk. An inotify descriptor would cost a call as well, and misses what another
//!   mount or machine does.
//! - **At most 128 KiB wait unsent in the kernel** (TCP_NOTSENT_LOWAT): a slow client then holds little memory, and
//!   BBR, which starts a timer for each packet that it paces, costs less than half for 1 MiB. With CUBIC it is 5 to
//!   10 % more instead. Smaller turns of sendfile(2) did not help.
//! - **A precompressed sibling that is older than its file is left out**: stale contents are worse than larger ones.

pub(crate) mod acceptor;
pub(crate) mod access_log;
pub(crate) mod adoption;
pub(crate) mod answer;
mod budget;
pub(crate) mod client;
mod clock;
pub(crate) mod connection;
pub(crate) mod context;
pub(crate) mod deadlines;
pub(crate) mod event_loop;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod inbox;
#[cfg(test)]
mod instructions;
pub(crate) mod mailbox;
mod memory;
pub(crate) mod outgoing;
pub(crate) mod proxy;
pub(crate) mod resources;
mod slow;
pub(crate) mod station;
mod stats;
#[cfg(test)]
mod tests;
