// SPDX-License-Identifier: GPL-2.0

//! Where records of starts are: `/var/lib/nvhv/launch/UID/NAME.json`.
//!
//! Each user has a directory of their own, which they make themselves in one where all who may run VMs may, and
//! remove only what is theirs, as in /tmp. What is in it is theirs: to put a file of somebody else's there takes
//! the right to write to the directory. So whose VM a file starts is said by whose directory it is in.

use super::record::Launch;
use nix::dir::Dir;
use nix::fcntl::{openat, renameat, OFlag};
use nix::sys::stat::{fstat, Mode, SFlag};
use nix::unistd::{fchown, geteuid, unlinkat, Group, Uid, UnlinkatFlags};
use nvhv_pure::life::Name;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{chown, DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// Longer records are no records.
const MAX: u64 = 1 << 20;

/// The records of one user.
pub struct Store {
    all: PathBuf,
    uid: u32,
}

impl Store {
    /// Those of a user of this host.
    pub fn of(uid: u32) -> Self {
        Store {
            all: "/var/lib/nvhv/launch".into(),
            uid,
        }
    }

    /// Writes a record, whole or not at all. What was set in an older one is passed on. Gives the older one.
    pub fn save(&self, mut launch: Launch) -> io::Result<Option<Launch>> {
        self.make()?;
        let old = match self.load(&launch.name) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(old) = &old {
            (launch.enabled, launch.priority) = (old.enabled, old.priority);
        }
        self.write(&launch)?;
        Ok(old)
    }

    /// Changes the record of a VM.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Launch)) -> io::Result<()> {
        let mut launch = self.load(name)?;
        change(&mut launch);
        self.write(&launch)
    }

    /// Writes a record as it is.
    pub fn write(&self, launch: &Launch) -> io::Result<()> {
        let directory = self.open()?;
        let name = file_name(&launch.name)?;
        let new = format!(".{name}.{}", process::id());
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            directory.as_fd(),
            new.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?);
        let written = (|| {
            file.write_all(&serde_json::to_vec_pretty(launch)?)?;
            // An administrator who changes a user's record leaves it theirs.
            if geteuid().is_root() {
                fchown(&file, Some(Uid::from_raw(self.uid)), None)?;
            }
            file.sync_all()?;
            renameat(
                directory.as_fd(),
                new.as_str(),
                directory.as_fd(),
                name.as_str(),
            )?;
            Ok(nix::unistd::fsync(directory.as_fd())?)
        })();
        if written.is_err() {
            let _ = unlinkat(directory.as_fd(), new.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// Makes the user's directory; and the one for all, which packages bring along, if an administrator finds it
    /// missing: those who may use /dev/kvm may use it.
    fn make(&self) -> io::Result<()> {
        let only = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        if geteuid().is_root() && !self.all.exists() {
            fs::create_dir_all(&self.all)?;
            if let Some(kvm) = Group::from_name("kvm")? {
                chown(&self.all, None, Some(kvm.gid.as_raw()))?;
                fs::set_permissions(&self.all, Permissions::from_mode(0o1770))?;
            }
        }
        let made = DirBuilder::new().mode(0o700).create(self.own());
        made.or_else(|error| if only(&error) { Ok(()) } else { Err(error) })
    }

    fn own(&self) -> PathBuf {
        self.all.join(self.uid.to_string())
    }

    /// The user's directory, if nobody else can have put anything there.
    fn open(&self) -> io::Result<Dir> {
        let path = self.own();
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let directory =
            Dir::open(&path, flags, Mode::empty()).map_err(|error| told(&path, error.into()))?;
        let about = fstat(directory.as_fd())?;
        if about.st_uid != self.uid || about.st_mode & 0o022 != 0 {
            return Err(told(
                &path,
                io::Error::other("it is somebody else's, or others may write to it"),
            ));
        }
        Ok(directory)
    }

    /// The record of a VM.
    pub fn load(&self, name: &str) -> io::Result<Launch> {
        let path = self.own().join(file_name(name)?);
        self.read(name).map_err(|error| told(&path, error))
    }

    fn read(&self, name: &str) -> io::Result<Launch> {
        let directory = self.open()?;
        // Neither a pipe that blocks nor a link is followed.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(
            directory.as_fd(),
            file_name(name)?.as_str(),
            flags,
            Mode::empty(),
        )?;
        let about = fstat(&file)?;
        let is_file = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if !is_file || about.st_size.unsigned_abs() > MAX {
            return Err(io::Error::other("it is no file of sensible size"));
        }
        let mut json = Vec::new();
        File::from(file).take(MAX).read_to_end(&mut json)?;
        let launch = Launch::parse(&json)?;
        if launch.uid != self.uid || about.st_uid != self.uid || launch.name != name {
            return Err(io::Error::other("it is somebody else's, or another VM's"));
        }
        Ok(launch)
    }

    /// Forgets how a VM was started.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let directory = self.open()?;
        let file = file_name(name)?;
        Ok(unlinkat(
            directory.as_fd(),
            file.as_str(),
            UnlinkatFlags::NoRemoveDir,
        )?)
    }
}

/// The names of VMs are names of files, too.
fn file_name(name: &str) -> io::Result<String> {
    let good = Name::new(name.as_bytes());
    good.map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {why}")))?;
    Ok(format!("{name}.json"))
}

fn told(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::mkfifo as make_pipe;
    use std::os::unix::fs::symlink;

    struct Temporary(Store);

    impl Temporary {
        fn new(name: &str) -> Self {
            let all = std::env::temp_dir().join(format!("nvhv-{name}-{}", process::id()));
            let _ = fs::remove_dir_all(&all);
            fs::create_dir(&all).expect("a directory");
            let uid = geteuid().as_raw();
            Temporary(Store { all, uid })
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.all);
        }
    }

    fn launch(name: &str) -> Launch {
        Launch::of_this_process(name, &[]).expect("text")
    }

    #[test]
    fn keeps_what_was_set() {
        let Temporary(store) = &Temporary::new("keeps");
        assert_eq!(store.save(launch("a")).expect("saved"), None);
        let set = |launch: &mut Launch| (launch.enabled, launch.priority) = (true, 7);
        store.change("a", set).expect("changed");
        assert!(
            store
                .save(launch("a"))
                .expect("saved again")
                .expect("an older one")
                .enabled
        );
        let kept = store.load("a").expect("one");
        assert!(kept.enabled && kept.priority == 7);
        store.remove("a").expect("removed");
        let kind = |error: io::Error| error.kind();
        assert_eq!(store.load("a").map_err(kind), Err(io::ErrorKind::NotFound));
        assert_eq!(
            store.load("../a").map_err(kind),
            Err(io::ErrorKind::InvalidInput)
        );
        let left: Vec<_> = fs::read_dir(store.own()).expect("listed").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn believes_what_is_its_users_only() {
        let Temporary(store) = &Temporary::new("believes");
        store.save(launch("good")).expect("saved");
        let put = |name: &str, launch: &Launch| {
            let path = store.own().join(format!("{name}.json"));
            fs::write(&path, serde_json::to_vec(launch).expect("JSON")).expect("written");
            path
        };
        let other = launch("other");
        put(
            "other",
            &Launch {
                uid: other.uid + 1,
                ..other
            },
        );
        put("renamed", &launch("another"));
        fs::write(put("rubbish", &launch("rubbish")), "{").expect("written");
        symlink("good.json", store.own().join("symbolic.json")).expect("linked");
        fs::create_dir(store.own().join("directory.json")).expect("made");
        make_pipe(&store.own().join("pipe.json"), Mode::S_IRWXU).expect("made");
        assert!(store.load("good").is_ok());
        for name in [
            "other",
            "renamed",
            "rubbish",
            "symbolic",
            "directory",
            "pipe",
        ] {
            assert!(store.load(name).is_err(), "{name}");
        }
    }

    #[test]
    fn believes_no_directory_of_others() {
        let Temporary(store) = &Temporary::new("directory");
        store.save(launch("a")).expect("saved");
        let open_to_all = Permissions::from_mode(0o777);
        fs::set_permissions(store.own(), open_to_all).expect("set");
        assert!(store.load("a").is_err());
        assert!(store.save(launch("a")).is_err());
        let other = Store {
            uid: store.uid + 1,
            all: store.all.clone(),
        };
        fs::create_dir(other.own()).expect("made");
        assert!(other.load("a").is_err());
        fs::remove_dir(other.own()).expect("removed");
        symlink(store.own(), other.own()).expect("linked");
        assert!(other.load("a").is_err());
    }
}
