//! libbpf's messages, kept instead of printed while a program is loaded.

use std::sync::{Mutex, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// What libbpf printed while loading. Its callback is a bare function, so this must be a static.
static LOG: Mutex<String> = Mutex::new(String::new());

/// Bytes of log kept: the end, where the verifier says what it did not like.
const LOG_LEN_MAX: usize = 64 * 1024;

/// Runs `load` with libbpf's messages kept instead of printed; `load` can ask for them.
pub(super) fn capture<T>(load: impl FnOnce(&dyn Fn() -> String) -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    fn keep(_level: PrintLevel, message: String) {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&message);
        if log.len() > LOG_LEN_MAX {
            let excess = log.len() - LOG_LEN_MAX;
            let cut = log.ceil_char_boundary(excess);
            log.drain(..cut);
        }
    }
    fn take() -> String {
        core::mem::take(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner))
    }

    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    take();
    let before = set_print(Some((PrintLevel::Warn, keep)));
    let result = load(&take);
    set_print(before);
    result
}
