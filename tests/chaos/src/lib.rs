//! Chaos: a node under load while something is killed, stopped, starved, replaced or lied to, and an oracle that knows what must have come of each call.
//!
//! [`ledger`] is the oracle's memory, [`question`] says what a right answer is, [`load`] asks; [`stage`] is a node with the books open and checks the invariants at the
//! end; [`experiments`] are what is done to it. The program `chaos` runs them, each in a process of its own.

pub mod books;
pub mod experiments;
pub mod footprint;
pub mod forker;
pub mod ledger;
pub mod load;
pub mod log;
pub mod modules;
pub mod place;
pub mod question;
pub mod raw;
pub mod role;
pub mod stage;
pub mod trial;
pub mod victim;
