//! Notices to the application about a connection that waits for it, so that it need not poll.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::error;

use crate::shared::log_text::panic_message;

type Hook = Box<dyn FnOnce() + Send>;

/// The notices of a connection.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// The client has disconnected.
    pub(crate) gone: Notice,
    /// The worker drains, and this connection should end.
    pub(crate) drain: Notice,
}

/// Something that happens once, and the hooks to call then.
#[derive(Default)]
pub(crate) struct Notice(Mutex<State>);

#[derive(Default)]
struct State {
    has_come: bool,
    hooks: Vec<Hook>,
}

impl Notice {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_come(&self) -> bool {
        self.lock().has_come
    }

    /// Runs `hook` once it happens, or at once if it has.
    pub(crate) fn when(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        if !state.has_come {
            return state.hooks.push(Box::new(hook));
        }
        // Not under the lock, since the hook may use the notice.
        drop(state);
        hook();
    }

    /// Marks that it has happened, and calls the hooks. A panic of one does not affect the others.
    pub(crate) fn tell(&self) {
        let mut state = self.lock();
        state.has_come = true;
        let hooks = std::mem::take(&mut state.hooks);
        drop(state);
        for hook in hooks {
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(hook)) {
                error!("a hook of a connection panicked: {}", panic_message(&*panic));
            }
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Notice").field("has_come", &state.has_come).field("hooks", &state.hooks.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_hook_is_told_once_whenever_it_came() {
        let (notice, told) = (Arc::new(Notice::default()), Arc::new(AtomicUsize::new(0)));
        let hook = || {
            let (notice, told) = (Arc::clone(&notice), Arc::clone(&told));
            move || {
                assert!(notice.has_come(), "a hook may ask");
                told.fetch_add(1, Ordering::Relaxed);
            }
        };
        notice.when(hook());
        notice.when(|| panic!("as the test wants it"));
        notice.when(hook());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        notice.tell();
        notice.tell();
        assert_eq!(told.load(Ordering::Relaxed), 2);
        notice.when(hook());
        assert_eq!(told.load(Ordering::Relaxed), 3);
    }
}
