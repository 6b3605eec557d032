//! The answer document: what it must be, what it does, and who is asked when it cannot be had.

use ringmaster::simulator::{OutcomeMix, SimulatorOptions};
use serde_json::json;

use super::{Answer, Hook, World, fixture_names, names, options, talking};

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one table of documents and what becomes of them"
)]
async fn the_answer_document_decides_what_happens() {
    let world = World::with(options()).await;
    let base = world.receiver.base.clone();
    let json_type = Answer {
        content_type: "application/json",
        ..Answer::xml("")
    };
    let redirect = Answer::xml(&format!("<Redirect>{base}/hangs-up</Redirect>"));
    let redirect_to_error = Answer::xml(&format!("<Redirect>{base}/broken</Redirect>"));
    let redirect_to_itself = Answer::xml(&format!("<Redirect>{base}/self</Redirect>"));
    world
        .receiver
        .answers("/hangs-up", [Answer::xml("<Hangup/>")]);
    world.receiver.answers("/broken", [Answer::status(500)]);
    let cases = [
        (
            "speak",
            Answer::xml("<Speak>Hello</Speak>"),
            (4010, "Plivo"),
        ),
        (
            "play-then-hangup",
            Answer::xml("<Play>https://example.com/a.mp3</Play><Hangup/>"),
            (4000, "Answer XML"),
        ),
        (
            "stream",
            Answer::xml(
                "<Stream bidirectional=\"true\">wss://bot.example.com/ws?a=1&amp;b=2</Stream>",
            ),
            (4000, "Callee"),
        ),
        ("empty", Answer::xml(""), (4010, "Plivo")),
        ("hangup", Answer::xml("<Hangup/>"), (4000, "Answer XML")),
        (
            "rejects",
            Answer::xml("<Hangup reason=\"rejected\"/>"),
            (3020, "Answer XML"),
        ),
        (
            "busy",
            Answer::xml("<Hangup reason=\"busy\"/>"),
            (3010, "Answer XML"),
        ),
        ("error", Answer::status(500), (7011, "Error")),
        ("moved", Answer::status(302), (7011, "Error")),
        ("json", json_type, (8011, "Error")),
        (
            "raw-ampersand",
            Answer::xml("<Stream>wss://bot.example.com/ws?a=1&b=2</Stream>"),
            (8011, "Error"),
        ),
        (
            "unknown-element",
            Answer::xml("<Say>Hello</Say>"),
            (8011, "Error"),
        ),
        (
            "no-body",
            Answer {
                content_type: "text/xml",
                ..Answer::status(200)
            },
            (8011, "Error"),
        ),
        ("redirect", redirect, (4000, "Answer XML")),
        ("redirect-to-error", redirect_to_error, (7014, "Error")),
        ("self", redirect_to_itself, (8014, "Error")),
    ];
    for (path, answer, expected) in cases {
        world.receiver.answers(&format!("/{path}"), [answer]);
        let (code, source, status) = world
            .outcome(json!({"answer_url": format!("{base}/{path}")}))
            .await;
        assert_eq!((code, source), expected, "{path}");
        assert_eq!(status, "completed", "{path}");
    }
    let remark = "content type is not XML";
    assert!(
        world
            .carrier
            .calls()
            .iter()
            .any(|record| record.timeline.iter().any(|moment| moment.event == remark))
    );
}

#[tokio::test]
async fn the_fallback_url_is_asked_when_the_answer_url_fails() {
    let world = World::with(options()).await;
    world.receiver.answers("/answer", [Answer::status(500)]);
    world
        .receiver
        .answers("/fallback", [Answer::xml("<Hangup/>")]);
    let changes = json!({"fallback_url": format!("{}/fallback", world.receiver.base)});
    assert_eq!(
        world.outcome(changes).await,
        (4000, "Answer XML", "completed")
    );
    assert_eq!(world.receiver.at("/fallback")[0].event(), "StartApp");
}

#[tokio::test]
async fn machines_are_detected_beside_the_call_or_before_the_document() {
    let machines = OutcomeMix {
        machine: 1.0,
        ..OutcomeMix::NONE
    };
    let world = World::with(SimulatorOptions {
        outcome_mix: machines,
        ..talking()
    })
    .await;
    let machine_url = format!("{}/machine", world.receiver.base);

    let changes = json!({"machine_detection": "hangup", "machine_detection_url": machine_url});
    assert_eq!(world.outcome(changes).await, (9100, "Plivo", "completed"));
    let hook = &world.receiver.wait_for("/machine", 1).await[0];
    assert!(hook.signed);
    assert_eq!(
        names(hook),
        fixture_names("machine_detection_documented_fields_POST")
            .into_iter()
            .chain(["ParentAuthID".to_owned(), "SessionStart".to_owned()])
            .collect()
    );
    assert_eq!(
        (hook.event().as_str(), hook.params()["IfMachine"].as_str()),
        ("MachineDetection", "hangup")
    );

    let uuid = world
        .dial(json!({"machine_detection": "true", "machine_detection_url": machine_url}))
        .await;
    assert_eq!(
        world.receiver.wait_for("/machine", 2).await[1].params()["IfMachine"],
        "continue"
    );
    assert_eq!(world.record(&uuid).status, "in-progress");

    assert_eq!(
        world.outcome(json!({"machine_detection": "hangup"})).await,
        (9100, "Plivo", "completed")
    );
    let uuid = world.dial(json!({"machine_detection": "true", "answer_url": format!("{}/sync", world.receiver.base)})).await;
    assert_eq!(
        world.receiver.wait_for("/sync", 1).await[0].params()["Machine"],
        "true"
    );
    assert_eq!(world.delete(&format!("Call/{uuid}/")).await, 204);
    world.ended(&uuid).await;
    let told =
        |hook: &Hook| hook.params()["CallUUID"] == uuid && hook.params()["Machine"] == "true";
    assert!(world.receiver.wait_for("/hangup", 3).await.iter().any(told));
}
