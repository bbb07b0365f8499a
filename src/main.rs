//! The binary `forkpool`. It runs a pool that serves a directory of files or one page, or executes a program,
//! configured by flags and variables; and its verbs show and control a running pool. Uses only the public API of the
//! library.

use std::process::ExitCode;

use forkpool::{Builder, Error, Response};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use cli::output::{fail, print};
use cli::{Invocation, Options};

mod cli;

/// The exit code for an invalid flag, variable or combination.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // First of all: until the pool handles these signals, their default action would end or stop it.
    let held = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTTIN, Signal::SIGTTOU];
    let before = held.into_iter().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let invocation = cli::parse(std::env::args_os(), &|name| std::env::var_os(name));
    if !matches!(invocation, Ok(Invocation::Run(_))) {
        // A verb does not handle these signals.
        let _ = before.and_then(|before| before.thread_set_mask());
    }
    match invocation {
        Ok(Invocation::Text(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Invocation::Call(call)) => match call.run() {
            Ok(code) => ExitCode::from(code),
            Err(problem) => fail(&problem, 1),
        },
        Ok(Invocation::Run(options)) => run(*options),
        Err(problem) => fail(&problem, USAGE),
    }
}

fn run(options: Options) -> ExitCode {
    cli::log::init(options.verbosity, options.log_format);
    for line in cli::misspelt(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        log::warn!("{line}");
    }
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&report(&error), exit_code(&error)),
    }
}

fn start(Options { pool, program, check, .. }: Options) -> forkpool::Result<()> {
    let pool = match &program {
        Some(program) => program.configure(pool)?,
        None => pool,
    };
    match (check, program) {
        (true, _) => pool.check().map(|line| print(&format!("configuration is valid: {line}\n"))),
        (false, Some(program)) => pool.run(|worker| Err(program.execute(worker))),
        (false, None) => serve(pool),
    }
}

/// The error, with a setting as an option: that is how the help names it.
fn report(error: &Error) -> String {
    match error {
        Error::Config { setting, .. } if forkpool::settings().any(|known| known.name() == setting) => {
            format!("--{}", error.report())
        }
        _ => error.report(),
    }
}

/// The exit code of a pool that ended with an error; `--help` lists them.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Config { .. } => USAGE,
        Error::GaveUp { .. } => 3,
        Error::Forced { .. } => 5,
        _ => 1,
    }
}

fn serve(pool: Builder) -> forkpool::Result<()> {
    // An error in what is to be served should show before the start.
    pool.files()?;
    pool.run(|worker| {
        // A rolling restart serves the directory to which the path leads then.
        let files = worker.files()?;
        if let Some(files) = &files {
            worker.allow_files(files)?;
        }
        // Lets the server refuse a request before the client sends its body.
        worker.stream_bodies(|request| request.header("Expect").is_some());
        worker.serve(|request| match &files {
            Some(files) => files.answer(request),
            None => Response::text("hello world\n"),
        })
    })
}
