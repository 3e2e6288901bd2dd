//! The log file: begun anew when it is large or the day is over (in UTC), those before packed, the oldest deleted.
//!
//! `clicktide-0.log` becomes `clicktide-0.20261125T183000Z-000.log.gz`. Whatever goes wrong with it is told in the log, which goes to
//! standard error as well, and stops nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Where lines are written, and how many of them are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The file that lines are added to.
    pub path: PathBuf,
    /// It is begun anew before it is larger than this.
    pub bytes_max: u64,
    /// So many of those before are kept, packed with gzip.
    pub kept: usize,
}

/// A log file that is written by one thread.
pub(super) struct LogFile {
    settings: FileSettings,
    open: Option<Open>,
    /// What could not be written since it was told that the file can't be.
    failing: Option<u64>,
    /// Whether the file may end in the middle of a line.
    torn: bool,
    packing: Option<JoinHandle<()>>,
}

struct Open {
    file: File,
    bytes: u64,
    day: u64,
}

const DAY: Duration = Duration::from_secs(86_400);

impl LogFile {
    /// A file that is opened with the first line.
    pub fn new(settings: FileSettings) -> Self {
        LogFile { settings, open: None, failing: None, torn: false, packing: None }
    }

    /// Adds a line. One that can't be written is lost; that is told once, until it works again.
    pub fn write(&mut self, line: &[u8]) {
        let path = self.settings.path.display().to_string();
        match (self.try_write(line, SystemTime::now()), self.failing) {
            (Ok(()), None) => {}
            (Ok(()), Some(lost)) => {
                self.failing = None;
                tracing::info!(path, lost, "the log file is written again");
            }
            (Err(_), Some(lost)) => self.failing = Some(lost + 1),
            (Err(error), None) => {
                self.failing = Some(1);
                tracing::warn!(path, %error, "the log file can't be written: its lines are lost until it can");
            }
        }
    }

    fn try_write(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let full = |open: &Open| open.bytes > 0 && open.bytes + line.len() as u64 > self.settings.bytes_max;
        if self.open.as_ref().is_some_and(|open| open.day != day(now) || full(open)) {
            self.rotate(now)?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = Open::append_to(&self.settings.path, now)?;
                // One of another day, or whatever an earlier run has left without packing it.
                if open.day != day(now) {
                    self.rotate(now)?;
                } else {
                    self.pack();
                    self.open = Some(open);
                }
                match &mut self.open {
                    Some(open) => open,
                    None => self.open.insert(Open::append_to(&self.settings.path, now)?),
                }
            }
        };
        let separator: &[u8] = if std::mem::take(&mut self.torn) { b"\n" } else { b"" };
        let written = open.file.write_all(separator).and_then(|()| open.file.write_all(line));
        match written {
            Ok(()) => open.bytes += (separator.len() + line.len()) as u64,
            // It may be another one by now, or there again.
            Err(_) => (self.open, self.torn) = (None, true),
        }
        written
    }

    /// Puts the file aside; the next line begins another one.
    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        self.open = None;
        let Place { directory, stem, extension } = Place::of(&self.settings.path);
        let time: String = humantime::format_rfc3339_seconds(now).to_string();
        let time = time.replace(['-', ':'], "");
        let aside = |number: u32| directory.join(format!("{stem}.{time}-{number:03}{extension}"));
        let taken = |path: &PathBuf| path.exists() || packed(path).exists();
        let aside = (0..1_000).map(aside).find(|path| !taken(path)).unwrap_or_else(|| aside(0));
        match fs::rename(&self.settings.path, aside) {
            // Somebody else has put it aside.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.pack(),
        }
        Ok(())
    }

    /// Has files that were put aside packed, and the oldest deleted, by a thread that takes its time.
    fn pack(&mut self) {
        // One that is still at it leaves the rest to the next.
        if self.packing.as_ref().is_some_and(|packing| !packing.is_finished()) {
            return;
        }
        let settings = self.settings.clone();
        let pack = move || {
            if let Err(error) = pack_and_delete(&settings) {
                let path = settings.path.display().to_string();
                tracing::warn!(path, %error, "log files can't be packed or deleted");
            }
        };
        self.packing = std::thread::Builder::new().name("log-pack".to_owned()).spawn(pack).ok();
    }
}

impl Open {
    fn append_to(path: &Path, now: SystemTime) -> io::Result<Open> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        let day = if metadata.len() == 0 { day(now) } else { day(metadata.modified()?) };
        Ok(Open { file, bytes: metadata.len(), day })
    }
}

/// The parts of a log file's path.
struct Place {
    directory: PathBuf,
    stem: String,
    /// With its dot, if there is any.
    extension: String,
}

impl Place {
    fn of(path: &Path) -> Place {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        Place {
            directory: directory.unwrap_or(Path::new(".")).to_owned(),
            stem: text(path.file_stem()),
            extension: path
                .extension()
                .map(|extension| format!(".{}", extension.to_string_lossy()))
                .unwrap_or_default(),
        }
    }

    /// The files that were put aside, packed or not, the oldest first.
    fn aside(&self) -> io::Result<Vec<PathBuf>> {
        let mut aside = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let middle =
                name.strip_prefix(&format!("{}.", self.stem)).map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
            let time = middle.and_then(|rest| rest.strip_suffix(&self.extension));
            let is_time = |time: &str| {
                time.len() == "20261125T183000Z-000".len()
                    && time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b'Z' | b'-'))
            };
            if time.is_some_and(is_time) {
                aside.push(self.directory.join(name));
            }
        }
        aside.sort_unstable();
        Ok(aside)
    }
}

fn pack_and_delete(settings: &FileSettings) -> io::Result<()> {
    let place = Place::of(&settings.path);
    for path in place.aside()?.iter().filter(|path| !is_packed(path)) {
        // Under a name that nobody takes for a whole one until it is.
        let part = path.with_extension("part");
        let mut encoder = GzEncoder::new(File::create(&part)?, Compression::default());
        let packing = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish()?.sync_all());
        packing.and_then(|()| fs::rename(&part, packed(path))).inspect_err(|_| drop(fs::remove_file(&part)))?;
        fs::remove_file(path)?;
    }
    let aside = place.aside()?;
    aside.iter().take(aside.len().saturating_sub(settings.kept)).try_for_each(fs::remove_file)
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// The day of a time, counted from 1970 in UTC.
fn day(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use flate2::read::GzDecoder;

    fn settings(directory: &Path, bytes_max: u64, kept: usize) -> FileSettings {
        FileSettings { path: directory.join("logs/clicktide-1.log"), bytes_max, kept }
    }

    /// Waits for the thread that packs.
    fn packed_names(file: &mut LogFile) -> Vec<PathBuf> {
        if let Some(packing) = file.packing.take() {
            packing.join().unwrap();
        }
        pack_and_delete(&file.settings).unwrap();
        Place::of(&file.settings.path).aside().unwrap()
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_that_is_full_is_put_aside_and_packed_and_the_oldest_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(settings(directory.path(), 20, 2));
        for number in 0..9 {
            file.try_write(format!("line {number:04}\n").as_bytes(), SystemTime::now()).unwrap();
        }
        assert_eq!(fs::read_to_string(&file.settings.path).unwrap(), "line 0008\n");
        let aside = packed_names(&mut file);
        let texts: Vec<String> = aside.iter().map(|path| unpacked(path)).collect();
        assert_eq!(texts, ["line 0004\nline 0005\n", "line 0006\nline 0007\n"]);
        let all = fs::read_dir(directory.path().join("logs")).unwrap().count();
        assert_eq!(all, 3, "nothing else is left");
    }

    #[test]
    fn a_new_day_begins_a_new_file_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        // Days on which the file system would not date the file by itself.
        let on = |day: u64| UNIX_EPOCH + DAY * u32::try_from(day).unwrap() + Duration::from_secs(7);
        let mut file = LogFile::new(settings(directory.path(), 1_000, 7));
        file.try_write(b"first\n", on(10)).unwrap();
        file.try_write(b"first again\n", on(10)).unwrap();
        file.try_write(b"second\n", on(11)).unwrap();
        assert_eq!(
            packed_names(&mut file).iter().map(|path| unpacked(path)).collect::<Vec<_>>(),
            ["first\nfirst again\n"]
        );

        let written = File::options().append(true).open(&file.settings.path).unwrap();
        written.set_modified(on(11)).unwrap();
        let mut again = LogFile::new(file.settings.clone());
        again.try_write(b"second again\n", on(11)).unwrap();
        assert_eq!(fs::read_to_string(&file.settings.path).unwrap(), "second\nsecond again\n");
        written.set_modified(on(11)).unwrap();
        let mut later = LogFile::new(file.settings.clone());
        later.try_write(b"third\n", on(12)).unwrap();
        assert_eq!(fs::read_to_string(&file.settings.path).unwrap(), "third\n");
        assert_eq!(packed_names(&mut later).len(), 2);
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(settings(directory.path(), 5, 1));
        fs::create_dir_all(directory.path().join("logs")).unwrap();
        let others = [
            "clicktide-11.20261125T183000Z-000.log",
            "clicktide-1.old.log",
            "clicktide-1.20261125T183000Z-000.log.part",
        ];
        for other in others {
            fs::write(directory.path().join("logs").join(other), "not ours").unwrap();
        }
        for _ in 0..4 {
            file.try_write(b"line\n", SystemTime::now()).unwrap();
        }
        assert_eq!(packed_names(&mut file).len(), 1);
        for other in others {
            assert_eq!(fs::read_to_string(directory.path().join("logs").join(other)).unwrap(), "not ours");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_written_when_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(settings(directory.path(), 1_000, 1));
        let logs = directory.path().join("logs");
        fs::write(&logs, "a file where the directory should be").unwrap();
        file.write(b"lost\n");
        file.write(b"lost too\n");
        assert_eq!(file.failing, Some(2));
        fs::remove_file(&logs).unwrap();
        file.write(b"written\n");
        assert_eq!(file.failing, None);
        assert_eq!(fs::read_to_string(&file.settings.path).unwrap(), "written\n");
    }

    #[test]
    fn a_full_disk_stops_nothing_and_lines_stay_whole() {
        let mut file = LogFile::new(FileSettings { path: "/dev/full".into(), bytes_max: 1_000, kept: 1 });
        file.write(b"lost\n");
        assert_eq!(file.failing, Some(1));
        assert!(file.torn && file.open.is_none());
    }
}
