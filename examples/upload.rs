//! cargo run --example upload, then curl -T FILE http://127.0.0.1:8000/NAME: uploads of any size to disk, in constant
//! memory.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use forkpool::{Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().run(|worker| {
        worker.stream_bodies(|request| request.method() == "PUT");
        worker.serve(|request| match request.method() {
            "PUT" => upload(request).unwrap_or_else(|error| Response::text(format!("{error}\n")).status(500)),
            _ => Response::text("PUT\n").status(405).header("Allow", "PUT"),
        })
    })
}

fn upload(request: &Request<'_>) -> std::io::Result<Response> {
    let name = request.path().trim_start_matches('/');
    // A name and not a path, so it stays in the directory for uploads.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(Response::text("letters and digits, please\n").status(400));
    }
    let directory = std::env::var_os("UPLOADS").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut file = File::create(directory.join(name))?;
    let mut length = 0;
    Ok(Response::receive(move |piece| match piece.map(|piece| file.write_all(piece).map(|()| length += piece.len())) {
        Some(Ok(())) => None,
        Some(Err(error)) => Some(Response::text(format!("{error}\n")).status(507)),
        None => Some(Response::text(format!("{length} bytes\n")).status(201)),
    }))
}
