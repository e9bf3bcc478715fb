//! A network of its own for each member, in which single directions can be cut.
//!
//! The harness enters a network namespace of its own; members live in three more, joined by a
//! bridge. A cut drops packets on the receiving side, as a broken switch would: connections stay
//! open and go silent. Needs root, `ip` (iproute2), `nft` (nftables) and `unshare` (util-linux).

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::args::{Args, Faults};
use crate::cluster::MEMBERS;

/// Set in the harness once it runs in its own namespace.
const INSIDE: &str = "HOLDFAST_JEPSEN_NAMESPACE";

/// For runs that cut the network: starts this program again inside a namespace of its own.
pub fn enter_own_namespace_if_asked(args: &Args) -> anyhow::Result<()> {
    if args.faults != Faults::Partition || std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("partitions need `unshare --net` (root, and Debian's util-linux)")
}

/// The members' namespaces. Dropping it removes them.
pub struct Hosts {
    namespaces: Vec<String>,
}

impl Hosts {
    /// Makes a bridge and one namespace for each member.
    pub fn create() -> anyhow::Result<Self> {
        let tag = std::process::id();
        command("ip link set lo up")?;
        command("ip link add hfbridge type bridge")?;
        command("ip addr add 10.77.0.254/24 dev hfbridge")?;
        command("ip link set hfbridge up")?;
        let mut hosts = Self { namespaces: Vec::new() };
        for index in 0..MEMBERS {
            let namespace = format!("hf{tag}m{index}");
            command(&format!("ip netns add {namespace}"))?;
            hosts.namespaces.push(namespace.clone());
            let address = hosts.address(index);
            command(&format!("ip link add hfv{index} type veth peer name eth0 netns {namespace}"))?;
            command(&format!("ip link set hfv{index} master hfbridge up"))?;
            command(&format!("ip -n {namespace} link set lo up"))?;
            command(&format!("ip -n {namespace} addr add {address}/24 dev eth0"))?;
            command(&format!("ip -n {namespace} link set eth0 up"))?;
            command(&format!("ip netns exec {namespace} nft add table ip cut"))?;
            command(&format!(
                "ip netns exec {namespace} nft add chain ip cut input \
                 {{ type filter hook input priority 0 ; }}"
            ))?;
        }
        Ok(hosts)
    }

    /// The name of a member's namespace.
    pub fn namespace(&self, index: usize) -> &str {
        &self.namespaces[index]
    }

    /// A member's address.
    pub fn address(&self, index: usize) -> String {
        format!("10.77.0.{}", index + 1)
    }

    /// Stops everything that `from` sends to `to`; the other direction goes on.
    pub fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let namespace = self.namespace(to);
        let address = self.address(from);
        command(&format!(
            "ip netns exec {namespace} nft add rule ip cut input ip saddr {address} drop"
        ))
    }

    /// Lets everything through again.
    pub fn heal(&self) -> anyhow::Result<()> {
        for namespace in &self.namespaces {
            command(&format!("ip netns exec {namespace} nft flush chain ip cut input"))?;
        }
        Ok(())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            if let Err(error) = command(&format!("ip netns del {namespace}")) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn command(line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("`{program}` is needed (Debian: iproute2, nftables)"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
