//! The flags of discovery, by a registry or by DNS, checked as etcd checks them.

use std::collections::BTreeSet;

use super::{ConfigError, error};
use crate::args::Settings;
use crate::discovery::{self, Endpoint, Login, RecordSettings, Source};
use crate::tls::TlsSettings;

/// Those that ask for a registry; the others only say how.
const ASKING: [&str; 7] = [
    "discovery-token",
    "discovery-endpoints",
    "discovery-cert",
    "discovery-key",
    "discovery-cacert",
    "discovery-user",
    "discovery-password",
];

/// How to discover; none when nobody asks for it.
pub(super) fn resolve(settings: &Settings) -> Result<Option<Source>, ConfigError> {
    let is_given = |flag: &&str| !settings.text(flag).is_empty();
    let exclusive = ["initial-cluster", "discovery-endpoints", "discovery-srv"];
    if exclusive.iter().filter(|flag| is_given(flag)).count() > 1 {
        return error(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"",
        );
    }
    if let Some(registry) = registry(settings)? {
        return Ok(Some(Source::Registry(Box::new(registry))));
    }
    let domain = settings.text("discovery-srv").to_owned();
    let service_name = settings.text("discovery-srv-name").to_owned();
    let has_authority = !settings.text("peer-trusted-ca-file").is_empty();
    // Certificates that members make themselves are verified by nobody.
    let trusts_the_system = !has_authority && !settings.boolean("peer-auto-tls");
    let records = RecordSettings { domain, service_name, trusts_the_system };
    Ok(Some(records).filter(|records| !records.domain.is_empty()).map(Source::Records))
}

fn registry(settings: &Settings) -> Result<Option<discovery::Settings>, ConfigError> {
    let text = |flag: &str| settings.text(flag);
    let (token, endpoints) = (text("discovery-token"), text("discovery-endpoints"));
    if !text("discovery-proxy").is_empty() && ASKING.iter().any(|flag| !text(flag).is_empty()) {
        return error(
            "both v2 discovery settings (discovery, discovery-proxy) and v3 discovery settings \
             (discovery-token, discovery-endpoints, discovery-cert, discovery-key, \
             discovery-cacert, discovery-user, discovery-password) are set",
        );
    }
    if token.is_empty() != endpoints.is_empty() {
        return error("both --discovery-token and --discovery-endpoints must be set");
    }
    if token.is_empty() {
        return Ok(None);
    }
    let request_timeout = settings.duration("discovery-request-timeout");
    if request_timeout.is_zero() {
        return error("--discovery-request-timeout must be >0 (set to 0s)");
    }
    let tls = tls(settings)?;
    let wants_tls = !settings.boolean("discovery-insecure-transport") || !tls.is_empty();
    Ok(Some(discovery::Settings {
        token: token.to_owned(),
        endpoints: read(endpoints, wants_tls)?,
        dial_timeout: settings.duration("discovery-dial-timeout"),
        request_timeout,
        keepalive_time: settings.duration("discovery-keepalive-time"),
        keepalive_timeout: settings.duration("discovery-keepalive-timeout"),
        tls,
        login: login(text("discovery-user"), text("discovery-password"))?,
    }))
}

/// What the operator should know about them.
pub(super) fn warnings(settings: &Settings, discovery: Option<&Source>) -> Vec<String> {
    let given = |flag: &str| !settings.text(flag).is_empty();
    let idle = |flag: &str, without: &str| format!("--{flag} has no effect without {without}");
    let mut warnings = match discovery {
        Some(Source::Registry(registry)) => plain_endpoints(settings, registry),
        Some(Source::Records(_)) | None => {
            let asking = ASKING.iter().filter(|flag| given(flag));
            asking.map(|flag| idle(flag, "an endpoint")).collect()
        }
    };
    if given("discovery-srv-name") && !given("discovery-srv") {
        warnings.push(idle("discovery-srv-name", "--discovery-srv"));
    }
    warnings
}

fn plain_endpoints(settings: &Settings, registry: &discovery::Settings) -> Vec<String> {
    let is_secure = !settings.boolean("discovery-insecure-transport") || !registry.tls.is_empty();
    let plain = registry.endpoints.iter().filter(|endpoint| is_secure && endpoint.is_plain());
    let used = |endpoint| format!("--discovery-endpoints: {endpoint} is used without TLS");
    let has_login = registry.login.is_some();
    let told = registry.endpoints.iter().filter(|endpoint| has_login && endpoint.is_overheard());
    let tells = |endpoint| format!("--discovery-user: the password goes to {endpoint} without TLS");
    plain.map(used).chain(told.map(tells)).collect()
}

fn read(endpoints: &str, wants_tls: bool) -> Result<Vec<Endpoint>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::new();
    for text in endpoints.split(',').map(str::trim) {
        if text.is_empty() {
            return error("--discovery-endpoints must not contain empty endpoints");
        }
        if seen.insert(text) {
            let endpoint = Endpoint::parse(text, wants_tls);
            let wrong = |reason| ConfigError(format!("--discovery-endpoints: {reason}"));
            read.push(endpoint.map_err(wrong)?);
        }
    }
    Ok(read)
}

fn tls(settings: &Settings) -> Result<TlsSettings, ConfigError> {
    let path = |flag: &str| Some(settings.text(flag)).filter(|text| !text.is_empty());
    let tls = TlsSettings {
        cert_file: path("discovery-cert").map(Into::into),
        key_file: path("discovery-key").map(Into::into),
        trusted_ca_file: path("discovery-cacert").map(Into::into),
        skip_verification: settings.boolean("discovery-insecure-skip-tls-verify"),
        ..TlsSettings::default()
    };
    tls.check().map_err(|reason| ConfigError(reason.to_string()))?;
    Ok(tls)
}

/// A name may have a colon in it if the password is given apart.
fn login(user: &str, password: &str) -> Result<Option<Login>, ConfigError> {
    let (user, password) = match user.split_once(':') {
        Some((user, within)) if password.is_empty() => (user, within),
        _ => (user, password),
    };
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(Login { user: user.to_owned(), password: password.to_owned() })),
        _ => error(
            "--discovery-user needs a password, by --discovery-password or as user:password, and \
             --discovery-password a user",
        ),
    }
}
