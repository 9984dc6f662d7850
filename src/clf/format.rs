//! A record as text: the indexed form of RFC 6873.
//!
//! ```text
//! A000100,0053005C005E006D007D008F009E00A000BA00C700EB00F70100
//! │└─┬──┘ └┬─┘└┬─┘… where CSeq, status, … Client-Txn and the optional fields start
//! │length  CSeq status
//! version
//! 1328821153.010 RORUU 1 INVITE …      tab-separated, behind the time the flags
//! ```

use std::io::Write as _;

use super::record::{Field, Record};

/// Characters of the first line, its line end included.
const INDEX_LEN: usize = 61;
/// Pointers in it: twelve fields, and the optional ones.
const POINTERS: usize = 13;

/// Appends the two lines of a record.
pub fn line(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + INDEX_LEN, b'0');
    let (seconds, millis) = (
        record.nanos / 1_000_000_000,
        record.nanos / 1_000_000 % 1000,
    );
    // Request or response; retransmissions are not detected, for we are stateless; sent or
    // received; UDP; unencrypted.
    let flags = [
        if record.is_response { b'r' } else { b'R' },
        b'S',
        if record.is_sent { b'S' } else { b'R' },
        b'U',
        b'U',
    ];
    // Writing into a Vec cannot fail.
    let _infallible = write!(out, "{seconds:010}.{millis:03}\t");
    out.extend_from_slice(&flags);

    let mut pointers = [0; POINTERS];
    let mut next = pointers.iter_mut();
    let mut field = |out: &mut Vec<u8>, write: &dyn Fn(&mut Vec<u8>)| {
        out.push(b'\t');
        // RFC 6873 §5: in its example the first byte of a record is at 1.
        if let Some(pointer) = next.next() {
            *pointer = out.len() - start + 1;
        }
        write(out);
    };
    let text = |field: Field| move |out: &mut Vec<u8>| value(record.field(field), out);
    field(out, &text(Field::CSeq));
    field(out, &|out| {
        if record.is_response {
            let _infallible = write!(out, "{:03}", record.status);
        } else {
            out.push(b'-');
        }
    });
    field(out, &text(Field::RequestUri));
    for address in [record.dst, record.src] {
        field(out, &|out| {
            let _infallible = write!(out, "{address}");
        });
    }
    for name in [
        Field::To,
        Field::ToTag,
        Field::From,
        Field::FromTag,
        Field::CallId,
        Field::ServerTransaction,
        Field::ClientTransaction,
    ] {
        field(out, &text(name));
    }
    out.push(b'\n');
    let len = out.len() - start;
    // Without optional fields the pointer to them is to the end of the record.
    if let Some(pointer) = next.next() {
        *pointer = len;
    }

    let mut index = Vec::with_capacity(INDEX_LEN);
    let _infallible = write!(index, "A{len:06X},");
    for pointer in pointers {
        let _infallible = write!(index, "{pointer:04X}");
    }
    index.push(b'\n');
    if let Some(room) = out.get_mut(start..start + INDEX_LEN)
        && index.len() == INDEX_LEN
    {
        room.copy_from_slice(&index);
    }
}

/// A field's value: `-` if there is none, and nothing in it that ends a field, a line or a text.
fn value(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.push(b'-');
    }
    for byte in bytes {
        match byte {
            b'\t' => out.push(b' '),
            // As URIs escape them, and percent signs of the message stay what they were.
            0..0x20 | 0x7f.. => {
                let _infallible = write!(out, "%{byte:02X}");
            }
            _ => out.push(*byte),
        }
    }
}
