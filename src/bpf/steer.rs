//! The loaded steering program and its maps.
//!
//! After loading, only file descriptors are kept: the kernel holds program and maps for as long as
//! one of them, or a link, is open. All updates are live; the order in which they are made is what
//! keeps a reload whole, see [`SteerProgram::replace_vips`].

use core::fmt;
use core::mem::MaybeUninit;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::counts::{CountsReader, SteerCounts, SteeredCounts};
use super::error::{BpfError, load_error, map_error, open_error};
use super::layout::{
    BucketKey, ListNumbers, REFUSED_LEN, SourceKey, VipKey, VipValue, refused_source,
};
use super::limit::Limit;
use super::link::{AttachMode, Link};
use super::log;
use super::skeleton::steer::SteerSkelBuilder;
use crate::limits::{
    INTERFACES_MAX, LIMIT_SOURCES_DEFAULT, QUEUES_MAX, RX_FRAME_LEN_MAX, SOURCE_NETWORKS_MAX,
    VIPS_MAX, WORKERS_MAX,
};
use crate::net::{IpAddr, ListenerIndex, Network, SocketAddr, canonical};

/// What cannot change while the program is loaded.
#[derive(Clone, Debug)]
pub struct SteerConfig {
    /// Interfaces by index, in the order of their slots.
    pub interfaces: Vec<u32>,
    /// RX queues served on each interface: the most that any of them has.
    pub queues: u32,
    /// Workers.
    pub workers: u32,
    /// Longest frame that goes to a socket; longer ones go to the kernel.
    pub frame_len_max: u32,
    /// Known sources and strangers, each, whose datagrams are counted at once.
    pub limit_sources: u32,
    /// Key of the hash that makes a Call-ID's home worker. Without one, or with one worker, a
    /// datagram's worker is that of its queue.
    pub call_id_key: Option<CallIdKey>,
}

/// The key of [`Keys::affinity_hash`](crate::affinity::Keys::affinity_hash), which both sides
/// compute.
#[derive(Clone, Copy)]
pub struct CallIdKey(pub [u8; 16]);

impl CallIdKey {
    /// The halves, as SipHash takes them.
    pub(super) fn words(self) -> [u64; 2] {
        let (halves, _) = self.0.as_chunks::<8>();
        [0, 1].map(|half| u64::from_le_bytes(halves[half]))
    }
}

impl fmt::Debug for CallIdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallIdKey(…)")
    }
}

impl SteerConfig {
    /// For these interfaces, queues and workers, with the frame length and the number of counted
    /// sources of `limits.rs`.
    pub fn new(interfaces: Vec<u32>, queues: u32, workers: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a chunk is a page")]
        const FRAME_LEN_MAX: u32 = RX_FRAME_LEN_MAX as u32;
        const _: () = assert!(RX_FRAME_LEN_MAX <= u16::MAX as usize);
        Self {
            interfaces,
            queues,
            workers,
            frame_len_max: FRAME_LEN_MAX,
            limit_sources: LIMIT_SOURCES_DEFAULT,
            call_id_key: None,
        }
    }

    /// The worker that the program gives a queue's datagrams to where no Call-ID decides.
    pub fn worker_of(&self, queue: u32) -> u32 {
        queue % self.workers.max(1)
    }

    /// Index in the XSKMAP: (interface × queues + queue) × workers + worker.
    fn slot_index(&self, slot: Slot) -> Option<u32> {
        let position = self
            .interfaces
            .iter()
            .position(|ifindex| *ifindex == slot.ifindex)?;
        if slot.queue >= self.queues || slot.worker >= self.workers {
            return None;
        }
        let position = u32::try_from(position).ok()?;
        Some((position * self.queues + slot.queue) * self.workers + slot.worker)
    }

    fn check(&self) -> Result<(), BpfError> {
        let fits = (1..=INTERFACES_MAX).contains(&self.interfaces.len())
            && (1..=QUEUES_MAX).contains(&(self.queues as usize))
            && (1..=WORKERS_MAX).contains(&(self.workers as usize));
        fits.then_some(()).ok_or(BpfError::Size {
            interfaces: self.interfaces.len(),
            queues: self.queues,
            workers: self.workers,
        })
    }
}

/// The place of a socket: one per interface, queue and worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Interface the socket is bound to.
    pub ifindex: u32,
    /// RX queue the socket is bound to.
    pub queue: u32,
    /// Worker that reads the socket.
    pub worker: u32,
}

/// Whose address it is, and from where datagrams to it are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// The listener.
    pub listener: ListenerIndex,
    /// If not empty, sources outside these networks are dropped.
    pub allow: Vec<Network>,
    /// Sources inside these networks are dropped, allowed or not.
    pub deny: Vec<Network>,
    /// How much the sources that are taken may send; `None` is as much as they like.
    pub limit: Option<Limit>,
}

/// A loaded steering program.
#[derive(Debug)]
pub struct SteerProgram {
    config: SteerConfig,
    program: OwnedFd,
    control: MapHandle,
    vips_map: MapHandle,
    sources_map: MapHandle,
    xsks: MapHandle,
    known: MapHandle,
    strangers: MapHandle,
    refused: MapHandle,
    counts: CountsReader,
    steered: MapHandle,
    /// What is in `vips_map`.
    vips: HashMap<SocketAddr, Vip>,
    /// What is in `sources_map`: networks, sorted and without repeats, to their list's number.
    lists: HashMap<Vec<Network>, u32>,
    /// The last number given to a list. A number is never given twice.
    last_list: u32,
}

impl SteerProgram {
    /// Loads the program with empty maps, switched on.
    ///
    /// # Errors
    /// Sizes outside `limits.rs`; the kernel's refusal, with the verifier's log.
    pub fn load(config: &SteerConfig) -> Result<Self, BpfError> {
        config.check()?;
        log::capture(|log| Self::load_logged(config, log))
    }

    fn load_logged(config: &SteerConfig, log: &dyn Fn() -> String) -> Result<Self, BpfError> {
        let load_error = |error: libbpf_rs::Error| load_error(&error, log);
        let mut object = MaybeUninit::<OpenObject>::uninit();
        let mut open = SteerSkelBuilder::default()
            .open(&mut object)
            .map_err(|error| open_error(&error))?;
        let Some(constants) = open.maps.rodata_data.as_deref_mut() else {
            return Err(BpfError::Open {
                cause: "it has no constants".to_owned(),
            });
        };
        for (to, ifindex) in constants.interfaces.iter_mut().zip(&config.interfaces) {
            *to = *ifindex;
        }
        constants.queues = config.queues;
        constants.workers = config.workers;
        constants.frame_len_max = config.frame_len_max;
        if let Some(key) = config.call_id_key {
            constants.by_call_id = 1;
            constants.call_id_key = key.words();
        }

        // Twice the bounds: on a reload the new entries are there before the old ones go.
        let sizes = [
            (&mut open.maps.vips, 2 * VIPS_MAX),
            (&mut open.maps.sources, 2 * SOURCE_NETWORKS_MAX),
            (&mut open.maps.xsks, config.slot_count()),
            (&mut open.maps.known, config.limit_sources as usize),
            (&mut open.maps.strangers, config.limit_sources as usize),
        ];
        for (map, entries) in sizes {
            map.set_max_entries(u32::try_from(entries).unwrap_or(u32::MAX))
                .map_err(load_error)?;
        }

        let loaded = open.load().map_err(load_error)?;
        let handle = |map| MapHandle::try_from(map).map_err(load_error);
        let program = Self {
            config: config.clone(),
            program: loaded
                .progs
                .steer
                .as_fd()
                .try_clone_to_owned()
                .map_err(|cause| load_error(cause.into()))?,
            control: handle(&loaded.maps.control)?,
            vips_map: handle(&loaded.maps.vips)?,
            sources_map: handle(&loaded.maps.sources)?,
            xsks: handle(&loaded.maps.xsks)?,
            known: handle(&loaded.maps.known)?,
            strangers: handle(&loaded.maps.strangers)?,
            refused: handle(&loaded.maps.refused)?,
            counts: CountsReader::new(handle(&loaded.maps.verdicts)?),
            steered: handle(&loaded.maps.steered)?,
            vips: HashMap::new(),
            lists: HashMap::new(),
            last_list: 0,
        };
        program.check_layout()?;
        program.enable(true)?;
        Ok(program)
    }

    /// Whether the maps have the sizes that `layout` writes.
    fn check_layout(&self) -> Result<(), BpfError> {
        let expected = [
            (&self.control, "control", 4, 4),
            (
                &self.vips_map,
                "vips",
                size_of::<VipKey>(),
                size_of::<VipValue>(),
            ),
            (&self.sources_map, "sources", size_of::<SourceKey>(), 4),
            (&self.xsks, "xsks", 4, 4),
            (&self.known, "known", size_of::<BucketKey>(), 8),
            (&self.strangers, "strangers", size_of::<BucketKey>(), 8),
            (&self.refused, "refused", 4, REFUSED_LEN),
            (&self.steered, "steered", 4, SteeredCounts::LEN),
        ];
        for (map, name, key_size, value_size) in expected {
            if map.key_size() as usize != key_size || map.value_size() as usize != value_size {
                return Err(BpfError::Layout {
                    map: name,
                    key_size: map.key_size(),
                    value_size: map.value_size(),
                });
            }
        }
        Ok(())
    }

    /// What it was loaded for.
    pub fn config(&self) -> &SteerConfig {
        &self.config
    }

    /// The kill switch: off, every frame goes to the kernel.
    ///
    /// # Errors
    /// The system's.
    pub fn enable(&self, enabled: bool) -> Result<(), BpfError> {
        let value = u32::from(enabled).to_ne_bytes();
        update(&self.control, "control", &0_u32.to_ne_bytes(), &value)
    }

    /// Puts a socket into its slot. Sockets first, then [`attach`](Self::attach), so that no
    /// datagram finds an empty slot. The kernel empties the slot when the socket is closed.
    ///
    /// # Errors
    /// A slot that the program was not loaded with; the system's.
    pub fn set_socket(&self, slot: Slot, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let index = self.slot_index(slot)?;
        let value = socket.as_raw_fd().to_ne_bytes();
        update(&self.xsks, "xsks", &index.to_ne_bytes(), &value)
    }

    /// Empties a slot: its datagrams go to the kernel.
    ///
    /// # Errors
    /// A slot that the program was not loaded with; the system's.
    pub fn clear_socket(&self, slot: Slot) -> Result<(), BpfError> {
        let index = self.slot_index(slot)?;
        delete(&self.xsks, "xsks", &index.to_ne_bytes())
    }

    fn slot_index(&self, slot: Slot) -> Result<u32, BpfError> {
        self.config.slot_index(slot).ok_or(BpfError::Slot {
            ifindex: slot.ifindex,
            queue: slot.queue,
            worker: slot.worker,
        })
    }

    /// Adds a VIP, or changes the one that is there, its lists as a whole.
    ///
    /// # Errors
    /// A map is full; the system's.
    pub fn set_vip(&mut self, address: SocketAddr, vip: &Vip) -> Result<(), BpfError> {
        let mut vips: Vec<_> = self.vips.clone().into_iter().collect();
        vips.retain(|(there, _)| *there != plain(address));
        vips.push((address, vip.clone()));
        self.replace_vips(&vips)
    }

    /// Removes a VIP: its datagrams go to the kernel.
    ///
    /// # Errors
    /// The system's.
    pub fn remove_vip(&mut self, address: SocketAddr) -> Result<(), BpfError> {
        let mut vips: Vec<_> = self.vips.clone().into_iter().collect();
        vips.retain(|(there, _)| *there != plain(address));
        self.replace_vips(&vips)
    }

    /// Makes the VIPs exactly these. The program may be running: an address that stays is at every
    /// moment served with its old lists or its new ones, never with a part of a list.
    ///
    /// Source lists that changed are written under new numbers first, then each VIP is switched to
    /// its lists by one update, then VIPs and lists that nobody uses any more are removed.
    ///
    /// # Errors
    /// Too many VIPs or networks: nothing was changed. The system's, in the middle: what was written
    /// so far stays, old lists stay complete, and the call may be repeated.
    pub fn replace_vips(&mut self, vips: &[(SocketAddr, Vip)]) -> Result<(), BpfError> {
        let vips: HashMap<SocketAddr, Vip> = vips
            .iter()
            .map(|(address, vip)| (plain(*address), vip.normal()))
            .collect();
        check_bounds(&vips)?;

        for (address, vip) in &vips {
            if self.vips.get(address) == Some(vip) {
                continue;
            }
            let lists = ListNumbers {
                deny: self.list(&vip.deny)?,
                allow: self.list(&vip.allow)?,
                exempt: self.list(vip.exempt())?,
            };
            let limit = vip.limit.as_ref().map(Limit::sizes);
            let value = VipValue::new(vip.listener, lists, limit).to_bytes();
            update(
                &self.vips_map,
                "vips",
                &VipKey::new(*address).to_bytes(),
                &value,
            )?;
            self.vips.insert(*address, vip.clone());
        }

        let stale: Vec<SocketAddr> = self
            .vips
            .keys()
            .filter(|address| !vips.contains_key(address))
            .copied()
            .collect();
        for address in stale {
            delete(&self.vips_map, "vips", &VipKey::new(address).to_bytes())?;
            self.vips.remove(&address);
        }
        self.remove_unused_lists()
    }

    /// The number of a list, written to the map if it is new; 0 for an empty one.
    fn list(&mut self, networks: &[Network]) -> Result<u32, BpfError> {
        if networks.is_empty() {
            return Ok(0);
        }
        if let Some(list) = self.lists.get(networks) {
            return Ok(*list);
        }
        // 2^32 changes of a list are more than a process lives to see.
        self.last_list = self.last_list.wrapping_add(1);
        let list = self.last_list;
        let written = networks.iter().try_for_each(|network| {
            let key = SourceKey::new(list, network).to_bytes();
            update(&self.sources_map, "sources", &key, &1_u32.to_ne_bytes())
        });
        if let Err(error) = written {
            // No VIP has its number yet; take back what was written of it.
            let _ = self.remove_list(list, networks);
            return Err(error);
        }
        self.lists.insert(networks.to_vec(), list);
        Ok(list)
    }

    fn remove_list(&self, list: u32, networks: &[Network]) -> Result<(), BpfError> {
        networks.iter().try_for_each(|network| {
            let key = SourceKey::new(list, network).to_bytes();
            delete(&self.sources_map, "sources", &key)
        })
    }

    fn remove_unused_lists(&mut self) -> Result<(), BpfError> {
        let unused: Vec<Vec<Network>> = self
            .lists
            .keys()
            .filter(|list| {
                let mut vips = self.vips.values();
                !vips.any(|vip| vip.lists().contains(&list.as_slice()))
            })
            .cloned()
            .collect();
        for networks in unused {
            let Some(list) = self.lists.remove(&networks) else {
                continue;
            };
            self.remove_list(list, &networks)?;
        }
        Ok(())
    }

    /// Makes a source known: its datagrams are no longer counted among those of strangers. One that
    /// is known already keeps its bucket.
    ///
    /// # Errors
    /// The system's.
    pub fn make_known(&self, source: IpAddr) -> Result<(), BpfError> {
        let key = BucketKey::new(source).to_bytes();
        // The bucket was full at the epoch, so it is full now.
        let due = 0_u64.to_ne_bytes();
        match self.known.update(&key, &due, MapFlags::NO_EXIST) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::AlreadyExists => {
                Err(map_error("known", "write", &error))
            }
            _ => Ok(()),
        }
    }

    /// How many sources are counted now: known ones and strangers. Walks the maps, entry by entry.
    pub fn counted_sources(&self) -> (usize, usize) {
        (self.known.keys().count(), self.strangers.keys().count())
    }

    /// A source that the limiter has refused since the last call, if there is one: by its own bucket,
    /// and by that of all strangers. In a dry run the same.
    ///
    /// # Errors
    /// The system's.
    pub fn take_refused(&self) -> Result<[Option<IpAddr>; 2], BpfError> {
        let mut sources = [None; 2];
        for (bucket, source) in (0_u32..).zip(&mut sources) {
            let key = bucket.to_ne_bytes();
            let mut per_cpu = self
                .refused
                .lookup_percpu(&key, MapFlags::ANY)
                .map_err(|error| map_error("refused", "read", &error))?
                .unwrap_or_default();
            *source = per_cpu.iter().find_map(|bytes| refused_source(bytes));
            if source.is_some() {
                per_cpu.iter_mut().for_each(|bytes| bytes.fill(0));
                self.refused
                    .update_percpu(&key, &per_cpu, MapFlags::ANY)
                    .map_err(|error| map_error("refused", "write", &error))?;
            }
        }
        Ok(sources)
    }

    /// Attaches the program to an interface of the calling thread's network namespace, for as long
    /// as the link lives.
    ///
    /// # Errors
    /// The interface was not among those loaded for; another program is attached; the driver cannot.
    pub fn attach(&self, ifindex: u32, mode: AttachMode) -> Result<Link, BpfError> {
        self.slot_index(Slot {
            ifindex,
            queue: 0,
            worker: 0,
        })?;
        Link::attach(self.program.as_fd(), ifindex, mode)
    }

    /// Frames by verdict since loading.
    ///
    /// # Errors
    /// The system's.
    pub fn counts(&self) -> Result<SteerCounts, BpfError> {
        self.counts.read()
    }

    /// How the workers of redirected datagrams were chosen since loading; zeros where no Call-ID may
    /// choose.
    ///
    /// # Errors
    /// The system's.
    pub fn steered(&self) -> Result<SteeredCounts, BpfError> {
        SteeredCounts::read(&self.steered)
    }

    /// A reader of the counters that lives on its own.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn counts_reader(&self) -> Result<CountsReader, BpfError> {
        self.counts.try_clone()
    }
}

impl AsFd for SteerProgram {
    /// The program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl SteerConfig {
    fn slot_count(&self) -> usize {
        self.interfaces.len() * self.queues as usize * self.workers as usize
    }
}

impl Vip {
    /// The same with sorted lists, so that equal lists compare equal.
    fn normal(&self) -> Self {
        let sorted = |networks: &[Network]| {
            let mut networks = networks.to_vec();
            networks.sort_unstable_by_key(|network| (network.address(), network.prefix_len()));
            networks.dedup();
            networks
        };
        Self {
            listener: self.listener,
            allow: sorted(&self.allow),
            deny: sorted(&self.deny),
            limit: self.limit.as_ref().map(|limit| Limit {
                exempt: sorted(&limit.exempt),
                ..limit.clone()
            }),
        }
    }

    fn exempt(&self) -> &[Network] {
        self.limit.as_ref().map_or(&[], |limit| &limit.exempt)
    }

    fn lists(&self) -> [&[Network]; 3] {
        [&self.allow, &self.deny, self.exempt()]
    }
}

/// One form per address: IPv4 out of IPv6, no scope, no flow label.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical(address.ip()), address.port())
}

fn check_bounds(vips: &HashMap<SocketAddr, Vip>) -> Result<(), BpfError> {
    if let Some(address) = vips.keys().nth(VIPS_MAX) {
        return Err(BpfError::TooManyVips {
            address: *address,
            max: VIPS_MAX,
        });
    }
    let lists: HashSet<&[Network]> = vips.values().flat_map(Vip::lists).collect();
    let count: usize = lists.iter().map(|list| list.len()).sum();
    if count > SOURCE_NETWORKS_MAX {
        return Err(BpfError::TooManyNetworks {
            count,
            max: SOURCE_NETWORKS_MAX,
        });
    }
    Ok(())
}

fn update(map: &MapHandle, name: &'static str, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
    map.update(key, value, MapFlags::ANY)
        .map_err(|error| map_error(name, "write", &error))
}

/// Removes an entry; one that is not there is as good as removed.
fn delete(map: &MapHandle, name: &'static str, key: &[u8]) -> Result<(), BpfError> {
    match map.delete(key) {
        Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
            Err(map_error(name, "remove from", &error))
        }
        _ => Ok(()),
    }
}
