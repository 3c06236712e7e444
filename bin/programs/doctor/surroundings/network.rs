//! What others reach this machine by, the ports of the servers, and the hub.

use std::net::{IpAddr, Ipv4Addr, TcpListener, ToSocketAddrs};
use std::time::Instant;

use doctor::{Finding, Verdict};
use hub::Hub;

use super::{LIMIT, in_time};

pub(super) fn examine(add: &mut impl FnMut(Finding)) {
    add(addresses());
    for (name, program, port) in [("port-serve", "serve", cli::ports::SERVE), ("port-view", "view", cli::ports::VIEW)] {
        add(port_is_free(name, program, port));
    }
    add(reach_hub());
}

/// Interfaces that are up, the loopback aside; none where the system does not list them.
fn interfaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return vec![] };
    let names = entries.flatten().filter_map(|entry| {
        let state = std::fs::read_to_string(entry.path().join("operstate")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        (name != "lo" && state.trim() != "down").then_some(name)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The name of this machine and the addresses that it resolves to, which is how ranks on others find it.
fn addresses() -> Finding {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string();
    let interfaces = match interfaces() {
        none if none.is_empty() => "no interface but the loopback is up".to_string(),
        some => format!("interfaces {}", some.join(", ")),
    };
    if name.is_empty() {
        return Finding::not_here("network", &format!("this system does not tell its name; {interfaces}"));
    }
    let asked = name.clone();
    let found = in_time(move || (asked.as_str(), 0u16).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect()));
    let resolved: Option<Vec<IpAddr>> = found.and_then(Result::ok);
    let to_do = "only runs on several machines need it: let the name resolve (/etc/hosts, DNS), or name the network to \
                 MPI (--mca btl_tcp_if_include IFACE) and NCCL (NCCL_SOCKET_IFNAME=IFACE)";
    match resolved {
        Some(addresses) if !addresses.is_empty() => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Finding::around("network", Verdict::Right, format!("{name} is {}; {interfaces}", list.join(", ")), "")
        }
        _ => {
            Finding::around("network", Verdict::Warning, format!("{name} resolves to no address; {interfaces}"), to_do)
        }
    }
}

/// Whether a server could listen where it does unless it is told otherwise.
fn port_is_free(name: &'static str, program: &str, port: u16) -> Finding {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => {
            let found = format!("127.0.0.1:{port}, where `{program}` listens, is free");
            Finding::around(name, Verdict::Right, found, "")
        }
        Err(error) => Finding::around(
            name,
            Verdict::Warning,
            format!("127.0.0.1:{port}, where `{program}` listens: {error}"),
            format!("give `{program}` another --port, or end what listens there"),
        ),
    }
}

/// Whether models and data can be fetched. A token is named as there or not, and never shown or sent.
fn reach_hub() -> Finding {
    const NAME: &str = "hub";
    let hub = match Hub::from_env() {
        Ok(hub) => hub,
        Err(error) => return Finding::around(NAME, Verdict::Warning, error.to_string(), "set HF_HOME"),
    };
    let token = if hub.token.is_some() { "a token is there" } else { "no token, for what is public" };
    if hub.offline {
        let found = format!("not asked (HF_HUB_OFFLINE): what is in {} has to do; {token}", hub.cache.display());
        return Finding::around(NAME, Verdict::Right, found, "");
    }
    let endpoint = hub.endpoint.clone();
    let clock = Instant::now();
    match in_time(move || hub.reach(LIMIT)).unwrap_or_else(|| Err("no answer in time".into())) {
        Ok(status) if status < 500 => {
            let seconds = clock.elapsed().as_secs_f64();
            Finding::around(NAME, Verdict::Right, format!("{endpoint} answers in {seconds:.1} s; {token}"), "")
        }
        Ok(status) => Finding::around(
            NAME,
            Verdict::Warning,
            format!("{endpoint} answers {status}; {token}"),
            "try again later, or set HF_ENDPOINT to a mirror",
        ),
        Err(why) => Finding::around(
            NAME,
            Verdict::Warning,
            format!("{endpoint} cannot be reached ({why}); {token}"),
            "only models and data named by their id need it: check network and proxy, set HF_ENDPOINT to a mirror, or \
             fetch them elsewhere and set HF_HUB_OFFLINE=1",
        ),
    }
}
