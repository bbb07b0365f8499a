//! Checks a configuration. Contradictions are errors here, so later code need not handle them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::unistd::{eaccess, AccessFlags};

use super::{settings, Address, Config, Pattern, Readiness};
use crate::error::{Error, Result};
use crate::shared::credentials::Credentials;
use crate::shared::log_file;

impl Config {
    /// Refuses invalid values and contradictions. Binds nothing and writes nothing, but reads the admin token.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the setting, [`Error::File`] the pid file or the token, and [`Error::Bind`] a Unix
    /// socket whose directory does not exist.
    pub(crate) fn check(&self) -> Result<()> {
        for setting in settings() {
            setting.check(self).map_err(|problem| Error::config(setting.name(), problem))?;
        }
        self.check_limits()?;
        self.check_readiness()?;
        self.listening.tls.check(self.server.capacity.max_handshakes)?;
        self.check_addresses()?;
        self.check_admin()?;
        let workers = Credentials::look_up(self.privileges.user.as_deref(), self.privileges.group.as_deref())?;
        self.check_paths(workers.as_ref().filter(|workers| !workers.is_root()))
    }

    fn check_limits(&self) -> Result<()> {
        let (target, head) = (self.server.limits.target, self.server.limits.head);
        if target > head {
            let problem = format!("{target} bytes do not fit in max-head ({head}); lower max-target or raise max-head");
            return Err(Error::config("max-target", problem));
        }
        let (body, held) = (self.server.limits.body, self.server.capacity.max_held);
        if held > 0 && body > held {
            let problem = format!("{body} bytes do not fit in max-held ({held}); lower max-body or raise max-held");
            return Err(Error::config("max-body", problem));
        }
        Ok(())
    }

    fn check_readiness(&self) -> Result<()> {
        match self.program.ready {
            Readiness::Delay(delay)
                if !self.lifecycle.boot_timeout.is_zero() && delay >= self.lifecycle.boot_timeout =>
            {
                let problem = format!(
                    "{:?} is over before the program is ready, {delay:?} after it is executed; raise boot-timeout or \
                     shorten the delay",
                    self.lifecycle.boot_timeout
                );
                Err(Error::config("boot-timeout", problem))
            }
            Readiness::Http(_)
                if !self.listening.addresses.iter().any(|address| !matches!(address, Address::Unix(_))) =>
            {
                let problem = "http needs a TCP address to ask the program at; add one to listen".to_owned();
                Err(Error::config("ready", problem))
            }
            _ => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<()> {
        let addresses = self.listened();
        check_overlaps("listen", &addresses, "connections")?;
        check_overlaps("bind_udp", &self.listening.udp, "datagrams")?;
        if addresses.len() > Config::ADDRESSES_MAX {
            let (count, most) = (addresses.len(), Config::ADDRESSES_MAX);
            let problem = format!("{count} addresses are more than {most}; give the others to another pool");
            return Err(Error::config("listen", problem));
        }
        let is_pid_file =
            |address: &&Address| matches!(address, Address::Unix(path) if Some(path) == self.process.pid_file.as_ref());
        match self.listening.addresses.iter().find(is_pid_file) {
            Some(address) => Err(Error::config("pid-file", format!("is also the path of {address}; choose another"))),
            None => Ok(()),
        }
    }

    fn check_admin(&self) -> Result<()> {
        let Some(admin) = &self.admin.address else {
            let needless = match (&self.admin.token_file, &self.admin.hosts[..]) {
                (Some(_), _) => "admin-token-file",
                (None, [_, ..]) => "admin-host",
                (None, []) => return Ok(()),
            };
            return Err(Error::config(needless, "has no effect without an admin address; add admin"));
        };
        if let Some(other) = self.listened().iter().find(|other| other.covers(admin) || admin.covers(other)) {
            return Err(Error::config("admin", format!("{other} is where the workers listen; choose another")));
        }
        if matches!((admin, &self.process.pid_file), (Address::Unix(socket), Some(file)) if socket == file) {
            return Err(Error::config("pid-file", format!("is also the path of {admin}; choose another")));
        }
        self.admin_token().map(drop)
    }

    /// Checks the directories and files. `others` is the workers' identity if they do not run as root.
    fn check_paths(&self, others: Option<&Credentials>) -> Result<()> {
        for address in self.listening.addresses.iter().chain(&self.admin.address) {
            if let Address::Unix(path) = address {
                writable(path).map_err(|source| Error::Bind { address: address.to_string(), source })?;
            }
        }
        for (setting, path) in [("chdir", self.process.chdir.clone()), ("root", self.root_path())] {
            let Some(path) = path else { continue };
            readable(&path).map_err(|problem| Error::config(setting, format!("{} {problem}", path.display())))?;
        }
        for text in &self.process.watch {
            let base = self.reached_from_chdir(Path::new(&Pattern::new(text).base));
            if let Err(error) = fs::metadata(&base) {
                let problem = format!("{} cannot be watched: {error}; choose another", base.display());
                return Err(Error::config("watch", problem));
            }
        }
        if let Some(path) = &self.access_log.file {
            log_file::check(path, others, writable)?;
        }
        let Some(path) = &self.process.pid_file else { return Ok(()) };
        let unwritable =
            |source| Error::File { path: path.display().to_string(), action: "write the pid file", source };
        writable(path).map_err(unwritable)
    }
}

/// Refuses addresses of `setting` that overlap.
fn check_overlaps(setting: &str, addresses: &[Address], taken: &str) -> Result<()> {
    for (index, address) in addresses.iter().enumerate() {
        let overlapping = |other: &&Address| other.covers(address) || address.covers(other);
        if let Some(other) = addresses[..index].iter().find(overlapping) {
            let (wide, narrow) = if other.covers(address) { (other, address) } else { (address, other) };
            let problem = match wide == narrow {
                true => format!("{address} is given twice; leave one out"),
                false => format!("{wide} already takes the {taken} to {narrow}; leave one out"),
            };
            return Err(Error::config(setting, problem));
        }
    }
    Ok(())
}

/// Whether `path` is a directory. Whether the workers may read it is found out by them.
fn readable(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err("is no directory; choose another".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("does not exist; create it or choose another".to_owned())
        }
        Err(error) => Err(format!("cannot be reached ({error}); choose another")),
    }
}

/// Whether a file could be created at `path`. This creates none, since it must not disturb a running pool.
fn writable(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let shown = directory.display();
    let problem = match fs::metadata(directory) {
        _ if path.is_dir() => "it is a directory; add the file's name".to_owned(),
        Ok(found) if found.is_dir() => match eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => return Ok(()),
            Err(errno) => format!("the directory {shown} is not writable ({}); choose another", errno.desc()),
        },
        Ok(_) => format!("{shown} is no directory; choose another"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            format!("the directory {shown} does not exist; create it or choose another")
        }
        Err(error) => format!("the directory {shown} cannot be reached ({error}); choose another"),
    };
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shared::config::Setting;

    #[test]
    fn a_program_is_ready_before_the_boot_timeout() {
        for (delay, boot, is_right) in [(10, 60, true), (60, 60, false), (61, 60, false), (61, 0, true)] {
            let mut config = Config::default();
            config.program.ready = Readiness::Delay(Duration::from_secs(delay));
            config.lifecycle.boot_timeout = Duration::from_secs(boot);
            assert_eq!(config.check().is_ok(), is_right, "{delay} {boot}");
        }
    }

    #[test]
    fn the_default_is_valid() {
        Config::default().check().expect("valid");
    }

    #[test]
    fn contradictions_are_refused() {
        let many = (1..255).map(|last| format!("127.0.0.{last}:1 ")).collect::<String>();
        for (said, message) in [
            (&[("listen", "127.0.0.1:1 127.0.0.1:1")][..], "listen: 127.0.0.1:1 is given twice"),
            (&[("listen", "unix:a,unix:a")], "listen: unix:a is given twice"),
            (&[("listen", "127.0.0.1:1,:1")], "listen: :1 already takes the connections to 127.0.0.1:1"),
            (&[("listen", "0.0.0.0:1,127.0.0.1:1")], "listen: 0.0.0.0:1 already takes the connections to 127.0.0.1:1"),
            (&[("listen", &many)], "listen: 254 addresses are more than 253"),
            (&[("max-target", "8k"), ("max-head", "4k")], "max-target: 8192 bytes do not fit in max-head (4096)"),
            (&[("max-body", "65M")], "max-body: 68157440 bytes do not fit in max-held (67108864)"),
            (&[("max-head", "4k")], "max-target: 8192 bytes do not fit in max-head (4096)"),
            (&[("listen", "unix:/a/b"), ("pid-file", "/a/b")], "pid-file: is also the path of unix:/a/b"),
            (&[("pid-file", "/nowhere/x.pid")], "the directory /nowhere does not exist"),
            (
                &[("listen", "unix:/nowhere/x")],
                "cannot listen on unix:/nowhere/x: the directory /nowhere does not exist",
            ),
            (&[("pid-file", "/")], "it is a directory"),
            (&[("admin-token-file", "x")], "admin-token-file: has no effect without an admin address"),
            (&[("admin-host", "x")], "admin-host: has no effect without an admin address"),
            (&[("listen", ":1"), ("admin", "127.0.0.1:1")], "admin: :1 is where the workers listen"),
            (&[("pid-file", "/a/b"), ("admin", "unix:/a/b")], "pid-file: is also the path of unix:/a/b"),
            (
                &[("admin", "unix:/nowhere/x")],
                "cannot listen on unix:/nowhere/x: the directory /nowhere does not exist",
            ),
            (&[("admin", ":1"), ("admin-token-file", "/nowhere/x")], "cannot read the admin token in /nowhere/x"),
            (&[("admin", ":1"), ("admin-token-file", "/proc/version")], "every user has access to /proc/version"),
        ] {
            let mut config = Config::default();
            for (name, value) in said {
                let setting = Setting::named(name).expect("a setting");
                setting.apply(&mut config, value).expect("valid alone");
            }
            let error = config.check().expect_err(message).report();
            assert!(error.contains(message), "{said:?}: {error}");
        }
    }

    #[test]
    fn what_only_looks_like_a_contradiction_is_accepted() {
        for listen in ["127.0.0.1:0,127.0.0.1:0", ":0,:0", "[::]:1,0.0.0.0:1", "127.0.0.1:1,127.0.0.2:1", "unix:a,:1"] {
            let mut config = Config::default();
            Setting::named("listen").expect("a setting").apply(&mut config, listen).expect("valid alone");
            assert!(config.check().is_ok(), "{listen}");
        }
    }

    #[test]
    fn a_program_is_asked_at_a_port_of_every_interface_too() {
        for listen in [":1", "127.0.0.1:1", "unix:a,:1"] {
            let mut config = Config::default();
            for (name, value) in [("listen", listen), ("ready", "http:/health")] {
                Setting::named(name).expect("a setting").apply(&mut config, value).expect("valid alone");
            }
            assert!(config.check().is_ok(), "{listen}");
        }
    }
}
