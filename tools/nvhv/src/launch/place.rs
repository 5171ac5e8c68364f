// SPDX-License-Identifier: GPL-2.0

//! Becoming what a VM's VMM was: user, groups, limits, directory, control group.
//!
//! An administrator starts other users' VMs as well, by records that those have written. So what a record grants is
//! what its user has anyway: groups are checked, limits are taken with the user's own rights.

use super::limits;
use super::record::Launch;
use nix::sys::stat::{umask, Mode};
use nix::unistd::{chdir, geteuid, getgrouplist, setgid, setgroups, setuid, Gid, Uid, User};
use std::ffi::CString;
use std::path::Path;
use std::{fs, process};

/// Makes this process what the record says; of what it could not have, warns. An error is what it would be wrong
/// to go on without.
pub fn take_place(launch: &Launch, in_cgroup: bool) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    if geteuid().is_root() {
        if launch.uid != 0 && fs::File::open("/dev/tty").is_ok() {
            return Err(
                "another user's VMM is not started at a terminal: leave --foreground away".into(),
            );
        }
        if !in_cgroup && launch.uid == 0 {
            warnings.extend(join(launch));
        }
        if launch.uid == 0 {
            // Before its rights to raise them may go.
            warnings.extend(take_limits(launch));
        }
        become_user(launch)?;
    } else if geteuid() != Uid::from_raw(launch.uid) {
        return Err("it is another user's".into());
    }
    if launch.uid != 0 {
        warnings.extend(take_limits(launch));
    }
    umask(Mode::from_bits_truncate(launch.umask));
    chdir(&launch.directory)
        .map_err(|error| format!("{}: {}", launch.directory.display(), error.desc()))?;
    Ok(warnings)
}

fn take_limits(launch: &Launch) -> Option<String> {
    let refused = limits::take(&launch.limits);
    let which = refused.join(", ");
    (!refused.is_empty()).then(|| format!("its resource limits are not what they were: {which}"))
}

fn become_user(launch: &Launch) -> Result<(), String> {
    let failed =
        |what: &'static str| move |error: nix::errno::Errno| format!("{what}: {}", error.desc());
    let mut groups: Vec<_> = launch.groups.iter().copied().map(Gid::from_raw).collect();
    let gid = Gid::from_raw(launch.gid);
    if launch.uid != 0 {
        let has = groups_of(launch.uid)?;
        let lost = groups
            .iter()
            .chain([&gid])
            .find(|group| !has.contains(group));
        if let Some(group) = lost {
            return Err(format!("its user is not, or no longer, in group {group}"));
        }
        // All of them: some may be there to keep their members out of something.
        groups = has;
    }
    setgroups(&groups).map_err(failed("groups"))?;
    setgid(gid).map_err(failed("group"))?;
    setuid(Uid::from_raw(launch.uid)).map_err(failed("user"))
}

/// All groups that a user is in.
fn groups_of(uid: u32) -> Result<Vec<Gid>, String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let user = user.ok_or_else(|| format!("there is no user {uid} any more"))?;
    let name = CString::new(user.name.clone()).map_err(|error| error.to_string())?;
    getgrouplist(&name, user.gid)
        .map_err(|error| format!("groups of {}: {}", user.name, error.desc()))
}

/// Puts this process into the control group of the record; says why not.
fn join(launch: &Launch) -> Option<String> {
    let path = launch.cgroup.as_deref().filter(|path| *path != "/")?;
    let procs = Path::new("/sys/fs/cgroup")
        .join(path.trim_start_matches('/'))
        .join("cgroup.procs");
    let joined = fs::write(&procs, process::id().to_string());
    joined.err().map(|error| {
        format!(
            "it is not in its control group: {}: {error}",
            procs.display()
        )
    })
}

/// The slice of systemd that a VM belongs to: its user's, or, of root's, that which it was in.
pub fn slice(launch: &Launch) -> String {
    if launch.uid != 0 {
        return format!("user-{}.slice", launch.uid);
    }
    let mut parts = launch
        .cgroup
        .iter()
        .flat_map(|path| path.split('/').skip(1));
    let mut was = None;
    // Below a user's manager are slices of its own.
    while let Some(part) = parts.next().filter(|part| part.ends_with(".slice")) {
        was = Some(part);
    }
    was.unwrap_or("system.slice").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belongs_where_it_was() {
        let of = |uid, cgroup: &str| {
            let launch = Launch::of_this_process("a", &[]).expect("text");
            slice(&Launch {
                uid,
                cgroup: Some(cgroup.into()),
                ..launch
            })
        };
        assert_eq!(of(0, "/machine.slice/vm.scope"), "machine.slice");
        assert_eq!(of(0, "/a.slice/a-b.slice/vm.service"), "a-b.slice");
        assert_eq!(of(0, "/"), "system.slice");
        let manager = "/user.slice/user-0.slice/user@0.service/app.slice/a.scope";
        assert_eq!(of(0, manager), "user-0.slice");
        assert_eq!(of(1000, "/system.slice/vm.service"), "user-1000.slice");
    }
}
