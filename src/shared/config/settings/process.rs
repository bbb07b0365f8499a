//! PURE. What the processes run as.
#![forbid(unsafe_code)]

use super::kind::{Choice, FilePath, Name, Optional};
use super::{Section, Setting};

const SECTION: Section = Section("Process");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "chdir",
        "DIR",
        at!(chdir, Optional(FilePath)),
        "Directory that each worker works in, resolved again at its start, so that a restart follows a symbolic link that \
         was exchanged; a relative --root, --watch and program is looked up from there, all other paths from where \
         forkpool was started",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "env-file",
        "FILE",
        at!(env_file, Optional(FilePath)),
        "File of variables, a NAME=value in each line, # before comments, no quotes, nothing expanded; read and checked \
         at the start, and again before a restart and an upgrade, which are aborted when something is wrong; \
         FORKPOOL_* are the pool's own settings, over which its flags win, all others the environment of the workers; \
         both win over what is inherited",
    ),
    Setting::new(
        SECTION,
        "user",
        "NAME",
        at!(user, Optional(Name)),
        "User that workers become once they listen, by name or number, with its HOME; needs root",
    ),
    Setting::new(
        SECTION,
        "group",
        "NAME",
        at!(group, Optional(Name)),
        "Group that workers become, by name or number; without it the user's own; needs root",
    ),
    Setting::new(
        SECTION,
        "sandbox",
        "auto|off|strict",
        at!(sandbox, Choice::new()),
        "What workers may do once they are ready: serve what they have open, read and write files that are open \
         already, open what is below --root, /dev/null, /dev/urandom and the time zones, start threads, and nothing \
         else: no other files, no new sockets, processes or code, no signals, and nothing to a listening socket \
         that would outlast them (no_new_privs, landlock, seccomp); auto goes on where the kernel lacks one of \
         these, strict fails; a program, whose needs are not known, only gains no privileges by executing another, \
         such as sudo; without this auto, and off for programs and for handlers of your own",
    )
    .on_restart()
    .default_in_help(),
    Setting::new(
        SECTION,
        "pid-file",
        "PATH",
        at!(pid_file, Optional(FilePath)),
        "File for the parent's process id, written once the addresses are ours and removed at the end; everybody may \
         read it (mode 0644)",
    ),
];
