#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

fn settings(file_bytes_max: u64, directory_bytes_max: u64) -> Settings {
    Settings { file_bytes_max, directory_bytes_max, keep: 7 * DAY, ..Settings::default() }
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// 2026-03-04T10:15:07Z
const NOW: Timestamp = Timestamp(1_772_619_307_000_000);

#[test]
fn a_full_file_is_followed_by_another() {
    let directory = TempDir::new().unwrap();
    let lines = "#line\n".repeat(40);
    let mut disk = Disk::new(directory.path(), &settings(200, 1 << 20));
    assert!(names(&directory).is_empty(), "nothing is touched before there is something to write");
    for (seconds, files) in [(0_i64, 1), (1, 2), (2, 3)] {
        let at = |seconds: i64| Timestamp(NOW.0 + seconds * 1_000_000);
        disk.append(&lines, at(seconds), at(seconds + 1)).unwrap();
        assert_eq!(names(&directory).len(), files, "after {seconds} appends");
    }
    // A start in the same second does not touch what is there.
    let before = fs::read(directory.path().join("latency-20260304T101507Z-000.hlog")).unwrap();
    Disk::new(directory.path(), &settings(200, 1 << 20)).append(&lines, NOW, NOW).unwrap();
    assert_eq!(names(&directory).len(), 4);
    assert_eq!(fs::read(directory.path().join("latency-20260304T101507Z-000.hlog")).unwrap(), before);
    assert_eq!(Disk::earliest(directory.path()), Some(NOW));
}

#[test]
fn what_is_too_old_or_too_much_goes_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let aged = |name: &str, days: u32, bytes: usize| {
        let path = directory.path().join(name);
        fs::write(&path, vec![b'#'; bytes]).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(NOW.0.unsigned_abs()) - DAY * days;
        File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    };
    aged("latency-20260201T000000Z-000.hlog", 31, 10);
    aged("latency-20260302T000000Z-000.hlog", 2, 700);
    aged("latency-20260303T000000Z-000.hlog", 1, 600);
    aged("latency-old.hlog", 31, 10);
    aged("jitauth.db", 31, 10);
    Disk::new(directory.path(), &settings(100, 1000)).append("#line\n", NOW, NOW).unwrap();
    let left = ["jitauth.db", "latency-20260303T000000Z-000.hlog", "latency-20260304T101507Z-000.hlog", "latency-old.hlog"];
    assert_eq!(names(&directory), left);
}

#[test]
fn what_cannot_be_read_or_removed_costs_itself() {
    let directory = TempDir::new().unwrap();
    // A directory by the name of a file cannot be read as one, whoever reads it.
    fs::create_dir(directory.path().join("latency-20260201T000000Z-000.hlog")).unwrap();
    let mut disk = Disk::new(directory.path(), &settings(100, 1000));
    disk.append("#line\n", NOW, NOW).unwrap();
    Disk::read(directory.path(), Timestamp(0), Timestamp(i64::MAX), |_| ()).unwrap();
    assert_eq!(names(&directory).len(), 2);
}
