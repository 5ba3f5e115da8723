//! Tests of chains that must not become requests. What becomes one is compared with supabase-js in `oracle.rs`.

use tasker_core::service::ServiceErrorType;

use super::*;

fn chain(text: &str) -> Vec<Link> {
    let links: Vec<Vec<Json>> = Json::parse(text).unwrap().to().unwrap();
    let links = links.into_iter().map(|link| {
        let (name, args) = link.split_first().unwrap();
        Link::called(name.to::<String>().unwrap(), args.to_vec())
    });
    links.collect()
}

fn built(text: &str) -> Result<Query, ServiceError> {
    build(&chain(text), "public", &Allowed::default())
}

#[test]
fn values_are_data_whatever_letters_they_hold() {
    let query = built(
        r#"[["from","t"],["select"],["eq","a","a),or(id.gt.0"],["in","b",["x\",(y","\"z"]],["eq","c","%00&d=e"]]"#,
    )
    .unwrap();
    let params: Vec<_> = query.params.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(
        params,
        [
            ("select", "*"),
            ("a", "eq.a),or(id.gt.0"),
            ("b", r#"in.("x\",(y","\"z")"#),
            ("c", "eq.%00&d=e"),
        ]
    );
}

#[test]
fn a_chain_that_is_no_request_is_refused_with_its_code() {
    for (text, code) in [
        ("[]", "INVALID_CHAIN_FORMAT"),
        (r#"[["select","*"]]"#, "INVALID_CHAIN_FORMAT"),
        (r#"[["from","t"]]"#, "INVALID_CHAIN_FORMAT"),
        (r#"[["from","t"],["drop"]]"#, "METHOD_NOT_FOUND"),
        (
            r#"[["from","t"],["select"],["constructor"]]"#,
            "METHOD_NOT_FOUND",
        ),
        (r#"[["from","t"],["select"],["then"]]"#, "METHOD_NOT_FOUND"),
        (r#"[["from","../rpc/x"],["select"]]"#, "VALIDATION_ERROR"),
        (r#"[["from",".."],["select"]]"#, "VALIDATION_ERROR"),
        (r#"[["from",""],["select"]]"#, "VALIDATION_ERROR"),
        (r#"[["rpc","a/b"]]"#, "VALIDATION_ERROR"),
        (
            r#"[["from","t"],["select"],["eq","a"]]"#,
            "VALIDATION_ERROR",
        ),
        (
            r#"[["from","t"],["select"],["eq","a",{"b":1}]]"#,
            "VALIDATION_ERROR",
        ),
        (
            r#"[["from","t"],["select"],["in","a","b"]]"#,
            "VALIDATION_ERROR",
        ),
        (
            r#"[["from","t"],["select"],["limit","b"]]"#,
            "VALIDATION_ERROR",
        ),
        (
            r#"[["from","t"],["select"],["eq","select","*"]]"#,
            "VALIDATION_ERROR",
        ),
        (
            r#"[["from","t"],["select","*",{"count":"all"}]]"#,
            "VALIDATION_ERROR",
        ),
        (r#"[["from","t"],["insert",[1]]]"#, "VALIDATION_ERROR"),
        (r#"[["from","t"],["insert"]]"#, "VALIDATION_ERROR"),
    ] {
        let error = built(text).unwrap_err();
        assert_eq!(error.code(), code, "{text}: {error}");
    }
    let through = [Link::through("from"), Link::called("select", vec![])];
    let error = build(&through, "public", &Allowed::default()).unwrap_err();
    assert_eq!(error.code(), "INVALID_CHAIN_FORMAT");
}

#[test]
fn what_is_not_on_the_lists_is_refused_also_when_it_is_embedded() {
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let allowed = Allowed {
        tables: list(&["posts", "authors"]),
        functions: list(&["add"]),
        operations: list(&["select", "rpc"]),
        schemas: list(&["shop"]),
    };
    for (text, good) in [
        (r#"[["from","posts"],["select","*"]]"#, true),
        (
            r#"[["from","posts"],["select","id,n.sum(),count(),writer:authors!inner(name)"]]"#,
            true,
        ),
        (r#"[["from","posts"],["select","...authors(name)"]]"#, true),
        (r#"[["schema","shop"],["from","posts"],["select"]]"#, true),
        (r#"[["schema","public"],["from","posts"],["select"]]"#, true),
        (r#"[["rpc","add",{"a":1}]]"#, true),
        (r#"[["from","secrets"],["select","*"]]"#, false),
        (r#"[["from","posts"],["select","*,secrets(*)"]]"#, false),
        (
            r#"[["from","posts"],["select","*,a:secrets!inner(*)"]]"#,
            false,
        ),
        (r#"[["from","posts"],["select","*,\"secrets\"(*)"]]"#, false),
        (r#"[["from","posts"],["select","...secrets(*)"]]"#, false),
        (
            r#"[["from","posts"],["select","authors(secrets())"]]"#,
            false,
        ),
        (r#"[["from","posts"],["insert",{"a":1}]]"#, false),
        (r#"[["from","posts"],["delete"]]"#, false),
        (r#"[["rpc","drop_all"]]"#, false),
        (r#"[["rpc","add"],["select","secrets(*)"]]"#, false),
        (r#"[["schema","auth"],["from","posts"],["select"]]"#, false),
    ] {
        match build(&chain(text), "public", &allowed) {
            Ok(_) => assert!(good, "{text}"),
            Err(error) => {
                assert!(!good, "{text}: {error}");
                assert_eq!(
                    error.kind,
                    ServiceErrorType::Authorization,
                    "{text}: {error}"
                );
            }
        }
    }
}
