//! A name server that lies, and a public server that sends us on to a private one.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const PUBLIC: [u8; 4] = [8, 8, 8, 8];
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// What is answered to each question in turn; the last answer stays.
enum Answer {
    Ips(Vec<IpAddr>),
    Fails(Refusal),
    Never,
}

struct NameServer {
    answers: Mutex<VecDeque<Answer>>,
    asked: AtomicUsize,
}

impl Resolve for NameServer {
    fn resolve(&self, _: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            1 => match &answers[0] {
                Answer::Ips(ips) => Answer::Ips(ips.clone()),
                Answer::Fails(refusal) => Answer::Fails(*refusal),
                Answer::Never => Answer::Never,
            },
            _ => answers.pop_front().unwrap(),
        };
        Box::pin(async move {
            match answer {
                Answer::Ips(ips) => {
                    Ok(Box::new(ips.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
                }
                Answer::Fails(refusal) => Err(refusal.into()),
                Answer::Never => std::future::pending().await,
            }
        })
    }
}

fn guarded(answers: impl Into<VecDeque<Answer>>) -> (Outbound, Arc<NameServer>) {
    let server = Arc::new(NameServer {
        answers: Mutex::new(answers.into()),
        asked: AtomicUsize::new(0),
    });
    let names = PublicNames {
        names: Arc::clone(&server) as Arc<dyn Resolve>,
        patience: Duration::from_millis(20),
    };
    let outbound = Outbound {
        names: Some(Arc::new(names)),
    };
    (outbound, server)
}

fn ips<const N: usize>(ips: [[u8; 4]; N]) -> Answer {
    Answer::Ips(ips.map(IpAddr::from).to_vec())
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// A server on loopback that answers every request with `response` and counts them.
async fn serve(response: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(SocketAddr::from((LOOPBACK, 0)))
        .await
        .unwrap();
    let (address, requests) = (listener.local_addr().unwrap(), Arc::default());
    let counter = Arc::clone(&requests);
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            AtomicUsize::fetch_add(&counter, 1, Ordering::SeqCst);
            assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0);
            connection.write_all(response.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn to(location: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn a_name_is_as_good_as_what_it_resolves_to() {
    for (answer, expected) in [
        (ips([PUBLIC]), Ok(())),
        (ips([LOOPBACK]), Err(Refusal::NotPublic)),
        (ips([PUBLIC, [10, 0, 0, 1]]), Err(Refusal::NotPublic)),
        (Answer::Ips(vec![]), Err(Refusal::Unknown)),
        (Answer::Fails(Refusal::Unknown), Err(Refusal::Unknown)),
        (Answer::Never, Err(Refusal::NoAnswer)),
    ] {
        let (outbound, _) = guarded([answer]);
        let checked = outbound.check(&url("wss://bots.example.com/ws")).await;
        assert_eq!(checked, expected);
    }
}

#[tokio::test]
async fn faults_name_the_fields_and_nothing_is_looked_up_for_what_is_plain() {
    let (outbound, server) = guarded([ips([PUBLIC])]);
    let addresses = [
        ("answer.url", "http://169.254.169.254/latest"),
        ("warmupUrl", "http://metadata.google.internal/"),
        ("fine", "https://[2606:4700:4700::1111]/"),
    ];
    let addresses = addresses.map(|(path, text)| (path, url(text))).to_vec();
    let faults = outbound.faults(addresses.clone()).await;
    let paths: Vec<_> = faults.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["answer.url", "warmupUrl"]);
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    assert_eq!(Outbound::new(true).faults(addresses).await, []);
}

/// Rebinding: public when it was checked, loopback when it is fetched.
#[tokio::test]
async fn a_name_server_that_changes_its_mind_gains_nothing() {
    let (address, requests) = serve(OK.to_owned()).await;
    let (outbound, server) = guarded([ips([PUBLIC]), ips([LOOPBACK])]);
    let bot = url(&format!("http://bots.example.com:{}/", address.port()));
    assert_eq!(outbound.check(&bot).await, Ok(()));
    let client = outbound.client(Duration::from_secs(5)).unwrap();
    assert!(client.get(bot).send().await.is_err());
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_public_server_cannot_send_us_to_a_private_one() {
    let (inner, requests) = serve(OK.to_owned()).await;
    for location in [
        format!("http://{inner}/"),
        format!("http://[::ffff:{}]:{}/", inner.ip(), inner.port()),
        format!("http://localhost:{}/", inner.port()),
        format!("http://inner.example.com:{}/", inner.port()),
    ] {
        let (outer, _) = serve(to(&location)).await;
        let (outbound, _) = guarded([ips([LOOPBACK])]);
        // The name server is passed by for the first server only: it plays a public one.
        let client = outbound.builder(Duration::from_secs(5));
        let client = client.resolve("outer.example.com", outer).build().unwrap();
        let asked = client.get("http://outer.example.com/").send().await;
        assert!(asked.is_err(), "{location}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn without_the_guard_everything_is_reached() {
    let (inner, requests) = serve(OK.to_owned()).await;
    let (outer, _) = serve(to(&format!("http://{inner}/"))).await;
    let outbound = Outbound::new(true);
    assert!(outbound.may_ask(&url("http://127.0.0.1/")));
    let client = outbound.client(Duration::from_secs(5)).unwrap();
    let answer = client.get(format!("http://{outer}/")).send().await.unwrap();
    assert!(answer.status().is_success());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

/// The hosts file answers without a network.
#[tokio::test]
async fn the_machines_own_names_are_internal() {
    let names = PublicNames {
        names: system_names(),
        patience: LOOKUP_TIME,
    };
    let found = names.lookup("localhost".parse().unwrap()).await;
    assert_eq!(found, Err(Refusal::NotPublic));
}
