//! A service without its credentials says which key to set and how, whatever became of the keystore.

use std::sync::Arc;

use tasker_core::service::{
    Link, ServiceCall, ServiceError, ServiceErrorType, ServiceProxy, Services, service_fn,
};
use tasker_core::{Json, MemoryStorage};

use crate::gapi::{Gapi, GapiOptions};
use crate::http_client::HttpOptions;
use crate::keystore::Keystore;
use crate::openai::{OpenAi, OpenAiOptions};
use crate::supabase::{Supabase, SupabaseOptions};
use crate::websearch::{GoogleSearch, GoogleSearchOptions, WebSearch};

type MaybeKeystore = Option<Arc<dyn ServiceProxy>>;

/// Nobody listens there; nothing must be sent either.
const NOWHERE: &str = "http://127.0.0.1:9";

fn proxies() -> [Arc<dyn ServiceProxy>; 4] {
    let openai = OpenAiOptions {
        base_url: NOWHERE.to_owned(),
        ..OpenAiOptions::default()
    };
    let search = GoogleSearchOptions {
        url: NOWHERE.to_owned(),
        ..GoogleSearchOptions::default()
    };
    let gapi = GapiOptions {
        root_url: Some(NOWHERE.to_owned()),
        http: HttpOptions::default(),
        ..GapiOptions::default()
    };
    [
        Arc::new(OpenAi::new(openai).unwrap()),
        Arc::new(Supabase::new(SupabaseOptions::new(NOWHERE)).unwrap()),
        Arc::new(Gapi::new(gapi).unwrap()),
        Arc::new(WebSearch::new(GoogleSearch::new(search).unwrap())),
    ]
}

fn with(keystore: MaybeKeystore) -> Services {
    let mut services = Services::builder();
    for proxy in proxies() {
        services = services.add(proxy);
    }
    if let Some(keystore) = keystore {
        services = services.add_private(keystore);
    }
    services.build().unwrap()
}

async fn refused(services: &Services, service: &str, method: &str, args: &str) -> ServiceError {
    let links = if method == "from" {
        let table = Json::from("t").unwrap();
        vec![
            Link::called("from", vec![table]),
            Link::called("select", vec![]),
        ]
    } else {
        let args = Json::parse(args).unwrap().to().unwrap();
        ServiceCall::test(service, method, args).chain.to_vec()
    };
    services.call_chain(service, links).await.unwrap_err()
}

#[tokio::test]
async fn missing_credentials_name_the_key_and_the_two_ways_to_set_it() {
    let memory = || Arc::new(MemoryStorage::new());
    let master = crate::keystore::MasterKey::from_bytes(&[7; 32]);
    let empty = Keystore::new(memory(), Some(master), Vec::new());
    let locked = Keystore::new(memory(), None, Vec::new());
    let blank = service_fn("keystore", async |_| {
        Json::from("  ").map_err(ServiceError::internal)
    });
    let keystores: [(&str, MaybeKeystore, &str); 4] = [
        ("no keystore", None, "there is no keystore"),
        ("an empty one", Some(Arc::new(empty)), ""),
        (
            "one without a master key",
            Some(Arc::new(locked)),
            "TASKER_MASTER_KEY",
        ),
        ("one with a blank value", Some(Arc::new(blank)), ""),
    ];
    for (what, keystore, said) in keystores {
        let services = with(keystore);
        for (service, method, args, key) in [
            ("openai", "models.list", "[]", "OPENAI_API_KEY"),
            (
                "openai",
                "chat.completions.create",
                "[{}]",
                "OPENAI_API_KEY",
            ),
            ("supabase", "from", "[]", "SUPABASE_SERVICE_ROLE_KEY"),
            ("gapi", "drive.files.list", "[]", "GAPI_KEY"),
            ("gapi", "checkCredentials", "[]", "GAPI_KEY"),
            ("websearch", "search", r#"["x"]"#, "WEBSEARCH_API_KEY"),
        ] {
            let error = refused(&services, service, method, args).await;
            let text = &error.message;
            assert_eq!(
                (error.kind, error.code()),
                (ServiceErrorType::Configuration, "MISSING_CREDENTIALS"),
                "{what}: {service}: {error}"
            );
            let by_environment = format!("set the environment variable {key}");
            let by_keystore = format!("setKey(\"global\", \"{key}\"");
            assert!(text.starts_with(service), "{what}: {text}");
            assert!(text.contains(&by_environment), "{what}: {text}");
            assert!(text.contains(&by_keystore), "{what}: {text}");
            assert!(text.contains(said), "{what}: {text}");
        }
    }
}

#[tokio::test]
async fn a_keystore_without_a_master_key_says_how_to_give_it_one() {
    let keystore = Keystore::new(Arc::new(MemoryStorage::new()), None, Vec::new());
    let services = Services::builder().add(keystore).build().unwrap();
    for (method, args) in [
        ("getKey", r#"["a"]"#),
        ("setKey", r#"["global","a","b"]"#),
        ("hasKey", r#"["a"]"#),
        ("listKeys", "[]"),
        ("deleteKey", r#"["a"]"#),
    ] {
        let error = refused(&services, "keystore", method, args).await;
        assert_eq!(error.kind, ServiceErrorType::Configuration, "{method}");
        assert!(error.message.contains("TASKER_MASTER_KEY"), "{error}");
        assert!(error.message.contains("openssl rand"), "{error}");
    }
}
