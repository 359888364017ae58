//! The gateway over real sockets, against a backend that gives every answer on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod fake;

mod aborts;
mod bodies;
mod connections;
mod mapping;
mod readers;
mod stopping;
