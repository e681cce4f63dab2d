use super::{dependencies::*, machine::*, *};
use crate::{
    broker::{
        self,
        topology::{self, Problem},
    },
    facts::redis,
    ledger::{SchemaState, postgres, sqlite},
};

const NOW_US: i64 = 1_772_619_307_000_000;

fn postgres() -> postgres::Inspection {
    postgres::Inspection {
        version: "15.8".to_owned(),
        schema: SchemaState::Current,
        fsync: "on".to_owned(),
        synchronous_commit: "on".to_owned(),
        full_page_writes: "on".to_owned(),
        connections_max: 100,
        clock_us: NOW_US,
        forbidden: Vec::new(),
    }
}

fn redis() -> redis::Inspection {
    let policy = "allkeys-lru".to_owned();
    redis::Inspection { version: "7.2.5".to_owned(), memory_max_bytes: 512 << 20, memory_used_bytes: 31 << 20, policy }
}

fn broker() -> broker::Inspection {
    let version = Some("RabbitMQ 3.13.7".to_owned());
    broker::Inspection { version, blocked: false, publishing: None, dead_letters: Some(0), topology: Vec::new() }
}

fn sqlite(durability: &str) -> sqlite::Inspection {
    sqlite::Inspection { version: "3.50.4".to_owned(), schema: SchemaState::Current, durability: durability.to_owned() }
}

fn of_postgres(seen: &postgres::Inspection) -> Vec<Finding> {
    postgres_findings(seen, 28, NOW_US - 900, NOW_US + 900)
}

fn of_broker(seen: &broker::Inspection) -> Vec<Finding> {
    broker_findings(seen, "transactions", "jit-funding-dlq")
}

const WAL: &str = "journal_mode=wal synchronous=full wal_autocheckpoint=8000";

/// What a person reads, all of it, in one file.
#[test]
fn every_finding_reads_well() {
    let healthy = [of_postgres(&postgres()), sqlite_findings(&sqlite(WAL), "jitauth.db"), redis_findings(&redis()), of_broker(&broker())];
    let off = || "off".to_owned();
    let careless = postgres::Inspection {
        schema: SchemaState::Older,
        fsync: off(),
        synchronous_commit: off(),
        full_page_writes: off(),
        connections_max: 20,
        clock_us: NOW_US - 3_000_900,
        forbidden: vec!["insert on holds".to_owned(), "update on accounts".to_owned()],
        ..postgres()
    };
    let full = redis::Inspection { memory_max_bytes: 0, memory_used_bytes: 700 << 20, policy: "noeviction".to_owned(), ..redis() };
    let finding = |object: &str, problem| topology::Finding { object: object.to_owned(), problem };
    let broken = broker::Inspection {
        version: None,
        blocked: true,
        publishing: Some("ACCESS_REFUSED".to_owned()),
        dead_letters: Some(3),
        topology: vec![
            finding("queue jit-funding-queue", Problem::Missing),
            finding("queue jit-funding-dlq", Problem::Differs("inequivalent arg 'x-queue-type'".to_owned())),
            finding("exchange events", Problem::Unverified("ACCESS_REFUSED".to_owned())),
        ],
    };
    let files =
        [open_files("Max open files            1024                 4096                 files"), open_files("Max open files unlimited -")];
    let sick = [
        of_postgres(&careless),
        sqlite_findings(&sqlite("journal_mode=delete synchronous=full"), "jitauth.db"),
        redis_findings(&full),
        of_broker(&broken),
        files.into_iter().flatten().map(|limit| super::machine::files(limit, 2_134)).collect(),
    ];
    let (healthy, sick) = (healthy.concat(), sick.concat());
    let text = format!("--- doctor, all well\n{}\n--- doctor, all wrong\n{}", as_text(&healthy), as_text(&sick));
    assert_eq!(text, include_str!("snapshot.txt"), "\n{text}");
    assert!(healthy.iter().all(|finding| finding.level == Level::Ok && finding.mend.is_empty()));
    assert!(sick.iter().all(|finding| (finding.level == Level::Ok) == finding.mend.is_empty()), "each fault says how to mend it");
    assert_eq!((as_json(&healthy)["healthy"].clone(), as_json(&sick)["healthy"].clone()), (true.into(), false.into()));
    assert_eq!(as_json(&sick)["findings"][1]["mend"], "run jitauth migrate");
}

#[test]
fn the_clock_is_only_blamed_beyond_what_asking_takes() {
    // The store's clock, against ours before and after asking, milliseconds.
    for (theirs, before, after, level) in [
        (0, 0, 0, Level::Ok),
        (5_000, 0, 10_000, Level::Ok),
        (-499, 0, 5, Level::Ok),
        (-501, 0, 5, Level::Warn),
        (504, 0, 5, Level::Ok),
        (506, 0, 5, Level::Warn),
    ] {
        let us = |ms: i64| NOW_US + ms * 1_000;
        let seen = postgres::Inspection { clock_us: us(theirs), ..postgres() };
        let findings = postgres_findings(&seen, 28, us(before), us(after));
        let found = findings.iter().find(|finding| finding.area == "clock").map(|finding| finding.level);
        assert_eq!(found, Some(level), "{theirs} between {before} and {after}");
    }
}
