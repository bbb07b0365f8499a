//! Values that stay on their thread, in types that may move to another one.

use std::fmt;
use std::mem::ManuallyDrop;
use std::thread::{self, ThreadId};

/// A value that only the thread that has made it can use. On any other thread, using it panics, and dropping it leaks
/// it.
pub(crate) struct Local<T> {
    thread: ThreadId,
    value: ManuallyDrop<T>,
}

// SAFETY: the value is used and dropped on the thread that has made it only.
unsafe impl<T> Send for Local<T> {}

impl<T> Local<T> {
    pub(crate) fn new(value: T) -> Local<T> {
        Local { thread: thread::current().id(), value: ManuallyDrop::new(value) }
    }

    /// # Panics
    ///
    /// On another thread.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        assert!(self.is_here(), "a value that is bound to the worker's thread was made on another one");
        &mut self.value
    }

    fn is_here(&self) -> bool {
        thread::current().id() == self.thread
    }
}

impl<T> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: it is dropped once, here, on its own thread.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_value_is_used_and_dropped_on_its_thread_only() {
        let value = Rc::new(1);
        let mut local = Local::new(Rc::clone(&value));
        assert_eq!(**local.get_mut(), 1);
        let elsewhere = Local::new(Rc::clone(&value));
        let used = thread::spawn(move || {
            let mut elsewhere = elsewhere;
            elsewhere.get_mut().as_ref().to_owned()
        });
        assert!(used.join().is_err(), "it must not be used there");
        drop(local);
        // What the other thread has dropped is leaked.
        assert_eq!(Rc::strong_count(&value), 2);
    }
}
