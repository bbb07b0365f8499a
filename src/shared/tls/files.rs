//! Reads the files that settings of TLS name.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::{Error, Result};
use crate::shared::whole_file::read_whole;

/// The maximum length of a file: several times that of all authorities which a system trusts.
const FILE_MAX: usize = 1 << 20;

/// Reads a file that `setting` names. `action` is for the error, as in "read the key in". Never waits for a writer.
///
/// # Errors
///
/// [`Error::File`] with a remedy.
pub(super) fn read(file: &Path, action: &'static str, setting: &str) -> Result<Vec<u8>> {
    let refuse = |source| Error::File { path: file.display().to_string(), action, source };
    let bytes = read_whole(file, FILE_MAX).map_err(|source| {
        let remedy = match source.kind() {
            ErrorKind::NotFound => format!("correct the path in {setting}"),
            ErrorKind::PermissionDenied => "let the user that starts the pool read it".to_owned(),
            ErrorKind::IsADirectory => format!("name a file in it in {setting}"),
            // Perhaps `<(...)` of a shell.
            ErrorKind::InvalidInput => format!("save what it holds as a file, and name that in {setting}"),
            _ => format!("name another file in {setting}"),
        };
        refuse(io::Error::new(source.kind(), format!("{source}; {remedy}")))
    })?;
    match bytes.len() <= FILE_MAX {
        true => Ok(bytes),
        false => {
            let problem = format!("it is longer than 1 MiB; is it the right file? Correct the path in {setting}");
            Err(refuse(io::Error::new(ErrorKind::FileTooLarge, problem)))
        }
    }
}
