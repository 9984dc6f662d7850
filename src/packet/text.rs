//! Composing text without allocation: into an edit list, or into a fixed array.

use super::EditList;
use crate::net::IpAddr;

/// Something that text is appended to.
pub trait Text {
    /// Appends bytes.
    fn push(&mut self, bytes: &[u8]);
    /// Appends a number in decimal.
    fn push_decimal(&mut self, value: u32);
    /// Appends an address, IPv6 without brackets.
    fn push_ip(&mut self, ip: IpAddr);
}

impl Text for EditList {
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        Self::push(self, bytes);
    }

    #[inline]
    fn push_decimal(&mut self, value: u32) {
        Self::push_decimal(self, value);
    }

    #[inline]
    fn push_ip(&mut self, ip: IpAddr) {
        Self::push_ip(self, ip);
    }
}

/// A fixed array that is filled from its front.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    /// A writer that starts at the front of `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            len: 0,
            full: false,
        }
    }

    /// How many bytes were written; `None` if some did not fit.
    pub fn finish(self) -> Option<usize> {
        (!self.full).then_some(self.len)
    }
}

impl Text for Writer<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.full = true,
        }
    }

    fn push_decimal(&mut self, value: u32) {
        let _ = core::fmt::Write::write_fmt(self, format_args!("{value}"));
    }

    fn push_ip(&mut self, ip: IpAddr) {
        let _ = core::fmt::Write::write_fmt(self, format_args!("{ip}"));
    }
}

impl core::fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_takes_what_fits_and_then_says_no() {
        let mut bytes = [0; 12];
        let mut writer = Writer::new(&mut bytes);
        writer.push_ip("198.18.0.1".parse().unwrap());
        writer.push_decimal(42);
        assert_eq!(writer.finish(), Some(12));
        assert_eq!(&bytes, b"198.18.0.142");
        let mut writer = Writer::new(&mut bytes);
        writer.push(b"one byte too ");
        writer.push(b"x");
        assert_eq!(writer.finish(), None);
    }
}
