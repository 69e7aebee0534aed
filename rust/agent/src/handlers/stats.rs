//! What the sandbox says about its own use of resources.

use microsandbox_protocol::message::Stats;

use crate::server::Server;

impl Server {
    /// Sums over the processes this agent can see; ended ones are in their parents' figures.
    pub(crate) fn stats(&self) -> Stats {
        let procfs = &self.setup.procfs;
        let page = rustix::param::page_size() as u64;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let mut stats = Stats { uptime_ms: self.setup.started.elapsed().as_millis() as u64, ..Stats::default() };
        let mut ticks = 0u64;
        for pid in procfs.pids() {
            let Some(stat) = procfs.stat(pid) else { continue };
            stats.processes += 1;
            let spent = [stat.utime, stat.stime, stat.cutime, stat.cstime];
            ticks = spent.iter().fold(ticks, |sum, part| sum.saturating_add(*part));
            stats.memory_bytes = stats.memory_bytes.saturating_add(stat.rss.saturating_mul(page));
            if let Some(io) = procfs.read(&format!("{pid}/io")) {
                stats.disk_read_bytes += field(&io, "read_bytes:");
                stats.disk_write_bytes += field(&io, "write_bytes:");
            }
        }
        stats.cpu_ns = ticks.saturating_mul(tick_ns);
        stats.memory_available_bytes =
            procfs.read("meminfo").map(|text| field(&text, "MemAvailable:").saturating_mul(1024));
        if let Some(text) = procfs.read("self/net/dev").or_else(|| procfs.read("net/dev")) {
            (stats.net_rx_bytes, stats.net_tx_bytes) = network(&text);
        }
        if let Ok(fs) = rustix::fs::fstatvfs(self.setup.root.fd()) {
            stats.root_used_bytes = Some(fs.f_blocks.saturating_sub(fs.f_bfree).saturating_mul(fs.f_frsize));
            stats.root_free_bytes = Some(fs.f_bavail.saturating_mul(fs.f_frsize));
        }
        stats
    }
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0)
}

/// Received and sent bytes of every interface but loopback.
fn network(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        let mut numbers = counters.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        if name.trim() != "lo" {
            sums.0 = sums.0.saturating_add(numbers.next().unwrap_or(0));
            sums.1 = sums.1.saturating_add(numbers.nth(7).unwrap_or(0));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn loopback_does_not_count() {
        let text = "Inter-| Receive\n face |bytes\n  lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(network(text), (5, 7));
    }
}
