//! What facts in memory say that they weigh is what they take. In a process of its own, because it looks at the whole process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]
#![expect(clippy::print_stderr, reason = "what a test prints is read by a person")]

use jitauth::facts::{
    document::CardDocument,
    memory::{Memory, Settings},
};
use std::{fs, time::Duration};
use tokio::time::Instant;

const CARDS: u64 = 200_000;
/// Most bytes that a card takes with its user, so many limits and its places in the map.
const MOST: [(u64, u64); 3] = [(0, 350), (1, 400), (3, 480)];

/// What the process has in memory, bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A card of a user of its own with limits of its own, as a store hands it out.
fn document(number: u64, limits: u64) -> String {
    let limit = |each| {
        let id = number * 10 + each;
        format!(r#"{{"id": {id}, "scope": "card", "window": "day", "cap_amount": {}, "cap_count": null}}"#, 5_000_000 + id)
    };
    let limits = (0..limits).map(limit).collect::<Vec<_>>().join(", ");
    format!(
        r#"{{"card": {{"id": {number}, "token": "crd_{number:07}", "version": 1, "user_id": {number}, "user": "usr_{number:07}",
                "user_version": 1, "account_id": {number}, "currency": "EUR", "account_open": true, "program_id": 1, "status": "active",
                "expires_at": 4102444800000000, "controls": {{"countries": {{"except": ["PRK"]}}}}}},
             "user": {{"id": {number}, "token": "usr_{number:07}", "version": 1, "active": true, "kyc_verified": true}},
             "limits": {{"card_version": 1, "limits": [{limits}]}},
             "program": {{"id": 1, "version": 4, "kind": "personal", "time_zone": "UTC", "week_start": "monday", "kyc_required": true,
                "partial_approval": true, "limits": []}}}}"#
    )
}

#[test]
fn facts_weigh_what_they_take() {
    // What was measured stays, so that nobody measures memory that somebody else has given back.
    let mut kept = Vec::new();
    for (limits, most) in MOST {
        let memory = Memory::new(Settings { bytes_max: 1 << 30, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(1) });
        let now = Instant::now();
        // What is allocated once, and the parser's own pages.
        let keep = |number| {
            let file = memory.share(CardDocument::parse(document(number, limits).as_bytes()).unwrap(), now);
            memory.keep(&file, memory.begin(), now);
        };
        (0..1_000).for_each(keep);
        let (before, weighed) = (resident(), memory.size().bytes);
        (1_000..1_000 + CARDS).for_each(keep);
        let (took, weighs) = (resident() - before, memory.size().bytes - weighed);
        eprintln!("a card with user and limits ({limits}) takes {} bytes and weighs {}", took / CARDS, weighs / CARDS);
        assert_eq!((memory.size().entries, memory.size().evictions), (2 * (CARDS + 1_000) + 1, 0));
        assert!(took / CARDS <= most, "{} bytes a card with {limits} limits", took / CARDS);
        // The map grows in steps, so at any moment it may hold more room than it needs. The bound must hold then, too.
        assert!((took * 3 / 4..took * 3 / 2).contains(&weighs), "{took} bytes were taken, {weighs} were weighed");
        kept.push(memory);
    }
}
