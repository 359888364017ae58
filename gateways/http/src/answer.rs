//! From a call's answer to a response.

use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use crate::Status;
use crate::backend::Answer;
use crate::refusal::Refusal;
use crate::request::is_hop_by_hop;

/// The type of a body that nobody gave a type: bytes, not to be rendered.
const UNTYPED: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The response to send, or the error to send instead.
pub(crate) fn respond(
    answer: Answer,
    is_head: bool,
    expose_panics: bool,
) -> Result<Response<Bytes>, Refusal> {
    match answer.status {
        Status::Ok => {
            let http = status_of(&answer.meta, 200)?;
            let headers = headers_of(&answer.meta);
            Ok(build(http, headers, answer.body, is_head))
        }
        Status::Error => {
            let mut refusal = Refusal::failed(Status::Error, String::from_utf8_lossy(&answer.body));
            // A status that is no error's would tell the client that all is well.
            if let Some(http) = status_of(&answer.meta, 500).ok().filter(|http| http.as_u16() >= 400) {
                refusal.http = http;
            }
            *refusal.headers = headers_of(&answer.meta);
            // The body is ours, so is what describes it.
            refusal.headers.remove(CONTENT_TYPE);
            Err(refusal)
        }
        Status::Panic if expose_panics => Err(Refusal::failed(Status::Panic, detail(&answer))),
        status => Err(Refusal::failed(status, public_text(status))),
    }
}

/// An error as a response.
pub(crate) fn refuse(refusal: &Refusal, request_id: &str, is_head: bool) -> Response<Bytes> {
    let mut headers = (*refusal.headers).clone();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    build(refusal.http, headers, refusal.body(request_id), is_head)
}

/// 200 and a JSON text, or another status.
pub(crate) fn json(http: StatusCode, text: String, is_head: bool) -> Response<Bytes> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    build(http, headers, text.into_bytes(), is_head)
}

/// 200 and a text of this type.
pub(crate) fn text(content_type: &'static str, text: String, is_head: bool) -> Response<Bytes> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    build(StatusCode::OK, headers, text.into_bytes(), is_head)
}

/// What happened, for the log: the worker's text where there is one.
pub(crate) fn detail(answer: &Answer) -> String {
    if answer.detail.is_empty() {
        String::from_utf8_lossy(&answer.body).into_owned()
    } else {
        answer.detail.clone()
    }
}

fn build(http: StatusCode, mut headers: HeaderMap, body: Vec<u8>, is_head: bool) -> Response<Bytes> {
    let has_body =
        !matches!(http, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let mut body = if has_body { Bytes::from(body) } else { Bytes::new() };
    if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, UNTYPED);
    }
    if is_head && has_body {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        body = Bytes::new();
    }
    let mut response = Response::new(body);
    *response.status_mut() = http;
    *response.headers_mut() = headers;
    response
}

/// The `:status` of the metadata.
fn status_of(meta: &[(String, String)], default: u16) -> Result<StatusCode, Refusal> {
    let Some((_, text)) = meta.iter().find(|(name, _)| name == ":status") else {
        return Ok(StatusCode::from_u16(default).unwrap_or(StatusCode::OK));
    };
    text.parse::<u16>()
        .ok()
        .filter(|code| text.len() == 3 && (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Refusal::bad_response(format!("the function's :status is {text:?}, not 200 to 599")))
}

fn headers_of(meta: &[(String, String)]) -> HeaderMap {
    let connection = || meta.iter().filter(|(name, _)| name == "connection").map(|(_, value)| value.as_str());
    let mut headers = HeaderMap::new();
    for (name, value) in meta {
        if name.starts_with(':') || name == "content-length" || is_hop_by_hop(name, connection()) {
            continue;
        }
        // The codec lets through nothing that these two refuse; a pair that one of them refuses all the same is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// What a client gets to read of a failure that is not the function's own answer.
fn public_text(status: Status) -> &'static str {
    match status {
        Status::Panic => "the function panicked",
        Status::Timeout => "the call was stopped: its time was up",
        Status::Expired => "the deadline passed before the call started",
        Status::Cancelled => "the call was taken back",
        Status::Oom => "the call used more memory than it may",
        Status::Fault => "the call broke a rule of the machine",
        Status::Denied => "the call made a forbidden system call",
        Status::TooLarge => "the response is over the limit",
        Status::NotFound => "no function has this name",
        Status::LoadFailed => "the function could not be loaded",
        Status::Banned => "the function is banned for what its calls did",
        Status::Overloaded => "no slot is free, try again later",
        Status::WorkerLost => "the worker died; the call may have run",
        _ => "the call failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Status, body: &str, meta: &[(&str, &str)]) -> Answer {
        Answer {
            status,
            body: body.as_bytes().to_vec(),
            meta: meta.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            worker: Some(0),
            cpu_ns: 1,
            detail: String::new(),
        }
    }

    fn body_of(response: Response<Bytes>) -> Vec<u8> {
        response.into_body().to_vec()
    }

    #[test]
    fn status_headers_and_body_come_back() {
        let meta =
            [(":status", "201"), ("content-type", "text/html"), ("set-cookie", "a"), ("set-cookie", "b")];
        let response = respond(answer(Status::Ok, "<p>", &meta), false, false).unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "text/html");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(body_of(response), b"<p>");
    }

    #[test]
    fn bytes_without_a_type_are_not_to_be_rendered() {
        let response = respond(answer(Status::Ok, "<script>", &[]), false, false).unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        let empty = respond(answer(Status::Ok, "", &[]), false, false).unwrap();
        assert!(!empty.headers().contains_key("content-type"));
    }

    #[test]
    fn a_function_cannot_frame_the_message() {
        let meta = [
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            (":path", "/"),
            ("x", "y"),
        ];
        let response = respond(answer(Status::Ok, "", &meta), false, false).unwrap();
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn a_status_that_is_none_is_a_bad_response() {
        for status in ["100", "199", "600", "0200", "+20", "ok", ""] {
            let refusal = respond(answer(Status::Ok, "", &[(":status", status)]), false, false).unwrap_err();
            assert_eq!(refusal.http.as_u16(), 502, "{status:?}");
        }
    }

    #[test]
    fn an_error_has_its_status_and_text() {
        for (meta, http) in [
            (&[][..], 500),
            (&[(":status", "404")], 404),
            (&[(":status", "200")], 500),
            (&[(":status", "x")], 500),
        ] {
            let refusal = respond(answer(Status::Error, "no such key", meta), false, false).unwrap_err();
            assert_eq!((refusal.http.as_u16(), refusal.message.as_str()), (http, "no such key"));
        }
        let meta = [(":status", "401"), ("www-authenticate", "bearer")];
        let refusal = respond(answer(Status::Error, "", &meta), false, false).unwrap_err();
        assert_eq!(refusal.headers["www-authenticate"], "bearer");
    }

    #[test]
    fn a_panic_is_shown_only_on_request() {
        let hidden = respond(answer(Status::Panic, "secret", &[]), false, false).unwrap_err();
        assert_eq!(hidden.message, "the function panicked");
        let shown = respond(answer(Status::Panic, "secret", &[]), false, true).unwrap_err();
        assert_eq!(shown.message, "secret");
    }

    #[test]
    fn head_and_bodiless_statuses_send_no_body() {
        let head = respond(answer(Status::Ok, "12345", &[]), true, false).unwrap();
        assert_eq!(head.headers()["content-length"], "5");
        assert!(head.body().is_empty());
        for status in ["204", "205", "304"] {
            let response =
                respond(answer(Status::Ok, "12345", &[(":status", status)]), false, false).unwrap();
            assert!(response.body().is_empty(), "{status}");
        }
    }
}
