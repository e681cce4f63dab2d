//! How long it takes to have something on the disk.
#![expect(clippy::disallowed_methods, reason = "a disk is measured on the real clock")]

use crate::bench::record::micros;
use hdrhistogram::Histogram;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    time::Instant,
};

/// What is written each time.
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// Writes 4 KiB so many times and has them on the disk each time; adds the microseconds to `times`. Blocks.
///
/// # Errors
/// The directory cannot be written to.
pub fn sync_cost(directory: &Path, syncs: usize, times: &mut Histogram<u64>) -> io::Result<()> {
    let path = directory.join("sync-cost");
    let mut file = File::create(&path)?;
    for _ in 0..syncs {
        let start = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        times.saturating_record(u64::from(micros(start.elapsed())));
    }
    std::fs::remove_file(path)
}
