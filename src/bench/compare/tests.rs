#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::bench::{
    floor::{Echo, Ratio, ratios::tests::floor},
    proof::Proof,
    summary::{Ceiling, Requests, tests::example},
};

/// A run in which nothing went wrong, with enough answers for every percentile but the last two.
fn sound() -> Summary {
    let mut it = example();
    it.requests = Requests { sent: 20_000, answered: 20_000, measured: 20_000, ..Requests::default() };
    it.response_time.count = 20_000;
    it.service_time.count = 20_000;
    it.stages.iter_mut().for_each(|stage| stage.latency.count = 20_000);
    it.warnings.clear();
    it
}

/// The same with the 99th percentile of the response time here.
fn with_p99(us: u64) -> Summary {
    let mut it = sound();
    it.response_time.percentiles_us.insert("p99".to_owned(), us);
    it
}

/// The same with an echo whose 99th percentile is here.
fn with_echo(us: u64, echo_us: u64) -> Summary {
    let mut it = with_p99(us);
    it.floor = Some(floor(600, echo_us));
    let echo = it.floor.as_mut().unwrap().echo.as_mut().unwrap();
    echo.response_time.count = 20_000;
    it
}

fn side(runs: &[Summary]) -> Side {
    Side { from: "runs".to_owned(), runs: runs.to_vec() }
}

fn settings(tolerances: &[&str], min_effect_us: f64) -> Settings {
    let mut settings = Settings { min_effect_us, ..Settings::default() };
    tolerances.iter().for_each(|text| settings.tolerances.add(text).unwrap());
    settings
}

fn grade_of(comparison: &Comparison, figure: &str) -> Grade {
    comparison.rows.iter().find(|row| row.figure == figure).unwrap_or_else(|| panic!("no {figure}")).grade
}

#[test]
fn a_regression_is_worse_than_tolerated_and_noticed_and_measured_often_enough_and_no_chance() {
    let check = |before: &[u64], after: &[u64], tolerances: &[&str], min_effect_us: f64, expected: Grade| {
        let runs = |p99s: &[u64]| side(&p99s.iter().map(|us| with_p99(*us)).collect::<Vec<_>>());
        let comparison = compare(&runs(before), &runs(after), &settings(tolerances, min_effect_us)).unwrap();
        assert_eq!(grade_of(&comparison, "p99"), expected, "{before:?} {after:?} {tolerances:?} {min_effect_us}");
        assert_eq!(comparison.regression, expected == Grade::Regression);
    };
    check(&[9_000], &[9_000], &[], 100.0, Grade::Same);
    check(&[9_000], &[9_900], &[], 100.0, Grade::Same);
    check(&[9_000], &[9_910], &[], 100.0, Grade::Regression);
    check(&[9_000], &[9_910], &["p99=20%"], 100.0, Grade::Same);
    check(&[9_000], &[9_090], &["p99=0.5%"], 80.0, Grade::Regression);
    check(&[9_000], &[9_090], &["p99=0.5%"], 90.0, Grade::Same);
    check(&[9_000], &[8_000], &[], 100.0, Grade::Better);
    check(&[9_000], &[8_000], &[], 1_000.0, Grade::Same);
    // Medians of several runs, and not beyond what the runs before spread over.
    check(&[9_000, 8_000, 30_000], &[9_000, 9_000, 90_000], &[], 100.0, Grade::Same);
    check(&[9_000, 8_000, 12_000], &[11_000, 11_500, 7_000], &[], 100.0, Grade::Spread);
    check(&[9_000, 8_000, 10_000], &[11_000, 11_500, 7_000], &[], 100.0, Grade::Regression);
    check(&[9_000, 10_000], &[7_000], &[], 100.0, Grade::Better);
    check(&[0], &[90], &[], 100.0, Grade::Same);
    check(&[0], &[900], &[], 100.0, Grade::Regression);
}

#[test]
fn what_few_samples_lie_above_is_not_graded() {
    for (one, other, expected) in [(10_000, 10_000, Grade::Regression), (9_999, 10_000, Grade::TooFew), (10_000, 9_000, Grade::TooFew)] {
        let (mut before, mut after) = (with_p99(9_000), with_p99(20_000));
        before.response_time.count = one;
        after.response_time.count = other;
        let comparison = compare(&side(&[before]), &side(&[after]), &settings(&[], 100.0)).unwrap();
        assert_eq!((grade_of(&comparison, "p99"), grade_of(&comparison, "p99.9")), (expected, Grade::TooFew), "{one} {other}");
    }
}

#[test]
fn where_both_have_a_floor_the_ratio_to_it_is_graded() {
    let check = |before: Summary, after: Summary, effect: f64, figures: &[(&str, Grade)]| {
        let comparison = compare(&side(&[before]), &side(&[after]), &settings(&["p99=20%"], effect)).unwrap();
        for (figure, expected) in figures {
            assert_eq!(grade_of(&comparison, figure), *expected, "{figure}");
        }
    };
    // The machine was slower, for the echo as well.
    check(with_echo(9_000, 6_000), with_echo(18_000, 12_000), 100.0, &[("p99", Grade::Told), ("p99_to_floor", Grade::Same)]);
    check(with_echo(9_000, 6_000), with_echo(9_000, 4_500), 100.0, &[("p99", Grade::Told), ("p99_to_floor", Grade::Regression)]);
    // Half of the floor's 6 ms, and nobody notices 4 ms.
    check(with_echo(9_000, 6_000), with_echo(9_000, 4_500), 4_000.0, &[("p99_to_floor", Grade::Same)]);
    check(with_echo(9_000, 6_000), with_p99(18_000), 100.0, &[("p99", Grade::Regression)]);
    // An echo that was late itself is no floor: the daemon is not better because of it.
    let disturbances: [fn(&mut Echo); 3] = [|echo| echo.rate.saturated = true, |echo| echo.lost = 1, |echo| echo.rate.held_back = 1];
    for disturb in disturbances {
        let mut disturbed = with_echo(18_000, 30_000);
        disturb(disturbed.floor.as_mut().unwrap().echo.as_mut().unwrap());
        check(with_echo(9_000, 6_000), disturbed, 100.0, &[("p99", Grade::Regression)]);
    }
    let mut slow = with_echo(9_000, 6_000);
    slow.stages[0].latency.percentiles_us.insert("p99".to_owned(), 9_000);
    slow.floor.as_mut().unwrap().commit_alone.as_mut().unwrap().count = 20_000;
    let mut quick = slow.clone();
    quick.stages[0].latency.percentiles_us.insert("p99".to_owned(), 700);
    check(quick, slow, 100.0, &[("commit.p99", Grade::Told), ("commit.p99_to_floor", Grade::Regression), ("publish.p99", Grade::Same)]);
}

#[test]
fn a_rate_that_falls_and_a_share_of_errors_that_grows_are_regressions() {
    type Change = fn(&mut Summary);
    let rows: [(&str, Change, Grade); 9] = [
        ("achieved", |it| it.rate.achieved_per_s = 94.6, Grade::Same),
        ("achieved", |it| it.rate.achieved_per_s = 94.5, Grade::Regression),
        ("achieved", |it| it.rate.achieved_per_s = 200.0, Grade::Better),
        ("errors", |it| it.requests.errors = 20, Grade::Same),
        ("errors", |it| it.requests.errors = 21, Grade::Regression),
        ("ceiling", |it| it.ceiling.as_mut().unwrap().rate_per_s = 900.0, Grade::Regression),
        ("commit.p99", |it| it.stages[0].latency.percentiles_us.insert("p99".to_owned(), 801).map_or((), |_| ()), Grade::Regression),
        ("commit.p99", |it| it.stages[0].latency.percentiles_us.insert("p99".to_owned(), 790).map_or((), |_| ()), Grade::Same),
        ("service_time.p50", |it| it.service_time.percentiles_us.insert("p50".to_owned(), 1_001).map_or((), |_| ()), Grade::Regression),
    ];
    for (figure, change, expected) in rows {
        let mut before = sound();
        before.ceiling = Some(Ceiling { rate_per_s: 1_000.0, p99_bound_us: 100_000, reached: true, search: None });
        let mut after = before.clone();
        change(&mut after);
        let comparison = compare(&side(&[before]), &side(&[after]), &settings(&[], 100.0)).unwrap();
        assert_eq!(grade_of(&comparison, figure), expected, "{figure}");
    }
    let ratio = |value| {
        let mut it = with_echo(9_000, 6_000);
        it.ceiling = Some(Ceiling { rate_per_s: 1_000.0, p99_bound_us: 100_000, reached: true, search: None });
        it.floor.as_mut().unwrap().ratios =
            vec![Ratio { name: "ceiling_to_echo".to_owned(), value, lowest: value, highest: value, meaning: String::new() }];
        it
    };
    let comparison = compare(&side(&[ratio(0.9)]), &side(&[ratio(0.8)]), &settings(&[], 100.0)).unwrap();
    assert_eq!((grade_of(&comparison, "ceiling"), grade_of(&comparison, "ceiling_to_echo")), (Grade::Told, Grade::Regression));
}

#[test]
fn what_is_not_the_same_measurement_is_refused_with_both_values_unless_forced() {
    type Change = fn(&mut Summary);
    let rows: [(&str, Change); 9] = [
        ("rate_per_s: 100 before, 200 after", |it| drop(it.scenario.workload.insert("rate_per_s".to_owned(), "200".to_owned()))),
        ("cards: not known before, 7 after", |it| drop(it.scenario.workload.insert("cards".to_owned(), "7".to_owned()))),
        ("target: amqp before, http after", |it| it.target.kind = "http".to_owned()),
        ("store: postgresql before, not known after", |it| it.target.store = None),
        ("queue type: quorum before, classic after", |it| it.target.queue_type = Some("classic".to_owned())),
        ("durability: fsync=on", |it| it.target.durability = Some("fsync=off".to_owned())),
        ("daemon: started for the run before, ran already after", |it| it.target.spawned = false),
        ("build: release before, debug after", |it| it.tool.build = "debug".to_owned()),
        ("workload digest: 0123456789ab before, x after", |it| it.scenario.workload_digest = "x".to_owned()),
    ];
    for (part, change) in rows {
        let (before, mut after) = (sound(), sound());
        change(&mut after);
        let sides = (side(std::slice::from_ref(&before)), side(&[before.clone(), after]));
        let said = compare(&sides.0, &sides.1, &Settings::default()).unwrap_err().to_string();
        assert!(said.contains(part) && said.lines().count() == 2, "{part}: {said}");
        let forced = compare(&sides.0, &sides.1, &Settings { force: true, ..Settings::default() }).unwrap();
        assert!(forced.forced.len() == 1 && forced.forced[0].to_string().contains(part), "{part}: {:?}", forced.forced);
    }
}

#[test]
fn what_may_explain_a_change_is_warned_of() {
    type Change = fn(&mut Summary);
    let rows: [(&str, Change); 7] = [
        ("machine", |it| it.environment.host = "bench-2".to_owned()),
        ("profile", |it| it.target.profile = "services".to_owned()),
        ("configuration", |it| it.target.configuration = "x".to_owned()),
        ("lanes", |it| it.target.lanes = 1),
        ("store_version", |it| it.environment.store = Some("16.1".to_owned())),
        ("floor", |it| it.floor = Some(floor(1, 1))),
        ("debug_build", |it| it.warnings = example().warnings),
    ];
    for (code, change) in rows {
        let mut after = sound();
        change(&mut after);
        let (before, after) = (side(&vec![sound(); 3]), side(&[sound(), sound(), after]));
        let found = compare(&before, &after, &Settings::default()).unwrap().warnings;
        let codes: Vec<&str> = found.iter().map(|warning| warning.code.as_str()).filter(|code| *code != "one_sided").collect();
        assert_eq!(codes, [code]);
    }
    let two = compare(&side(&vec![sound(); 2]), &side(&vec![sound(); 3]), &Settings::default()).unwrap();
    assert_eq!(two.warnings.iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(), ["few_runs"]);
}

#[test]
fn a_tolerance_for_nothing_is_an_error() {
    for text in ["p99", "p99=10", "p99=x%", "p99=-1%", "p99=NaN%", "p99=inf%"] {
        let error = Tolerances::default().add(text).unwrap_err();
        assert_eq!(error, ToleranceError::Unread(text.to_owned()));
    }
    let said = compare(&side(&[sound()]), &side(&[sound()]), &settings(&["p98=1%"], 0.0)).unwrap_err().to_string();
    assert!(said.contains("\"p98\"") && said.contains("p99, p99.9"), "{said}");
}

#[test]
fn a_side_is_a_file_or_a_directory_or_a_directory_of_them_and_never_a_wrong_run() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let write = |name: &str, text: &str| {
        let path = root.join(name).join("summary.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let json = |p99: u64| serde_json::to_string(&with_p99(p99)).unwrap();
    write("runs/2", &json(2));
    write("runs/1", &json(1));
    write("one", &json(3));
    write("strange", "{\"a\": 1}");
    write("old", &json(4).replacen("\"schema_version\":1", "\"schema_version\":0", 1));
    write("cut", &json(5)[..100]);
    write("lost", &serde_json::to_string(&example()).unwrap());
    let mut disproved = sound();
    disproved.proof = Some(Proof { decisions: 1, altered: 2, ..Proof::default() });
    write("disproved", &serde_json::to_string(&disproved).unwrap());
    fs::create_dir(root.join("empty")).unwrap();
    for (path, p99s) in [("runs", vec![1, 2]), ("runs/2", vec![2]), ("one/summary.json", vec![3])] {
        let side = Side::read(&root.join(path)).unwrap();
        assert_eq!(side.runs.iter().map(|run| run.response_time.percentile("p99")).collect::<Vec<_>>(), p99s, "{path}");
    }
    for (path, part) in [
        ("nowhere", "cannot be read"),
        ("empty", "has no summary.json"),
        ("strange", "no schema_version"),
        ("old", "version 0 of the schema"),
        ("cut", "no result of jitauth bench"),
        ("lost", "went wrong: 1 requests had no answer"),
        ("disproved", "went wrong: the store: 2 answers are in the journal with other bytes"),
    ] {
        let said = Side::read(&root.join(path)).unwrap_err().to_string();
        assert!(said.contains(part) && said.contains(path), "{path}: {said}");
    }
}

#[test]
fn a_person_reads_this() {
    let mut slow = with_echo(18_000, 6_000);
    slow.tool.commit = Some("0123456789ab".to_owned());
    slow.target.profile = "services".to_owned();
    let (before, after) = (side(&[with_echo(9_000, 6_000), with_echo(10_000, 6_000)]), side(&[slow]));
    let comparison = compare(&before, &after, &settings(&[], 100.0)).unwrap();
    let mut text = Vec::new();
    terminal(&mut text, &comparison).unwrap();
    text.extend_from_slice(b"\n----\n\n");
    markdown(&mut text, &comparison).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, include_str!("snapshot.txt"), "\n{text}");
}
