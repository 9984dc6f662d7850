//! Shared by the tests that need root.
#![allow(
    dead_code,
    reason = "every test file compiles this module and uses a part of it"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

pub(crate) mod netns;
pub(crate) mod steer;
