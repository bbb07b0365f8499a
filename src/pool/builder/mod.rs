//! How a program configures its pool.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::parent::handle::Hooks;
use crate::pool::run::run;
use crate::server::answer::into_response::IntoResponse;
use crate::server::files::Files;
use crate::server::http::Request;
use crate::shared::config::{quoted, settings, Address, Config, Layers, Setting};
use crate::worker::{keeper, Worker};

mod files;
mod hooks;
mod http;
mod listening;
mod process;
mod programs;
mod tls;
#[cfg(feature = "hyper")]
mod tower;
mod workers;

/// A pool of worker processes. [`Pool::bind`] begins one, and it runs inside [`Builder::serve`] or [`Builder::run`].
#[derive(Debug)]
pub enum Pool {}

impl Pool {
    /// Begins a pool that listens on `address`; [`Builder::bind`] describes the forms.
    pub fn bind(address: impl Display) -> Builder {
        Pool::nowhere().bind(address)
    }

    /// Begins a pool that receives datagrams on `address`, and accepts no connections unless [`Builder::bind`] is
    /// called as well; see [`Builder::bind_udp`].
    pub fn bind_udp(address: impl Display) -> Builder {
        Pool::nowhere().bind_udp(address)
    }

    /// Begins a pool that listens on `address` for HTTPS; see [`Builder::bind_tls`].
    pub fn bind_tls(address: impl Display) -> Builder {
        Pool::nowhere().bind_tls(address)
    }

    fn nowhere() -> Builder {
        let mut config = Config::default();
        config.listening.addresses.clear();
        Builder { config, fixed: BTreeSet::new(), invalid: Vec::new(), hooks: Hooks::default(), tick: None }
    }
}

/// The configuration of a pool. A later call of a method replaces an earlier one, except that [`bind`](Builder::bind),
/// [`bind_udp`](Builder::bind_udp), [`bind_tls`](Builder::bind_tls), [`tls_certificate`](Builder::tls_certificate),
/// [`tls_key`](Builder::tls_key), [`admin_host`](Builder::admin_host), [`watch`](Builder::watch),
/// [`header`](Builder::header) and [`media_type`](Builder::media_type) add.
///
/// [`serve`](Builder::serve), [`run`](Builder::run) and [`check`](Builder::check) report invalid values, unless a later
/// call has replaced them. A timeout is 1 ms to 24 h, or [`Duration::ZERO`] for none.
#[derive(Debug)]
#[must_use = "a builder starts nothing before `serve` or `run`"]
pub struct Builder {
    config: Config,
    /// The settings made since the environment or the file of variables was read; the file does not override them.
    fixed: BTreeSet<&'static str>,
    invalid: Vec<InvalidSetting>,
    hooks: Hooks,
    tick: Option<Duration>,
}

/// An invalid value, kept until the end of the chain.
#[derive(Debug)]
struct InvalidSetting {
    /// The name of the setting. A later value for it removes this error.
    name: String,
    /// The setting as the user wrote it.
    written: String,
    problem: String,
}

impl Builder {
    /// Adds an address to listen on: `127.0.0.1:8000`, `[::1]:8000`, `:8000` (all interfaces, IPv6 and IPv4),
    /// `localhost:8000` (127.0.0.1), `unix:/run/app.sock`. Port 0 picks a free port, the same for all workers. Host
    /// names are not resolved.
    pub fn bind(mut self, address: impl Display) -> Builder {
        let address = address.to_string();
        self.fixed.insert("listen");
        match address.parse::<Address>() {
            Ok(address) => self.config.listening.addresses.push(address),
            Err(problem) => self.mistaken("listen", quoted("listen", &address), problem),
        }
        self
    }

    /// Adds an address to receive datagrams on, in a form of [`bind`](Builder::bind) other than a Unix socket. Each
    /// worker gets a UDP socket of its own from [`Worker::take_udp_sockets`]. A TCP address with the same port number
    /// is unrelated.
    ///
    /// The kernel distributes datagrams over the workers by a hash of both addresses, so all datagrams from one client
    /// socket reach the same worker; [`balance`](Builder::balance) has no effect on that. Datagrams for a worker that
    /// dies or is replaced wait for the replacement, as far as the kernel's buffer reaches (`net.core.rmem_default`).
    /// Unlike with connections, neighbours do not take the datagrams of a slot without a worker. Datagrams sent to a
    /// worker that is removed by scaling may be lost until its socket is closed.
    pub fn bind_udp(mut self, address: impl Display) -> Builder {
        let address = address.to_string();
        match address.parse::<Address>() {
            Ok(Address::Unix(_)) => {
                self.mistaken("bind_udp", quoted("bind_udp", &address), "is no UDP address; give an IP address".into());
            }
            Ok(address) => self.config.listening.udp.push(address),
            Err(problem) => self.mistaken("bind_udp", quoted("bind_udp", &address), problem),
        }
        self
    }

    /// Reads the variables that the binary reads: `FORKPOOL_LISTEN`, `FORKPOOL_WORKERS` and one for each flag of
    /// `forkpool --help`. `CLUSTER_WORKERS`, `WEB_CONCURRENCY` and `PORT` are read if the variable with our prefix is
    /// not set.
    ///
    /// A variable that is set replaces earlier values; an empty one counts as unset. `PORT` listens on that port of all
    /// interfaces.
    pub fn env(self) -> Builder {
        self.env_from(&|name| std::env::var_os(name))
    }

    fn env_from(mut self, source: &dyn Fn(&str) -> Option<OsString>) -> Builder {
        for setting in settings() {
            let Some((variable, value, prefix)) = setting.variable_set(source) else { continue };
            let written = quoted(&variable, &value.to_string_lossy());
            match value.into_string() {
                Ok(value) => self.assign(setting, written, &format!("{prefix}{value}")),
                Err(_) => self.mistaken(setting.name(), written, "is not valid UTF-8".into()),
            }
        }
        self.fixed.clear();
        self
    }

    /// Sets a setting by the name of its flag (`drain-timeout`; leading dashes are allowed) from text, as the binary
    /// does: durations such as `30s` or `500ms`, sizes such as `8KiB`. `listen` and `admin-host` take a list, and
    /// replace all earlier values.
    pub fn set(mut self, name: &str, value: &str) -> Builder {
        match Setting::named(name.strip_prefix("--").unwrap_or(name)) {
            Some(setting) => self.assign(setting, quoted(name, value), value),
            None => self.mistaken(name, quoted(name, value), "there is no such setting".into()),
        }
        self
    }

    /// Checks all settings without opening a socket or writing a file. Returns a summary for people, on one line.
    ///
    /// # Errors
    ///
    /// As [`run`](Builder::run), except for errors that only a start reveals.
    pub fn check(&self) -> Result<String> {
        let config = self.resolved()?;
        keeper::check(config.program.adopt)?;
        #[cfg(feature = "tls")]
        crate::shared::tls::check_secret(&config.listening.tls.tickets)?;
        let tcp = config.listening.addresses.iter().map(Address::to_string);
        let tcp = tcp.chain(config.listening.tls.addresses.iter().map(|address| format!("https://{address}")));
        let udp = config.listening.udp.iter().map(|address| format!("udp:{address}"));
        let addresses: Vec<String> = tcp.chain(udp).collect();
        let (_, workers) = config.worker_count();
        Ok(format!("listens on {}, {workers}", addresses.join(", ")))
    }

    /// Returns the value of a setting after all calls, including the [`env_file`](Builder::env_file), as text that
    /// [`set`](Builder::set) accepts; `None` if the setting is off or does not exist.
    ///
    /// # Errors
    ///
    /// As [`check`](Builder::check).
    pub fn get(&self, name: &str) -> Result<Option<String>> {
        let config = self.resolved()?;
        Ok(Setting::named(name.strip_prefix("--").unwrap_or(name)).and_then(|setting| setting.shown(&config)))
    }

    /// Returns the whole configuration, checked.
    fn resolved(&self) -> Result<Config> {
        if let Some(mistake) = self.invalid.first() {
            return Err(Error::config(&mistake.written, &mistake.problem));
        }
        self.layers().resolve()
    }

    fn layers(&self) -> Layers {
        Layers { given: self.config.clone(), fixed: self.fixed.clone() }
    }

    /// Opens the files under [`root`](Builder::root) to serve them; returns `None` without a root.
    ///
    /// ```no_run
    /// # use forkpool::{Files, Pool, Response};
    /// # fn main() -> forkpool::Result<()> {
    /// // What the binary does: the settings decide, and each worker opens the directory anew.
    /// let pool = Pool::bind(":8000").env();
    /// match pool.files()? {
    ///     Some(files) => pool.run(|worker| {
    ///         let files = files.reopen()?;
    ///         worker.serve(|request| files.answer(request))
    ///     }),
    ///     None => pool.serve(|_request| Response::new(404)),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`check`](Builder::check) and [`Files::open`].
    pub fn files(&self) -> Result<Option<Files>> {
        let config = self.resolved()?;
        // Workers may run in another directory when they reopen it.
        let path = config.root_path().map(|path| std::path::absolute(&path).unwrap_or(path));
        path.map(|path| Files::open_with(path, config.files.rules)).transpose()
    }

    /// Runs the pool with the built-in HTTP server until it is asked to stop. `handler` responds to requests in the
    /// workers, with a [`Response`](crate::Response) or anything else that [`IntoResponse`] accepts; see
    /// [`Worker::serve`].
    ///
    /// ```no_run
    /// use std::error::Error;
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     forkpool::Pool::bind("127.0.0.1:8000").serve(|request| -> Result<String, Box<dyn Error>> {
    ///         // An error is a 500, and a line in the log.
    ///         let number: u64 = request.query().unwrap_or("0").parse()?;
    ///         Ok(format!("{}\n", number + 1))
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Builder::run).
    pub fn serve<R: IntoResponse>(self, handler: impl FnMut(&Request<'_>) -> R) -> Result<()> {
        self.run(|worker| worker.serve(handler))
    }

    /// Runs the pool until it is asked to stop. Each worker runs `main` once, and exits when it returns.
    ///
    /// `main` runs in the workers, after the fork, and never in this process. It may borrow from the caller and need
    /// not be `Send`. A worker is replaced if its `main` returns before it was told to finish, or returns an error.
    /// `run` itself returns in the parent only.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a setting is invalid, [`Error::Threads`] if the process has another thread, [`Error::Bind`]
    /// if an address cannot be bound, [`Error::File`] for the pid file, [`Error::Boot`] if no worker could start.
    pub fn run<E>(self, main: impl FnOnce(&Worker) -> Result<(), E>) -> Result<()>
    where
        E: Into<Box<dyn StdError>>,
    {
        let (config, layers) = (self.resolved()?, self.layers());
        let main = Box::new(|worker: &Worker| main(worker).map_err(Into::into));
        let on_event = self.hooks.on_event.map(|hook| hook.ticking(self.tick));
        run(layers, config, Hooks { on_event, ..self.hooks }, main)
    }

    fn put(mut self, name: &'static str, change: impl FnOnce(&mut Config)) -> Builder {
        self.invalid.retain(|it| it.name != name);
        change(&mut self.config);
        self.fix(name);
        self
    }

    /// Parses text, and adds its values to those of a setting.
    fn add<V>(mut self, name: &'static str, text: &str, push: impl FnOnce(&mut Config, V)) -> Builder
    where
        V: FromStr<Err = String>,
    {
        match text.parse() {
            Ok(value) => self.put(name, |config| push(config, value)),
            Err(problem) => {
                self.mistaken(name, quoted(name, text), problem);
                self
            }
        }
    }

    fn assign(&mut self, setting: &Setting, written: String, value: &str) {
        self.invalid.retain(|it| it.name != setting.name());
        self.fix(setting.name());
        if let Err(problem) = setting.apply(&mut self.config, value) {
            self.mistaken(setting.name(), written, problem);
        }
    }

    /// Marks a setting as made after the file of variables; the file does not override it.
    fn fix(&mut self, name: &'static str) {
        match name {
            "env-file" => self.fixed.clear(),
            name => _ = self.fixed.insert(name),
        }
    }

    fn mistaken(&mut self, name: &str, written: String, problem: String) {
        self.invalid.push(InvalidSetting { name: name.to_owned(), written, problem });
    }
}

#[cfg(test)]
mod tests;
