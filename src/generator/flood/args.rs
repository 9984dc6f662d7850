//! The command lines of the flood and of the raw forwarder.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{FloodConfig, RecordTo};
use crate::bpf::{AttachMode, SinkHook};
use crate::generator::args::{SourceRange, parse_rate, parse_seconds};
use crate::generator::raw::RawConfig;
use crate::packet::MacAddress;
use crate::time::Duration;

/// `viaduct generate flood`: distinct messages as frames, as fast as one core makes them.
#[derive(clap::Args, Clone, Debug)]
pub struct FloodArgs {
    /// Interface to send by.
    #[arg(long, value_name = "NAME")]
    pub interface: String,
    /// Address and port to send to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub target: SocketAddr,
    /// MAC address to send to: the target's, or its gateway's.
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    pub target_mac: MacAddress,
    /// Source addresses: one, a range (198.18.0.10-198.18.0.50), a block (198.18.4.0/22); several
    /// with commas.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', required = true)]
    pub source: Vec<SourceRange>,
    /// Plain INVITEs of this length; without it a mix of shapes and methods of 507 bytes on average.
    #[arg(long, value_name = "BYTES")]
    pub message_len: Option<usize>,
    /// Frames of these pcap files instead, in turn, as --responses-to and --in-dialog-to write them.
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub replay: Vec<PathBuf>,
    /// The mix in turn with --replay.
    #[arg(long, requires = "replay")]
    pub with_requests: bool,
    /// Write what the servers of --count-at would answer to the requests that come to them.
    #[arg(
        long,
        value_name = "FILE",
        requires = "count_at",
        conflicts_with = "replay"
    )]
    pub responses_to: Option<PathBuf>,
    /// Write what the clients would send next in the dialogs of these requests.
    #[arg(
        long,
        value_name = "FILE",
        requires = "count_at",
        conflicts_with = "replay"
    )]
    pub in_dialog_to: Option<PathBuf>,
    /// Send the time in each message and report how long the messages took that come back; plain
    /// INVITEs only.
    #[arg(long, requires = "count_at", conflicts_with = "replay")]
    pub latency: bool,
    /// Calls before they repeat.
    #[arg(long, default_value = "4194304", value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,
    /// Frames per second; without it as many as go.
    #[arg(long, value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Send for this long before the measurement (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "1s")]
    pub warm_up: Duration,
    /// Measure for this long (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "10s")]
    pub duration: Duration,
    /// Frames at most, warm-up included.
    #[arg(long, value_name = "N", default_value = "1000000000")]
    pub frames: u64,
    /// Core to send on.
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Count, on the same interface, what arrives for these MAC addresses.
    #[arg(long, value_name = "MACS", value_delimiter = ',', value_parser = parse_mac)]
    pub count_at: Vec<MacAddress>,
    /// Where it is counted.
    #[arg(long, value_enum, default_value_t)]
    pub count_by: CountBy,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Where in the receive path frames are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CountBy {
    /// Behind the driver (kernel 6.6): cheaper on a veth.
    #[default]
    Tc,
    /// In the driver: for a NIC.
    Native,
    /// In the kernel's generic XDP hook.
    Generic,
}

/// `viaduct generate raw`: return frames with new MAC addresses, for comparison.
#[derive(clap::Args, Clone, Debug)]
pub struct RawArgs {
    /// Interface to take frames from and to return them by.
    #[arg(long, value_name = "NAME")]
    pub interface: String,
    /// Address and port whose datagrams are taken.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// MAC address to write as the destination.
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    pub target_mac: MacAddress,
    /// Take frames in the kernel's generic hook, not in the driver.
    #[arg(long)]
    pub generic: bool,
    /// Core to run on.
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// End after this time (a bare number is seconds); without it at SIGINT or SIGTERM.
    #[arg(long, value_parser = parse_seconds)]
    pub duration: Option<Duration>,
    /// Write the counts as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Addresses listed beyond this are an error of the one who typed them.
const SOURCES_MAX: usize = crate::bpf::FLOOD_RECORDS_MAX;

impl FloodArgs {
    /// What they mean on this host.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn config(&self) -> io::Result<FloodConfig> {
        let (interface, source_mac) = interface(&self.interface)?;
        let sources = self.source.iter().flat_map(|range| range.addresses());
        Ok(FloodConfig {
            interface,
            source_mac,
            target_mac: self.target_mac,
            target: self.target,
            // One more than possible, so that too many are noticed and not cut off.
            sources: sources.take(SOURCES_MAX + 1).collect(),
            message_len: self.message_len,
            replay: self.replay.clone(),
            with_requests: self.with_requests,
            record_to: RecordTo {
                responses: self.responses_to.clone(),
                in_dialog: self.in_dialog_to.clone(),
            },
            latency: self.latency,
            calls: self.calls,
            rate: self.rate,
            warm_up: self.warm_up,
            duration: self.duration,
            frames: self.frames,
            core: self.core,
            stations: self.count_at.clone(),
            sink: match self.count_by {
                CountBy::Tc => SinkHook::Tc,
                CountBy::Native => SinkHook::Xdp(AttachMode::Native),
                CountBy::Generic => SinkHook::Xdp(AttachMode::Generic),
            },
        })
    }
}

impl RawArgs {
    /// What they mean on this host.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn config(&self) -> io::Result<RawConfig> {
        let (interface, source_mac) = interface(&self.interface)?;
        Ok(RawConfig {
            interface,
            listen: self.listen,
            source_mac,
            target_mac: self.target_mac,
            mode: if self.generic {
                AttachMode::Generic
            } else {
                AttachMode::Native
            },
            core: self.core,
            duration: self.duration,
        })
    }
}

/// Index and MAC address of an interface.
fn interface(name: &str) -> io::Result<(u32, MacAddress)> {
    let read = |what: &str| {
        let path = format!("/sys/class/net/{name}/{what}");
        std::fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
    };
    let index = read("ifindex")?.trim().parse().ok();
    let mac = parse_mac(read("address")?.trim()).ok();
    index
        .zip(mac)
        .ok_or_else(|| io::Error::other(format!("{name} is no Ethernet interface")))
}

pub(in crate::generator) fn parse_mac(text: &str) -> Result<MacAddress, String> {
    let fault = || format!("{text:?} is no MAC address such as 02:00:00:00:00:01");
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| match octet.len() {
            1 | 2 => u8::from_str_radix(octet, 16).map_err(|_| fault()),
            _ => Err(fault()),
        })
        .collect::<Result<_, _>>()?;
    MacAddress::from_bytes(&octets).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_six_octets() {
        assert_eq!(
            parse_mac("02:0:aB:00:00:ff"),
            Ok(MacAddress([2, 0, 0xab, 0, 0, 0xff]))
        );
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:01",
            "02:00:00:00:00:0g",
            "02::00:00:00:001",
        ] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }
}
