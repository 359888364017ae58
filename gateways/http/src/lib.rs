//! The HTTP gateway: requests over HTTP/1.1 and HTTP/2 (without TLS) to functions, and their answers back.
//!
//! # Which function
//! - `/fn/NAME` and everything below it calls the function NAME. The function sees what follows the name as its
//!   `:path` (at least `/`), so that it does not matter under which name it is registered.
//! - A configured [`Route`] sends a path and everything below it, for one method or all, to a function, which
//!   sees the whole path. The longest path wins.
//! - Paths are compared byte for byte, nothing is decoded: `/fn/%65cho` is not `/fn/echo`, so that whoever guards a path in front of the gateway sees what it will see.
//! - `/healthz` answers 200 while at least one worker is up, else 503. With fewer workers than there should be it says `degraded`, still with 200: taken out of a balancer's
//!   list, the node would serve nobody at all.
//! - `/metrics` ([`Config::metrics_path`]) is what calls have used, for Prometheus: counts by function and status, CPU time, bytes, histograms, workers.
//!
//! # Request
//! Metadata is `:method`, `:scheme`, `:authority`, `:path` (with the query), then the headers in order, names in
//! lower case; several `cookie` headers are joined, hop-by-hop headers and `host` (which is `:authority`) left out.
//! `x-request-id` is always there. A header value that is not UTF-8 or has control characters is answered
//! with 400. The body is collected first, so a slow client holds no slot.
//!
//! # Response
//! The function's metadata: `:status` (200 to 599, else the client gets 502; 200 where there is none), and headers
//! without the hop-by-hop ones and without `content-length`. A body without a `content-type` is
//! `application/octet-stream`: the gateway does not guess, so that bytes which a function merely passes on are never rendered.
//! Every response has an `x-request-id`: the client's, when it is 1 to 64 letters, digits and `.`, `_`, `-`, else a new one.
//!
//! # Errors
//! The body is `{"error": {"status", "message", "request_id"}}`.
//!
//! | status | HTTP | when |
//! | --- | --- | --- |
//! | `ERROR` | the function's `:status` from 400 to 599, else 500 | the function answered an error; its text is the message |
//! | `PANIC` | 500 | the function panicked; the text is logged, not sent, unless [`Config::expose_panics`] is set |
//! | `OOM`, `FAULT`, `DENIED` | 500 | the call broke a limit or a rule; what it did is logged, not sent |
//! | `LOAD_FAILED` | 500 | the module could not be loaded |
//! | `TIMEOUT`, `EXPIRED` | 504 | the deadline or budget ended while it ran, or before it started |
//! | `TOO_LARGE` | 413 or 502 | the request, or the response, is over the limit |
//! | `NOT_FOUND` | 404 | no such function or route |
//! | `BANNED` | 503 | the function is banned for what its calls did |
//! | `OVERLOADED` | 503, `retry-after` | no slot is free, or too many large bodies are coming in at once |
//! | `CANCELLED` | 503 | taken back by the node, which stops; a client that hung up is logged as 499 |
//! | `WORKER_LOST` | 502 | the worker died with the call |
//! | `BAD_RESPONSE` | 502 | the function's `:status` is none |
//! | `BAD_REQUEST` | 400 | a header, the deadline or the body cannot be understood |
//! | `METHOD_NOT_ALLOWED` | 405, `allow` | the method is not one that functions get, or no route has it |
//! | `REQUEST_TIMEOUT` | 408 | the body came too slowly ([`Config::body_timeout`]) |
//! | `NOT_IMPLEMENTED` | 501 | the body has a transfer coding beside `chunked` |
//! | `HEADERS_TOO_LARGE` | 431 | the headers do not fit into one metadata block |
//!
//! # Deadline
//! `x-microfaas-deadline-ms: N` says how long the client waits from the moment its request's head arrived, capped by
//! [`Config::deadline_max`]. Without it the function's own deadline holds.
//!
//! # A client that hangs up
//! Its call is taken back: one that still queues never runs. One that shuts its sending side before it has its answer is taken for it, as nothing tells the two apart.

mod access;
mod answer;
mod backend;
mod body;
mod config;
mod first_bytes;
mod metrics;
mod node;
mod outgoing;
mod refusal;
mod request;
mod request_id;
mod routes;
mod server;
mod service;

pub use backend::{Answer, Backend, CallRequest, Health, Refused};
pub use config::{Config, ConfigError, Route};
pub use microfaas_node::Status;
pub use node::NodeCall;
pub use server::{Gateway, GatewayError, Stopped, listen};
