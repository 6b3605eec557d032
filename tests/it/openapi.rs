//! The API's document is part of the contract: a change of it must be looked at. `INSTA_UPDATE=always cargo test --test it openapi`
//! takes the new one over.

use ringmaster::routes::document;

use crate::helpers::edge::Edge;

#[test]
fn the_document_is_what_was_agreed() {
    let document = serde_json::to_value(document()).unwrap();
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../data", omit_expression => true }, {
        insta::assert_json_snapshot!("openapi", document, { ".info.version" => "[version]" });
    });
}

#[test]
fn every_operation_says_who_may_and_what_can_go_wrong() {
    let document = serde_json::to_value(document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|summary| !summary.is_empty()),
                "{what}"
            );
            assert!(
                operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.len() == 1),
                "{what}"
            );
            let is_guarded = operation["security"]
                .as_array()
                .is_some_and(|security| !security.is_empty());
            assert_eq!(is_guarded, path.starts_with("/v1/"), "{what}");
            let answers = operation["responses"].as_object().unwrap();
            let tag = &operation["tags"][0];
            let tags = document["tags"].as_array().unwrap();
            assert!(
                tags.iter()
                    .any(|known| known["name"] == *tag && known["description"].is_string()),
                "{what}: {tag}"
            );
            let parameters = operation["parameters"].as_array();
            let has = |name: &str| {
                parameters.is_some_and(|all| all.iter().any(|known| known["name"] == name))
            };
            if method == "post" && answers.contains_key("201") {
                assert!(has("Idempotency-Key"), "{what}");
                assert!(answers.contains_key("409"), "{what}");
            }
            if has("clientId") || ["post /v1/campaigns", "post /v1/calls"].contains(&&*what) {
                assert!(answers.contains_key("404"), "{what}");
            }
            assert!(
                answers.keys().any(|status| status.starts_with('2')),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_and_its_pages_are_served() {
    let edge = Edge::start("openapi").await;
    let served = edge.get("", "/api-docs/openapi.json").await.expect(200);
    assert_eq!(served, serde_json::to_value(document()).unwrap());
    let create = &served["paths"]["/v1/lists"]["post"];
    for status in [
        "201", "400", "401", "403", "413", "415", "422", "429", "500", "503",
    ] {
        assert!(create["responses"][status].is_object(), "{status}");
    }
    assert!(create["requestBody"]["content"]["multipart/form-data"].is_object());
    assert!(create["security"][0]["bearer"].is_array());
    let page = edge.get("", "/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger-ui"));
    assert!(
        !page.text.contains("<script>"),
        "the policy forbids inline scripts"
    );
}
