//! `microfaas.toml`: what may stand in it, and where. `microfaas.example.toml` explains each key.

mod error;
#[cfg(test)]
mod example;
mod function;
mod http;
mod node;
mod reload;
mod section;
mod socket;
mod value;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use error::{ConfigError, suggest};
pub(crate) use function::FunctionSettings;
pub(crate) use http::HttpSettings;
pub(crate) use node::NodeSettings;
use section::{Place, Section};
pub(crate) use socket::SocketSettings;
pub(crate) use value::check_address;

/// Most faults that a function may be allowed; 0 is any number.
const BAN_AFTER_MAX: u64 = 1_000_000;
const DAY: Duration = Duration::from_secs(86_400);
const MS: Duration = Duration::from_millis(1);

/// A whole file. `None` is a key that was not given.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The file, where there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) node: NodeSettings,
    pub(crate) http: HttpSettings,
    /// `None` where no hosts can attach.
    pub(crate) socket: Option<SocketSettings>,
    pub(crate) functions: Vec<FunctionSettings>,
    /// As it is written.
    written: toml::Table,
}

impl Settings {
    /// Reads and checks a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let place = Place { file, text };
        let document = place.parse()?;
        let mut root = Section::root(place, document.get_ref());
        let mut settings = Self { file: Some(file.to_owned()), ..Self::default() };
        if let Some(section) = root.section("node")? {
            settings.node = node::node(section)?;
        }
        if let Some(section) = root.section("http")? {
            settings.http = http::http(section, &settings.node)?;
        }
        if let Some(section) = root.section("socket")? {
            settings.socket = Some(socket::socket(section)?);
        }
        if let Some(functions) = root.section("function")? {
            for section in functions.sections()? {
                settings.functions.push(function::function(&functions, section)?);
            }
        }
        root.finish()?;
        // What has come so far is valid.
        settings.written = toml::from_str(text).unwrap_or_default();
        Ok(settings)
    }

    /// Checks the names of functions against those that modules have.
    ///
    /// # Errors
    /// A setting or route of a function that is not there.
    pub(crate) fn check_functions(&self, known: &[String]) -> Result<(), ConfigError> {
        let Some(file) = &self.file else { return Ok(()) };
        for FunctionSettings { name, line, .. } in &self.functions {
            if !known.contains(name) {
                let suggestion = suggest(name, known.iter().map(String::as_str));
                return Err(ConfigError::UnknownFunction {
                    file: file.clone(),
                    line: *line,
                    name: name.clone(),
                    suggestion,
                });
            }
        }
        for (route, line) in &self.http.routes {
            if !known.iter().any(|name| name == route.function()) {
                let name = route.function().to_owned();
                let suggestion = suggest(&name, known.iter().map(String::as_str));
                return Err(ConfigError::UnknownRouteFunction {
                    file: file.clone(),
                    line: *line,
                    name,
                    suggestion,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("dir/microfaas.toml"), text).map_err(|error| error.to_string())
    }

    #[track_caller]
    pub(super) fn check(text: &str, error: &str) {
        assert_eq!(parse(text).unwrap_err(), format!("dir/microfaas.toml:{error}"), "{text}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        check(
            "[node]\nworkers = 1\nwrokers = 2\n",
            "3: unknown key `wrokers` in [node], did you mean `workers`?",
        );
        check("[nod]\n", "1: unknown key `nod` at the top level, did you mean `node`?");
        check(
            "\n[socket]\nzzz = 1\npath = \"s\"\n",
            "3: unknown key `zzz` in [socket], there are: path, mode, group, users, groups, hosts_max",
        );
        check(
            "[function.hello]\nzone = \"a\"\n",
            "2: unknown key `zone` in [function.hello], there are: quantum, deadline, idempotent, budget, policy, stateful, ban_after, concurrency, load",
        );
        check(
            "[http]\nroutes = [\n  { path = \"/\", function = \"f\" },\n  { pth = \"/a\", function = \"f\" },\n]\n",
            "4: `path` in [http] routes is missing",
        );
        check(
            "[[http.routes]]\npath = \"/\"\nfunction = \"f\"\nverb = \"GET\"\n",
            "4: unknown key `verb` in [http] routes, there are: method, path, function",
        );
    }

    #[test]
    fn a_value_out_of_range_says_the_range() {
        check(
            "[node]\nload = \"late\"\n",
            "2: `load` in [node] is \"late\", expected \"start\" or \"first-call\"",
        );
        check(
            "[function.f]\n\nload = true\n",
            "3: `load` in [function.f] is a boolean, expected \"start\" or \"first-call\"",
        );
        check(
            "[node]\nmodules_bytes_max = \"2048GiB\"\n",
            "2: `modules_bytes_max` in [node] is 2199023255552 bytes, allowed are 0 to 1099511627776",
        );
        check("[node]\nmodules_max = -1\n", "2: `modules_max` in [node] is -1, allowed are 0 to 4294967295");
        check("[node]\nworkers = 0\n", "2: `workers` in [node] is 0, allowed are 1 to 1024");
        check(
            "\n[node]\nslots_small = 4000\nslots_large = 97\n",
            "2: `slots_small` in [node] and `slots_large` are together 4097, allowed are at most 4096",
        );
        check("[node]\nworkers = -1\n", "2: `workers` in [node] is -1, allowed are 1 to 1024");
        check(
            "[node]\nworkers = \"2\"\n",
            "2: `workers` in [node] is a string, expected a number from 1 to 1024",
        );
        check(
            "[node]\nlarge_bytes = \"2GiB\"\n",
            "2: `large_bytes` in [node] is 2147483648 bytes, allowed are 4096 to 1073741824",
        );
        check(
            "[node]\nlarge_bytes = 5000\n",
            "2: `large_bytes` in [node] is 5000 bytes, allowed are multiples of 4096 from 4096 to 1073741824",
        );
        check(
            "[node]\ndeadline = 500\n",
            "2: `deadline` in [node] is an integer, expected a time such as \"500ms\" or \"2s\"",
        );
        check("[node]\nstall = \"1ms\"\n", "2: `stall` in [node] is 1ms, allowed are 10ms to 1day");
        check(
            "[http]\nbody_limit = \"16MB\"\n",
            "2: `body_limit` in [http] is \"16MB\", expected bytes such as 65536 or \"16MiB\" (KiB, MiB, GiB)",
        );
        check(
            "[http]\nlisten = \"8080\"\n",
            "2: `listen` in [http] is \"8080\", expected an address and port such as \"127.0.0.1:8080\"",
        );
        check("node = 1\n", "1: `node` at the top level is an integer, expected a table");
        check("[function]\nhello = 1\n", "2: `hello` in [function] is an integer, expected a table");
        check(
            "[function.Hello]\n",
            "1: `Hello` in [function] is not a function name: 1 to 64 of a-z, 0-9, -, _ and ., starting with a letter or digit",
        );
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = parse("[node]\nworkers = = 2\n").unwrap_err();
        assert!(error.starts_with("dir/microfaas.toml:2: ") && !error.contains('\n'), "{error}");
        let error = parse("[node]\nworkers = 1\nworkers = 2\n").unwrap_err();
        assert!(error.starts_with("dir/microfaas.toml:3: "), "{error}");
    }

    fn known(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn functions_that_are_not_there() {
        let settings = parse("[function.helo]\nidempotent = true\n").unwrap();
        let error = settings.check_functions(&known(&["hello", "sha512"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dir/microfaas.toml:1: [function.helo] is for a function that no module has, did you mean `hello`?"
        );
        let settings = parse("[http]\nroutes = [{ path = \"/\", function = \"x\" }]\n").unwrap();
        let error = settings.check_functions(&known(&["hello"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dir/microfaas.toml:2: a route leads to `x`, a function that no module has"
        );
        settings.check_functions(&known(&["x"])).unwrap();
    }
}
