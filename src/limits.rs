//! Every bound of viaduct in one place, with its reason and the relations between them.
//!
//! Nothing here is read from the configuration; a configured value is checked against these.

use core::time::Duration;

// ---- frames and packets -------------------------------------------------------------------------

/// Bytes of one UMEM chunk. A page: "some drivers require frame_size = page_size" (agave), and a
/// 1,500-byte frame plus both headrooms fits with room to spare.
pub const FRAME_LEN: usize = 4096;

/// Our part of the headroom in front of a received frame, set at UMEM registration.
/// With the kernel's part it must hold the worst-case growth of a request, see [`GROWTH_MAX`].
pub const UMEM_HEADROOM: usize = 512;

/// The kernel's own headroom before received data (`XDP_PACKET_HEADROOM`, linux/bpf.h).
pub const XDP_PACKET_HEADROOM: usize = 256;

/// Longest link-layer frame that an RX descriptor can carry in one chunk.
pub const RX_FRAME_LEN_MAX: usize = FRAME_LEN - UMEM_HEADROOM - XDP_PACKET_HEADROOM;

/// Link-layer to transport headers at most: 14 Ethernet + 2 × 4 VLAN + 40 IPv6 + 8 UDP.
pub const L2_L4_LEN_MAX: usize = 14 + 8 + 40 + 8;

/// Largest UDP payload (65,535 − 8 UDP − 20 IPv4); RFC 3261 §18.1.1 requires accepting it.
pub const DATAGRAM_LEN_MAX: usize = 65_507;

/// Bytes a forwarded request may grow by: our `Via` (112 over IPv4, 150 over IPv6), two
/// `Record-Route` rows, a pushed `Route`, `Max-Forwards`, `Max-Breadth`, `received` and `rport`.
/// Two-armed IPv6 with a pushed Route is about 600 bytes, the client's address takes 75, overload control 18.
pub const GROWTH_MAX: usize = 696;

const _: () = assert!(GROWTH_MAX + L2_L4_LEN_MAX <= UMEM_HEADROOM + XDP_PACKET_HEADROOM);
const _: () = assert!(RX_FRAME_LEN_MAX >= 1522);

/// A buffer of the kernel path: the largest datagram plus room to grow.
pub const KERNEL_BUFFER_LEN: usize = 66 * 1024;
const _: () = assert!(KERNEL_BUFFER_LEN >= DATAGRAM_LEN_MAX + GROWTH_MAX + L2_L4_LEN_MAX);

/// Kernel-path buffers of one worker: 256 × 66 KiB ≈ 17 MiB of address space, touched when used.
pub const KERNEL_BUFFERS_PER_WORKER: usize = 256;

/// Frames taken from a ring, decided and sent together (the NAPI weight).
pub const BATCH: usize = 64;

/// Frames in one slab that moves between a worker's cache and the global pool.
pub const SLAB: usize = 64;

/// RX and TX ring entries.
pub const RING_LEN: u32 = 2048;

/// Fill and completion ring entries: twice the RX ring, so that a refill never finds it full
/// (Firedancer measured 200 ns per frame lost otherwise).
pub const FILL_RING_LEN: u32 = 2 * RING_LEN;
const _: () = assert!(RING_LEN.is_power_of_two() && FILL_RING_LEN.is_power_of_two());

/// Entries of a worker's hand-over ring. Full is a counted drop.
pub const HAND_OVER_RING_LEN: usize = 4096;

/// Workers (pinned threads) of one process.
pub const WORKERS_MAX: usize = 64;

/// NIC queues of one interface that viaduct serves.
pub const QUEUES_MAX: usize = 64;

/// Interfaces (arms) of one process.
pub const INTERFACES_MAX: usize = 8;

// ---- egress -------------------------------------------------------------------------------------

/// Routes of all tables that a snapshot takes. A host with more (a full BGP table) routes in the
/// kernel: a missing route could hide a longer prefix, so none of the snapshot is then trusted.
pub const ROUTES_MAX: usize = 65_536;

/// Neighbours that a snapshot takes. The rest is unresolved and goes through the kernel.
pub const NEIGHBOURS_MAX: usize = 65_536;

/// Interfaces of the host that a snapshot takes, served by viaduct or not.
pub const INTERFACES_KNOWN_MAX: usize = 4096;

/// Addresses of the host that a snapshot takes.
pub const ADDRESSES_KNOWN_MAX: usize = 65_536;

/// Next hops of one multipath route that are used.
pub const NEXT_HOPS_MAX: usize = 64;

/// Policy rules that a snapshot takes; each is looked at for every datagram.
pub const POLICY_RULES_MAX: usize = 32;

/// Unresolved peers that workers have reported and the monitor has not looked at yet.
pub const WANTED_LEN: usize = 1024;

/// Neighbours probed in one tick of the monitor; more in use wait for the next.
pub const PROBES_PER_TICK: usize = 256;

// ---- SIP ----------------------------------------------------------------------------------------

/// Bytes of one message over UDP: what a 16-bit length field can say, and what a span can reach.
pub const MESSAGE_LEN_MAX: usize = 65_535;
const _: () = assert!(MESSAGE_LEN_MAX >= DATAGRAM_LEN_MAX);

/// Header rows in one message. The longest torture message of RFC 4475 has under 40 rows; real
/// traffic under 60.
pub const HEADERS_MAX: usize = 192;

/// Bytes of header section (start line to the empty line).
pub const HEADER_SECTION_LEN_MAX: usize = 48 * 1024;

/// Via values in one message; RFC 3261 §16.6 starts Max-Forwards at 70.
pub const VIAS_MAX: usize = 100;

/// Route values in one request that are looked at; a dialog through ten proxies has ten.
pub const ROUTE_VALUES_MAX: usize = 64;

/// Transactions open at once, all workers together. Memory is touched when it is used.
pub const TRANSACTIONS_DEFAULT: usize = 524_288;
/// See [`TRANSACTIONS_DEFAULT`]. One place a worker at least.
pub const TRANSACTIONS_MIN: usize = 64;
/// See [`TRANSACTIONS_DEFAULT`]. A slab index has 24 bits to spare beside its generation.
pub const TRANSACTIONS_MAX: usize = 8 * 1024 * 1024;

/// Bytes of messages that transactions keep, all workers together: what 300,000 INVITEs that ring
/// need.
pub const STORED_BYTES_DEFAULT: usize = 512 * 1024 * 1024;
/// See [`STORED_BYTES_DEFAULT`].
pub const STORED_BYTES_MIN: usize = 1024 * 1024;
/// See [`STORED_BYTES_DEFAULT`].
pub const STORED_BYTES_MAX: usize = 64 * 1024 * 1024 * 1024;

/// Servers that one request is tried at, one after another. RFC 3261 §16.7 sets no bound; a client
/// gives up after 32 s, and five answers of 503 mean overload of all.
pub const HUNT_ATTEMPTS_MAX: usize = 5;

/// Moves from a silent server that a pool saves up: what a quiet pool may move at once.
pub const RETRY_RESERVE: u32 = 20;

/// Bytes of Reason rows that a CANCEL of ours repeats; the common ones have under 80 each.
pub const CANCEL_REASONS_LEN_MAX: usize = 512;

/// Records that are looked at in one go when a server has gone down.
pub const SWEEP_STEP: u32 = 4096;

/// Edits of one message: Via, two Record-Route, Route in and out, Max-Forwards, Max-Breadth,
/// received, rport, Request-URI, Content-Length, and as many again.
pub const EDITS_MAX: usize = 24;

/// Bytes of text all edits of one message insert.
pub const EDIT_BYTES_MAX: usize = 2048;
const _: () = assert!(EDIT_BYTES_MAX >= GROWTH_MAX);

/// Longest token (base32hex characters) in the user part of our Record-Route.
pub const ROUTE_TOKEN_LEN_MAX: usize = 80;

/// Longest time that a server's wish for less holds (RFC 7339 §4.3 sets no limit): a minute. One that
/// still wants less says so again.
pub const OVERLOAD_VALIDITY_MAX: core::time::Duration = core::time::Duration::from_secs(60);

/// Bytes of the name of the header that tells servers the client's address.
pub const CLIENT_ADDRESS_HEADER_LEN_MAX: usize = 32;

/// Our `Via` row at most, IPv4 (architecture, *Four keys*).
pub const VIA_ROW_LEN_MAX_IPV4: usize = 112;

/// Our `Record-Route` row at most, IPv4.
pub const RECORD_ROUTE_ROW_LEN_MAX_IPV4: usize = 96;

// ---- farm ---------------------------------------------------------------------------------------

/// Distinct server names of one process life, removed ones included: a slot is never reused, so
/// that a pin or a counter never speaks of another server.
pub const SERVERS_MAX: usize = 4096;

/// Pools of one configuration.
pub const POOLS_MAX: usize = 64;

/// Listeners of one configuration.
pub const LISTENERS_MAX: usize = 32;

/// Networks (CIDR) per list in the configuration.
pub const NETWORKS_MAX: usize = 1024;

/// Rules of the route table; each is looked at for every request until one matches.
pub const ROUTES_CONFIGURED_MAX: usize = 256;

/// Bytes of an address of record or header value that choose a server; the rest is not looked at.
pub const AFFINITY_TEXT_LEN_MAX: usize = 256;

/// Values of one condition of a rule.
pub const CONDITION_VALUES_MAX: usize = 1024;

/// Weight of a server.
pub const WEIGHT_MAX: u32 = 1000;

/// How often health is looked at: a twentieth of the two seconds in which a dead server must be
/// noticed.
pub const HEALTH_TICK: Duration = Duration::from_millis(100);

/// Seconds of final responses that a server's share of 5xx is taken from.
pub const EJECT_WINDOW_SECONDS: usize = 10;

/// Final responses in that time below which a share says nothing.
pub const EJECT_SAMPLE_MIN: u64 = 20;

/// How long traffic takes a server out the first time; it doubles with each time that the server
/// fails soon after its return.
pub const EJECTION_MIN: Duration = Duration::from_secs(10);

/// How long traffic takes a server out at most, and how much of its own Retry-After is believed.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);

/// How long a server must have stayed up for its failures before to be forgotten.
pub const FLAP_MEMORY: Duration = Duration::from_secs(600);
const _: () = assert!(FLAP_MEMORY.as_secs() > EJECTION_MAX.as_secs());

/// From probe to probe of a server that stays down, at most: an operator who has mended one should
/// not have to wait for longer. Never less than the pool's interval.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Probes that a worker sends in one go; more that are due wait for a millisecond.
pub const PROBES_PER_TURN: usize = 32;

/// Characters of the configured From URI of probes.
pub const FROM_URI_LEN_MAX: usize = 128;

/// Bytes of a probe at most: the From URI, our `Via`, and seven short rows.
pub const PROBE_LEN_MAX: usize = 1024;
const _: () = assert!(PROBE_LEN_MAX >= FROM_URI_LEN_MAX + 150 + 7 * 80);

/// Smallest Maglev table: 65,537 is katran's default and prime.
pub const MAGLEV_TABLE_LEN_MIN: usize = 65_537;

/// Table entries per server at least (Maglev paper: ≤ 1 % imbalance; Cilium's rule).
pub const MAGLEV_ENTRIES_PER_SERVER: usize = 100;

/// Turns of one round of round robin, 128 KiB: whatever their weights, the turns of a thousand
/// servers are right to a percent or two.
pub const ROUND_LEN_MAX: usize = 1 << 16;

/// Servers of one priority that a choice by load compares, a cache line each. Of more it draws two,
/// which is nearly as good and does not grow with the pool.
pub const CHOICE_SCAN_MAX: usize = 16;

/// Seconds that a call without a session timer counts as standing, default: four hours, past which
/// nearly nobody talks, and a lost BYE is forgotten the same day.
pub const CALL_MAX_DEFAULT: u32 = 4 * 3600;

/// Bounds of that, seconds: a minute, below which calls that stand would not count; a week.
pub const CALL_MAX_SECONDS: core::ops::RangeInclusive<u32> = 60..=7 * 86_400;

/// Calls counted at once, all workers together: 40 bytes each, 40 MiB, touched as they are used. At
/// three minutes a call that is 5,800 new calls a second; past it the lease that would end first goes.
pub const CALL_LEASES_MAX: usize = 1 << 20;

/// What a worker has seen of another's calls and that one has not read yet; it reads them at each of
/// its timers. 32 KiB for each worker there may be.
pub const CALL_NOTES_MAX: usize = 1024;

/// Seconds in which a server that was down grows to its weight, default: caches are warm and
/// registrations loaded by then.
pub const SLOW_START_DEFAULT: u32 = 30;

/// Slow start at most, an hour.
pub const SLOW_START_MAX: u32 = 3600;

/// Calls at once that a limit may say, and as good as none.
pub const CALLS_MAX: u32 = 10_000_000;

/// Calls per second that a limit may say, and as good as none.
pub const CALLS_PER_SECOND_MAX: u32 = 1_000_000;

/// Pins (Call-ID hash → server and mode) held at once, default.
pub const PINS_DEFAULT: usize = 1 << 20;

/// Pins at least, if there are any: a smaller table would evict live calls at once.
pub const PINS_MIN: usize = 1024;

/// Pins at most: 16 bytes each, 1 GiB.
pub const PINS_MAX: usize = 1 << 26;

/// Client flows remembered because they moved in the middle of a dialog: 256 bytes for seven of
/// them, 2.4 MB. One call in a hundred that moves, of six million, is more than one node carries.
pub const MOVED_FLOWS_MAX: usize = 1 << 16;

/// Buckets in which sources of our own answers are counted, 8 bytes each. Sources that share a
/// bucket share its rate: among a thousand that are answered at once one in four has company.
pub const ANSWER_SOURCES: usize = 4096;

/// Addresses and ports that the load generator plays user agents at over XDP: 50 bytes of kernel
/// memory each, and 1 KiB of its own.
pub const AGENT_ADDRESSES_MAX: usize = 1 << 16;

/// RX and TX ring entries of the load generator: at 300,000 messages a second a pause of 27 ms, as a
/// busy machine makes them, loses nothing. Its frames are 100 MB for each queue and thread.
pub const AGENT_RING_LEN: u32 = 8192;
const _: () = assert!(AGENT_RING_LEN.is_power_of_two());

/// VIP entries (address, port) in the steering program's map.
pub const VIPS_MAX: usize = 256;
const _: () = assert!(VIPS_MAX >= LISTENERS_MAX);

/// Networks that a listener's limiter exempts: farm, trusted peers and whitelist together.
pub const EXEMPT_NETWORKS_MAX: usize = 8 * NETWORKS_MAX;
const _: () = assert!(EXEMPT_NETWORKS_MAX >= SERVERS_MAX);

/// Networks in all source lists of the steering program together: an allow, a deny and an exempt
/// list of full length for every listener.
pub const SOURCE_NETWORKS_MAX: usize = LISTENERS_MAX * (2 * NETWORKS_MAX + EXEMPT_NETWORKS_MAX);

/// Sources whose datagrams the limiter counts at once, known ones and strangers each: some 90 bytes
/// of kernel memory for each, taken at start.
pub const LIMIT_SOURCES_DEFAULT: u32 = 65_536;

/// Counted sources at least: the kernel's LRU keeps some free for each CPU and pushes out early in a
/// smaller map.
pub const LIMIT_SOURCES_MIN: u32 = 1024;

/// Counted sources at most: 2 × 90 MB.
pub const LIMIT_SOURCES_MAX: u32 = 1 << 20;

// ---- looking ------------------------------------------------------------------------------------

/// Datagrams that a capture holds between the workers and whoever writes it out: at 100,000 a second
/// 20 ms, a stall of the writer that happens. More in the meantime are lost and counted.
pub const CAPTURE_SLOTS: usize = 2048;

/// Bytes of a datagram that a capture keeps: all that fits a jumbo frame. With [`CAPTURE_SLOTS`] a
/// capture takes 18 MiB while it runs.
pub const CAPTURE_SLOT_LEN: usize = 9000;

/// Packets after which a capture ends, unless it is told otherwise.
pub const CAPTURE_PACKETS_DEFAULT: u64 = 10_000;

/// Seconds after which a capture ends, unless it is told otherwise.
pub const CAPTURE_SECONDS_DEFAULT: u64 = 60;

/// Records of the common log between workers and its writer, which looks every 20 ms: 100,000
/// messages a second at both sides. 10 MiB, while there is a log.
pub const CLF_QUEUE_LEN: usize = 4096;

/// Bytes of one field of a common log record; what is longer is cut. RFC 3261 sets no limit; 255 is
/// what the field's databases hold.
pub const CLF_FIELD_LEN_MAX: usize = 255;

/// Bytes of all text fields of a common log record: nine of full length.
pub const CLF_TEXT_LEN: usize = 9 * CLF_FIELD_LEN_MAX;
// A record is indexed by four hexadecimal digits, and an escaped byte is three.
const _: () = assert!(3 * CLF_TEXT_LEN + 1024 < 0xffff);

/// Records of the call log between workers and its writer, which looks every 20 ms: 50,000 calls
/// a second. Less than 1 MiB, while there is a log.
pub const CALL_QUEUE_LEN: usize = 1024;

/// Bytes of a Call-ID in the call log; what is longer is cut. As in the common log.
pub const CALL_ID_LEN_MAX: usize = CLF_FIELD_LEN_MAX;

/// Bytes of a user part in the call log; what is longer is cut. Numbers have 15 digits (E.164) and
/// names are shorter than those of mail, 64 (RFC 5321 §4.5.3.1.1).
pub const CALL_USER_LEN_MAX: usize = 64;

/// Servers tried for one call that the call log and the memory of decisions name. Hunting ends
/// after six seconds; the ninth and later ones take the place of the eighth.
pub const CALL_ATTEMPTS_MAX: usize = 8;

/// Decisions that are remembered for `ctl explain` unless the configuration says otherwise: 4 MiB,
/// a minute of 1,000 new calls a second.
pub const DECISIONS_DEFAULT: usize = 65_536;

/// Decisions that can be remembered: 1 GiB.
pub const DECISIONS_MAX: usize = 16 << 20;

/// Bytes of one command on the control socket: a Call-ID as long as a frame, every byte escaped by six.
pub const CONTROL_LINE_LEN_MAX: usize = 16 * 1024;

/// Clients with commands on the control socket at once: people and their scripts.
pub const CONTROL_CLIENTS_MAX: usize = 64;

/// Plans that are remembered for `ctl explain`: a change of a server's state each minute for 17
/// hours.
pub const PLANS_REMEMBERED_MAX: usize = 1024;

/// Servers of pools in all remembered plans that differ, 64 bytes each: 16 MiB. With more the oldest
/// plans go first.
pub const PLAN_MEMBERS_REMEMBERED_MAX: usize = 262_144;

/// Points of a generator's course: an hour of seconds. With more two become one. A point of 3 KiB at
/// most (one `u32` for each of 896 buckets) makes 12 MiB for each thread.
pub const SERIES_POINTS_MAX: usize = 3600;
// Points are merged in pairs.
const _: () = assert!(SERIES_POINTS_MAX.is_multiple_of(2));

/// Causes of failure told apart in the course of a run; the report's totals know them all.
pub const SERIES_CAUSES_MAX: usize = 8;

/// Bytes of a scenario file: a hundred times SIPp's longest own one.
pub const SIPP_FILE_LEN_MAX: usize = 1 << 20;

/// Elements, texts and comments of a scenario file.
pub const SIPP_NODES_MAX: u32 = 20_000;

/// Steps of a scenario. They are numbered in 16 bits in branches.
pub const SIPP_STEPS_MAX: usize = 1000;
const _: () = assert!(SIPP_STEPS_MAX < u16::MAX as usize);

/// Variables of a scenario; each call has all of them.
pub const SIPP_VARIABLES_MAX: usize = 64;

/// Steps that a call takes without waiting for anything: beyond it the scenario goes in a circle.
pub const SIPP_STEPS_AT_ONCE_MAX: usize = 4 * SIPP_STEPS_MAX;

/// Bytes of a table of fields: a million rows of 64.
pub const SIPP_TABLE_LEN_MAX: usize = 64 << 20;

/// Fields of a row of a table.
pub const SIPP_TABLE_FIELDS_MAX: usize = 64;
