//! Facts survive encoding, other bytes do no harm, and each format shows what it should.

use super::*;
use crate::shared::latency::bucket;
use crate::shared::random::random_below;

fn facts() -> Vec<Fact> {
    vec![
        Fact::Pool(Pool {
            state: State::Restarting,
            pid: 4242,
            started: 1_789_990_000_500,
            wanted: 3,
            serving: 1,
            listening: vec!["http://127.0.0.1:8000".to_owned(), "unix:/run/\"x\".sock".to_owned()],
            because: "3 workers: as configured".to_owned(),
            balance: "random".to_owned(),
            restart_aborted: Some("a\\b\n".to_owned()),
            lost: 2,
            max_held: 64 << 20,
            certificates: vec![("c.pem".to_owned(), 1_790_000_000)],
        }),
        Fact::Gone(
            14,
            0,
            Slot {
                restarts: [1, 2, 3, 4, 5, 6],
                last_exit: Some("killed by SIGKILL".into()),
                cpu: 70_000,
                has_programs: false,
            },
        ),
        Fact::Gone(15, 7, Slot::default()),
        Fact::Process(Process {
            pid: 11,
            slot: 0,
            row: 1,
            generation: 2,
            state: WorkerState::Draining,
            since: 1_000,
            is_program: false,
        }),
        Fact::Process(Process {
            pid: 12,
            slot: 0,
            row: 2,
            generation: 3,
            state: WorkerState::Ready,
            since: 2_000,
            is_program: false,
        }),
        Fact::Process(Process {
            pid: 13,
            slot: 1,
            row: 3,
            generation: 1,
            state: WorkerState::Starting,
            since: 2_500,
            is_program: false,
        }),
        Fact::Sockets(0, vec![901, 902]),
        Fact::Sockets(1, vec![]),
        Fact::End,
        Fact::Event(event(1, 5, "rolling restart begun")),
        Fact::Event(Event {
            level: Level::Error,
            kind: "killed".into(),
            worker: Some(0),
            generation: Some(3),
            pid: Some(12),
            reason: Some("stalled".into()),
            ..event(2, 6, "a \u{2028}\u{1}\u{9b}é")
        }),
    ]
}

fn event(seq: u64, time: u64, text: &str) -> Event {
    let kind = "restart_begun".into();
    Event {
        seq,
        time,
        level: Level::Info,
        kind,
        worker: None,
        generation: None,
        pid: None,
        reason: None,
        text: text.into(),
    }
}

fn model() -> Model {
    let mut model = Model::default();
    facts().into_iter().for_each(|fact| model.learn(fact));
    model
}

fn readings() -> Readings {
    let mut readings = Readings { now: 1_790_000_000_123, ..Readings::default() };
    let counters = Counters {
        requests: 10,
        accepted: 4,
        closed: 1,
        refused: 2,
        panics: 3,
        lost: 4,
        responses: [0, 6, 1, 2, 1],
        sent: 4096,
        taken: 2,
        handed: 2,
        discarded: 1,
        handshakes: [1, 2, 3, 4, 1, 1, 1, 1, 1, 1, 1],
    };
    readings.slots.insert(0, counters);
    readings.slots.insert(7, counters);
    readings.queues.extend([(901, 2), (902, 3), (903, 4)]);
    for pid in [11, 12, 13] {
        let mut reading = Reading { counters, busy: 1500, cpu: 20_000, rss: 3 << 20, held: 7, ..Reading::default() };
        reading.latency.buckets[bucket(100)] = 2;
        reading.latency.sum = 200;
        readings.latency.add(&reading.latency);
        readings.processes.insert(pid, reading);
    }
    readings
}

#[test]
fn facts_come_through_and_no_beginning_of_one_does() {
    for fact in facts() {
        let bytes = fact.encode();
        assert_eq!(Fact::decode(&bytes), Some(fact));
        for end in 0..bytes.len() {
            assert_eq!(Fact::decode(&bytes[..end]), None);
        }
        assert_eq!(Fact::decode(&[&bytes[..], b"x"].concat()), None);
    }
}

#[test]
fn other_bytes_do_no_harm() {
    let mut draw = random_below(7);
    // All that are drawn are smaller.
    let mut random = move || draw(1 << 31) as usize;
    let mut model = Model::default();
    for fact in facts() {
        let whole = fact.encode();
        for _ in 0..5_000 {
            let mut bytes = whole.clone();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            Fact::decode(&bytes).into_iter().for_each(|fact| model.learn(fact));
        }
    }
    assert!(model.events.len() <= EVENTS_MAX);
}

/// Otherwise each page would take as long as counting to that number.
#[test]
fn a_pool_has_no_more_slots_than_any_may() {
    for (wanted, is_known) in [(1_024, true), (1_025, false), (usize::MAX, false)] {
        let fact = Fact::Pool(Pool { wanted, ..model().pool });
        assert_eq!(Fact::decode(&fact.encode()).is_some(), is_known, "{wanted}");
    }
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    let text = "é".repeat(5_000);
    let fact = Fact::Event(event(1, 0, &text));
    let Some(Fact::Event(event)) = Fact::decode(&fact.encode()) else { panic!("it is a fact") };
    assert_eq!(event.text.chars().count(), 1_024);
}

#[test]
fn the_latest_events_are_kept() {
    let mut model = Model::default();
    for seq in 1..=EVENTS_MAX as u64 + 5 {
        model.learn(Fact::Event(event(seq, 0, "")));
    }
    assert_eq!((model.events.len(), model.events[0].seq, model.seq()), (EVENTS_MAX, 6, EVENTS_MAX as u64 + 5));
}

#[test]
fn a_pool_is_ready_when_it_serves_and_goes_on_to() {
    for (state, serving, is_ready) in [
        (State::Starting, 1, false),
        (State::Serving, 1, true),
        (State::Serving, 0, false),
        (State::Restarting, 1, true),
        (State::Upgrading, 1, true),
        (State::LameDuck, 1, false),
        (State::Draining, 1, false),
        (State::Stopping, 1, false),
    ] {
        let model = Model { pool: Pool { state, serving, ..Pool::default() }, ..Model::default() };
        assert_eq!(model.unready().is_none(), is_ready, "{state:?} {serving}");
    }
}

#[test]
fn the_json_is_what_was_agreed() {
    let (model, readings) = (model(), readings());
    let latency = |count: u32, sum: &str| {
        format!(
            "{{\"count\":{count},\"sum\":{sum},\"p50\":0.000103,\"p90\":0.000103,\"p99\":0.000103,\"p999\":0.000103,\
             \"buckets\":[[0.000112,{count}]]}}"
        )
    };
    let empty = "{\"count\":0,\"sum\":0.000000,\"p50\":null,\"p90\":null,\"p99\":null,\"p999\":null,\"buckets\":[]}";
    let worker = |id, generation, pid, state, since, exit, restarts, queue| {
        format!(
            "{{\"worker\":{id},\"generation\":{generation},\"pid\":{pid},\"state\":\"{state}\",\"since\":{since},\
             \"restarts\":{restarts},\"last_exit\":{exit},\"requests\":10,\"connections\":4,\"open\":3,\
             \"responses\":{{\"1xx\":0,\"2xx\":6,\"3xx\":1,\"4xx\":2,\"5xx\":1}},\"sent\":4096,\"taken_over\":2,\"queue\":{queue},\
             \"busy\":1.500,\"cpu\":0.020000,\"rss\":3145728,\"held\":7,\"log_lines_lost\":4,\"latency\":{}}}",
            latency(2, "0.000200")
        )
    };
    let killed = "\"killed by SIGKILL\"";
    let expected = [
        "{\"pool\":{\"state\":\"restarting\",\"ready\":true,\"pid\":4242,\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\",\"time\":1790000000.123,\"started\":1789990000.500,\"wanted\":3,\"serving\":1,\"listening\":\
         [\"http://127.0.0.1:8000\",\"unix:/run/\\\"x\\\".sock\"],\"workers_because\":\"3 workers: as configured\",\
         \"balance\":\"random\",\"restart_aborted\":\"a\\\\b\\u000a\",\"max_held\":67108864,\"certificates\":[{\"file\":\"c.pem\",\"expires\":1790000000}]},\
         \"totals\":{\"requests\":20,\"connections\":8,\"open\":6,\"refused\":4,\"panics\":6,\
         \"responses\":{\"1xx\":0,\"2xx\":12,\"3xx\":2,\"4xx\":4,\"5xx\":2},\"sent\":8192,\"handed_over\":4,\"handover_refused\":2,\
         \"tls\":{\"full\":8,\"resumed\":12,\"failed\":10},\"log_lines_lost\":10,\"restarts\":\
         {\"exited\":1,\"killed\":2,\"stalled\":3,\"boot\":4,\"restart\":5,\"recycled\":6},\"latency\":",
        &latency(6, "0.000600"),
        "},\"workers\":[",
        &worker(0, 2, 11, "draining", "1.000", killed, 21, "5"),
        ",",
        &worker(0, 3, 12, "ready", "2.000", killed, 21, "5"),
        ",",
        &worker(1, 1, 13, "starting", "2.500", "null", 0, "null"),
        ",{\"worker\":2,\"generation\":0,\"pid\":null,\"state\":\"backoff\",\"since\":null,\"restarts\":0,\
         \"last_exit\":null,\"requests\":0,\"connections\":0,\"open\":0,\
         \"responses\":{\"1xx\":0,\"2xx\":0,\"3xx\":0,\"4xx\":0,\"5xx\":0},\"sent\":0,\"taken_over\":0,\"queue\":null,\"busy\":0.000,\"cpu\":0.000000,\
         \"rss\":0,\"held\":0,\"log_lines_lost\":0,\"latency\":",
        empty,
        "}],\"events\":[{\"seq\":1,\"time\":0.005,\"level\":\"info\",\"kind\":\"restart_begun\",\
         \"worker\":null,\"generation\":null,\"pid\":null,\"reason\":null,\"text\":\"rolling restart begun\"},\
         {\"seq\":2,\"time\":0.006,\"level\":\"error\",\"kind\":\"killed\",\"worker\":0,\"generation\":3,\"pid\":12,\
         \"reason\":\"stalled\",\"text\":\"a \\u2028\\u0001\\u009bé\"}]}",
    ];
    assert_eq!(Snapshot::new(&model, &readings).to_json(), expected.concat());
}

#[test]
fn the_table_is_aligned() {
    let (model, readings) = (model(), readings());
    let text = Snapshot::new(&model, &readings).to_text();
    let table: Vec<&str> = text.lines().skip_while(|line| !line.contains("WORKER")).take(5).collect();
    let state = table[0].find("STATE").expect("a column");
    let states: Vec<_> = table[1..].iter().map(|line| line[state..].split(' ').next().unwrap_or("")).collect();
    assert_eq!(states, ["draining", "ready", "starting", "backoff"]);
    let exit = table[0].find("LAST EXIT").expect("a column");
    assert!(table[1][exit..].starts_with("killed by SIGKILL") && &table[4][exit..] == "-", "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "nothing commands a terminal: {text:?}");
}

/// An unknown value is not shown as zero.
#[test]
fn of_programs_nothing_is_shown_that_is_not_known() {
    let mut model = Model::default();
    model.pool.wanted = 1;
    let state = WorkerState::Ready;
    model.learn(Fact::Process(Process { pid: 11, slot: 0, row: 1, generation: 1, state, since: 1, is_program: true }));
    let mut readings = Readings { now: 2, ..Readings::default() };
    let reading = Reading { cpu: 20_000, rss: 3 << 20, ..Reading::default() };
    readings.processes.insert(11, reading);
    readings.slots.insert(0, Counters::default());
    for (established, open) in [(None, "null"), (Some(17), "17")] {
        readings.established = established;
        let snapshot = Snapshot::new(&model, &readings);
        let (json, metrics, text) = (snapshot.to_json(), snapshot.to_metrics(), snapshot.to_text());
        for part in [
            &format!("\"totals\":{{\"requests\":null,\"connections\":null,\"open\":{open},\"refused\":null,\"panics\":null,"),
            "\"requests\":null,\"connections\":null,\"open\":null,\
             \"responses\":{\"1xx\":null,\"2xx\":null,\"3xx\":null,\"4xx\":null,\"5xx\":null},\"sent\":null,\"taken_over\":null,\"queue\":null,\"busy\":null,\"cpu\":0.020000,\
             \"rss\":3145728,\"held\":null,",
            "\"latency\":{\"count\":null,\"sum\":null,\"p50\":null,\"p90\":null,\"p99\":null,\"p999\":null,\"buckets\":[]}",
        ] {
            assert!(json.contains(part), "{part}: {json}");
        }
        for name in [
            "requests_total",
            "connections_open",
            "connections_accepted_total",
            "connections_handed_over_total",
            "requests_refused_total",
            "handler_panics_total",
            "responses_total",
            "sent_bytes_total",
            "request_duration_seconds_count",
            "worker_busy_seconds",
            "worker_held_bytes",
        ] {
            let sample = |line: &str| line.starts_with(&format!("forkpool_{name}"));
            assert!(!metrics.lines().any(sample), "{name}: {metrics}");
        }
        let sample = "forkpool_connections_established 17";
        assert_eq!(metrics.lines().any(|line| line == sample), established.is_some(), "{metrics}");
        assert!(metrics.contains("forkpool_worker_cpu_seconds_total{worker=\"0\"} 0.020000"), "{metrics}");
        let shown = open.replace("null", "-");
        assert!(
            text.contains(&format!("\n{shown} connections open; requests to programs are not counted\n")),
            "{text}"
        );
        let row: Vec<&str> =
            text.lines().find(|line| line.contains(" ready ")).expect("a row").split_whitespace().collect();
        assert_eq!(row[6..12], ["-"; 6], "{text}");
    }
}

/// Connections are counted by port, so a port that is listed twice must not be counted twice.
#[test]
fn a_port_of_several_addresses_is_one() {
    let listening = ["http://127.0.0.1:8000", "http://127.0.0.1:8001", "unix:/run/x:7", "http://[::1]:8000"];
    let pool = Pool { listening: listening.map(str::to_owned).into(), ..Pool::default() };
    assert_eq!(pool.ports().into_iter().collect::<Vec<_>>(), [8000, 8001]);
}

#[test]
fn counters_of_slots_without_a_process_stay() {
    let (mut model, mut readings) = (model(), readings());
    (model.pool.wanted, model.pool.balance) = (3, "least connections, among the free workers".to_owned());
    readings.parent = ParentUse { cpu: Some(1_500_000), rss: Some(4096), fds: None };
    let metrics = Snapshot::new(&model, &readings).to_metrics();
    for line in [
        "forkpool_workers_wanted 3",
        "process_cpu_seconds_total 1.500000",
        "process_resident_memory_bytes 4096",
        concat!("forkpool_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",balance=\"least-connections\"} 1"),
        "forkpool_requests_total{worker=\"0\"} 10",
        "forkpool_requests_total{worker=\"7\"} 10",
        "forkpool_responses_total{worker=\"7\",code=\"2xx\"} 6",
        "forkpool_responses_total{worker=\"0\",code=\"5xx\"} 1",
        "forkpool_sent_bytes_total{worker=\"0\"} 4096",
        "forkpool_connections_taken_over_total{worker=\"0\"} 2",
        "forkpool_connections_handed_over_total{worker=\"7\"} 2",
        "forkpool_handover_refused_total{worker=\"0\"} 1",
        "forkpool_worker_restarts_total{worker=\"0\",reason=\"stalled\"} 3",
        // The dead process and both living ones.
        "forkpool_worker_cpu_seconds_total{worker=\"0\"} 0.110000",
        "forkpool_request_duration_seconds_bucket{le=\"0.000064\"} 0",
        "forkpool_request_duration_seconds_bucket{le=\"0.000128\"} 6",
        "forkpool_request_duration_seconds_bucket{le=\"+Inf\"} 6",
        "forkpool_request_duration_seconds_sum 0.000600",
        "forkpool_workers{state=\"backoff\"} 1",
        "forkpool_accept_queue_length{worker=\"0\"} 5",
        "forkpool_log_lines_lost_total{process=\"parent\"} 2",
        "forkpool_worker_held_bytes{worker=\"0\"} 14",
        "forkpool_held_limit_bytes 67108864",
        "forkpool_log_lines_lost_total{process=\"worker\",worker=\"7\"} 4",
        "forkpool_ready 1",
        "process_start_time_seconds 1789990000.500",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("process_open_fds"), "it is not known: {metrics}");
    assert!(!metrics.contains("forkpool_worker_busy_seconds{worker=\"7\"}"), "{metrics}");
}
