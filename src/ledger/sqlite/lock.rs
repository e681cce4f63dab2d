//! One daemon a file: the lanes of two daemons would only wait for each other.
//!
//! The lock is the operating system's, on a file beside the database, so it ends with its process however that ends.

use crate::ledger::store::StoreError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Error, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// The lock, while it lives.
#[derive(Debug)]
pub(super) struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock of the database at `path` and writes our process id into it.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let path = lock_path(path).map_err(|error| refused(path, &error))?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| refused(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { holder: holder(&mut file) }),
            Err(TryLockError::Error(error)) => return Err(refused(&path, &error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| refused(&path, &error))?;
        Ok(Self { _file: file })
    }
}

/// The lock's file: the same for every way of writing the database's path.
fn lock_path(path: &Path) -> std::io::Result<PathBuf> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        // Not created yet, so only its directory can be looked up.
        Err(_) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().ok_or_else(|| Error::other("it names no file"))?;
            directory.canonicalize()?.join(name)
        }
    };
    let mut name = real.into_os_string();
    name.push(".lock");
    Ok(name.into())
}

/// Who has the lock, as far as the file tells; its owner may be about to write it.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

fn refused(path: &Path, error: &Error) -> StoreError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => StoreError::Refused(text),
        _ => StoreError::Unreachable(text),
    }
}
