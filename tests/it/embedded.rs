//! The embedded MongoDB: it can be written to, keeps its data, and never outlives its owner.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use mongodb::bson::{Document, doc};
use ringmaster::services::store::embedded::{EmbeddedError, EmbeddedMongo, initiate};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::helpers::mongod::{client, data_dir, fresh_database, mongod};

async fn insert_one(uri: &str, database: &str) {
    let client = client(uri).await;
    client
        .database(database)
        .collection::<Document>("things")
        .insert_one(doc! { "a": 1 })
        .await
        .unwrap();
    client.shutdown().immediate(true).await;
}

async fn count(uri: &str, database: &str) -> u64 {
    let client = client(uri).await;
    let things = client.database(database).collection::<Document>("things");
    let count = things.count_documents(doc! {}).await.unwrap();
    client.shutdown().immediate(true).await;
    count
}

/// Waits until nothing listens on the port any more.
async fn gone(port: u16) {
    let closed = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(15), closed)
        .await
        .expect("the server is still there");
}

#[tokio::test]
async fn keeps_its_data_over_a_restart_on_another_port() {
    let (mongod, folder) = (mongod(), data_dir());

    let first = EmbeddedMongo::start(&mongod, &folder).await.unwrap();
    insert_one(&first.uri(), "kept").await;
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let port = first.port();
    first.stop().await.unwrap();
    gone(port).await;

    let second = EmbeddedMongo::start(&mongod, &folder).await.unwrap();
    assert_ne!(second.port(), port);
    assert_eq!(count(&second.uri(), "kept").await, 1);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn ends_with_its_owner_and_waits_for_its_predecessor() {
    let (mongod, folder) = (mongod(), data_dir());
    let first = EmbeddedMongo::start(&mongod, &folder).await.unwrap();
    let port = first.port();
    // What the kernel does for a killed process: the pipe to the watchdog closes, and nobody waits for the server.
    drop(first);
    let second = EmbeddedMongo::start(&mongod, &folder).await.unwrap();
    gone(port).await;
    insert_one(&second.uri(), "after").await;
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_start_says_what_the_server_said() {
    let error = EmbeddedMongo::start(Path::new("/nonexistent/mongod"), &data_dir())
        .await
        .unwrap_err();
    assert!(matches!(error, EmbeddedError::Exited { .. }), "{error:?}");
    assert!(error.to_string().contains("its log says:"), "{error}");

    let error = EmbeddedMongo::start_with(&mongod(), &data_dir(), &["noSuchParameter=1"])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("noSuchParameter"), "{error}");
}

#[tokio::test]
async fn initiating_again_and_at_once_is_harmless() {
    let database = fresh_database("initiate").await;
    let address = url::Url::parse(&database.uri).unwrap();
    let port = address.port().unwrap();
    let (one, two, three) = tokio::join!(initiate(port), initiate(port), initiate(port));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
}

#[tokio::test]
async fn a_test_database_is_dropped_at_the_end() {
    let database = fresh_database("drop").await;
    let (uri, name) = (database.uri.clone(), database.name.clone());
    insert_one(&uri, &name).await;
    assert_eq!(count(&uri, &name).await, 1);
    drop(database);
    assert_eq!(count(&uri, &name).await, 0);
}
