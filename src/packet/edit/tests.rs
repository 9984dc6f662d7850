//! The edit list against the naive way: splice a `Vec`, from the last edit to the first.

use core::fmt::Write;

use proptest::prelude::*;

use super::*;

#[test]
fn a_saved_list_does_the_same_and_damage_poisons() {
    let mut list = EditList::new();
    list.insert(3, b"abc");
    list.delete(5..7);
    list.replace(8..9, b"wxyz");
    let mut saved = [0; SAVED_EDITS_LEN_MAX];
    let len = list.save(&mut saved).unwrap();
    let apply = |list: &EditList| {
        let mut memory = [0_u8; 64];
        memory[32..44].copy_from_slice(b"0123456789AB");
        let mut buffer = Buffer::new(&mut memory, 32, 44);
        list.apply(&mut buffer).map(|()| buffer.payload().to_vec())
    };
    let mut other = EditList::new();
    other.insert(0, b"old");
    other.restore(&saved[..len]);
    assert_eq!(apply(&list).unwrap(), b"012abc347wxyz9AB");
    assert_eq!(apply(&other), apply(&list));
    assert_eq!(list.save(&mut saved[..len - 1]), Err(EditError::NoRoom));
    for damaged in [&saved[..0], &saved[..5], &[9; 40], &saved[..len - 1]] {
        other.restore(damaged);
        assert!(apply(&other).is_err(), "{damaged:?}");
    }
}

const REQUEST: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nVia: x\r\nMax-Forwards: 70\r\n\r\nbody";

fn apply(edits: &EditList, payload: &[u8], headroom: usize) -> Result<Vec<u8>, EditError> {
    let mut bytes = vec![b'#'; headroom];
    bytes.extend(payload);
    bytes.extend(b"####");
    let end = headroom + payload.len();
    let mut buffer = Buffer::new(&mut bytes, headroom, end);
    let result = edits.apply(&mut buffer);
    assert_eq!(buffer.end(), end, "the end of the payload stays");
    if result.is_err() {
        assert_eq!(buffer.payload(), payload, "an error changes nothing");
    }
    let range = buffer.into_range();
    assert!(
        bytes[..range.start.min(headroom)]
            .iter()
            .all(|byte| *byte == b'#')
    );
    assert_eq!(&bytes[end..], b"####");
    result.map(|()| bytes[range].to_vec())
}

#[test]
fn a_request_grows_into_its_headroom() {
    let mut edits = EditList::new();
    // Not in the order of their places.
    edits.begin(45, 2);
    edits.push_decimal(69);
    edits.begin(23, 0);
    edits.push(b"Via: SIP/2.0/UDP ");
    edits.push_ip("198.18.0.1".parse().unwrap());
    edits.push(b":");
    edits.push_decimal(5060);
    edits.push(b"\r\n");
    edits.end();
    assert_eq!(edits.growth(), 34);
    let grown = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.0.1:5060\r\nVia: x\r\n\
        Max-Forwards: 69\r\n\r\nbody";
    assert_eq!(apply(&edits, REQUEST, 34).unwrap(), grown);
    assert_eq!(apply(&edits, REQUEST, 33), Err(EditError::NoRoom));
    edits.clear();
    assert!(edits.is_empty());
    assert_eq!(apply(&edits, REQUEST, 0).unwrap(), REQUEST);
}

#[test]
fn a_response_loses_its_top_via_and_the_rest_stays() {
    let response = *b"####SIP/2.0 200 OK\r\nVia: ours\r\nVia: theirs\r\n\r\nlong body";
    let mut bytes = response;
    let end = bytes.len();
    let mut buffer = Buffer::new(&mut bytes, 4, end);
    let mut edits = EditList::new();
    edits.delete(16..27);
    edits.apply(&mut buffer).unwrap();
    assert_eq!(
        buffer.payload(),
        b"SIP/2.0 200 OK\r\nVia: theirs\r\n\r\nlong body"
    );
    assert_eq!((buffer.start(), buffer.end()), (15, end));
    assert_eq!(
        bytes[31..],
        response[31..],
        "bytes after the last edit have not moved"
    );
}

#[test]
fn a_change_of_equal_length_moves_nothing() {
    let mut edits = EditList::new();
    edits.replace(45..47, b"69");
    assert_eq!(edits.growth(), 0);
    let edited = apply(&edits, REQUEST, 0).unwrap();
    assert_eq!(edited.len(), REQUEST.len());
    assert!(edited.ends_with(b"Max-Forwards: 69\r\n\r\nbody"));
}

/// Segments that move apart: one away from the headroom, the next toward it.
#[test]
fn segments_may_move_both_ways() {
    let mut edits = EditList::new();
    edits.delete(1..5);
    edits.insert(8, b"++++++");
    edits.delete(10..12);
    edits.insert(15, b"--");
    let edited = apply(&edits, b"0123456789abcdefg", 2).unwrap();
    assert_eq!(edited, b"0567++++++89cde--fg");
}

#[test]
fn insertions_at_one_place_keep_their_order_and_precede_a_replacement() {
    let mut edits = EditList::new();
    edits.replace(2..4, b"R");
    edits.insert(2, b"a");
    edits.insert(4, b"z");
    edits.insert(2, b"b");
    assert_eq!(apply(&edits, b"012345", 10).unwrap(), b"01abRz45");
}

#[test]
fn overlaps_are_found_whatever_the_order() {
    let clash = |first: Range<usize>, second: Range<usize>| {
        [(&first, &second), (&second, &first)].map(|(a, b)| {
            let mut edits = EditList::new();
            edits.replace(a.clone(), b"x");
            edits.replace(b.clone(), b"y");
            edits.error()
        })
    };
    for (first, second) in [
        (2..6, 4..8),
        (2..6, 2..6),
        (2..6, 3..4),
        (2..6, 2..3),
        (2..6, 3..3),
    ] {
        assert_eq!(
            clash(first.clone(), second.clone()),
            [Some(EditError::Overlap); 2],
            "{first:?} {second:?}"
        );
    }
    for (first, second) in [
        (2..6, 6..8),
        (2..6, 2..2),
        (2..6, 6..6),
        (3..3, 3..3),
        (2..3, 5..6),
    ] {
        assert_eq!(
            clash(first.clone(), second.clone()),
            [None; 2],
            "{first:?} {second:?}"
        );
    }
}

/// The first error stays, and nothing is applied, until the list is cleared.
#[test]
fn a_poisoned_list_changes_nothing() {
    let mut edits = EditList::new();
    edits.insert(0, b"x");
    edits.replace(Range { start: 4, end: 2 }, b"");
    edits.push(b"y");
    assert_eq!(edits.error(), Some(EditError::OutOfRange));
    assert_eq!(apply(&edits, REQUEST, 100), Err(EditError::OutOfRange));
    edits.clear();
    edits.insert(0, b"x");
    assert!(
        apply(&edits, REQUEST, 100)
            .unwrap()
            .starts_with(b"xOPTIONS")
    );

    edits.push(b"after the end");
    assert_eq!(edits.error(), Some(EditError::NotOpen));
    edits.clear();
    assert!(write!(edits, "no edit is open").is_err());
    edits.clear();
    edits.begin(usize::MAX, usize::MAX);
    assert_eq!(edits.error(), Some(EditError::OutOfRange));
}

#[test]
fn an_edit_may_end_where_the_payload_ends_and_not_behind() {
    let mut edits = EditList::new();
    edits.insert(REQUEST.len(), b"!");
    assert!(apply(&edits, REQUEST, 1).unwrap().ends_with(b"body!"));
    edits.clear();
    edits.delete(0..REQUEST.len());
    assert_eq!(apply(&edits, REQUEST, 0).unwrap(), b"");
    edits.clear();
    edits.insert(REQUEST.len() + 1, b"!");
    assert_eq!(apply(&edits, REQUEST, 1), Err(EditError::OutOfRange));
    edits.clear();
    edits.delete(0..REQUEST.len() + 1);
    assert_eq!(apply(&edits, REQUEST, 1), Err(EditError::OutOfRange));
}

#[test]
fn the_last_edit_that_fits_and_the_first_that_does_not() {
    let mut edits = EditList::new();
    for at in 0..EDITS_MAX {
        edits.insert(at, b"x");
    }
    assert_eq!(edits.error(), None);
    assert_eq!(
        apply(&edits, REQUEST, EDITS_MAX).unwrap().len(),
        REQUEST.len() + EDITS_MAX
    );
    edits.insert(0, b"x");
    assert_eq!(edits.error(), Some(EditError::TooManyEdits));

    edits.clear();
    edits.insert(0, &[b'x'; EDIT_BYTES_MAX]);
    assert!(apply(&edits, REQUEST, EDIT_BYTES_MAX).is_ok());
    edits.insert(0, b"x");
    assert_eq!(edits.error(), Some(EditError::TooMuchText));
    assert_eq!(apply(&edits, REQUEST, 3000), Err(EditError::TooMuchText));
}

proptest! {
    #[test]
    fn numbers_and_addresses_are_written_as_by_the_formatter(
        number in any::<u32>(), v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(),
    ) {
        let mut edits = EditList::new();
        edits.begin(0, 0);
        edits.push_decimal(number);
        edits.push(b" ");
        edits.push_ip(v4.into());
        edits.push(b" ");
        edits.push_ip(v6.into());
        let written = apply(&edits, b"", 100).unwrap();
        let expected = format!("{number} {} {}", IpAddr::from(v4), IpAddr::from(v6));
        prop_assert_eq!(written, expected.into_bytes());
    }

    #[test]
    fn applied_as_spliced(
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        headroom in 0usize..200,
        wanted in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0usize..40, proptest::collection::vec(any::<u8>(), 0..40)),
            0..EDITS_MAX,
        ),
        order in any::<prop::sample::Index>(),
    ) {
        // Ranges in ascending order that do not overlap, then added from some place on.
        let mut places: Vec<usize> = wanted.iter().map(|(at, ..)| at.index(payload.len() + 1)).collect();
        places.sort_unstable();
        let mut planned = Vec::new();
        for (index, (_, delete_len, text)) in wanted.iter().enumerate() {
            let at = places[index];
            let limit = places.get(index + 1).copied().unwrap_or(payload.len());
            planned.push((at..limit.min(at + delete_len), text.clone()));
        }
        let mut naive = payload.clone();
        for (range, text) in planned.iter().rev() {
            naive.splice(range.clone(), text.iter().copied());
        }

        let mut edits = EditList::new();
        // Insertions at one place keep the order in which they are added: rotate between places.
        let turn = order.index(planned.len().max(1));
        let turn = planned.get(turn).map_or(0, |(range, _)| {
            planned.partition_point(|(other, _)| other.start < range.start)
        });
        for (range, text) in planned[turn..].iter().chain(&planned[..turn]) {
            edits.replace(range.clone(), text);
        }
        prop_assert_eq!(edits.error(), None);
        let growth = naive.len() as isize - payload.len() as isize;
        prop_assert_eq!(edits.growth(), growth);
        let result = apply(&edits, &payload, headroom);
        if growth > headroom as isize {
            prop_assert_eq!(result, Err(EditError::NoRoom));
        } else {
            prop_assert_eq!(result, Ok(naive));
        }
    }

    /// Whatever is asked for, in range or not: a result or an error, no panic, and in a result every
    /// byte accounted for.
    #[test]
    fn any_edits_at_all(
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        headroom in 0usize..100,
        wanted in proptest::collection::vec((0usize..120, 0usize..120, 0usize..300), 0..40),
    ) {
        let mut edits = EditList::new();
        for (start, end, text_len) in wanted {
            edits.replace(Range { start, end }, &vec![b'+'; text_len]);
        }
        let growth = edits.growth();
        match apply(&edits, &payload, headroom) {
            Ok(edited) => prop_assert_eq!(edited.len() as isize, payload.len() as isize + growth),
            Err(error) => prop_assert!(edits.error().is_none_or(|poison| poison == error)),
        }
    }
}
