//! Advice on memory that is in use already: to the kernel about huge pages, to the CPU about what
//! will be read next.
#![expect(
    unsafe_code,
    reason = "no crate offers MADV_COLLAPSE, nor a prefetch without"
)]

use core::ops::Range;
use std::io;

/// `MADV_COLLAPSE` (linux/mman.h since 6.1): the pages become huge ones before the call returns.
const MADV_COLLAPSE: libc::c_int = 25;

/// Length of a huge page of x86-64 and of arm64 with 4 KiB pages.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// Moves what is in `range` to huge pages, as far as whole ones fit in. A table that is read at
/// random misses the TLB at nearly every look with normal pages.
///
/// Says how many bytes lie on huge pages now.
///
/// # Errors
/// The kernel's: it is older than 6.1, has no huge page free, or the range is not mapped.
pub fn collapse(range: Range<*const u8>) -> io::Result<usize> {
    let start = (range.start as usize).next_multiple_of(HUGE_PAGE_LEN);
    let end = range.end as usize / HUGE_PAGE_LEN * HUGE_PAGE_LEN;
    let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else {
        return Ok(0);
    };
    // SAFETY: advice that changes neither the contents of the memory nor what may be done with it;
    // a range that is not mapped is an error.
    let result = unsafe {
        libc::madvise(
            core::ptr::with_exposed_provenance_mut(start),
            len,
            MADV_COLLAPSE,
        )
    };
    if result == 0 {
        Ok(len)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes of a cache line of x86-64 and of most arm64.
const LINE_LEN: usize = 64;

/// Asks the CPU for the lines of `range`, which need not be mapped: nothing is read, and nothing waits.
#[inline]
pub fn prefetch(range: Range<*const u8>) {
    let mut line = range.start;
    while line < range.end {
        prefetch_line(line);
        line = line.wrapping_add(LINE_LEN);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(pointer: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch of any address is harmless.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_stay_and_nothing_to_do_is_no_error() {
        let table: Vec<u64> = (0..1 << 20).collect();
        let bytes = table.as_ptr_range();
        // Whether there are huge pages is the machine's affair.
        if let Ok(len) = collapse(bytes.start.cast()..bytes.end.cast()) {
            assert!(len.is_multiple_of(HUGE_PAGE_LEN) && len > 0);
        }
        assert!(table.iter().zip(0..).all(|(value, index)| *value == index));
        let few = [0_u8; 64];
        assert_eq!(collapse(few.as_ptr_range()).unwrap(), 0);
    }

    #[test]
    fn any_address_may_be_asked_for() {
        let bytes = [1_u8; 200];
        prefetch(bytes.as_ptr_range());
        let nowhere = core::ptr::null::<u8>();
        prefetch(nowhere..nowhere.wrapping_add(100));
        prefetch(nowhere..nowhere);
        assert_eq!(bytes, [1; 200]);
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        let nowhere = core::ptr::with_exposed_provenance::<u8>(HUGE_PAGE_LEN);
        let end = core::ptr::with_exposed_provenance::<u8>(4 * HUGE_PAGE_LEN);
        assert!(collapse(nowhere..end).is_err());
    }
}
