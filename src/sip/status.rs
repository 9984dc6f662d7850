//! Status codes and their classes (RFC 3261 §7.2, §21).

/// First digit of a status code, in the order of [`STATUS_CLASSES`](crate::metrics::STATUS_CLASSES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum StatusClass {
    /// 1xx.
    Provisional,
    /// 2xx.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    RequestFailure,
    /// 5xx.
    ServerFailure,
    /// 6xx.
    GlobalFailure,
}

const _: () =
    assert!(StatusClass::GlobalFailure as usize + 1 == crate::metrics::STATUS_CLASSES.len());

impl StatusClass {
    /// The class of a status code; `None` outside 100 to 699.
    #[inline]
    pub const fn of(status: u16) -> Option<Self> {
        Some(match status {
            100..=199 => Self::Provisional,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::RequestFailure,
            500..=599 => Self::ServerFailure,
            600..=699 => Self::GlobalFailure,
            _ => return None,
        })
    }

    /// Position of the class's counter.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a response of this class ends its transaction.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Provisional)
    }
}

/// The reason phrase of RFC 3261 §21, RFC 5393 §6.2 and RFC 6228 for the codes that we answer with.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        199 => "Early Dialog Terminated",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        430 => "Flow Failed",
        440 => "Max-Breadth Exceeded",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        487 => "Request Terminated",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ANSWERS, STATUS_CLASSES};

    #[test]
    fn classes_are_the_first_digit_and_end_at_699() {
        for status in 100..=699 {
            let class = StatusClass::of(status).unwrap();
            let digit = status.to_string().remove(0);
            assert!(STATUS_CLASSES[class.index()].starts_with(digit));
            assert_eq!(class.is_final(), status >= 200);
        }
        assert_eq!(StatusClass::of(99), None);
        assert_eq!(StatusClass::of(700), None);
    }

    #[test]
    fn every_counted_answer_has_its_phrase() {
        for status in ANSWERS.iter().filter(|status| **status != 0) {
            assert_ne!(reason_phrase(*status), "Error", "{status}");
        }
    }
}
