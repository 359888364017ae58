//! Why a worker cannot be sealed.

use std::io;

use microfaas_control::sandbox::Layer;

/// A layer without which a worker does not start was refused.
#[derive(Debug, thiserror::Error)]
#[error("sandbox: {}: {error}", layer.describe())]
pub struct SandboxError {
    /// Which one.
    pub layer: Layer,
    /// The kernel's words.
    pub error: io::Error,
}
