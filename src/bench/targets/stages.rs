//! The spans that a daemon tells beside its answer.

use crate::telemetry::{Span, Spans};
use std::time::Duration;

/// Reads `user=3;card=2;commit=640`. What is not understood is left out.
pub(super) fn spans(header: &[u8]) -> Spans {
    let mut spans = Spans::default();
    let text = str::from_utf8(header).unwrap_or_default();
    for (name, us) in text.split(';').filter_map(|pair| pair.trim().split_once('=')) {
        let span = Span::ALL.into_iter().find(|span| span.name() == name);
        if let (Some(span), Ok(us)) = (span, us.parse()) {
            spans.set(span, Duration::from_micros(us));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_read() {
        let read = spans(b"decode=5; user=3;nonsense=1;commit=640;card=x;limits;tot=7;=8");
        assert_eq!(read.iter().collect::<Vec<_>>(), [(Span::Decode, 5), (Span::User, 3), (Span::Commit, 640)]);
        assert_eq!(spans(b"").iter().count(), 0);
    }
}
