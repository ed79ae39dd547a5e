//! On what was measured.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Facts that figures cannot be compared without.
pub(super) fn facts(directory: &Path) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim_end(),
        "file_system": file_system(&read("/proc/self/mounts"), &directory),
        "udp_buffer_max_bytes": read("/proc/sys/net/core/rmem_max").trim().parse::<u64>().ok(),
        // Others who work at the same time make every figure worse.
        "load_average_1_min": read("/proc/loadavg").split(' ').next().and_then(|text| text.parse::<f64>().ok()),
        "program": concat!("countersign ", env!("CARGO_PKG_VERSION")),
        "build": if cfg!(debug_assertions) { "debug: these figures say nothing" } else { "release" },
    })
}

/// The type of the file system that a path lies on: that of the longest mount point above it.
fn file_system(mounts: &str, path: &Path) -> String {
    let mount = mounts.lines().filter_map(|line| {
        let mut members = line.split(' ').skip(1);
        let (point, kind) = (Path::new(members.next()?), members.next()?);
        path.starts_with(point)
            .then(|| (point.components().count(), kind))
    });
    let longest = mount.max_by_key(|(length, _)| *length);
    longest.map_or("unknown", |(_, kind)| kind).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_point_says_the_file_system() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/tmpx")), "ext4");
    }
}
