//! Who the members of a local cluster are: names, ports, folders, flags.
//!
//! The plan is kept in the cluster's folder, because members cannot change their ports or number
//! by being started differently.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{DevelopmentError, folder_error};
use crate::args::Settings;

const PLAN_FILE: &str = "cluster.json";
const MEMBERS_MAX: u32 = 9;
const PORTS_PER_MEMBER: u32 = 2;

/// A cluster to be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) folder: PathBuf,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    members: u32,
    base_port: u32,
}

impl Plan {
    /// The plan of the folder if it has one, otherwise a new one from the flags.
    pub(super) fn make(settings: &Settings) -> Result<Self, DevelopmentError> {
        let folder = Path::new(settings.text("data-dir"));
        let folder = std::path::absolute(folder).map_err(folder_error(folder))?;
        let asked = Shape {
            members: settings.unsigned32("members"),
            base_port: settings.unsigned32("base-port"),
        };
        asked.check()?;
        let file = folder.join(PLAN_FILE);
        let shape = match std::fs::read(&file) {
            Ok(bytes) => Shape::kept(&file, &bytes)?.agreed(&folder, asked, settings)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder).map_err(folder_error(&folder))?;
                std::fs::write(&file, asked.to_json()).map_err(folder_error(&file))?;
                asked
            }
            Err(error) => return Err(folder_error(&file)(error)),
        };
        Ok(Self { folder, shape })
    }

    pub(super) fn members(&self) -> usize {
        self.shape.members as usize
    }

    pub(super) fn name(number: usize) -> String {
        format!("m{}", number + 1)
    }

    pub(super) fn client_url(&self, number: usize) -> String {
        self.url(number, 0)
    }

    fn peer_url(&self, number: usize) -> String {
        self.url(number, 1)
    }

    fn url(&self, number: usize, which: usize) -> String {
        let port = self.shape.base_port as usize + PORTS_PER_MEMBER as usize * number + which;
        format!("http://127.0.0.1:{port}")
    }

    pub(super) fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}.log", Self::name(number)))
    }

    /// What a client is pointed at.
    pub(super) fn endpoints(&self) -> String {
        let urls: Vec<String> = (0..self.members()).map(|number| self.client_url(number)).collect();
        urls.join(",")
    }

    /// The command line of a member.
    pub(super) fn flags(&self, number: usize) -> Vec<String> {
        let name = Self::name(number);
        let cluster: Vec<String> = (0..self.members())
            .map(|other| format!("{}={}", Self::name(other), self.peer_url(other)))
            .collect();
        vec![
            format!("--data-dir={}", self.folder.join(&name).display()),
            format!("--name={name}"),
            format!("--listen-client-urls={}", self.client_url(number)),
            format!("--advertise-client-urls={}", self.client_url(number)),
            format!("--listen-peer-urls={}", self.peer_url(number)),
            format!("--initial-advertise-peer-urls={}", self.peer_url(number)),
            format!("--initial-cluster={}", cluster.join(",")),
            "--initial-cluster-token=holdfast-dev".to_owned(),
        ]
    }
}

impl Shape {
    fn check(self) -> Result<(), DevelopmentError> {
        if self.members == 0 || self.members > MEMBERS_MAX {
            return plan_error(format!(
                "--members={}: a local cluster has 1 to {MEMBERS_MAX} members",
                self.members
            ));
        }
        let last = self.base_port.saturating_add(PORTS_PER_MEMBER * self.members - 1);
        if self.base_port == 0 || last > u32::from(u16::MAX) {
            return plan_error(format!(
                "--base-port={}: {} ports from there do not exist",
                self.base_port,
                PORTS_PER_MEMBER * self.members
            ));
        }
        Ok(())
    }

    /// The shape kept in the folder, unless the flags ask for another.
    fn agreed(
        self,
        folder: &Path,
        asked: Self,
        settings: &Settings,
    ) -> Result<Self, DevelopmentError> {
        let differs = (settings.is_set("members") && asked.members != self.members)
            || (settings.is_set("base-port") && asked.base_port != self.base_port);
        if differs {
            return plan_error(format!(
                "{} holds a cluster with --members={} and --base-port={}; remove the folder or \
                 name another by --data-dir",
                folder.display(),
                self.members,
                self.base_port
            ));
        }
        Ok(self)
    }

    fn to_json(self) -> String {
        json!({ "members": self.members, "base-port": self.base_port }).to_string()
    }

    fn kept(file: &Path, bytes: &[u8]) -> Result<Self, DevelopmentError> {
        let read = || {
            let value: Value = serde_json::from_slice(bytes).ok()?;
            let number = |key: &str| u32::try_from(value.get(key)?.as_u64()?).ok();
            Some(Self { members: number("members")?, base_port: number("base-port")? })
        };
        let Some(shape) = read() else {
            return plan_error(format!("{} does not describe a cluster", file.display()));
        };
        shape.check()?;
        Ok(shape)
    }
}

fn plan_error<T>(message: String) -> Result<T, DevelopmentError> {
    Err(DevelopmentError::Plan(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    fn plan(flags: &[&str]) -> Result<Plan, DevelopmentError> {
        let arguments: Vec<String> =
            ["dev"].iter().chain(flags).map(|text| (*text).to_owned()).collect();
        match parse(&arguments, []) {
            Ok(Invocation::Development(settings)) => Plan::make(&settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_keeps_its_plan() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = format!("--data-dir={}", folder.path().join("c").display());
        let first = plan(&[&data, "--members=2", "--base-port=5000"]).expect("made");
        assert_eq!(first.endpoints(), "http://127.0.0.1:5000,http://127.0.0.1:5002");
        let again = plan(&[&data]).expect("found");
        assert_eq!(again.flags(1), first.flags(1));
        assert!(again.flags(1).contains(
            &"--initial-cluster=m1=http://127.0.0.1:5001,m2=http://127.0.0.1:5003".to_owned()
        ));
        let other = plan(&[&data, "--members=3"]).expect_err("refused").to_string();
        assert!(other.contains("holds a cluster with --members=2"), "{other}");
        std::fs::write(folder.path().join("c").join(PLAN_FILE), "{}").expect("written");
        assert!(plan(&[&data]).is_err());
    }

    #[test]
    fn impossible_clusters_are_refused() {
        for flags in [["--members=0"], ["--members=10"], ["--base-port=0"], ["--base-port=65533"]] {
            assert!(matches!(plan(&flags), Err(DevelopmentError::Plan(_))), "{flags:?}");
        }
    }
}
