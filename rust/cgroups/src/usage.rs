//! Figures of control groups, version 1, 2 and hybrid: each figure is read from the hierarchy of its controller.

use std::path::{Path, PathBuf};

/// Figures of one sandbox; absent where no controller counts them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: Option<u64>,
    /// Everything charged, page cache included.
    pub memory_charged: Option<u64>,
    /// Charged less what the kernel would drop first.
    pub memory_working_set: Option<u64>,
    pub memory_limit: Option<u64>,
    /// Bytes read and written.
    pub io: Option<(u64, u64)>,
}

/// Reads the groups made for a run. A group that is gone or lacks a file contributes nothing.
pub fn read(groups: &[PathBuf]) -> Usage {
    let mut usage = Usage::default();
    for group in groups {
        let group = Group(group);
        usage.cpu_ns = usage.cpu_ns.or_else(|| group.cpu_ns());
        usage.io = usage.io.or_else(|| group.io());
        if usage.memory_charged.is_none()
            && let Some(charged) = group.number("memory.current").or_else(|| group.number("memory.usage_in_bytes"))
        {
            usage.memory_charged = Some(charged);
            let inactive = group.field("memory.stat", "total_inactive_file");
            let inactive = inactive.or_else(|| group.field("memory.stat", "inactive_file")).unwrap_or(0);
            usage.memory_working_set = Some(charged.saturating_sub(inactive));
            usage.memory_limit = group.number("memory.max").or_else(|| group.number("memory.limit_in_bytes"));
        }
    }
    usage
}

struct Group<'a>(&'a Path);

impl Group<'_> {
    fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(file)).ok()
    }

    /// A file that is one number; `max` is none.
    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// `name value` lines.
    fn field(&self, file: &str, name: &str) -> Option<u64> {
        let text = self.text(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    fn cpu_ns(&self) -> Option<u64> {
        // Version 2 has a `cpu.stat` in every group, but only counts time where the line exists.
        let v2 = || self.field("cpu.stat", "usage_usec").map(|usec| usec.saturating_mul(1000));
        self.number("cpuacct.usage").or_else(v2)
    }

    fn io(&self) -> Option<(u64, u64)> {
        if let Some(text) = self.text("io.stat") {
            let sum = |key: &str| {
                text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
            };
            return Some((sum("rbytes="), sum("wbytes=")));
        }
        let text = self.text("blkio.throttle.io_service_bytes_recursive")?;
        let sum = |key: &str| {
            let words = text.lines().filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                (words.next()? == key).then(|| words.next()?.parse::<u64>().ok())?
            });
            words.sum()
        };
        Some((sum("Read"), sum("Write")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn version_2_in_one_group() {
        let group = group(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 96\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"),
        ]);
        let usage = read(&[group.path().into()]);
        let expected = Usage {
            cpu_ns: Some(1_500_000),
            memory_charged: Some(4096),
            memory_working_set: Some(4000),
            memory_limit: None,
            io: Some((11, 22)),
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn hybrid_takes_each_figure_from_its_controller() {
        let unified = group(&[("cgroup.procs", "")]);
        let memory = group(&[
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "5000\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
        ]);
        let cpu = group(&[("cpuacct.usage", "77\n"), ("cpu.stat", "nr_periods 0\n")]);
        let blkio = group(&[("blkio.throttle.io_service_bytes_recursive", "8:0 Read 5\n8:0 Write 6\nTotal 11\n")]);
        let groups = [&unified, &memory, &cpu, &blkio].map(|group| group.path().to_path_buf());
        let expected = Usage {
            cpu_ns: Some(77),
            memory_charged: Some(1000),
            memory_working_set: Some(900),
            memory_limit: Some(5000),
            io: Some((5, 6)),
        };
        assert_eq!(read(&groups), expected);
    }

    #[test]
    fn a_group_that_is_gone_gives_nothing() {
        assert_eq!(read(&["/nonexistent/group".into()]), Usage::default());
    }
}
