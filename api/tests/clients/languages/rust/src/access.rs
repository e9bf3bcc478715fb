//! How the server is reached: addresses, certificates and logins, from the environment.

use std::env;
use std::fs;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use crate::check::Failure;

/// In whose name a client asks.
pub enum Login {
    User,
    Root,
    /// Neither a password nor a name in the certificate.
    Nobody,
    /// The user, by the name in the certificate alone.
    Certificate,
    Other(&'static str, &'static str),
}

pub struct Access {
    endpoints: Vec<String>,
    members: usize,
    /// With the user's name, and without a name.
    tls: Option<(TlsOptions, TlsOptions)>,
    root_password: Option<String>,
    user: (String, String),
}

impl Access {
    pub fn from_environment() -> Self {
        let variable = |name: &str| env::var(name).ok();
        let content =
            |name: &str| fs::read(env::var(name).expect("set beside CA")).expect("readable");
        let identified = |cert: &str, key: &str| {
            TlsOptions::new()
                .ca_certificate(Certificate::from_pem(content("CA")))
                .identity(Identity::from_pem(content(cert), content(key)))
        };
        let tls = variable("CA")
            .map(|_| (identified("CERT", "KEY"), identified("BARE_CERT", "BARE_KEY")));
        let endpoints = variable("ENDPOINTS").expect("ENDPOINTS is set");
        Self {
            endpoints: endpoints.split(',').map(String::from).collect(),
            members: variable("MEMBERS")
                .and_then(|text| text.parse().ok())
                .expect("MEMBERS is a number"),
            tls,
            root_password: variable("ROOT_PASSWORD"),
            user: (
                variable("USER_NAME").unwrap_or_default(),
                variable("USER_PASSWORD").unwrap_or_default(),
            ),
        }
    }

    pub fn tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn users(&self) -> bool {
        self.root_password.is_some()
    }

    pub fn members(&self) -> usize {
        self.members
    }

    /// The user's name.
    pub fn user(&self) -> &'static str {
        String::leak(self.user.0.clone())
    }

    /// A client of all members.
    pub async fn connect(&self, login: Login) -> Result<Client, Error> {
        Client::connect(&self.endpoints, Some(self.options(login))).await
    }

    /// A client of the first member alone.
    pub async fn connect_first(&self, login: Login) -> Result<Client, Error> {
        Client::connect(&self.endpoints[..1], Some(self.options(login))).await
    }

    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(self.connect(Login::User).await?)
    }

    pub async fn root(&self) -> Result<Client, Failure> {
        Ok(self.connect(Login::Root).await?)
    }

    fn options(&self, login: Login) -> ConnectOptions {
        let mut options =
            ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        if let Some((named, bare)) = &self.tls {
            let tls = if matches!(login, Login::Nobody) { bare } else { named };
            options = options.with_tls(tls.clone());
        }
        let Some(root_password) = &self.root_password else {
            return options;
        };
        match login {
            Login::User => options.with_user(&self.user.0, &self.user.1),
            Login::Root => options.with_user("root", root_password),
            Login::Other(name, password) => options.with_user(name, password),
            Login::Nobody | Login::Certificate => options,
        }
    }
}
