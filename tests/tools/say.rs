//! Lines on stderr, where several processes write.

/// As `eprintln!`, which writes a line piece by piece, so that lines of other processes come in between.
macro_rules! say {
    ($($line:tt)*) => {{
        let line = format!($($line)*) + "\n";
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("stderr is open");
    }};
}
