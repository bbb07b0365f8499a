use super::*;

const SETS: [Set; 4] = [Set::of(b""), Set::of(b"\0"), Set::of(b"!#-./09:AZ_az~"), Set::of(b"\t\x0f\x10 \x7f@`P")];

/// What all of them are to count, in the simplest way.
#[track_caller]
fn assert_right(steps: impl Steps, window: &[u8; WINDOW]) {
    for skip in [0, 1, 9, 31, WINDOW] {
        let rest = &window[skip..];
        for set in &SETS {
            let count = rest.iter().take_while(|byte| set.contains(**byte)).count();
            assert_eq!(steps.within(window, skip as u32, set), count, "{rest:?} of {set:?}");
        }
        let count = rest.iter().take_while(|byte| !byte.is_ascii_control()).count();
        assert_eq!(steps.text(window, skip as u32), count, "{rest:?}");
    }
}

/// Every byte, at every place, among bytes that are meant and among others.
fn windows(mut check: impl FnMut(&[u8; WINDOW])) {
    for around in [b'a', 0, 0xff] {
        for place in 0..WINDOW {
            for byte in 0..=255 {
                let mut window = [around; WINDOW];
                window[place] = byte;
                check(&window);
            }
        }
    }
}

#[test]
fn a_set_contains_its_bytes_alone() {
    let set = Set::of(b"\0az09\x7f");
    let all: Vec<u8> = (0..=255).filter(|byte| set.contains(*byte)).collect();
    assert_eq!(all, b"\x0009az\x7f");
}

#[test]
fn all_kinds_of_steps_count_the_same() {
    windows(|window| assert_right(portable::Bytes, window));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_steps_of_these_processors_count_the_same() {
    windows(|window| assert_right(x86::Sse2, window));
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has AVX2.
        let steps = unsafe { x86::Avx2::new() };
        windows(|window| assert_right(steps, window));
    }
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[test]
fn the_steps_of_these_processors_count_the_same() {
    windows(|window| assert_right(neon::Neon, window));
}

/// Takes a word, a blank and a text, which ends the input or not.
struct Take<'a>(&'a [u8]);

impl<'a> Work for Take<'a> {
    type Output = (Option<&'a str>, Option<&'a str>, Option<&'a [u8]>, &'a [u8]);

    #[inline(always)]
    fn run<S: Steps>(self, steps: S) -> Self::Output {
        let mut cursor = Cursor::new(self.0, steps);
        let not_yet = cursor.take(&Set::of(b"abc"), b'\n');
        let word = cursor.take(&Set::of(b"abc"), b'!');
        let text = cursor.take_line();
        (not_yet, word, text, cursor.rest())
    }
}

#[test]
fn a_cursor_takes_what_is_there_however_long_it_is() {
    for word in [1, 30, 31, 32, 33, 64, 100] {
        for text in [0, 1, 30, 31, 32, 33, 64, 100] {
            for rest in ["", "\r", "\r\n", "\r\n and a rest that is as long as a window, and longer"] {
                let (word, text) = ("abc".repeat(34)[..word].to_owned(), "x\tyz".repeat(25)[..text].to_owned());
                let input = format!("{word}! {text}{rest}");
                let line = rest.strip_prefix("\r\n");
                let behind = line.map_or_else(|| format!("{text}{rest}"), str::to_owned);
                let expected = (None, Some(word.as_str()), line.map(|_| text.as_bytes()), behind.as_bytes());
                assert_eq!(run(Take(input.as_bytes())), expected, "{input:?}");
            }
        }
    }
}
