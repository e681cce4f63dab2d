#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
use super::*;
use crate::{
    domain::{
        facts::CardFile,
        ids::{CardToken, ProgramId, UserId, UserToken},
    },
    facts::{
        FactError, FactSource,
        change::Scanned,
        memory::{self, Memory},
        sample::{file, token},
    },
    telemetry::{Exposition, Readiness, Spans, Telemetry},
};
use std::{collections::BTreeMap, ops::ControlFlow};
use tokio::{sync::mpsc, time::sleep};

const PATIENCE: Duration = Duration::from_secs(100);

/// A store in memory: cards by number with their version, or `None` for one that cannot be used.
#[derive(Clone, Default)]
struct Model(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cards: BTreeMap<i64, Option<i64>>,
    scans: u32,
    scans_that_fail: u32,
    /// Happens in the middle of a scan.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
    feed: Option<mpsc::Receiver<Heard>>,
}

struct Feed(mpsc::Receiver<Heard>);

impl ChangeFeed for Feed {
    async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }
}

impl FactSource for Model {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let number = card.as_str().trim_start_matches("crd_").parse().unwrap();
        Ok(self.0.lock().cards.get(&number).map(|version| file(number, version.unwrap_or(1_000))))
    }
}

impl FactStore for Model {
    type Feed = Feed;

    fn feed(&self) -> Feed {
        Feed(self.0.lock().feed.take().unwrap())
    }

    async fn every_card(&self, mut keep: impl FnMut(Scanned) -> ControlFlow<()> + Send) -> Result<u64, FactError> {
        let (cards, fails, meanwhile) = {
            let mut state = self.0.lock();
            state.scans += 1;
            let fails = state.scans_that_fail > 0;
            state.scans_that_fail = state.scans_that_fail.saturating_sub(1);
            (state.cards.clone(), fails, state.meanwhile.take())
        };
        sleep(Duration::from_millis(10)).await;
        if fails {
            return Err(FactError::Unavailable("the model was told to fail".to_owned()));
        }
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut read = 0;
        for (number, version) in cards {
            let Some(version) = version else { continue };
            read += 1;
            if keep(Scanned::Card(file(number, version))).is_break() {
                break;
            }
        }
        Ok(read)
    }

    async fn concerned(&self, subject: &Subject) -> Result<Vec<Change>, FactError> {
        Ok(match subject {
            Subject::Card(token) => vec![Change::Card { token: token.clone(), version: Some(8) }],
            _ => vec![],
        })
    }
}

struct Rig {
    model: Model,
    facts: FactTiers<Model>,
    invalidator: Invalidator<Model>,
    readiness: Readiness,
    telemetry: Telemetry,
    store: mpsc::Sender<Heard>,
    _tasks: JoinSet<()>,
}

const NOW: Timestamp = Timestamp(1_772_619_307_000_000);

fn rig(cards: i64, warm: bool, scans_that_fail: u32) -> Rig {
    let (store, feed) = mpsc::channel(16);
    let cards = (1..=cards).map(|number| (number, Some(7))).collect();
    let model = Model(Arc::new(Mutex::new(State { cards, scans_that_fail, feed: Some(feed), ..State::default() })));
    let memory = memory::Settings { bytes_max: 1 << 20, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(2) };
    let telemetry = Telemetry::default();
    let readiness = telemetry.readiness();
    let facts = FactTiers::new(Memory::new(memory), None, model.clone(), telemetry.clone());
    let settings = Settings { warm, listen_to: Paths::default().and(Path::Store).and(Path::Redis) };
    let invalidator = Invalidator::new(facts.clone(), settings, Arc::new(|| NOW));
    let tasks = invalidator.start(None, warm.then(|| readiness.check("warm")));
    Rig { model, facts, invalidator, readiness, telemetry, store, _tasks: tasks }
}

impl Rig {
    async fn ready(&self) {
        tokio::time::timeout(PATIENCE, self.readiness.ready()).await.unwrap();
    }

    fn seen(&self, number: i64) -> Option<i64> {
        self.facts.peek(&token(number), &mut Spans::default()).flatten().map(|file| file.card.version)
    }

    async fn hear(&self, heard: Heard) {
        self.store.send(heard).await.unwrap();
        // Time for whatever follows from it: pauses between scans included.
        sleep(Duration::from_secs(5)).await;
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.telemetry.scrape(Exposition::Prometheus).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn scans(&self) -> u32 {
        self.model.0.lock().scans
    }
}

fn card(number: i64, version: Option<i64>) -> Announced {
    Announced { change: Change::Card { token: token(number), version }, at: Some(Timestamp(NOW.0 - 2_000)) }
}

#[tokio::test(start_paused = true)]
async fn memory_is_warm_before_the_daemon_is_ready() {
    let rig = rig(500, true, 0);
    sleep(Duration::from_secs(1)).await;
    assert!(!rig.readiness.is_ready() && rig.scans() == 0, "nothing is read before changes are heard of");
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    assert!((1..=500).all(|number| rig.seen(number) == Some(7)));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.scans(), 1, "what was read once is not compared at once");
}

#[tokio::test(start_paused = true)]
async fn it_starts_cold_when_the_store_cannot_be_read() {
    for (fails, warm, scans) in [(1, true, 2), (2, false, 2)] {
        let rig = rig(10, true, fails);
        rig.store.send(Heard::Listening).await.unwrap();
        rig.ready().await;
        assert_eq!((rig.scans(), rig.seen(1).is_some()), (scans, warm), "{fails} scans fail");
    }
}

#[tokio::test(start_paused = true)]
async fn it_warms_without_news_when_they_do_not_come_and_compares_when_they_do() {
    let rig = rig(10, true, 0);
    rig.ready().await;
    assert_eq!(rig.seen(1), Some(7));
    rig.model.0.lock().cards.insert(1, Some(8));
    rig.hear(Heard::Listening).await;
    assert_eq!((rig.scans(), rig.seen(1)), (2, Some(8)));
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_reads_no_more_than_is_asked_for() {
    let rig = rig(10, false, 0);
    rig.facts.lookup(&token(1)).await.unwrap();
    rig.hear(Heard::Listening).await;
    assert_eq!((rig.seen(1), rig.scans()), (None, 0), "it may have changed before the news were heard");
    rig.facts.lookup(&token(1)).await.unwrap();
    // After a gap there is something to compare. No further card is read into memory by that.
    rig.hear(Heard::Lost("cut".to_owned())).await;
    rig.hear(Heard::Listening).await;
    assert_eq!((rig.seen(1), rig.seen(2), rig.scans()), (Some(7), None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_in_the_middle_of_a_scan_is_not_overwritten_by_it() {
    let rig = rig(3, true, 0);
    let (facts, model) = (rig.facts.clone(), rig.model.clone());
    // Version 7 of card 2 is read, and changes to 8 before the scan hands it out.
    rig.model.0.lock().meanwhile = Some(Box::new(move || {
        model.0.lock().cards.insert(2, Some(8));
        facts.forget(&card(2, Some(8)).change);
    }));
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    assert_eq!([1, 2, 3].map(|number| rig.seen(number)), [Some(7), None, Some(7)]);
    rig.facts.lookup(&token(2)).await.unwrap();
    assert_eq!(rig.seen(2), Some(8));
}

#[tokio::test(start_paused = true)]
async fn what_a_gap_hid_is_found_without_emptying_memory() {
    let rig = rig(4, true, 0);
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    rig.hear(Heard::Lost("cut".to_owned())).await;
    assert!((rig.metric(r#"jitauth_news_path_live{path="store"}"#) - 0.0).abs() < 0.1);
    {
        let mut model = rig.model.0.lock();
        // Changed, not usable any more, deleted, untouched.
        model.cards.insert(1, Some(8));
        model.cards.insert(2, None);
        model.cards.remove(&3);
    }
    assert_eq!(rig.scans(), 1, "nothing is compared while changes may still be missed");
    // One more change comes while the comparison reads.
    let facts = rig.facts.clone();
    rig.model.0.lock().meanwhile = Some(Box::new(move || assert!(facts.peek(&token(4), &mut Spans::default()).is_some())));
    rig.hear(Heard::Listening).await;
    assert_eq!(rig.scans(), 2);
    assert_eq!([1, 2, 3, 4].map(|number| rig.seen(number)), [Some(8), None, None, Some(7)]);
    assert!((rig.metric(r#"jitauth_news_path_live{path="store"}"#) - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_redis_is_covered_by_the_store() {
    let rig = rig(1, true, 0);
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    let gap = async |expected: u32, name: &str| {
        rig.invalidator.link(Path::Redis, false, "cut");
        sleep(Duration::from_secs(5)).await;
        rig.invalidator.link(Path::Redis, true, "");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(rig.scans(), expected, "{name}");
    };
    rig.invalidator.link(Path::Redis, true, "");
    gap(1, "the store was heard all the time").await;
    rig.hear(Heard::Lost("cut".to_owned())).await;
    gap(2, "the store was not heard").await;
}

#[tokio::test(start_paused = true)]
async fn news_drop_facts_and_are_counted_once() {
    let rig = rig(5, true, 0);
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    let (id, token) = (UserId(2), UserToken::new("usr_0000002").unwrap());
    let user = Announced { change: Change::User { id, token, version: Some(8) }, at: None };
    rig.hear(Heard::Changes(vec![card(1, Some(8)), user])).await;
    assert_eq!([1, 2, 3].map(|number| rig.seen(number)), [None, None, Some(7)], "a user's cards go with the user");
    // The same by another way.
    rig.invalidator.apply(Path::Redis, card(1, Some(8)));
    let counted = |path: &str, kind: &str| rig.metric(&format!("jitauth_cache_invalidations_total{{path=\"{path}\",kind=\"{kind}\"}}"));
    assert_eq!([counted("store", "card"), counted("store", "user"), counted("redis", "card")], [1.0, 1.0, 0.0]);
    assert!((rig.metric(r#"jitauth_freeze_propagation_seconds_sum{path="store"}"#) - 0.002).abs() < 1e-9);
    // A program takes its cards along, until one of them brings it back.
    rig.invalidator.apply(Path::Events, Announced { change: Change::Program { id: ProgramId(1), version: Some(4) }, at: None });
    assert_eq!(rig.seen(3), Some(7), "in that very version it was there");
    rig.invalidator.apply(Path::Events, Announced { change: Change::Program { id: ProgramId(1), version: Some(5) }, at: None });
    assert_eq!((rig.seen(3), counted("events", "program")), (None, 1.0));
    // An event names a card and not what changed.
    rig.invalidator.said(Path::Events, &Subject::Card(super::super::sample::token(4)), None).await;
    assert_eq!((rig.seen(4), counted("events", "card")), (None, 1.0));
}

#[tokio::test(start_paused = true)]
async fn everything_is_dropped_once_and_read_again() {
    let rig = rig(5, true, 0);
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    rig.model.0.lock().cards.insert(1, Some(8));
    let everything = Announced { change: Change::Everything, at: Some(NOW) };
    rig.invalidator.apply(Path::Store, everything.clone());
    assert_eq!([1, 2].map(|number| rig.seen(number)), [None, None]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!([1, 2].map(|number| rig.seen(number)), [Some(8), Some(7)]);
    rig.invalidator.apply(Path::Redis, everything);
    assert_eq!((rig.seen(1), rig.scans()), (Some(8), 2), "the same news by another way");
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_stops_the_first_scan_and_not_the_comparison() {
    let rig = rig(5_000, true, 0);
    rig.store.send(Heard::Listening).await.unwrap();
    rig.ready().await;
    let kept = (1..=5_000).filter(|number| rig.seen(*number).is_some()).count();
    assert!((1_000..4_000).contains(&kept), "{kept}");
    rig.model.0.lock().cards.values_mut().for_each(|version| *version = Some(8));
    rig.hear(Heard::Lost("cut".to_owned())).await;
    rig.hear(Heard::Listening).await;
    let old = (1..=5_000).filter(|number| rig.seen(*number) == Some(7)).count();
    let new = (1..=5_000).filter(|number| rig.seen(*number) == Some(8)).count();
    assert!(old == 0 && new > kept / 2, "{old} are old, {new} are new, of {kept}");
}
