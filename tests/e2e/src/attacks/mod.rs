//! The attack suite: hostile functions in `tests/attacks`, what each must lead to, and how that is found out.

mod case;
mod module;
mod run;
mod watch;

pub use case::{Case, Class, Equals, own_cases, read_all};
pub use module::{build, build_cases};
pub use run::{Arena, Outcome, Settings};
pub use watch::{Footprint, adopt_orphans, children};
