//! What the processes of a pool share: the configuration, the channels, messages, shared memory, sockets, signals and
//! logs.
//!
//! Everything here means the same on both sides. This room does not know its users: it has no rules of the parent, no
//! worker and no server.
//!
//! # Files
//!
//! - `config/`: the configuration, addresses, and the number of workers. `check.rs` checks it; `settings/` (PURE) has
//!   each setting once, with flag, variable, help and check; `layers.rs` combines the settings given with a file of
//!   variables, which `env_file.rs` (PURE) parses; `choices.rs`, `limits.rs`, `file_rules.rs`, `proxies.rs`,
//!   `log_format.rs`, `readiness.rs` and `pattern.rs` (PURE) have the types that other rooms use; `program.rs` finds
//!   the file of a program
//! - `channel/`: both ends of the lifeline, reports, orders and births. `protocol.rs`: which reports a worker may send,
//!   when and how often
//! - `tls/`: certificates with their keys, and session tickets; `secrets.rs`: what their keys are derived from, in
//!   memory that only the parent writes
//! - `message.rs`: both ends of the application's messages
//! - `scoreboard/`: the shared memory. `mod.rs`: the part that only the parent writes; `own_row.rs`: what each
//!   process writes about itself; `row.rs`: how much of it is believed; `name.rs`: the name of its current request;
//!   `lines.rs`: its unwritten lines of the access log; `tally.rs`: counters for the admin process; `layout.rs` (PURE):
//!   where the eBPF program finds its words
//! - `steer/`: which slot gets the next connection. The plan, the classic BPF programs and the eBPF assembler (all
//!   PURE), the eBPF program, and when to attach which
//! - `handover/`: what passes from a worker that leaves to the process that takes its connections over
//! - `listener/`: reserved addresses. `slot.rs`: the sockets of a slot; `udp.rs`, `unix.rs`, `given.rs` and `admin.rs`:
//!   other kinds of sockets; `soundness.rs` (PURE): whether a socket may be passed on; `inspect.rs`: inspects and
//!   restores sockets. All socket options are set here; `options.rs` has those of connections
//! - `counters.rs`, `latency.rs`, `seats.rs`, `state.rs`: PURE. Values that parent, workers and admin process exchange
//! - `metrics/`: the application's own metrics; `registry.rs` (PURE) knows and renders them
//! - `request.rs`: requests to the parent, from whatever source
//! - `pace.rs`: PURE. Rate limits
//! - `signals.rs`: the meaning of each signal; handlers in the parent and in the worker, and blocking in between
//! - `credentials.rs`: the user and group of the workers
//! - `outlet.rs`: writes logs without blocking, and counts what was lost; `log_writer.rs`: standard error as a log;
//!   `log_file.rs`: the file of the access log; `log_text.rs`: common texts
//! - `whole_file.rs`: reads a file that a setting names, and waits for nobody
//! - `random.rs`: PURE. Random cases for unit tests
//!
//! # Who trusts whom
//!
//! The table in ARCHITECTURE.md says who may be malicious. These rules, from the privilege separation of OpenSSH and of
//! OpenBSD's httpd, protect the parent:
//!
//! - **Facts go up, power goes down.** Memory on which the parent's decisions depend is read-only for workers. A worker
//!   writes about itself in its own page. Each number is checked where it is read, and an impossible one is ignored.
//! - **Each report in its state.** `channel/protocol.rs` has the states. Any other byte breaks the protocol: the log
//!   gets one line, and the worker is killed and replaced, as after any failure.
//! - **The parent waits for nobody.** It reads without blocking, whatever the flags of the descriptor, and in bounded
//!   turns. It closes nothing for which close(2) could block.
//! - **Sockets are checked before they are passed on**, since they outlive the worker that may have changed them. A
//!   connection inherits SO_LINGER from its listener, on which neighbours can set it, so the process that accepts it
//!   clears the option.
//! - **A worker that takes a connection over trusts no record.** It asks the kernel whether the descriptor is a
//!   connection to one of the pool's listeners, and for its peer; anything else is dropped and counted.
//! - **An error of one listener only affects that listener.** Only a lack of descriptors or memory pauses them all.
//! - **Files** are created with O_EXCL and O_NOFOLLOW, or in private directories. Root never uses a path twice.
//! - **A keeper can start nothing** but its program **and change no file** from then on, since the program can block or
//!   kill it.
//!
//! The kernel lets a process signal and trace all processes of its user. So it depends on how workers run what they
//! cannot harm:
//!
//! | workers run | how | what they cannot harm |
//! |---|---|---|
//! | as the parent's user | the default | the parent, siblings and the admin process, through memory, reports or descriptors. They can signal and trace them |
//! | as another user | `--user nobody` | the same, and they cannot signal or trace the parent. A sibling that one stops, kills, or blocks through a shared socket is replaced within the stall timeout |
//! | as another user, in the sandbox | `--user nobody --sandbox strict` | anything but themselves: they can signal no other process, and neither reprogram nor shut down a shared socket |
//!
//! What is **not** promised:
//!
//! - **Rows, before Linux 6.10.** A worker outside of the sandbox can then stretch its page over those of its siblings,
//!   and make them look idle, full or stalled. A process that a worker has forked, and that outlives it, keeps the
//!   page, which the next worker of the slot may get.
//! - **Connections of the worker itself.** A worker may drop what it accepts, also from its neighbours' queues, until
//!   somebody kills it: the pool sees that it hangs or dies, but not that it lies to its clients.
//! - **Keys of TLS.** Workers have the private keys, and the secrets of session tickets for the previous, the current
//!   and the next period. Whoever breaks into a worker can pose as the site, and can read sessions that are resumed
//!   with tickets. Replace the keys then, and start the pool anew.
//! - **Secrecy.** Each worker has a copy of the memory of the process that was forked. Workers can read the scoreboard,
//!   and so see how busy their siblings are, and the method and path of the request that a sibling is in:
//!   `--name-requests no` if paths are secrets. Only the worker itself and the parent can read lines of the access log
//!   that wait in memory.
//! - **Fair shares of the machine.** A worker may use all the processor time, memory and disk space that its user may.
//!   Set limits with a control group.
//! - **Output.** What a worker writes to stdout, stderr and the access log may say anything.
//! - **Protection from root.** A worker that runs as root can do everything that root can, also outside of the pool.
//! - **The application's own servers** that accept from the worker's listeners. A neighbour may have set SO_LINGER
//!   there, which the server should clear on each connection. The built-in server and `Worker::incoming` do.
//! - **Options of a listener while its worker lives**, outside of the sandbox, since the worker holds the socket.
//!   Before a socket is passed on, its original options are restored, or the slot binds a new one. Options that cannot
//!   be read cannot be compared (TCP_MD5SIG).
//! - **The kernel.** A worker that breaks the kernel has broken everything.
//!
//! # How it works
//!
//! **Steering.** The parent writes to the scoreboard which process serves each seat of the kernel's group. Each worker
//! writes since when it is busy, whether it is full, and how many connections it has.
//!
//! With eBPF, the scoreboard lies in a BPF map, and the kernel reads it: for each new connection a program chooses the
//! seat with the fewest connections, except those that have been busy for more than a millisecond.
//!
//! Without the privilege for eBPF, the parent attaches a classic BPF program that chooses among the best seats at
//! random. It does so when a process comes or goes (before it forks, which takes longer), and when a worker asks for
//! it. A worker asks if it notices, in a turn of its loop and at most once a millisecond, that the scoreboard calls for
//! another choice than the kernel has been told. The parent then checks for itself. It attaches up to 64 times in a
//! burst and 500 times a second in the long run (`shared/pace.rs`), so no worker can keep it busy. An idle pool has
//! nothing to steer.
//!
//! The order of the seats is the order of the calls of `listen`, and first starts take turns to keep it. When a socket
//! leaves the group, the last one takes its index, so for that moment neither may be chosen.
//!
//! **Fair shares.** What a worker reports about itself may be wrong. With classic BPF a false report gains little,
//! since the program chooses at random among the workers that seem free. With eBPF, a worker that claims to have no
//! connections would get all of them. So the program counts, in memory that no worker can write, how many connections
//! it has given to each process in the current window of 64 connections per seat. A process that has had 128 gets no
//! more in this window while another one is free. A free process that lags 32 behind its share of the window so far
//! comes first.
//!
//! So false reports gain at most twice a fair share, and however many workers report falsely, each of the others gets
//! half of its own share. The price: a new worker among full ones gets at most twice its share until it has caught up,
//! and a free worker with many open connections gets at least half of its share. A row with impossible numbers is not
//! chosen at all; if all rows are such, the hash decides.
//!
//! The maps are allocated at once, with a page for each process. So such a pool has room for 64 workers, or for four
//! times its initial number if that is more.
//!
//! **Shared memory.** Every page has one writer. The parent maps each part twice: writable, which children do not
//! inherit (MADV_DONTFORK), and read-only, which they do. The memory is a memfd that is sealed in between
//! (F_SEAL_FUTURE_WRITE), or two BPF maps whose descriptors stay with the parent, so a read-only mapping cannot be made
//! writable.
//!
//! A child inherits one page of the writable mapping: its row, which the parent lends to that one fork (MADV_DOFORK).
//! The child first seals the page's place (mseal(2), Linux 6.10), since mremap(2) and remap_file_pages(2) could
//! otherwise reach the pages behind it. On older kernels a worker can do that, unless it is in the sandbox, which then
//! refuses mremap(2). It can falsify what its siblings report about themselves, but still not what the parent has
//! decided.
//!
//! Reports are believed within limits (`Row::counters`): more than ten million of anything a second counts as zero, and
//! is logged once.
//!
//! **Reports.** A worker reports through a pipe, in records of one or a few bytes. `channel/protocol.rs` says which it
//! may send in which state, and how often. A worker that sends anything else is killed, with one line in the log. The
//! first worker of a slot passes copies of the sockets that it makes over a birth socket, with the numbers of their
//! addresses, before any code of the application runs; then both sides close that socket. The parent never reads the
//! lifeline or the socket for orders, and its ends are shut down for reading. So no channel of a worker can carry a
//! descriptor to the parent.
//!
//! **Messages.** If the application has a hook that can read messages, each worker also has a SOCK_SEQPACKET pair for
//! them. The kernel keeps their boundaries and order, and its buffer is the queue: no sender waits for space. The
//! parent reads up to 64 messages of a worker per turn, for at most two milliseconds, and spends a fiftieth of its time
//! on the messages of one worker (`Builder::message_share`). So a worker that floods the parent delays only itself. The
//! share is small because any worker of a pool with a hook may flood. Signals, exits and other workers wait for at most
//! one such turn in any case, so an application that trusts its workers may raise the share.
//!
//! When a worker has exited, its socket is read to the end before the hook is told about the exit. When a worker is
//! told to finish, its loop delivers the messages in its queue before it ends, and refuses later ones. Workers may send
//! descriptors with messages only if the application asks for it (`Builder::accept_descriptors`). Otherwise the kernel
//! refuses them (SO_PASSRIGHTS, Linux 6.16), or the worker that sends one is killed.
//!
//! **Output that nobody reads.** `outlet.rs` writes all logs and prefixed output, and never blocks. O_NONBLOCK is a
//! flag of the open file description, which standard error shares with the process that started the pool: the pool must
//! not set it, and a worker could clear it for the parent. So each process opens a pipe or a terminal again through
//! /proc/self/fd, after the fork and before it gives up its rights. It writes at most PIPE_BUF bytes at once, which a
//! pipe accepts whole or not at all.
//!
//! If it may not open a pipe again, because the pipe belongs to another user, it writes to an empty pipe of its own,
//! and moves the bytes with splice(2) and SPLICE_F_NONBLOCK. For sockets there is MSG_DONTWAIT; files are written
//! directly. Asking poll(2) first is not enough: if two writers are told that there is space, one of them may block.
//! Lines that cannot be written are counted, in the worker's row of the scoreboard or among the parent's facts, and
//! reported when there is space again.
//!
//! # Decisions
//!
//! - **A row per process, not per slot**: while one worker replaces another, both write.
//! - **Messages have their own socket**, and do not use the lifeline or the socket for orders: a full queue then delays
//!   nothing that the pool needs, and each side sees when the other one closes. Each message begins with a marker byte,
//!   so that an empty one is not mistaken for the end.
//! - **All TCP sockets of a slot are dropped together**: the slot's index must be the same in the groups of all
//!   addresses, since steering relies on it. If an intruder shuts down the sockets of two slots in another order than
//!   the parent notices, the indexes may differ until the pool ends. Steering then sometimes avoids the wrong slot, and
//!   its neighbours accept the connections.
//! - **Root uses a path once**, if others could replace the file. The umask gives a Unix socket its mode when it is
//!   bound. The draft of the pid file has a random name and is created with O_EXCL. The access log is opened with
//!   O_NOFOLLOW; if workers are not root, it must not lie below a directory that others own or may write to, since a
//!   link there would make root append lines to any file. A file that logrotate has given to the workers' user is fine
//!   in a directory of root.

pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod counters;
pub(crate) mod credentials;
pub(crate) mod handover;
pub(crate) mod latency;
pub(crate) mod listener;
pub(crate) mod log_file;
pub(crate) mod log_text;
pub(crate) mod log_writer;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod outlet;
pub(crate) mod pace;
#[cfg(test)]
pub(crate) mod random;
pub(crate) mod request;
pub(crate) mod scoreboard;
pub(crate) mod seats;
pub(crate) mod signals;
pub(crate) mod state;
pub(crate) mod steer;
pub(crate) mod tls;
pub(crate) mod whole_file;
