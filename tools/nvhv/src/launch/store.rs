// SPDX-License-Identifier: GPL-2.0

//! Where records of starts are: a directory in which each user may put files and remove only their own, as in /tmp.
//!
//! So whose VM a file starts is said by who owns the file, not by what is in it: a file that claims to be
//! another user's is refused.

use super::record::Launch;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// Longer records are no records.
const MAX: u64 = 1 << 20;

/// A directory of records.
pub struct Store {
    directory: PathBuf,
}

/// A record, and what its file is called.
pub struct Owned {
    pub launch: Launch,
    path: PathBuf,
}

impl Store {
    /// That of this host.
    pub fn open() -> Self {
        Store {
            directory: "/var/lib/nvhv/launch".into(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Writes a record, whole or not at all. An older one of the same user passes on what was set there.
    pub fn save(&self, mut launch: Launch) -> io::Result<()> {
        if let Ok(old) = self.load(&launch.name) {
            (launch.enabled, launch.priority) = (old.launch.enabled, old.launch.priority);
        }
        self.make()?;
        self.write(&launch)
    }

    /// Changes the record of a VM.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Launch)) -> io::Result<()> {
        let mut launch = self.load(name)?.launch;
        change(&mut launch);
        self.write(&launch)
    }

    fn write(&self, launch: &Launch) -> io::Result<()> {
        let new = self
            .directory
            .join(format!(".{}.{}", launch.name, process::id()));
        let path = self.path(&launch.name);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(launch)?)?;
            // An administrator who changes a user's record leaves it theirs.
            if geteuid().is_root() {
                std::os::unix::fs::fchown(&file, Some(launch.uid), Some(launch.gid))?;
            }
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Makes the directory, which packages bring along, if an administrator finds it missing.
    fn make(&self) -> io::Result<()> {
        if self.directory.is_dir() || !geteuid().is_root() {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        fs::set_permissions(&self.directory, Permissions::from_mode(0o1777))
    }

    /// The record of a VM.
    pub fn load(&self, name: &str) -> io::Result<Owned> {
        let path = self.path(name);
        let launch = read(&path)?;
        if launch.name != name {
            return Err(io::Error::other(format!(
                "{} is of another VM, {}",
                path.display(),
                launch.name
            )));
        }
        Ok(Owned { launch, path })
    }

    /// All records that may be read, and what is wrong with the others that are this user's to start.
    pub fn all(&self) -> io::Result<(Vec<Owned>, Vec<io::Error>)> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((good, bad)),
            entries => entries?,
        };
        for entry in entries {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            let Some(name) = name.filter(|name| !name.starts_with('.')) else {
                continue;
            };
            match self.load(name) {
                Ok(owned) => good.push(owned),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }

    /// Forgets how a VM was started.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.load(name)
            .and_then(|owned| fs::remove_file(owned.path))
    }
}

fn read(path: &Path) -> io::Result<Launch> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let wrong = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    // A user may put anything there: neither a pipe that blocks nor a link is followed.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(told)?;
    let about = file.metadata().map_err(told)?;
    if !about.is_file() || about.nlink() != 1 || about.len() > MAX {
        return Err(wrong("it is no file of one name and of sensible size"));
    }
    let mut json = Vec::new();
    file.take(MAX).read_to_end(&mut json).map_err(told)?;
    let launch = Launch::parse(&json).map_err(told)?;
    if launch.uid != about.uid() || about.mode() & 0o022 != 0 {
        return Err(wrong(
            "it belongs to somebody else than it says, or others may write it",
        ));
    }
    Ok(launch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn store(name: &str) -> Store {
        let directory = std::env::temp_dir().join(format!("nvhv-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        Store { directory }
    }

    fn launch(name: &str) -> Launch {
        Launch::of_this_process(name, &[]).expect("text")
    }

    #[test]
    fn keeps_what_was_set() {
        let store = store("keeps");
        store.save(launch("a")).expect("saved");
        store
            .change("a", |launch| (launch.enabled, launch.priority) = (true, 7))
            .expect("changed");
        store.save(launch("a")).expect("saved again");
        let (all, bad) = store.all().expect("listed");
        assert_eq!((all.len(), bad.len()), (1, 0));
        assert!(all[0].launch.enabled && all[0].launch.priority == 7);
        store.remove("a").expect("removed");
        assert_eq!(
            store.load("a").err().map(|e| e.kind()),
            Some(io::ErrorKind::NotFound)
        );
        fs::remove_dir_all(store.directory).expect("removed");
    }

    #[test]
    fn believes_the_owner_of_a_file_only() {
        let store = store("believes");
        let put = |name: &str, launch: &Launch, mode: u32| {
            let path = store.path(name);
            fs::write(&path, serde_json::to_vec(launch).expect("JSON")).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        };
        put("good", &launch("good"), 0o600);
        put(
            "other",
            &Launch {
                uid: launch("other").uid + 1,
                ..launch("other")
            },
            0o600,
        );
        put("open", &launch("open"), 0o666);
        put("renamed", &launch("another"), 0o600);
        put("rubbish", &launch("rubbish"), 0o600);
        fs::write(store.path("rubbish"), "{").expect("written");
        put("linked", &launch("linked"), 0o600);
        fs::hard_link(store.path("linked"), store.directory.join("elsewhere")).expect("linked");
        symlink(store.path("good"), store.path("symbolic")).expect("linked");
        fs::create_dir(store.path("directory")).expect("made");
        let (good, bad) = store.all().expect("listed");
        let names: Vec<_> = good
            .iter()
            .map(|owned| owned.launch.name.as_str())
            .collect();
        assert_eq!(names, ["good"]);
        assert_eq!(bad.len(), 7, "{bad:?}");
        fs::remove_dir_all(store.directory).expect("removed");
    }
}
