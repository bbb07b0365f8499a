//! The status page in a browser: it follows what happens in a real pool.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::support::{self, binary, fresh_path, skip, until, Load, Server};
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

#[test]
fn the_page_shows_the_pool_as_it_lives() {
    let Some(browser) = Browser::start() else { return skip("no Chromium here") };
    let mut command = binary();
    let token = fresh_path("page.token");
    fs::write(&token, "secret\n")
        .and_then(|()| fs::set_permissions(&token, Permissions::from_mode(0o600)))
        .expect("a file");
    command.args(["--workers", "2", "--admin", "127.0.0.1:0", "--admin-token-file"]).arg(&token);
    if cfg!(feature = "tls") {
        let file = |name: &str| format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
        command.args(["--tls-listen", "127.0.0.1:0", "--tls-certificate", &file("a.pem"), "--tls-key", &file("a.key")]);
    }
    let mut server = Server::spawn(command);
    let (admin, port) = addresses(&mut server);
    let mut page = browser.open(&admin);

    page.wait_for(r"document.querySelector('#state').textContent === 'serving'");
    page.wait_for(r"document.title.startsWith('2/2 serving')");
    page.wait_for(r"document.querySelectorAll('#rows tr').length === 2");

    let load = Load::begin(port, &["--connections", "4"]);
    page.wait_for(r"parseFloat(document.querySelector('#tiles .value').textContent) > 0");
    page.wait_for(r"[...document.querySelectorAll('#rows .rate > span')].every(it => parseFloat(it.textContent) > 0)");
    page.wait_for(r"[...document.querySelectorAll('#rows .p99')].every(it => parseFloat(it.textContent) > 0)");
    page.wait_for(r"[...document.querySelectorAll('#new i')].every(it => parseFloat(it.style.height) > 0)");
    page.wait_for(
        r"[...document.querySelectorAll('svg path:not(.area)')].some(it => it.getAttribute('d').includes('L'))",
    );

    let pid = page.number("Number(document.querySelector('#rows .pid').textContent)");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker runs");
    page.wait_for(&format!(
        "[...document.querySelectorAll('#events li')].some(it => /pid={pid} .*SIGKILL/.test(it.textContent))"
    ));
    page.wait_for(&format!(
        "[...document.querySelectorAll('#rows .pid')].every(it => it.textContent && it.textContent !== '{pid}')"
    ));
    page.wait_for(r"document.querySelector('#restarts').textContent === '1\u00a0killed'");
    page.wait_for(r"document.querySelector('#rows .state').textContent === 'ready'");
    page.wait_for(r"document.querySelector('#state').classList.contains('good')");
    // A connection of the killed worker is lost with it, so only that there was a load is of interest.
    load.finish();
    assert_eq!(page.complaints(), [""; 0]);

    // The first answer that a page gets is shown with the rates of the history. All at once, so that no answer comes
    // in between.
    page.wait_for(
        r"(() => {
            const { status } = memory, values = () => [...document.querySelectorAll('#tiles .value')].map(it => it.textContent);
            const at = (time, requests, cpu) => ({ time, requests, failed: 0, open: 1, cpu });
            memory = {};
            showHistory([at(status.pool.time - 3, 1000, 1), at(status.pool.time - 1, 1500, 1.5)]);
            show(status);
            const [rate, , , cpu] = values();
            return / 250/.test(rate) && / 25 %/.test(cpu);
        })()",
    );

    // Whoever has no token cannot act, which the browser reports as a complaint.
    page.wait_for(r"document.querySelector('#restart').click() || true");
    page.wait_for(r"document.querySelector('#acted').textContent.includes('missing or wrong')");
    page.wait_for(r"(document.querySelector('#token').value = 'secret') && true");
    page.wait_for(r"document.querySelector('#restart').click() || true");
    page.wait_for(r"document.querySelector('#acted').classList.contains('good')");
    page.wait_for(
        r"[...document.querySelectorAll('#events li')].some(it => it.textContent.includes('rolling restart done'))",
    );

    page.wait_for(r"document.querySelector('#more').click() || true");
    page.wait_for(r"document.title.startsWith('3/3 serving') && document.querySelectorAll('#rows tr').length === 3");
    page.wait_for(r"document.querySelector('#fewer').click() || true");
    page.wait_for(r"document.title.startsWith('2/2 serving') && document.querySelectorAll('#rows tr').length === 2");
    if cfg!(feature = "tls") {
        page.wait_for(r"/^\d+ d left$/.test(document.querySelector('#certificate').textContent)");
        page.wait_for(r"document.querySelector('#certificate').title.includes('a.pem: until ')");
        page.wait_for(r"/^\d+ full, \d+ resumed, \d+ failed$/.test(document.querySelector('#handshakes').textContent)");
    }

    for (width, height) in [(390, 844), (1280, 900)] {
        for scheme in ["light", "dark"] {
            page.resize(width, height, scheme);
            // Nothing is cut off at the right, nor does anything have to be scrolled there.
            page.wait_for("document.documentElement.scrollWidth <= document.documentElement.clientWidth");
            page.picture(&format!("page-{width}-{scheme}"));
        }
    }

    // The question, and its answer.
    page.wait_for(r"(window.confirm = () => false) && document.querySelector('#stop').click() || true");
    page.wait_for(r"(window.confirm = () => true) && document.querySelector('#stop').click() || true");
    page.wait_for(
        r"!document.querySelector('#lost').hidden && document.querySelector('#link').textContent === 'no answer'",
    );
    server.wait();
}

/// Where the status page is, and the port of the pool.
#[track_caller]
fn addresses(server: &mut Server) -> (String, u16) {
    server.wait_for("listening on ");
    let admin = server.log().iter().find_map(|line| {
        let (_, rest) = line.split_once("admin")?;
        let (_, address) = rest.split_once("http://")?;
        Some(format!("http://{}/", address.split([' ', '/']).next()?))
    });
    (admin.expect("the address of the status page is announced"), server.port())
}

/// Chromium without a window, and its DevTools protocol on a pair of pipes.
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<String>,
    profile: PathBuf,
}

impl Browser {
    /// None if there is none to start.
    fn start() -> Option<Browser> {
        let works = |name: &&str| {
            let output = Command::new(name).arg("--version").stdin(Stdio::null()).output();
            output.is_ok_and(|output| output.status.success())
        };
        let name = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works)?;
        let profile = fresh_path("chromium");
        let mut command = Command::new("sh");
        // The protocol is spoken on descriptors 3 and 4.
        command.args([
            "-c",
            r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#,
            "sh",
            name,
            "--headless",
            "--remote-debugging-pipe",
        ]);
        command.args(["--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("there is a shell");
        let commands = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(b'\0').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&message).into_owned());
            }
        });
        Some(Browser { child, commands, messages, profile })
    }

    #[track_caller]
    fn open(self, url: &str) -> Page {
        let mut page = Page { browser: self, session: String::new(), calls: 0, heard: Vec::new() };
        let target = page.call("Target.createTarget", r#"{"url":"about:blank"}"#);
        let target = member(&target, "targetId").trim_matches('"').to_owned();
        let session = page.call("Target.attachToTarget", &format!(r#"{{"targetId":"{target}","flatten":true}}"#));
        page.session = format!(r#","sessionId":{}"#, member(&session, "sessionId"));
        for domain in ["Runtime", "Log", "Page"] {
            page.call(&format!("{domain}.enable"), "{}");
        }
        page.call("Page.navigate", &format!(r#"{{"url":"{url}"}}"#));
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// A page in a browser.
struct Page {
    browser: Browser,
    session: String,
    calls: u32,
    /// What was not the answer to a call.
    heard: Vec<String>,
}

impl Page {
    /// Waits until an expression is true in the page.
    #[track_caller]
    fn wait_for(&mut self, expression: &str) {
        until(expression, || (self.evaluate(expression).as_deref() == Some("true")).then_some(()));
    }

    #[track_caller]
    fn number(&mut self, expression: &str) -> i32 {
        let value = self.evaluate(expression).expect("a value");
        value.parse().unwrap_or_else(|error| panic!("{expression} is {value}: {error}"))
    }

    /// Shows the page on another device.
    fn resize(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics =
            format!(r#"{{"width":{width},"height":{height},"deviceScaleFactor":1,"mobile":{}}}"#, width < 600);
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let media = format!(r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}}]}}"#);
        self.call("Emulation.setEmulatedMedia", &media);
        self.wait_for(&format!("innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"));
    }

    /// Writes a picture of the whole page into the directory of $PICTURES, if there is one, for people to look at.
    fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("PICTURES") else { return };
        let picture = self.call("Page.captureScreenshot", r#"{"captureBeyondViewport":true}"#);
        let file = fs::File::create(PathBuf::from(directory).join(format!("{name}.png"))).expect("a directory");
        let mut decoder =
            Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(file).spawn().expect("coreutils");
        let data = member(&picture, "data").trim_matches('"').as_bytes().to_vec();
        decoder.stdin.take().expect("it is piped").write_all(&data).expect("it reads");
        assert!(decoder.wait().expect("a child").success());
    }

    /// Every error that the page, its scripts or its loads have caused so far.
    fn complaints(&self) -> Vec<&str> {
        let is_complaint = |message: &&str| {
            let is_log = message.contains("Log.entryAdded") || message.contains("Runtime.consoleAPICalled");
            message.contains("Runtime.exceptionThrown") || is_log && message.contains(r#""error""#)
        };
        self.heard.iter().map(String::as_str).filter(is_complaint).collect()
    }

    /// None while the page cannot say: it is being loaded, or what the expression looks for is not there yet.
    #[track_caller]
    fn evaluate(&mut self, expression: &str) -> Option<String> {
        // As a string of Rust, which of printable ASCII is one of JSON.
        let answer = self.call("Runtime.evaluate", &format!(r#"{{"expression":{expression:?}}}"#));
        let is_value = answer.contains(r#""value":"#) && !answer.contains("exceptionDetails");
        is_value.then(|| member(&answer, "value").to_owned())
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: &str) -> String {
        self.calls += 1;
        let (id, session) = (self.calls, &self.session);
        let command = format!(r#"{{"id":{id},"method":"{method}","params":{parameters}{session}}}"#);
        self.browser.commands.write_all(command.as_bytes()).expect("the browser runs");
        self.browser.commands.write_all(b"\0").expect("the browser runs");
        loop {
            let message = self.browser.messages.recv_timeout(support::DEADLINE);
            let message = message.unwrap_or_else(|error| panic!("no answer to {command}: {error}"));
            if message.starts_with(&format!(r#"{{"id":{id},"#)) {
                assert!(!message.contains(r#""error":{"#), "{command}: {message}");
                return message;
            }
            self.heard.push(message);
        }
    }
}

/// The value of a member that is a number, a truth value or a plain string.
#[track_caller]
fn member<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!(r#""{name}":"#)).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split([',', '}']).next().unwrap_or_default()
}
