//! cargo run --release --example testbed: what every test and measurement talks to; configured by FORKPOOL_* variables.

mod logger;
#[macro_use]
mod say;

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use forkpool::{
    BodyWriter, Builder, Error, Event, Exit, Handle, Meter, Pool, Request, Respawn, Responder, Response, Worker,
};
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::unistd::{getppid, getuid, setuid};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", error.report());
            ExitCode::from(if matches!(error, Error::Forced { .. }) { 5 } else { 1 })
        }
    }
}

fn run() -> forkpool::Result<()> {
    logger::init();
    if fixture().as_deref() == Some("twice") {
        return twice();
    }
    let mut child = None;
    match fixture().as_deref() {
        // An embedder's own child, which the pool must leave to it.
        Some("child") => child = Some(Command::new("true").spawn().expect("`true` runs")),
        // What a pool must refuse to start beside.
        Some("thread") => drop(thread::spawn(thread::park)),
        _ => {}
    }
    let mut pool = Pool::bind("127.0.0.1:8000").env();
    if fixture().as_deref() == Some("small-successor") && env::var_os("FORKPOOL_UPGRADE").is_some() {
        pool = pool.max_connections(2);
    }
    let result = match fixture().as_deref() {
        Some("hook" | "exit") => pool.on_event(hook).run(serve),
        Some("heap") => return over_a_grown_heap(pool),
        Some("policy") => pool.on_event(hook).on_exit(policy).run(serve),
        _ => pool.run(serve),
    };
    if fixture().as_deref() == Some("goes-on") {
        println!("the pool is over, and the process goes on");
        loop {
            thread::park();
        }
    }
    if let Some(mut child) = child {
        println!("own child: {}", child.wait().expect("the pool has not reaped it"));
    }
    result
}

/// The heap grows by more than the C library keeps while the pool runs, and shrinks when it is over.
fn over_a_grown_heap(pool: Builder) -> forkpool::Result<()> {
    let held: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let holder = Rc::clone(&held);
    let result = pool.on_event(move |_, _| holder.borrow_mut().extend((0..4096).map(|_| vec![1; 1024]))).run(serve);
    drop(held);
    let again: Vec<_> = (0..4096).map(|_| vec![2_u8; 1024]).collect();
    assert!(again.iter().all(|block| block.iter().all(|byte| *byte == 2)));
    drop(again);
    say!("the heap is sound");
    result
}

/// What a test wants to go wrong.
fn fixture() -> Option<String> {
    env::var("TESTBED").ok()
}

/// Prints what happens, and does what an exit code asks for.
fn hook(event: &Event<'_>, pool: &Handle<'_>) {
    match event {
        // In words of its own: the status's Debug is the standard library's affair.
        Event::Exited(exit) => say!(
            "event Exited {{ process: {:?}, code: {:?}, signal: {:?}, was_requested: {}, reason: {:?} }}",
            exit.process,
            exit.code(),
            exit.signal(),
            exit.was_requested,
            exit.reason
        ),
        _ => say!("event {event:?}"),
    }
    match event {
        Event::Exited(exit) => match exit.code() {
            Some(40) => pool.restart(),
            Some(41) => pool.scale(3),
            Some(42) => pool.upgrade(),
            Some(43) => pool.stop(),
            Some(44) => pool.stop_now(),
            Some(45) => panic!("the hook was told to panic"),
            Some(46) => drop(thread::spawn(|| {
                thread::sleep(Duration::from_secs(1));
                eprintln!("the hook's thread has ended");
            })),
            _ => say!("still there: {:?}", pool.worker(exit.process)),
        },
        Event::Disconnected(process) => {
            say!("is leaving: {:?}", pool.worker(*process).map(|worker| worker.state.is_leaving()));
        }
        Event::Ready(process) => {
            say!("status {:?}", pool.status());
            assert_eq!(pool.worker(*process), pool.worker(process.worker));
            say!("is leaving: {:?}", pool.worker(*process).map(|worker| worker.state.is_leaving()));
        }
        _ => {}
    }
}

/// Decides by the exit code.
fn policy(exit: &Exit<'_>) -> Respawn {
    match exit.code() {
        Some(50) => Respawn::Never,
        Some(51) => Respawn::Stop,
        Some(52) => Respawn::Now,
        Some(53) => Respawn::After(Duration::from_millis(10)),
        Some(54) => panic!("the policy was told to panic"),
        _ => Respawn::Backoff,
    }
}

/// Two pools after each other on one address, the second with three workers and other answers; in between, what the
/// first one has left behind.
fn twice() -> forkpool::Result<()> {
    let address = Rc::new(Cell::new(None));
    let listening = Rc::clone(&address);
    let before = (descriptors(), mask());
    Pool::bind("127.0.0.1:0")
        .env()
        .on_event(move |event, _pool| {
            if let Event::Listening { addresses, .. } = event {
                listening.set(addresses.first().copied());
            }
        })
        .run(serve)?;
    let address = address.get().expect("its workers have listened");
    // Without any option that would let others on the port.
    let free = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
        .and_then(|socket| socket.bind(&address.into()));
    let (descriptors, mask) = (descriptors() == before.0, mask() == before.1);
    let pid_file = std::env::var_os("FORKPOOL_PID_FILE").is_some_and(|path| !Path::new(&path).exists());
    println!(
        "the first pool has given back: descriptors {descriptors}, mask {mask}, address {}, pid file {pid_file}",
        free.is_ok()
    );
    Pool::bind(address).env().set("listen", &address.to_string()).workers(3).serve(|_| Response::text("second\n"))
}

/// What this process has open, by the names of it.
fn descriptors() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    // All but the one that reads this list.
    let names = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    names.filter(|name| !name.starts_with("/proc")).collect()
}

/// Which signals this process blocks.
fn mask() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("SigBlk")).map(str::to_owned).collect()
}

fn serve(worker: &Worker) -> Result<(), Box<dyn std::error::Error>> {
    match fixture().as_deref() {
        Some(fixture) if fixture.strip_prefix("fail-while:").is_some_and(|path| Path::new(path).exists()) => {
            return Err("the testbed was told to fail".into());
        }
        Some(fixture) if fixture.strip_prefix("hang-while:").is_some_and(|path| Path::new(path).exists()) => loop {
            thread::park();
        },
        Some("thread-first") => drop(thread::spawn(thread::park)),
        // It cannot be ready in a strict sandbox, and goes on as if nothing were.
        Some("thread-first-whatever") => {
            drop(thread::spawn(thread::park));
            drop(worker.ready());
        }
        Some("fail") => return Err("the testbed was told to fail".into()),
        Some("exit") => process::exit(9),
        Some(fixture) if fixture.starts_with("start-after:") => {
            eprintln!("starting slowly");
            while Path::new(&fixture["start-after:".len()..]).exists() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        // Each worker with arguments and variables of its own.
        Some("execute") => {
            let id = worker.id().to_string();
            let script = "echo \"argument $0, variable $OF_ITS_OWN\"; exec sleep 60";
            let mut program = Command::new("sh");
            program.args(["-c", script, &id]).env("OF_ITS_OWN", &id);
            return Err(worker.exec(&mut program).into());
        }
        Some("hang") => loop {
            thread::park();
        },
        _ => {}
    }
    match fixture().as_deref() {
        Some("plain") => return plain(worker, None),
        Some("metered") => return plain(worker, Some(&worker.meter())),
        _ => {}
    }
    worker.add_header("X-Pid", &process::id().to_string())?;
    Ok(worker.serve(|request| answer(worker, request))?)
}

/// A server of its own, which answers one request after the other, and may say when it is busy.
fn plain(worker: &Worker, meter: Option<&Meter>) -> Result<(), Box<dyn std::error::Error>> {
    for stream in worker.incoming() {
        let mut stream = BufReader::new(stream?);
        let _open = meter.map(Meter::connection);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let _busy = meter.map(Meter::busy);
        if line.starts_with("GET /slow ") {
            eprintln!("serves /slow");
            thread::sleep(Duration::from_secs(3));
        }
        if let Some(path) = line.strip_prefix("GET /wait?").and_then(|rest| rest.split(' ').next()) {
            wait_for(path);
        }
        let pid = process::id();
        let answer = format!("HTTP/1.1 200 OK\r\nX-Pid: {pid}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // A client that is gone needs none.
        let _ = stream.get_mut().write_all(answer.as_bytes());
    }
    Ok(())
}

/// Takes so many milliseconds in which this process runs: what it is stopped for comes on top.
fn run_for(millis: u64) {
    for _ in 0..millis / 10 {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Says that it blocks, and does so until a file is there.
fn wait_for(path: &str) {
    eprintln!("serves /wait");
    while !Path::new(path).exists() {
        thread::sleep(Duration::from_millis(2));
    }
}

fn answer(worker: &Worker, request: &Request<'_>) -> Response {
    match request.path() {
        "/plaintext" => Response::bytes("text/plain", b"Hello, World!".as_slice()),
        "/" => match request.method() {
            "GET" | "HEAD" => Response::text("testbed\n"),
            _ => Response::text("GET or HEAD\n").status(405).header("Allow", "GET, HEAD"),
        },
        "/echo" => match request.method() {
            "POST" => {
                let content_type = request.header("Content-Type").unwrap_or("application/octet-stream");
                Response::bytes(content_type.to_owned(), request.body().to_owned())
            }
            _ => Response::text("POST\n").status(405).header("Allow", "POST"),
        },
        "/204" => Response::new(204),
        "/304" => Response::new(304),
        "/client" => {
            let client = request.client().map_or_else(|| "nobody".to_owned(), |client| client.to_string());
            let host = request.host().unwrap_or_default();
            Response::text(format!("{client} {}://{host}", request.scheme()))
        }
        "/pid" => Response::text(process::id().to_string()),
        "/var" => Response::text(std::env::var(request.query().unwrap_or_default()).unwrap_or_default()),
        "/cwd" => {
            Response::text(std::env::current_dir().map_or_else(|it| it.to_string(), |it| it.display().to_string()))
        }
        "/slow" => {
            thread::sleep(Duration::from_millis(number(request, "ms")));
            Response::text("slow\n")
        }
        "/wait" => {
            wait_for(request.query().unwrap_or_default());
            Response::text("waited\n")
        }
        "/sliced" => {
            eprintln!("serves /sliced");
            run_for(number(request, "ms"));
            Response::text("sliced\n")
        }
        "/burn" => {
            let end = Instant::now() + Duration::from_millis(number(request, "ms"));
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            Response::text("burnt\n")
        }
        // As long as /slow, but it says every now and then that it gets on.
        "/steady" => {
            let end = Instant::now() + Duration::from_millis(number(request, "ms"));
            while Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
                worker.progress();
            }
            Response::text("steady\n")
        }
        // Answered when somebody asks for /now.
        "/late" => {
            eprintln!("serves /late");
            let (responder, response) = Response::deferred();
            LATE.with_borrow_mut(|late| late.push(responder));
            response
        }
        // Begins at once, and ends when somebody asks for /now.
        "/begun" => {
            let (mut body, response) = Response::stream("text/plain");
            // A client that has gone needs none.
            let _ = body.try_write(b"begun\n");
            BEGUN.with_borrow_mut(|begun| begun.push(body));
            response
        }
        "/now" => {
            answer_late();
            BEGUN.take();
            Response::text("now\n")
        }
        // The same, and goes on in this turn until it has a connection for the server.
        "/adopt" => {
            answer_late();
            let adopted = adopt(worker).map_or_else(|error| error.to_string(), |()| "adopted\n".to_owned());
            Response::text(adopted)
        }
        "/send" => Response::text(worker.send(b"hello").map_or_else(|error| error.to_string(), |()| "sent".to_owned())),
        "/try" => Response::text(
            attempt(request.query().unwrap_or_default()).map_or_else(|e| e.to_string(), |()| "done".into()),
        ),
        "/exit" => process::exit(number(request, "code") as i32),
        "/panic" => panic!("the testbed was told to panic"),
        "/abort" => process::abort(),
        "/leak" => {
            let kib = number(request, "kib") as usize;
            // Ones, so that every page is touched.
            vec![1_u8; kib * 1024].leak();
            Response::text(format!("leaked {kib} KiB\n"))
        }
        _ => Response::text("no such page\n").status(404),
    }
}

thread_local! {
    static LATE: RefCell<Vec<Responder>> = const { RefCell::new(Vec::new()) };
    static BEGUN: RefCell<Vec<BodyWriter>> = const { RefCell::new(Vec::new()) };
}

fn answer_late() {
    LATE.take().into_iter().for_each(|responder| responder.respond(Response::text("late\n")));
}

/// Gives the server the first connection to a port that it prints.
fn adopt(worker: &Worker) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    say!("adopts from port {}", listener.local_addr()?.port());
    worker.adopter().adopt(listener.accept()?.0)
}

/// Does what a sandbox is there to prevent, and some of what it must not.
fn attempt(what: &str) -> io::Result<()> {
    match what {
        "read" => fs::read("/etc/passwd").map(drop),
        "list" => fs::read_dir("/").map(drop),
        "write" => fs::write(env::temp_dir().join(format!("testbed-{}", process::id())), "").map(drop),
        "device" => fs::write("/dev/full", ""),
        "execute" => Err(Command::new("true").exec()),
        "fork" => Command::new("true").status().map(drop),
        "connect" => UdpSocket::bind("127.0.0.1:0")?.connect("127.0.0.1:9"),
        "listen" => TcpListener::bind("127.0.0.1:0").map(drop),
        "setuid" => Ok(setuid(getuid())?),
        "trace" => Ok(ptrace::traceme()?),
        "signal" => Ok(kill(getppid(), None)?),
        "thread" => {
            thread::Builder::new().name("testbed".into()).spawn(|| ())?.join().map_err(|_| io::Error::other("?"))
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The value of a parameter in the query, or zero.
fn number(request: &Request<'_>, name: &str) -> u64 {
    let parameters = request.query().unwrap_or_default().split('&');
    let mut values = parameters.filter_map(|parameter| parameter.split_once('='));
    values.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
