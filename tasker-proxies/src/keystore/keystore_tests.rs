//! Tests of the keystore service.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tasker_core::Timestamp;
use tasker_core::service::ServiceErrorType;

use super::*;

/// Keystore rows in memory, in the manner of a database.
#[derive(Default)]
struct Rows(Mutex<BTreeMap<(String, String), SealedValue>>);

#[async_trait]
impl KeyStore for Rows {
    async fn put_sealed(
        &self,
        namespace: &str,
        key: &str,
        value: SealedValue,
    ) -> Result<(), StorageError> {
        let place = (namespace.to_owned(), key.to_owned());
        self.0.lock().unwrap().insert(place, value);
        Ok(())
    }

    async fn replace_sealed(
        &self,
        namespace: &str,
        key: &str,
        expected: &[u8],
        value: SealedValue,
    ) -> Result<bool, StorageError> {
        let place = (namespace.to_owned(), key.to_owned());
        let mut rows = self.0.lock().unwrap();
        match rows.get_mut(&place) {
            Some(row) if row.bytes == expected => {
                *row = value;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn sealed(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<Option<SealedValue>, StorageError> {
        let place = (namespace.to_owned(), key.to_owned());
        Ok(self.0.lock().unwrap().get(&place).cloned())
    }

    async fn delete_sealed(&self, namespace: &str, key: &str) -> Result<bool, StorageError> {
        let place = (namespace.to_owned(), key.to_owned());
        Ok(self.0.lock().unwrap().remove(&place).is_some())
    }

    async fn sealed_keys(&self, namespace: &str) -> Result<Vec<String>, StorageError> {
        let rows = self.0.lock().unwrap();
        let keys = rows.keys().filter(|(space, _)| space == namespace);
        Ok(keys.map(|(_, key)| key.clone()).collect())
    }

    async fn sealed_namespaces(&self) -> Result<Vec<String>, StorageError> {
        let rows = self.0.lock().unwrap();
        let mut namespaces: Vec<String> = rows.keys().map(|(space, _)| space.clone()).collect();
        namespaces.dedup();
        Ok(namespaces)
    }
}

fn key(byte: u8) -> MasterKey {
    MasterKey::from_bytes(&[byte; 32])
}

fn keystore(rows: &Arc<Rows>, current: Option<MasterKey>, previous: Vec<MasterKey>) -> Keystore {
    Keystore::new(Arc::clone(rows) as Arc<dyn KeyStore>, current, previous)
        .clock(Arc::new(|| Timestamp::from_millis(0)))
}

async fn ask(keystore: &Keystore, method: &str, args: &str) -> Result<String, ServiceError> {
    let args = Json::parse(args).unwrap().to().unwrap();
    let call = ServiceCall::test("keystore", method, args);
    Ok(keystore.call(call).await?.text().to_owned())
}

#[tokio::test]
async fn what_is_set_is_got_listed_and_deleted() {
    let rows = Arc::default();
    let keystore = keystore(&rows, Some(key(1)), vec![]);
    for (method, args, expected) in [
        ("getKey", r#"["K"]"#, "null"),
        ("setKey", r#"["global","K","sk-1"]"#, "true"),
        ("setKey", r#"["openai","O","sk-2"]"#, "true"),
        ("getKey", r#"["K"]"#, r#""sk-1""#),
        ("getKey", r#"["K","default"]"#, r#""sk-1""#),
        ("getKey", r#"["O","openai"]"#, r#""sk-2""#),
        (
            "getKey",
            r#"[{"namespace":"openai","key":"O"}]"#,
            r#""sk-2""#,
        ),
        ("hasKey", r#"["openai","O"]"#, "true"),
        ("hasKey", r#"["openai","K"]"#, "false"),
        ("listKeys", r#"["openai"]"#, r#"["O"]"#),
        ("listKeys", "[]", r#"["K"]"#),
        ("listKeys", r#"[{"namespace":"default"}]"#, r#"["K"]"#),
        ("listNamespaces", "[]", r#"["global","openai"]"#),
        ("setKey", r#"["K"," sk-3\n"]"#, "true"),
        ("getKey", r#"["K"]"#, r#"" sk-3\n""#),
        ("deleteKey", r#"["K"]"#, "true"),
        ("deleteKey", r#"["K"]"#, "false"),
        (
            "getServerTime",
            "[]",
            r#"{"source":"keystore","timestamp":"1970-01-01T00:00:00.000Z"}"#,
        ),
    ] {
        let answer = ask(&keystore, method, args).await.unwrap();
        assert_eq!(answer, expected, "{method} {args}");
    }
    let stored = format!(
        "{:?}",
        rows.0
            .lock()
            .unwrap()
            .values()
            .map(|v| &v.bytes)
            .collect::<Vec<_>>()
    );
    assert!(!stored.contains(&format!("{:?}", b"sk-2")[1..10]));
    assert_eq!(keystore.health().await, Health::Healthy);
}

#[tokio::test]
async fn without_a_master_key_it_answers_what_needs_none() {
    let rows = Arc::default();
    let keystore = keystore(&rows, None, vec![]);
    ask(&keystore, "getServerTime", "[]").await.unwrap();
    ask(&keystore, "listNamespaces", "[]").await.unwrap();
    for (method, args) in [
        ("getKey", r#"["K"]"#),
        ("setKey", r#"["K","v"]"#),
        ("deleteKey", r#"["K"]"#),
        ("hasKey", r#"["K"]"#),
        ("listKeys", "[]"),
    ] {
        let error = ask(&keystore, method, args).await.unwrap_err();
        assert_eq!(error.kind, ServiceErrorType::Configuration, "{method}");
        assert!(error.message.contains("TASKER_MASTER_KEY"), "{method}");
    }
    assert!(matches!(keystore.health().await, Health::Degraded(_)));
}

#[tokio::test]
async fn a_wrong_key_and_a_changed_row_each_have_their_error() {
    let rows: Arc<Rows> = Arc::default();
    let first = keystore(&rows, Some(key(1)), vec![]);
    ask(&first, "setKey", r#"["K","sk-secret"]"#).await.unwrap();
    let second = keystore(&rows, Some(key(2)), vec![]);
    let error = ask(&second, "getKey", r#"["K"]"#).await.unwrap_err();
    assert_eq!(error.code(), "WRONG_MASTER_KEY");
    assert_eq!(error.kind, ServiceErrorType::Configuration);
    for row in rows.0.lock().unwrap().values_mut() {
        *row.bytes.last_mut().unwrap() ^= 1;
    }
    let error = ask(&first, "getKey", r#"["K"]"#).await.unwrap_err();
    assert_eq!(error.code(), "VALUE_TAMPERED");
    assert!(!format!("{error:?}").contains("sk-secret"));
}

#[tokio::test]
async fn rotation_seals_again_and_the_old_key_can_go() {
    let rows = Arc::default();
    let old = keystore(&rows, Some(key(1)), vec![]);
    for name in ["A", "B"] {
        let args = format!(r#"["{name}","v{name}"]"#);
        ask(&old, "setKey", &args).await.unwrap();
    }
    let both = keystore(&rows, Some(key(2)), vec![key(1)]);
    assert_eq!(ask(&both, "getKey", r#"["A"]"#).await.unwrap(), r#""vA""#);
    ask(&both, "setKey", r#"["C","vC"]"#).await.unwrap();
    let rotated = both.rotate().await.unwrap();
    assert_eq!(
        (rotated.resealed, rotated.current, rotated.changed),
        (2, 1, 0)
    );
    assert_eq!(both.rotate().await.unwrap().resealed, 0);
    let new = keystore(&rows, Some(key(2)), vec![]);
    for name in ["A", "B", "C"] {
        let args = format!(r#"["{name}"]"#);
        assert_eq!(
            ask(&new, "getKey", &args).await.unwrap(),
            format!(r#""v{name}""#)
        );
    }
    assert!(ask(&old, "getKey", r#"["A"]"#).await.is_err());
}

#[test]
fn a_master_key_file_that_is_wrong_is_named() {
    let error = Keystore::master_key_from_file("/nowhere/key").unwrap_err();
    assert!(error.message.contains("/nowhere/key"), "{}", error.message);
}
