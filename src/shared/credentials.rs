//! The user and group of the workers.

use crate::sys;
use std::ffi::{CString, NulError, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::{initgroups, setgid, setgroups, setuid, Gid, Group, Uid, User};

use crate::error::{Error, Result};

/// Looked up in the parent, and assumed in the worker once its sockets are bound.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: Option<Account>,
    group: Gid,
}

/// A user as in passwd(5).
#[derive(Debug)]
struct Account {
    name: CString,
    id: Uid,
    home: PathBuf,
}

impl Credentials {
    /// Looks up the credentials in the configuration; `None` if there are none.
    ///
    /// Without a group, the user's own group applies.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a name is unknown, or if this process may not change its user.
    pub(crate) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        if !Uid::effective().is_root() {
            let setting = if user.is_some() { "user" } else { "group" };
            return Err(Error::config(
                setting,
                "only root can run workers as another user; start as root or leave it out",
            ));
        }
        let user = user.map(look_up_user).transpose()?;
        let group = match (group, &user) {
            (Some(name), _) => look_up_group(name)?,
            (None, Some(user)) => user.gid,
            (None, None) => Gid::current(),
        };
        let account = |user: User| Ok(Account { name: CString::new(user.name)?, id: user.uid, home: user.dir });
        let user = user.map(account).transpose();
        let user = user.map_err(|_: NulError| Error::config("user", "the name contains a NUL byte"))?;
        Ok(Some(Credentials { user, group }))
    }

    /// The group of the workers.
    pub(crate) fn group(&self) -> u32 {
        self.group.as_raw()
    }

    /// Whether workers may do everything that root may.
    pub(crate) fn is_root(&self) -> bool {
        self.user.as_ref().is_none_or(|user| user.id.is_root())
    }

    /// The user of the programs that workers run; `None` if it is the user of this process.
    pub(crate) fn user(&self) -> Option<u32> {
        Some(self.user.as_ref()?.id.as_raw())
    }

    /// Switches to this user and group for good, and sets HOME, USER and LOGNAME to match, as login(1) does. Runs in
    /// the worker, before any code of the application. Sets the groups first, since a changed user has no right to.
    pub(crate) fn assume(&self) -> Result<()> {
        match &self.user {
            Some(account) => initgroups(&account.name, self.group),
            None => setgroups(&[self.group]),
        }
        .map_err(|errno| Error::system("set the worker's groups with setgroups(2)", errno))?;
        setgid(self.group).map_err(|errno| Error::system("set the worker's group with setgid(2)", errno))?;
        if let Some(account) = &self.user {
            setuid(account.id).map_err(|errno| Error::system("set the worker's user with setuid(2)", errno))?;
            let name = OsStr::from_bytes(account.name.as_bytes());
            sys::process::set_variable("HOME", &account.home);
            sys::process::set_variable("USER", name);
            sys::process::set_variable("LOGNAME", name);
        }
        Ok(())
    }
}

fn look_up_user(name: &str) -> Result<User> {
    let by_number = || name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    let found = User::from_name(name).map_err(|errno| Error::system("look up the user with getpwnam(3)", errno))?;
    found
        .or_else(by_number)
        .ok_or_else(|| Error::config("user", format!("there is no user {name:?}; see getent passwd")))
}

fn look_up_group(name: &str) -> Result<Gid> {
    let found = Group::from_name(name).map_err(|errno| Error::system("look up the group with getgrnam(3)", errno))?;
    let gid = found.map(|group| group.gid).or_else(|| name.parse().ok().map(Gid::from_raw));
    gid.ok_or_else(|| Error::config("group", format!("there is no group {name:?}; see getent group")))
}
