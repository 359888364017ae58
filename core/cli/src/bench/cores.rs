//! Which two cores a benchmark uses, and how near they are to each other.

use microfaas_sys::affinity;

use super::stopped;
use crate::failure::Failure;

/// A ping-pong over one line below this is between near cores: they share a cache. On virtual machines it is about 120 or about 550.
const NEAR_NS: f64 = 260.0;

/// The caller's core and the worker's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    pub(super) host: u32,
    /// The one that a node pins its first worker to.
    pub(super) worker: u32,
}

impl Cores {
    /// The first and the last core that this process may use.
    pub(super) fn choose() -> Result<Self, Failure> {
        let allowed =
            affinity::allowed().map_err(|e| stopped(format!("cannot tell which cores are allowed: {e}")))?;
        match allowed[..] {
            [host, .., worker] => Ok(Self { host, worker }),
            _ => Err(stopped(format!(
                "two cores are needed, one for the caller and one for the worker, and this process may use {}",
                allowed.len()
            ))),
        }
    }

    /// Binds the calling thread to the caller's core.
    pub(super) fn pin_host(self) -> Result<(), Failure> {
        affinity::pin_to(self.host).map_err(|e| stopped(format!("cannot go to core {}: {e}", self.host)))
    }
}

/// How near the two cores were while something was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distance {
    Near,
    Far,
    /// It changed from before to after.
    Mixed,
}

impl Distance {
    /// By the ping-pong before and after.
    pub(super) fn of(before_ns: f64, after_ns: f64) -> Self {
        match (before_ns < NEAR_NS, after_ns < NEAR_NS) {
            (true, true) => Self::Near,
            (false, false) => Self::Far,
            _ => Self::Mixed,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Mixed => "mixed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_neither_near_nor_far() {
        assert_eq!(Distance::of(120.0, 130.0), Distance::Near);
        assert_eq!(Distance::of(560.0, 540.0), Distance::Far);
        assert_eq!(Distance::of(120.0, 540.0), Distance::Mixed);
    }
}
