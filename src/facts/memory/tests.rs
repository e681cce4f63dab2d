use super::*;
use crate::facts::sample::{file, of_user, token};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);
const SETTINGS: Settings = Settings { bytes_max: 1 << 20, ttl: HOUR, absent_ttl: Duration::from_secs(2) };

fn card(memory: &Memory, number: i64, now: Instant) -> Option<i64> {
    memory.card(&token(number), now).flatten().map(|card| card.version)
}

/// What happens to card 1 of user 1, between a reading that begins first and is kept last.
type Meanwhile = fn(&Memory, Instant);

#[test]
fn what_changed_while_it_was_read_is_not_kept() {
    let drop = |memory: &Memory, version, now| memory.drop_card(&token(1), version, now);
    let rows: [(&str, i64, Meanwhile, Option<i64>); 13] = [
        ("nothing", 7, |_, _| (), Some(7)),
        ("dropped, version not told", 7, |memory, now| _ = memory.drop_card(&token(1), None, now), None),
        ("dropped, version told, unknown before", 7, |memory, now| _ = memory.drop_card(&token(1), Some(8), now), None),
        ("what was read is as new as what changed, unknown before", 8, |memory, now| _ = memory.drop_card(&token(1), Some(8), now), None),
        ("kept newer", 7, |memory, now| _ = memory.keep(&file(1, 8), memory.begin(), now), Some(8)),
        ("kept older", 7, |memory, now| _ = memory.keep(&file(1, 6), memory.begin(), now), Some(7)),
        (
            "kept, then dropped: what was read is older",
            7,
            |memory, now| {
                memory.keep(&file(1, 6), memory.begin(), now);
                assert!(memory.drop_card(&token(1), Some(8), now));
            },
            None,
        ),
        (
            "kept, then told of that very version: it stays",
            7,
            |memory, now| {
                memory.keep(&file(1, 8), memory.begin(), now);
                assert!(!memory.drop_card(&token(1), Some(8), now), "that is no news");
            },
            Some(8),
        ),
        ("another card dropped", 7, |memory, now| _ = memory.drop_card(&token(2), None, now), Some(7)),
        ("everything dropped", 7, |memory, _| memory.drop_everything(), None),
        (
            "everything dropped and read again: who read before is in nobody's way",
            7,
            |memory, now| {
                memory.drop_everything();
                memory.keep(&file(1, 7), memory.begin(), now);
            },
            Some(7),
        ),
        ("found to be absent by somebody else", 7, |memory, now| memory.keep_absent(&token(1), memory.begin(), now), Some(7)),
        ("read as a whole", 7, |memory, _| memory.end_generation(memory.begin_generation()), None),
    ];
    for (name, read, meanwhile, expected) in rows {
        let (memory, now) = (Memory::new(SETTINGS), Instant::now());
        let fill = memory.begin();
        meanwhile(&memory, now);
        memory.keep(&file(1, read), fill, now);
        assert_eq!(card(&memory, 1, now), expected, "{name}");
        // Whoever begins now is not in anybody's way.
        memory.keep(&file(1, 9), memory.begin(), now);
        assert_eq!(card(&memory, 1, now), Some(9), "{name}, read again");
    }
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    let fill = memory.begin();
    drop(&memory, None, now);
    memory.keep_absent(&token(1), fill, now);
    assert_eq!(memory.card(&token(1), now), None, "that there is none may be from before it was issued");
}

#[test]
fn a_version_that_was_told_is_asked_for_ever_after() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    memory.keep(&file(1, 7), memory.begin(), now);
    assert!(memory.drop_card(&token(1), Some(9), now));
    assert!(!memory.drop_card(&token(1), Some(9), now), "told twice");
    assert!(memory.is_outdated(&token(1), 8, now) && !memory.is_outdated(&token(1), 9, now));
    // As from a Redis that has not heard of it.
    assert_eq!(memory.keep(&file(1, 8), memory.begin(), now), Kept::Refused);
    assert_eq!(card(&memory, 1, now), None);
    assert_eq!(memory.keep(&file(1, 9), memory.begin(), now), Kept::Newer);
    assert_eq!(card(&memory, 1, now), Some(9));
}

#[test]
fn a_user_takes_all_cards_along_and_a_program_too() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    for number in [1, 2] {
        memory.keep(&of_user(number, 7, 5), memory.begin(), now);
    }
    assert!(memory.drop_user(UserId(5), Some(8), now));
    assert_eq!(memory.user(UserId(5), now), None);
    memory.keep(&of_user(1, 8, 5), memory.begin(), now);
    assert_eq!(memory.user(UserId(5), now).map(|user| user.version), Some(8));
    // The other card still knows the old user: whoever puts its file together sees that they do not agree.
    assert_eq!(card(&memory, 2, now), Some(7));
    let program = memory.program(ProgramId(1), now).map(|program| program.version);
    assert!(memory.drop_program(ProgramId(1), program.map(|version| version + 1), now));
    assert_eq!(memory.program(ProgramId(1), now), None);
}

#[test]
fn a_complete_reading_forgets_what_it_did_not_find() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    for number in 1..=4 {
        memory.keep(&file(number, 7), memory.begin(), now);
    }
    memory.drop_card(&token(3), Some(9), now);
    let read = memory.begin_generation();
    assert_eq!(memory.confirm(&file(1, 7), read, now), Kept::Same);
    assert_eq!(memory.confirm(&file(2, 8), read, now), Kept::Newer);
    assert_eq!(memory.confirm(&file(5, 7), read, now), Kept::NoRoom, "not there before");
    assert_eq!(card(&memory, 4, now), Some(7), "memory is not emptied meanwhile");
    memory.end_generation(read);
    assert_eq!([1, 2, 3, 4, 5].map(|number| card(&memory, number, now)), [Some(7), Some(8), None, None, None]);
}

#[test]
fn what_is_kept_is_believed_for_its_time_and_no_longer() {
    let (memory, start) = (Memory::new(SETTINGS), Instant::now());
    memory.keep_absent(&token(0), memory.begin(), start);
    for number in 1..=200 {
        memory.keep(&file(number, 1), memory.begin(), start);
    }
    let known = |after: Duration| (1..=200).filter(|number| card(&memory, *number, start + after).is_some()).count();
    assert_eq!(known(HOUR * 3 / 4), 200);
    let half = known(HOUR * 7 / 8);
    assert!((60..140).contains(&half), "{half} of 200: their ends are spread");
    assert_eq!(known(HOUR + Duration::from_secs(1)), 0);
    let absent = |after| memory.card(&token(0), start + Duration::from_millis(after));
    assert_eq!((absent(1_900), absent(2_300)), (Some(None), None));
}

#[test]
fn equal_parts_are_kept_once() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    let keep = |number| {
        let file = memory.share(of_user(number, 7, 5), now);
        memory.keep(&file, memory.begin(), now);
        file
    };
    let (first, second) = (keep(1), keep(2));
    assert!(Arc::ptr_eq(&first.user, &second.user) && Arc::ptr_eq(&first.program, &second.program));
    assert!(Arc::ptr_eq(&first.card.controls, &second.card.controls));
    assert!(Arc::ptr_eq(&first.card.limits[0].filter, &second.card.limits[0].filter));
    // A user that has changed is another one.
    let changed = memory.share(of_user(1, 8, 5), now);
    assert_eq!(changed.user.version, 8);
}

#[test]
fn of_two_in_one_place_each_is_told_from_the_other() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    let (token, other) = (token(1), file(2, 8));
    let (generation, until) = (memory.begin().generation, u32::MAX);
    let strangers = [
        Entry::Card { generation, until, card: Arc::clone(&other.card) },
        Entry::User { generation, until, user: Arc::clone(&other.user) },
        Entry::Program { generation, until, program: Arc::clone(&other.program) },
        Entry::Absent { generation, until, whom: Arc::new(Whom::Card(other.card.token.clone())) },
        Entry::Outdated { generation, until, what: Arc::new(Outdated { whom: Whom::User(UserId(1)), at_least: 8 }) },
    ];
    let put = |asked, stranger: &Entry| memory.people.insert(Place::of(asked, &memory.hashing), stranger.clone());
    for stranger in strangers {
        put(Asked::Card(&token), &stranger);
        assert_eq!(memory.card(&token, now), None, "{stranger:?}");
        assert!(!memory.is_outdated(&token, 1, now), "{stranger:?}");
        assert!(!memory.drop_card(&token, Some(9), now), "nothing was known of the card: {stranger:?}");
        put(Asked::Card(&token), &stranger);
        assert_eq!(memory.keep(&file(1, 7), memory.begin(), now), Kept::New, "{stranger:?}");
        assert_eq!(card(&memory, 1, now), Some(7), "{stranger:?}");
        put(Asked::User(UserId(3)), &stranger);
        assert_eq!(memory.user(UserId(3), now), None, "{stranger:?}");
    }
}

#[test]
fn memory_is_bounded_by_bytes() {
    assert_eq!((size_of::<Place>(), size_of::<Entry>()), (8, 16), "there are millions of them");
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    for number in 0..10_000 {
        memory.keep(&memory.share(file(number, 1), now), memory.begin(), now);
        let size = memory.size();
        assert!(size.bytes <= SETTINGS.bytes_max, "{size:?}");
    }
    let size = memory.size();
    assert!(size.bytes > SETTINGS.bytes_max * 9 / 10 && size.evictions > 0, "{size:?}");
    assert!((3_000..7_000).contains(&size.entries), "{size:?}");
}

#[test]
fn what_is_set_aside_is_not_filled_and_is_half_at_most() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    for (aside, most) in
        [(0, 1 << 20), (1, (1 << 20) - (64 << 10)), (300_000, (1 << 20) - (320 << 10)), (u64::MAX / 2, 1 << 19), (0, 1 << 20)]
    {
        memory.set_aside(aside);
        assert!(memory.size().bytes <= most, "{aside}: room is made at once");
        (0..10_000).for_each(|number| _ = memory.keep(&memory.share(file(number, 1), now), memory.begin(), now));
        let bytes = memory.size().bytes;
        assert!((most * 9 / 10..=most).contains(&bytes), "{aside}: {bytes} of {most}");
    }
}

/// What may happen to the facts of a card, in any order.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody begins to read, and will have read what the store has then.
    Begin,
    /// The reading of this number, of those begun, is kept.
    Keep(usize),
    /// As `Keep`, of what Redis had: a version back.
    KeepOld(usize),
    /// The store changes, and nobody is told yet.
    Change,
    /// News of the last change.
    Tell {
        version: bool,
    },
    Everything,
    Whole,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Begin),
        4 => (0_usize..8).prop_map(Step::Keep),
        1 => (0_usize..8).prop_map(Step::KeepOld),
        2 => Just(Step::Change),
        3 => any::<bool>().prop_map(|version| Step::Tell { version }),
        1 => Just(Step::Everything),
        1 => Just(Step::Whole),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever the order, a version that was told to be outdated is never seen again, except from a reading that began after the news
    /// and read something older, when the version was not told. What is read in peace is kept.
    #[test]
    fn nothing_outdated_comes_back(steps in steps()) {
        let (memory, now) = (Memory::new(SETTINGS), Instant::now());
        let (mut version, mut told, mut readings) = (1_i64, 0_i64, Vec::<(Fill, i64)>::new());
        for step in steps {
            match step {
                Step::Begin => readings.push((memory.begin(), version)),
                Step::Keep(which) => {
                    if let Some((fill, read)) = readings.get(which) {
                        memory.keep(&file(1, *read), *fill, now);
                    }
                }
                Step::KeepOld(which) => {
                    // Redis has no older version than the one of which the last tombstone was written.
                    if let Some((fill, read)) = readings.get(which) {
                        memory.keep(&file(1, (*read - 1).max(told)), *fill, now);
                    }
                }
                Step::Change => version += 1,
                Step::Tell { version: with } => {
                    memory.drop_card(&token(1), with.then_some(version), now);
                    told = version;
                }
                Step::Everything => {
                    memory.drop_everything();
                    told = version;
                }
                Step::Whole => {
                    let read = memory.begin_generation();
                    memory.keep(&file(1, version), read, now);
                    memory.end_generation(read);
                    prop_assert_eq!(card(&memory, 1, now), Some(version));
                    told = version;
                }
            }
            let seen = card(&memory, 1, now);
            prop_assert!(seen.is_none_or(|seen| seen >= told), "{:?} was seen, {} is told", seen, told);
        }
        memory.keep(&file(1, version), memory.begin(), now);
        prop_assert_eq!(card(&memory, 1, now), Some(version));
    }
}

#[test]
fn generations_begin_again_when_their_numbers_end() {
    let (memory, now) = (Memory::new(SETTINGS), Instant::now());
    for _ in 0..=u32::from(u16::MAX) + 5 {
        memory.keep(&file(1, 1), memory.begin(), now);
        assert_eq!(card(&memory, 1, now), Some(1));
        memory.drop_everything();
        assert_eq!(card(&memory, 1, now), None);
    }
}
