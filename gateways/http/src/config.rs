//! Settings of a gateway, and the routes.

use std::time::Duration;

use hyper::Method;
use thiserror::Error;

/// How a gateway behaves. Start from [`Config::default`] and change what differs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes of a request body. Default 16 MiB less 32 KiB: what a large slot holds beside the metadata.
    pub body_bytes_max: usize,
    /// Most bytes of request bodies that are being collected, all together; more is answered with 503. Bodies of at
    /// most 64 KiB do not count. Default 256 MiB.
    pub bodies_bytes_max: usize,
    /// Most bytes of functions' answers that wait to be read by their clients, all together. One alone may be longer. Where less than 64 KiB is left, calls are refused with
    /// 503, and where an answer does not fit in beside the others, it is dropped and answered with 503. Answers of at most 64 KiB do not count. Pages of metrics have as much to
    /// themselves. Default 256 MiB.
    pub responses_bytes_max: usize,
    /// Most bytes of a request's head. 8 KiB to 1 MiB, default 64 KiB; a function gets at most 32 KiB of it.
    pub head_bytes_max: usize,
    /// Most connections at once; more wait in the listen queue. Default 1024.
    pub connections_max: usize,
    /// Time for a whole head to arrive, from the connection's start or the last response. Default 30 s.
    pub head_timeout: Duration,
    /// Time for each 64 KiB of a request body to come, and for what is left of it. Default 30 s.
    pub body_timeout: Duration,
    /// How long a client may take no piece (64 KiB) of an answer; within as long again its connection is cut, with all streams that it has: one whose window stays closed is
    /// enough. 1 ms to 1 day, default 30 s.
    pub write_timeout: Duration,
    /// Longest deadline that a client may ask for. Default 60 s.
    pub deadline_max: Duration,
    /// How long [`Gateway::serve`](crate::Gateway::serve) waits for requests in flight once it is to stop. Default 10 s.
    pub stop_timeout: Duration,
    /// Paths that lead to functions, beside `/fn/NAME`.
    pub routes: Vec<Route>,
    /// Whether each request is logged: target `microfaas::access`, level INFO. Default true.
    pub access_log: bool,
    /// Where the node's metrics are, in a form for Prometheus; `None` is nowhere. Default `/metrics`. It wins over routes.
    pub metrics_path: Option<String>,
    /// Whether clients get to see panic messages. Default false: they may quote secrets.
    pub expose_panics: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: (16 << 20) - (32 << 10),
            bodies_bytes_max: 256 << 20,
            responses_bytes_max: 256 << 20,
            head_bytes_max: 64 << 10,
            connections_max: 1024,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            deadline_max: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
            routes: Vec::new(),
            access_log: true,
            metrics_path: Some("/metrics".to_owned()),
            expose_panics: false,
        }
    }
}

impl Config {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(8 << 10..=1 << 20).contains(&self.head_bytes_max) {
            return Err(ConfigError::HeadBytes(self.head_bytes_max));
        }
        if self.bodies_bytes_max < self.body_bytes_max {
            return Err(ConfigError::BodiesBytes { all: self.bodies_bytes_max, one: self.body_bytes_max });
        }
        if self.connections_max == 0 {
            return Err(ConfigError::NoConnections);
        }
        if !(Duration::from_millis(1)..=Duration::from_hours(24)).contains(&self.write_timeout) {
            return Err(ConfigError::WriteTimeout(self.write_timeout));
        }
        if let Some(path) = self.metrics_path.as_ref().filter(|path| !is_path(path)) {
            return Err(ConfigError::Path(path.clone()));
        }
        for (i, route) in self.routes.iter().enumerate() {
            if self.routes[..i].iter().any(|r| r.method == route.method && r.path == route.path) {
                return Err(ConfigError::DuplicateRoute(route.path.clone()));
            }
        }
        Ok(())
    }
}

/// Sends a path, and everything below it, to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    method: Option<Method>,
    path: String,
    function: String,
}

impl Route {
    /// A route for one method, or for all with `*`.
    ///
    /// `path` begins with `/`; `/api` stands for `/api` and `/api/…`, not for `/apix`; `/` for everything.
    ///
    /// # Errors
    /// A method that functions do not get, or a path that no request can have.
    pub fn new(method: &str, path: &str, function: &str) -> Result<Self, ConfigError> {
        let method = match method {
            "*" => None,
            name => Some(
                crate::routes::METHODS
                    .iter()
                    .find(|m| m.as_str() == name)
                    .cloned()
                    .ok_or_else(|| ConfigError::Method(name.to_owned()))?,
            ),
        };
        if !is_path(path) {
            return Err(ConfigError::Path(path.to_owned()));
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { method, path, function: function.to_owned() })
    }

    /// The method; `None` for all.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// The path without a slash at its end: empty for `/`.
    pub(crate) fn prefix(&self) -> &str {
        &self.path
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// The function's name.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.function
    }
}

/// Whether a request can have this path.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b))
}

/// A setting that cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a method that functions get.
    #[error("method `{0}` is not one of GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS or `*`")]
    Method(String),
    /// Not the path of a request.
    #[error("path `{0}` does not begin with `/`, or has a space, `?`, `#` or a character outside ASCII")]
    Path(String),
    /// Two routes for the same method and path.
    #[error("two routes have the path `{0}` and the same method")]
    DuplicateRoute(String),
    /// `head_bytes_max` out of range.
    #[error("head limit {0} is outside 8192 to 1048576 bytes")]
    HeadBytes(usize),
    /// Not even one body would be taken.
    #[error("limit of all bodies together, {all} bytes, is below that of one, {one}")]
    BodiesBytes {
        /// `bodies_bytes_max`.
        all: usize,
        /// `body_bytes_max`.
        one: usize,
    },
    /// `write_timeout` out of range.
    #[error("write timeout {0:?} is outside 1 ms to 1 day")]
    WriteTimeout(Duration),
    /// No connection allowed.
    #[error("connection limit 0 would refuse every client")]
    NoConnections,
}
