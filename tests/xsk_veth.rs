//! AF_XDP over a real kernel: two namespaces, a veth pair with two queues, two workers with two
//! sockets each.
//!
//! ```text
//!   namespace "outside"                      namespace "inside"
//!   Sender q0 ─┐                      ┌─ q0: socket of worker 0 (owner), socket of worker 1
//!              ├─ near ════════ far ──┤
//!   Sender q1 ─┘                      └─ q1: socket of worker 0, socket of worker 1 (owner)
//! ```
//!
//! Run as root: `cargo nextest run --test xsk_veth --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arrayvec::ArrayVec;
use common::netns::{Namespace, ifindex};
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};
use viaduct::limits::{BATCH, RX_FRAME_LEN_MAX};
use viaduct::sys::clock;
use viaduct::time::Duration;
use viaduct::xsk::{
    DeviceQueue, Frame, FrameCache, HugePages, Kick, KickCounts, Mode, Queue, QueueConfig,
    QueueRings, Sender, Socket, Umem, UmemConfig, XskError,
};

const QUEUES: usize = 2;
const WORKERS: usize = 2;

// ---- the place ----------------------------------------------------------------------------------

/// Two namespaces with a veth pair of two queues between them.
struct Place {
    outside: Namespace,
    inside: Namespace,
}

impl Place {
    fn new() -> Self {
        let (outside, inside) = (Namespace::new(), Namespace::new());
        outside.ip(&format!(
            "link add near numrxqueues 2 numtxqueues 2 type veth \
             peer name far numrxqueues 2 numtxqueues 2 netns {}",
            inside.name()
        ));
        // No addresses, no router solicitations: nothing but our frames on the wire.
        for (namespace, interface) in [(&outside, "near"), (&inside, "far")] {
            namespace.ip(&format!("link set dev {interface} addrgenmode none"));
            namespace.ip(&format!("link set dev {interface} up"));
        }
        Self { outside, inside }
    }

    /// Runs `set_up` in the namespace inside, with the index of its interface.
    fn inside<R>(&self, set_up: impl FnOnce(u32) -> R) -> R {
        self.inside.enter();
        set_up(ifindex("far"))
    }

    /// Runs `set_up` in the namespace outside, with the index of its interface.
    fn outside<R>(&self, set_up: impl FnOnce(u32) -> R) -> R {
        self.outside.enter();
        set_up(ifindex("near"))
    }
}

/// Spreads frames over the workers of a queue by the first byte behind the Ethernet header. Needs
/// no header file.
const SPREAD: &str = r#"
#define SEC(name) __attribute__((section(name), used))
struct xdp_md { unsigned data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
static long (*const redirect_map)(void *, unsigned long long, unsigned long long) = (void *)51;
struct { int (*type)[17]; int (*max_entries)[4]; unsigned *key, *value; } xsks SEC(".maps");
SEC("xdp") int spread(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + 15 > end)
		return 1;
	return redirect_map(&xsks, ctx->rx_queue_index * 2 + (data[14] & 1), 1);
}
char LICENSE[] SEC("license") = "Dual MIT/GPL";
"#;

/// The program, attached for as long as this lives.
struct Spread {
    _object: Object,
    _link: Link,
}

impl Spread {
    /// Loads the program, puts the sockets into slot `queue × 2 + worker`, then attaches it.
    fn attach(interface: u32, sockets: &[(usize, BorrowedFd<'_>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let object = compile(folder.path());
        let object = ObjectBuilder::default()
            .open_file(object)
            .unwrap()
            .load()
            .unwrap();
        for (slot, socket) in sockets {
            let key = u32::try_from(*slot).unwrap().to_ne_bytes();
            let map = object.maps().next().unwrap();
            map.update(&key, &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
                .unwrap();
        }
        let program = object.progs_mut().next().unwrap();
        let link = program
            .attach_xdp(i32::try_from(interface).unwrap())
            .unwrap();
        Self {
            _object: object,
            _link: link,
        }
    }
}

fn compile(folder: &Path) -> std::path::PathBuf {
    let (source, object) = (folder.join("spread.c"), folder.join("spread.o"));
    std::fs::write(&source, SPREAD).unwrap();
    let status = Command::new("clang")
        .args(["-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status()
        .unwrap();
    assert!(status.success());
    object
}

fn umem(queues: usize, sockets: usize) -> &'static Umem {
    Umem::map(UmemConfig::for_rings(queues, sockets, WORKERS)).unwrap()
}

fn fds(sockets: &[Socket]) -> impl Iterator<Item = BorrowedFd<'_>> {
    sockets.iter().map(|socket| socket.fd().unwrap())
}

// ---- frames -------------------------------------------------------------------------------------

/// Ethernet type for local experiments (IEEE Std 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Length of the frame with this number: every length from the shortest to the longest there is.
fn len_of(number: u64) -> usize {
    60 + usize::try_from(number % 1455).unwrap()
}

/// Ethernet header, the worker's byte, the number, and bytes that follow from the number.
fn write_frame(frame: &mut Frame, number: u64) {
    let start = frame.start();
    frame.set_range(start, start + len_of(number));
    let data = frame.data_mut();
    data[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    data[12..14].copy_from_slice(&ETHERTYPE);
    data[14] = number.to_le_bytes()[1];
    data[15..23].copy_from_slice(&number.to_le_bytes());
    data[23..].fill(number.to_le_bytes()[0]);
}

/// The number of a frame that came back, if it is whole.
fn read_frame(data: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(data.get(15..23)?.try_into().ok()?);
    let fill = number.to_le_bytes()[0];
    let whole = data.len() == len_of(number)
        && data[..12] == [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]
        && data[12..14] == ETHERTYPE
        && data[23..].iter().all(|byte| *byte == fill);
    whole.then_some(number)
}

// ---- the workers --------------------------------------------------------------------------------

/// What one worker has: the rings of its own queue, a socket on each queue, a cache.
struct Worker {
    rings: QueueRings,
    sockets: Vec<Socket>,
    cache: FrameCache,
    kicks: KickCounts,
    forwarded: u64,
}

/// A frame on its way to another worker, and the queue that it shall leave by.
type Handed = (Frame, usize);

/// Opens every queue with a socket for each worker and deals them out.
fn open_workers(interface: u32, umem: &'static Umem) -> Vec<Worker> {
    let configs: Vec<_> = (0..QUEUES)
        .map(|queue| QueueConfig::new(interface, u32::try_from(queue).unwrap(), WORKERS))
        .collect();
    let mut cache = umem.cache();
    // veth has no zero-copy, so this is also the test of giving it up.
    let open = DeviceQueue::open_all(umem, &configs, true, &mut cache).unwrap();
    assert_eq!(open.mode, Mode::Copy);
    let refusal = open.refusal.unwrap();
    assert!(
        matches!(
            refusal,
            XskError::Bind {
                mode: Mode::ZeroCopy,
                ..
            }
        ),
        "{refusal}"
    );
    let (rings, sockets): (Vec<_>, Vec<_>) = open
        .queues
        .into_iter()
        .map(|queue| (queue.rings, queue.sockets))
        .unzip();
    let mut workers: Vec<_> = rings
        .into_iter()
        .map(|rings| Worker {
            rings,
            sockets: Vec::new(),
            cache: umem.cache(),
            kicks: KickCounts::default(),
            forwarded: 0,
        })
        .collect();
    for sockets in sockets {
        for (worker, socket) in workers.iter_mut().zip(sockets) {
            worker.sockets.push(socket);
        }
    }
    workers
}

impl Worker {
    /// One round: completions, fill, RX of every queue, what was handed over, TX, kick. Returns
    /// whether there was anything to do.
    fn turn(&mut self, mine: &Queue<Handed>, other: &Queue<Handed>) -> bool {
        self.rings.reclaim(&mut self.cache);
        self.rings.refill(&mut self.cache);
        let mut batches = [const { ArrayVec::<Frame, BATCH>::new_const() }; QUEUES];
        let mut work = false;
        for from in 0..QUEUES {
            let mut received = ArrayVec::<Frame, BATCH>::new();
            work |= self.sockets[from].receive(&mut received) > 0;
            for mut frame in received {
                let data = frame.data_mut();
                let (destination, rest) = data.split_at_mut(6);
                destination.swap_with_slice(&mut rest[..6]);
                let number = data[15];
                // One in four goes to the other worker first; by either queue they leave.
                let to = usize::from(number >> 2) % QUEUES;
                if number % 4 == 0 {
                    if let Err((frame, _)) = other.push((frame, to)) {
                        self.cache.release(frame);
                    }
                    continue;
                }
                if let Err(full) = batches[to].try_push(frame) {
                    self.send(to, &mut batches[to]);
                    batches[to].push(full.element());
                }
            }
        }
        for _ in 0..BATCH {
            let Some((frame, to)) = mine.pop() else { break };
            work = true;
            if batches[to].is_full() {
                self.send(to, &mut batches[to]);
            }
            batches[to].push(frame);
        }
        for (to, batch) in batches.iter_mut().enumerate() {
            self.send(to, batch);
            work |= self.sockets[to].tx_len() > 0;
        }
        work
    }

    fn send(&mut self, to: usize, batch: &mut ArrayVec<Frame, BATCH>) {
        self.forwarded += self.sockets[to].transmit(batch) as u64;
        for frame in batch.drain(..) {
            self.cache.release(frame);
        }
        self.sockets[to].kick(&mut self.kicks).unwrap();
    }
}

/// What the parts of a place have of a UMEM's frames.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    fill: usize,
    rx: usize,
    tx: usize,
    completion: usize,
    caches: usize,
}

impl Places {
    fn count<'a>(
        rings: impl Iterator<Item = &'a QueueRings>,
        sockets: impl Iterator<Item = &'a Socket>,
        caches: impl Iterator<Item = &'a FrameCache>,
    ) -> Self {
        let mut places = Self::default();
        for rings in rings {
            places.fill += rings.fill_len() as usize;
            places.completion += rings.completion_len() as usize;
        }
        for socket in sockets {
            places.rx += socket.rx_len() as usize;
            places.tx += socket.tx_len() as usize;
        }
        places.caches = caches.map(FrameCache::len).sum();
        places
    }

    /// That the rings hold what the ledger says, and that all adds up.
    fn assert_add_up(&self, umem: &Umem) {
        let census = umem.census();
        assert_eq!(census.receiving, self.fill + self.rx, "{self:?} {census:?}");
        assert_eq!(
            census.sending,
            self.tx + self.completion,
            "{self:?} {census:?}"
        );
        let sum = census.pooled
            + census.orphans
            + self.caches
            + self.fill
            + self.rx
            + self.tx
            + self.completion;
        assert_eq!(sum, census.total, "{self:?} {census:?}");
        assert_eq!(umem.refused(), 0);
    }
}

/// 10^6 frames through two workers with two sockets each on two queues, out again by either queue
/// and by way of either worker: all of them return, whole, once, and no frame is lost anywhere.
#[test]
#[ignore = "needs root"]
fn places_add_up_after_a_million_frames() {
    const FRAMES: u64 = 1_000_000;
    // Frames on the way at once: within the 256 that a veth queue holds, so that none is dropped.
    const WINDOW: u64 = 96;

    let place = Place::new();
    let (inner, outer) = (umem(QUEUES, WORKERS), umem(QUEUES, 1));
    let mut workers = place.inside(|far| open_workers(far, inner));
    let slots: Vec<_> = workers
        .iter()
        .enumerate()
        .flat_map(|(worker, it)| {
            let slot = move |(queue, fd)| (queue * WORKERS + worker, fd);
            fds(&it.sockets).enumerate().map(slot)
        })
        .collect();
    let _inside = place.inside(|far| Spread::attach(far, &slots));
    let (mut senders, _outside) = place.outside(|near| {
        let open = |queue| {
            let config = QueueConfig::new(near, queue, 1);
            Sender::open(outer, &config, Mode::Copy).unwrap()
        };
        let senders = [open(0), open(1)];
        let slots: Vec<_> = senders
            .iter()
            .flat_map(|sender| fds(&sender.queue().sockets))
            .enumerate()
            .flat_map(|(queue, fd)| [(2 * queue, fd), (2 * queue + 1, fd)])
            .collect();
        let spread = Spread::attach(near, &slots);
        (senders, spread)
    });
    for worker in &workers {
        for socket in &worker.sockets {
            assert_eq!(socket.mode_obtained().unwrap(), Mode::Copy);
        }
    }

    let handed: [Queue<Handed>; WORKERS] = [(); WORKERS].map(|()| Queue::with_capacity(1024));
    let stop = AtomicBool::new(false);
    let began = clock::now();
    let mut seen = vec![false; usize::try_from(FRAMES).unwrap()];
    thread::scope(|scope| {
        for (index, worker) in workers.iter_mut().enumerate() {
            let (mine, other) = (&handed[index], &handed[1 - index]);
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if !worker.turn(mine, other) {
                        thread::yield_now();
                    }
                }
            });
        }

        let (mut next, mut returned) = (0, 0);
        let mut last = began;
        while returned < FRAMES {
            for sender in &mut senders {
                sender
                    .send(|frame| {
                        let more = next < FRAMES && next - returned < WINDOW;
                        if more {
                            write_frame(frame, next);
                            next += 1;
                        }
                        more
                    })
                    .unwrap();
                sender.receive(|frame| {
                    let number = read_frame(frame.data()).unwrap();
                    let seen = &mut seen[usize::try_from(number).unwrap()];
                    assert!(!*seen, "frame {number} came twice");
                    *seen = true;
                    returned += 1;
                    last = clock::now();
                });
            }
            let stalled = clock::now().since(last) > Duration::from_secs(10);
            if stalled {
                stop.store(true, Ordering::Relaxed);
                panic!("{returned} of {next} frames returned, then none for 10 s");
            }
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let took = clock::now().since(began);
    println!("{FRAMES} frames there and back in {took:?}");

    // What was sent last may still be on its way into the completion ring.
    thread::sleep(Duration::from_millis(100));
    let sockets = || workers.iter().flat_map(|worker| &worker.sockets);
    for socket in sockets() {
        let statistics = socket.statistics().unwrap();
        assert_eq!(statistics.rx_dropped, 0, "{statistics:?}");
        assert_eq!(statistics.rx_invalid, 0, "{statistics:?}");
        assert_eq!(statistics.tx_invalid, 0, "{statistics:?}");
    }
    let forwarded: u64 = workers.iter().map(|worker| worker.forwarded).sum();
    assert_eq!(forwarded, FRAMES);
    // Both workers and all four sockets had their part.
    assert!(workers.iter().all(|worker| worker.forwarded > FRAMES / 4));
    Places::count(
        workers.iter().map(|worker| &worker.rings),
        sockets(),
        workers.iter().map(|worker| &worker.cache),
    )
    .assert_add_up(inner);
    Places::count(
        senders.iter().map(|sender| &sender.queue().rings),
        senders.iter().flat_map(|sender| &sender.queue().sockets),
        senders.iter().map(Sender::cache),
    )
    .assert_add_up(outer);

    drop((workers, senders));
    for umem in [inner, outer] {
        let census = umem.census();
        assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
        assert_eq!(umem.pool().orphans_total(), 0, "a frame was dropped");
    }
}

// ---- opening and closing ------------------------------------------------------------------------

fn open(interface: u32, queue: u32, cache: &mut FrameCache) -> Result<DeviceQueue, XskError> {
    let config = QueueConfig::new(interface, queue, WORKERS);
    DeviceQueue::open(cache.umem(), &config, Mode::Copy, cache)
}

/// The kernel clears a closed queue some time after the close.
#[test]
#[ignore = "needs root"]
fn queue_is_bound_again_right_after_it_was_closed() {
    let place = Place::new();
    let mut cache = umem(QUEUES, WORKERS).cache();
    place.inside(|far| {
        for _ in 0..20 {
            drop(open(far, 0, &mut cache).unwrap());
        }
    });
    let umem = cache.umem();
    drop(cache);
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total);
}

/// The UMEM is registered by the first socket; others name any that is open, the first or not.
#[test]
#[ignore = "needs root"]
fn queues_share_the_umem_in_any_order_of_life() {
    let place = Place::new();
    let mut cache = umem(2 * QUEUES, WORKERS).cache();
    let (first, second) = place.inside(|far| {
        let first = open(far, 0, &mut cache).unwrap();
        (first, open(far, 1, &mut cache).unwrap())
    });
    // Another device, in another namespace, over the same UMEM.
    let third = place.outside(|near| open(near, 0, &mut cache).unwrap());
    drop(first);
    let first = place.inside(|far| open(far, 0, &mut cache).unwrap());
    drop((second, third, first));
    // Nobody left to name: registered anew.
    place.inside(|far| drop(open(far, 1, &mut cache).unwrap()));
    let umem = cache.umem();
    drop(cache);
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total);
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_bound_is_refused_with_its_reason_and_loses_no_frame() {
    let place = Place::new();
    let mut cache = umem(2 * QUEUES, WORKERS).cache();
    let umem = cache.umem();
    place.inside(|far| {
        let refused = |result: Result<DeviceQueue, XskError>, says: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
        };
        refused(open(far, 2, &mut cache), "is there such a queue?");
        refused(
            open(far + 1000, 0, &mut cache),
            "is there such an interface?",
        );
        let first = open(far, 0, &mut cache).unwrap();
        // The queue has its rings already.
        refused(open(far, 0, &mut cache), "queue 0 of interface");
        let zero_copy = QueueConfig::new(far, 1, 1);
        refused(
            DeviceQueue::open(umem, &zero_copy, Mode::ZeroCopy, &mut cache),
            "the UMEM is open in copy mode",
        );
        for sockets in [0, viaduct::limits::WORKERS_MAX + 1] {
            let config = QueueConfig::new(far, 1, sockets);
            let result = DeviceQueue::open(umem, &config, Mode::Copy, &mut cache);
            assert!(matches!(result, Err(XskError::SocketCount)));
        }
        drop(first);
    });
    drop(cache);
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
    assert_eq!((census.receiving, census.sending), (0, 0));
}

/// Down is a state, gone is the end.
#[test]
#[ignore = "needs root"]
fn link_that_goes_down_and_away_is_told_apart() {
    let place = Place::new();
    let mut cache = umem(QUEUES, WORKERS).cache();
    let mut queue = place.inside(|far| open(far, 0, &mut cache).unwrap());
    let socket = &mut queue.sockets[0];
    let mut kicks = KickCounts::default();
    let mut batch = ArrayVec::<Frame, BATCH>::new();
    let mut frame = cache.allocate().unwrap();
    write_frame(&mut frame, 1);
    batch.push(frame);

    place.inside.ip("link set dev far down");
    socket.transmit(&mut batch);
    assert_eq!(socket.kick(&mut kicks).unwrap(), Kick::Down);
    assert_eq!((socket.tx_len(), kicks.down), (1, 1));
    place.inside.ip("link set dev far up");
    assert_eq!(socket.kick(&mut kicks).unwrap(), Kick::Done);
    assert_eq!(socket.kick(&mut kicks).unwrap(), Kick::Idle);

    let mut frame = cache.allocate().unwrap();
    write_frame(&mut frame, 2);
    batch.push(frame);
    socket.transmit(&mut batch);
    place.inside.ip("link del dev far");
    let error = socket.kick(&mut kicks).unwrap_err();
    assert!(matches!(error, XskError::Lost(_)), "{error}");
    let umem = cache.umem();
    drop((queue, cache));
    let census = umem.census();
    assert_eq!(census.pooled + census.orphans, census.total, "{census:?}");
}

/// Both sides of the longest frame that one chunk receives.
#[test]
#[ignore = "needs root"]
fn frame_longer_than_a_chunk_receives_is_counted_and_not_cut() {
    let place = Place::new();
    place.outside.ip("link set dev near mtu 3400");
    place.inside.ip("link set dev far mtu 3400");
    let (inner, outer) = (umem(1, 1), umem(1, 1));
    let open = |umem, interface| {
        Sender::open(umem, &QueueConfig::new(interface, 0, 1), Mode::Copy).unwrap()
    };
    let mut receiver = place.inside(|far| open(inner, far));
    let slots: Vec<_> = fds(&receiver.queue().sockets).map(|fd| (0, fd)).collect();
    let _spread = place.inside(|far| Spread::attach(far, &slots));
    let mut sender = place.outside(|near| open(outer, near));
    let mut send = |len| {
        let mut once = true;
        let sent = sender.send(|frame| {
            frame.set_range(0, len);
            frame.data_mut()[12..14].copy_from_slice(&ETHERTYPE);
            core::mem::take(&mut once)
        });
        assert_eq!(sent.unwrap(), 1);
        thread::sleep(Duration::from_millis(50));
    };
    let mut received = Vec::new();
    for len in [RX_FRAME_LEN_MAX + 1, RX_FRAME_LEN_MAX] {
        send(len);
        receiver.receive(|frame| received.push(frame.len()));
    }
    assert_eq!(received, [RX_FRAME_LEN_MAX]);
    assert_eq!(receiver.statistics().unwrap().rx_dropped, 1);
}

/// A UMEM on huge pages when there are any, else on normal ones; both can be registered.
#[test]
#[ignore = "needs root"]
fn umem_of_either_kind_of_pages_can_be_bound() {
    let place = Place::new();
    for huge_pages in [HugePages::Never, HugePages::Try] {
        let config = UmemConfig {
            huge_pages,
            ..UmemConfig::for_rings(1, WORKERS, WORKERS)
        };
        let umem = Umem::map(config).unwrap();
        println!("{huge_pages:?}: {} pages", umem.pages().as_str());
        let mut cache = umem.cache();
        place.inside(|far| drop(open(far, 0, &mut cache).unwrap()));
    }
}
