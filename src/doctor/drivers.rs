//! What drivers can, for kernels that do not say so themselves (before 6.3), and what each asks for.

/// A driver of Linux.
#[derive(Clone, Copy, Debug)]
pub(super) struct Driver {
    pub(super) name: &'static str,
    /// Native XDP with `XDP_REDIRECT`.
    pub(super) native: bool,
    /// Zero-copy AF_XDP.
    pub(super) zero_copy: bool,
}

const fn driver(name: &'static str, native: bool, zero_copy: bool) -> Driver {
    Driver {
        name,
        native,
        zero_copy,
    }
}

/// As of Linux 6.1; a name that is not here is taken to have neither.
const DRIVERS: &[Driver] = &[
    driver("atlantic", true, false),
    driver("bnxt_en", true, false),
    driver("bonding", true, false),
    driver("ena", true, false),
    driver("gve", false, false),
    driver("hv_netvsc", true, false),
    driver("i40e", true, true),
    driver("ice", true, true),
    driver("igb", true, false),
    driver("igc", true, true),
    driver("ixgbe", true, true),
    driver("ixgbevf", true, false),
    driver("mlx4_en", true, false),
    driver("mlx5_core", true, true),
    driver("nfp", true, true),
    driver("qede", true, false),
    driver("sfc", true, false),
    driver("st_gmac", true, true),
    driver("tun", true, false),
    driver("veth", true, false),
    driver("virtio_net", true, false),
    driver("vmxnet3", false, false),
];

/// The row of a driver.
pub(super) fn find(name: &str) -> Option<Driver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// Most combined queues that leave a driver the transmit queues it wants for XDP, of `max` that it
/// has, on a host with `cores` cores; `None` if it has no such wish.
pub(super) fn combined_for_xdp(name: &str, max: u32, cores: usize) -> Option<u32> {
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    match name {
        // ena: each queue pair needs a second one for XDP_TX and redirects (ena_xdp_legal_queue_count).
        "ena" => Some((max / 2).max(1)),
        // virtio_net: curr_qp + nr_cpu_ids <= max_queue_pairs, else transmit takes a lock
        // (virtnet_xdp_set).
        "virtio_net" if max > cores => Some(max - cores),
        _ => None,
    }
}
