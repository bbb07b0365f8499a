//! The user and group that workers run as.

use std::ffi::CString;

use nix::unistd::{initgroups, setgid, setgroups, setuid, Gid, Group, Uid, User};

use crate::error::{Error, Result};

/// Looked up in the parent, assumed in the worker once its sockets are bound.
#[derive(Debug)]
pub(crate) struct Credentials {
    user: Option<(CString, Uid)>,
    group: Gid,
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
        let user = user.map(|user| CString::new(user.name).map(|name| (name, user.uid))).transpose();
        let user = user.map_err(|_| Error::config("user", "the name contains a NUL byte"))?;
        Ok(Some(Credentials { user, group }))
    }

    /// Becomes them, for good. Runs in the worker; groups first, since changing the user gives up the right to.
    pub(crate) fn assume(&self) -> Result<()> {
        match &self.user {
            Some((name, _)) => initgroups(name, self.group),
            None => setgroups(&[self.group]),
        }
        .map_err(|errno| Error::system("set the worker's groups with setgroups(2)", errno))?;
        setgid(self.group).map_err(|errno| Error::system("set the worker's group with setgid(2)", errno))?;
        if let Some((_, uid)) = self.user {
            setuid(uid).map_err(|errno| Error::system("set the worker's user with setuid(2)", errno))?;
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
