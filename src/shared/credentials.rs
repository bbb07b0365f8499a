//! The user and group that workers run as.

use crate::sys;
use std::ffi::{CString, NulError, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::{initgroups, setgid, setgroups, setuid, Gid, Group, Uid, User};

use crate::error::{Error, Result};

/// Looked up in the parent, assumed in the worker once its sockets are bound.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: Option<Account>,
    group: Gid,
}

/// A user, as passwd(5) describes it.
#[derive(Debug)]
struct Account {
    name: CString,
    id: Uid,
    home: PathBuf,
}

impl Credentials {
    /// The credentials that the configuration names; `None` when it names none.
    ///
    /// Without a group it is the user's own.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when a name is unknown, or when this process may not change its user.
    pub(crate) fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        if !Uid::effective().is_root() {
            let setting = if user.is_some() { "user" } else { "group" };
            return Err(Error::config(
                setting,
                "only root can run workers as somebody else; start as root or leave it out",
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

    /// The group that workers are of.
    pub(crate) fn group(&self) -> u32 {
        self.group.as_raw()
    }

    /// Whether workers may do all that root may.
    pub(crate) fn is_root(&self) -> bool {
        self.user.as_ref().is_none_or(|user| user.id.is_root())
    }

    /// Whose programs workers run; None for this process's own.
    pub(crate) fn user(&self) -> Option<u32> {
        Some(self.user.as_ref()?.id.as_raw())
    }

    /// Becomes them, for good, and says so in the environment, as login(1) does: HOME, USER and LOGNAME are the user's.
    /// Runs in the worker, before code of the application; groups first, since changing the user gives up the right to.
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
