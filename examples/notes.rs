//! cargo run --example notes: routes, JSON and SQLite. Try
//! curl 127.0.0.1:8000/notes -d '{"text":"buy milk"}' and curl 127.0.0.1:8000/notes/1

use std::time::Duration;

use forkpool::{Pool, Request, Response};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{json, Value};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Route = fn(&Connection, &Request<'_>, Option<&str>) -> Result<Response>;

fn main() -> Result<()> {
    let path = std::env::var("NOTES").unwrap_or_else(|_| "notes.db".to_owned());
    // Closed again before the fork, since SQLite forbids using a connection across a fork: each worker opens its own.
    Connection::open(&path)?.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)",
    )?;
    Pool::bind("127.0.0.1:8000").env().run(|worker| -> Result<()> {
        let database = Connection::open(&path)?;
        database.busy_timeout(Duration::from_secs(5))?;
        let mut routes = matchit::Router::<Route>::new();
        routes.insert("/notes", notes)?;
        routes.insert("/notes/{id}", note)?;
        Ok(worker.serve(|request| match routes.at(request.path()) {
            Ok(found) => (found.value)(&database, request, found.params.get("id")).unwrap_or_else(|error| {
                Response::json_text(json!({ "error": error.to_string() }).to_string()).status(400)
            }),
            Err(_) => Response::text("no such page\n").status(404),
        })?)
    })?;
    Ok(())
}

fn notes(database: &Connection, request: &Request<'_>, _id: Option<&str>) -> Result<Response> {
    if request.method() != "POST" {
        let count: i64 = database.query_row("SELECT count(*) FROM notes", (), |row| row.get(0))?;
        return Ok(Response::json_text(json!({ "count": count }).to_string()));
    }
    let note: Value = serde_json::from_slice(request.body())?;
    let text = note["text"].as_str().ok_or("a note has a text")?;
    database.execute("INSERT INTO notes (text) VALUES (?1)", [text])?;
    Ok(Response::json_text(json!({ "id": database.last_insert_rowid() }).to_string()).status(201))
}

fn note(database: &Connection, _request: &Request<'_>, id: Option<&str>) -> Result<Response> {
    let id: i64 = id.unwrap_or_default().parse()?;
    let found =
        database.query_row("SELECT text FROM notes WHERE id = ?1", [id], |row| row.get::<_, String>(0)).optional()?;
    Ok(match found {
        Some(text) => Response::json_text(json!({ "id": id, "text": text }).to_string()),
        None => Response::text("no such note\n").status(404),
    })
}
