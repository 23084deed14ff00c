//! Writes cassettes: whole or not at all, one session after the other.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::load;

/// How often another session is waited for, and how long each time.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

const PREFIX: &str = ".cassette-";

/// A cassette and the files of its bodies. They get their names when all of them are written.
pub(crate) struct Staging {
    path: PathBuf,
    folder: PathBuf,
    /// The folder for bodies, beside the cassette and named after it.
    bodies: String,
    files: Vec<(PathBuf, NamedTempFile)>,
    /// Raw malware is for its owner alone.
    pub(crate) is_private: bool,
    /// Keeps other sessions waiting.
    _lock: Option<File>,
}

impl Staging {
    /// Begins to write, as soon as no other session does.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let folder = folder_of(path);
        let fail = |error: io::Error| format!("{}: {error}", folder.display());
        let bodies = body_folder(path)?;
        fs::create_dir_all(folder).map_err(fail)?;
        // Not every system can lock a folder.
        let lock = File::open(folder).ok();
        let try_lock = || lock.as_ref().map(File::try_lock);
        let mut tries = TRIES;
        let mut result = try_lock();
        while let Some(Err(TryLockError::WouldBlock)) = result {
            tries -= 1;
            if tries == 0 {
                return Err("another session has been writing for too long".into());
            }
            thread::sleep(PAUSE);
            result = try_lock();
        }
        // Only the owner of the lock writes here, so temporary files are left from killed processes.
        if let Some(Ok(())) = result {
            remove_abandoned(folder);
            remove_abandoned(&folder.join(&bodies));
        }
        Ok(Self {
            path: path.into(),
            folder: folder.into(),
            bodies,
            files: Vec::new(),
            is_private: false,
            _lock: lock,
        })
    }

    /// The text of the cassette as it is now.
    pub(crate) fn former(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Writes a body into a file of its own, and returns its name below the folder of the cassette.
    pub(crate) fn body(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<String, String> {
        let name = format!("{}/{name}", self.bodies);
        let path = self.folder.join(&name);
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        let parent = self.folder.join(&self.bodies);
        fs::create_dir_all(&parent).map_err(fail)?;
        let file = staged(&parent, self.is_private, write).map_err(fail)?;
        self.files.push((path, file));
        Ok(name)
    }

    /// Gives all files their names. On an error the former cassette is as it was.
    pub(crate) fn commit(mut self, text: &str) -> Result<(), String> {
        let former = self.former();
        let path = self.path.clone();
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        load::check(text)
            .map_err(|why| format!("what was recorded is not a cassette: {}", why.message))?;
        let write = |file: &mut File| file.write_all(text.as_bytes());
        let cassette = staged(&self.folder, self.is_private, write).map_err(fail)?;
        if former.as_deref() != Some(text) {
            self.files.push((path.clone(), cassette));
        }
        let mut made = Vec::new();
        for (name, file) in self.files.drain(..) {
            // The name of a body has the hash of its bytes, so a file of this name is the same.
            if name != path && name.exists() {
                continue;
            }
            if let Err(error) = file.persist(&name) {
                // Without the cassette, the bodies are of no use.
                made.iter().for_each(|body| drop(fs::remove_file(body)));
                return Err(fail(error.error));
            }
            made.push(name);
        }
        if let Some(former) = former {
            self.remove_orphans(&former, text);
        }
        Ok(())
    }

    /// Removes the files of the former version that this one does not name. They do no harm where
    /// that fails.
    fn remove_orphans(&self, former: &str, text: &str) {
        let files = fs::read_dir(self.folder.join(&self.bodies));
        for file in files.into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let is_named = |text: &str| text.contains(&format!("\"{}/{name}\"", self.bodies));
            if is_named(former) && !is_named(text) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.files.clear();
        // It stays if there is something in it.
        let _ = fs::remove_dir(self.folder.join(&self.bodies));
    }
}

/// The text of a cassette with these interactions. Each has lines of its own, so that those to come
/// change none.
pub(crate) fn document(redaction: &str, interactions: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let all = interactions.iter().map(|one| format!("\n    {one}"));
    let all = all.collect::<Vec<_>>().join(",");
    format!(
        r#"{{
  "version": 1,
  "recorded_with": "malquery-mock {version}",
  "redaction": "{redaction}",
  "interactions": [{all}
  ]
}}
"#
    )
}

/// Finds out before anything is sent whether a cassette can be written there.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    // `Path` overlooks these two, and they would be found out when the file is renamed.
    let text = path.to_string_lossy();
    if path.is_dir() || ["/", "/."].iter().any(|end| text.ends_with(end)) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("this is not a file"));
    }
    let folder = folder_of(path);
    let bodies = folder.join(body_folder(path).map_err(io::Error::other)?);
    fs::create_dir_all(folder)?;
    if fs::symlink_metadata(&bodies).is_ok() {
        let refuse = |why: &str| {
            let why = format!("{} {why}", bodies.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, why))
        };
        // It may be a link, which may lead nowhere or elsewhere.
        if !bodies.is_dir() {
            return refuse("is not a folder");
        }
        if !bodies.canonicalize()?.starts_with(folder.canonicalize()?) {
            return refuse("leads out of the folder of the cassette");
        }
    }
    staged(folder, false, |_| Ok(())).map(drop)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn body_folder(path: &Path) -> Result<String, String> {
    let file = path.file_name().and_then(|file| file.to_str());
    let why = || format!("{} cannot be the name of a cassette", path.display());
    file.map(|file| format!("{file}.bodies")).ok_or_else(why)
}

/// Removes temporary files, which may be parts of samples.
fn remove_abandoned(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Writes a file that gets its name later.
fn staged(
    folder: &Path,
    is_private: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask takes its part. A cassette without samples belongs into the repository.
        let mode = if is_private { 0o600 } else { 0o666 };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = is_private;
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    Ok(file)
}
