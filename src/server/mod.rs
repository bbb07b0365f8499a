//! The built-in server: a mio loop over listeners, connections and their deadlines, HTTP, responses and files.
//!
//! Its input: a [`Station`](station::Station) and [`Resources`](resources::Resources), which a worker or a test fills,
//! and a handler. Its output: bytes. It does not know the worker, nor any process.
//!
//! # Files
//!
//! - `event_loop/`: the mio loop: turns and events. `connections.rs`, `table.rs`: its connections; `stepping.rs`: a
//!   step of one, and its deadline; `pressure.rs`: what happens at the memory limit; `accepting.rs`: new connections,
//!   from `acceptors.rs`; `admission.rs` (PURE): when to accept them; `eviction.rs` (PURE): which connection makes
//!   room; `descriptors.rs`: how many descriptors are left to others; `steering.rs`: keeps the kernel's steering up to
//!   date; `orders.rs`: the parent's orders; `draining.rs`: how the loop ends; `drain_notices.rs`: notices of the
//!   drain; `upgrades.rs`: the application's connections; `passing.rs`: passes connections on to other processes, from
//!   `handover_queue.rs`; `taking.rs`: takes them over
//! - `budget.rs`: PURE. The memory limit of all connections; `memory.rs`: which of them wait for memory
//! - `clock.rs`: PURE. The time of a turn, and the clock for deadlines
//! - `stats.rs`: counters and latencies of responses
//! - `acceptor.rs`: a listening socket in the loop
//! - `station.rs`, `resources.rs`: what the server gets from its worker. So `tests.rs` can run the whole server without
//!   a fork
//! - `adoption.rs`, `inbox.rs`: connections that it did not accept itself; the parent's messages
//! - `deadlines.rs`: PURE. When to look at which connection
//! - `timing.rs`: PURE. What a connection waits for, and how long it may
//! - `mailbox.rs`: how other threads wake the loop
//! - `connection/`: a client's connection: reads, and sends what answers it. `transport.rs`: its socket; `buffers.rs`:
//!   what it keeps; `session/`: HTTP on it, without the socket: calls the handler, and begins responses; `exchange.rs`:
//!   a request whose response takes more than one step; `timer.rs`: how long it may wait. `input.rs`, `send.rs`,
//!   `application.rs`, `linger.rs`: steps that need several of these; `waiting.rs`: what the loop asks about one;
//!   `moving.rs`: what another process must know about it; `proxied.rs`: those that are refused because of their peer
//! - `client.rs`: the client's socket
//! - `context.rs`: what the connections of a worker share: buffers, configuration, the time
//! - `outgoing.rs`: a response that takes more than one step
//! - `answer/`: `response.rs`: a head, and one of several kinds of body. `responder.rs`, `deferred.rs`: made later, on
//!   any thread; `stream.rs`: written while it is sent, by any thread; `notice.rs`: notices to the application
//!   meanwhile; `file.rs`: a file, whole or in ranges, with conditions, by sendfile; `upgrade.rs`, `guard.rs`: the
//!   connection itself; `receive.rs`, `reader.rs`: made from the request's body as it
//!   arrives, by a closure or by a thread
//! - `files/`: a directory as a handler. `name.rs` (the name in a path), `accept.rs` and `listing.rs` are PURE;
//!   `fields.rs`: header fields by path; `directory.rs`: reads what `listing.rs` shows; `root.rs`: resolves by
//!   openat2(2); `open_files.rs`: keeps files open while their names lead to them
//! - `access_log/`: a line for each response. `plan.rs`, `format.rs`, `escape.rs` and `buffer.rs` (PURE) lay it out and
//!   fill it in; `file.rs` appends it
//! - `http/`: PURE. Bytes to requests, heads of responses to bytes. `codec.rs`: requests as they arrive; `head.rs`:
//!   their heads. `parse.rs`: a complete and well-formed one in one pass; `lines.rs`: any other; `field_summary.rs`:
//!   what its fields imply; `rules.rs`: the rules about several lines; `recall.rs`: one that is already known;
//!   `host.rs`. `partial.rs`, `body.rs`, `pieces.rs`: bodies; `response_mode.rs`: what a request implies for its
//!   response; `respond.rs`, `encode.rs`, `date.rs`: responses; `trailer.rs`: fields after them, and hints before them;
//!   `forwarded.rs`: the clients of proxies; conditions, ranges, codings; `media_type.rs`
//! - `proxy/`: PURE. The header of the PROXY protocol, before a connection's first request
//! - `tls/`: TLS between the socket and the codec; `redirect.rs`: from HTTP to HTTPS
//! - `slow.rs`: logs requests to which the application responds slowly
//! - `instructions.rs`: for tests: the parts of the hot path that `scripts/instructions` counts
//!
//! # How it works
//!
//! **A connection's step.** One `recv` into the worker's shared buffer, every complete request in it to the handler,
//! all responses into one shared output buffer, one `send`. A connection only keeps bytes if a request is incomplete,
//! or the client has not read a whole response. A short read means that the socket is empty, so it is not read again to
//! see EAGAIN.
//!
//! **Deadlines check the socket.** At its deadline a connection takes one more step before it is ended, as if an event
//! had arrived. Bytes may have arrived in time whose event was not handled yet, because the worker was busy for long or
//! many connections were ready at once.
//!
//! Time in which the loop did not look at its connections does not count for deadlines. Their clock stops while a turn
//! takes long, or while the process is stopped or frozen. The loop notices a freeze because it continues much later
//! than intended. So it never sleeps up to a deadline, but half of the way, down to a quarter of a second: a freeze
//! takes at most half of the time that a client had left.
//!
//! **Slow readers.** An event only reports that a response can continue when a good part of the socket's buffer is
//! free. So the server checks what the kernel holds for a client (SIOCOUTQ) four times within `--write-timeout`: what
//! the client has read meanwhile counts as progress, at `--min-rate` as for a body. The connection of a client that
//! reads nothing is closed after that time, plus a quarter of it at most. It is closed normally, so that the client
//! gets what the kernel holds, and sees by length or chunks that this is not all. It is reset if only the end of the
//! connection would mark the end of the response.
//!
//! **Clients that have disconnected.** A client that closes its connection sends an end of file, and so does one that
//! only means that this was its last request. The application is notified at once while it makes a response. What it
//! makes within five seconds is sent, and then the connection is closed. For a stream, that time counts from its latest
//! byte, since a client that has disconnected resets the connection when it gets one. If a client could not even send
//! an end of file, the kernel finds out (TCP keep-alive, which connections inherit from their listener).
//!
//! **Connections that go to another process** ([`crate::shared::handover`]). When this worker leaves and others serve
//! on, a connection that waits for its client goes to one of them. While the worker leaves, the deadline of a
//! connection that has been answered is the present, so it is passed on in the same turn, and requests cost nothing for
//! this. At most 128 go in a turn, so that those in progress do not wait. If the queues of the others stay full for 800
//! ms, or end, the worker closes what is idle, as in a pool that ends. No call on a client's socket blocks, whatever
//! its flags are; sendfile(2) is not used on one that came from another process, and its registration with epoll is
//! removed before it is closed, since a copy elsewhere would keep that alive.
//!
//! **Long-lived connections.** A drain waits for the responses that the application makes, and for the connections that
//! it has taken over, which count until it drops them (`event_loop/upgrades.rs`). The application is notified: each
//! stream, deferred response and upgraded connection has its moment, ten milliseconds after the previous one and within
//! five seconds, so that their clients reconnect one after the other.
//!
//! **Slow bodies.** The deadline of a body works like an account: each byte adds the time that it may take at
//! `--min-rate`, up to `--body-timeout` from now. So a client may pause after a good start, and a byte now and then is
//! not enough. This needs no counter. A head has one timeout for the whole of it.
//!
//! **Places.** At `--max-connections`, or when descriptors run out, the connection that has been idle longest is closed
//! for a new one: first among those kept alive between two requests, then among those that have sent nothing yet, and
//! never one with a request in progress. What has arrived on it is answered first, and a connection that has been idle
//! for less than ten milliseconds stays, since its client may be about to send. This needs no list: the deadline of an
//! idle connection tells since when it is idle, and `event_loop/eviction.rs` notes the best 256 candidates when a place
//! is needed, for the next new connections as well.
//!
//! A worker without free places counts as full for the steering, so new connections go to workers that have some; if
//! none has, each makes room. The kernel learns this a moment late, so a new connection may reach a full worker
//! although another one has places. It then takes the place of an idle connection, never that of a request. Leaving it
//! to a neighbour would not be exact either: the neighbour's free places are only a report, and it accepts from another
//! queue two milliseconds later, a delay for every new connection if all workers are full.
//!
//! Connections leave some descriptors to files and to the application. The kernel assigns the lowest free number, so
//! the number of a new connection shows when descriptors run low, and nothing has to be counted. From then on, the next
//! free number is checked before each new connection. If a file takes one of the descriptors that are left, idle
//! connections are closed as well, so that the next file finds another.
//!
//! **Held memory.** Whenever a step leaves data with a connection, or did before, its buffers are counted: incomplete
//! heads and bodies, and unread responses. At `--max-held`, a request that would have to be stored in part gets a 503,
//! and a body that is arriving waits in the kernel, unless memory is already reserved for it. Requests that arrive
//! whole need no memory and are served as usual. Those that wait continue in order as soon as there is memory.
//!
//! If there was no significant space for five seconds, connections are ended until an eighth of the limit is free:
//! first those whose clients have been slow for that long (408, or a reset within a response), the slowest first; then
//! the oldest of those that wait, which would otherwise wait for each other (503). A response beyond the limit that its
//! client does not read is broken off at once. After much was held, the allocator's free memory is returned to the
//! system (malloc_trim(3)).
//!
//! **Known heads.** A worker keeps the last head that arrived twice, and its meaning. A head with exactly the same
//! bytes is not parsed again. Clients that poll, check health, or send many requests on a connection mostly send the
//! same head.
//!
//! **Rendered heads.** Most responses only differ in the length of their body. So a worker keeps a head that it
//! rendered, and copies it for a response with the same fields, up to the length if that differs. The Date of the next
//! second ends this.
//!
//! **Responses that take time.** The codec renders the head of a response, and says how the body must be sent; the
//! connection sends it. A small body is copied after the head and sent with it. The rest is an `Outgoing`, which
//! `connection/` advances whenever the client reads more or a thread calls the connection's waker. The connection's
//! next request is not read before that is done, so ordering needs no queue. A waker names the connection by its place
//! and a number, so a late one wakes no other connection.
//!
//! **Files.** A path is decoded into a name without dot segments, and the kernel resolves it below a descriptor of the
//! root (openat2(2)). There is no check of ours that a link or a rename could race with. The contents, the length and
//! the validators all come from the one descriptor that was opened. Small files are read after their head. Up to 64
//! KiB, the head waits in the kernel for what sendfile(2) adds; larger files follow in packets of their own. A file of
//! up to 1 MiB that is requested repeatedly stays open (`held.rs`). Each request then asks the kernel by statx(2),
//! segment by segment from the root and without following links, whether its path still leads to that inode in that
//! state, on the root's mount; if not, the file is opened again. So the file is the one that its name means at the time
//! of the request. Contents are not held.
//!
//! **The access log.** A connection counts the bytes that its client's socket has accepted, and remembers between which
//! counts the body of each response lies. The line is made when the socket has accepted the last of them, or the
//! connection ends. A worker collects lines for a second or 64 KiB, and appends whole lines with one write(2), of at
//! most 4 KiB if the destination is not a file, since a pipe does not mix that much with the output of others. The
//! parent opens the file, with rights that workers give up. While nobody reads, a worker keeps 64 KiB and drops further
//! lines. On SIGUSR1 the parent opens the path again and passes the new descriptor to each worker with an order; a
//! worker first writes its lines to the old file. The collected lines also lie in memory that outlives the worker. If
//! it was killed, the parent writes them: it copies at most 64 KiB, and makes whatever it finds plain text. If a worker
//! is killed between its write(2) and noting it, these lines are written twice.
//!
//! **Refusals.** Complete and valid heads take the fast path, in one pass. Everything else is checked line by line from
//! the top. The rule broken by the earliest byte decides, under any limits and however the bytes arrived;
//! `http/lines.rs` has the table. After a refusal nothing is read as a request. The client's further bytes are read and
//! discarded, for five seconds after the latest of them and thirty in all, up to 256 MiB: closing would reset the
//! response, and many clients write their whole body before they read (`connection/linger.rs`).
//!
//! # What a request costs
//!
//! A keep-alive request, with 64 connections that are ready at once, takes 936 instructions in user space, with
//! `tests/tools/plaintext` built like the shipped binary (profile `dist`). By source file (callgrind; inlined code
//! counts where it was written; the callers of `core` and `alloc` cannot be told):
//!
//! | instructions | where | for what |
//! |---:|---|---|
//! | 290 | connection, connection/send, connection/record | the step: choosing what to do, read, the budget, deadlines, send |
//! | 93 | server, mio, slab | the event's token to its connection, and the handler's guard |
//! | 112 | http | recognizing the head, framing the response, copying the rendered head |
//! | 44 | client | TCP or Unix socket, the client's address |
//! | 67 | libc | comparing the request's head, copying the response's head and body |
//! | 20 | libc | recv and send themselves |
//! | 230 | core, alloc, std | Option, Vec, slices, catch_unwind |
//! | 16 | the handler | |
//! | 60 | the rest | clocks and accept once per turn, and everything below one percent |
//!
//! A turn with one ready connection takes 400 more. Accepting is skipped while no queue is known to hold connections,
//! and the wall clock is only read when the Date field is due to change.
//!
//! Besides the number of instructions, sampling where time goes (`perf record -e cpu-clock`, `perf annotate`) found:
//!
//! - **memcmp of two empty Vecs took 180 cycles**, more than all instructions saved before. Their pointers are
//!   dangling, and glibc's AVX-512 version loads from there under a mask, which does not fault but needs microcode
//!   assistance.
//! - **Moving a response took 60 cycles.** Compiled for size, a copy of more than 64 bytes is `rep movs`, and wide
//!   loads of what was just written in words wait for the stores. A response now has 80 bytes instead of 104, and is
//!   moved once less; so is the client's address. The handler's result is examined in place, and not moved at all if
//!   its body is small.
//!
//! What did not help, and was not kept:
//!
//! - Compiling for speed instead of size: before these two changes it saved a tenth of the CPU time of pipelined
//!   requests, after them 3 %, and nothing measurable in other workloads; the binary grows by a quarter. Programs that
//!   embed the library choose for themselves.
//! - Collecting head and body for one writev(2): it takes 500 instructions more in the kernel than copying a small
//!   body.
//! - io_uring for reading and writing, measured with another server that supports both: 0.05 system calls per request
//!   instead of 2, but as much time, since the same TCP code runs.
//!
//! # Decisions
//!
//! - **One heap of alarms instead of FIFO lists per timeout.** A connection has one alarm, which goes off at the
//!   earliest time to which its deadline was ever set. If the deadline has moved by then, the alarm is set again. So a
//!   request costs one store, as with the lists, the order of kinds does not matter, and deadlines are exact.
//!   `scripts/bench scale` shows the cost of a request with more connections, and `scripts/bench latency` whether any
//!   turn is long.
//! - **A request after a deferred response waits**, and is not answered from a queue: clients that pipeline need no
//!   more, and memory is bounded by construction.
//! - **Each worker opens the root again**, so that a rolling restart follows a link that a deployment has changed.
//!   Between restarts the directory stays the same, wherever its path leads.
//! - **`.` and `..` in a path are refused**, not resolved, since clients resolve dot segments before they send a path.
//!   Empty segments are ignored.
//! - **A file is held open only where statx(2) gives current information**: on local file systems, and not behind a
//!   symbolic link, whose target inside the root only openat2(2) can judge. At most 32 files of up to 1 MiB are held,
//!   so that deleted ones keep little of the disk. An inotify descriptor would also cost a call, and misses changes by
//!   another mount or machine.
//! - **At most 128 KiB wait unsent in the kernel** (TCP_NOTSENT_LOWAT). A slow client then takes little memory, and
//!   BBR, which starts a timer for each packet that it paces, costs less than half for 1 MiB. With CUBIC it costs 5 to
//!   10 % more instead. Smaller turns of sendfile(2) did not help.
//! - **A precompressed sibling that is older than its file is ignored**: stale contents are worse than larger ones.

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
pub(crate) mod redirect;
pub(crate) mod resources;
mod slow;
pub(crate) mod station;
mod stats;
#[cfg(test)]
mod tests;
mod timing;
#[cfg_attr(not(feature = "tls"), path = "tls/absent.rs")]
pub(crate) mod tls;
