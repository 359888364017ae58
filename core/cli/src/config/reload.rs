//! What a reload puts in force, and what waits for a restart.

use std::collections::BTreeSet;
use std::path::Path;

use super::Settings;

/// Keys that a reload puts in force, beside the tables of functions.
const RELOADED: [(&str, &str); 6] = [
    ("node", "modules"),
    ("node", "deadline"),
    ("node", "ban_after"),
    ("node", "load"),
    ("socket", "users"),
    ("socket", "groups"),
];

impl Settings {
    /// The keys that are not as they were in `started`, of those that a reload does not put in force. A key that is not written is none that has its default.
    pub(crate) fn waiting_for_restart(&self, started: &Self) -> Vec<String> {
        let none = toml::Table::new();
        let mut changed = Vec::new();
        let sections = ["node", "http", "socket"].into_iter();
        for section in sections.filter(|of| *of != "socket" || self.socket_that_stays(started).is_none()) {
            let of = |settings: &Self| {
                settings
                    .written
                    .get(section)
                    .and_then(toml::Value::as_table)
                    .cloned()
                    .unwrap_or_else(|| none.clone())
            };
            let (now, then) = (of(self), of(started));
            let keys: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
            let waits = |key: &&String| {
                now.get(*key) != then.get(*key) && !RELOADED.contains(&(section, key.as_str()))
            };
            changed.extend(keys.into_iter().filter(waits).map(|key| format!("[{section}] {key}")));
        }
        changed
    }

    /// The socket of the node, where `started` had a table for it and these settings have none.
    pub(crate) fn socket_that_stays<'a>(&self, started: &'a Self) -> Option<&'a Path> {
        let is_gone = self.socket.is_none() && started.written.contains_key("socket");
        started.socket.as_ref().filter(|_| is_gone).map(|socket| socket.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, parse};
    use super::*;

    #[test]
    fn a_socket_without_a_table_stays() {
        let (with, without) = (parse("[socket]\npath = \"s\"\n").unwrap(), parse("").unwrap());
        assert_eq!(without.socket_that_stays(&with), Some(Path::new("dir/s")));
        assert_eq!(without.waiting_for_restart(&with), [""; 0]);
        assert_eq!((with.socket_that_stays(&without), without.socket_that_stays(&without)), (None, None));
    }

    #[test]
    fn what_only_a_restart_puts_in_force_is_named() {
        let started = parse("[node]\nworkers = 1\nspin = \"50us\"\n[http]\naccess_log = true\n").unwrap();
        let waiting = |text: &str| parse(text).unwrap().waiting_for_restart(&started);
        assert_eq!(
            waiting(
                "[node]\nworkers = 2\nspin=\"50us\"\n[http]\nroutes = []\naccess_log = true\n[socket]\npath=\"s\"\n"
            ),
            ["[node] workers", "[http] routes", "[socket] path"]
        );
        assert_eq!(waiting("[node]\nworkers = 1\nspin = \"50us\"\n"), ["[http] access_log"]);
        let reloaded = "[node]\nworkers = 1\nspin = \"50us\"\nload = \"first-call\"\ndeadline = \"2s\"\nban_after = 3\nmodules = []\n";
        let reloaded = format!("{reloaded}[http]\naccess_log = true\n[function.f]\nstateful = true\n");
        assert_eq!(waiting(&reloaded), [""; 0]);
        check(
            "[node]\nstop_timeout = \"2days\"\n",
            "2: `stop_timeout` in [node] is 2days, allowed are 0s to 1day",
        );
    }
}
