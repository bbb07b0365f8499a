//! A directory of files as a handler.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::server::answer::file::{Opened, Representation};
use crate::server::answer::response::Response;
use crate::server::http::{extension, is_value, media_type, preferred_codings, Coding, Request};
use crate::shared::config::{Rules, Symlinks};
use crate::sys::stat::Stat;

mod accept;
mod directory;
mod fields;
mod listing;
mod name;
mod open_files;
mod prefix;
mod root;

use name::{Malformed, Name};
use open_files::OpenFiles;
use prefix::Below;
use root::Root;

/// A directory of files as a handler: index files, ranges, conditional requests, precompressed siblings.
///
/// A request never reaches anything outside of the directory: the kernel resolves its path below a descriptor of the
/// directory (openat2(2), `RESOLVE_BENEATH`), including symbolic links and renames. Only directories and regular files
/// are served. Names that begin with a dot are not, except `/.well-known/`.
///
/// `/about` is served from `about.html` if there is no file with that name. For missing files, `/404.html` is sent if
/// it exists. Empty segments of a path are ignored: `//a` means `/a`.
///
/// `app.js` is served from `app.js.br`, `app.js.zst` or `app.js.gz`, depending on what the client accepts, if that file
/// exists and is not older than `app.js`.
///
/// Files can be replaced by renaming at any time: a response that has begun sends the old file. A file that is modified
/// in place is sent as it is at the time of sending, and a file that becomes shorter ends the connection of a response
/// that has announced more. Up to 32 files of at most 1 MiB that are requested repeatedly stay open; each is served
/// only while its name leads to it.
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
    open_files: OpenFiles,
    rules: Rules,
    /// Without a final slash.
    prefix: String,
}

/// Served for a directory.
const INDEX: &[u8] = b"index.html";

/// Served with 404.
const NOT_FOUND: &[u8] = b"404.html";

/// The allowed methods.
const METHODS: &str = "GET, HEAD, OPTIONS";

impl Files {
    /// Opens a directory to serve. The descriptor stays open, so it can be opened before the fork. It serves the same
    /// directory even if the directory is renamed or its path leads to another one; see [`reopen`](Files::reopen).
    ///
    /// # Errors
    ///
    /// If the directory cannot be opened, or the kernel has no openat2(2) (before Linux 5.6), or a sandbox forbids it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Files> {
        Files::open_with(path.into(), Rules::default())
    }

    pub(crate) fn open_with(path: PathBuf, rules: Rules) -> Result<Files> {
        match Root::open(&path) {
            Ok(root) => {
                Ok(Files { path, open_files: OpenFiles::new(root.as_fd()), root, rules, prefix: String::new() })
            }
            Err(errno) => {
                Err(Error::File { path: path.display().to_string(), action: "serve files from", source: cause(errno) })
            }
        }
    }

    /// Opens the directory again by its path. If each worker does this, a rolling restart serves the directory to which
    /// the path, or a symbolic link in it, leads then.
    ///
    /// # Errors
    ///
    /// As [`open`](Files::open).
    pub fn reopen(&self) -> Result<Files> {
        let files = Files::open_with(self.path.clone(), self.rules.clone())?;
        Ok(Files { prefix: self.prefix.clone(), ..files })
    }

    /// A directory above everything that may be served.
    pub(crate) fn reach(&self) -> io::Result<OwnedFd> {
        match self.rules.symlinks {
            Symlinks::Anywhere => Ok(Root::open(Path::new("/"))?.into()),
            Symlinks::None | Symlinks::Inside => self.root.as_fd().try_clone_to_owned(),
        }
    }

    /// Serves the files below this path instead of `/`: with `/static`, a request for `/static/app.js` gets `app.js`,
    /// one for `/static` is redirected to `/static/`, and all others get 404. Default: none. Rules of
    /// [`header`](Files::header) are matched against the rest of the path.
    ///
    /// ```no_run
    /// # use forkpool::{Files, Pool, Response};
    /// # fn main() -> forkpool::Result<()> {
    /// let files = Files::open("/srv/www")?.prefix("/static");
    /// Pool::bind("127.0.0.1:8000").serve(|request| match request.path() {
    ///     "/" => Response::html("<script src=/static/app.js></script>"),
    ///     _ => files.answer(request),
    /// })
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If it does not begin with a slash.
    pub fn prefix(mut self, path: &str) -> Files {
        assert!(path.starts_with('/'), "the prefix {path:?} must begin with a slash");
        self.prefix = path.trim_end_matches('/').to_owned();
        self
    }

    /// Sets which symbolic links are followed. Default [`Symlinks::Inside`].
    pub fn symlinks(mut self, symlinks: Symlinks) -> Files {
        self.rules.symlinks = symlinks;
        self
    }

    /// Sets whether files and directories whose names begin with a dot are served. Default `false`, since they may be
    /// private, like `.git` and `.env`.
    pub fn dotfiles(mut self, serve: bool) -> Files {
        self.rules.dotfiles = serve;
        self
    }

    /// Sets whether to look for precompressed siblings. Default `true`. A request that accepts them then takes up to
    /// three more system calls, and all responses that may differ carry `Vary`.
    pub fn precompressed(mut self, look: bool) -> Files {
        self.rules.precompressed = look;
        self
    }

    /// Sets whether a directory without `index.html` is listed, in pages of 1000 entries, up to 10 000. Default
    /// `false`: 404.
    pub fn listing(mut self, list: bool) -> Files {
        self.rules.listing = list;
        self
    }

    /// Sets whether `/index.html` is served for paths that name no file, for a single-page application. Default
    /// `false`. This applies to requests for pages (`Accept: text/html`, as browsers send when they navigate), and to
    /// paths without a dot in their last segment unless Accept excludes HTML.
    pub fn spa(mut self, is: bool) -> Files {
        self.rules.spa = is;
        self
    }

    /// Sets the value of Cache-Control (RFC 9111 section 5.2) in responses from files. Default: none, so that caches
    /// use Last-Modified.
    ///
    /// # Panics
    ///
    /// If it is not a valid field value.
    pub fn cache_control(mut self, value: &str) -> Files {
        assert!(is_value(value.as_bytes()), "{value:?} is no valid field value");
        self.rules.cache_control = Some(value.to_owned());
        self
    }

    /// Adds a header field to responses, in the form `[/PATTERN] NAME: VALUE`. Default: none.
    ///
    /// The pattern is matched against the path of the served file below the directory. If no file is served (an error,
    /// a redirect, a listing), it is matched against the decoded path of the request. `*` matches any characters. If
    /// several rules for the same name match, the last one applies, and an empty value omits the field. Cache-Control
    /// and Expires are only sent with the contents of files. `Access-Control-Allow-Origin` also enables responses to
    /// preflight requests: OPTIONS then allows GET and HEAD with the fields that the client asks for.
    ///
    /// ```no_run
    /// # fn main() -> forkpool::Result<()> {
    /// let files = forkpool::Files::open("/srv/www")?
    ///     .cache_control("no-cache")
    ///     .header("/assets/* Cache-Control: max-age=31536000, immutable")
    ///     .header("/*.woff2 Access-Control-Allow-Origin: *");
    /// # drop(files);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the rule cannot be parsed, names a field that the server sets itself, or has a value that is not visible
    /// ASCII.
    pub fn header(mut self, rule: &str) -> Files {
        match rule.parse() {
            Ok(parsed) => self.rules.headers.push(parsed),
            Err(problem) => panic!("{rule:?} {problem}"),
        }
        self
    }

    /// Adds a media type in the form `EXTENSION=TYPE`, for files whose names have that extension, or consist of it.
    /// Default: only the built-in types. HTML and CSS are sent without a charset, since they may declare it themselves;
    /// `html=text/html; charset=utf-8` adds one.
    ///
    /// # Panics
    ///
    /// If the rule cannot be parsed.
    pub fn media_type(mut self, rule: &str) -> Files {
        match rule.parse() {
            Ok(parsed) => self.rules.types.push(parsed),
            Err(problem) => panic!("{rule:?} {problem}"),
        }
        self
    }

    /// Responds to a GET or HEAD with the file that its path names, whole or in ranges. Otherwise responds with 302 to
    /// add the slash of a directory, 304, 400, 403, 404, 405, 412, 416, or 503 if no descriptor is free. Responds to
    /// OPTIONS with 204.
    pub fn answer(&self, request: &Request<'_>) -> Response {
        let path = match prefix::below(&self.prefix, request.path()) {
            Below::Path(path) => path,
            Below::Itself(slash) => return redirect(request, &slash),
            Below::Elsewhere => return refusal(404),
        };
        let name = Name::read(path);
        let path = || name.as_ref().map(Name::rooted).unwrap_or_default();
        match (request.method(), &name) {
            ("GET" | "HEAD", Ok(name)) => self.answer_named(request, name).unwrap_or_else(|status| match status {
                404 => self.nothing(request, &path()),
                status => self.with_fields(refusal(status), &path()),
            }),
            ("GET" | "HEAD", Err(Malformed)) => self.with_fields(refusal(400), &path()),
            ("OPTIONS", _) => self.options(request, &path()),
            _ => self.with_fields(refusal(405).header("Allow", METHODS), &path()),
        }
    }

    /// The response, or the status that says why there is none.
    fn answer_named(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        if name.is_hidden() && !self.rules.dotfiles {
            return Err(404);
        }
        let answered = match name.is_directory() {
            true => self.directory(request, name),
            false => self.named_file(request, name),
        };
        match answered {
            Err(404) if self.rules.spa => self.page(request, name),
            answered => answered,
        }
    }

    /// A path without a final slash: a file, the file with `.html` added, or a directory.
    fn named_file(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        let found = self.look_up(name.path());
        match found {
            Ok(Found::File(opened)) => Ok(self.file(request, name.path(), opened)),
            Ok(Found::Directory) | Err(404) => match (self.index(request, &[name.path(), b".html"].concat()), found) {
                (Err(404), Ok(_)) => Ok(self.with_fields(redirect(request, &name.slash()), &name.rooted())),
                (answered, _) => answered,
            },
            Err(status) => Err(status),
        }
    }

    /// A page of a single-page application, or 404.
    fn page(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        let is_page = match accept::page(request) {
            accept::Page::Wanted => true,
            accept::Page::Unsaid => !name.has_dot(),
            accept::Page::Unwanted => false,
        };
        let answered = if is_page { self.index(request, INDEX) } else { Err(404) };
        let response = match answered {
            Err(404) => self.nothing(request, &name.rooted()),
            answered => answered?,
        };
        Ok(response.header("Vary", "Accept"))
    }

    /// A 404 response with its page, if there is one.
    fn nothing(&self, request: &Request<'_>, path: &[u8]) -> Response {
        let page = match self.look_up(NOT_FOUND) {
            Ok(Found::File(opened)) => {
                let (opened, representation, may_vary) = self.represented(request, NOT_FOUND, opened);
                let mut response = Response::of_whole_file(404, opened, representation);
                if may_vary {
                    response.head.add_valid("Vary", "Accept-Encoding");
                }
                response
            }
            _ => refusal(404),
        };
        self.with_fields(page, path)
    }

    fn directory(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        match self.index(request, &name.join(INDEX)) {
            Err(404) if self.rules.listing => {
                self.list(request, name).map(|list| self.with_fields(list, &name.rooted()))
            }
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
        if let Some(opened) = self.open_files.find(self.root.as_fd(), path) {
            return Ok(Found::File(opened));
        }
        let mut read = self.root.read(path, self.rules.symlinks);
        if matches!(read, Err(Errno::EMFILE | Errno::ENFILE)) && self.open_files.let_go() {
            read = self.root.read(path, self.rules.symlinks);
        }
        let file = read.map_err(|errno| status(errno, path))?;
        let stat = Stat::of(file.as_fd()).map_err(|_| 500_u16)?;
        if stat.is_file() {
            let opened = Arc::new(Opened::new(file, stat));
            self.open_files.offer(self.root.as_fd(), path, &opened);
            return Ok(Found::File(opened));
        }
        if stat.is_directory() {
            Ok(Found::Directory)
        } else {
            Err(404)
        }
    }

    /// Responds with a file, or with its precompressed sibling.
    fn file(&self, request: &Request<'_>, path: &[u8], opened: Arc<Opened>) -> Response {
        let (opened, representation, may_vary) = self.represented(request, path, opened);
        let mut response = Response::of_file(request, opened, representation);
        let is_content = matches!(response.head.status, 200 | 206 | 304);
        if is_content && may_vary {
            response.head.add_valid("Vary", "Accept-Encoding");
        }
        self.add_fields(&mut response, || [b"/", path].concat(), is_content);
        response
    }

    /// The file to send, and whether the choice depends on Accept-Encoding.
    fn represented(
        &self,
        request: &Request<'_>,
        path: &[u8],
        opened: Arc<Opened>,
    ) -> (Arc<Opened>, Representation, bool) {
        let content_type = self.content_type(path);
        if extension(path).is_ok_and(|extension| extension.eq_ignore_ascii_case(b"svgz")) {
            // The media type is that of the decoded contents.
            return (opened, Representation { content_type, coding: Some(Coding::Gzip) }, false);
        }
        let may_vary = self.rules.precompressed && !is_compressed(&content_type);
        let sibling = if may_vary { self.sibling(request, path, &opened) } else { None };
        let (coding, opened) = sibling.map_or((None, opened), |(coding, sibling)| (Some(coding), sibling));
        (opened, Representation { content_type, coding }, may_vary)
    }

    fn content_type(&self, path: &[u8]) -> Cow<'static, str> {
        let said = self.rules.types.iter().rev().find(|rule| {
            let (Ok(key) | Err(key)) = extension(path);
            key.eq_ignore_ascii_case(rule.extension.as_bytes())
        });
        said.map_or_else(|| media_type(path).into(), |rule| rule.media_type.clone().into())
    }

    /// The sibling with the coding that the client prefers, among those that exist and are up to date.
    fn sibling(&self, request: &Request<'_>, path: &[u8], original: &Opened) -> Option<(Coding, Arc<Opened>)> {
        let mut accepted =
            request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Accept-Encoding")).peekable();
        accepted.peek()?;
        preferred_codings(accepted.map(|(_, value)| value)).into_iter().find_map(|coding| {
            let Ok(Found::File(sibling)) = self.look_up(&[path, suffix(coding)].concat()) else { return None };
            is_current(sibling.stat().modified, original.stat().modified).then_some((coding, sibling))
        })
    }
}

/// Whether a file made from an original is not older than it. Tools that copy the time of the original may only keep
/// seconds or milliseconds.
fn is_current(made: (i64, u32), original: (i64, u32)) -> bool {
    let is_cut = |unit: u32| made.1 % unit == 0 && (made.0, made.1 / unit) == (original.0, original.1 / unit);
    made >= original || [1_000_000_000, 1_000_000, 1000, 100].into_iter().any(is_cut)
}

enum Found {
    File(Arc<Opened>),
    Directory,
}

/// Redirects to the directory's own URL, so that relative references in its index file lead into it.
fn redirect(request: &Request<'_>, slash: &str) -> Response {
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Temporary, since the name may belong to a file tomorrow. Clients older than 308 follow this one, too.
    Response::redirect(302, &(slash.to_owned() + &query))
}

fn refusal(status: u16) -> Response {
    let reason = match status {
        400 => "the path is malformed\n",
        403 => "forbidden\n",
        404 => "not found\n",
        405 => "only GET, HEAD and OPTIONS\n",
        503 => "busy\n",
        _ => "cannot be read\n",
    };
    Response::text(reason).status(status)
}

/// The status for an error of openat2(2).
fn status(errno: Errno, path: &[u8]) -> u16 {
    match errno {
        // EXDEV: leads out of the root. ENXIO: a socket. EINVAL and EILSEQ: a name that the file system cannot have.
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

/// Whether files of this type are already compressed, so compressing them again is useless.
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
