//! The threads of a run: one for each share of its addresses.

use std::thread;

use super::config::GeneratorError;
use super::transport::Opened;

/// Runs `work` on a thread for each of `shares`, with its number, and waits for all.
///
/// # Errors
/// The first of the threads'; one that was refused or that died is an error too.
pub(super) fn run_all<T: Send>(
    shares: Vec<Opened>,
    work: impl Fn((u64, Opened)) -> Result<T, GeneratorError> + Sync,
) -> Result<Vec<T>, GeneratorError> {
    let refused = |error| GeneratorError::System {
        what: "thread",
        error,
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..)
            .zip(shares)
            .map(|share| {
                thread::Builder::new()
                    .name("generator".to_owned())
                    .spawn_scoped(scope, move || work(share))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.map_err(refused)?.join() {
                Ok(result) => result,
                Err(_) => Err(refused(std::io::Error::other("it died"))),
            })
            .collect()
    })
}
