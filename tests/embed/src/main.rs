//! A server as somebody writes it who has read the documentation.

use std::error::Error;

use forkpool::{Builder, Counter, Event, IntoResponse, Metrics, Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    let metrics = Metrics::new();
    let doubled = metrics.counter("embed_doubled_total", "Numbers that were doubled.");
    let mut addresses = Vec::new();
    let pool = Pool::bind("127.0.0.1:8000").env().metrics(&metrics).on_event(move |event, _pool| match event {
        Event::Listening { addresses: found, .. } => addresses = found.to_vec(),
        Event::Serving => println!("serving {addresses:?}"),
        _ => {}
    });
    serve(pool, doubled)
}

#[cfg(not(feature = "hyper"))]
fn serve(pool: Builder, doubled: Counter) -> forkpool::Result<()> {
    pool.serve(move |request| answer(request, &doubled))
}

/// The same answers by axum.
#[cfg(feature = "hyper")]
fn serve(pool: Builder, doubled: Counter) -> forkpool::Result<()> {
    use axum::{extract::RawQuery, http::StatusCode, routing::get, Router};

    pool.serve_tower(|| {
        let double = async move |RawQuery(query): RawQuery| match double(query.as_deref()) {
            Ok(text) => {
                doubled.increment();
                (StatusCode::OK, text)
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        Router::new().route("/double", get(double))
    })
}

#[cfg_attr(feature = "hyper", allow(dead_code))]
fn answer(request: &Request<'_>, doubled: &Counter) -> Result<Response, Box<dyn Error>> {
    match request.path() {
        "/double" => {
            let text = double(request.query())?;
            doubled.increment();
            Ok(text.into_response())
        }
        #[cfg(feature = "serde")]
        "/json" => Ok(Response::json(&Page { path: request.path() })),
        #[cfg(feature = "http")]
        "/http" => Ok(http::Response::builder().status(201).body("made\n")?.into_response()),
        "/tls" => Ok(format!("{:?}\n", request.tls().map(|tls| tls.version())).into_response()),
        _ => Ok(Response::new(404)),
    }
}

fn double(query: Option<&str>) -> Result<String, Box<dyn Error>> {
    Ok(format!("{}\n", query.unwrap_or_default().parse::<u32>()? * 2))
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize)]
#[cfg_attr(feature = "hyper", allow(dead_code))]
struct Page<'a> {
    path: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Response {
        let metrics = Metrics::new();
        let doubled = metrics.counter("embed_doubled_total", "Numbers that were doubled.");
        answer(&Request::builder("GET", target).build(), &doubled).into_response()
    }

    #[test]
    fn a_handler_is_a_function() {
        assert_eq!(get("/double?21").body_bytes(), Some(&b"42\n"[..]));
        assert_eq!(get("/double?x").status_code(), 500);
        assert_eq!(get("/").status_code(), 404);
        assert_eq!(get("/tls").body_bytes(), Some(&b"None\n"[..]));
        #[cfg(feature = "serde")]
        assert_eq!(get("/json").body_bytes(), Some(&br#"{"path":"/json"}"#[..]));
        #[cfg(feature = "http")]
        assert_eq!(get("/http").status_code(), 201);
    }
}
