//! Finds the file that a program's name refers to, as execvp(3) in a worker would.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Config;
use crate::error::{Error, Result};

/// The search path if there is no PATH (execvp(3)).
const USUAL: &str = "/bin:/usr/bin";

/// The kernel reads at most this many bytes of a script's first line (execve(2)).
const LINE_MAX: usize = 256;

impl Config {
    /// Returns the file that a worker would execute. This does not check whether the worker's user may execute it; the
    /// worker finds out.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if there is no such file, or it cannot be executed.
    pub(crate) fn find_program(&self, name: &OsStr) -> Result<PathBuf> {
        let refused = |problem: String| Error::File {
            path: name.to_string_lossy().escape_debug().to_string(),
            action: "execute",
            source: io::Error::other(problem),
        };
        if name.as_bytes().contains(&b'/') {
            let path = self.reached_from_chdir(Path::new(name));
            return executable(&path).map(|()| path).map_err(refused);
        }
        let said = self.process.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let places = said.or_else(|| env::var_os("PATH")).unwrap_or_else(|| OsString::from(USUAL));
        let mut nearly = None;
        for place in env::split_paths(&places) {
            let path = self.reached_from_chdir(&place).join(name);
            match executable(&path) {
                Ok(()) => return Ok(path),
                Err(problem) if path.is_file() => _ = nearly.get_or_insert(format!("{} {problem}", path.display())),
                Err(_) => {}
            }
        }
        let places = places.to_string_lossy();
        Err(refused(nearly.unwrap_or_else(|| {
            format!("it is in no directory of PATH ({}); install it, or give its path", places.escape_debug())
        })))
    }
}

/// # Errors
///
/// The reason why the file at `path` cannot be executed.
fn executable(path: &Path) -> std::result::Result<(), String> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be reached: {error}"),
    })?;
    if found.is_dir() {
        return Err("is a directory; give a program".to_owned());
    }
    if !found.is_file() {
        return Err("is no regular file".to_owned());
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err("is not executable; run it by its interpreter, or allow it with chmod +x".to_owned());
    }
    match interpreter(path) {
        Some(interpreter) if !interpreter.exists() => {
            let shown = interpreter.display();
            Err(format!("has #!{shown} in its first line, which does not exist; correct that line"))
        }
        _ => Ok(()),
    }
}

/// Returns the interpreter of a script, as its first line names it. If the interpreter is missing, execve(2) fails with
/// ENOENT, which does not say what is missing.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    File::open(path).ok()?.take(LINE_MAX as u64).read_to_end(&mut line).ok()?;
    let words = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = words.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.next().map(|word| Path::new(OsStr::from_bytes(word)).to_owned()).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_program_is_looked_for_as_the_worker_does() {
        let directory = env::temp_dir().join(format!("forkpool-program-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let place = |path: &str, content: &str, mode: u32| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("writable");
            fs::write(&path, content).expect("writable");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        };
        place("one/plain", "", 0o644);
        place("one/both", "", 0o644);
        place("two/both", "#! /bin/sh -e\n", 0o755);
        place("two/lost", "#!/nowhere/python\nx\n", 0o755);
        place("here", "", 0o755);
        fs::create_dir_all(directory.join("one/folder")).expect("writable");
        let path = OsString::from(format!("{}:two:", directory.join("one").display()));
        let mut config = Config::default();
        config.process.chdir = Some(directory.clone());
        config.process.environment = Rc::new(vec![("PATH".to_owned(), path)]);
        for (name, expected) in [
            ("both", Ok("two/both")),
            ("two/both", Ok("two/both")),
            ("./here", Ok("./here")),
            ("here", Ok("here")),
            ("folder", Err("it is in no directory of PATH (")),
            ("one/folder", Err("is a directory; give a program")),
            ("plain", Err("plain is not executable; run it by its interpreter, or allow it with chmod +x")),
            ("one/plain", Err("is not executable; run it")),
            ("./nothing", Err("does not exist")),
            ("nothing", Err("it is in no directory of PATH (")),
            ("two/lost", Err("has #!/nowhere/python in its first line, which does not exist")),
            ("/dev/null", Err("is no regular file")),
            ("here/below", Err("cannot be reached: Not a directory")),
        ] {
            let found = config.find_program(OsStr::new(name)).map_err(|error| error.report());
            match expected {
                Ok(path) => assert_eq!(found, Ok(directory.join(path)), "{name}"),
                Err(problem) => {
                    let found = found.expect_err(name);
                    assert!(
                        found.starts_with(&format!("cannot execute {name}: ")) && found.contains(problem),
                        "{found}"
                    );
                }
            }
        }
        fs::remove_dir_all(&directory).expect("ours");
    }
}
