//! Redirects from HTTP to HTTPS.

use crate::server::answer::response::Response;
use crate::server::http::Request;

/// Certificate authorities check names below this path, without TLS.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Redirects a request that came without TLS to the port of HTTPS.
pub(crate) fn redirect(request: &Request<'_>, port: u16) -> Option<Response> {
    if request.scheme() == "https" || request.path().starts_with(CHALLENGES) {
        return None;
    }
    let Some(host) = request.host().filter(|host| !host.is_empty()) else { return Some(Response::new(400)) };
    let end = host.rfind(':').filter(|colon| !host[*colon..].contains(']')).unwrap_or(host.len());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = request.path();
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("https://{}{port}{path}{query}", &host[..end]);
    Some(Response::new(308).header("Location", &location))
}
