//! cargo run --example tested: a handler with unit tests below, and a line that tells a test of the whole pool its
//! address. cargo test --example tested runs the tests; tests/examples.rs has the one of the pool.

use std::num::ParseIntError;

use forkpool::{Event, IntoResponse, Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    let mut addresses = Vec::new();
    Pool::bind("127.0.0.1:8000")
        .env()
        .on_event(move |event, _pool| match event {
            Event::Listening { addresses: found, .. } => addresses = found.to_vec(),
            Event::Serving => println!("serving {addresses:?}"),
            _ => {}
        })
        .serve(add)
}

enum Failure {
    NoSuchPage,
    NoNumber(ParseIntError),
}

impl From<ParseIntError> for Failure {
    fn from(error: ParseIntError) -> Failure {
        Failure::NoNumber(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::NoSuchPage => (404, "no such page\n").into_response(),
            Failure::NoNumber(error) => (400, format!("{error}\n")).into_response(),
        }
    }
}

/// /add?3&4
fn add(request: &Request<'_>) -> Result<String, Failure> {
    if request.path() != "/add" {
        return Err(Failure::NoSuchPage);
    }
    let mut sum = 0;
    for (number, _) in request.query_pairs() {
        sum += number.parse::<u32>()?;
    }
    Ok(format!("{sum}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Response {
        add(&Request::builder("GET", target).build()).into_response()
    }

    #[test]
    fn numbers_are_added() {
        assert_eq!(get("/add?3&4").body_bytes(), Some(&b"7\n"[..]));
        assert_eq!(get("/add").body_bytes(), Some(&b"0\n"[..]));
    }

    #[test]
    fn mistakes_are_the_clients() {
        assert_eq!(get("/add?three").status_code(), 400);
        assert_eq!(get("/").status_code(), 404);
    }
}
