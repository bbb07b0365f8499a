//! Whatever is accepted as a request, httparse reads in the same way.
#![no_main]

/// The maximum number of fields that are accepted.
const FIELDS: usize = 8;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((line, fields)) = forkpool::fuzzing::accepted(bytes) else { return };
    let mut slots = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut slots);
    match parsed.parse(bytes) {
        // HTTP/1.2 and later, which httparse does not know.
        Err(httparse::Error::Version) => return,
        result => assert!(matches!(result, Ok(httparse::Status::Complete(_))), "{result:?}"),
    }
    let (method, path, minor) = (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""), parsed.version.unwrap_or(9));
    assert_eq!(format!("{method} {path} HTTP/1.{minor}"), line);
    let theirs = parsed.headers.iter().map(|field| (field.name, field.value));
    assert!(theirs.eq(fields.iter().map(|(name, value)| (&name[..], &value[..]))), "{fields:?}");
});
