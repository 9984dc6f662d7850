//! Huge pages for memory that is in use already.
#![expect(unsafe_code, reason = "no crate offers MADV_COLLAPSE")]

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
    fn what_is_not_mapped_is_an_error() {
        let nowhere = core::ptr::with_exposed_provenance::<u8>(HUGE_PAGE_LEN);
        let end = core::ptr::with_exposed_provenance::<u8>(4 * HUGE_PAGE_LEN);
        assert!(collapse(nowhere..end).is_err());
    }
}
