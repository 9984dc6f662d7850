//! The command line: types only, no logic.
