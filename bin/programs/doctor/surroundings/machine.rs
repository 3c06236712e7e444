//! Processors, memory, and what a container leaves of them.

use std::fs::read_to_string;

use doctor::{Finding, Verdict};

use super::{RunNeeds, gib};

pub(super) fn examine(asked: &RunNeeds, add: &mut impl FnMut(Finding)) {
    add(processor());
    add(memory(asked));
}

/// A value of a file of lines `key: value`, as Linux has several.
fn value(file: &str, key: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':', '=']).trim().into()))
}

/// The instructions that the kernels of processors are compiled for, as far as this one has them.
fn instructions() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

fn processor() -> Finding {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let name = value("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let system = value("/etc/os-release", "PRETTY_NAME").map(|name| name.trim_matches('"').to_string());
    let system = system.unwrap_or_else(|| std::env::consts::OS.into());
    let has = instructions();
    let found = format!(
        "{system}, {name}, {usable} threads may be used; {}",
        match has.is_empty() {
            true => "no vector instructions known".to_string(),
            false => has.join(", "),
        }
    );
    match cfg!(target_arch = "x86_64") && !has.contains(&"avx2") {
        true => Finding::around(
            "machine",
            Verdict::Warning,
            found,
            "without AVX2 the CPU backends are several times slower: take another machine for long runs",
        ),
        false => Finding::around("machine", Verdict::Right, found, ""),
    }
}

/// Bytes of `MemTotal` or `MemAvailable`.
fn meminfo(key: &str) -> Option<u64> {
    let text = value("/proc/meminfo", key)?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The least limit of memory that a control group of this process has, and what it has taken of it: those of version 2,
/// its own and the ones above it, or that of version 1.
fn group_limit() -> Option<[u64; 2]> {
    let number = |path: String| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_string();
    let ancestors = std::iter::successors(Some(own.as_str()), |path| {
        path.trim_end_matches('/').rsplit_once('/').map(|(above, _)| above)
    });
    let version_2 = ancestors.filter_map(|path| {
        let folder = format!("/sys/fs/cgroup{}", path.trim_end_matches('/'));
        Some([number(format!("{folder}/memory.max"))?, number(format!("{folder}/memory.current")).unwrap_or(0)])
    });
    let folder = "/sys/fs/cgroup/memory";
    let version_1 = number(format!("{folder}/memory.limit_in_bytes"))
        .map(|limit| [limit, number(format!("{folder}/memory.usage_in_bytes")).unwrap_or(0)]);
    // Version 1 has a number near 2^63 where there is no limit.
    version_2.chain(version_1).filter(|[limit, _]| *limit < 1 << 60).min()
}

fn memory(asked: &RunNeeds) -> Finding {
    let (Some(total), Some(mut free)) = (meminfo("MemTotal"), meminfo("MemAvailable")) else {
        return Finding::not_here("host-memory", "this system does not tell how much memory there is");
    };
    let mut found = format!("{} of memory, {} available", gib(total), gib(free));
    if let Some([limit, used]) = group_limit() {
        free = free.min(limit.saturating_sub(used));
        found +=
            &format!("; the control group of this process may have {}, of which {} are left", gib(limit), gib(free));
    }
    let needed = asked.checkpoint.filter(|_| asked.run.is_some_and(|run| run.trainer.save_async)).unwrap_or(0) as u64;
    if needed > 0 {
        found += &format!("; a checkpoint that is being written takes {}", gib(needed));
    }
    match needed > free {
        true => Finding::around(
            "host-memory",
            Verdict::Error,
            found,
            "set trainer.save_async = false, which takes one tensor at a time, or give the job more memory",
        ),
        false => Finding::around("host-memory", Verdict::Right, found, ""),
    }
}
