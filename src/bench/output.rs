//! The files of a result.
//!
//! | file | what it is |
//! |---|---|
//! | `summary.json` | [`Summary`] |
//! | `latency.hgrm` | the response times by percentile, milliseconds, for the HdrHistogram plotter |
//! | `intervals.hlog` | a histogram for each second: HdrHistogram's V2 interval log, microseconds |
//! | `report.md` | the same for people, for a pull request or a chat |
//! | `report.html` | the same as a [page], beside the run before it |

use super::{
    Seen, page, print,
    summary::{SCHEMA_VERSION, Summary},
};
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

/// Writes them into a directory, which is made when missing. The page shows the run beside `previous`, or else beside the one of the same
/// workload whose result the directory had.
///
/// # Errors
/// A file could not be written.
pub fn write(directory: &Path, seen: &Seen, previous: Option<&Summary>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let kept = read(&directory.join("summary.json")).ok();
    let kept = kept.filter(|kept| kept.scenario.workload_digest == seen.summary.scenario.workload_digest);
    let summary = serde_json::to_vec_pretty(&seen.summary)?;
    fs::write(directory.join("summary.json"), summary)?;
    fs::write(directory.join("report.html"), page::report(&seen.summary, previous.or(kept.as_ref())))?;
    let mut distribution = Vec::new();
    hgrm(&mut distribution, &seen.measured.response)?;
    fs::write(directory.join("latency.hgrm"), distribution)?;
    fs::write(directory.join("intervals.hlog"), intervals(seen)?)?;
    let mut report = Vec::new();
    print::markdown(&mut report, &seen.summary)?;
    fs::write(directory.join("report.md"), report)
}

/// Reads a `summary.json`.
///
/// # Errors
/// There is none, or one of another version.
pub fn read(path: &Path) -> io::Result<Summary> {
    let summary: Summary = serde_json::from_slice(&fs::read(path)?)?;
    if summary.schema_version == SCHEMA_VERSION {
        Ok(summary)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {} of the schema, not {SCHEMA_VERSION}", summary.schema_version)))
    }
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
    // The first bucket has all of its sub-buckets, every other one the upper half.
    let sub_buckets = times.distinct_values() * 2 / (usize::from(buckets) + 1);
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]")
}

/// A histogram for each second that anything was due in.
fn intervals(seen: &Seen) -> io::Result<Vec<u8>> {
    let stretches = &seen.measured.stretches;
    let first_us = stretches.first().map_or(0, |stretch| stretch.began_us);
    let began = SystemTime::UNIX_EPOCH + micros_after(0, first_us);
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("jitauth bench {}: response times, microseconds", seen.summary.scenario.name))
        .with_start_time(began)
        .with_base_time(began)
        .begin_log_with(&mut text, &mut serializer)?;
    for (second, times) in seen.measured.by_second.iter().enumerate().filter(|(_, times)| !times.is_empty()) {
        // Between two stretches there may be a pause.
        let stretch = stretches.iter().rfind(|stretch| stretch.first_second <= second);
        let (first_second, began_us) = stretch.map_or((0, first_us), |stretch| (stretch.first_second, stretch.began_us));
        let start = micros_after(first_us, began_us) + Duration::from_secs((second - first_second) as u64);
        log.write_histogram(&times.unpack(), start, Duration::from_secs(1), Tag::new("response_time")).map_err(io::Error::other)?;
    }
    drop(log);
    Ok(text)
}

fn micros_after(earlier_us: i64, later_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(later_us.saturating_sub(earlier_us)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::bench::{
        measure::{Measured, Packed, Stretch},
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
        let stretch = |first_second, began_us| Stretch { first_second, began_us, ceiling: None };
        let measured = Measured {
            rate: Rate::default(),
            requests: Requests::default(),
            decisions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            service: response.clone(),
            lag: histogram(),
            response,
            by_second: [first, histogram(), third].iter().map(Packed::new).collect(),
            seconds: Vec::new(),
            heatmap: Heatmap::default(),
            ceiling: None,
            stretches: vec![stretch(0, 1_700_000_000_000_000), stretch(2, 1_700_000_007_500_000)],
        };
        Seen { summary: example(), measured }
    }

    #[test]
    fn every_file_is_there_and_can_be_read_by_what_it_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("new");
        write(&at, &seen(), None).unwrap();
        let summary: crate::bench::summary::Summary = serde_json::from_slice(&fs::read(at.join("summary.json")).unwrap()).unwrap();
        assert_eq!(summary, example());
        assert!(fs::read_to_string(at.join("report.md")).unwrap().contains("steady"));
        let log = fs::read(at.join("intervals.hlog")).unwrap();
        let intervals: Vec<(u128, u64)> = IntervalLogIterator::new(&log)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => {
                    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, interval.encoded_histogram()).unwrap();
                    let times: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    Some((interval.start_timestamp().as_millis(), times.len()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(intervals, [(0, 900), (7_500, 1)], "the second stretch began after a pause");
        assert!(String::from_utf8_lossy(&log).contains("1700000000.000"), "by the wall clock");
    }

    #[test]
    fn the_page_shows_the_run_that_was_there_before_when_its_workload_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let page = |seen: &Seen, previous: Option<&Summary>| {
            write(at, seen, previous).unwrap();
            fs::read_to_string(at.join("report.html")).unwrap()
        };
        let shown = "under the same workload";
        let mut other = seen();
        other.summary.scenario.workload_digest = "another".to_owned();
        assert!(!page(&seen(), None).contains(shown), "there was none");
        assert!(page(&seen(), None).contains(shown));
        assert!(!page(&other, None).contains("previous run"), "its workload is another");
        assert!(page(&other, Some(&seen().summary)).contains("under ANOTHER workload"), "it was asked for");
        fs::write(at.join("summary.json"), "{").unwrap();
        assert!(!page(&seen(), None).contains("previous run"), "it cannot be read");
        let mut newer = seen().summary;
        newer.schema_version += 1;
        fs::write(at.join("summary.json"), serde_json::to_vec(&newer).unwrap()).unwrap();
        assert!(read(&at.join("summary.json")).is_err_and(|error| error.to_string().contains("version 2 of the schema")));
    }

    #[test]
    fn the_distribution_is_in_milliseconds_and_ends_at_the_longest() {
        let mut out = Vec::new();
        hgrm(&mut out, &seen().measured.response).unwrap();
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(fields, ["5.003", "1.000000000000", "901"], "{text}");
        assert!(text.contains("Total count    =          901") && text.contains("SubBuckets     =         2048"), "{text}");
    }
}
