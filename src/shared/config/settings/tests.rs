//! All settings together: names, defaults and refusals.

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
            "NAME" | "HOST" | "PATH" | "DIR" | "FILE" | "PATTERN" => "another",
            "yes|no" if self.default().as_deref() == Some("yes") => "no",
            "WHICH" => "anywhere",
            "answer|exit" => "exit",
            "kill|abort" => "abort",
            "auto|off" => "off",
            "auto|off|strict" => "strict",
            "no|optional|require" => "require",
            "1.2|1.3" => "1.3",
            "yes|no" => "yes",
            "METHOD" => "random",
            "FORMAT" => "json",
            "FIELD" => "X-A: b",
            "EXT=TYPE" => "a=b/c",
            "CIDR" => "10.0.0.0/8,unix",
            "HEADER" => "forwarded",
            "SIGNAL" => "QUIT",
            "auto|off|require" => "require",
            ready if ready.starts_with("auto|notify") => "listen",
            _ => "7",
        }
    }
}

#[test]
fn the_defaults_shown_are_the_defaults() {
    for setting in settings() {
        let Some(default) = setting.default() else { continue };
        let mut config = Config::default();
        setting.apply(&mut config, &default).expect(setting.name);
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", setting.name);
    }
}

#[test]
fn every_word_is_a_value_and_a_similar_one_is_suggested() {
    for setting in settings() {
        for word in setting.words() {
            let mut config = Config::default();
            setting.apply(&mut config, word).expect(setting.name);
            assert_eq!(setting.shown(&config).as_deref(), Some(word), "{}", setting.name);
            let upper = word.to_uppercase();
            if upper != word {
                let problem = setting.apply(&mut config, &upper).expect_err("values are not in capitals");
                assert!(problem.ends_with(&format!("; did you mean {word}?")), "{problem}");
            }
        }
        let takes_words = setting.value_name.contains('|')
            || ["METHOD", "HEADER", "SIGNAL", "WHICH", "FORMAT"].contains(&setting.value_name);
        assert_eq!(takes_words, !setting.words().is_empty(), "{}", setting.name);
    }
    for (name, text, meant) in [
        ("sandbox", "stirct", "strict"),
        ("balance", "least-connection", "least-connections"),
        ("stop-signal", "quit", "QUIT"),
        ("ready", "notfy", "notify"),
        ("access-log-format", "combind", "combined"),
        ("pin", "y", "yes"),
    ] {
        let setting = Setting::named(name).expect("a setting");
        let problem = setting.apply(&mut Config::default(), text).expect_err("no value");
        assert!(problem.ends_with(&format!("; did you mean {meant}?")), "{problem}");
    }
    let problem = Setting::named("sandbox").expect("a setting").apply(&mut Config::default(), "maybe");
    assert_eq!(problem, Err("must be auto, off or strict".to_owned()));
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
        if headings.last() != Some(&setting.heading()) {
            headings.push(setting.heading());
        }
    }
    assert_eq!(headings.len(), SECTIONS.len());
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
        ("ready", "soon", "must be auto, listen, notify, http:PATH or delay:DURATION"),
        ("ready", "delay:25h", "the delay must be at most 24h"),
        ("stop-signal", "SEGV", "must be TERM, QUIT, INT, HUP, USR1, USR2 or WINCH"),
        ("prefix", "maybe", "must be yes or no"),
        ("listen", "", "needs an address"),
        ("listen", "127.0.0.1:1,nonsense", "nonsense needs a port"),
        ("unix-mode", "1777", "0 to 0777"),
        ("backlog", "0", "1 to 2147483647"),
        ("tls-listen", "8443", "is only a port"),
        ("tls-listen", "unix:/x", "unix:/x is no TCP address"),
        ("tls-certificate", "", "must not be empty"),
        ("tls-key", "a,", "must not be empty"),
        ("tls-client-auth", "yes", "must be no, optional or require"),
        ("tls-min", "1.1", "must be 1.2 or 1.3"),
        ("https-redirect", "on", "must be yes or no"),
        ("tls-ticket-period", "10ms", "1s to 24h, or 0 for never"),
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
        ("rebalance", "yes", "must be auto or off"),
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
        ("header", "/a", "must be [/PATTERN] NAME: VALUE"),
        ("header", "X-A: b\nDate: c", "Date: c: the server sets Date itself"),
        ("type", "html", "must be EXTENSION=TYPE"),
        ("symlinks", "yes", "must be none, inside or anywhere"),
        ("access-log", "", "must not be empty"),
        ("access-log-format", "clf", "must be common, combined, vhost, json, or a line with variables"),
        ("access-log-format", "$x", "has an unknown variable $x; known are $remote_addr, "),
        ("trusted-proxies", "10.0.0.1/8", "has bits set after its prefix; write 10.0.0.0/8"),
        ("forwarded-header", "x", "must be auto, x-forwarded-for or forwarded"),
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
