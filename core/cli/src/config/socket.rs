//! `[socket]`: who may attach.

use std::path::PathBuf;

use microfaas_node::{HOSTS_MAX, SocketConfig};

use super::section::Section;
use super::{ConfigError, value};

/// `[socket]`.
#[derive(Debug, Default)]
pub(crate) struct SocketSettings {
    pub(crate) path: PathBuf,
    pub(crate) mode: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) users: Vec<u32>,
    pub(crate) groups: Vec<u32>,
    pub(crate) hosts_max: Option<u32>,
}

impl SocketSettings {
    /// What is not given is the node's default.
    pub(crate) fn config(&self) -> SocketConfig {
        let mut config = SocketConfig::new(&self.path);
        config = self.mode.into_iter().fold(config, SocketConfig::mode);
        config = self.group.into_iter().fold(config, SocketConfig::group);
        config = self.hosts_max.into_iter().fold(config, SocketConfig::hosts_max);
        config = self.users.iter().copied().fold(config, SocketConfig::allow_user);
        self.groups.iter().copied().fold(config, SocketConfig::allow_group)
    }
}

pub(super) fn socket(mut section: Section<'_>) -> Result<SocketSettings, ConfigError> {
    let id = |v: &toml::de::DeValue<'_>| value::count(v, 0, u64::from(u32::MAX) - 1);
    let folder = section.folder();
    let settings = SocketSettings {
        path: folder.join(section.require("path", value::path)?),
        mode: section.get("mode", value::mode)?,
        group: section.get("group", id)?,
        users: section.get("users", |v| value::list(v, id))?.unwrap_or_default(),
        groups: section.get("groups", |v| value::list(v, id))?.unwrap_or_default(),
        hosts_max: section.get("hosts_max", |v| value::count(v, 1, HOSTS_MAX.into()))?,
    };
    section.finish()?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, parse};

    #[test]
    fn who_may_attach_is_checked() {
        assert!(parse("[node]\n").unwrap().socket.is_none());
        check("[socket]\nmode = \"0660\"\n", "1: `path` in [socket] is missing");
        check("[socket]\npath = \"\"\n", "2: `path` in [socket] is \"\", expected a path");
        check(
            "[socket]\npath = \"s\"\nmode = \"rw\"\n",
            "3: `mode` in [socket] is \"rw\", expected permissions such as \"0660\"",
        );
        check(
            "[socket]\npath = \"s\"\nusers = [1, \"root\"]\n",
            "3: `users` in [socket] has a value that is a string, expected a number from 0 to 4294967294",
        );
        check(
            "[socket]\npath = \"s\"\nhosts_max = 128\n",
            "3: `hosts_max` in [socket] is 128, allowed are 1 to 127",
        );
    }
}
