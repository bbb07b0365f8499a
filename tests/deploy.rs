//! The files of examples/deploy say what the binary, and the tools that read them, understand.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{fresh_path, skip};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).expect(name)
}

/// Runs a tool; None where it is not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("there is no {tool}"));
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

/// The words of a file that are our flags, comments included: what stands there is to be right, too.
fn flags(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c.is_whitespace() || "\"',.;[]()".contains(c));
    let names = words.filter_map(|word| word.strip_prefix("--"));
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

#[test]
fn every_flag_exists() {
    // Those of other commands, which comments show.
    let others = ["rm", "no-cache", "profile", "locked", "bin", "from=build", "now", "stop-timeout"];
    for name in ["forkpool.service", "Dockerfile", "kubernetes.yaml", "haproxy.cfg", "nginx.conf"] {
        let flags = flags(&read(name));
        let ours: Vec<_> = flags.iter().filter(|flag| !others.contains(&flag.as_str())).collect();
        assert!(ours.iter().any(|flag| *flag == "listen"), "{name} shows how to listen: {flags:?}");
        for flag in ours {
            assert!(forkpool::settings().any(|setting| setting.name() == flag), "{name}: --{flag}");
        }
    }
}

#[test]
fn the_image_is_built_of_all_that_cargo_asks_for() {
    let dockerfile = read("Dockerfile");
    let copied: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).collect();
    let copied: Vec<&str> =
        copied.iter().filter(|words| !words.starts_with("--")).flat_map(|it| it.split(' ')).collect();
    // Cargo builds nothing where a target is missing that the manifest names.
    let manifest = include_str!("../Cargo.toml");
    let named: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("[[")?.strip_suffix("]]")).collect();
    assert!(named.contains(&"bin"), "{named:?}");
    for kind in named {
        let directory = match kind {
            "bin" => "src".to_owned(),
            kind => format!("{kind}s"),
        };
        assert!(copied.contains(&directory.as_str()), "{directory} is not among {copied:?}");
    }
}

#[test]
fn the_image_says_whether_it_is_ready() {
    let dockerfile = read("Dockerfile");
    let check = dockerfile.lines().find_map(|line| line.strip_prefix("HEALTHCHECK CMD ")).expect("it has a check");
    let command = check.trim_matches(['[', ']']).replace(['"', ','], "");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/forkpool"));
    let admin = dockerfile.lines().find_map(|line| line.strip_prefix("ENV FORKPOOL_ADMIN=")).expect("an address");
    assert!(admin.starts_with("127.0.0.1:"), "others than the container reach it: {admin}");
    let words: Vec<&str> = words.collect();
    let mut server = support::Server::spawn({
        let mut command = support::binary();
        command.env("FORKPOOL_ADMIN", "127.0.0.1:0");
        command
    });
    let admin = format!("127.0.0.1:{}", server.wait_for_admin());
    server.wait_for("listening on ");
    let check = |admin: &str| {
        let mut command = support::binary();
        command.args(&words).env("FORKPOOL_ADMIN", admin).output().expect("the binary runs").status.code()
    };
    support::until("it is ready", || (check(&admin) == Some(0)).then_some(()));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    assert_ne!(check(&admin), Some(0));
}

#[test]
fn the_unit_is_clean() {
    let Some(output) = run("systemd-analyze", &["--version"]) else { return };
    assert!(output.status.success(), "{output:?}");
    let directory = fresh_path("units");
    fs::create_dir_all(&directory).expect("writable");
    let unit = read("forkpool.service").replace("/usr/local/bin/forkpool", env!("CARGO_BIN_EXE_forkpool"));
    let paths = ["forkpool.service", "forkpool.socket"].map(|name| directory.join(name));
    fs::write(&paths[0], unit).expect("writable");
    fs::write(&paths[1], read("forkpool.socket")).expect("writable");
    let [service, socket] = paths.map(|path| path.to_string_lossy().into_owned());
    let output = run("systemd-analyze", &["verify", "--man=no", &service, &socket]).expect("it is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it says of this machine's other units is not ours.
    let said: Vec<_> = said.lines().filter(|line| line.contains("forkpool")).collect();
    assert!(output.status.success() && said.is_empty(), "{said:?}");
    let output =
        run("systemd-analyze", &["security", "--offline=yes", "--threshold=20", &service]).expect("it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn the_manifest_leaves_time_to_drain() {
    const CHECK: &str = r#"
import sys, yaml
deployment, service, files = yaml.safe_load_all(open(sys.argv[1]))
spec = deployment["spec"]["template"]["spec"]
container, = spec["containers"]
arguments = container["args"]
value = lambda flag: arguments[arguments.index(flag) + 1]
seconds = lambda flag: int(value(flag).rstrip("s"))
assert spec["terminationGracePeriodSeconds"] > seconds("--lame-duck") + seconds("--drain-timeout")
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
assert value("--listen").endswith(f":{ports['http']}") and value("--admin").endswith(f":{ports['admin']}")
for probe, path in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz"), ("startupProbe", "/readyz")]:
    assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe
ready = container["readinessProbe"]
assert ready["periodSeconds"] * ready["failureThreshold"] < seconds("--lame-duck")
assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
labels = deployment["spec"]["template"]["metadata"]["labels"]
volume, = spec["volumes"]
assert (files["kind"], files["metadata"]["name"]) == ("ConfigMap", volume["configMap"]["name"])
assert "index.html" in files["data"]
assert service["spec"]["selector"].items() <= labels.items() == deployment["spec"]["selector"]["matchLabels"].items()
assert service["spec"]["ports"][0]["targetPort"] in ports
"#;
    let Some(output) = run("python3", &["-c", "import yaml"]) else { return };
    if !output.status.success() {
        skip("python3 has no yaml");
        return;
    }
    let path = deploy("kubernetes.yaml");
    let output = run("python3", &["-c", CHECK, &path.to_string_lossy()]).expect("it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// By the schemas of Kubernetes, which refuse fields that they do not know.
#[test]
fn the_manifest_is_valid() {
    let path = deploy("kubernetes.yaml");
    let Some(output) = run("kubernetes-validate", &["--strict", &path.to_string_lossy()]) else { return };
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout).matches(" passed for resource ").count(), 3, "{}", text(&output.stdout));
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[test]
fn haproxy_takes_its_configuration() {
    let path = deploy("haproxy.cfg");
    let Some(output) = run("haproxy", &["-c", "-f", &path.to_string_lossy()]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nginx_takes_its_configuration() {
    // As it is, but for the paths that only root may write to, and with what is in comments.
    let text = read("nginx.conf");
    let path = support::fresh_path("nginx.conf");
    for (name, text) in [("http", text.clone()), ("stream", uncommented(&text))] {
        std::fs::write(&path, format!("pid /dev/null; error_log stderr;\n{text}")).expect("writable");
        let arguments = ["-t", "-e", "stderr", "-c", &path.to_string_lossy()];
        let Some(output) = run("nginx", &arguments) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unknown directive \"stream\"") {
            skip("this nginx has no module for streams");
            continue;
        }
        assert!(output.status.success() || said.contains("syntax is ok"), "{name}: {said}");
    }
    std::fs::remove_file(path).expect("the file");
}

/// The block that is in comments at the end of a file.
fn uncommented(text: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.starts_with("# stream"));
    let lines = lines.map(|line| line.trim_start_matches('#'));
    format!("events {{}}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}
