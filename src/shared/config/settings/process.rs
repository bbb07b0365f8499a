//! PURE. The identity and environment of the processes.
#![forbid(unsafe_code)]

use super::kind::{Choice, FilePath, Name, Optional, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("Process");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "chdir",
        "DIR",
        at!(process.chdir, Optional(FilePath)),
        "Working directory of the workers. It is resolved each time a worker starts, so a restart follows a symbolic \
         link that was swapped. A relative --root, --watch or program is relative to it; all other paths are relative \
         to the directory that forkpool was started in",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "env-file",
        "FILE",
        at!(process.env_file, Optional(FilePath)),
        "File of variables, one NAME=value per line. Lines that begin with # are comments; nothing is quoted or \
         expanded. FORKPOOL_* are settings of the pool, which flags override. All others go into the environment of \
         the workers. Both override inherited variables. The file is read again before each restart and upgrade, and \
         an error in it aborts them",
    ),
    Setting::new(
        SECTION,
        "user",
        "NAME",
        at!(privileges.user, Optional(Name)),
        "User to switch workers to after binding, by name or number. HOME is set to match. Needs root",
    ),
    Setting::new(
        SECTION,
        "group",
        "NAME",
        at!(privileges.group, Optional(Name)),
        "Group to switch workers to after binding, by name or number. Without it they get the user's group. Needs \
         root",
    ),
    Setting::new(
        SECTION,
        "sandbox",
        "auto|off|strict",
        at!(privileges.sandbox, Choice::new()),
        "Confine workers once they are ready, by no_new_privs, landlock and seccomp. A confined worker can serve \
         connections, use files that are open, open files below --root, /dev/null, /dev/urandom and the time zones, \
         and start threads. It cannot open other files, create sockets or processes, load code, send signals, or \
         change its listening sockets. auto skips what the kernel does not support; strict fails instead. A program \
         is not confined, except that it cannot gain privileges, as by sudo. Without this setting it is auto, and off \
         for programs and for handlers of your own",
    )
    .on_restart()
    .default_in_help(),
    Setting::new(
        SECTION,
        "pid-file",
        "PATH",
        at!(process.pid_file, Optional(FilePath)),
        "File for the parent's process id (mode 0644), written once the addresses are bound and removed at the end",
    ),
    Setting::new(
        SECTION,
        "process-titles",
        "yes|no",
        at!(process.titles, YesNo),
        "Show in ps and top what each process is, such as \"forkpool: worker 3 gen 2\". The arguments of the program \
         do not change. Needs a kernel with CONFIG_CHECKPOINT_RESTORE",
    ),
];
