//! Pages render in a real browser: every part has a size at a desk and on a telephone, nothing sticks out, nothing is asked of anybody,
//! nothing is complained about, and on paper no chart is torn.

use super::support::{
    browser::{Browser, VIEWS},
    sandbox::Sandbox,
};
use jitauth::bench::{
    page,
    proof::Proof,
    summary::{Ceiling, CeilingSearch, CeilingStep, Latency, Summary, Warning},
    threshold::Graded,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Pages, their pictures and what they print as are put here when it is set, for whoever wants to look.
const PICTURES: &str = "JITAUTH_TEST_PICTURES";

/// Everything that is wrong with a page, each with the view in which it is.
async fn faults(browser: &mut Browser, file: &Path) -> Vec<String> {
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or("page").to_owned();
    let pictures = env::var_os(PICTURES).map(PathBuf::from);
    let mut found = Vec::new();
    browser.view(VIEWS[0]).await;
    browser.open(file).await;
    for view in VIEWS {
        browser.view(view).await;
        found.extend(browser.faults().await.into_iter().map(|fault| format!("{name}, {}: {fault}", view.name)));
        if let Some(directory) = &pictures {
            fs::write(directory.join(format!("{name}-{}.png", view.name)), browser.picture().await).unwrap();
        }
    }
    found.extend(browser.complaints().into_iter().map(|complaint| format!("{name}: {complaint}")));
    let paper = browser.print().await;
    if let Some(directory) = &pictures {
        fs::write(directory.join(format!("{name}.pdf")), &paper.bytes).unwrap();
        fs::copy(file, directory.join(format!("{name}.html"))).unwrap();
    }
    if paper.pages == 0 || paper.pages > 12 {
        found.push(format!("{name}, on paper: {} pages", paper.pages));
    }
    found.extend(paper.torn.into_iter().map(|torn| format!("{name}, on paper: {torn}")));
    found
}

async fn sound(browser: &mut Browser, directory: &Path, name: &str, page: &str) {
    let file = directory.join(format!("{name}.html"));
    fs::write(&file, page).unwrap();
    let faults = faults(browser, &file).await;
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// A run on a daemon of its own, twice into the same directory: the second has a previous one.
async fn run_twice(out: &Path) -> Summary {
    let sandbox = Sandbox::embedded();
    let directory = out.to_str().unwrap();
    let arguments = ["bench", "run", "smoke", "--rate", "150", "--duration", "6", "--warm-up", "2", "--grade", "tell", "--out", directory];
    for _ in 0..2 {
        sandbox.settings.run_well(&arguments).await;
    }
    serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap()
}

/// A search that ended badly, each of its steps near another.
fn searched() -> Ceiling {
    let step = |number: u32| CeilingStep {
        of: if number.is_multiple_of(2) { "daemon" } else { "echo" }.to_owned(),
        rate_per_s: 1_000 + number * 40,
        achieved_per_s: 990.5,
        p50_us: 900,
        p99_us: 2_000 * u64::from(number * number),
        service_p99_us: 1,
        lag_p99_us: 1,
        lost: 0,
        errors: 0,
        kept: number < 8,
        why: (number >= 8).then(|| "p99 is not under the bound, and requests left late, and more was wrong".to_owned()),
    };
    let search = CeilingSearch {
        confirmed: false,
        generator: true,
        echo_confirmed: Some(false),
        echo_generator: Some(true),
        steps: (0..14).map(step).collect(),
    };
    Ceiling { rate_per_s: 1_240.0, p99_bound_us: 100_000, reached: true, search: Some(search) }
}

/// A page beside a run of one's choice; one that is not there is told before anything is measured.
#[tokio::test]
async fn the_run_beside_it_can_be_chosen() {
    let sandbox = Sandbox::embedded();
    let directory = TempDir::new().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (place("first"), place("second"));
    let short = ["bench", "run", "smoke", "--target", "inproc", "--rate", "50", "--duration", "1", "--grade", "tell"];
    sandbox.settings.run_well(&[&short[..], &["--out", &first]].concat()).await;
    let beside = ["--rate", "60", "--out", &second, "--previous", &place("first/summary.json")];
    sandbox.settings.run_well(&[&short[..5], &short[7..], &beside].concat()).await;
    let page = fs::read_to_string(place("second/report.html")).unwrap();
    assert!(page.contains("under ANOTHER workload"), "{page}");
    let output = sandbox.settings.run(&[&short[..], &["--out", &place("third"), "--previous", &place("none.json")]].concat()).await;
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!directory.path().join("third").exists());
}

/// The same with all that can go wrong, and names as long as names can be.
fn ugly(sound: &Summary) -> Summary {
    let mut it = sound.clone();
    let long = "a-name-that-nobody-would-give-".repeat(8);
    (it.verdict, it.failures) =
        ("failed".to_owned(), vec!["3 requests had no answer".to_owned(), format!("threshold {long}<1us is not kept")]);
    (it.requests.lost, it.requests.unexpected, it.requests.duplicated) = (3, 2, 1);
    it.requests.examples = vec![format!("{long} <script>alert(1)</script>"); 3];
    (it.scenario.name, it.scenario.question) = (long.clone(), long.repeat(3));
    it.scenario.workload.insert(long.clone(), long.clone());
    (it.environment.host, it.environment.cpu) = (long.clone(), long.clone());
    (it.target.profile, it.target.durability) = (long.clone(), Some(long.repeat(2)));
    it.tool.command = Some(long.repeat(4));
    it.reasons.insert(long.clone(), 1_234_567_890_123);
    it.stages.iter_mut().for_each(|stage| stage.latency.percentiles_us.values_mut().for_each(|us| *us = us.saturating_mul(40_000)));
    it.thresholds.push(Graded { threshold: format!("{long}<1us"), limit: 1.0, value: None, unit: "us".to_owned(), passed: false });
    it.thresholds.push(Graded { threshold: "p99<1us".to_owned(), limit: 1.0, value: Some(9e9), unit: "us".to_owned(), passed: false });
    it.warnings.push(Warning { code: "long".to_owned(), text: long });
    it.proof = Some(Proof { decisions: 5, lost: 3, altered: 1, limits_passed: 7, ..Proof::default() });
    it.seconds.iter_mut().step_by(2).for_each(|second| second.lost = 2);
    it.ceiling = Some(searched());
    it
}

/// Nothing answered; or a second only; or ten minutes.
fn odd(sound: &Summary) -> [(&'static str, Summary); 3] {
    let mut empty = sound.clone();
    (empty.response_time, empty.service_time, empty.stages) = (Latency::default(), Latency::default(), Vec::new());
    (empty.proof, empty.decisions, empty.reasons) = (None, Default::default(), Default::default());
    empty.seconds.iter_mut().for_each(|second| (second.answered, second.max_us) = (0, 0));
    empty.heatmap.rows.iter_mut().for_each(|row| row.fill(0));
    let mut short = sound.clone();
    short.seconds.truncate(1);
    short.heatmap.rows.truncate(1);
    let mut long = sound.clone();
    let (seconds, rows) = (sound.seconds.clone(), sound.heatmap.rows.clone());
    (long.seconds, long.heatmap.rows) = (Vec::new(), Vec::new());
    for (number, (second, row)) in seconds.iter().zip(&rows).cycle().take(617).enumerate() {
        let mut second = second.clone();
        second.second = number as u64;
        long.seconds.push(second);
        long.heatmap.rows.push(row.clone());
    }
    long.response_time.count *= 10_000;
    [("empty", empty), ("second", short), ("minutes", long)]
}

#[tokio::test]
async fn a_runs_page_renders_everywhere_and_prints() {
    let Some(mut browser) = Browser::start().await else { return };
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out");
    let summary = run_twice(&out).await;
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("under the same workload") && page.contains("jitauth bench run smoke --rate 150"), "{page}");
    sound(&mut browser, directory.path(), "run", &page).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('figure').length").await, 4, "a chart is missing");
    sound(&mut browser, directory.path(), "ugly", &page::report(&ugly(&summary), Some(&summary))).await;
    for (name, odd) in odd(&summary) {
        sound(&mut browser, directory.path(), name, &page::report(&odd, None)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemons_page_renders_everywhere_and_prints() {
    let Some(mut browser) = Browser::start().await else { return };
    let mut sandbox = Sandbox::embedded();
    sandbox.settings = sandbox.settings.with("JITAUTH_REPORT__INTERVAL_S", "1");
    let _daemon = sandbox.daemon().await;
    let directory = TempDir::new().unwrap();
    let written = async |name: &str, more: &[&str]| {
        let file = directory.path().join(format!("{name}.html"));
        let output = sandbox.settings.run(&[&["report", "--html", file.to_str().unwrap()], more].concat()).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 99)), "{said}{}", String::from_utf8_lossy(&output.stderr));
        (fs::read_to_string(file).unwrap(), said)
    };
    let (page, said) = written("idle", &[]).await;
    assert!(page.contains("Nothing was decided.") && said.contains("Written to "), "{said}");
    sound(&mut browser, directory.path(), "idle", &page).await;

    sandbox.settings.run_well(&["seed", "--cards", "100"]).await;
    let load = ["bench", "run", "smoke", "--running", "--cards", "100", "--rate", "100", "--duration", "6", "--grade", "tell"];
    sandbox.settings.run_well(&load).await;
    let (page, _) = written("daemon", &["--from", "-4s"]).await;
    for part in ["the window before it", "Decisions over time", "Latency over time", "promised by profile embedded", "journal_mode=wal"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    sound(&mut browser, directory.path(), "daemon", &page).await;
    assert_eq!(browser.evaluate("document.querySelectorAll('figure').length").await, 4, "a chart is missing");
}

/// The test of the test: what it looks for, it finds.
#[tokio::test]
async fn a_page_that_is_wrong_does_not_pass() {
    let Some(mut browser) = Browser::start().await else { return };
    let directory = TempDir::new().unwrap();
    let drawing = "<svg role='img' width='300' height='300' viewBox='0 0 300 300'><title>t</title><desc>d</desc>";
    let figure = |inside: &str| format!("<figure id=f>{drawing}{inside}</svg></figure>");
    let lines = "<p style='height:60px'>x</p>".repeat(10);
    for (name, body, part) in [
        ("right", format!("{}{lines}", figure("<text x=9 y=30>word</text>")), None),
        ("script", "<script>throw new Error('oh')</script>".to_owned(), Some("exception: ")),
        ("console", "<script>console.warn('oh')</script>".to_owned(), Some("console: ")),
        ("picture", "<img src='http://127.0.0.1:9/x.png' alt='x'>".to_owned(), Some("asked for \"http://127.0.0.1:9/x.png\"")),
        (
            "font",
            "<style>@font-face{font-family:x;src:url(http://127.0.0.1:9/x)}p{font-family:x}</style><p>x".to_owned(),
            Some("asked for"),
        ),
        ("wide", "<div style='width:500px'>x</div>".to_owned(), Some("narrow: the page is 5")),
        ("flat", "<section id=s><div></div></section>".to_owned(), Some("no size: s")),
        ("pale", "<p style='color:#999'>x</p>".to_owned(), Some("contrast 2.8")),
        ("cut", figure("<text x=290 y=30>a long word</text>"), Some("cut off in f")),
        ("covered", figure("<text x=9 y=30>one</text><text x=12 y=31>other</text>"), Some("lies over")),
        (
            "torn",
            format!("{lines}{lines}<div style='height:100px'></div>{}", figure("").replace("height='300'", "height='900'")),
            Some("chart 0 begins on"),
        ),
    ] {
        let file = directory.path().join(format!("{name}.html"));
        fs::write(&file, format!("<!doctype html><meta name=viewport content='width=device-width'><body>{body}")).unwrap();
        let found = faults(&mut browser, &file).await;
        match part {
            None => assert!(found.is_empty(), "{name}: {found:?}"),
            Some(part) => assert!(found.iter().any(|fault| fault.contains(part)), "{name}: {part:?} in {found:?}"),
        }
    }
}
