//! Thin safe wrappers over the kernel: one function a system call, no policy, no global state. Linux only.
//!
//! Everything that would change on another kernel is in this crate.

pub mod affinity;
pub mod clock;
pub mod epoll;
pub mod eventfd;
pub mod file_size;
pub mod futex;
pub mod landlock;
pub mod loaded_object;
pub mod local;
pub mod mapping;
pub mod memfd;
pub mod namespaces;
pub mod poll;
pub mod privileges;
pub mod process;
pub mod program;
pub mod slice;
pub mod socket;
