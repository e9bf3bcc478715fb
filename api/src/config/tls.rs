//! The TLS flags, checked as etcd checks them.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, error};
use crate::args::Settings;
use crate::net::{ListenUrl, Place};
use crate::tls::{SelfSigned, TlsSettings, Versions, check_suites};

/// What clients' connections are made with.
pub(super) fn client(
    settings: &Settings,
    data_directory: &Path,
    listen: &[ListenUrl],
) -> Result<TlsSettings, ConfigError> {
    let tls = TlsSettings {
        client_cert_file: path(settings, "client-cert-file"),
        client_key_file: path(settings, "client-key-file"),
        trusted_ca_file: path(settings, "trusted-ca-file"),
        client_cert_auth: settings.boolean("client-cert-auth"),
        crl_file: path(settings, "client-crl-file"),
        allowed_hostnames: list(settings, "client-cert-allowed-hostname"),
        // Clients come from anywhere.
        skip_address_check: true,
        ..pair(settings, "cert-file", "key-file")?
    };
    let makes = settings.boolean("auto-tls") && !tls.has_certificate();
    finish(tls, makes.then(|| self_signed(settings, data_directory, "client", listen)).transpose()?)
}

/// What members' connections are made with.
pub(super) fn peer(
    settings: &Settings,
    data_directory: &Path,
    listen: &[ListenUrl],
) -> Result<TlsSettings, ConfigError> {
    let tls = TlsSettings {
        client_cert_file: path(settings, "peer-client-cert-file"),
        client_key_file: path(settings, "peer-client-key-file"),
        trusted_ca_file: path(settings, "peer-trusted-ca-file"),
        client_cert_auth: settings.boolean("peer-client-cert-auth"),
        crl_file: path(settings, "peer-crl-file"),
        allowed_cns: list(settings, "peer-cert-allowed-cn"),
        allowed_hostnames: list(settings, "peer-cert-allowed-hostname"),
        skip_address_check: settings.boolean("peer-skip-client-san-verification"),
        ..pair(settings, "peer-cert-file", "peer-key-file")?
    };
    let makes = settings.boolean("peer-auto-tls") && !tls.has_certificate();
    finish(tls, makes.then(|| self_signed(settings, data_directory, "peer", listen)).transpose()?)
}

fn pair(settings: &Settings, cert: &str, key: &str) -> Result<TlsSettings, ConfigError> {
    let versions =
        Versions::parse(settings.text("tls-min-version"), settings.text("tls-max-version"))
            .map_err(ConfigError)?;
    let cipher_suites = list(settings, "cipher-suites");
    check_suites(&cipher_suites, versions).map_err(ConfigError)?;
    Ok(TlsSettings {
        cert_file: path(settings, cert),
        key_file: path(settings, key),
        cipher_suites,
        versions,
        ..TlsSettings::default()
    })
}

fn finish(
    mut tls: TlsSettings,
    self_signed: Option<SelfSigned>,
) -> Result<TlsSettings, ConfigError> {
    tls.self_signed = self_signed;
    tls.check().map_err(|reason| ConfigError(reason.to_string()))?;
    Ok(tls)
}

fn self_signed(
    settings: &Settings,
    data_directory: &Path,
    folder: &str,
    listen: &[ListenUrl],
) -> Result<SelfSigned, ConfigError> {
    let hosts = listen.iter().filter_map(|url| match &url.place {
        Place::Tcp(_) => host(&url.url),
        Place::Unix(_) => None,
    });
    Ok(SelfSigned {
        folder: data_directory.join("fixtures").join(folder),
        hosts: hosts.collect(),
        years: u32::try_from(settings.unsigned("self-signed-cert-validity")).unwrap_or(u32::MAX),
    })
}

/// The host of a URL, without the brackets of IPv6.
fn host(url: &str) -> Option<String> {
    let (_, address) = url.split_once("://")?;
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']).to_owned())
}

fn path(settings: &Settings, flag: &str) -> Option<PathBuf> {
    let text = settings.text(flag);
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn list(settings: &Settings, flag: &str) -> Vec<String> {
    settings.list(flag).into_iter().map(ToOwned::to_owned).collect()
}

/// Members let nobody in that the operator cannot have meant.
fn check_trust(peer: &TlsSettings) -> Result<(), ConfigError> {
    if peer.self_signed.is_some() && (peer.trusted_ca_file.is_some() || peer.client_cert_auth) {
        return error(
            "--peer-auto-tls and --peer-trusted-ca-file or --peer-client-cert-auth are mutually \
             exclusive: members that make their own certificates cannot judge each other's",
        );
    }
    if peer.trusts_the_public() && peer.allowed_cns.is_empty() && peer.allowed_hostnames.is_empty()
    {
        return error(
            "--peer-client-cert-auth needs --peer-trusted-ca-file, or permitted names: without them \
             whoever has a certificate of one of the system's authorities is taken for a member",
        );
    }
    Ok(())
}

impl Config {
    /// A URL that asks for TLS needs a certificate.
    pub(super) fn check_tls(&self) -> Result<(), ConfigError> {
        let secure = |url: &&ListenUrl| url.is_secure;
        let mut clients = self.listen_client.iter().chain(&self.listen_metrics);
        if let Some(url) = clients.find(secure).filter(|_| !self.client_tls.has_certificate()) {
            return error(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} \
                 with HTTPS scheme"
            ));
        }
        let peer = self.listen_peer.iter().find(secure);
        if peer.is_some() {
            check_trust(&self.peer_tls)?;
        }
        if let Some(url) = peer.filter(|_| !self.peer_tls.has_certificate()) {
            return error(format!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                url.address()
            ));
        }
        Ok(())
    }

    /// What the operator should know about the TLS flags.
    pub(super) fn tls_warnings(&self, settings: &Settings) -> Vec<String> {
        let mut warnings = Vec::new();
        for (flag, tls, urls) in [
            ("client-cert-auth", &self.client_tls, &self.listen_client),
            ("peer-client-cert-auth", &self.peer_tls, &self.listen_peer),
        ] {
            for url in urls.iter().filter(|url| !url.is_secure) {
                if tls.has_certificate() {
                    warnings.push(format!(
                        "scheme is http or unix while key and cert files are present; \
                         ignoring key and cert files ({url})"
                    ));
                }
                if tls.client_cert_auth {
                    warnings.push(format!(
                        "scheme is http or unix while --{flag} is enabled; \
                         ignoring client cert auth for this URL ({url})"
                    ));
                }
            }
        }
        for (flag, what, tls) in
            [("auto-tls", "client", &self.client_tls), ("peer-auto-tls", "peer", &self.peer_tls)]
        {
            if settings.boolean(flag) && tls.self_signed.is_none() {
                warnings.push(format!("ignoring {what} auto TLS since certs given"));
            }
        }
        if self.client_tls.trusts_the_public() && self.listen_client.iter().any(|url| url.is_secure)
        {
            warnings.push(
                "--client-cert-auth without --trusted-ca-file lets in whoever has a certificate of \
                 one of the system's authorities"
                    .to_owned(),
            );
        }
        let suites = check_suites(&self.client_tls.cipher_suites, self.client_tls.versions);
        for name in suites.unwrap_or_default() {
            warnings.push(format!("cipher suite {name} is not offered by this server"));
        }
        warnings
    }
}
