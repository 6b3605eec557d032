//! Contact lists: imports that keep the good rows and say why not the others, and leave nothing behind when they fail.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::helpers::app::until;
use crate::helpers::edge::{ADMIN, Answer, Edge, send};

fn form(name: &'static str, file: impl Into<Vec<u8>>) -> Form {
    Form::new()
        .text("name", name)
        .part("file", Part::bytes(file.into()).file_name("contacts.csv"))
}

async fn upload(edge: &Edge, key: &str, form: Form) -> Answer {
    send(edge.request(Method::POST, key, "/v1/lists").multipart(form)).await
}

async fn nothing_is_left(edge: &Edge) -> bool {
    edge.count("plivo-list").await == 0
        && edge.count("plivo-list-data").await == 0
        && edge.count("listRejects").await == 0
}

fn path(list: &Value) -> String {
    format!("/v1/lists/{}", list["id"].as_str().unwrap())
}

#[tokio::test]
async fn good_rows_are_kept_in_order_and_the_others_reported() {
    let edge = Edge::start("lists-csv").await;
    let (client, key) = edge.tenant("Acme").await;
    let file = "\u{feff}Mobile,first_name,timezone,city\r\n\
        +91 98123 45678,Asha,Asia/Kolkata,\"New\r\nDelhi\"\r\n\
        098765 43210,Ravi,,\r\n\
        12,Short,,\r\n\
        00919812345678,Asha again,,\r\n\
        +14155550101,Ann,Mars/Crater,\r\n\
        +14155550102,Bob\r\n\
        +14155550103,Cid,,Oakland";
    let form = Form::new()
        .text("defaultCountry", "IN")
        .text("name", " May ");
    let form = form.part(
        "file",
        Part::bytes(file.as_bytes().to_vec()).file_name("x.csv"),
    );
    let list = upload(&edge, &key, form).await.expect(201);
    assert_eq!(
        list,
        json!({
            "id": list["id"], "clientId": client, "name": "May", "status": "ready",
            "total": 7, "accepted": 3, "duplicates": 1, "rejected": 3,
            "errors": [
                {"line": 5, "column": "Mobile", "reason": list["errors"][0]["reason"]},
                {"line": 7, "column": "timezone", "reason": "not an IANA time zone, for example Asia/Kolkata"},
                {"line": 8, "column": null, "reason": "too few cells: 2 instead of 4"},
            ],
            "defaultCountry": "IN", "columns": ["firstName", "city"], "createdAt": list["createdAt"],
        })
    );
    assert_eq!(edge.get(&key, &path(&list)).await.expect(200), list);

    let contacts = edge
        .get(&key, &format!("{}/contacts", path(&list)))
        .await
        .expect(200);
    let numbers: Vec<_> = contacts["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|contact| &contact["number"])
        .collect();
    assert_eq!(numbers, ["+919812345678", "+919876543210", "+14155550103"]);
    assert_eq!(contacts["items"][0]["timeZone"], "Asia/Kolkata");
    assert_eq!(contacts["items"][0]["fields"]["city"], "New\r\nDelhi");

    let rejected = edge
        .get(&key, &format!("{}/rejected.csv", path(&list)))
        .await;
    assert_eq!(
        (rejected.status, rejected.header("content-type")),
        (200, Some("text/csv; charset=utf-8"))
    );
    assert_eq!(rejected.text.lines().count(), 4);
    assert!(rejected.text.contains("\n8,,too few cells"));
}

#[tokio::test]
async fn a_large_list_is_dense_pages_well_and_is_cut_in_its_report() {
    let edge = Edge::start("lists-large").await;
    let (_, key) = edge.tenant("Acme").await;
    let mut file = "number,name\n".to_owned();
    for row in 0..12_000 {
        file.push_str(&format!("+1415{:07},Name {row}\n", 2_000_000 + row));
        if row < 10_500 {
            file.push_str("bad,x\n");
        }
    }
    let list = upload(&edge, &key, form("Large", file)).await.expect(201);
    assert_eq!(
        (&list["accepted"], &list["rejected"], &list["total"]),
        (&json!(12_000), &json!(10_500), &json!(22_500))
    );
    assert_eq!(list["errors"].as_array().unwrap().len(), 100);
    let rejected = edge
        .get(&key, &format!("{}/rejected.csv", path(&list)))
        .await
        .text;
    assert_eq!(rejected.lines().count(), 1 + 10_000 + 1);
    assert!(
        rejected
            .trim_end()
            .ends_with(",,500 further rejected rows were not kept")
    );

    let (mut seqs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = edge
            .get(&key, &format!("{}/contacts?limit=500{cursor}", path(&list)))
            .await
            .expect(200);
        seqs.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|contact| contact["seq"].as_u64().unwrap()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(seqs.iter().copied().eq(0..12_000));
}

#[tokio::test]
async fn json_lists_follow_the_same_rules() {
    let edge = Edge::start("lists-json").await;
    let (client, key) = edge.tenant("Acme").await;
    let body = json!({
        "name": "JSON", "defaultCountry": "IN",
        "contacts": [
            {"number": "098123 45678", "firstName": "Asha", "tag": "vip", "fields": {"city": "Pune"}},
            {"number": "x"},
            {"number": "+919812345678"},
            {"number": "+14155550101", "timeZone": "nowhere"},
        ],
    });
    let list = edge.post(&key, "/v1/lists", &body).await.expect(201);
    assert_eq!(
        (&list["accepted"], &list["duplicates"], &list["rejected"]),
        (&json!(1), &json!(1), &json!(2))
    );
    assert_eq!(
        (&list["errors"][0]["line"], &list["errors"][1]["column"]),
        (&json!(2), &json!("timeZone"))
    );
    assert_eq!(list["columns"], json!(["city", "firstName", "tag"]));

    for (change, fault) in [
        (
            json!({"contacts": [{"number": "+14155550101", "phone": "x"}]}),
            "contacts[0].phone",
        ),
        (json!({"contacts": [{}]}), "contacts[0].number"),
        (json!({"contacts": {}}), "contacts"),
        (json!({"name": ""}), "name"),
        (json!({"defaultCountry": "XX"}), "defaultCountry"),
        (json!({"extra": 1}), "extra"),
    ] {
        let mut wrong = body.clone();
        wrong
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let problem = edge
            .post(&key, "/v1/lists", &wrong)
            .await
            .problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], fault, "{change}");
    }
    let empty = json!({"name": "x", "contacts": []});
    edge.post(&key, "/v1/lists", &empty)
        .await
        .problem(422, "empty_list");

    let mut for_client = body.clone();
    let missing = edge
        .post(ADMIN, "/v1/lists", &body)
        .await
        .problem(422, "invalid");
    assert_eq!(missing["errors"][0]["path"], "clientId");
    for_client["clientId"] = json!(client);
    let of_admin = edge.post(ADMIN, "/v1/lists", &for_client).await.expect(201);
    assert_eq!(of_admin["clientId"], client);
    for_client["clientId"] = json!("0123456789abcdef01234567");
    edge.post(ADMIN, "/v1/lists", &for_client)
        .await
        .problem(422, "invalid");
    edge.post(&key, "/v1/lists", &for_client)
        .await
        .problem(404, "not_found");
    assert_eq!(edge.count("plivo-list").await, 2);
}

#[tokio::test]
async fn files_that_cannot_be_lists_leave_nothing() {
    let edge = Edge::start("lists-refused").await;
    let (_, key) = edge.tenant("Acme").await;
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    let utf16 = "number\n+14155550101\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let late = [
        b"number\n".to_vec(),
        b"+14155550101\n".repeat(3000),
        b"caf\xe9\n".to_vec(),
    ]
    .concat();
    for (file, code, line) in [
        (Vec::new(), "empty_list", None),
        (b"number,name\n".to_vec(), "empty_list", None),
        (b"name,city\nAnn,Pune\n".to_vec(), "bad_header", Some(1)),
        (b"number,phone\n1,2\n".to_vec(), "bad_header", Some(1)),
        (b"number\nx\ny\n".to_vec(), "no_valid_rows", Some(2)),
        (b"PK\x03\x04 a spreadsheet".to_vec(), "not_csv", None),
        (png, "not_csv", None),
        (utf16, "not_csv", None),
        (late, "not_csv", Some(3002)),
        (
            b"number,name\n+14155550101,\"open\n".to_vec(),
            "not_csv",
            Some(2),
        ),
    ] {
        let problem = upload(&edge, &key, form("x", file))
            .await
            .problem(422, code);
        assert_eq!(
            problem["errors"][0].get("line").and_then(Value::as_u64),
            line,
            "{problem}"
        );
        assert!(nothing_is_left(&edge).await, "{code}");
    }
}

#[tokio::test]
async fn forms_that_are_wrong_are_told_by_their_part() {
    let edge = Edge::start("lists-forms").await;
    let (_, key) = edge.tenant("Acme").await;
    let file = || Part::bytes(b"number\n+14155550101\n".to_vec()).file_name("x.csv");
    for (form, part) in [
        (Form::new().text("name", "x"), "file"),
        (Form::new().part("file", file()), "name"),
        (Form::new().text("name", " ").part("file", file()), "name"),
        (
            Form::new()
                .text("name", "x")
                .text("name", "y")
                .part("file", file()),
            "name",
        ),
        (
            Form::new()
                .text("name", "x")
                .text("listName", "y")
                .part("file", file()),
            "listName",
        ),
        (
            Form::new()
                .text("name", "x")
                .text("defaultCountry", "ZZ")
                .part("file", file()),
            "defaultCountry",
        ),
        (
            Form::new()
                .text("name", "x")
                .text("clientId", "me")
                .part("file", file()),
            "clientId",
        ),
        (
            Form::new()
                .text("name", "x".repeat(5000))
                .part("file", file()),
            "name",
        ),
    ] {
        let problem = upload(&edge, &key, form).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], part, "{problem}");
    }
    assert!(nothing_is_left(&edge).await);
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let edge = Edge::start("lists-no-form").await;
    let (_, key) = edge.tenant("Acme").await;
    let text = edge
        .request(Method::POST, &key, "/v1/lists")
        .header("content-type", "text/csv");
    send(text.body("number\n"))
        .await
        .problem(415, "unsupported_media_type");
    let bare = edge
        .request(Method::POST, &key, "/v1/lists")
        .header("content-type", "multipart/form-data");
    send(bare.body("x")).await.problem(400, "invalid_form");
    assert!(nothing_is_left(&edge).await);
}

#[tokio::test]
async fn a_part_that_comes_too_late_or_twice_is_told() {
    let edge = Edge::start("lists-behind").await;
    let (_, key) = edge.tenant("Acme").await;
    let file = || Part::bytes(b"number\n+14155550101\n".to_vec()).file_name("x.csv");
    for (form, part) in [
        (Form::new().part("file", file()).text("name", " "), "name"),
        (
            Form::new()
                .text("name", "x")
                .part("file", file())
                .text("name", "y"),
            "name",
        ),
        (
            Form::new()
                .part("file", file())
                .text("name", "x")
                .text("clientId", "0123456789abcdef01234567"),
            "clientId",
        ),
        (
            Form::new()
                .text("name", "x")
                .part("file", file())
                .text("defaultCountry", "IN"),
            "defaultCountry",
        ),
        (
            Form::new()
                .text("name", "x")
                .part("file", file())
                .part("file", file()),
            "file",
        ),
    ] {
        let problem = upload(&edge, &key, form).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], part, "{problem}");
    }
    assert!(nothing_is_left(&edge).await);
}

#[tokio::test]
async fn a_name_may_come_behind_the_file_and_a_country_in_the_query() {
    let edge = Edge::start("lists-late").await;
    let (client, key) = edge.tenant("Acme").await;
    let file = Part::bytes(b"number\n098123 45678\n".to_vec()).file_name("x.csv");
    let form = Form::new().part("file", file).text("name", " May ");
    let request = edge.request(Method::POST, &key, "/v1/lists?defaultCountry=IN");
    let list = send(request.multipart(form)).await.expect(201);
    assert_eq!(
        (&list["name"], &list["accepted"], &list["defaultCountry"]),
        (&json!("May"), &json!(1), &json!("IN"))
    );
    assert_eq!(edge.get(&key, &path(&list)).await.expect(200), list);
    let body = json!({"name": "JSON", "contacts": [{"number": "098123 45678"}]});
    let query = format!("/v1/lists?defaultCountry=IN&clientId={client}");
    edge.post(ADMIN, &query, &body).await.expect(201);
}

/// Sends the head of an upload and some of its rows, and no end.
async fn half_an_upload(edge: &Edge, key: &str, rows: usize) -> TcpStream {
    let begin = "--cut\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nHalf\r\n\
        --cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.csv\"\r\n\r\nnumber\r\n";
    let rows: String = (0..rows)
        .map(|row| format!("+1415{:07}\r\n", 2_000_000 + row))
        .collect();
    let head = format!(
        "POST /v1/lists HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {key}\r\n\
        content-type: multipart/form-data; boundary=cut\r\ncontent-length: 100000000\r\n\r\n"
    );
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(format!("{head}{begin}{rows}").as_bytes())
        .await
        .unwrap();
    stream
}

#[tokio::test]
async fn a_half_sent_upload_is_never_usable_and_leaves_nothing() {
    let edge = Edge::start("lists-half").await;
    let (_, key) = edge.tenant("Acme").await;
    let stream = half_an_upload(&edge, &key, 5000).await;
    until("some of it is written", async || {
        edge.count("plivo-list-data").await >= 1000
    })
    .await;
    let lists = edge.get(&key, "/v1/lists").await.expect(200);
    let list = &lists["items"][0];
    assert_eq!(
        (&list["status"], &list["accepted"]),
        (&json!("importing"), &json!(0))
    );
    edge.delete(&key, &path(list))
        .await
        .problem(409, "list_not_ready");
    edge.get(&key, &format!("{}/contacts", path(list)))
        .await
        .problem(409, "list_not_ready");
    let campaign = json!({
        "campaignName": "Early", "listId": list["id"], "fromNumber": "+12025550100",
        "answer": {"type": "speak", "text": "Hello"},
    });
    let problem = edge
        .post(&key, "/v1/campaigns", &campaign)
        .await
        .problem(409, "list_not_ready");
    assert_eq!(problem["errors"][0]["path"], "listId");
    assert_eq!(edge.count("plivoCampaign").await, 0);
    drop(stream);
    until("nothing is left", async || nothing_is_left(&edge).await).await;
}

#[tokio::test]
async fn an_upload_whose_form_ends_early_is_told_so() {
    let edge = Edge::start("lists-short").await;
    let (_, key) = edge.tenant("Acme").await;
    let body = "--cut\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nx\r\n\
        --cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x.csv\"\r\n\r\nnumber\r\n+14155550101\r\n";
    let request = edge.request(Method::POST, &key, "/v1/lists");
    let request = request.header("content-type", "multipart/form-data; boundary=cut");
    send(request.body(body))
        .await
        .problem(400, "upload_incomplete");
    assert!(nothing_is_left(&edge).await);
}

#[tokio::test]
async fn a_stopping_process_gives_up_its_imports_cleanly() {
    let edge = Edge::start("lists-stopping").await;
    let (_, key) = edge.tenant("Acme").await;
    let mut stream = half_an_upload(&edge, &key, 3000).await;
    until("some of it is written", async || {
        edge.count("plivo-list-data").await >= 1000
    })
    .await;
    edge.state.lifecycle.stop();
    until("nothing is left", async || nothing_is_left(&edge).await).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[tokio::test]
async fn what_a_dead_process_left_is_swept_and_what_lives_is_not() {
    let edge = Edge::start("lists-sweep").await;
    let (client, key) = edge.tenant("Acme").await;
    let ready = upload(&edge, &key, form("Ready", "number\n+14155550101\n"))
        .await
        .expect(201);
    let lists = edge.database.collection::<Document>("plivo-list");
    let contacts = edge.database.collection::<Document>("plivo-list-data");
    let leave = async |status: &str, minutes: i64| {
        let id = ObjectId::new();
        let updated = DateTime::from_millis(DateTime::now().timestamp_millis() - minutes * 60_000);
        let client = ObjectId::parse_str(&client).unwrap();
        let list = doc! { "_id": id, "clientId": client, "name": "x", "status": status, "updatedAt": updated };
        lists.insert_one(list).await.unwrap();
        let contact = doc! { "_id": { "l": id, "s": 0_i64 }, "number": "+14155550101" };
        contacts.insert_one(contact).await.unwrap();
    };
    leave("importing", 11).await;
    leave("deleting", 11).await;
    leave("importing", 9).await;
    assert_eq!(edge.state.imports.sweep_stale().await.unwrap(), 2);
    assert_eq!(edge.state.imports.sweep_stale().await.unwrap(), 0);
    assert_eq!(
        (
            edge.count("plivo-list").await,
            edge.count("plivo-list-data").await
        ),
        (2, 2)
    );
    edge.get(&key, &path(&ready)).await.expect(200);
}

#[tokio::test]
async fn an_import_that_was_taken_for_dead_stops_and_leaves_nothing() {
    let edge = Edge::start("lists-taken").await;
    let (_, key) = edge.tenant("Acme").await;
    let mut stream = half_an_upload(&edge, &key, 3000).await;
    until("some of it is written", async || {
        edge.count("plivo-list-data").await >= 1000
    })
    .await;
    let lists = edge.database.collection::<Document>("plivo-list");
    let long_ago = doc! { "$set": { "updatedAt": DateTime::from_millis(0) } };
    lists.update_one(doc! {}, long_ago).await.unwrap();
    assert_eq!(edge.state.imports.sweep_stale().await.unwrap(), 1);
    stream
        .write_all(b"+14155550101\r\n--cut--\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    until("nothing is left", async || nothing_is_left(&edge).await).await;
}

#[tokio::test]
async fn deleting_is_refused_while_a_campaign_needs_the_list() {
    let edge = Edge::start("lists-delete").await;
    let (_, key) = edge.tenant("Acme").await;
    let list = upload(&edge, &key, form("May", "number\n+14155550101\nx\n"))
        .await
        .expect(201);
    let id = ObjectId::parse_str(list["id"].as_str().unwrap()).unwrap();
    let campaigns = edge.database.collection::<Document>("plivoCampaign");
    for list_id in [doc! { "listId": id }, doc! { "listId": id.to_hex() }] {
        for status in ["scheduled", "running", "paused"] {
            let mut campaign = list_id.clone();
            campaign.insert("status", status);
            campaigns.insert_one(campaign).await.unwrap();
            edge.delete(&key, &path(&list))
                .await
                .problem(409, "list_in_use");
            campaigns.delete_many(doc! {}).await.unwrap();
        }
    }
    assert_eq!(
        edge.get(&key, &path(&list)).await.expect(200)["status"],
        "ready"
    );
    campaigns
        .insert_one(doc! { "listId": id, "status": "completed" })
        .await
        .unwrap();
    assert_eq!(edge.delete(&key, &path(&list)).await.status, 204);
    edge.get(&key, &path(&list)).await.problem(404, "not_found");
    edge.delete(&key, &path(&list))
        .await
        .problem(404, "not_found");
    until("nothing is left", async || nothing_is_left(&edge).await).await;
}

#[tokio::test]
async fn clients_see_their_own_lists_and_viewers_no_numbers() {
    let edge = Edge::start("lists-tenants").await;
    let (client, key) = edge.tenant("Acme").await;
    let (viewer, _) = edge.key(&client, "viewer").await;
    let (other_client, other) = edge.tenant("Other").await;
    let list = upload(&edge, &key, form("May", "number\n+14155550101\nx\n"))
        .await
        .expect(201);
    let of = |part: &str| format!("{}{part}", path(&list));
    for part in ["", "/contacts", "/rejected.csv"] {
        edge.get(&other, &of(part)).await.problem(404, "not_found");
        assert_eq!(edge.get(ADMIN, &of(part)).await.status, 200);
    }
    edge.delete(&other, &of("")).await.problem(404, "not_found");
    edge.delete(&viewer, &of(""))
        .await
        .problem(403, "forbidden");
    let ids = async |key: &str, query: &str| {
        let page = edge
            .get(key, &format!("/v1/lists{query}"))
            .await
            .expect(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(
        (
            ids(&key, "").await,
            ids(&other, "").await,
            ids(ADMIN, "").await
        ),
        (1, 0, 1)
    );
    assert_eq!(ids(ADMIN, &format!("?clientId={other_client}")).await, 0);
    assert_eq!(ids(&viewer, &format!("?clientId={client}")).await, 1);
    edge.get(&other, &format!("/v1/lists?clientId={client}"))
        .await
        .problem(404, "not_found");

    let number = async |key: &str| {
        edge.get(key, &of("/contacts")).await.expect(200)["items"][0]["number"].clone()
    };
    assert_eq!(number(&key).await, "+14155550101");
    assert_eq!(number(&viewer).await, "+*******0101");
}

#[tokio::test]
async fn slow_uploads_hold_nobody_up_until_there_are_too_many() {
    let edge = Edge::start("lists-busy").await;
    let (_, key) = edge.tenant("Acme").await;
    let mut slow = Vec::new();
    for _ in 0..31 {
        slow.push(half_an_upload(&edge, &key, 10).await);
    }
    until("they run", async || edge.count("plivo-list").await == 31).await;
    let quick = upload(&edge, &key, form("Quick", "number\n+14155550101\n")).await;
    quick.expect(201);
    slow.push(half_an_upload(&edge, &key, 10).await);
    until("all run", async || edge.count("plivo-list").await == 33).await;
    let refused = upload(&edge, &key, form("More", "number\n+14155550101\n")).await;
    assert_eq!(refused.header("retry-after"), Some("15"));
    refused.problem(429, "too_many_requests");
    drop(slow);
    until("there is room again", async || {
        upload(&edge, &key, form("Third", "number\n+14155550101\n"))
            .await
            .status
            == 201
    })
    .await;
}
