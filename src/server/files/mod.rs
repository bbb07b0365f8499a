//! A directory of files as a handler.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use nix::dir::Dir;
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::server::answer::file::{Opened, Representation};
use crate::server::answer::response::Response;
use crate::server::http::{is_value, media_type, preferred_codings, Coding, Request};
use crate::shared::config::{Rules, Symlinks};
use crate::sys::stat::Stat;

mod held;
mod listing;
mod name;
mod root;

use held::Held;
use listing::Entry;
use name::{Name, Unnamable};
use root::Root;

/// A directory of files as a handler: index files, ranges, conditional requests, precompressed siblings.
///
/// A request never reaches anything outside of the directory: the kernel resolves its path below a descriptor of the
/// directory (openat2(2), `RESOLVE_BENEATH`), symbolic links and renamings included. Names that begin with a dot are
/// not served, but for `/.well-known/`, and only directories and regular files are.
///
/// `app.js` is answered from `app.js.br`, `app.js.zst` or `app.js.gz`, by what the client accepts, when that is there
/// and not older than `app.js`.
///
/// Files may be replaced by renaming at any time: an answer that has begun is of the file that was there. One that is
/// written to in place is sent as it is by then, and one that is truncated ends the connection of an answer that has
/// promised more. Up to 32 files of at most 1 MiB that are asked for again stay open, and none is served by a name that
/// means it no more.
///
/// ```no_run
/// use forkpool::{Files, Pool, Response};
///
/// fn main() -> forkpool::Result<()> {
///     let files = Files::open("/srv/www")?.cache_control("max-age=600");
///     Pool::bind("127.0.0.1:8000").serve(|request| match request.path() {
///         "/time" => Response::text("now\n"),
///         _ => files.answer(request),
///     })
/// }
/// ```
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    root: Root,
    held: Held,
    rules: Rules,
}

/// Most entries that a listing shows: a worker does nothing else while it reads them.
const LISTED_MAX: usize = 10_000;

/// What is served for a directory.
const INDEX: &[u8] = b"index.html";

impl Files {
    /// Opens a directory to serve. The descriptor is kept: it may be opened before the fork, and serves the same
    /// directory when that is renamed or its path comes to mean another one; see [`reopen`](Files::reopen).
    ///
    /// # Errors
    ///
    /// When it cannot be opened, and when the kernel has no openat2(2) (before Linux 5.6) or a sandbox forbids it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Files> {
        Files::open_with(path.into(), Rules::default())
    }

    pub(crate) fn open_with(path: PathBuf, rules: Rules) -> Result<Files> {
        match Root::open(&path) {
            Ok(root) => Ok(Files { path, held: Held::new(root.as_fd()), root, rules }),
            Err(errno) => {
                Err(Error::File { path: path.display().to_string(), action: "serve files from", source: cause(errno) })
            }
        }
    }

    /// Opens the directory anew by its path. Done in each worker, a rolling restart serves what the path, or a
    /// symbolic link in it, means by then.
    ///
    /// # Errors
    ///
    /// As [`open`](Files::open).
    pub fn reopen(&self) -> Result<Files> {
        Files::open_with(self.path.clone(), self.rules.clone())
    }

    /// The directory above all that may be served.
    pub(crate) fn reach(&self) -> io::Result<OwnedFd> {
        match self.rules.symlinks {
            Symlinks::Anywhere => Ok(Root::open(Path::new("/"))?.into()),
            Symlinks::None | Symlinks::Inside => self.root.as_fd().try_clone_to_owned(),
        }
    }

    /// Which symbolic links are followed. Default [`Symlinks::Inside`].
    pub fn symlinks(mut self, symlinks: Symlinks) -> Files {
        self.rules.symlinks = symlinks;
        self
    }

    /// Whether files and directories whose names begin with a dot are served. Default `false`: they hold what is
    /// nobody's business, such as `.git` and `.env`.
    pub fn dotfiles(mut self, serve: bool) -> Files {
        self.rules.dotfiles = serve;
        self
    }

    /// Whether precompressed siblings are looked for. Default `true`; a request that accepts them then costs up to
    /// three system calls more, and all answers that may differ carry `Vary`.
    pub fn precompressed(mut self, look: bool) -> Files {
        self.rules.precompressed = look;
        self
    }

    /// Whether a directory without `index.html` is answered with a list of what is in it, at most 10 000 entries.
    /// Default `false`: 404.
    pub fn listing(mut self, list: bool) -> Files {
        self.rules.listing = list;
        self
    }

    /// Whether paths that name nothing, and have no dot in their last segment, are answered with `/index.html`: for an
    /// application in the browser that has paths of its own. Default `false`.
    pub fn spa(mut self, is: bool) -> Files {
        self.rules.spa = is;
        self
    }

    /// The value of Cache-Control (RFC 9111 section 5.2) in answers from files. Default: none, so that caches go by
    /// Last-Modified.
    ///
    /// # Panics
    ///
    /// When it is no valid field value.
    pub fn cache_control(mut self, value: &str) -> Files {
        assert!(is_value(value.as_bytes()), "{value:?} is no valid field value");
        self.rules.cache_control = Some(value.to_owned());
        self
    }

    /// Answers a GET or HEAD with the file that its path names, whole or in ranges, or with what keeps it from that:
    /// 304, 308 to add the slash of a directory, 400, 403, 404, 405, 412, 416, 503 when descriptors run out.
    pub fn answer(&self, request: &Request<'_>) -> Response {
        if !matches!(request.method(), "GET" | "HEAD") {
            return refusal(405).header("Allow", "GET, HEAD");
        }
        let named = Name::read(request.path()).map_err(|error| match error {
            Unnamable::Bad => 400,
            Unnamable::Nothing => 404,
        });
        named.and_then(|name| self.answer_named(request, &name)).unwrap_or_else(refusal)
    }

    /// The response, or the status that says why there is none.
    fn answer_named(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        if name.is_hidden() && !self.rules.dotfiles {
            return Err(404);
        }
        let answered = match name.is_directory() {
            true => self.directory(request, name),
            false => self.look_up(name.path()).map(|found| match found {
                Found::File(opened) => self.file(request, name.path(), opened),
                Found::Directory => redirect(request, name),
            }),
        };
        match answered {
            Err(404) if self.rules.spa && !name.has_dot() => self.index(request, INDEX),
            answered => answered,
        }
    }

    fn directory(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        match self.index(request, &name.join(INDEX)) {
            Err(404) if self.rules.listing => self.list(name),
            answered => answered,
        }
    }

    fn index(&self, request: &Request<'_>, path: &[u8]) -> Result<Response, u16> {
        match self.look_up(path)? {
            Found::File(opened) => Ok(self.file(request, path, opened)),
            Found::Directory => Err(404),
        }
    }

    fn look_up(&self, path: &[u8]) -> Result<Found, u16> {
        if let Some(opened) = self.held.find(self.root.as_fd(), path) {
            return Ok(Found::File(opened));
        }
        let file = self.root.read(path, self.rules.symlinks).map_err(|errno| status(errno, path))?;
        let stat = Stat::of(file.as_fd()).map_err(|_| 500_u16)?;
        if stat.is_file() {
            let opened = Arc::new(Opened::new(file, stat));
            self.held.offer(self.root.as_fd(), path, &opened);
            return Ok(Found::File(opened));
        }
        if stat.is_directory() {
            Ok(Found::Directory)
        } else {
            Err(404)
        }
    }

    /// Answers with a file, or with its precompressed sibling.
    fn file(&self, request: &Request<'_>, path: &[u8], opened: Arc<Opened>) -> Response {
        let content_type = media_type(path);
        let may_vary = self.rules.precompressed && !is_compressed(content_type);
        let sibling = if may_vary { self.sibling(request, path, &opened) } else { None };
        let (coding, opened) = sibling.map_or((None, opened), |(coding, sibling)| (Some(coding), sibling));
        let mut response = Response::of_file(request, opened, Representation { content_type, coding });
        if matches!(response.head.status, 200 | 206 | 304) {
            if may_vary {
                response.head.add_valid("Vary", "Accept-Encoding");
            }
            if let Some(value) = &self.rules.cache_control {
                response.head.add_valid("Cache-Control", value.trim_matches([' ', '\t']));
            }
        }
        response
    }

    /// The sibling in the coding that the client likes best, of those that are there and up to date.
    fn sibling(&self, request: &Request<'_>, path: &[u8], original: &Opened) -> Option<(Coding, Arc<Opened>)> {
        let mut accepted =
            request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Accept-Encoding")).peekable();
        accepted.peek()?;
        preferred_codings(accepted.map(|(_, value)| value)).into_iter().find_map(|coding| {
            let Ok(Found::File(sibling)) = self.look_up(&[path, suffix(coding)].concat()) else { return None };
            // To the second: tools that copy the time to the sibling may round it.
            (sibling.stat().modified.0 >= original.stat().modified.0).then_some((coding, sibling))
        })
    }

    fn list(&self, name: &Name<'_>) -> Result<Response, u16> {
        let failed = |errno| status(errno, name.path());
        let directory = self.root.read(name.path(), self.rules.symlinks).map_err(failed)?;
        let mut directory = Dir::from_fd(directory.into()).map_err(failed)?;
        let mut entries = Vec::new();
        for found in directory.iter() {
            let found = found.map_err(failed)?;
            let file_name = found.file_name().to_bytes();
            let is_hidden = file_name.starts_with(b".") && !self.rules.dotfiles;
            if is_hidden || matches!(file_name, b"." | b"..") {
                continue;
            }
            if entries.len() == LISTED_MAX {
                return Ok(listing(name, entries, true));
            }
            entries.extend(self.entry(name, file_name));
        }
        Ok(listing(name, entries, false))
    }

    /// What a request for it would find; `None` when that is nothing.
    fn entry(&self, directory: &Name<'_>, file_name: &[u8]) -> Option<Entry> {
        let found = self.root.look_at(&directory.join(file_name), self.rules.symlinks).ok()?;
        let metadata = found.metadata().ok()?;
        let len = match metadata.file_type() {
            kind if kind.is_file() => Some(metadata.len()),
            kind if kind.is_dir() => None,
            _ => return None,
        };
        Some(Entry { name: file_name.to_vec(), len, modified: metadata.modified().ok()? })
    }
}

enum Found {
    File(Arc<Opened>),
    Directory,
}

fn listing(name: &Name<'_>, entries: Vec<Entry>, is_cut: bool) -> Response {
    let shown = match &*name.shown() {
        "" => "/".to_owned(),
        shown => format!("/{shown}/"),
    };
    Response::html(listing::page(&shown, name.path().is_empty(), entries, is_cut))
        .header("Cache-Control", "no-cache")
        .header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
}

/// Sends the client to the directory's own URL, so that relative references in its index file lead into it.
fn redirect(request: &Request<'_>, name: &Name<'_>) -> Response {
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    Response::redirect(308, &(name.with_slash() + &query))
}

fn refusal(status: u16) -> Response {
    let reason = match status {
        400 => "the path is malformed\n",
        403 => "forbidden\n",
        404 => "not found\n",
        405 => "only GET and HEAD\n",
        503 => "busy\n",
        _ => "cannot be read\n",
    };
    Response::text(reason).status(status)
}

/// The status for what openat2(2) says about a path.
fn status(errno: Errno, path: &[u8]) -> u16 {
    match errno {
        // EXDEV: it leads out. ENXIO: a socket. EINVAL and EILSEQ: a name that the file system cannot have.
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP | Errno::EXDEV => 404,
        Errno::ENXIO | Errno::EINVAL | Errno::EILSEQ => 404,
        Errno::EACCES | Errno::EPERM => 403,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN => 503,
        _ => {
            warn!("cannot read {}: {errno}", path.escape_ascii());
            500
        }
    }
}

/// Why a directory cannot be served.
fn cause(errno: Errno) -> io::Error {
    let problem = match errno {
        Errno::ENOENT => "it does not exist; create it or choose another",
        Errno::ENOTDIR => "it is no directory; choose another",
        Errno::ENOSYS => "the kernel has no openat2(2), which keeps requests inside it; use Linux 5.6 or later",
        Errno::EPERM => {
            "a sandbox forbids openat2(2), which keeps requests inside it; allow that in its seccomp filter"
        }
        errno => return errno.into(),
    };
    io::Error::other(problem)
}

fn suffix(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Brotli => b".br",
        Coding::Zstandard => b".zst",
        Coding::Gzip => b".gz",
    }
}

/// Whether files of this type are compressed in themselves, so that nobody compresses them again.
fn is_compressed(content_type: &str) -> bool {
    match content_type.split_once('/') {
        Some(("image", kind)) => !matches!(kind, "svg+xml" | "bmp" | "vnd.microsoft.icon"),
        Some(("video" | "audio", _)) => true,
        Some(("font", kind)) => matches!(kind, "woff" | "woff2"),
        Some(("application", kind)) => {
            matches!(kind, "zip" | "gzip" | "zstd" | "x-brotli" | "x-bzip2" | "x-7z-compressed")
        }
        _ => false,
    }
}
