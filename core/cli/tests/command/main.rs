//! The command as a person runs it: real processes, their output and their exit status.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod run;

mod attaching;
mod bad_input;
mod deploying;
mod first_steps;
mod logging;
mod panicking;
mod reloading;
mod service;
mod serving;
mod stopping;
