//! A log file that is put aside when it is full: `--enable-log-rotation`.
//!
//! ```text
//! etcd.log                              what is written now
//! etcd-2026-11-21T19-04-05.123.log      put aside then, in UTC
//! etcd-2026-11-20T08-00-00.000.log.gz   older, compressed if that was asked for
//! ```
//!
//! Settings and names are those of lumberjack, which etcd uses. A line is never split over two files.
//! What goes wrong here is not told anywhere: the log itself goes on in the file it has.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::{since_epoch, time};

const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const COMPRESSED: &str = ".gz";

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rotation {
    /// MiB a file may have; 0 means 100.
    #[serde(rename = "maxsize")]
    megabytes: u32,
    /// Days a file that was put aside is kept; 0 means for ever.
    #[serde(rename = "maxage")]
    days: u32,
    /// How many of them are kept; 0 means all.
    #[serde(rename = "maxbackups")]
    backups: u32,
    /// Whether they are compressed.
    compress: bool,
}

impl Rotation {
    /// Reads the flag; the error is in etcd's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => format!("invalid log rotation config: {error}"),
            _ => format!("improperly formatted log rotation config: {error}"),
        })
    }

    fn max_bytes(&self) -> u64 {
        let megabytes = if self.megabytes == 0 { 100 } else { self.megabytes };
        u64::from(megabytes) * MEGABYTE
    }
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    length: u64,
    rotation: Rotation,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = append(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length, rotation })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + line.len() as u64 > self.rotation.max_bytes() {
            // The file that is open goes on if there can be no new one.
            let _ = self.put_aside();
        }
        self.length += line.len() as u64;
        self.file.write_all(line)
    }

    fn put_aside(&mut self) -> io::Result<()> {
        let names = Names::of(&self.path);
        let mut now = since_epoch();
        while names.aside(now).exists() {
            now += Duration::from_millis(1);
        }
        fs::rename(&self.path, names.aside(now))?;
        self.file = append(&self.path)?;
        self.length = 0;
        let rotation = self.rotation.clone();
        // Compressing takes a while, and the lock of the log is held here.
        let tidy = move || drop(tidy(&names, &rotation, now));
        std::thread::Builder::new().name("log-files".to_owned()).spawn(tidy).map(drop)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// How the files that were put aside are called.
#[derive(Clone, Debug)]
struct Names {
    folder: PathBuf,
    prefix: String,
    suffix: String,
}

impl Names {
    fn of(path: &Path) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = text(path.extension());
        Self {
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            prefix: format!("{}-", text(path.file_stem())),
            suffix: if extension.is_empty() { extension } else { format!(".{extension}") },
        }
    }

    fn name(&self, at: Duration) -> String {
        format!("{}{}{}", self.prefix, time::for_file(at), self.suffix)
    }

    fn aside(&self, at: Duration) -> PathBuf {
        self.folder.join(self.name(at))
    }

    /// The name without what compression adds, if it is the name of a file that was put aside.
    fn recognise(&self, name: &str) -> Option<String> {
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(name);
        let stamp = plain.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        time::is_for_file(stamp).then(|| plain.to_owned())
    }

    /// All of them, the newest first: their names sort as their times do.
    fn list(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Some(plain) = self.recognise(&entry.file_name().to_string_lossy()) {
                found.push((plain, entry.path()));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }
}

/// Removes the files that are too many or too old, and compresses the others.
fn tidy(names: &Names, rotation: &Rotation, now: Duration) -> io::Result<()> {
    let oldest = match rotation.days {
        0 => None,
        days => now.checked_sub(DAY * days).map(|at| names.name(at)),
    };
    let kept = if rotation.backups == 0 { usize::MAX } else { rotation.backups as usize };
    for (index, (name, path)) in names.list()?.into_iter().enumerate() {
        if index >= kept || oldest.as_ref().is_some_and(|oldest| name < *oldest) {
            fs::remove_file(path)?;
        } else if rotation.compress && path.extension().is_none_or(|extension| extension != "gz") {
            compress(&path)?;
        }
    }
    Ok(())
}

/// A whole file stands in the place of `path` under its new name, or `path` stays.
fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| -> PathBuf {
        let mut name = OsString::from(path);
        name.push(suffix);
        name.into()
    };
    let partial = with(".tmp");
    let mut encoder = GzEncoder::new(File::create(&partial)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(partial, with(COMPRESSED))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(folder: &Path) -> Vec<String> {
        let names = Names::of(&folder.join("etcd.log"));
        let listed = names.list().expect("listed");
        listed.into_iter().map(|(_, path)| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_full_file_is_put_aside_and_no_line_is_split() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("etcd.log");
        let rotation = Rotation { megabytes: 1, ..Rotation::default() };
        let mut file = RotatingFile::open(&path, rotation.clone()).expect("open");
        let line = vec![b'x'; 400 << 10];
        (0..3).for_each(|_| file.write(&line).expect("written"));
        assert_eq!(aside(folder.path()).len(), 1);
        assert_eq!(fs::metadata(&path).expect("there").len(), line.len() as u64);
        // One that is opened again goes on where it ended.
        drop(file);
        let mut file = RotatingFile::open(&path, rotation).expect("open");
        (0..2).for_each(|_| file.write(&line).expect("written"));
        assert_eq!(aside(folder.path()).len(), 2);
    }

    #[test]
    fn too_many_and_too_old_files_go_and_the_others_are_compressed() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = Names::of(&folder.path().join("etcd.log"));
        let days = |count: u32| DAY * (20_000 + count);
        for day in 0..6 {
            fs::write(names.aside(days(day)), format!("day {day}")).expect("written");
        }
        fs::write(folder.path().join("etcd-old.log"), "not ours").expect("written");
        let rotation = Rotation { days: 3, backups: 3, compress: true, ..Rotation::default() };
        tidy(&names, &rotation, days(6)).expect("tidied");
        let left = aside(folder.path());
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left.iter().all(|path| path.ends_with(".log.gz")), "{left:?}");
        let mut text = String::new();
        let file = File::open(&left[0]).expect("open");
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).expect("read");
        assert_eq!(text, "day 5");
        tidy(&names, &rotation, days(9)).expect("tidied");
        assert!(aside(folder.path()).is_empty(), "all are older than three days");
        assert!(folder.path().join("etcd-old.log").exists());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let given = r#"{"maxsize": 7, "maxage": 1, "localtime": true, "compress": true}"#;
        let read = Rotation { megabytes: 7, days: 1, backups: 0, compress: true };
        assert_eq!(Rotation::parse(given), Ok(read));
        assert_eq!(Rotation::default().max_bytes(), 100 * MEGABYTE);
        let refused = |text: &str| Rotation::parse(text).expect_err("no configuration");
        assert!(refused(r#"{"maxsize": true}"#).starts_with("invalid log rotation config: "));
        assert!(refused("{").starts_with("improperly formatted log rotation config: "));
    }
}
