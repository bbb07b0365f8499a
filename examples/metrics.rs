//! cargo run --example metrics, then curl http://127.0.0.1:8000/book and http://127.0.0.1:9000/metrics: the
//! application's own metrics, summed over all workers.

use std::process;
use std::time::Instant;

use forkpool::{Metrics, Pool, Response};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // Registered before the fork, so that all processes agree about them.
    let metrics = Metrics::new();
    let orders = |kind| metrics.counter_with("shop_orders_total", "Orders placed.", &[("kind", kind)]);
    let (books, records) = (orders("book"), orders("record"));
    let workers = metrics.gauge("shop_workers", "Workers that take orders.");
    let seconds = metrics.histogram("shop_order_seconds", "Time to place an order.", &[0.001, 0.01, 0.1, 1.0]);
    Pool::bind("127.0.0.1:8000").admin("127.0.0.1:9000").env().metrics(&metrics).run(|worker| {
        workers.set(1.0);
        worker.serve(|request| {
            let began = Instant::now();
            match request.path() {
                "/book" => books.increment(),
                "/record" => records.increment(),
                _ => return Response::new(404),
            }
            seconds.observe(began.elapsed().as_secs_f64());
            Response::text("ordered\n").header("X-Pid", &process::id().to_string())
        })
    })
}
