//! One line a request.

use std::net::SocketAddr;
use std::time::Instant;

use hyper::{Method, StatusCode};

/// What a client that hung up is logged as; no client ever sees it (nginx writes the same number).
const CLIENT_GONE: u16 = 499;

/// A request on its way, logged when it is answered, or dropped because the client is gone.
#[derive(Debug)]
pub(crate) struct Access {
    enabled: bool,
    arrived: Instant,
    id: String,
    peer: SocketAddr,
    method: Method,
    path: String,
    pub(crate) function: String,
    /// How the call ended, or the gateway's own word.
    pub(crate) status: &'static str,
    pub(crate) bytes_in: usize,
    pub(crate) worker: Option<u32>,
    pub(crate) cpu_ns: u64,
    answered: bool,
}

impl Access {
    pub(crate) fn new(enabled: bool, id: String, peer: SocketAddr, method: Method, path: &str) -> Self {
        Self {
            enabled,
            arrived: Instant::now(),
            id,
            peer,
            method,
            path: if enabled { path.to_owned() } else { String::new() },
            function: String::new(),
            status: "CANCELLED",
            bytes_in: 0,
            worker: None,
            cpu_ns: 0,
            answered: false,
        }
    }

    /// When the head had arrived.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Logs that the response is on its way.
    pub(crate) fn answered(mut self, http: StatusCode, bytes_out: u64) {
        self.answered = true;
        self.log(http.as_u16(), bytes_out);
    }

    fn log(&self, http: u16, bytes_out: u64) {
        if !self.enabled {
            return;
        }
        // What a client chose is text, which both forms of the log escape: it cannot end the line. `%` would write it as it is.
        tracing::info!(
            target: "microfaas::access",
            id = %self.id,
            peer = %self.peer,
            method = %self.method,
            path = self.path.as_str(),
            function = self.function.as_str(),
            status = self.status,
            http,
            bytes_in = self.bytes_in,
            bytes_out,
            total_us = u64::try_from(self.arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
            cpu_us = self.cpu_ns / 1000,
            worker = self.worker,
        );
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if !self.answered {
            self.status = "CANCELLED";
            self.log(CLIENT_GONE, 0);
        }
    }
}
