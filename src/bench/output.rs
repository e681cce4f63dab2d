//! The files of a result.
//!
//! | file | what it is |
//! |---|---|
//! | `summary.json` | [`Summary`](super::summary::Summary) |
//! | `latency.hgrm` | the response times by percentile, milliseconds, for the HdrHistogram plotter |
//! | `intervals.hlog` | a histogram for each second: HdrHistogram's V2 interval log, microseconds |
//! | `report.md` | the same for people, for a pull request or a chat |

use super::{Seen, print};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};
use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::{Duration, SystemTime},
};

/// Steps of the percentile distribution for each halving of the distance to 1.
const TICKS_PER_HALF: u32 = 5;

/// Writes them into a directory, which is made when missing.
///
/// # Errors
/// A file could not be written.
pub fn write(directory: &Path, seen: &Seen) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let summary = serde_json::to_vec_pretty(&seen.summary)?;
    fs::write(directory.join("summary.json"), summary)?;
    let mut distribution = Vec::new();
    hgrm(&mut distribution, &seen.measured.response)?;
    fs::write(directory.join("latency.hgrm"), distribution)?;
    fs::write(directory.join("intervals.hlog"), intervals(seen)?)?;
    let mut report = Vec::new();
    print::markdown(&mut report, &seen.summary)?;
    fs::write(directory.join("report.md"), report)
}

/// The percentile distribution, in milliseconds.
fn hgrm(out: &mut impl Write, times: &Histogram<u64>) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let (mut total, millis) = (0, |us: u64| us as f64 / 1e3);
    for step in times.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (millis(step.value_iterated_to()), step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10} {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
        }
    }
    writeln!(out, "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]", times.mean() / 1e3, times.stdev() / 1e3)?;
    writeln!(out, "#[Max     = {:>12.3}, Total count    = {:>12}]", millis(times.max()), times.len())?;
    let buckets = times.buckets();
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {:>12}]", times.distinct_values() / usize::from(buckets.max(1)))
}

/// A histogram for each second that anything was due in.
fn intervals(seen: &Seen) -> io::Result<Vec<u8>> {
    let started = seen.summary.started_at.parse::<jiff::Timestamp>().map(SystemTime::from).unwrap_or(SystemTime::UNIX_EPOCH);
    let warm_up = seen.summary.seconds.iter().take_while(|second| !second.measured).count() as u64;
    let began = started.checked_sub(Duration::from_secs(warm_up)).unwrap_or(started);
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("jitauth bench {}: response times, microseconds", seen.summary.scenario.name))
        .with_start_time(began)
        .with_base_time(began)
        .begin_log_with(&mut text, &mut serializer)?;
    for (second, times) in (0..).zip(&seen.measured.by_second) {
        if !times.is_empty() {
            let (start, length) = (Duration::from_secs(second), Duration::from_secs(1));
            log.write_histogram(times, start, length, Tag::new("response_time")).map_err(io::Error::other)?;
        }
    }
    drop(log);
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::bench::{
        measure::Measured,
        record::histogram,
        summary::{Heatmap, Rate, Requests, tests::example},
    };
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };
    use std::collections::BTreeMap;

    fn seen() -> Seen {
        let (mut first, mut third) = (histogram(), histogram());
        (1..=900).for_each(|us| first.saturating_record(us));
        third.saturating_record(5_000);
        let mut response = first.clone();
        response.add(&third).unwrap();
        let measured = Measured {
            rate: Rate::default(),
            requests: Requests::default(),
            decisions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            service: response.clone(),
            lag: histogram(),
            response,
            by_second: vec![first, histogram(), third],
            seconds: Vec::new(),
            heatmap: Heatmap::default(),
            ceiling: None,
        };
        Seen { summary: example(), measured }
    }

    #[test]
    fn every_file_is_there_and_can_be_read_by_what_it_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("new");
        write(&at, &seen()).unwrap();
        let summary: crate::bench::summary::Summary = serde_json::from_slice(&fs::read(at.join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary, example());
        assert!(fs::read_to_string(at.join("report.md")).unwrap().contains("steady"));
        let log = fs::read(at.join("intervals.hlog")).unwrap();
        let intervals: Vec<(u64, u64)> = IntervalLogIterator::new(&log)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => {
                    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram()).unwrap();
                    let times: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    Some((interval.start_timestamp().as_secs(), times.len()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(intervals, [(0, 900), (2, 1)]);
    }

    #[test]
    fn the_distribution_is_in_milliseconds_and_ends_at_the_longest() {
        let mut out = Vec::new();
        hgrm(&mut out, &seen().measured.response).unwrap();
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(fields, ["5.003", "1.000000000000", "901"], "{text}");
        assert!(text.contains("Total count    =          901"), "{text}");
    }
}
