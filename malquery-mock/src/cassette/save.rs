//! Writes cassettes completely or not at all.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, Write};
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::{folder_of, load};
use crate::json::quote;

/// The number of attempts to lock the folder, with a pause between them.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

const PREFIX: &str = ".cassette-";

/// A cassette and its body files. They get their final names once all of them are written.
pub(crate) struct Staging {
    path: PathBuf,
    /// The folder for bodies, next to the cassette.
    folder: PathBuf,
    bodies: String,
    files: Vec<(PathBuf, NamedTempFile)>,
    /// Whether, on Unix, only the owner may read new files, because they may contain samples.
    pub(crate) is_private: bool,
    _lock: Option<File>,
}

impl Staging {
    /// Locks the cassette's folder if possible. Waits up to about 10 seconds for other sessions.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let folder = folder_of(path);
        let fail = |error: io::Error| format!("{}: {error}", folder.display());
        let bodies = body_folder(path)?;
        create_folder(folder).map_err(fail)?;
        // Some systems cannot lock a folder.
        let lock = File::open(folder).ok();
        let try_lock = || lock.as_ref().map(File::try_lock);
        let mut tries = TRIES;
        let mut result = try_lock();
        while let Some(Err(TryLockError::WouldBlock)) = result {
            tries -= 1;
            if tries == 0 {
                return Err(
                    "another session is still writing to the cassette's folder; try again later"
                        .into(),
                );
            }
            thread::sleep(PAUSE);
            result = try_lock();
        }
        // Recordings are written only under this lock, so no other recording uses temporary files
        // here.
        if let Some(Ok(())) = result {
            remove_abandoned(folder);
            remove_abandoned(&folder.join(&bodies));
        }
        Ok(Self {
            path: path.into(),
            folder: folder.join(&bodies),
            bodies,
            files: Vec::new(),
            is_private: false,
            _lock: lock,
        })
    }

    pub(crate) fn former(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Writes a body to a separate file. Returns its path relative to the cassette's folder.
    pub(crate) fn body(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<String, String> {
        let path = self.folder.join(name);
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        create_folder(&self.folder).map_err(fail)?;
        let file = staged(&self.folder, self.is_private, write).map_err(fail)?;
        self.files.push((path, file));
        Ok(format!("{}/{name}", self.bodies))
    }

    /// Writes the cassette, and gives all files their final names. On error, an existing cassette
    /// stays unchanged.
    pub(crate) fn commit(mut self, text: &str) -> Result<(), String> {
        let former = self.former();
        let path = self.path.clone();
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        load::check(text)
            .map_err(|why| format!("the recording is not a valid cassette: {}", why.message))?;
        let write = |file: &mut File| file.write_all(text.as_bytes());
        let cassette = staged(folder_of(&path), self.is_private, write).map_err(fail)?;
        if former.as_deref() != Some(text) {
            self.files.push((path.clone(), cassette));
        }
        let mut made = Vec::new();
        for (name, file) in self.files.drain(..) {
            // The name of a body contains its hash, so an existing file is identical or damaged.
            let is_new = !name.exists();
            if let Err(error) = file.persist(&name) {
                // Without the cassette, the new bodies are useless.
                made.iter().for_each(|body| drop(fs::remove_file(body)));
                return Err(fail(error.error));
            }
            made.extend(is_new.then_some(name));
        }
        if let Some(former) = former {
            self.remove_orphans(&former, text);
        }
        Ok(())
    }

    /// Removes the body files that only the former cassette uses. Ignores errors, because leftover
    /// files do no harm.
    fn remove_orphans(&self, former: &str, text: &str) {
        let files = fs::read_dir(&self.folder);
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
        // Removes the folder only if it is empty.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Returns the text of a cassette with these interactions. Each starts on a new line, to keep later
/// diffs small.
pub(crate) fn document(redaction: Option<&str>, interactions: &[String]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let redaction = redaction.map(|rules| format!("\n  \"redaction\": {},", quote(rules)));
    let redaction = redaction.unwrap_or_default();
    let all = interactions.iter().map(|one| format!("\n    {one}"));
    let all = all.collect::<Vec<_>>().join(",");
    format!(
        r#"{{
  "version": 1,
  "recorded_with": "malquery-mock {version}",{redaction}
  "interactions": [{all}
  ]
}}
"#
    )
}

/// Checks that a cassette can be written to this path, and creates missing folders.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    // `Path` ignores these endings, so the error would only appear when the file is renamed.
    let text = path.to_string_lossy();
    if path.is_dir() || ["/", "/."].iter().any(|end| text.ends_with(end)) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let folder = folder_of(path);
    let bodies = folder.join(body_folder(path).map_err(io::Error::other)?);
    create_folder(folder)?;
    if fs::symlink_metadata(&bodies).is_ok() {
        let refuse = |why: &str| {
            let why = format!("{} {why}", bodies.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, why))
        };
        // It may be a symbolic link that is broken or points elsewhere.
        if !bodies.is_dir() {
            return refuse("is not a folder");
        }
        if !bodies.canonicalize()?.starts_with(folder.canonicalize()?) {
            return refuse("points outside the cassette's folder");
        }
    }
    staged(folder, false, |_| Ok(())).map(drop)
}

fn body_folder(path: &Path) -> Result<String, String> {
    let file = path.file_name().and_then(|file| file.to_str());
    let why = || {
        format!(
            "{}: the file name is missing or is not valid UTF-8",
            path.display()
        )
    };
    file.map(|file| format!("{file}.bodies")).ok_or_else(why)
}

fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_folder(folder_of(path))?;
    match fs::create_dir(path) {
        // Another process created it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => fs::set_permissions(path, own(&fs::metadata(path)?, 0o700)),
        result => result,
    }
}

/// Returns the permissions with the bits of `mode` added. They give the owner access whatever the
/// umask is. Without them, a recording could fail after it has used quota.
#[cfg(unix)]
fn own(metadata: &Metadata, mode: u32) -> Permissions {
    Permissions::from_mode(metadata.permissions().mode() | mode)
}

#[cfg(not(unix))]
fn own(metadata: &Metadata, _: u32) -> Permissions {
    metadata.permissions()
}

/// Removes leftover temporary files, which may contain samples.
fn remove_abandoned(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn staged(
    folder: &Path,
    is_private: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        // The umask still applies. Other users may read a cassette without samples.
        let mode = if is_private { 0o600 } else { 0o666 };
        builder.permissions(Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = is_private;
    let mut file = builder.tempfile_in(folder)?;
    // Does not use the path: `check` holds no lock, so another session may remove the file.
    let permissions = own(&file.as_file().metadata()?, 0o600);
    file.as_file().set_permissions(permissions)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    Ok(file)
}
