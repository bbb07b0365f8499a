//! A setting has the same effect by a method, a variable and a flag, and errors name it as the user wrote it.

use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::shared::config::{
    AccessLogFormat, Adopt, Balance, ForwardedHeader, OnPanic, OnStall, Readiness, Rebalance, Sandbox, StopSignal,
    Symlinks,
};
use crate::shared::tls::{TlsClientAuth, TlsVersion};

#[test]
fn methods_and_names_set_the_same() {
    const SEVEN: Duration = Duration::from_secs(7);
    type Method = fn(Builder) -> Builder;
    let methods: &[(&str, &str, Method)] = &[
        ("adopt", "require", |pool| pool.adopt(Adopt::Require)),
        ("ready", "listen", |pool| pool.ready(Readiness::Listen)),
        ("stop-signal", "QUIT", |pool| pool.stop_signal(StopSignal::Quit)),
        ("prefix", "yes", |pool| pool.prefix(true)),
        ("listen", "127.0.0.1:7", |_| Pool::bind("127.0.0.1:7")),
        ("unix-mode", "0600", |pool| pool.unix_mode(0o600)),
        ("backlog", "7", |pool| pool.backlog(7)),
        ("balance", "random", |pool| pool.balance(Balance::Random)),
        ("neighbours", "7", |pool| pool.neighbours(7)),
        ("trusted-proxies", "10.0.0.0/8,unix", |pool| pool.trusted_proxies("10.0.0.0/8 unix")),
        ("forwarded-header", "forwarded", |pool| pool.forwarded_header(ForwardedHeader::Forwarded)),
        ("proxy-protocol", "yes", |pool| pool.proxy_protocol(true)),
        ("tls-listen", "127.0.0.1:7", |pool| pool.bind_tls("127.0.0.1:7")),
        ("tls-certificate", "another", |pool| pool.tls_certificate("another")),
        ("tls-key", "another", |pool| pool.tls_key("another")),
        ("tls-client-ca", "another", |pool| pool.tls_client_ca("another")),
        ("tls-client-auth", "require", |pool| pool.tls_client_auth(TlsClientAuth::Require)),
        ("tls-min", "1.3", |pool| pool.tls_min(TlsVersion::Tls13)),
        ("tls-max-handshakes", "7", |pool| pool.tls_max_handshakes(7)),
        ("https-redirect", "yes", |pool| pool.https_redirect(true)),
        ("tls-ticket-period", "7s", |pool| pool.tls_ticket_period(SEVEN)),
        ("tls-ticket-secret", "another", |pool| pool.tls_ticket_secret("another")),
        ("workers", "7", |pool| pool.workers(7)),
        ("pin", "yes", |pool| pool.pin(true)),
        ("drain-timeout", "7s", |pool| pool.drain_timeout(SEVEN)),
        ("boot-timeout", "7s", |pool| pool.boot_timeout(SEVEN)),
        ("stall-timeout", "7s", |pool| pool.stall_timeout(SEVEN)),
        ("on-stall", "abort", |pool| pool.on_stall(OnStall::Abort)),
        ("rebalance", "off", |pool| pool.rebalance(Rebalance::Off)),
        ("on-panic", "exit", |pool| pool.on_panic(OnPanic::Exit)),
        ("name-requests", "no", |pool| pool.name_requests(false)),
        ("slow-request", "7s", |pool| pool.slow_request(SEVEN)),
        ("surge", "7", |pool| pool.surge(7)),
        ("lame-duck", "7s", |pool| pool.lame_duck(SEVEN)),
        ("give-up", "7", |pool| pool.give_up(7)),
        ("max-requests", "7", |pool| pool.max_requests(7)),
        ("max-age", "7s", |pool| pool.max_age(SEVEN)),
        ("max-rss", "777", |pool| pool.max_rss(777)),
        ("watch", "src", |pool| pool.watch("src")),
        ("max-target", "777", |pool| pool.max_target(777)),
        ("max-head", "777", |pool| pool.max_head(777)),
        ("max-fields", "7", |pool| pool.max_fields(7)),
        ("max-body", "777", |pool| pool.max_body(777)),
        ("max-requests-per-connection", "7", |pool| pool.max_requests_per_connection(7)),
        ("max-pipelined", "7", |pool| pool.max_pipelined(7)),
        ("max-connections", "7", |pool| pool.max_connections(7)),
        ("max-output", "777", |pool| pool.max_output(777)),
        ("max-held", "7", |pool| pool.max_held(7)),
        ("utf8-query", "no", |pool| pool.utf8_query(false)),
        ("head-timeout", "7s", |pool| pool.head_timeout(SEVEN)),
        ("body-timeout", "7s", |pool| pool.body_timeout(SEVEN)),
        ("min-rate", "7", |pool| pool.min_rate(7)),
        ("idle-timeout", "7s", |pool| pool.idle_timeout(SEVEN)),
        ("drain-spread", "7s", |pool| pool.drain_spread(SEVEN)),
        ("write-timeout", "7s", |pool| pool.write_timeout(SEVEN)),
        ("answer-timeout", "7s", |pool| pool.answer_timeout(SEVEN)),
        ("tcp-keepalive", "7s", |pool| pool.tcp_keepalive(SEVEN)),
        ("half-close", "yes", |pool| pool.half_close(true)),
        ("root", "www", |pool| pool.root("www")),
        ("listing", "yes", |pool| pool.listing(true)),
        ("spa", "yes", |pool| pool.spa(true)),
        ("cache-control", "no-store", |pool| pool.cache_control("no-store")),
        ("header", "X-A: b", |pool| pool.header("X-A: b")),
        ("type", "a=b/c", |pool| pool.media_type("a=b/c")),
        ("precompressed", "no", |pool| pool.precompressed(false)),
        ("symlinks", "anywhere", |pool| pool.symlinks(Symlinks::Anywhere)),
        ("dotfiles", "yes", |pool| pool.dotfiles(true)),
        ("access-log", "another", |pool| pool.access_log("another")),
        ("access-log-format", "json", |pool| pool.access_log_format(AccessLogFormat::Json)),
        ("admin", "127.0.0.1:7", |pool| pool.admin("127.0.0.1:7")),
        ("admin-host", "pool.example", |pool| pool.admin_host("pool.example")),
        ("admin-token-file", "x.token", |pool| pool.admin_token_file("x.token")),
        ("chdir", "www", |pool| pool.chdir("www")),
        ("env-file", "x.env", |pool| pool.env_file("x.env")),
        ("user", "www", |pool| pool.user("www")),
        ("group", "www", |pool| pool.group("www")),
        ("sandbox", "strict", |pool| pool.sandbox(Sandbox::Strict)),
        ("pid-file", "x.pid", |pool| pool.pid_file("x.pid")),
        ("process-titles", "no", |pool| pool.process_titles(false)),
    ];
    let names: Vec<&str> = methods.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, settings().map(Setting::name).collect::<Vec<_>>());
    for (name, value, method) in methods {
        let by_method = method(Pool::bind(":1"));
        let by_name = Pool::bind(":1").set(name, value);
        let by_flag = Pool::bind(":1").set(&format!("--{name}"), value);
        assert_eq!(format!("{by_method:?}"), format!("{by_name:?}"));
        assert_eq!(format!("{by_method:?}"), format!("{by_flag:?}"));
        assert_ne!(format!("{by_method:?}"), format!("{:?}", Pool::bind(":1")));
    }
}

#[test]
fn every_variable_replaces_what_was_said_and_later_calls_replace_it() {
    for setting in settings() {
        let value = setting.another_value();
        let by_variable = Pool::bind(":1").env_from(&|name| (name == setting.variable()).then(|| value.into()));
        let by_name = Pool::bind(":1").set(setting.name(), value);
        assert_eq!(format!("{:?}", by_variable.config), format!("{:?}", by_name.config));
        let Some(default) = setting.default() else { continue };
        let later = by_variable.set(setting.name(), &default);
        let expected = Pool::bind(":1").set(setting.name(), &default);
        assert_eq!(format!("{:?}", later.config), format!("{:?}", expected.config));
    }
}

#[test]
fn variables_of_other_programs_are_read() {
    for (variables, addresses, workers) in [
        (&[("PORT", "9")][..], ":9", None),
        (&[("PORT", "9"), ("FORKPOOL_LISTEN", "127.0.0.1:7")], "127.0.0.1:7", None),
        (&[("FORKPOOL_LISTEN", "127.0.0.1:7, [::1]:7 unix:x")], "127.0.0.1:7 [::1]:7 unix:x", None),
        (&[("WEB_CONCURRENCY", "3")], ":1", Some(3)),
        (&[("WEB_CONCURRENCY", "3"), ("CLUSTER_WORKERS", "2")], ":1", Some(2)),
        (&[("WEB_CONCURRENCY", "none"), ("FORKPOOL_WORKERS", "2")], ":1", Some(2)),
        (&[("WEB_CONCURRENCY", "3"), ("FORKPOOL_WORKERS", "auto")], ":1", None),
        (&[("PORT", ""), ("CLUSTER_WORKERS", ""), ("FORKPOOL_WORKERS", "")], ":1", None),
    ] {
        let builder = Pool::bind(":1").env_from(&source(variables));
        builder.check().expect("valid");
        let listens: Vec<_> = builder.config.listening.addresses.iter().map(Address::to_string).collect();
        assert_eq!((listens.join(" ").as_str(), builder.config.workers.count), (addresses, workers), "{variables:?}");
    }
}

#[test]
fn a_mistake_is_reported_as_it_was_written() {
    for (builder, message) in [
        (Pool::bind("8000"), "listen=8000: is only a port; write :8000"),
        (Pool::bind(":1").bind("x"), "listen=x: needs a port"),
        (Pool::bind(":1").env_from(&source(&[("FORKPOOL_WORKERS", "0")])), "FORKPOOL_WORKERS=0: must be 1 to 1024"),
        (Pool::bind(":1").env_from(&source(&[("WEB_CONCURRENCY", "x")])), "WEB_CONCURRENCY=x: must be 1 to 1024"),
        (Pool::bind(":1").env_from(&source(&[("PORT", "http")])), "PORT=http: :http needs a port from"),
        (Pool::bind(":1").set("--workers", "0"), "--workers 0: must be 1 to 1024"),
        (Pool::bind(":1").set("workers", "a\nb"), "workers=a\\nb: must be 1 to 1024"),
        (Pool::bind(":1").set("--listen", ""), "--listen \"\": needs an address"),
        (Pool::bind(":1").set("wrokers", "1"), "wrokers=1: there is no such setting"),
        (Pool::bind(":1").workers(0), "workers: must be 1 to 1024"),
        (Pool::bind(":1").stall_timeout(Duration::from_millis(1)), "stall-timeout: must be 100ms"),
    ] {
        let error = builder.check().expect_err(message);
        assert!(matches!(error, Error::Config { .. }));
        assert!(error.to_string().starts_with(message), "{error}");
    }
    let latin1 = |name: &str| (name == "FORKPOOL_USER").then(|| OsString::from_vec(vec![0xe9]));
    let error = Pool::bind(":1").env_from(&latin1).check().expect_err("no UTF-8");
    assert!(error.to_string().ends_with("is not valid UTF-8"), "{error}");
}

#[test]
fn what_is_said_later_takes_a_mistake_back() {
    let bad = || Pool::bind("x").set("workers", "0").set("nothing", "1");
    assert_eq!(bad().invalid.len(), 3);
    let good = bad().set("listen", ":1").workers(1);
    assert_eq!(good.invalid.len(), 1);
}

#[test]
fn the_check_says_what_it_has_checked() {
    let line = Pool::bind(":1").bind("unix:x").workers(2).check().expect("valid");
    assert_eq!(line, "listens on :1, unix:x, 2 workers: as configured");
}

fn source<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    |name| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
}

/// The documentation of each method names the default of its setting, which only the configuration defines.
#[test]
fn the_defaults_documented_are_the_defaults() {
    let mut told = Vec::new();
    for source in METHODS {
        let mut doc = String::new();
        for line in source.lines().map(str::trim) {
            match line.strip_prefix("///") {
                Some(text) => doc += text,
                None => {
                    let calls = ["self.put(\"", "self.set(\"", "self.add(\""];
                    if let Some((_, named)) = calls.iter().find_map(|call| line.split_once(call)) {
                        let name = named.split('"').next().unwrap_or_default();
                        if let Some(setting) = Setting::named(name) {
                            let default = setting.shown(&Config::default());
                            let found = documented(&doc, setting.value_name())
                                .unwrap_or_else(|| panic!("{name}: no default in {doc}"));
                            assert_eq!(found, default.as_deref().unwrap_or("none"), "{name}: {doc}");
                            told.push(name);
                        }
                    }
                    if line == "}" {
                        doc.clear();
                    }
                }
            }
        }
    }
    let names: Vec<&str> =
        settings().map(Setting::name).filter(|name| !["listen", "tls-listen"].contains(name)).collect();
    assert_eq!(told.len(), names.len(), "{told:?}");
    assert!(names.iter().all(|name| told.contains(name)), "{told:?}");
}

const METHODS: [&str; 7] = [
    include_str!("files.rs"),
    include_str!("http.rs"),
    include_str!("listening.rs"),
    include_str!("process.rs"),
    include_str!("programs.rs"),
    include_str!("tls.rs"),
    include_str!("workers.rs"),
];

/// The value after `Default` in the documentation, as text of the setting: `25 s` is 25s, `[`Balance::Auto`]` auto,
/// `false` no.
fn documented(doc: &str, value_name: &str) -> Option<String> {
    let (_, after) = doc.split_once(" Default")?;
    let after = after.trim_start_matches(':').trim_start();
    if let Some((_, variant)) = after.strip_prefix("[`").and_then(|link| link.split('`').next()?.split_once("::")) {
        let words = variant.char_indices().map(|(at, c)| match (at, c.is_uppercase()) {
            (1.., true) => format!("-{}", c.to_ascii_lowercase()),
            _ => c.to_ascii_lowercase().to_string(),
        });
        return Some(words.collect());
    }
    let value = match after.strip_prefix('`') {
        Some(code) => code.split('`').next()?,
        None => after.split([',', ';', ':']).next()?.split(". ").next()?.trim_end_matches('.'),
    };
    // The word for "off" comes first, except with yes and no.
    let (not_so, so) = match value_name.split_once('|') {
        Some(("yes", "no")) | None => ("no", "yes"),
        Some(words) => words,
    };
    Some(match value {
        "true" => so.to_owned(),
        "false" => not_so.to_owned(),
        octal if octal.starts_with("0o") => octal.replacen("0o", "0", 1),
        other => other.replace(' ', ""),
    })
}
