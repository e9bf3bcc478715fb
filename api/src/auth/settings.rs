//! What the flags say of tokens and passwords.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::jwt::{Jwt, KeyError, KeyFiles};
use crate::args::{self, value};

/// Costs that bcrypt knows; another one is replaced by the default, as in etcd.
const BCRYPT_COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
/// Of signed tokens too, where they do not say.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);

/// What kind of token clients are given.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// Random ones that every member keeps in mind.
    Simple,
    /// Signed ones.
    Jwt(Arc<Jwt>),
    /// None: users have certificates.
    Disabled,
}

/// How clients authenticate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--auth-token`.
    pub tokens: Tokens,
    /// `--auth-token-ttl`; of simple tokens, since they were last used.
    pub token_lifetime: Duration,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
}

/// Why tokens cannot be made as the flags ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No kind of token has this name, or an option is not `name=value`, or stands there twice.
    #[error("auth: invalid auth options")]
    Invalid,
    /// An option of signed tokens is missing or cannot be used.
    #[error("auth: invalid auth options: {0}")]
    Option(String),
    /// The keys are missing or cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens: Tokens::Simple,
            token_lifetime: LIFETIME_DEFAULT,
            bcrypt_cost: BCRYPT_COST_DEFAULT,
        }
    }
}

impl Settings {
    /// Of the flags, with what the operator should know.
    pub fn resolve(settings: &args::Settings) -> Result<(Self, Vec<String>), SettingsError> {
        let mut warnings = Vec::new();
        let cost = settings.unsigned("bcrypt-cost");
        let bcrypt_cost = if BCRYPT_COSTS.contains(&cost) {
            cost as u32
        } else {
            warnings.push(format!("--bcrypt-cost={cost} is not within 4 and 31, 10 is used"));
            BCRYPT_COST_DEFAULT
        };
        let token_lifetime = match settings.unsigned("auth-token-ttl") {
            0 => LIFETIME_DEFAULT,
            seconds => Duration::from_secs(seconds),
        };
        let (tokens, unknown) = tokens(settings.text("auth-token"))?;
        warnings.extend(unknown);
        Ok((Self { tokens, token_lifetime, bcrypt_cost }, warnings))
    }
}

type Options<'a> = BTreeMap<&'a str, &'a str>;

fn tokens(text: &str) -> Result<(Tokens, Vec<String>), SettingsError> {
    let mut words = text.split(',');
    let kind = words.next().unwrap_or_default();
    let mut options = Options::new();
    for word in words {
        let (name, value) = word.split_once('=').ok_or(SettingsError::Invalid)?;
        if value.contains('=') || options.insert(name, value).is_some() {
            return Err(SettingsError::Invalid);
        }
    }
    match kind {
        "simple" => Ok((Tokens::Simple, Vec::new())),
        "jwt" => {
            let jwt = jwt(&options)?;
            Ok((Tokens::Jwt(Arc::new(jwt)), unknown(&options)))
        }
        "" => Ok((Tokens::Disabled, Vec::new())),
        _ => Err(SettingsError::Invalid),
    }
}

const SIGN_METHOD: &str = "sign-method";
const PUBLIC_KEY: &str = "pub-key";
const PRIVATE_KEY: &str = "priv-key";
const LIFETIME: &str = "ttl";

fn jwt(options: &Options<'_>) -> Result<Jwt, SettingsError> {
    let option = |name| options.get(name).copied().filter(|value| !value.is_empty());
    let lifetime = match option(LIFETIME) {
        None => LIFETIME_DEFAULT,
        Some(text) => value::parse_duration(text)
            .map_err(|reason| SettingsError::Option(format!("{LIFETIME}: {reason}")))?,
    };
    let files = KeyFiles {
        public: option(PUBLIC_KEY).map(read).transpose()?,
        private: option(PRIVATE_KEY).map(read).transpose()?,
    };
    let method = option(SIGN_METHOD).unwrap_or_default();
    let algorithm = Algorithm::from_str(method).map_err(|_| {
        SettingsError::Option(format!("{SIGN_METHOD}: {method:?} is no method of this server"))
    })?;
    Ok(Jwt::new(algorithm, &files, lifetime)?)
}

fn read(file: &str) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(file).map_err(|reason| SettingsError::Option(format!("{file}: {reason}")))
}

fn unknown(options: &Options<'_>) -> Vec<String> {
    let known = [SIGN_METHOD, PUBLIC_KEY, PRIVATE_KEY, LIFETIME];
    let unknown = options.keys().filter(|name| !known.contains(name));
    unknown.map(|name| format!("--auth-token: unknown JWT option {name:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_tokens() {
        assert!(matches!(tokens("simple"), Ok((Tokens::Simple, _))));
        assert!(matches!(tokens("simple,a=b"), Ok((Tokens::Simple, _))));
        assert!(matches!(tokens(""), Ok((Tokens::Disabled, _))));
        for text in ["Simple", "simple,a", "simple,a=b,a=c", "simple,a=b=c", "paseto"] {
            assert!(matches!(tokens(text), Err(SettingsError::Invalid)), "{text}");
        }
    }

    #[test]
    fn signed_tokens_need_a_method_and_keys() {
        let directory = tempfile::tempdir().expect("a folder");
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "secret").expect("written");
        let secret = secret.display();
        let good = format!("jwt,sign-method=HS256,priv-key={secret},ttl=10m,colour=red");
        let (made, warnings) = tokens(&good).expect("it has both");
        assert!(matches!(made, Tokens::Jwt(_)));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for text in [
            "jwt".to_owned(),
            "jwt,sign-method=HS256".to_owned(),
            format!("jwt,priv-key={secret}"),
            format!("jwt,sign-method=ES512,priv-key={secret}"),
            format!("jwt,sign-method=none,priv-key={secret}"),
            format!("jwt,sign-method=RS256,priv-key={secret}"),
            format!("jwt,sign-method=HS256,priv-key={secret},ttl=soon"),
            format!("jwt,sign-method=HS256,priv-key={secret}.absent"),
        ] {
            assert!(tokens(&text).is_err(), "{text}");
        }
    }
}
