//! Sealing: values are closed with XChaCha20-Poly1305 under a master key.
//!
//! Sealed bytes: version (1) · nonce (24, random, one a value) · ciphertext with tag. What is authenticated besides:
//! namespace, key and key id, so that a value moved to another row does not open.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::Secret;

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// A key of 32 bytes that seals values, with an id made from it.
#[derive(Clone)]
pub struct MasterKey {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// A text that is no master key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a master key is 32 random bytes as 64 hexadecimal digits or as base64; make one with: openssl rand -base64 32"
)]
pub struct BadMasterKey;

/// Why a value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DoesNotOpen;

impl MasterKey {
    /// The key of these bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update("tasker keystore key id")
            .chain_update(bytes)
            .finalize();
        let id = digest
            .iter()
            .take(4)
            .fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
        Self {
            id: format!("{id:08x}"),
            cipher: XChaCha20Poly1305::new(bytes.into()),
        }
    }

    /// The key of a text: 64 hexadecimal digits, or base64 of 32 bytes.
    ///
    /// # Errors
    /// When it is neither; the text is not in the error.
    pub fn parse(text: &Secret) -> Result<Self, BadMasterKey> {
        let text = text.expose();
        let bytes = if text.len() == 64 {
            hex(text)
        } else {
            BASE64_STANDARD.decode(text).ok()
        };
        let bytes: [u8; 32] = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(BadMasterKey)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Names the key in rows and errors; nobody can compute the key from it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn seal(&self, namespace: &str, key: &str, value: &str) -> Vec<u8> {
        let nonce = XNonce::generate();
        let aad = aad(namespace, key, &self.id);
        let payload = Payload {
            msg: value.as_bytes(),
            aad: &aad,
        };
        let sealed = self
            .cipher
            .encrypt(&nonce, payload)
            .expect("XChaCha20-Poly1305 seals every text shorter than 256 GiB");
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        bytes
    }

    pub(super) fn open(
        &self,
        namespace: &str,
        key: &str,
        bytes: &[u8],
    ) -> Result<Secret, DoesNotOpen> {
        let (version, rest) = bytes.split_first().ok_or(DoesNotOpen)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or(DoesNotOpen)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| DoesNotOpen)?;
        if *version != VERSION {
            return Err(DoesNotOpen);
        }
        let aad = aad(namespace, key, &self.id);
        let payload = Payload {
            msg: sealed,
            aad: &aad,
        };
        let value = self.cipher.decrypt(&nonce, payload);
        let value = value.map_err(|_| DoesNotOpen)?;
        let value = String::from_utf8(value).map_err(|_| DoesNotOpen)?;
        Ok(Secret::exact(value))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// Each part with its length before it, so that no two triples give the same bytes.
fn aad(namespace: &str, key: &str, key_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [namespace, key, key_id] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| Some(digit.to_digit(16)? as u8))
        .collect();
    let digits = digits?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_where_it_was_sealed_and_unchanged() {
        let master = MasterKey::from_bytes(&[7; 32]);
        for value in ["", "sk-12345", " spaces and \u{0} stay \n", "ü"] {
            let sealed = master.seal("global", "K", value);
            assert_eq!(master.open("global", "K", &sealed).unwrap().expose(), value);
            assert_eq!(master.open("other", "K", &sealed), Err(DoesNotOpen));
            assert_eq!(master.open("global", "L", &sealed), Err(DoesNotOpen));
            assert_eq!(master.open("globa", "lK", &sealed), Err(DoesNotOpen));
            let other = MasterKey::from_bytes(&[8; 32]);
            assert_eq!(other.open("global", "K", &sealed), Err(DoesNotOpen));
            for index in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[index] ^= 1;
                assert_eq!(master.open("global", "K", &changed), Err(DoesNotOpen));
                assert_eq!(
                    master.open("global", "K", &sealed[..index]),
                    Err(DoesNotOpen)
                );
            }
        }
    }

    #[test]
    fn the_same_value_sealed_twice_differs() {
        let master = MasterKey::from_bytes(&[7; 32]);
        assert_ne!(master.seal("n", "k", "v"), master.seal("n", "k", "v"));
    }

    #[test]
    fn a_master_key_is_read_from_hex_and_from_base64() {
        let hexadecimal = Secret::new("07".repeat(32));
        let base64 = Secret::new(format!("{}\n", BASE64_STANDARD.encode([7; 32])));
        let id = MasterKey::from_bytes(&[7; 32]).id().to_owned();
        assert_eq!(id.len(), 8);
        for text in [hexadecimal, base64] {
            assert_eq!(MasterKey::parse(&text).unwrap().id(), id);
        }
        for text in [
            "",
            "password",
            "zz",
            &"g".repeat(64),
            &BASE64_STANDARD.encode([7; 31]),
        ] {
            assert_eq!(
                MasterKey::parse(&Secret::new(text)).unwrap_err(),
                BadMasterKey
            );
        }
    }
}
