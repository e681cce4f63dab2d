#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{
    bench::{
        measure::{Measured, measure},
        record::Reply,
        run,
        traffic::Ids,
    },
    telemetry::Spans,
};
use parking_lot::Mutex;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A hundred requests, one each 2 ms.
fn scenario() -> Scenario {
    Scenario { rate_per_s: 500, arrival: Arrival::Constant, warm_up: Duration::ZERO, duration: MS(200), ..Scenario::default() }
}

/// A target that is told of each request which one it is, and says whether those that wait are answered now.
struct Scripted<F> {
    waiting: Mutex<Vec<Parcel>>,
    answers: F,
}

impl<F: Fn(usize) -> bool + Send + Sync + 'static> Target for Scripted<F> {
    fn send(&self, parcel: Parcel) {
        let nth = parcel.seat.nth();
        parcel.seat.sent(Instant::now());
        let mut waiting = self.waiting.lock();
        waiting.push(parcel);
        if (self.answers)(nth) {
            waiting.drain(..).for_each(answer);
        }
    }
}

fn answer(parcel: Parcel) {
    let body = br#"{"version":1,"id":"any","decision":"approved","reason":null}"#;
    parcel.seat.answered(Instant::now(), Reply { body, journaled: true, spans: Spans::default() });
}

async fn sent(scenario: &Scenario, target: Arc<dyn Target>) -> (Measured, Pace) {
    let record = run::record(scenario, Ids::new("paced"));
    let (_, pace) = super::run(scenario, &record, target).await.unwrap();
    (measure(scenario, &record, &pace), pace)
}

fn scripted<F>(answers: F) -> Arc<Scripted<F>> {
    Arc::new(Scripted { waiting: Mutex::default(), answers })
}

#[tokio::test]
async fn a_stall_of_what_decides_holds_nothing_back_and_is_in_every_answer_that_it_held_up() {
    // Nothing is answered until the last one was sent: a loop that waits for answers would send one.
    let (measured, pace) = sent(&scenario(), scripted(|nth| nth == 99)).await;
    assert_eq!((measured.requests.sent, measured.requests.answered, pace.held_back, pace.unsent), (100, 100, 0, 0));
    let (first, median) = (measured.response.max(), measured.response.value_at_quantile(0.5));
    assert!(first >= 198_000 && median >= 98_000, "the first waited for {first} µs, half of them for {median}");
}

#[tokio::test]
async fn a_stall_of_the_generator_is_in_the_response_times_of_what_it_sent_late() {
    let pausing = scripted(|nth| {
        if nth == 20 {
            std::thread::sleep(MS(100));
        }
        true
    });
    let (measured, _) = sent(&scenario(), pausing).await;
    assert_eq!((measured.requests.sent, measured.requests.answered), (100, 100));
    // About fifty were due meanwhile; each goes out at once afterwards, and counts from when it was due.
    let late = measured.response.count_between(10_000, u64::MAX / 2);
    assert!(late >= 40, "{late} took 10 ms or more");
    assert!(measured.lag.max() >= 90_000 && measured.response.max() >= 98_000, "late by {} µs", measured.lag.max());
}

#[tokio::test]
async fn a_request_that_is_held_back_counts_from_when_it_was_due() {
    let scenario = Scenario { in_flight_max: 2, ..scenario() };
    let target = scripted(|_| false);
    let held = Arc::clone(&target);
    let free = tokio::spawn(async move {
        // Frees what is under way, until all were sent.
        loop {
            tokio::time::sleep(MS(20)).await;
            let parcels: Vec<_> = held.waiting.lock().drain(..).collect();
            parcels.into_iter().for_each(answer);
        }
    });
    let (measured, pace) = sent(&scenario, target).await;
    free.abort();
    assert_eq!((measured.requests.answered, pace.unsent), (100, 0));
    assert!(pace.held_back >= 10, "{pace:?}");
    // Two in 20 ms where ten are due: the last one is due at 198 ms, and goes out after about a second.
    let (last, service) = (measured.response.max(), measured.service.value_at_quantile(0.5));
    assert!(last > 400_000 && service < last / 2, "the last took {last} µs, from sending {service}");
}
