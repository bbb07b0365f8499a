//! Services of the tower ecosystem (feature `hyper`).

use std::error::Error as StdError;

use http_body::Body;
use hyper::body::Incoming;
use tower_service::Service;

use super::Builder;
use crate::error::Result;

impl Builder {
    /// Runs the pool with a tower service, such as an axum `Router`, in each worker, until it is asked to stop; see
    /// [`Worker::serve_tower`](crate::Worker::serve_tower). Feature `hyper`.
    ///
    /// ```no_run
    /// use axum::{routing::get, Router};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     forkpool::Pool::bind("127.0.0.1:8000").serve_tower(|| Router::new().route("/", get("hello world\n")))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Builder::run).
    pub fn serve_tower<S, B>(self, make: impl FnOnce() -> S) -> Result<()>
    where
        S: Service<http::Request<Incoming>, Response = http::Response<B>> + Clone + 'static,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        S::Future: 'static,
        B: Body + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.run(|worker| worker.serve_tower(make))
    }
}
