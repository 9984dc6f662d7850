//! Composing text without allocation: into an edit list, or into a fixed array.

use super::EditList;
use crate::net::{IpAddr, Ipv4Addr};

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

/// Every octet in decimal with a dot behind, and how many bytes that is.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut value = 0u8;
    loop {
        let (mut text, mut len) = ([b'.'; 4], 0u8);
        if value >= 100 {
            text[len as usize] = b'0' + value / 100;
            len += 1;
        }
        if value >= 10 {
            text[len as usize] = b'0' + value / 10 % 10;
            len += 1;
        }
        text[len as usize] = b'0' + value % 10;
        octets[value as usize] = (text, len + 2);
        if value == u8::MAX {
            break octets;
        }
        value += 1;
    }
};

/// A few bytes of text in the making, at most `N`: what goes beyond is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(N)]
    }

    /// Appends bytes whose number the compiler knows.
    #[inline(always)]
    pub(crate) fn put<const LEN: usize>(&mut self, text: &[u8; LEN]) {
        let place = self.bytes.get_mut(self.len..);
        if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
            *place = *text;
            self.len += LEN;
        }
    }

    /// Appends an IPv4 address. The four bytes of an octet are always written: at the end that takes
    /// up to two more bytes of room than the text.
    #[inline(always)]
    pub(crate) fn put_ipv4(&mut self, address: Ipv4Addr) {
        for octet in address.octets() {
            let (text, len) = &OCTETS[usize::from(octet)];
            let before = self.len;
            self.put(text);
            // With the dot; `put` has counted all four.
            self.len = self.len.min(before + usize::from(*len));
        }
        self.len -= usize::from(self.len > 0);
    }

    /// Appends a number in decimal, without leading zeros.
    #[inline(always)]
    pub(crate) fn put_u16(&mut self, value: u16) {
        let digit = |divisor: u16| b'0' + (value / divisor % 10) as u8;
        let digits = [digit(10_000), digit(1_000), digit(100), digit(10), digit(1)];
        let zeros = usize::from(value < 10_000)
            + usize::from(value < 1_000)
            + usize::from(value < 100)
            + usize::from(value < 10);
        if let Some(place) = self.bytes.get_mut(self.len..self.len + 5 - zeros) {
            for (to, from) in place.iter_mut().zip(&digits[zeros..]) {
                *to = *from;
            }
            self.len += 5 - zeros;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_text_is_what_formatting_says(octets in any::<[u8; 4]>(), port in any::<u16>(), small in 0u16..1200) {
            let address = Ipv4Addr::from(octets);
            for port in [port, small] {
                let mut text = Short::<32>::new();
                text.put_ipv4(address);
                text.put(b":");
                text.put_u16(port);
                let formatted = format!("{address}:{port}");
                prop_assert_eq!(text.bytes(), formatted.as_bytes());
            }
        }
    }

    #[test]
    fn short_text_is_cut_at_its_end() {
        let mut text = Short::<8>::new();
        text.put(b"12345");
        text.put(b"1234");
        text.put_u16(1_000);
        text.put_u16(100);
        assert_eq!(text.bytes(), b"12345100");
        let mut text = Short::<8>::new();
        text.put_ipv4(Ipv4Addr::new(198, 18, 0, 1));
        assert!(text.bytes().len() <= 8);
    }

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
