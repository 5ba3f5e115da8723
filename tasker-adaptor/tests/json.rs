//! JSON text goes through everything that stores it byte for byte.

use proptest::prelude::*;
use tasker_adaptor::{Failure, Json, Outcome, StackStatus};

/// JSON texts with odd spacing, number forms, escapes and repeated keys.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-0".to_owned()),
        Just("1e400".to_owned()),
        Just(r#""\ud800\u0000""#.to_owned()),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |number| number.is_finite())
            .prop_map(|number| format!("{number:?}")),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let space = prop_oneof![Just(""), Just(" "), Just("\n\t")];
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space.clone()).prop_map(
                |(items, space)| format!("[{space}{}]", items.join(&format!("{space},")))
            ),
            (prop::collection::vec((any::<String>(), inner), 0..4), space).prop_map(
                |(members, space)| {
                    let members = members.iter().map(|(name, value)| {
                        let name = serde_json::Value::from(name.as_str());
                        format!("{name}{space}:{value}")
                    });
                    format!("{{{}{space}}}", members.collect::<Vec<_>>().join(","))
                }
            ),
        ]
    })
}

proptest! {
    #[test]
    fn text_survives_parsing_and_being_a_member(text in json_text()) {
        let json = Json::parse(text.clone()).expect("the strategy writes JSON");
        prop_assert_eq!(json.text(), text.as_str());
        let wrapped = serde_json::to_string(&Some(json.clone())).expect("it serializes");
        prop_assert_eq!(&wrapped, &text);
        if text != "null" {
            let back: Option<Json> = serde_json::from_str(&wrapped).expect("it reads back");
            prop_assert_eq!(back, Some(json));
        }
    }

    #[test]
    fn outcomes_survive_their_column(text in json_text(), message in any::<String>(), failed: bool) {
        let json = Json::parse(text).expect("the strategy writes JSON");
        let outcome = if failed {
            Outcome::Failed(Failure {
                // `null` details read back as none: the members that are absent are left out.
                details: Some(json).filter(|json| json.text() != "null"),
                ..Failure::new("Error", message)
            })
        } else {
            Outcome::Completed(Some(json))
        };
        let back = Outcome::from_column(outcome.status(), outcome.to_column());
        prop_assert_eq!(back.expect("it reads back"), outcome);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        for status in StackStatus::ALL {
            drop(Outcome::from_column(*status, text.clone()));
        }
        drop(Json::parse(text));
    }
}
