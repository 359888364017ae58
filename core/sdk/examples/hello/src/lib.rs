//! Greets: the smallest function worth calling.
#![forbid(unsafe_code)]

use std::io::Write as _;

use microfaas::{Error, Request, Response};

/// Greets whom the body names, or the query parameter `name`, or the world.
#[microfaas::function]
pub fn hello(request: Request<'_>) -> Result<Response, Error> {
    let body = str::from_utf8(request.body()).map_err(|error| Error::new(error).with_status(400))?;
    let parameter = request.query_param("name");
    let name =
        [body.trim(), parameter.as_deref().unwrap_or_default()].into_iter().find(|name| !name.is_empty());
    let mut response = Response::in_place().with_header("content-type", "text/plain; charset=utf-8");
    writeln!(response, "Hello, {}!", name.unwrap_or("world"))?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_body_then_query_then_everyone() {
        for (body, path, expect) in [
            ("", "/fn/hello", "Hello, world!\n"),
            ("", "/fn/hello?name=Grace+Hopper", "Hello, Grace Hopper!\n"),
            ("Ada\n", "/fn/hello?name=Grace", "Hello, Ada!\n"),
        ] {
            let request = Request::new(body.as_bytes()).with_meta(&[(":path", path)]);
            assert_eq!(str::from_utf8(hello(request).unwrap().body()), Ok(expect));
        }
    }

    #[test]
    fn a_body_that_is_not_text_is_a_bad_request() {
        assert_eq!(hello(Request::new(b"\xc3")).unwrap_err().status(), Some(400));
    }
}
