//! From a method and a path to a function.

use hyper::Method;

use crate::config::Route;

/// Methods that functions get. `CONNECT`, `TRACE` and unknown ones never reach a function.
pub(crate) const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
/// Functions by name live below this path, which is a route like others: a longer one wins over it.
const BY_NAME: &str = "/fn";
const HEALTH: &str = "/healthz";

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Health,
    Metrics,
    Function {
        name: &'a str,
        /// The part of the path that the function sees; may be empty, which stands for `/`.
        path: &'a str,
    },
    /// Nothing is there.
    Unknown,
    /// Something is there, for these methods.
    NotAllowed(Vec<Method>),
}

/// The routes, longest path first, and where the metrics are.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    metrics: Option<String>,
}

impl Routes {
    pub(crate) fn new(mut routes: Vec<Route>, metrics: Option<String>) -> Self {
        routes.sort_by_key(|route| (std::cmp::Reverse(route.prefix().len()), route.method().is_none()));
        Self { routes, metrics }
    }

    /// # Cost
    /// One comparison a route; no allocation but for `NotAllowed`.
    pub(crate) fn find<'a>(&'a self, method: &Method, path: &'a str) -> Target<'a> {
        let is_metrics = self.metrics.as_deref() == Some(path);
        if path == HEALTH || is_metrics {
            return match *method {
                Method::GET | Method::HEAD if is_metrics => Target::Metrics,
                Method::GET | Method::HEAD => Target::Health,
                _ => Target::NotAllowed(vec![Method::GET, Method::HEAD]),
            };
        }
        if !METHODS.contains(method) {
            return Target::NotAllowed(METHODS.to_vec());
        }
        let mut allowed = Vec::new();
        let by_name = below(path, BY_NAME);
        for route in self.routes.iter().filter(|route| below(path, route.prefix()).is_some()) {
            if by_name.is_some() && route.prefix().len() < BY_NAME.len() {
                break;
            }
            match route.method() {
                Some(m) if m != method => allowed.push(m.clone()),
                _ => return Target::Function { name: route.function(), path },
            }
        }
        if let Some(rest) = by_name.and_then(|rest| rest.strip_prefix('/')) {
            let name_len = rest.find('/').unwrap_or(rest.len());
            let (name, path) = rest.split_at(name_len);
            if !name.is_empty() {
                return Target::Function { name, path };
            }
        }
        if allowed.is_empty() { Target::Unknown } else { Target::NotAllowed(allowed) }
    }
}

/// What of `path` follows `prefix`, when `prefix` ends where a segment does.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str, &str)]) -> Routes {
        let routes = list.iter().map(|(m, p, f)| Route::new(m, p, f).unwrap()).collect();
        Routes::new(routes, Some("/metrics".to_owned()))
    }

    fn function<'a>(name: &'a str, path: &'a str) -> Target<'a> {
        Target::Function { name, path }
    }

    #[test]
    fn by_name() {
        let routes = routes(&[]);
        for method in METHODS {
            assert_eq!(routes.find(&method, "/fn/hello"), function("hello", ""));
        }
        assert_eq!(routes.find(&Method::GET, "/fn/a.b/"), function("a.b", "/"));
        assert_eq!(routes.find(&Method::GET, "/fn/a/x/y"), function("a", "/x/y"));
        for path in ["/", "/fn", "/fn/", "/fn//x", "/fnx/hello", "/FN/hello", "*"] {
            assert_eq!(routes.find(&Method::GET, path), Target::Unknown, "{path}");
        }
        let method = Method::from_bytes(b"PROPFIND").unwrap();
        assert_eq!(routes.find(&method, "/fn/hello"), Target::NotAllowed(METHODS.to_vec()));
    }

    #[test]
    fn the_longest_path_wins_then_the_method() {
        let routes = routes(&[
            ("*", "/", "all"),
            ("*", "/api/", "api"),
            ("GET", "/api/v2", "get"),
            ("*", "/api/v2", "other"),
            ("POST", "/fn/special", "mine"),
        ]);
        assert_eq!(routes.find(&Method::GET, "/"), function("all", "/"));
        assert_eq!(routes.find(&Method::GET, "/apix"), function("all", "/apix"));
        assert_eq!(routes.find(&Method::GET, "/api"), function("api", "/api"));
        assert_eq!(routes.find(&Method::GET, "/api/v2/x"), function("get", "/api/v2/x"));
        assert_eq!(routes.find(&Method::PUT, "/api/v2/x"), function("other", "/api/v2/x"));
        assert_eq!(routes.find(&Method::POST, "/fn/special"), function("mine", "/fn/special"));
        assert_eq!(routes.find(&Method::GET, "/fn/special"), function("special", ""));
        assert_eq!(routes.find(&Method::GET, "/fn/hello"), function("hello", ""));
        assert_eq!(routes.find(&Method::GET, "/healthz"), Target::Health);
        assert_eq!(routes.find(&Method::GET, "/metrics"), Target::Metrics);
        assert_eq!(routes.find(&Method::GET, "/metrics/x"), function("all", "/metrics/x"));
    }

    #[test]
    fn a_path_without_its_method_says_which() {
        let routes = routes(&[("POST", "/verify", "jwt"), ("PUT", "/verify", "jwt")]);
        assert_eq!(routes.find(&Method::GET, "/verify"), Target::NotAllowed(vec![Method::POST, Method::PUT]));
        assert_eq!(
            routes.find(&Method::POST, "/healthz"),
            Target::NotAllowed(vec![Method::GET, Method::HEAD])
        );
    }
}
