//! `[http]`: the gateway, and its routes.

use std::time::Duration;

use microfaas_http::{Config, Route};

use super::section::Section;
use super::{ConfigError, DAY, MS, NodeSettings, value};

/// `[http]`.
#[derive(Debug, Default)]
pub(crate) struct HttpSettings {
    pub(crate) listen: Option<String>,
    pub(crate) threads: Option<usize>,
    pub(crate) body_limit: Option<usize>,
    pub(crate) bodies_limit: Option<usize>,
    pub(crate) responses_limit: Option<usize>,
    pub(crate) head_limit: Option<usize>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) max_deadline: Option<Duration>,
    pub(crate) access_log: Option<bool>,
    /// Where the metrics are; `None` in it is nowhere.
    pub(crate) metrics: Option<Option<String>>,
    pub(crate) expose_panics: Option<bool>,
    pub(crate) routes: Vec<(Route, usize)>,
}

/// What a function's metadata may take of a large slot.
const META_BYTES: usize = 32 << 10;

impl HttpSettings {
    /// The largest request body: as it is set, or what a large slot holds.
    pub(crate) fn body_bytes_max(&self, node: &NodeSettings) -> usize {
        let slot = node.large_bytes.map(|bytes| (bytes as usize).saturating_sub(META_BYTES));
        self.body_limit.or(slot).unwrap_or(Config::default().body_bytes_max)
    }
}

pub(super) fn http(mut section: Section<'_>, node: &NodeSettings) -> Result<HttpSettings, ConfigError> {
    let timeout = |v: &toml::de::DeValue<'_>| value::duration(v, MS, DAY);
    let mut settings = HttpSettings {
        listen: section.get("listen", value::address)?,
        threads: section.get("threads", |v| value::count(v, 1, 256))?,
        body_limit: section.get("body_limit", |v| value::bytes(v, 0, 1 << 30, 1))?,
        bodies_limit: section.get("bodies_limit", |v| value::bytes(v, 0, 1 << 40, 1))?,
        responses_limit: section.get("responses_limit", |v| value::bytes(v, 64 << 10, 1 << 40, 1))?,
        head_limit: section.get("head_limit", |v| value::bytes(v, 8 << 10, 1 << 20, 1))?,
        max_connections: section.get("max_connections", |v| value::count(v, 1, 1_000_000))?,
        head_timeout: section.get("head_timeout", timeout)?,
        body_timeout: section.get("body_timeout", timeout)?,
        write_timeout: section.get("write_timeout", timeout)?,
        stop_timeout: section.get("stop_timeout", timeout)?,
        max_deadline: section.get("max_deadline", timeout)?,
        access_log: section.get("access_log", value::boolean)?,
        metrics: section.get("metrics", value::path_or_off)?,
        expose_panics: section.get("expose_panics", value::boolean)?,
        routes: Vec::new(),
    };
    let one = settings.body_bytes_max(node);
    if let Some(all) = settings.bodies_limit.filter(|all| *all < one) {
        let problem = format!("is {all} bytes, less than the {one} that one body may have by `body_limit`");
        return Err(section.value_error(section.line_of("bodies_limit"), "bodies_limit", problem));
    }
    for route in section.list_of_sections("routes")? {
        let new = self::route(route)?;
        if settings.routes.iter().any(|(old, _)| old.method() == new.0.method() && old.path() == new.0.path())
        {
            let problem = format!("has the path `{}` twice for the same method", new.0.path());
            return Err(section.value_error(new.1, "routes", problem));
        }
        settings.routes.push(new);
    }
    section.finish()?;
    Ok(settings)
}

fn route(mut section: Section<'_>) -> Result<(Route, usize), ConfigError> {
    let line = section.line();
    let method = section.get("method", value::text)?.unwrap_or_else(|| "*".to_owned());
    let path = section.require("path", value::text)?;
    let function = section.require("function", value::function_name)?;
    let route = Route::new(&method, &path, &function).map_err(|error| {
        let key = if matches!(error, microfaas_http::ConfigError::Method(_)) { "method" } else { "path" };
        section.value_error(line, key, format!("cannot be: {error}"))
    })?;
    section.finish()?;
    Ok((route, line))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, parse};

    #[test]
    fn routes_are_checked() {
        check(
            "[[http.routes]]\nmethod = \"FETCH\"\npath = \"/\"\nfunction = \"f\"\n",
            "1: `method` in [http] routes cannot be: method `FETCH` is not one of GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS or `*`",
        );
        check(
            "[http]\nroutes = [{ path = \"/a\", function = \"f\" }, { path = \"/a/\", function = \"g\" }]\n",
            "2: `routes` in [http] has the path `/a` twice for the same method",
        );
    }

    #[test]
    fn all_bodies_have_room_for_one() {
        let is = |all: usize, one: usize| {
            format!(
                "`bodies_limit` in [http] is {all} bytes, less than the {one} that one body may have by `body_limit`"
            )
        };
        check("[http]\nbody_limit = 9\nbodies_limit = 8\n", &format!("3: {}", is(8, 9)));
        check("[http]\nbodies_limit = 8\n", &format!("2: {}", is(8, (16 << 20) - (32 << 10))));
        let small = "[node]\nlarge_bytes = \"64KiB\"\n[http]\nbodies_limit =";
        check(&format!("{small} 32767\n"), &format!("4: {}", is(32_767, 32_768)));
        assert!(parse(&format!("{small} 32768\n")).is_ok());
    }
}
