//! The load client, and what it has counted.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Stdio};

use super::{example, until};

/// The load client of `tests/tools/load`, at work until it is told to finish.
pub struct Load(Child);

impl Load {
    /// Begins to load a port of 127.0.0.1.
    #[track_caller]
    pub fn begin(port: u16, options: &[&str]) -> Load {
        let mut command = example("load");
        command.arg(format!("127.0.0.1:{port}")).args(["--until-eof", "--verbose", "--patience", "120s"]).args(options);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Load(child.expect("the load client is built"))
    }

    /// Ends it, and returns how many requests became what.
    #[track_caller]
    pub fn finish(mut self) -> Tally {
        drop(self.0.stdin.take());
        let mut line = String::new();
        self.0.stdout.take().expect("it is piped").read_to_string(&mut line).expect("text");
        until("the load client ends", || self.0.try_wait().expect("a child"));
        let counts = line.split_whitespace().filter_map(|part| part.split_once('='));
        let tally = Tally(counts.map(|(name, count)| (name.to_owned(), count.parse().unwrap_or(0))).collect());
        assert_eq!(tally.count("local"), 0, "{tally:?}");
        assert!(tally.count("ok") > 0, "{tally:?}");
        tally
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many requests of a load became what.
#[derive(Debug)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub fn count(&self, class: &str) -> u64 {
        *self.0.get(class).expect(class)
    }

    /// Fails the test if anything was lost.
    #[track_caller]
    pub fn nothing_lost(&self) {
        assert_eq!(self.count("lost"), 0, "{self:?}");
    }
}

/// A connection for each request, and connections kept for many.
pub const BOTH_MODES: [&[&str]; 2] = [&["--connections", "16"], &["--connections", "16", "--keep-alive"]];
