//! Limits and timeouts of the built-in server.

use std::time::Duration;

use super::Builder;

impl Builder {
    /// Sets the maximum size of a request target in bytes; a longer one gets 414. Default 8 KiB. RFC 9112 section 3
    /// recommends at least 8000 bytes.
    pub fn max_target(self, bytes: usize) -> Builder {
        self.put("max-target", |config| config.server.limits.target = bytes)
    }

    /// Sets the maximum size of a request head in bytes, from the method to the empty line; a larger one gets 431.
    /// Default 16 KiB: twice what common browsers and proxies send at most, and small enough to hold for each slow
    /// client.
    pub fn max_head(self, bytes: usize) -> Builder {
        self.put("max-head", |config| config.server.limits.head = bytes)
    }

    /// Sets the maximum number of header fields in a request, 1 to 128; a request with more gets 431. Default 100, as
    /// in Apache.
    pub fn max_fields(self, count: usize) -> Builder {
        self.put("max-fields", |config| config.server.limits.fields = count)
    }

    /// Sets whether the query of a request target may hold UTF-8 that is not percent-encoded, as curl sends it. Default
    /// `true`. [`Request::query`](crate::Request::query) may then return more than ASCII; the path never does.
    pub fn utf8_query(self, accept: bool) -> Builder {
        self.put("utf8-query", |config| config.server.limits.utf8_query = accept)
    }

    /// Sets the maximum size of a request body in bytes; a larger one gets 413. Bodies are held in memory. Default 1
    /// MiB; zero refuses bodies.
    pub fn max_body(self, bytes: usize) -> Builder {
        self.put("max-body", |config| config.server.limits.body = bytes)
    }

    /// Closes a connection after this many requests, so that clients spread over the workers again. Default 0, no
    /// limit: kept connections are the cheapest.
    pub fn max_requests_per_connection(self, count: u64) -> Builder {
        self.put("max-requests-per-connection", |config| config.server.limits.requests = count)
    }

    /// Sets how many pipelined requests of one connection are answered before other connections are served. Default 64:
    /// a few milliseconds of work for most handlers, and enough for one send to carry many responses.
    pub fn max_pipelined(self, count: usize) -> Builder {
        self.put("max-pipelined", |config| config.server.capacity.max_pipelined = count)
    }

    /// Sets the maximum number of open connections per worker. Default 0, as many as there are file descriptors.
    ///
    /// At the limit, the connection that has been idle longest is closed to make room for a new one. Connections with a
    /// request in progress stay; if all have one, new connections wait.
    pub fn max_connections(self, count: usize) -> Builder {
        self.put("max-connections", |config| config.server.capacity.max_connections = count)
    }

    /// Sets how many bytes of unread responses are buffered for one client. Default 256 KiB: more than most clients can
    /// receive in a round trip. Beyond it, no more requests of that client are read.
    pub fn max_output(self, bytes: usize) -> Builder {
        self.put("max-output", |config| config.server.capacity.max_output = bytes)
    }

    /// Sets how many bytes each worker may use for incomplete requests and unread responses. Default 64 MiB. At least
    /// [`max_body`](Builder::max_body); 0 sets no limit.
    ///
    /// At the limit, a request that would have to be stored in part gets 503, and bodies on their way are not read;
    /// requests that arrive whole are served as usual. After 5 s at the limit, the slowest clients get 408 and those
    /// that do not read their response are reset. If none is slow, the oldest of those that wait get 503. One body that
    /// others wait for may exceed the limit by an eighth.
    pub fn max_held(self, bytes: usize) -> Builder {
        self.put("max-held", |config| config.server.capacity.max_held = bytes)
    }

    /// Sets how long a client may take to send a request head. Default 10 s: several retransmissions on a bad line.
    pub fn head_timeout(self, timeout: Duration) -> Builder {
        self.put("head-timeout", |config| config.server.timeouts.head = timeout)
    }

    /// Sets how long a client may pause while it sends a body. Default 60 s, as in nginx: clients that limit their rate
    /// send in bursts. There is no limit on how long a whole upload may take.
    pub fn body_timeout(self, timeout: Duration) -> Builder {
        self.put("body-timeout", |config| config.server.timeouts.body = timeout)
    }

    /// Sets how many bytes per second a client must send of a body, on average over
    /// [`body_timeout`](Builder::body_timeout); a slower one gets 408. Default 500, as in Apache: slower than any line,
    /// but too fast for a client that sends a byte now and then to occupy a connection for ever. 0 sets no minimum.
    /// Time in which the worker does not read does not count.
    ///
    /// The same minimum applies to how fast a client reads a response, on average over
    /// [`write_timeout`](Builder::write_timeout); the connection of a slower client is closed.
    ///
    /// Heads have no minimum rate, since [`head_timeout`](Builder::head_timeout) limits the time for the whole head.
    pub fn min_rate(self, bytes: usize) -> Builder {
        self.put("min-rate", |config| config.server.timeouts.min_rate = bytes)
    }

    /// Sets how long a connection may be idle between requests. Default 75 s: longer than the 60 s of common proxies,
    /// so that they close first.
    pub fn idle_timeout(self, timeout: Duration) -> Builder {
        self.put("idle-timeout", |config| config.server.timeouts.idle = timeout)
    }

    /// Sets over how long a worker that drains closes its idle connections, one after the other, so that not all
    /// clients reconnect at once; at most half of the [`drain_timeout`](Builder::drain_timeout). Default 800 ms, so
    /// that a pool with only idle connections stops within a second. Connections that other processes take over, as in
    /// a restart, are not closed.
    pub fn drain_spread(self, time: Duration) -> Builder {
        self.put("drain-spread", |config| config.server.timeouts.drain_spread = time)
    }

    /// Sets how long a client may go without reading any of a pending response, including what the kernel buffers.
    /// Default 360 s, as in lighttpd: players and downloads that limit their rate read megabytes at once and then pause
    /// for minutes.
    pub fn write_timeout(self, timeout: Duration) -> Builder {
        self.put("write-timeout", |config| config.server.timeouts.write = timeout)
    }

    /// Sets how long the application may take for a [deferred](crate::Response::deferred) response that has no timeout
    /// of its own; then the client gets 504. Default 300 s, so that a forgotten response does not keep its connection
    /// open for ever.
    pub fn answer_timeout(self, timeout: Duration) -> Builder {
        self.put("answer-timeout", |config| config.server.timeouts.answer = timeout)
    }

    /// Sets after how much silence the kernel probes whether a TCP client is still there (`SO_KEEPALIVE` in socket(7)).
    /// If the client does not answer for as long again, the connection is closed. This ends connections that have no
    /// timeout, such as streams and upgraded ones, whose client has lost power or network. Default 60 s, in whole
    /// seconds; 0 turns probing off.
    pub fn tcp_keepalive(self, silence: Duration) -> Builder {
        self.put("tcp-keepalive", |config| config.server.timeouts.tcp_keepalive = silence)
    }

    /// Sets whether a client that has closed its sending side waits for its response as long as it takes. Default
    /// `false`: the application is told that the client has disconnected, as nearly all such clients have, and a
    /// response that is ready within five seconds is sent. With `true` the application is not told, and a client that
    /// has disconnected keeps its connection until the response is sent.
    pub fn half_close(self, waits: bool) -> Builder {
        self.put("half-close", |config| config.server.half_close = waits)
    }
}
