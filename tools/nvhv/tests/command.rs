// SPDX-License-Identifier: GPL-2.0

//! The command as a user meets it, as far as it works without the module: exit codes, one line of
//! complaint, and `format` on a file in place of a device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn nvhv(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvhv"))
        .args(args)
        .output()
        .expect("runs")
}

/// Runs the command; it has to end with `code`, and if that is a failure, with one line.
fn ends_with(code: i32, args: &[&str]) -> String {
    let output = nvhv(args);
    let complaint = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
    if code != 0 && code != 2 {
        assert!(complaint.starts_with("nvhv: "), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    complaint
}

struct Device(PathBuf);

impl Device {
    fn new(name: &str, len: u64) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = File::create(&path).expect("a file");
        file.set_len(len).expect("a length");
        Device(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn format() {
    let device = Device::new("pool", 16 << 20);
    fs::write(&device.0, vec![0xee; 16 << 20]).expect("writes");
    ends_with(0, &["format", device.path(), "--vm-slots", "3"]);
    let bytes = fs::read(&device.0).expect("reads");
    assert_eq!(&bytes[..8], b"NVHVPOOL");
    assert_eq!(bytes[..4096], bytes[1 << 20..(1 << 20) + 4096]);
    assert!(bytes[2 << 20..].iter().all(|&b| b == 0));
    // A pool is not destroyed by mistake.
    let why = ends_with(1, &["format", device.path()]);
    assert!(why.contains("--force"), "{why}");
    assert_eq!(bytes, fs::read(&device.0).expect("reads"));
    // Nor is what is left of one.
    fs::write(&device.0, [&bytes[..100], &[1], &bytes[101..]].concat()).expect("writes");
    ends_with(1, &["format", device.path()]);
    ends_with(0, &["format", device.path(), "--force"]);
    assert_ne!(bytes, fs::read(&device.0).expect("reads"));
}

#[test]
fn format_refuses() {
    ends_with(1, &["format", "/nowhere"]);
    ends_with(1, &["format", "/dev/null"]);
    ends_with(1, &["format", "/"]);
    let device = Device::new("small", 4 << 20);
    ends_with(1, &["format", device.path()]);
    ends_with(1, &["format", device.path(), "--vm-slots", "0"]);
    ends_with(1, &["format", device.path(), "--vm-slots", "5000"]);
    let bytes = fs::read(&device.0).expect("reads");
    assert!(bytes.iter().all(|&b| b == 0));
}

#[test]
fn wrong_usage() {
    ends_with(2, &[]);
    ends_with(2, &["seal"]);
    ends_with(2, &["run", "--name", "a"]);
    ends_with(2, &["run", "--name", "a/b", "--", "true"]);
    ends_with(
        2,
        &[
            "run",
            "--name",
            "a",
            "--policy",
            "torn=perhaps",
            "--",
            "true",
        ],
    );
}

#[test]
fn without_the_module() {
    if Path::new("/dev/nvhv").exists() {
        return;
    }
    for args in [
        &["list"][..],
        &["show", "a"],
        &["discard", "a", "--force"],
        &["seal", "--all"],
        &["drill", "--force"],
    ] {
        ends_with(3, args);
    }
    ends_with(125, &["run", "--name", "a", "--", "true"]);
    let check = nvhv(&["check", "--json"]);
    assert_eq!(check.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&check.stdout).expect("JSON");
    nvhv_schemas::assert_described("check", &json);
}
