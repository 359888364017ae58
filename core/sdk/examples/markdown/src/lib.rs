//! Markdown to HTML that may be put into a page: raw HTML is shown as text, and links lead to the web or nowhere.
#![forbid(unsafe_code)]

use microfaas::{Error, Request, Response};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, html};

/// Renders the body, CommonMark with tables, footnotes, strikethrough and task lists.
#[microfaas::function]
pub fn markdown(request: Request<'_>) -> Result<Response, Error> {
    let text = str::from_utf8(request.body()).map_err(|error| Error::new(error).with_status(400))?;
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(text, options).map(made_safe);
    let mut response = Response::in_place().with_header("content-type", "text/html; charset=utf-8");
    html::write_html_io(&mut response, events)?;
    Ok(response)
}

fn made_safe(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: web_only(dest_url), title, id })
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Image { link_type, dest_url: web_only(dest_url), title, id })
        }
        other => other,
    }
}

/// The link, unless it has another scheme than a page's links should have.
fn web_only(url: CowStr<'_>) -> CowStr<'_> {
    // A colon after the first of these is no longer a scheme's. Browsers skip control characters in a scheme.
    let bare: String = url.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let scheme = bare.split(['/', '?', '#']).next().and_then(|start| start.split_once(':'));
    let known =
        |scheme: &str| ["http", "https", "mailto"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match scheme {
        Some((scheme, _)) if !known(scheme) => CowStr::Borrowed("#"),
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let response = markdown(Request::new(text.as_bytes())).unwrap();
        let html = str::from_utf8(response.body()).unwrap();
        assert!(html.contains(expect), "{html}");
    }

    #[test]
    fn renders() {
        check("# A *b*", "<h1>A <em>b</em></h1>");
        check("| a |\n|---|\n| 1 |", "<td>1</td>");
        check("- [x] done", "<input disabled=\"\" type=\"checkbox\" checked=\"\"/>");
        check(
            "[a](b.md) [c](https://example.org/?x=1:2)",
            "<a href=\"b.md\">a</a> <a href=\"https://example.org/?x=1:2\">",
        );
    }

    #[test]
    fn what_could_run_in_a_page_does_not() {
        check("<script>alert(1)</script>", "&lt;script&gt;");
        check("a <img src=x onerror=alert(1)>", "&lt;img");
        check("[a](javascript:alert(1))", "href=\"#\"");
        check("[a](JAVA&#10;SCRIPT:alert(1))", "href=\"#\"");
        check("![a](data:text/html,x)", "src=\"#\"");
    }

    #[test]
    fn the_sample_is_rendered() {
        let sample = include_str!("../../data/sample.md");
        check(sample, "<table>");
        check(sample, "<code class=\"language-rust\">");
        check(sample, "class=\"footnote-reference\"");
    }

    #[test]
    fn bytes_that_are_not_text_are_a_bad_request() {
        assert_eq!(markdown(Request::new(b"\xff")).unwrap_err().status(), Some(400));
    }
}
