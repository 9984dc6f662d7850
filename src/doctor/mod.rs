//! `viaduct doctor`: what this host and an interface offer, before a start finds out.
//!
//! [`gather`] looks and changes nothing; it fills [`Facts`], plain data. [`examine`] is pure: facts
//! and what the configuration wants in, [`Check`]s out, each with what falls back to what and, for
//! every problem, exactly one command that mends it. [`Report`] prints them.
//!
//! | level | means |
//! |---|---|
//! | ok | as it should be |
//! | warn | viaduct serves, but slower, or with a risk that the line names |
//! | fail | XDP is not to be had, or not what the configuration requires |

mod checks;
mod drivers;
mod facts;
mod gather;
mod report;
#[cfg(test)]
mod tests;

pub use checks::examine;
pub use facts::{Capabilities, Facts, Hugepages, ReversePath, Wanted};
pub use gather::gather;
pub use report::{Check, Level, Report};
