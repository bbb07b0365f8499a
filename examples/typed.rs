//! cargo run --features serde --example typed: workers report what they have done as values, and get orders.

use forkpool::{decode, Event, Pool};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
enum Report {
    Hello { worker: usize },
    Squared { number: u64, square: u64 },
}

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    number: u64,
}

fn main() -> forkpool::Result<()> {
    let hook = |event: &Event<'_>, pool: &forkpool::Handle<'_>| {
        let Event::Message { process, message, .. } = event else { return };
        match decode(message) {
            Ok(Report::Hello { worker }) => {
                println!("worker {worker} is there");
                if let Err(error) = pool.send_typed(*process, &Order { number: 12 }) {
                    println!("not sent: {error}");
                }
            }
            Ok(Report::Squared { number, square }) => {
                println!("{number} * {number} = {square}");
                pool.stop();
            }
            Err(error) => println!("not understood: {error}"),
        }
    };
    Pool::bind("127.0.0.1:0").workers(1).on_event(hook).run(|worker| -> Result<(), Box<dyn std::error::Error>> {
        let sender = worker.sender();
        worker.on_message(move |message| match decode::<Order>(message) {
            Ok(Order { number }) => {
                sender.send_typed(&Report::Squared { number, square: number * number }).expect("there is room");
            }
            Err(error) => println!("not understood: {error}"),
        });
        worker.send(b"nonsense")?;
        // A message has at most 64 KiB.
        println!("not sent: {}", worker.send_typed(&vec![0; 100_000]).expect_err("it is too large"));
        worker.send_typed(&Report::Hello { worker: worker.id() })?;
        Ok(worker.serve(|_request| forkpool::Response::new(404))?)
    })
}
