//! From a request's head to a call's metadata and deadline.

use std::time::Duration;

use hyper::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Version};
use microfaas_node::message::{META_BYTES_MAX, NAME_BYTES_MAX, PAIRS_MAX, encoded_len};

use crate::refusal::Refusal;
use crate::request_id;

/// How long the client waits, in milliseconds from when its request's head arrived.
pub(crate) const DEADLINE: &str = "x-microfaas-deadline-ms";

/// About one connection, not about the message (RFC 9110 §7.6.1), with those that older software still sends.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header is about the connection, given the value of the message's `connection` headers.
pub(crate) fn is_hop_by_hop<'a>(name: &str, mut connection: impl Iterator<Item = &'a str>) -> bool {
    HOP_BY_HOP.contains(&name)
        || connection.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(name)))
}

/// What of a call's metadata has to be put together.
#[derive(Debug)]
pub(crate) struct Metadata {
    path: String,
    authority: Option<String>,
    cookie: Option<String>,
}

impl Metadata {
    /// `path` is the part of the request's that the function sees.
    pub(crate) fn new(parts: &Parts, path: &str) -> Result<Self, Refusal> {
        let mut target = String::with_capacity(path.len() + 1);
        if !path.starts_with('/') {
            target.push('/');
        }
        target.push_str(path);
        if let Some(query) = parts.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        let cookies = parts.headers.get_all(COOKIE);
        let cookie = match cookies.iter().count() {
            0 | 1 => None,
            // HTTP/2 may cut the one header in pieces (RFC 9113 §8.2.3).
            _ => Some(
                cookies
                    .iter()
                    .map(|v| text("cookie", v.as_bytes()))
                    .collect::<Result<Vec<_>, _>>()?
                    .join("; "),
            ),
        };
        Ok(Self { path: target, authority: authority(parts)?, cookie })
    }

    /// The pairs, checked against the codec's limits.
    pub(crate) fn pairs<'a>(
        &'a self,
        parts: &'a Parts,
        id: &'a str,
    ) -> Result<Vec<(&'a str, &'a str)>, Refusal> {
        let mut pairs = Vec::with_capacity(parts.headers.len() + 5);
        pairs.push((":method", parts.method.as_str()));
        pairs.push((":scheme", "http"));
        if let Some(authority) = &self.authority {
            pairs.push((":authority", authority));
        }
        pairs.push((":path", &self.path));
        pairs.push((request_id::HEADER, id));
        if let Some(cookie) = &self.cookie {
            pairs.push(("cookie", cookie));
        }
        for (name, value) in &parts.headers {
            let left_out = *name == HOST
                || name == request_id::HEADER
                || name == "expect"
                || (self.cookie.is_some() && *name == COOKIE)
                // Beside a transfer coding it says nothing (RFC 9112 §6.3).
                || (*name == CONTENT_LENGTH && parts.headers.contains_key(TRANSFER_ENCODING))
                || is_hop_by_hop(name.as_str(), connection(&parts.headers));
            if left_out {
                continue;
            }
            if name.as_str().len() > NAME_BYTES_MAX {
                return Err(Refusal::bad_request(format!("a header name is over {NAME_BYTES_MAX} bytes")));
            }
            pairs.push((name.as_str(), text(name.as_str(), value.as_bytes())?));
        }
        if pairs.len() > PAIRS_MAX {
            let message = format!("the request has more than {} headers", PAIRS_MAX - 5);
            return Err(Refusal::headers_too_large(message));
        }
        if encoded_len(pairs.iter().copied()) > META_BYTES_MAX {
            let message = format!("path and headers are over {META_BYTES_MAX} bytes");
            return Err(Refusal::headers_too_large(message));
        }
        Ok(pairs)
    }
}

fn connection(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok())
}

/// The value as metadata can carry it.
fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Refusal> {
    // `HeaderValue` has no control characters but tab already; the rule is the codec's, so it is checked here, too.
    str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)))
        .ok_or_else(|| {
            Refusal::bad_request(format!("header `{name}` is not UTF-8 without control characters"))
        })
}

/// The one transfer coding that is undone before a function gets the body is `chunked`. The connection's parser lets others pass that come before it.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(first), second) => {
            let all = [Some(first), second].into_iter().flatten().chain(codings);
            let all: Vec<_> = all.map(|coding| String::from_utf8_lossy(coding.as_bytes())).collect();
            Err(Refusal::unknown_coding(&all.join(", ")))
        }
    }
}

/// A host and maybe a port. Names of users do not belong there (RFC 9110 §4.2.4).
fn check_authority(authority: &str) -> Result<&str, Refusal> {
    let is_one = |text: &str| text.is_empty() || (text.parse::<Authority>().is_ok() && !text.contains('@'));
    Some(authority)
        .filter(|text| is_one(text))
        .ok_or_else(|| Refusal::bad_request(format!("the host {authority:?} is not a host and maybe a port")))
}

fn authority(parts: &Parts) -> Result<Option<String>, Refusal> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(Some(check_authority(authority.as_str())?.to_owned()));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(Some(check_authority(text("host", host.as_bytes())?)?.to_owned())),
        (Some(_), Some(_)) => Err(Refusal::bad_request("there are two `host` headers")),
        (None, _) if parts.version == Version::HTTP_11 => {
            Err(Refusal::bad_request("there is no `host` header"))
        }
        (None, _) => Ok(None),
    }
}

/// How long the client waits, at most `max`; `None` where it does not say.
pub(crate) fn deadline(headers: &HeaderMap, max: Duration) -> Result<Option<Duration>, Refusal> {
    let mut values = headers.get_all(DEADLINE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    value
        .to_str()
        .ok()
        .filter(|text| values.next().is_none() && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|ms| *ms > 0)
        .map(|ms| Some(Duration::from_millis(ms.into()).min(max)))
        .ok_or_else(|| {
            Refusal::bad_request(format!(
                "header `{DEADLINE}` is not one number of milliseconds from 1 to {}",
                u32::MAX
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn parts(build: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder) -> Parts {
        build(Request::builder()).body(()).unwrap().into_parts().0
    }

    fn pairs(parts: &Parts, path: &str) -> Result<Vec<(String, String)>, Refusal> {
        let metadata = Metadata::new(parts, path)?;
        let pairs = metadata.pairs(parts, "id")?;
        Ok(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_request_becomes_pairs() {
        let parts = parts(|b| {
            b.method("POST")
                .uri("/fn/a/b?q=1&r=%20")
                .header("host", "example.test")
                .header("X-Name", "J\u{fc}rgen")
                .header("accept", "a")
                .header("accept", "b")
                .header("x-request-id", "not {sane}")
        });
        let got = pairs(&parts, "/b").unwrap();
        let want = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "example.test"),
            (":path", "/b?q=1&r=%20"),
            ("x-request-id", "id"),
            ("x-name", "J\u{fc}rgen"),
            ("accept", "a"),
            ("accept", "b"),
        ];
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_about_the_connection_stays_there() {
        let parts = parts(|b| {
            b.uri("/fn/a")
                .header("host", "h")
                .header("connection", "keep-alive, X-Secret-Hop")
                .header("x-secret-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("te", "trailers")
                .header("transfer-encoding", "chunked")
                .header("upgrade", "h2c")
                .header("proxy-authorization", "basic x")
                .header("expect", "100-continue")
        });
        let got = pairs(&parts, "").unwrap();
        let names: Vec<_> = got.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, [":method", ":scheme", ":authority", ":path", "x-request-id"]);
        assert_eq!(got[3].1, "/");
    }

    #[test]
    fn only_one_transfer_coding_is_undone() {
        let check = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(TRANSFER_ENCODING, value.parse().unwrap());
            });
            check_coding(&headers).map_err(|refusal| (refusal.http.as_u16(), refusal.message))
        };
        for values in [&[][..], &["chunked"], &["Chunked "]] {
            assert_eq!(check(values), Ok(()), "{values:?}");
        }
        for values in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["chunked", "chunked"]]
        {
            let message =
                format!("transfer coding {:?} is not understood, only \"chunked\" is", values.join(", "));
            assert_eq!(check(values), Err((501, message)));
        }
        let both = parts(|b| {
            b.uri("/")
                .header("host", "h")
                .header("content-length", "5")
                .header("transfer-encoding", "chunked")
        });
        assert!(pairs(&both, "/").unwrap().iter().all(|(name, _)| name != "content-length"));
    }

    #[test]
    fn cookies_are_joined() {
        let parts = parts(|b| b.uri("/").header("host", "h").header("cookie", "a=1").header("cookie", "b=2"));
        let got = pairs(&parts, "/").unwrap();
        let cookies: Vec<_> = got.iter().filter(|(n, _)| n == "cookie").collect();
        assert_eq!(cookies, [&("cookie".to_owned(), "a=1; b=2".to_owned())]);
    }

    #[test]
    fn what_metadata_cannot_carry_is_refused() {
        let latin1 = parts(|b| b.uri("/").header("host", "h").header("x", &b"\xe9"[..]));
        let refusal = pairs(&latin1, "/").unwrap_err();
        assert_eq!((refusal.http.as_u16(), refusal.status), (400, "BAD_REQUEST"));
        assert!(refusal.message.contains("`x`"), "{}", refusal.message);

        let no_host = parts(|b| b.uri("/"));
        assert_eq!(pairs(&no_host, "/").unwrap_err().http.as_u16(), 400);
        let two_hosts = parts(|b| b.uri("/").header("host", "a").header("host", "b"));
        assert_eq!(pairs(&two_hosts, "/").unwrap_err().http.as_u16(), 400);

        for host in ["a b", "a/b", "a@b", "a:b:c", "[::1"] {
            let host = parts(|b| b.uri("/").header("host", host));
            assert_eq!(pairs(&host, "/").unwrap_err().http.as_u16(), 400);
        }
        for host in ["", "a", "a.test:80", "[::1]:80", "10.0.0.1"] {
            let parts = parts(|b| b.uri("/").header("host", host));
            assert_eq!(pairs(&parts, "/").unwrap()[2], (":authority".to_owned(), host.to_owned()));
        }

        let long = "v".repeat(META_BYTES_MAX);
        let long = parts(|b| b.uri("/").header("host", "h").header("x", &long));
        assert_eq!(pairs(&long, "/").unwrap_err().http.as_u16(), 431);
        let many = parts(|b| (0..PAIRS_MAX).fold(b.uri("/").header("host", "h"), |b, _| b.header("x", "v")));
        assert_eq!(pairs(&many, "/").unwrap_err().http.as_u16(), 431);
    }

    #[test]
    fn deadlines_are_capped_and_checked() {
        let max = Duration::from_secs(60);
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DEADLINE, value.parse().unwrap());
            deadline(&headers, max)
        };
        assert_eq!(deadline(&HeaderMap::new(), max).unwrap(), None);
        assert_eq!(of("250").unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(of("4294967295").unwrap(), Some(max));
        for bad in ["0", "-1", "+1", "1.5", "1s", "", "4294967296"] {
            assert_eq!(of(bad).unwrap_err().http.as_u16(), 400, "{bad:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(DEADLINE, "10".parse().unwrap());
        twice.append(DEADLINE, "20".parse().unwrap());
        assert_eq!(deadline(&twice, max).unwrap_err().http.as_u16(), 400);
    }
}
