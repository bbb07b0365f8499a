//! Header fields by path, and responses to OPTIONS.

use super::{Files, METHODS};
use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::shared::config::HeaderRule;

impl Files {
    /// Adds the fields of a path to a response that has no contents of a file.
    pub(super) fn with_fields(&self, mut response: Response, path: &[u8]) -> Response {
        self.add_fields(&mut response, || path.to_vec(), false);
        response
    }

    /// Adds the fields of a path.
    pub(super) fn add_fields(&self, response: &mut Response, path: impl FnOnce() -> Vec<u8>, is_content: bool) {
        let rules = match self.rules.headers.is_empty() {
            true => Vec::new(),
            false => self.fields_of(&path()),
        };
        let is_of_content = |rule: &HeaderRule| rule.is_named("Cache-Control") || rule.is_named("Expires");
        if let Some(value) = self.rules.cache_control.as_ref().filter(|_| is_content) {
            if !rules.iter().any(|rule| rule.is_named("Cache-Control")) {
                response.head.add_valid("Cache-Control", value.trim_matches([' ', '\t']));
            }
        }
        for rule in rules {
            if !rule.value.is_empty() && (is_content || !is_of_content(rule)) {
                response.head.add_valid(&rule.name, &rule.value);
            }
        }
    }

    /// The rules that apply; of several for one name, the last.
    fn fields_of(&self, path: &[u8]) -> Vec<&HeaderRule> {
        let mut found: Vec<&HeaderRule> = Vec::new();
        for rule in self.rules.headers.iter().filter(|rule| rule.applies(path)) {
            found.retain(|earlier| !earlier.is_named(&rule.name));
            found.push(rule);
        }
        found
    }

    /// The allowed methods; for a page of another origin, also whether it may make a request (the Fetch standard,
    /// "CORS-preflight fetch").
    pub(super) fn options(&self, request: &Request<'_>, path: &[u8]) -> Response {
        let mut response = self.with_fields(Response::new(204).header("Allow", METHODS), path);
        let rules = self.fields_of(path);
        let says = |name: &str| rules.iter().any(|rule| rule.is_named(name) && !rule.value.is_empty());
        let is_preflight = request.header("Origin").and(request.header("Access-Control-Request-Method")).is_some();
        if !is_preflight || !says("Access-Control-Allow-Origin") {
            return response;
        }
        if !says("Access-Control-Allow-Methods") {
            response.head.add_valid("Access-Control-Allow-Methods", "GET, HEAD");
        }
        if let Some(asked) = request.header("Access-Control-Request-Headers") {
            if !says("Access-Control-Allow-Headers") {
                // They have no effect here, whatever they are.
                response = match response.try_header("Access-Control-Allow-Headers", asked) {
                    Ok(response) => response.header("Vary", "Access-Control-Request-Headers"),
                    Err(_) => return super::refusal(400),
                };
            }
        }
        response
    }
}
