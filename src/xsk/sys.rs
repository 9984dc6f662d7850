//! The system calls of AF_XDP, those that rustix has and the one that it lacks.
//!
//! Owns mappings. Knows no frames.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// 2 MiB, the huge page of x86-64 and of arm64 with 4 KiB pages.
pub(super) const HUGE_PAGE_LEN: usize = 2 << 20;

/// A piece of address space, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    // INVARIANT: `len` bytes from here are mapped read-write, and by nobody else's leave.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory, owned; what is done with it is up to the types above.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out pointers only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the ring at `offset` of an AF_XDP socket.
    pub(super) fn ring(fd: BorrowedFd<'_>, len: usize, offset: u64) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, protection, flags, fd, offset)? };
        Self::from_raw(start, len)
    }

    /// Anonymous memory on pre-allocated huge pages; fails if there are too few of them.
    pub(super) fn huge(len: usize) -> Result<Self, Errno> {
        Self::anonymous(len, MapFlags::HUGETLB | MapFlags::HUGE_2MB)
    }

    /// Anonymous memory on normal pages, starting at a huge page boundary. With `advise` the kernel
    /// is told to merge them to huge ones if it can; returns whether it took the advice.
    pub(super) fn normal(len: usize, advise: bool) -> Result<(Self, bool), Errno> {
        let whole = Self::anonymous(len + HUGE_PAGE_LEN, MapFlags::empty())?;
        let skip = whole.start.as_ptr().align_offset(HUGE_PAGE_LEN);
        let (start, total) = (whole.start, whole.len);
        core::mem::forget(whole);
        // SAFETY: `skip` is less than a huge page, which the mapping has beyond `len`.
        let middle = unsafe { start.add(skip) };
        // SAFETY: `skip + len` is within the mapping.
        let end = unsafe { middle.add(len) };
        let tail = total - skip - len;
        for (pointer, len) in [(start, skip), (end, tail)] {
            if len > 0 {
                // SAFETY: a page-aligned part of our own mapping that nothing points into.
                unsafe { rustix::mm::munmap(pointer.as_ptr().cast(), len)? };
            }
        }
        let mapping = Self { start: middle, len };
        if !advise {
            return Ok((mapping, false));
        }
        // SAFETY: advice on our own mapping, which does not change its contents.
        let advised =
            unsafe { rustix::mm::madvise(middle.as_ptr().cast(), len, Advice::LinuxHugepage) };
        Ok((mapping, advised.is_ok()))
    }

    fn anonymous(len: usize, flags: MapFlags) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | flags;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, protection, flags)? };
        Self::from_raw(start, len)
    }

    fn from_raw(start: *mut c_void, len: usize) -> Result<Self, Errno> {
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    /// Panics if `offset` is outside.
    pub(super) fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len);
        // SAFETY: inside the mapping, by the line above.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever points into it holds it alive.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok());
    }
}

/// A new AF_XDP socket.
pub(super) fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h (6.17): frames that one `sendto` may send in copy
/// mode, 32 by default. Neither libc nor rustix has it.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Lets one `sendto` send up to `frames`. Older kernels refuse, and keep to 32.
pub(super) fn set_tx_budget(fd: impl AsFd, frames: u32) -> Result<(), Errno> {
    let value = (&raw const frames).cast();
    // SAFETY: `value` points to the four bytes that `len` says, alive during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            value,
            4,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}
