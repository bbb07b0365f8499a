#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkpool::fuzzing::tls(bytes));
