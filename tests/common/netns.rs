//! Network namespaces of a test: made under a name with the process id, removed on drop.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs a command to its end and panics with what it said if it failed.
pub(crate) fn command(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{line}` does not start: {error}"));
    assert!(
        output.status.success(),
        "`{line}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A network namespace, gone when dropped, and its interfaces with it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace, loopback up.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vd{}-{count}", std::process::id());
        command(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set dev lo up");
        namespace
    }

    /// The name, for `ip netns exec`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip` inside the namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        command(&format!("ip -n {} {arguments}", self.name));
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Index of an interface in the calling thread's namespace.
pub(crate) fn ifindex(name: &str) -> u32 {
    // Not sysfs: its mount shows the namespace it was mounted in.
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .unwrap();
    rustix::net::netdevice::name_to_index(socket, name).unwrap()
}
