//! Reads the files that settings of TLS name.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a file that `setting` names. `action` is for the error, as in "read the key in".
///
/// # Errors
///
/// [`Error::File`] with a remedy.
pub(super) fn read(file: &Path, action: &'static str, setting: &str) -> Result<Vec<u8>> {
    fs::read(file).map_err(|source| {
        let remedy = match source.kind() {
            ErrorKind::NotFound => format!("correct the path in {setting}"),
            ErrorKind::PermissionDenied => "let the user that starts the pool read it".to_owned(),
            ErrorKind::IsADirectory => format!("name a file in it in {setting}"),
            _ => format!("name another file in {setting}"),
        };
        let source = io::Error::new(source.kind(), format!("{source}; {remedy}"));
        Error::File { path: file.display().to_string(), action, source }
    })
}
