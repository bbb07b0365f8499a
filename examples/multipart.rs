//! cargo run --example multipart, then curl -F name=value -F file=@FILE http://127.0.0.1:8000/: forms with files of any
//! size, parsed by the crate multer while they arrive.

use std::io::{self, BufRead};
use std::{iter, thread};

use forkpool::{BodyReader, IntoResponse, Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().run(|worker| {
        worker.stream_bodies(|request| request.method() == "POST");
        worker.serve(answer)
    })
}

fn answer(request: &Request<'_>) -> Result<Response, (u16, String)> {
    let boundary = multer::parse_boundary(request.header("Content-Type").unwrap_or_default())
        .map_err(|error| (415, format!("{error}\n")))?;
    let (body, responder, response) = Response::read_body();
    // A busy service has a few threads instead, and a queue before them.
    thread::spawn(move || {
        let lengths = smol::block_on(lengths(body, boundary));
        responder.respond(lengths.map_err(|error| (400, format!("{error}\n"))).into_response());
    });
    Ok(response)
}

/// The length of each field.
async fn lengths(body: BodyReader, boundary: String) -> multer::Result<String> {
    let mut form = multer::Multipart::new(smol::stream::iter(pieces(body)), boundary);
    let mut lengths = String::new();
    while let Some(mut field) = form.next_field().await? {
        let mut length = 0;
        while let Some(piece) = field.chunk().await? {
            length += piece.len();
        }
        lengths += &format!("{}: {length} bytes\n", field.name().unwrap_or("(no name)"));
    }
    Ok(lengths)
}

fn pieces(mut body: BodyReader) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    iter::from_fn(move || {
        let piece = body.fill_buf().map(<[u8]>::to_vec);
        body.consume(piece.as_ref().map_or(0, Vec::len));
        piece.map(|piece| (!piece.is_empty()).then_some(piece)).transpose()
    })
}
