//! Which cores there are, and staying on one.

/// Cores this process may run on, in ascending order. Empty if the kernel does not say.
pub fn cores() -> Vec<usize> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    cores.sort_unstable();
    cores
}

/// Keeps the calling thread on `core`. Returns whether the kernel agreed.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_the_core_it_was_pinned_to() {
        let core = *cores().last().expect("at least one core");
        let seen = std::thread::spawn(move || {
            assert!(pin(core));
            rustix::thread::sched_getcpu()
        });
        assert_eq!(seen.join().unwrap(), core);
    }
}
