//! PURE. The one table of settings: flags, variables, help and checks all follow from it.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::time::Duration;

use super::values::{bytes, duration, flag, host_name, list, mode, number, text, timeout, within};
use super::{Balance, Config, Format, Sandbox, Symlinks, FIELDS_MAX};

/// One thing that can be said about a pool: a flag of the binary, a variable, a method of [`Builder`](crate::Builder).
#[derive(Debug)]
pub struct Setting {
    name: &'static str,
    heading: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
    aliases: &'static [Alias],
    is_list: bool,
    apply: fn(&mut Config, &str) -> Result<(), String>,
    /// Whether the value makes sense on its own, however it came in.
    check: fn(&Config) -> Result<(), String>,
}

/// A variable of other programs' that means the same.
#[derive(Debug)]
struct Alias {
    variable: &'static str,
    /// What its value lacks at the front to be a value of ours.
    prefix: &'static str,
}

/// Every setting there is, in the order of the help.
///
/// ```
/// // What an embedding program prints about `Builder::env()`.
/// for setting in forkpool::settings() {
///     println!("{}\t{}", setting.variable(), setting.help());
/// }
/// ```
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter()
}

impl Setting {
    /// The flag's name without dashes, as in `drain-timeout`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The variable's name, as in `FORKPOOL_DRAIN_TIMEOUT`.
    pub fn variable(&self) -> String {
        format!("FORKPOOL_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Further variables that are read when that one is not set, the first before the second.
    pub fn aliases(&self) -> impl Iterator<Item = &'static str> {
        self.aliases.iter().map(|alias| alias.variable)
    }

    /// What kind of value it takes, as in `DURATION`.
    pub fn value_name(&self) -> &'static str {
        self.value_name
    }

    /// The value when nothing is said; `None` when the thing is off then.
    pub fn default(&self) -> Option<&'static str> {
        self.default
    }

    /// What it does, in one sentence without a full stop.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The heading it belongs under, as in `HTTP limits`; settings of one heading follow one another.
    pub fn heading(&self) -> &'static str {
        self.heading
    }

    /// Whether it takes several values, separated by commas or blanks.
    pub fn is_list(&self) -> bool {
        self.is_list
    }

    pub(crate) fn named(name: &str) -> Option<&'static Setting> {
        settings().find(|setting| setting.name == name)
    }

    /// The variable that decides, and its value. An empty variable counts as unset.
    pub(crate) fn variable_set(&self, source: &dyn Fn(&str) -> Option<OsString>) -> Option<(String, OsString, &str)> {
        let read = |variable: &str| source(variable).filter(|value| !value.is_empty());
        let own = self.variable();
        if let Some(value) = read(&own) {
            return Some((own, value, ""));
        }
        self.aliases.iter().find_map(|alias| Some((alias.variable.to_owned(), read(alias.variable)?, alias.prefix)))
    }

    /// Sets it from text.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    pub(crate) fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.apply)(config, text).map_err(|problem| on_one_line(&problem))?;
        self.check(config)
    }

    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        (self.check)(config)
    }
}

/// A problem may repeat what was given, and that may be anything.
fn on_one_line(problem: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    problem.chars().map(shown).collect()
}

fn set<V>(field: &mut V, value: Result<V, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn set_some<V>(field: &mut Option<V>, value: Result<V, String>) -> Result<(), String> {
    *field = Some(value?);
    Ok(())
}

/// The least time-out: the clock's step.
const MILLISECOND: Duration = Duration::from_millis(1);
/// The least stall time-out: below it a worker that only waits for its turn on a busy machine would count as hung.
const STALL_MIN: Duration = Duration::from_millis(100);

const LISTENING: &str = "Listening";
const WORKERS: &str = "Workers";
const REPLACING: &str = "Replacing workers";
const LIMITS: &str = "HTTP limits";
const TIMEOUTS: &str = "HTTP time-outs";
const FILES: &str = "Static files";
const ACCESS_LOG: &str = "Access log";
const ADMIN: &str = "Admin";
const PROCESS: &str = "Process";

const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        heading: LISTENING,
        value_name: "ADDR",
        default: Some("127.0.0.1:8000"),
        help: "Address to listen on: 127.0.0.1:8000, [::1]:8000, :8000 for every interface, port 0 for a free one, \
               unix:/run/x.sock; may be given several times",
        aliases: &[Alias { variable: "PORT", prefix: ":" }],
        is_list: true,
        apply: |config, text| {
            let parse = |item: &str| item.parse().map_err(|problem| format!("{item} {problem}"));
            set(&mut config.addresses, list(text).map(parse).collect())
        },
        check: |config| match config.addresses.is_empty() && config.udp.is_empty() {
            true => Err("needs an address, as in 127.0.0.1:8000".into()),
            false => Ok(()),
        },
    },
    Setting {
        name: "unix-mode",
        heading: LISTENING,
        value_name: "MODE",
        default: Some("0666"),
        help: "Permission bits of Unix sockets, octal; by default every local user may connect, as to a port on \
               127.0.0.1, whatever user the proxy in front runs as",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.unix_mode, mode(text)),
        check: |config| match config.unix_mode {
            0..=0o777 => Ok(()),
            _ => Err("must be permission bits, 0 to 0777 in octal".into()),
        },
    },
    Setting {
        name: "backlog",
        heading: LISTENING,
        value_name: "N",
        default: Some("1024"),
        help: "Connections that may wait in a worker's queue to be accepted; the kernel caps it at net.core.somaxconn",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.backlog, number(text)),
        check: |config| within(config.backlog, 1..=i32::MAX as u32),
    },
    Setting {
        name: "balance",
        heading: LISTENING,
        value_name: "METHOD",
        default: Some("auto"),
        help: "Who gets a new TCP connection: auto, hash (blind, as without this), random (of the workers that are free), \
               least-connections (by eBPF: needs CAP_BPF and CAP_NET_ADMIN), cpu (the worker on the CPU that received \
               it; pins workers), client (the same worker for the same address); auto is least-connections where it \
               is allowed, else random",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.balance = match text {
                "auto" => Balance::Auto,
                "hash" => Balance::Hash,
                "random" => Balance::Random,
                "least-connections" => Balance::LeastConnections,
                "cpu" => Balance::Cpu,
                "client" => Balance::Client,
                _ => return Err("must be auto, hash, random, least-connections, cpu or client".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "neighbours",
        heading: LISTENING,
        value_name: "N",
        default: Some("3"),
        help: "Other workers that take from a worker's queue what it leaves there, because it is busy or gone",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.neighbours, number(text)),
        check: |config| within(config.neighbours, 0..=16),
    },
    Setting {
        name: "workers",
        heading: WORKERS,
        value_name: "N|auto",
        default: Some("auto"),
        help: "Worker processes; auto is one for each CPU that affinity and the cgroup's quota leave",
        aliases: &[
            Alias { variable: "CLUSTER_WORKERS", prefix: "" },
            Alias { variable: "WEB_CONCURRENCY", prefix: "" },
        ],
        is_list: false,
        apply: |config, text| {
            let workers = match text {
                "auto" => Ok(None),
                _ => number(text).map(Some).map_err(|_| workers_problem()),
            };
            set(&mut config.workers, workers)
        },
        check: |config| match config.workers {
            Some(workers) => within(workers, 1..=Config::WORKERS_MAX).map_err(|_| workers_problem()),
            None => Ok(()),
        },
    },
    Setting {
        name: "pin",
        heading: WORKERS,
        value_name: "yes|no",
        default: Some("no"),
        help: "Whether each worker stays on one of the CPUs that affinity leaves",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.pin, flag(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "drain-timeout",
        heading: WORKERS,
        value_name: "DURATION",
        default: Some("25s"),
        help: "How long a worker told to stop may finish its requests before it is killed; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.drain_timeout, duration(text)),
        check: |config| timeout(config.drain_timeout, MILLISECOND),
    },
    Setting {
        name: "boot-timeout",
        heading: WORKERS,
        value_name: "DURATION",
        default: Some("60s"),
        help: "How long a worker may take to become ready before it is replaced; long, as some load much data; \
               0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.boot_timeout, duration(text)),
        check: |config| timeout(config.boot_timeout, MILLISECOND),
    },
    Setting {
        name: "stall-timeout",
        heading: WORKERS,
        value_name: "DURATION",
        default: Some("60s"),
        help: "How long a worker may be busy with one request before it counts as hung and is replaced; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.stall_timeout, duration(text)),
        check: |config| timeout(config.stall_timeout, STALL_MIN),
    },
    Setting {
        name: "on-stall",
        heading: WORKERS,
        value_name: "kill|abort",
        default: Some("kill"),
        help:
            "What ends a worker that hangs; abort sends it SIGABRT first, so that it says where it is and may dump core",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.abort_stalled = match text {
                "kill" => false,
                "abort" => true,
                _ => return Err("must be kill or abort".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "on-panic",
        heading: WORKERS,
        value_name: "answer|exit",
        default: Some("answer"),
        help: "What a panic in a handler ends: with answer its connection, by a 500; with exit its worker, as in Node",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.server.exit_on_panic = match text {
                "answer" => false,
                "exit" => true,
                _ => return Err("must be answer or exit".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "surge",
        heading: REPLACING,
        value_name: "N",
        default: Some("1"),
        help: "Workers that a rolling restart replaces at a time; the new ones start while the old ones serve",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.surge, number(text)),
        check: |config| within(config.surge, 1..=Config::WORKERS_MAX),
    },
    Setting {
        name: "lame-duck",
        heading: REPLACING,
        value_name: "DURATION",
        default: Some("0"),
        help:
            "How long to go on serving after TERM, as not ready any more, so that balancers look elsewhere before the \
               drain; 0 is not at all",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.lame_duck, duration(text)),
        check: |config| timeout(config.lame_duck, MILLISECOND),
    },
    Setting {
        name: "give-up",
        heading: REPLACING,
        value_name: "N",
        default: Some("0"),
        help: "Workers of a slot in a row that fail and never served, after which the whole pool ends, with exit code 3; \
               0 is never",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.give_up, number(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-requests",
        heading: REPLACING,
        value_name: "N",
        default: Some("0"),
        help: "Requests after which a worker is replaced, or up to a tenth fewer, but a slot's at most about once a second; 0 \
               is no limit",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.max_requests, number(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-age",
        heading: REPLACING,
        value_name: "DURATION",
        default: Some("0"),
        help: "Time after which a worker is replaced, or up to a tenth less; 0 is no limit",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.max_age, duration(text)),
        check: |config| timeout(config.max_age, MILLISECOND),
    },
    Setting {
        name: "max-rss",
        heading: REPLACING,
        value_name: "BYTES",
        default: Some("0"),
        help: "Memory that a worker may hold before it is replaced, looked at once a second; 0 is no limit",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.max_rss, bytes(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-target",
        heading: LIMITS,
        value_name: "BYTES",
        default: Some("8KiB"),
        help: "Longest request target; beyond it 414. RFC 9112 asks for at least 8000",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.limits.target, bytes(text)),
        check: |config| within(config.server.limits.target, 1..=Config::HEAD_MAX),
    },
    Setting {
        name: "max-head",
        heading: LIMITS,
        value_name: "BYTES",
        default: Some("16KiB"),
        help: "Longest request head, from the method to the empty line; beyond it 431",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.limits.head, bytes(text)),
        check: |config| within(config.server.limits.head, Config::HEAD_MIN..=Config::HEAD_MAX),
    },
    Setting {
        name: "max-fields",
        heading: LIMITS,
        value_name: "N",
        default: Some("100"),
        help: "Most header fields of a request; beyond it 431",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.limits.fields, number(text)),
        check: |config| within(config.server.limits.fields, 1..=FIELDS_MAX),
    },
    Setting {
        name: "max-body",
        heading: LIMITS,
        value_name: "BYTES",
        default: Some("1MiB"),
        help: "Longest request body, as it is held in memory; beyond it 413; 0 refuses bodies",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.limits.body, bytes(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-requests-per-connection",
        heading: LIMITS,
        value_name: "N",
        default: Some("0"),
        help: "Requests on one connection before it is closed, so that clients spread anew; 0 is no limit",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.limits.requests, number(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-pipelined",
        heading: LIMITS,
        value_name: "N",
        default: Some("64"),
        help: "Requests of one connection answered in a row before the others have their turn",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.max_pipelined, number(text)),
        check: |config| within(config.server.max_pipelined, 1..=100_000),
    },
    Setting {
        name: "max-connections",
        heading: LIMITS,
        value_name: "N",
        default: Some("0"),
        help: "Open connections per worker; at the limit the one that has been idle longest is closed for a new one; 0 is as \
               many as descriptors allow",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.max_connections, number(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "max-output",
        heading: LIMITS,
        value_name: "BYTES",
        default: Some("256KiB"),
        help: "Answers held for a client that does not read them, before it is not read from either",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.max_output, bytes(text)),
        check: |config| within(config.server.max_output, 1..=Config::OUTPUT_MAX),
    },
    Setting {
        name: "max-held",
        heading: LIMITS,
        value_name: "BYTES",
        default: Some("64MiB"),
        help: "Memory that each worker holds of heads and bodies that have not come whole and of answers that were not \
               taken; at the limit new ones get 503 and others wait, and after 5s the slowest are closed; 0 is no limit",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.max_held, bytes(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "head-timeout",
        heading: TIMEOUTS,
        value_name: "DURATION",
        default: Some("10s"),
        help: "How long a client may take to send a whole request head; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.head_timeout, duration(text)),
        check: |config| timeout(config.server.head_timeout, MILLISECOND),
    },
    Setting {
        name: "body-timeout",
        heading: TIMEOUTS,
        value_name: "DURATION",
        default: Some("30s"),
        help: "How long a client may pause while it sends a body; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.body_timeout, duration(text)),
        check: |config| timeout(config.server.body_timeout, MILLISECOND),
    },
    Setting {
        name: "min-rate",
        heading: TIMEOUTS,
        value_name: "BYTES",
        default: Some("500"),
        help: "Bytes of a body that a client must send a second, over any span of body-timeout; below it 408; and of an \
               answer that waits for it take, over any of write-timeout; 0 is no minimum",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.min_rate, bytes(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "idle-timeout",
        heading: TIMEOUTS,
        value_name: "DURATION",
        default: Some("75s"),
        help:
            "How long a connection may be idle between requests; longer than the 60s of common proxies, so that they \
               close first; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.idle_timeout, duration(text)),
        check: |config| timeout(config.server.idle_timeout, MILLISECOND),
    },
    Setting {
        name: "write-timeout",
        heading: TIMEOUTS,
        value_name: "DURATION",
        default: Some("30s"),
        help: "How long a client may take nothing of an answer that waits for it; 0 is for ever",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.server.write_timeout, duration(text)),
        check: |config| timeout(config.server.write_timeout, MILLISECOND),
    },
    Setting {
        name: "root",
        heading: FILES,
        value_name: "DIR",
        default: None,
        help: "Directory whose files are served; nothing outside of it is, whatever is asked for",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.root, text(value).map(Into::into)),
        check: |config| not_empty(config.root.as_deref().map(|path| path.as_os_str())),
    },
    Setting {
        name: "listing",
        heading: FILES,
        value_name: "yes|no",
        default: Some("no"),
        help: "Whether a directory without index.html is listed; without this it is 404",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.files.listing, flag(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "spa",
        heading: FILES,
        value_name: "yes|no",
        default: Some("no"),
        help: "Whether paths that name no file, and have no dot in their last segment, are answered with /index.html: \
               for an application in the browser that has paths of its own",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.files.single_page, flag(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "cache-control",
        heading: FILES,
        value_name: "VALUE",
        default: None,
        help: "Value of Cache-Control in answers from files, as in max-age=600",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.files.cache_control, text(value)),
        check: |config| match &config.files.cache_control {
            Some(value) if value.is_empty() => Err("must not be empty".to_owned()),
            Some(value) if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
                Err("must be visible ASCII, as in max-age=600".to_owned())
            }
            _ => Ok(()),
        },
    },
    Setting {
        name: "precompressed",
        heading: FILES,
        value_name: "yes|no",
        default: Some("yes"),
        help: "Whether a file is answered from its sibling with .br, .zst or .gz behind its name, when the client accepts \
               that and it is not older than the file",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.files.precompressed, flag(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "symlinks",
        heading: FILES,
        value_name: "WHICH",
        default: Some("inside"),
        help: "Symbolic links that are followed: none, inside (relative ones that do not leave the directory), anywhere",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.files.symlinks = match text {
                "none" => Symlinks::None,
                "inside" => Symlinks::Inside,
                "anywhere" => Symlinks::Anywhere,
                _ => return Err("must be none, inside or anywhere".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "dotfiles",
        heading: FILES,
        value_name: "yes|no",
        default: Some("no"),
        help: "Whether names that begin with a dot are served; /.well-known/ always is",
        aliases: &[],
        is_list: false,
        apply: |config, text| set(&mut config.files.dotfiles, flag(text)),
        check: |_| Ok(()),
    },
    Setting {
        name: "access-log",
        heading: ACCESS_LOG,
        value_name: "PATH",
        default: None,
        help: "File that gets a line for each answer, or - or /dev/stdout for standard output, /dev/stderr for the other \
               one; SIGUSR1 opens it anew, for who has renamed it; it must be no symbolic link, and where root opens it for \
               workers of another user, nobody but root may be able to replace it: its directory and those above are \
               root's",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.access_log, text(value).map(Into::into)),
        check: |config| not_empty(config.access_log.as_deref().map(|path| path.as_os_str())),
    },
    Setting {
        name: "access-log-format",
        heading: ACCESS_LOG,
        value_name: "FORMAT",
        default: Some("combined"),
        help: "How the lines are written: common, combined (with Referer and User-Agent), or json, an object in each line",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.access_log_format = match text {
                "common" => Format::Common,
                "combined" => Format::Combined,
                "json" => Format::Json,
                _ => return Err("must be common, combined or json".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "admin",
        heading: ADMIN,
        value_name: "ADDR",
        default: None,
        help: "Address of a process for status, metrics, health and control: 127.0.0.1:9000, or unix:/run/x.admin (mode \
               0600); over TCP it is read-only without a token",
        aliases: &[],
        is_list: false,
        apply: |config, text| set_some(&mut config.admin, text.parse()),
        check: |_| Ok(()),
    },
    Setting {
        name: "admin-host",
        heading: ADMIN,
        value_name: "HOST",
        default: None,
        help: "Host name by which the admin process may be asked over TCP, besides IP addresses and localhost; /metrics, \
               /healthz and /readyz answer to any name; may be given several times",
        aliases: &[],
        is_list: true,
        apply: |config, text| set(&mut config.admin_hosts, Ok(list(text).map(str::to_owned).collect())),
        check: |config| config.admin_hosts.iter().try_for_each(|name| host_name(name)),
    },
    Setting {
        name: "admin-token-file",
        heading: ADMIN,
        value_name: "PATH",
        default: None,
        help: "File with a token that lets TCP clients control the pool, sent as Authorization: Bearer TOKEN; not to be \
               readable by everybody",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.admin_token_file, text(value).map(Into::into)),
        check: |config| not_empty(config.admin_token_file.as_deref().map(|path| path.as_os_str())),
    },
    Setting {
        name: "user",
        heading: PROCESS,
        value_name: "NAME",
        default: None,
        help: "User that workers become once they listen, by name or number, with its HOME; needs root",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.user, text(value)),
        check: |config| not_empty(config.user.as_deref()),
    },
    Setting {
        name: "group",
        heading: PROCESS,
        value_name: "NAME",
        default: None,
        help: "Group that workers become, by name or number; without it the user's own; needs root",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.group, text(value)),
        check: |config| not_empty(config.group.as_deref()),
    },
    Setting {
        name: "sandbox",
        heading: PROCESS,
        value_name: "auto|off|strict",
        default: None,
        help: "What workers may do once they are ready: serve what they have open, read and write files that are open \
               already, open what is below --root, /dev/null, /dev/urandom and the time zones, start threads, and nothing \
               else: no other files, no new sockets, processes or code, no signals, and nothing to a listening socket \
               that would outlast them (no_new_privs, landlock, seccomp); auto goes on where the kernel lacks one of \
               these, strict fails; a program, whose needs are not known, only gains no privileges by executing another, \
               such as sudo; without this auto, and off for programs and for handlers of your own",
        aliases: &[],
        is_list: false,
        apply: |config, text| {
            config.sandbox = match text {
                "auto" => Sandbox::Auto,
                "off" => Sandbox::Off,
                "strict" => Sandbox::Strict,
                _ => return Err("must be auto, off or strict".to_owned()),
            };
            Ok(())
        },
        check: |_| Ok(()),
    },
    Setting {
        name: "pid-file",
        heading: PROCESS,
        value_name: "PATH",
        default: None,
        help: "File for the parent's process id, written once the addresses are ours and removed at the end; everybody may \
               read it (mode 0644)",
        aliases: &[],
        is_list: false,
        apply: |config, value| set_some(&mut config.pid_file, text(value).map(Into::into)),
        check: |config| not_empty(config.pid_file.as_deref().map(|path| path.as_os_str())),
    },
];

fn workers_problem() -> String {
    format!("must be 1 to {}, or auto", Config::WORKERS_MAX)
}

fn not_empty(value: Option<impl AsRef<std::ffi::OsStr>>) -> Result<(), String> {
    match value {
        Some(value) if value.as_ref().is_empty() => Err("must not be empty".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    impl Setting {
        /// A valid value that is not the default.
        pub(crate) fn another_value(&self) -> &'static str {
            match self.value_name {
                "ADDR" => "127.0.0.1:7",
                "MODE" => "0600",
                "DURATION" => "7s",
                "BYTES" => "777",
                "NAME" | "HOST" | "PATH" | "DIR" => "another",
                "yes|no" if self.default == Some("yes") => "no",
                "WHICH" => "anywhere",
                "answer|exit" => "exit",
                "kill|abort" => "abort",
                "auto|off|strict" => "strict",
                "yes|no" => "yes",
                "METHOD" => "random",
                "FORMAT" => "json",
                _ => "7",
            }
        }
    }

    #[test]
    fn the_defaults_shown_are_the_defaults() {
        for setting in settings() {
            let Some(default) = setting.default else { continue };
            let mut config = Config::default();
            setting.apply(&mut config, default).expect(setting.name);
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", setting.name);
        }
    }

    #[test]
    fn every_value_reaches_a_field_of_its_own() {
        let untouched = format!("{:?}", Config::default());
        let mut seen = HashSet::new();
        for setting in settings() {
            let mut config = Config::default();
            setting.apply(&mut config, setting.another_value()).expect(setting.name);
            let changed = format!("{config:?}");
            assert_ne!(changed, untouched, "{}", setting.name);
            assert!(seen.insert(changed), "{} sets another's field", setting.name);
        }
    }

    #[test]
    fn names_are_unique_and_headings_keep_together() {
        let mut variables = HashSet::new();
        let mut headings = Vec::new();
        for setting in settings() {
            assert!(variables.insert(setting.variable()), "{}", setting.name);
            assert!(setting.aliases().all(|alias| variables.insert(alias.into())), "{}", setting.name);
            assert!(!setting.help.ends_with('.') && !setting.help.contains('\n'), "{}", setting.name);
            if headings.last() != Some(&setting.heading) {
                headings.push(setting.heading);
            }
        }
        assert_eq!(headings, [LISTENING, WORKERS, REPLACING, LIMITS, TIMEOUTS, FILES, ACCESS_LOG, ADMIN, PROCESS]);
    }

    #[test]
    fn the_own_variable_wins_over_aliases_and_an_empty_one_is_unset() {
        let workers = Setting::named("workers").expect("a setting");
        for (variables, decides) in [
            (&[][..], None),
            (&[("WEB_CONCURRENCY", "3")], Some(("WEB_CONCURRENCY", "3"))),
            (&[("WEB_CONCURRENCY", "3"), ("CLUSTER_WORKERS", "2")], Some(("CLUSTER_WORKERS", "2"))),
            (&[("CLUSTER_WORKERS", "2"), ("FORKPOOL_WORKERS", "1")], Some(("FORKPOOL_WORKERS", "1"))),
            (&[("CLUSTER_WORKERS", "2"), ("FORKPOOL_WORKERS", "")], Some(("CLUSTER_WORKERS", "2"))),
            (&[("CLUSTER_WORKERS", ""), ("FORKPOOL_WORKERS", "")], None),
        ] {
            let source = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into());
            let found = workers.variable_set(&source).map(|(variable, value, _)| (variable, value));
            let decides = decides.map(|(variable, value)| (variable.to_owned(), OsString::from(value)));
            assert_eq!(found, decides, "{variables:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (name, value, problem) in [
            ("listen", "", "needs an address"),
            ("listen", "127.0.0.1:1,nonsense", "nonsense needs a port"),
            ("unix-mode", "1777", "0 to 0777"),
            ("backlog", "0", "1 to 2147483647"),
            ("workers", "0", "1 to 1024, or auto"),
            ("workers", "100000", "1 to 1024, or auto"),
            ("workers", "many", "1 to 1024, or auto"),
            ("drain-timeout", "2d", "as in 500ms, 30s"),
            ("boot-timeout", "25h", "1ms to 24h, or 0 for never"),
            ("stall-timeout", "99ms", "100ms to 24h, or 0 for never"),
            ("on-panic", "ignore", "must be answer or exit"),
            ("balance", "fair", "must be auto, hash, random"),
            ("neighbours", "17", "0 to 16"),
            ("pin", "maybe", "must be yes or no"),
            ("on-stall", "ignore", "must be kill or abort"),
            ("surge", "0", "1 to 1024"),
            ("lame-duck", "25h", "1ms to 24h"),
            ("max-age", "25h", "1ms to 24h"),
            ("max-target", "0", "1 to 1048576"),
            ("max-head", "255", "256 to 1048576"),
            ("max-fields", "0", "1 to 128"),
            ("max-fields", "129", "1 to 128"),
            ("max-body", "much", "as in 8KiB"),
            ("max-pipelined", "0", "1 to 100000"),
            ("max-output", "0", "1 to 1073741824"),
            ("root", "", "must not be empty"),
            ("listing", "1", "must be yes or no"),
            ("cache-control", "", "must not be empty"),
            ("cache-control", "a\r\nb: c", "must be visible ASCII"),
            ("symlinks", "yes", "must be none, inside or anywhere"),
            ("access-log", "", "must not be empty"),
            ("access-log-format", "clf", "must be common, combined or json"),
            ("admin", "9000", "is only a port"),
            ("admin-host", "pool.example:9000", "must be a host name without a port, as in pool.example"),
            ("admin-token-file", "", "must not be empty"),
            ("user", "", "must not be empty"),
            ("group", "", "must not be empty"),
            ("sandbox", "on", "must be auto, off or strict"),
            ("pid-file", "", "must not be empty"),
        ] {
            let setting = Setting::named(name).expect("a setting");
            let found = setting.apply(&mut Config::default(), value).expect_err(name);
            assert!(found.contains(problem), "{name} {value}: {found}");
        }
    }
}
