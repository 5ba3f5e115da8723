//! Sealed values by namespace and key. Storage never sees them open.

use async_trait::async_trait;

use crate::{StorageError, Timestamp};

/// A sealed value.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedValue {
    /// Ciphertext with its nonce, as the keystore service made it.
    pub bytes: Vec<u8>,
    /// Names the master key that sealed it.
    pub key_id: String,
    /// When it was set.
    pub updated_at: Timestamp,
}

impl std::fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SealedValue({} bytes, key {:?})",
            self.bytes.len(),
            self.key_id
        )
    }
}

/// Keystore rows.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Does: sets or replaces the value. Tested by: `keystore_round_trip`.
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError>;

    /// Does: replaces the value only if its bytes are still `expected`; `false` when they are not. For re-sealing.
    /// Tested by: `keystore_replace_is_compare_and_set`.
    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError>;

    /// Does: the value; `None` when there is none. Tested by: `keystore_round_trip`.
    async fn sealed(&self, namespace: &str, key: &str)
    -> Result<Option<SealedValue>, StorageError>;

    /// Does: removes the value; whether there was one. Tested by: `keystore_round_trip`.
    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError>;

    /// Does: keys of a namespace in byte order. Tested by: `keystore_lists`.
    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError>;

    /// Does: namespaces that hold a key, in byte order. Tested by: `keystore_lists`.
    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError>;
}
