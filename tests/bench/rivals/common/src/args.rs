//! The command line that all rivals have in common.

use std::time::Duration;

const USAGE: &str = "usage: --payload BYTES --seconds S --server-cpu A --client-cpu B";
const SECONDS_MAX: f64 = 600.0;

/// What to measure, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// Bytes in each request and in each answer.
    pub payload: usize,
    /// How long to measure, without the warm-up.
    pub seconds: f64,
    /// Core of the server, as the kernel numbers them.
    pub server_cpu: usize,
    /// Core of the client; not the server's.
    pub client_cpu: usize,
    /// Set in the server: who started it. Not for people.
    pub client_pid: Option<u32>,
}

impl Args {
    /// Reads the command line; `payload_max` is the rival's limit.
    ///
    /// # Errors
    /// A sentence that names the argument and the limit.
    pub fn parse(words: impl Iterator<Item = String>, payload_max: usize) -> Result<Self, String> {
        let (mut payload, mut seconds, mut server_cpu, mut client_cpu, mut client_pid) =
            (None, None, None, None, None);
        let mut words = words;
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} has no value; {USAGE}"))?;
            match flag.as_str() {
                "--payload" => payload = Some(number::<usize>(&flag, &value)?),
                "--seconds" => seconds = Some(number::<f64>(&flag, &value)?),
                "--server-cpu" => server_cpu = Some(number::<usize>(&flag, &value)?),
                "--client-cpu" => client_cpu = Some(number::<usize>(&flag, &value)?),
                "--client-pid" => client_pid = Some(number::<u32>(&flag, &value)?),
                _ => return Err(format!("unknown argument {flag}; {USAGE}")),
            }
        }
        let missing = |flag: &str| format!("{flag} is missing; {USAGE}");
        let args = Self {
            payload: payload.ok_or_else(|| missing("--payload"))?,
            seconds: seconds.ok_or_else(|| missing("--seconds"))?,
            server_cpu: server_cpu.ok_or_else(|| missing("--server-cpu"))?,
            client_cpu: client_cpu.ok_or_else(|| missing("--client-cpu"))?,
            client_pid,
        };
        args.check(payload_max)
    }

    fn check(self, payload_max: usize) -> Result<Self, String> {
        if self.payload > payload_max {
            return Err(format!(
                "--payload {} is over this rival's limit of {payload_max} bytes",
                self.payload
            ));
        }
        if !(self.seconds > 0.0 && self.seconds <= SECONDS_MAX) {
            return Err(format!("--seconds {} is not between 0 and {SECONDS_MAX}", self.seconds));
        }
        if self.server_cpu == self.client_cpu {
            return Err(format!(
                "--server-cpu and --client-cpu are both {}: two cores are needed",
                self.client_cpu
            ));
        }
        Ok(self)
    }

    /// How long to measure.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag} {value:?} is no such number; {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned), 64)
    }

    #[test]
    fn a_full_line_is_read() {
        let args = parse("--payload 64 --seconds 0.5 --server-cpu 1 --client-cpu 0").expect("a full line");
        assert_eq!(args, Args { payload: 64, seconds: 0.5, server_cpu: 1, client_cpu: 0, client_pid: None });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("", "--payload"),
            ("--payload", "no value"),
            ("--payload x", "--payload \"x\""),
            ("--payload 65 --seconds 1 --server-cpu 1 --client-cpu 0", "limit of 64"),
            ("--payload 1 --seconds 0 --server-cpu 1 --client-cpu 0", "--seconds 0"),
            ("--payload 1 --seconds NaN --server-cpu 1 --client-cpu 0", "--seconds NaN"),
            ("--payload 1 --seconds 1 --server-cpu 1 --client-cpu 1", "two cores"),
            ("--paylod 1", "unknown argument --paylod"),
        ] {
            let why = parse(line).expect_err(line);
            assert!(why.contains(word), "{line}: {why}");
        }
    }
}
