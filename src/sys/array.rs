//! An array that is filled from the front.

use std::fmt;
use std::mem::MaybeUninit;
use std::slice;

/// Room for `N` values on the stack. It is never initialised as a whole, which would cost more than storing the few
/// values that there usually are.
pub(crate) struct Array<T, const N: usize> {
    slots: [MaybeUninit<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> Array<T, N> {
    #[inline(always)]
    pub(crate) const fn new() -> Array<T, N> {
        Array { slots: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Empties it, to be filled with at most this many values.
    #[inline(always)]
    pub(crate) fn fill(&mut self, most: usize) -> Filling<'_, T> {
        let slots = &mut self.slots[..most.min(N)];
        Filling { most: slots.len(), free: slots.iter_mut(), len: &mut self.len }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[T] {
        let filled = self.slots.as_ptr().cast::<T>();
        // SAFETY: the latest `Filling` has written the first `len` slots, in this order.
        unsafe { slice::from_raw_parts(filled, self.len) }
    }
}

/// Adds values to an array, which has them once this is dropped.
pub(crate) struct Filling<'f, T> {
    free: slice::IterMut<'f, MaybeUninit<T>>,
    most: usize,
    len: &'f mut usize,
}

impl<T: Copy> Filling<'_, T> {
    /// Adds a value. Returns whether there was room for it.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&mut self, value: T) -> bool {
        self.free.next().map(|slot| slot.write(value)).is_some()
    }
}

impl<T> Drop for Filling<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.len = self.most - self.free.len();
    }
}

impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for Array<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_takes_as_many_as_it_may_and_has_room_for() {
        let mut array = Array::<&str, 2>::new();
        assert_eq!(array.as_slice(), [""; 0]);
        for most in [2, 3] {
            let mut filling = array.fill(most);
            assert!(filling.push("a") && filling.push("b") && !filling.push("c"));
            drop(filling);
            assert_eq!(array.as_slice(), ["a", "b"]);
        }
        let mut filling = array.fill(1);
        assert!(filling.push("d") && !filling.push("e"));
        drop(filling);
        assert_eq!(array.as_slice(), ["d"]);
    }
}
