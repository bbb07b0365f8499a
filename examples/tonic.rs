//! cargo run --example tonic --features hyper: gRPC in each worker, here the health service of tonic.
//! grpcurl -plaintext -proto health.proto 127.0.0.1:8000 grpc.health.v1.Health/Check asks it.

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().serve_tower(|| {
        // Several services are a `tonic::service::Routes`.
        let (_reporter, health) = tonic_health::server::health_reporter();
        health
    })
}
