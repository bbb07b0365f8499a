//! Listings of directories.
//!
//! A worker does nothing else while it makes one, so the work is bounded: up to [`NAMES_MAX`] names are read, which
//! takes one system call for hundreds of them, and metadata is read for one page only.

use std::os::fd::AsFd;

use nix::dir::{Dir, Type};

use super::listing::{self, Entry, Page};
use super::name::Name;
use super::{status, Files};
use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::shared::config::Symlinks;
use crate::sys::stat::Stat;

/// The maximum number of names that are read.
const NAMES_MAX: usize = 10_000;

/// The number of names on a page.
const PAGE: usize = 1000;

/// A directory entry.
struct Found {
    kind: Option<Type>,
    name: std::ffi::CString,
}

impl Files {
    pub(super) fn list(&self, request: &Request<'_>, name: &Name<'_>) -> Result<Response, u16> {
        let failed = |errno| status(errno, name.path());
        let directory = self.root.read(name.path(), self.rules.symlinks).map_err(failed)?;
        let mut directory = Dir::from_fd(directory.into()).map_err(failed)?;
        let mut names = Vec::new();
        let mut is_cut = false;
        for found in directory.iter() {
            let found = found.map_err(failed)?;
            let (kind, file_name) = (found.file_type(), found.file_name());
            let is_hidden = file_name.to_bytes().starts_with(b".") && !self.rules.dotfiles;
            let may_be_served = matches!(kind, None | Some(Type::File | Type::Directory | Type::Symlink));
            if is_hidden || !may_be_served || matches!(file_name.to_bytes(), b"." | b"..") {
                continue;
            }
            is_cut = names.len() == NAMES_MAX;
            if is_cut {
                break;
            }
            names.push(Found { kind, name: file_name.to_owned() });
        }
        names.sort_unstable_by(|one, other| {
            let key = |found: &Found| found.kind != Some(Type::Directory);
            (key(one), &one.name).cmp(&(key(other), &other.name))
        });
        let pages = names.len().div_ceil(PAGE).max(1);
        let number = page_asked(request.query()).min(pages);
        let names = names.into_iter().skip((number - 1) * PAGE).take(PAGE);
        let entries = names.filter_map(|found| self.entry(&directory, name, &found)).collect();
        Ok(response(name, entries, &Page { number, pages, cut_at: is_cut.then_some(NAMES_MAX) }))
    }

    /// What a request for this name would find; `None` if that is nothing.
    fn entry(&self, directory: &Dir, above: &Name<'_>, Found { kind, name }: &Found) -> Option<Entry> {
        let path = || above.join(name.to_bytes());
        let stat = match kind {
            // If it has become a link since, a request for it will treat it as one.
            Some(Type::File | Type::Directory) => Stat::in_directory(directory.as_fd(), name).ok()?,
            Some(_) if self.rules.symlinks == Symlinks::None => return None,
            _ => Stat::of(self.root.look_at(&path(), self.rules.symlinks).ok()?.as_fd()).ok()?,
        };
        let len = match () {
            () if stat.is_file() => Some(stat.len),
            () if stat.is_directory() => None,
            () => return None,
        };
        Some(Entry { name: name.to_bytes().to_vec(), len, modified: stat.modified_time() })
    }
}

/// The page that a query asks for; by default the first.
fn page_asked(query: Option<&str>) -> usize {
    let pages = query.into_iter().flat_map(|query| query.split('&')).filter_map(|part| part.strip_prefix("page="));
    pages.filter_map(|page| page.parse().ok()).next().unwrap_or(1).max(1)
}

fn response(name: &Name<'_>, entries: Vec<Entry>, page: &Page) -> Response {
    let shown = match &*name.shown() {
        "" => "/".to_owned(),
        shown => format!("/{shown}/"),
    };
    Response::html(listing::page(&shown, name.path().is_empty(), entries, page))
        .header("Cache-Control", "no-cache")
        .header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
}
