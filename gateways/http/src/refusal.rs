//! Answers that are errors: which HTTP status stands for what, and their body.

use std::time::Duration;

use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::Status;

/// An error to be sent.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) http: StatusCode,
    /// What the body names it: a [`Status`] or the gateway's own.
    pub(crate) status: &'static str,
    pub(crate) message: String,
    /// Boxed, so that the error side of a `Result` stays small.
    pub(crate) headers: Box<HeaderMap>,
}

impl Refusal {
    fn new(http: StatusCode, status: &'static str, message: impl Into<String>) -> Self {
        Self { http, status, message: message.into(), headers: Box::default() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    pub(crate) fn no_route(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Status::NotFound.name(), format!("nothing is at {path}"))
    }

    pub(crate) fn method_not_allowed(method: &Method, allowed: &[Method]) -> Self {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("method {method} is not one of {allowed}");
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message);
        if let Ok(value) = HeaderValue::from_str(&allowed) {
            refusal.headers.insert(ALLOW, value);
        }
        refusal
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is over the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Status::TooLarge.name(), message).and_close()
    }

    pub(crate) fn body_stalled() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the request body stopped coming")
            .and_close()
    }

    /// The body is coded in a way that nobody here can undo.
    pub(crate) fn unknown_coding(coding: &str) -> Self {
        let message = format!("transfer coding {coding:?} is not understood, only \"chunked\" is");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message).and_close()
    }

    pub(crate) fn headers_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", message)
    }

    /// The function's answer cannot be sent.
    pub(crate) fn bad_response(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "BAD_RESPONSE", message)
    }

    /// There is no room for the function's answer until others are read. That the call has run is said, since it may not be meant to run twice.
    pub(crate) fn response_dropped() -> Self {
        let message = "the call has run, and its answer was dropped: too many answers wait to be read";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "RESPONSE_DROPPED", message)
    }

    /// The page of metrics could not be made; the log says why.
    pub(crate) fn no_page() -> Self {
        let message = "the page of metrics could not be made";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "METRICS_FAILED", message)
    }

    /// A call that was not accepted.
    pub(crate) fn not_accepted(status: Status, message: impl Into<String>) -> Self {
        let http = match status {
            Status::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            other => http_of(other),
        };
        Self::of_call(http, status, message)
    }

    /// A call that was accepted and did not end well.
    pub(crate) fn failed(status: Status, message: impl Into<String>) -> Self {
        Self::of_call(http_of(status), status, message)
    }

    fn of_call(http: StatusCode, status: Status, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(http, status.name(), message);
        if status == Status::Overloaded {
            // One second is the shortest that the header can say.
            refusal.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        refusal
    }

    /// When to come back, where the refusal says so: in whole seconds, at least one.
    pub(crate) fn retry_after(mut self, time: Duration) -> Self {
        if let Some(value) = self.headers.get_mut(RETRY_AFTER) {
            *value = HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0 || time.is_zero()));
        }
        self
    }

    /// The connection cannot go on: what is left of the request would be taken for the next.
    pub(crate) fn and_close(mut self) -> Self {
        self.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }

    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let error = ErrorBody { status: self.status, message: &self.message, request_id };
        // Strings alone cannot fail to become JSON.
        let mut body = serde_json::to_vec(&Envelope { error }).unwrap_or_default();
        body.push(b'\n');
        body
    }
}

/// What every error's body is.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    error: ErrorBody<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    status: &'a str,
    message: &'a str,
    request_id: &'a str,
}

/// The HTTP status of a call that ended so; `TOO_LARGE` is about the response here.
fn http_of(status: Status) -> StatusCode {
    match status {
        Status::Ok => StatusCode::OK,
        Status::NotFound => StatusCode::NOT_FOUND,
        Status::TooLarge | Status::WorkerLost => StatusCode::BAD_GATEWAY,
        Status::Banned | Status::Overloaded | Status::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Status::Timeout | Status::Expired => StatusCode::GATEWAY_TIMEOUT,
        // Error, Panic, Oom, Fault, Denied, LoadFailed, and what later versions add.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_http_status() {
        let table = [
            (Status::Ok, 200),
            (Status::Error, 500),
            (Status::Panic, 500),
            (Status::Timeout, 504),
            (Status::Expired, 504),
            (Status::Cancelled, 503),
            (Status::Oom, 500),
            (Status::Fault, 500),
            (Status::Denied, 500),
            (Status::TooLarge, 502),
            (Status::NotFound, 404),
            (Status::LoadFailed, 500),
            (Status::Banned, 503),
            (Status::Overloaded, 503),
            (Status::WorkerLost, 502),
        ];
        assert_eq!(table.map(|(status, _)| status), Status::ALL);
        for (status, http) in table {
            assert_eq!(http_of(status).as_u16(), http, "{status}");
        }
        assert_eq!(Refusal::not_accepted(Status::TooLarge, "").http.as_u16(), 413);
    }

    #[test]
    fn only_overload_asks_for_a_retry() {
        for status in Status::ALL {
            let refusal = Refusal::failed(status, "");
            assert_eq!(refusal.headers.contains_key(RETRY_AFTER), status == Status::Overloaded, "{status}");
        }
    }

    #[test]
    fn whole_seconds_that_are_long_enough() {
        for (ms, text) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (9999, "10")] {
            let refusal =
                Refusal::not_accepted(Status::Overloaded, "").retry_after(Duration::from_millis(ms));
            assert_eq!(refusal.headers[RETRY_AFTER], text, "{ms} ms");
        }
        let refusal = Refusal::not_accepted(Status::Banned, "").retry_after(Duration::from_secs(1));
        assert!(!refusal.headers.contains_key(RETRY_AFTER));
    }

    #[test]
    fn the_body_is_json_whatever_the_message() {
        let refusal = Refusal::failed(Status::Error, "a \"quote\"\nand a line\u{1b}");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body("id-1")).unwrap();
        assert_eq!(body["error"]["status"], "ERROR");
        assert_eq!(body["error"]["message"], "a \"quote\"\nand a line\u{1b}");
        assert_eq!(body["error"]["request_id"], "id-1");
    }
}
