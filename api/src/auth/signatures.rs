//! The signatures of JSON web tokens, by ring, which TLS brings anyway. The library's own choices are
//! one with a known timing side channel (RUSTSEC-2023-0071) and one that takes minutes to build.
//!
//! RSA keys have 2,048 to 4,096 bits to sign with, and up to 8,192 to verify.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::signature::{Error as Failure, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{self as by, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rsa};

/// Has the library of tokens use ring; to be called before it is given a key.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| Ok(Box::new(Signing::new(*algorithm, key)?)),
        verifier_factory: |algorithm, key| Ok(Box::new(Verifying::new(*algorithm, key)?)),
        // For keys in JSON, which nobody has here.
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        PROVIDER.install_default().expect("nobody else in this process installs one");
    });
}

/// What verifies the signatures of a key.
pub(super) fn public_part(algorithm: Algorithm, key: &EncodingKey) -> Result<DecodingKey> {
    check_family(algorithm, key.family())?;
    let bytes = key.as_bytes();
    Ok(match algorithm.family() {
        AlgorithmFamily::Hmac => DecodingKey::from_secret(bytes),
        AlgorithmFamily::Rsa => {
            let pair = rsa_pair(bytes)?;
            let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
            DecodingKey::from_rsa_raw_components(&public.n, &public.e)
        }
        AlgorithmFamily::Ec => {
            DecodingKey::from_ec_der(ec_pair(algorithm, bytes)?.public_key().as_ref())
        }
        AlgorithmFamily::Ed => DecodingKey::from_ed_der(ed_pair(bytes)?.public_key().as_ref()),
    })
}

enum Key {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn by::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

struct Signing {
    algorithm: Algorithm,
    key: Key,
}

impl Signing {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self> {
        check_family(algorithm, key.family())?;
        let bytes = key.as_bytes();
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => Key::Hmac(hmac::Key::new(hmac_of(algorithm)?, bytes)),
            AlgorithmFamily::Rsa => Key::Rsa(rsa_pair(bytes)?, encoding_of(algorithm)?),
            AlgorithmFamily::Ec => Key::Ecdsa(ec_pair(algorithm, bytes)?),
            AlgorithmFamily::Ed => Key::Ed25519(ed_pair(bytes)?),
        };
        Ok(Self { algorithm, key })
    }
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Failure> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let signed = key.sign(*encoding, &random, message, &mut signature);
                signed.map(|()| signature).map_err(|_| Failure::new())
            }
            Key::Ecdsa(key) => {
                let signed = key.sign(&random, message);
                signed.map(|signature| signature.as_ref().to_vec()).map_err(|_| Failure::new())
            }
            Key::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct Verifying {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifying {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        check_family(algorithm, key.family())?;
        Ok(Self { algorithm, key: key.clone() })
    }

    fn is_good(&self, message: &[u8], signature: &[u8]) -> Result<bool> {
        let algorithm = self.algorithm;
        let checked = match (algorithm.family(), self.key.kind()) {
            (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac_of(algorithm)?, secret), message, signature)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let key = rsa::PublicKeyComponents { n, e };
                key.verify(parameters_of(algorithm)?, message, signature)
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
                let key = by::UnparsedPublicKey::new(parameters_of(algorithm)?, der);
                key.verify(message, signature)
            }
            (_, DecodingKeyKind::SecretOrDer(point)) => {
                let verified: &'static dyn by::VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &by::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &by::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &by::ED25519,
                    _ => return Err(ErrorKind::InvalidAlgorithm.into()),
                };
                by::UnparsedPublicKey::new(verified, point).verify(message, signature)
            }
            (_, DecodingKeyKind::RsaModulusExponent { .. }) => {
                return Err(ErrorKind::InvalidKeyFormat.into());
            }
        };
        Ok(checked.is_ok())
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Failure> {
        match self.is_good(message, signature) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Failure::new()),
        }
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn check_family(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    if algorithm.family() == family { Ok(()) } else { Err(ErrorKind::InvalidKeyFormat.into()) }
}

fn unknown() -> Error {
    ErrorKind::InvalidAlgorithm.into()
}

fn hmac_of(algorithm: Algorithm) -> Result<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Ok(hmac::HMAC_SHA256),
        Algorithm::HS384 => Ok(hmac::HMAC_SHA384),
        Algorithm::HS512 => Ok(hmac::HMAC_SHA512),
        _ => Err(unknown()),
    }
}

fn encoding_of(algorithm: Algorithm) -> Result<&'static dyn by::RsaEncoding> {
    match algorithm {
        Algorithm::RS256 => Ok(&by::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Ok(&by::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Ok(&by::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Ok(&by::RSA_PSS_SHA256),
        Algorithm::PS384 => Ok(&by::RSA_PSS_SHA384),
        Algorithm::PS512 => Ok(&by::RSA_PSS_SHA512),
        _ => Err(unknown()),
    }
}

fn parameters_of(algorithm: Algorithm) -> Result<&'static by::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Ok(&by::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Ok(&by::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Ok(&by::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Ok(&by::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Ok(&by::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Ok(&by::RSA_PSS_2048_8192_SHA512),
        _ => Err(unknown()),
    }
}

fn rsa_pair(der: &[u8]) -> Result<RsaKeyPair> {
    RsaKeyPair::from_der(der).map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()).into())
}

fn ec_pair(algorithm: Algorithm, der: &[u8]) -> Result<EcdsaKeyPair> {
    let signing = match algorithm {
        Algorithm::ES256 => &by::ECDSA_P256_SHA256_FIXED_SIGNING,
        Algorithm::ES384 => &by::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => return Err(unknown()),
    };
    let pair = EcdsaKeyPair::from_pkcs8(signing, der, &SystemRandom::new());
    pair.map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

/// Many tools write the private part alone.
fn ed_pair(der: &[u8]) -> Result<Ed25519KeyPair> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
    pair.map_err(|_| ErrorKind::InvalidEddsaKey.into())
}
