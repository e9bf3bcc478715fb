//! Three server processes: started with etcd's flags, killed, and started again where they were.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::args::Args;
use crate::client::Client;
use crate::network::Hosts;

/// Members of every cluster here.
pub const MEMBERS: usize = 3;
/// How long a cluster may take to accept a write after all faults are over.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

struct Member {
    name: String,
    client_address: String,
    binary: PathBuf,
    is_upgraded: bool,
    peer_address: String,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

/// The processes, and where they listen.
pub struct Cluster {
    members: Vec<Member>,
    hosts: Option<Hosts>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts a new cluster with its data and logs under `directory`.
    pub async fn start(
        args: &Args,
        directory: &Path,
        hosts: Option<Hosts>,
    ) -> anyhow::Result<Self> {
        let addresses = addresses(hosts.as_ref())?;
        let binary = present(args.from_binary.as_ref().unwrap_or(&args.target_binary))?;
        let initial_cluster: Vec<String> = addresses
            .iter()
            .enumerate()
            .map(|(index, (_, peer))| format!("m{index}=http://{peer}"))
            .collect();
        let initial_cluster = initial_cluster.join(",");
        let members = addresses
            .into_iter()
            .enumerate()
            .map(|(index, (client, peer))| {
                let name = format!("m{index}");
                let arguments = arguments(
                    args,
                    &directory.join(&name),
                    &name,
                    &client,
                    &peer,
                    &initial_cluster,
                );
                let log = directory.join(format!("{name}.log"));
                Member {
                    name,
                    client_address: client,
                    binary: binary.clone(),
                    is_upgraded: false,
                    peer_address: peer,
                    arguments,
                    log,
                    process: None,
                }
            })
            .collect();
        let mut cluster = Self { members, hosts, directory: directory.to_owned() };
        for index in 0..MEMBERS {
            cluster.start_member(index)?;
        }
        cluster.wait_for_write(RECOVERY_LIMIT).await?;
        Ok(cluster)
    }

    /// Where clients reach member `index`.
    pub fn address(&self, index: usize) -> &str {
        &self.members[index].client_address
    }

    /// Where clients reach every member.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_address.clone()).collect()
    }

    /// Where the others would reach a member that is to come, and where clients would.
    pub fn free_addresses() -> anyhow::Result<(String, String)> {
        addresses(None)?.into_iter().next().context("addresses for three")
    }

    /// Starts a member that has been added to the cluster, in no place of it yet.
    pub fn start_joining(
        &mut self,
        args: &Args,
        name: &str,
        (client, peer): (String, String),
    ) -> anyhow::Result<()> {
        let known = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.peer_address));
        let all: Vec<String> = known.chain([format!("{name}=http://{peer}")]).collect();
        let data = self.directory.join(name);
        let mut arguments = arguments(args, &data, name, &client, &peer, &all.join(","));
        for argument in &mut arguments {
            if argument == "--initial-cluster-state=new" {
                *argument = "--initial-cluster-state=existing".to_owned();
            }
        }
        let log = self.directory.join(format!("{name}.log"));
        let (client_address, peer_address) = (client, peer);
        let name = name.to_owned();
        self.members.push(Member {
            name,
            client_address,
            binary: present(&args.target_binary)?,
            is_upgraded: true,
            peer_address,
            arguments,
            log,
            process: None,
        });
        self.start_member(self.members.len() - 1)
    }

    /// Gives the place of a removed member to the one that joined last. The removed one ends by
    /// itself.
    pub async fn put_in_place(&mut self, place: usize, limit: Duration) -> anyhow::Result<()> {
        let mut removed = self.members.swap_remove(place);
        assert_eq!(self.members.len(), MEMBERS, "one joined, one goes");
        let mut process = removed.process.take().context("the member is down")?;
        let ended = tokio::time::timeout(limit, process.wait()).await;
        let log = removed.log.display();
        ended.with_context(|| format!("{} was removed and goes on; see {log}", removed.name))??;
        Ok(())
    }

    /// The members' network, where they have one of their own.
    pub fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_ref()
    }

    /// Starts a member that is down, on the data it left.
    pub fn start_member(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        let mut command = match &self.hosts {
            None => Command::new(&member.binary),
            Some(hosts) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", hosts.namespace(index)]).arg(&member.binary);
                command
            }
        };
        assert!(member.process.is_none(), "{} is running already", member.name);
        let log = File::options().create(true).append(true).open(&member.log)?;
        command.args(&member.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        member.process = Some(command.spawn().with_context(|| format!("{command:?}"))?);
        Ok(())
    }

    /// kill -9; returns once the process is gone.
    pub async fn kill_member(&mut self, index: usize) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        let mut process = member.process.take().context("the member is down already")?;
        if let Some(status) = process.try_wait()? {
            bail!("{} had ended by itself: {status}; see {}", member.name, member.log.display());
        }
        process.kill().await?;
        Ok(())
    }

    /// SIGTERM; returns once the process has ended cleanly.
    pub async fn stop_member(&mut self, index: usize, limit: Duration) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        let mut process = member.process.take().context("the member is down already")?;
        let id = process.id().with_context(|| format!("{} had ended by itself", member.name))?;
        let id = Pid::from_raw(i32::try_from(id)?).context("a process has an id")?;
        kill_process(id, Signal::TERM)?;
        let status = tokio::time::timeout(limit, process.wait()).await;
        let status = status.with_context(|| format!("{} does not stop", member.name))??;
        ensure!(status.success(), "{} did not stop cleanly: {status}", member.name);
        Ok(())
    }

    /// Starts a member that is down with another server.
    pub fn upgrade_member(&mut self, index: usize, binary: &Path) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        member.binary = present(binary)?;
        member.is_upgraded = true;
        self.start_member(index)
    }

    /// Whether a member runs the server it was upgraded to.
    pub fn is_upgraded(&self, index: usize) -> bool {
        self.members[index].is_upgraded
    }

    /// Fails if a member that should run has ended.
    pub fn assert_running(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.try_wait()?
            {
                bail!("{} ended by itself: {status}; see {}", member.name, member.log.display());
            }
        }
        Ok(())
    }

    /// The index of the member that leads, as a majority of the reachable members say.
    pub async fn leader(&self, limit: Duration) -> anyhow::Result<usize> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(leader) = self.leader_now().await {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                bail!("no leader within {limit:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leader_now(&self) -> Option<usize> {
        let mut statuses = Vec::new();
        for index in 0..MEMBERS {
            if self.members[index].process.is_none() {
                continue;
            }
            let mut client = Client::new(self.address(index)).ok()?;
            let asked = tokio::time::timeout(Duration::from_millis(500), client.status()).await;
            if let Ok(Ok(status)) = asked {
                statuses.push((index, status));
            }
        }
        let (index, leader) = statuses.iter().find(|(_, s)| s.leader == s.member)?;
        let votes = statuses.iter().filter(|(_, s)| s.leader == leader.member).count();
        (votes * 2 > MEMBERS).then_some(*index)
    }

    /// Waits until a write through any member succeeds.
    pub async fn wait_for_write(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            self.assert_running()?;
            for index in 0..MEMBERS {
                let mut client = Client::new(self.address(index))?;
                let read = tokio::time::timeout(Duration::from_secs(1), client.current_revision());
                if let Ok(Ok(_)) = read.await {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the cluster did not come back within {limit:?}")
    }

    /// Waits until every member answers a linearizable read.
    pub async fn wait_for_all(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        for index in 0..MEMBERS {
            loop {
                self.assert_running()?;
                let mut client = Client::new(self.address(index))?;
                let read = tokio::time::timeout(Duration::from_secs(2), client.current_revision());
                if let Ok(Ok(_)) = read.await {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("{} did not come back within {limit:?}", self.members[index].name);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

fn present(binary: &Path) -> anyhow::Result<PathBuf> {
    let missing = || format!("the server binary {} is not there", binary.display());
    binary.canonicalize().with_context(missing)
}

/// Client and peer address of each member.
fn addresses(hosts: Option<&Hosts>) -> anyhow::Result<Vec<(String, String)>> {
    if let Some(hosts) = hosts {
        return Ok((0..MEMBERS)
            .map(|index| {
                let host = hosts.address(index);
                (format!("{host}:2379"), format!("{host}:2380"))
            })
            .collect());
    }
    // All are held until all are known, so that none is given twice.
    let listeners = (0..2 * MEMBERS)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let ports =
        listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(ports
        .chunks(2)
        .map(|pair| (format!("127.0.0.1:{}", pair[0]), format!("127.0.0.1:{}", pair[1])))
        .collect())
}

fn arguments(
    args: &Args,
    data: &Path,
    name: &str,
    client: &str,
    peer: &str,
    initial_cluster: &str,
) -> Vec<String> {
    let heartbeat = (args.election_timeout / 10).max(1);
    let mut arguments = vec![
        format!("--name={name}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster={initial_cluster}"),
        "--initial-cluster-state=new".to_owned(),
        "--initial-cluster-token=jepsen".to_owned(),
        format!("--snapshot-count={}", args.snapshot_count),
        format!("--heartbeat-interval={heartbeat}"),
        format!("--election-timeout={}", args.election_timeout),
    ];
    // etcd older than 3.6 knows this flag under another name only.
    if let Some(entries) = args.snapshot_catchup_entries {
        arguments.push(format!("--snapshot-catchup-entries={entries}"));
    }
    arguments
}
