// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * raw_forwarder: what AF_XDP gives a plain C program, to hold our own raw forwarder against.
 *
 * One socket on queue 0 of one interface, by libxdp's own interface and its own XDP program: native
 * mode, copy mode, need-wakeup, batches of 64, rings as large as viaduct's. Each frame received gets
 * two MAC addresses and leaves by the same interface. Nothing is parsed, checked or counted but
 * frames. It spins: on a core of its own nothing is gained by sleeping.
 *
 *   raw_forwarder INTERFACE DESTINATION-MAC
 *
 * Ends at SIGINT or SIGTERM and prints "received N sent N". The environment should have
 * LIBXDP_SKIP_DISPATCHER=1, since a network namespace sees no pinned programs.
 */
#include <errno.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <xdp/xsk.h>

/* As in src/limits.rs. */
#define BATCH 64
#define FRAME_LEN 4096
#define HEADROOM 512
#define RING_LEN 2048
#define FILL_RING_LEN (2 * RING_LEN)
/* Every ring can be full at once. */
#define FRAMES (2 * (FILL_RING_LEN + RING_LEN))

#define MAC_LEN 6

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "raw_forwarder: %s: %s\n", what, strerror(error));
	exit(1);
}

struct forwarder {
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons completion, rx;
	unsigned char *frames;
	/* Addresses of frames that nobody has. */
	__u64 spare[FRAMES];
	__u32 spares;
	/* Destination and source, as they open a frame. */
	unsigned char addresses[2 * MAC_LEN];
	/* Frames on the TX ring that have not come back. */
	__u32 outstanding;
	unsigned long long received, sent;
};

static struct forwarder forwarder;

static void read_addresses(struct forwarder *f, const char *interface, const char *destination)
{
	unsigned int octets[MAC_LEN];
	struct ifreq request = {};
	int probe = socket(AF_INET, SOCK_DGRAM, 0);

	if (sscanf(destination, "%x:%x:%x:%x:%x:%x", &octets[0], &octets[1], &octets[2], &octets[3],
		   &octets[4], &octets[5]) != MAC_LEN)
		fail(destination, EINVAL);
	for (int i = 0; i < MAC_LEN; i++)
		f->addresses[i] = (unsigned char)octets[i];
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	if (probe < 0 || ioctl(probe, SIOCGIFHWADDR, &request))
		fail(interface, errno);
	memcpy(f->addresses + MAC_LEN, request.ifr_hwaddr.sa_data, MAC_LEN);
	close(probe);
}

static void open_rings(struct forwarder *f, const char *interface)
{
	const struct xsk_umem_config umem = {
		.fill_size = FILL_RING_LEN,
		.comp_size = FILL_RING_LEN,
		.frame_size = FRAME_LEN,
		.frame_headroom = HEADROOM,
	};
	const struct xsk_socket_config socket = {
		.rx_size = RING_LEN,
		.tx_size = RING_LEN,
		.xdp_flags = XDP_FLAGS_DRV_MODE,
		.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP,
	};
	const size_t bytes = (size_t)FRAMES * FRAME_LEN;
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	int error;

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	f->frames = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			 -1, 0);
	if (f->frames == MAP_FAILED)
		fail("memory", errno);
	error = xsk_umem__create(&f->umem, f->frames, bytes, &f->fill, &f->completion, &umem);
	if (error)
		fail("umem", -error);
	error = xsk_socket__create(&f->socket, interface, 0, f->umem, &f->rx, &f->tx, &socket);
	if (error)
		fail("socket", -error);
	for (__u32 i = 0; i < FRAMES; i++)
		f->spare[f->spares++] = (__u64)i * FRAME_LEN;
}

/* Gives the kernel as many spare frames as the fill ring takes, in whole batches. */
static void refill(struct forwarder *f)
{
	__u32 position;

	while (f->spares >= BATCH && xsk_ring_prod__reserve(&f->fill, BATCH, &position) == BATCH) {
		for (int i = 0; i < BATCH; i++)
			*xsk_ring_prod__fill_addr(&f->fill, position + i) = f->spare[--f->spares];
		xsk_ring_prod__submit(&f->fill, BATCH);
	}
}

/* Takes back what was sent. */
static void complete(struct forwarder *f)
{
	__u32 position, count = xsk_ring_cons__peek(&f->completion, 2 * BATCH, &position);

	for (__u32 i = 0; i < count; i++) {
		__u64 address = *xsk_ring_cons__comp_addr(&f->completion, position + i);

		f->spare[f->spares++] = address - address % FRAME_LEN;
	}
	xsk_ring_cons__release(&f->completion, count);
	f->outstanding -= count;
	f->sent += count;
}

/* In copy mode the kernel sends inside this call, some frames at a time. */
static void kick(struct forwarder *f)
{
	if (!f->outstanding || !xsk_ring_prod__needs_wakeup(&f->tx))
		return;
	if (sendto(xsk_socket__fd(f->socket), NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN &&
	    errno != EBUSY && errno != ENOBUFS && errno != ENETDOWN)
		fail("send", errno);
}

static void forward(struct forwarder *f)
{
	__u32 from, to, count;

	/* No more than the TX ring takes. */
	count = xsk_prod_nb_free(&f->tx, BATCH);
	count = xsk_ring_cons__peek(&f->rx, count < BATCH ? count : BATCH, &from);
	if (!count)
		return;
	if (xsk_ring_prod__reserve(&f->tx, count, &to) != count)
		fail("the TX ring has less room than it said", EIO);
	for (__u32 i = 0; i < count; i++) {
		const struct xdp_desc *in = xsk_ring_cons__rx_desc(&f->rx, from + i);
		struct xdp_desc *out = xsk_ring_prod__tx_desc(&f->tx, to + i);

		memcpy(xsk_umem__get_data(f->frames, in->addr), f->addresses, sizeof(f->addresses));
		out->addr = in->addr;
		out->len = in->len;
		out->options = 0;
	}
	xsk_ring_prod__submit(&f->tx, count);
	xsk_ring_cons__release(&f->rx, count);
	f->received += count;
	f->outstanding += count;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };

	if (argc != 3) {
		fprintf(stderr, "usage: raw_forwarder INTERFACE DESTINATION-MAC\n");
		return 2;
	}
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	read_addresses(&forwarder, argv[1], argv[2]);
	open_rings(&forwarder, argv[1]);
	while (!stopping) {
		complete(&forwarder);
		refill(&forwarder);
		forward(&forwarder);
		kick(&forwarder);
	}
	xsk_socket__delete(forwarder.socket);
	xsk_umem__delete(forwarder.umem);
	printf("received %llu sent %llu\n", forwarder.received, forwarder.sent);
	return 0;
}
