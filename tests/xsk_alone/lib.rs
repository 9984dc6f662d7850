//! The `xsk` module of viaduct and the bounds that it reads, and nothing else.

#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/xsk/mod.rs"]
pub mod xsk;
