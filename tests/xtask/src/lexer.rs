//! Enough of Rust's grammar to tell code from comments and literals.

/// `source` with every comment, string, byte string, C string and character literal blanked out by spaces;
/// line ends stay, so positions still name the same lines. Nested block comments and raw strings are known,
/// lifetimes are told from character literals.
pub(crate) fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut word_before = false;
    while let Some(first) = rest.chars().next() {
        let blank = match blank_len(rest, word_before) {
            0 => None,
            len => Some(len),
        };
        let len = blank.unwrap_or(first.len_utf8());
        let (taken, after) = rest.split_at(len);
        match blank {
            Some(_) => out.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => out.push_str(taken),
        }
        word_before = blank.is_none() && is_word(first);
        rest = after;
    }
    out
}

/// Whether `c` can be part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment or literal that starts `rest`, 0 if none does.
fn blank_len(rest: &str, word_before: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if rest.starts_with('"') {
        return escaped_len(rest, '"');
    }
    if rest.starts_with('\'') {
        return char_len(rest);
    }
    if !word_before {
        return prefixed_len(rest);
    }
    0
}

/// `b"…"`, `c"…"`, `b'…'`, `r"…"`, `br#"…"#`, `cr"…"`.
fn prefixed_len(rest: &str) -> usize {
    for prefix in ["b", "c"] {
        if let Some(body) = rest.strip_prefix(prefix) {
            if body.starts_with('"') {
                return prefix.len() + escaped_len(body, '"');
            }
            if prefix == "b" && body.starts_with('\'') {
                return prefix.len() + escaped_len(body, '\'');
            }
        }
    }
    for prefix in ["r", "br", "cr"] {
        if let Some(body) = rest.strip_prefix(prefix) {
            let hashes = body.len() - body.trim_start_matches('#').len();
            if body[hashes..].starts_with('"') {
                let close = format!("\"{}", "#".repeat(hashes));
                let inside = hashes + 1;
                let end = body[inside..].find(&close).map_or(body.len(), |at| inside + at + close.len());
                return prefix.len() + end;
            }
        }
    }
    0
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// A literal with backslash escapes that opens and closes with `quote`.
fn escaped_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// A character literal; 0 for a lifetime or a loop label.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => escaped_len(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: &str) {
        assert_eq!(code_only(source), expect, "{source}");
    }

    #[test]
    fn comments_and_literals_become_blanks() {
        check("a // unsafe\nb", "a          \nb");
        check("a /* x /* y */ z */ b", "a                   b");
        check("f(\"un\\\"safe\")", "f(          )");
        check("r#\"a \" b\"#;", "          ;");
        check("b'x'+'\\''+'y'", "    +    +   ");
    }

    #[test]
    fn lifetimes_and_words_stay() {
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("'outer: loop {}", "'outer: loop {}");
        check("number(b)", "number(b)");
        check("var\"x\"", "var   ");
    }

    #[test]
    fn line_numbers_survive() {
        let source = "/* one\ntwo */ \"three\nfour\" five";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
        assert!(code_only(source).lines().last().is_some_and(|line| line.trim() == "five"));
    }

    #[test]
    fn unfinished_input_ends() {
        for source in ["\"open", "/* open", "r##\"open\"#", "'", "'\\", "b'"] {
            assert_eq!(code_only(source).len(), source.len());
        }
    }
}
