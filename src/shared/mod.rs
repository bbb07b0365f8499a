//! What two processes of a pool agree on: the configuration, the lifeline, messages, shared memory, sockets, signals
//! and logs.
//!
//! In and out go values that both sides read in the same way. It may not know who uses it: no rule of the parent's,
//! no worker, no server.
//!
//! # Files
//!
//! - `config/`: the configuration, addresses; worker count; check.rs: whether it makes sense; settings/ (PURE): each
//!   setting once, as flag, variable, help and check; layers.rs: what was said, together with a file of variables,
//!   which env_file.rs (PURE) reads; choices.rs, limits.rs, file_rules.rs, proxies.rs, log_format.rs and pattern.rs
//!   (PURE): the words of it that others use
//! - `channel/`: the lifeline, reports, orders and births, both ends; protocol.rs: what a worker may say, when and
//!   how often
//! - `message.rs`: the application's messages, both ends
//! - `scoreboard/`: what the parent has decided, which it alone writes; row.rs: what each process says of itself, and
//!   what of that is believed; tally.rs: what is for the admin process
//! - `steer/`: which slot gets the next connection: plan, the classic BPF programs and the eBPF assembler (all PURE),
//!   the eBPF program, and when to attach what
//! - `listener/`: reserve an address. slot.rs: the sockets of a slot; udp.rs, unix.rs, given.rs and admin.rs: the
//!   other kinds; whole.rs (PURE): whether a socket may be handed on; inspect.rs: what it is, and how it becomes
//!   again what it was. All socket options are here; options.rs: those of connections
//! - `counters.rs`, `latency.rs`, `seats.rs`, `state.rs`: PURE. values that parent, workers and admin process
//!   exchange
//! - `request.rs`: what the parent is asked for, by whatever way
//! - `pace.rs`: PURE. how often something may happen
//! - `signals.rs`: which signals ask what; installed in the parent, again in the worker, blocked in between
//! - `credentials.rs`: the user and group that workers run as
//! - `outlet.rs`: what is written where perhaps nobody reads, and the count of what was lost; log_writer.rs: standard
//!   error as a log; log_file.rs: where the access log goes; log_text.rs: words that several use
//!
//! # How it works
//!
//! **Steering.** The parent writes into the scoreboard which process serves each seat of the kernel's group; each
//! worker writes since when it is busy, whether it is full, and how many connections it has. With eBPF the kernel
//! reads all that itself: for each new connection a program takes the seat with the fewest, passing over those that
//! are busy for more than a millisecond; the scoreboard then lies in a BPF map. Without the privilege, the parent
//! attaches a classic BPF program that picks among the best seats: when a process comes or goes (before it forks,
//! which takes longer), and when a worker rings because it has seen, at its turn and at most once a millisecond, that
//! the scoreboard asks for another choice than the kernel was told. The parent then looks for itself. It attaches up
//! to 64 times at once and 500 times a second in the long run (`shared/pace.rs`), so no worker can keep it
//! busy. An idle pool has nothing to steer. The seats' order is the order of `listen`, kept by first starts taking
//! turns; when a socket leaves, the last one takes its index, so for that moment neither may be chosen.
//!
//! **Fair shares.** What a worker says of itself may be wrong. With classic BPF a claim draws nothing: whoever seems
//! free is picked at random. With eBPF a worker that claims to have no connections would get all of them, so the
//! kernel's program counts, where no worker can write, how many it has given to each process in the present window of
//! 64 connections for each seat. A process that has had 128 gets no more of the window while another one is free, and
//! one that is free and lags 32 behind its share so far comes first. So a claim draws twice a fair share at most, and
//! however many claim so, each of the others gets half of its own. The price is that a new worker among full ones gets
//! no more than twice its share until it has caught up, and one with many open connections, while it is free, no less
//! than half. A row whose numbers cannot be is not chosen at all, and where all are such the hash chooses. The maps
//! are allocated at once, a page for each process, so such a pool has room for 64 workers, or four times as many as it
//! was started with if that is more.
//!
//! **Shared memory.** Every page has one writer. The parent maps each part twice: writable, which children do not
//! inherit (MADV_DONTFORK), and read-only, which they do. The memory is a memfd that is sealed in between
//! (F_SEAL_FUTURE_WRITE), or two BPF maps whose descriptors stay with the parent, so what was mapped read-only stays
//! so. A child inherits one page of the writable mapping, its row, which the parent lends to that one fork
//! (MADV_DOFORK). The child fixes it in its place first of all (mseal(2), Linux 6.10), since mremap(2) and
//! remap_file_pages(2) would otherwise reach the pages behind it. On an older kernel they do, outside of the sandbox,
//! which then refuses mremap: a worker can falsify what its siblings say of themselves, but still not what the parent
//! has decided. What a worker says is believed within limits (`Row::counters`): more than ten million of anything a
//! second counts as nothing, and is told once.
//!
//! **What goes up.** A worker reports by a pipe, in records of a byte or a few: which it may send in which state, and
//! how often, is in `channel/protocol.rs`. Anything else costs it its life, and the log one line. A slot's first
//! worker hands copies of the sockets that it makes over a birth socket, with the numbers of their addresses, before
//! any code of the application runs; then both sides close that. The parent never reads the lifeline nor the socket
//! of its orders, and both are shut for reading on its side, so nothing that a worker holds carries a descriptor up.
//!
//! **Messages.** Beside these runs a SOCK_SEQPACKET pair for the application's messages, if it has a hook that could
//! read them. The kernel keeps boundaries and order, and its buffer is the queue: nobody waits for room. The parent
//! reads 64 of a worker's messages a turn, for two milliseconds at most, and spends a fiftieth of its time on the messages
//! of one worker (`Builder::message_share`), so a flood keeps it from nothing: who floods waits. That share is small
//! because any worker of a pool with a hook may flood; signals, exits and other workers wait for one slice at most in
//! any case, so an application that trusts its workers may ask for all. When a worker has exited, its socket is read to the end before the
//! hook is told of the exit; when one is told to finish, its loop delivers what is there before it ends, and refuses
//! what would come too late. Descriptors come up with messages only where the application asks for them
//! (`Builder::accept_descriptors`); else the kernel refuses them (SO_PASSRIGHTS, Linux 6.16), or who sends one is
//! killed.
//!
//! **What nobody reads.** `outlet.rs` writes all logs and prefixed output, and never waits. O_NONBLOCK is a flag of
//! the open file description, which standard error shares with whoever started the pool: it is not ours to set, and a
//! worker could clear it for the parent. So each process opens a pipe or a terminal once more through /proc/self/fd,
//! after the fork and before it gives up its rights, and writes at most PIPE_BUF at once, which a pipe takes whole or
//! not at all. Where it may not, since the pipe belongs to another user, it writes into an empty pipe of its own and
//! has splice(2) move that with SPLICE_F_NONBLOCK. Sockets have MSG_DONTWAIT; files are written as they are. To ask
//! poll(2) first would not do: of two writers who are told that there is room, one waits. What was not taken is
//! counted, in the worker's row of the scoreboard or among the parent's facts, and told when there is room again.
//!
//! # Decisions
//!
//! - **A row per process, not per slot**: while one worker replaces another, both write.
//! - **Messages have a socket of their own** and not the lifeline, nor the socket of the parent's orders: a full
//!   queue then delays nothing that the pool needs, and the end of a SEQPACKET pair is seen. Each begins with a byte
//!   of ours, so that an empty one is not the end.
//! - **A slot's TCP sockets stand and fall together**: its index in the groups of all addresses is the same, which
//!   steering relies on. When an intruder shuts down the sockets of two slots in another order than the parent finds
//!   them in, indexes may differ for the rest of the pool's life: connections are then led around the wrong slot now
//!   and then, and its neighbours take them.
//! - **A path is used once**, where root makes something that others could exchange: the mode of a Unix socket is the
//!   umask's when it is bound, the pid file's draft has a random name and is made with O_EXCL, the access log is
//!   opened with O_NOFOLLOW, and not at all below a directory that is not root's or that others may write to, when
//!   workers are not root: whoever could put a link there would have root append lines of his choice to any file. A
//!   file that logrotate has given to the workers' user is fine in a directory of root.

pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod counters;
pub(crate) mod credentials;
pub(crate) mod latency;
pub(crate) mod listener;
pub(crate) mod log_file;
pub(crate) mod log_text;
pub(crate) mod log_writer;
pub(crate) mod message;
pub(crate) mod outlet;
pub(crate) mod pace;
pub(crate) mod request;
pub(crate) mod scoreboard;
pub(crate) mod seats;
pub(crate) mod signals;
pub(crate) mod state;
pub(crate) mod steer;
