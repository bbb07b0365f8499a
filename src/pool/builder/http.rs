//! What the built-in server allows its clients.

use std::time::Duration;

use super::Builder;

impl Builder {
    /// Bytes of the longest request target; beyond it 414. Default 8 KiB: RFC 9112 section 3 asks for at least 8000
    /// bytes.
    pub fn max_target(self, bytes: usize) -> Builder {
        self.put("max-target", |config| config.server.limits.target = bytes)
    }

    /// Bytes of the longest request head, from the method to the empty line; beyond it 431. Default 16 KiB: twice what
    /// common browsers and proxies send at most, and little enough to be held for each slow client.
    pub fn max_head(self, bytes: usize) -> Builder {
        self.put("max-head", |config| config.server.limits.head = bytes)
    }

    /// Most header fields of a request, 1 to 128; beyond it 431. Default 100: what Apache allows,
    /// several times what browsers send.
    pub fn max_fields(self, count: usize) -> Builder {
        self.put("max-fields", |config| config.server.limits.fields = count)
    }

    /// Bytes of the longest request body, which is held in memory; beyond it 413. Default 1 MiB; zero refuses bodies.
    pub fn max_body(self, bytes: usize) -> Builder {
        self.put("max-body", |config| config.server.limits.body = bytes)
    }

    /// Requests on one connection before it is closed, so that clients spread anew. Default 0, no limit: a
    /// kept connection is the cheapest.
    pub fn max_requests_per_connection(self, count: u64) -> Builder {
        self.put("max-requests-per-connection", |config| config.server.limits.requests = count)
    }

    /// Requests of one connection that are answered in a row before the others have their turn. Default
    /// 64: a few milliseconds' work for most handlers, and enough for one send to carry many answers.
    pub fn max_pipelined(self, count: usize) -> Builder {
        self.put("max-pipelined", |config| config.server.max_pipelined = count)
    }

    /// Open connections per worker. At the limit, the connection that has been idle longest is closed for a new one;
    /// those with a request in progress stay, and new ones wait when there are no others. Default 0, as many as
    /// descriptors allow: when those run out, the same holds.
    pub fn max_connections(self, count: usize) -> Builder {
        self.put("max-connections", |config| config.server.max_connections = count)
    }

    /// Bytes of answers held for a client that does not read them, before it is not read from either.
    /// Default 256 KiB: more than a round trip's worth to most clients, and bounded for those who only send.
    pub fn max_output(self, bytes: usize) -> Builder {
        self.put("max-output", |config| config.server.max_output = bytes)
    }

    /// Bytes that each worker holds for its clients: of heads and bodies that have not come whole, and of answers that
    /// were not taken. Default 64 MiB: far beyond what honest clients need, and a bound for what others take. At least
    /// [`max_body`](Builder::max_body); 0 is no limit.
    ///
    /// At the limit a request of which a part would have to be held gets 503, bodies that are coming are not read
    /// further, and requests that come whole are served as ever. When that has lasted for 5 s, the slowest clients get
    /// 408, those that take no answer are reset, and if nobody is slow, the oldest of those that wait get 503.
    pub fn max_held(self, bytes: usize) -> Builder {
        self.put("max-held", |config| config.server.max_held = bytes)
    }

    /// How long a client may take to send a whole request head. Default 10 s: several retransmissions on a bad line.
    pub fn head_timeout(self, timeout: Duration) -> Builder {
        self.put("head-timeout", |config| config.server.head_timeout = timeout)
    }

    /// How long a client may pause while it sends a body. Default 60 s, as with nginx: clients that limit their rate send
    /// in bursts; an upload may take as long as it goes on.
    pub fn body_timeout(self, timeout: Duration) -> Builder {
        self.put("body-timeout", |config| config.server.body_timeout = timeout)
    }

    /// Bytes of a body that a client must send a second, over any span of [`body_timeout`](Builder::body_timeout); a
    /// slower one gets 408. Default 500, as with Apache: slower than any line, and a byte now and then does not
    /// hold a place and memory for good. 0 is no minimum. Time in which the worker does not read does not count.
    ///
    /// The same holds for what a client takes of an answer that waits for it, over any span of
    /// [`write_timeout`](Builder::write_timeout); the connection of a slower one is closed.
    ///
    /// A head has no rate, since [`head_timeout`](Builder::head_timeout) bounds the whole of it.
    pub fn min_rate(self, bytes: usize) -> Builder {
        self.put("min-rate", |config| config.server.min_rate = bytes)
    }

    /// How long a connection may be idle between requests. Default 75 s: longer than the 60 s of common proxies, so
    /// that they close first.
    pub fn idle_timeout(self, timeout: Duration) -> Builder {
        self.put("idle-timeout", |config| config.server.idle_timeout = timeout)
    }

    /// How long a client may take nothing of an answer that waits for it, be it in the kernel. Default 360 s, as with
    /// lighttpd: players and downloads that limit their rate take megabytes at once and then pause for minutes.
    pub fn write_timeout(self, timeout: Duration) -> Builder {
        self.put("write-timeout", |config| config.server.write_timeout = timeout)
    }

    /// How long the application may take for a [deferred](crate::Response::deferred) answer for which it sets no time-out
    /// of its own; then the client gets 504. Default 300 s: an answer that is forgotten does not hold its connection for
    /// good.
    pub fn answer_timeout(self, timeout: Duration) -> Builder {
        self.put("answer-timeout", |config| config.server.answer_timeout = timeout)
    }

    /// After how much silence the kernel asks whether a TCP client is still there (`SO_KEEPALIVE` of socket(7)). One that
    /// does not answer for as long again has gone: so connections end that wait without a time-out, as streams and
    /// upgraded ones do, when their machine has lost power or its network. Default 60 s, in whole seconds; 0 is never.
    pub fn tcp_keepalive(self, silence: Duration) -> Builder {
        self.put("tcp-keepalive", |config| config.server.tcp_keepalive = silence)
    }

    /// Whether a client that has sent its end of file waits for its answer as long as that takes. Default `false`: the
    /// application is told that it has gone, as nearly all such clients have, and the answer is sent if it is there
    /// within five seconds. With `true` nobody is told, and a client that has gone keeps its connection until the
    /// answer is sent.
    pub fn half_close(self, waits: bool) -> Builder {
        self.put("half-close", |config| config.server.half_close = waits)
    }
}
