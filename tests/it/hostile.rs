//! Clients that mean harm on the level of connections: slow heads, huge heads, crowds of idle connections, bodies that never
//! end, answers that nobody reads. Others are served meanwhile, memory stays bounded, and the hostile ones are cut off.
//!
//! Each test runs against a process of its own. What it measures is printed; only generous bounds are asserted.
#![expect(clippy::print_stderr, reason = "the measured figures are of interest")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::helpers::app::{ADMIN_KEY, Api, World, quick_carrier, until};
use crate::helpers::process::Served;

/// More than the service may take for all its connections, in MiB.
const MOST_GROWTH: u64 = 400;

/// A service in a process of its own, and somebody who uses it all the while.
struct Scene {
    served: Served,
    others: Others,
    resident_before: u64,
    _world: World,
}

/// A caller who means well: asks again and again, on new connections and on old ones.
struct Others {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Scene {
    async fn new(name: &str) -> Self {
        let world = World::new(name, quick_carrier()).await;
        let served = world.process(&[]).await;
        Self {
            others: Others::start(&served),
            resident_before: served.process.resident_mib(),
            served,
            _world: world,
        }
    }

    /// Fails if others were not served, or memory grew beyond the bound; prints both.
    async fn finish(self, what: &str, resident: u64) {
        self.others.is_over.store(true, Ordering::Relaxed);
        let mut latencies = self.others.task.await.unwrap();
        latencies.sort_unstable();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        eprintln!(
            "{what}: {} requests of others, p50 {:?}, p99 {:?}, worst {:?}; resident {} MiB before, {resident} MiB at most, {} MiB after",
            latencies.len(),
            at(50),
            at(99),
            at(100),
            self.resident_before,
            self.served.process.resident_mib(),
        );
        assert!(
            resident < self.resident_before + MOST_GROWTH,
            "{resident} MiB"
        );
    }
}

impl Others {
    fn start(served: &Served) -> Self {
        let (base, is_over) = (served.admin().base, Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let mut latencies = Vec::new();
            let kept = Api::new(&base, ADMIN_KEY);
            while !ends.load(Ordering::Relaxed) || latencies.len() < 20 {
                for api in [&kept, &Api::new(&base, ADMIN_KEY)] {
                    let began = Instant::now();
                    assert_eq!(api.get("/v1/lists").await.status, 200);
                    latencies.push(began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            latencies
        });
        Self { is_over, task }
    }
}

/// How a connection ended, for those who opened it.
struct Crowd {
    ended: Arc<AtomicUsize>,
    size: usize,
}

impl Crowd {
    /// Runs `size` clients; one that returns was cut off.
    async fn of<F>(size: usize, address: SocketAddr, client: impl Fn(TcpStream, usize) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ended: Arc<AtomicUsize> = Arc::default();
        for index in 0..size {
            let life = client(TcpStream::connect(address).await.unwrap(), index);
            let ended = Arc::clone(&ended);
            tokio::spawn(async move {
                life.await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        Self { ended, size }
    }

    /// Waits until all were cut off; the largest memory of the process meanwhile, in MiB.
    async fn until_cut_off(&self, served: &Served) -> u64 {
        let mut resident = 0;
        until("all hostile clients are cut off", async || {
            resident = resident.max(served.process.resident_mib());
            self.ended.load(Ordering::Relaxed) == self.size
        })
        .await;
        resident
    }
}

/// Sends `drop` again and again until the other side has had enough; answers what it said.
async fn drip(mut connection: TcpStream, begin: &[u8], drop: &[u8], pause: Duration) -> String {
    let mut heard = Vec::new();
    if connection.write_all(begin).await.is_err() {
        return String::new();
    }
    let (mut read, mut write) = connection.split();
    let dripping = async {
        while write.write_all(drop).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
        // What was said before the end can still be read.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = dripping => {}
        _ = read.read_to_end(&mut heard) => {}
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_come_byte_by_byte() {
    let scene = Scene::new("loris").await;
    let began = Instant::now();
    let crowd = Crowd::of(1000, scene.served.address, |connection, index| async move {
        let begin = if index % 2 == 0 {
            "GET / HTTP/1.1\r\nX-A: "
        } else {
            "P"
        };
        drip(
            connection,
            begin.as_bytes(),
            b"a",
            Duration::from_millis(500),
        )
        .await;
    })
    .await;
    let resident = crowd.until_cut_off(&scene.served).await;
    let what = format!("1000 slow heads, cut off within {:?}", began.elapsed());
    scene.finish(&what, resident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_a_megabyte() {
    let scene = Scene::new("heads").await;
    let refused: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&refused);
    let crowd = Crowd::of(200, scene.served.address, move |connection, index| {
        let count = Arc::clone(&count);
        async move {
            // One header of a megabyte; 20,000 small ones; a request line of a megabyte.
            let head = match index % 3 {
                0 => format!("GET / HTTP/1.1\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)),
                1 => format!(
                    "GET / HTTP/1.1\r\n{}\r\n",
                    "X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(20_000)
                ),
                _ => format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)),
            };
            let (mut read, mut write) = connection.into_split();
            let mut heard = String::new();
            let sending = async {
                write.write_all(head.as_bytes()).await.ok();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = sending => {}
                // Whoever still sends when the connection closes may see a reset in place of the answer.
                _ = read.read_to_string(&mut heard) => {}
            }
            if heard.starts_with("HTTP/1.1 431") || heard.starts_with("HTTP/1.1 414") {
                count.fetch_add(1, Ordering::Relaxed);
            }
            assert!(
                !heard.starts_with("HTTP/1.1 2") && !heard.starts_with("HTTP/1.1 5"),
                "{heard}"
            );
        }
    })
    .await;
    let resident = crowd.until_cut_off(&scene.served).await;
    let refused = refused.load(Ordering::Relaxed);
    let what = format!("200 heads of 1 MB, {refused} read their refusal");
    scene.finish(&what, resident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections() {
    const WANTED: u64 = 10_000;
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, raised).ok();
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(WANTED.min(files.saturating_sub(500))).unwrap();
    let scene = Scene::new("idle").await;
    let began = Instant::now();
    let crowd = Crowd::of(
        count,
        scene.served.address,
        |mut connection, _| async move {
            connection.read_to_end(&mut Vec::new()).await.ok();
        },
    )
    .await;
    let opened = began.elapsed();
    let resident = crowd.until_cut_off(&scene.served).await;
    let what = format!(
        "{count} idle connections (limit of files {files}), opened in {opened:?}, all cut off after {:?}",
        began.elapsed()
    );
    scene.finish(&what, resident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end() {
    let scene = Scene::new("bodies").await;
    let began = Instant::now();
    let crowd = Crowd::of(200, scene.served.address, |connection, index| async move {
        let (path, kind) = match index % 4 {
            0 => ("/plivo/hangup-url", "application/x-www-form-urlencoded"),
            1 => ("/v1/campaigns", "application/json"),
            2 => ("/v1/lists", "application/json"),
            _ => ("/v1/lists", "multipart/form-data; boundary=b"),
        };
        let is_chunked = index % 8 < 4;
        let (length, drop) = match is_chunked {
            true => ("Transfer-Encoding: chunked", "1\r\na\r\n"),
            false => ("Content-Length: 30000", "a"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {ADMIN_KEY}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
        );
        let answer = drip(connection, head.as_bytes(), drop.as_bytes(), Duration::from_secs(1)).await;
        // A body that was given up while it was still coming may end in a reset.
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 503");
        assert!(is_refused, "{path}: {answer}");
    })
    .await;
    let resident = crowd.until_cut_off(&scene.served).await;
    let what = format!("200 bodies that drip, cut off within {:?}", began.elapsed());
    scene.finish(&what, resident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_and_come_fast() {
    let scene = Scene::new("floods").await;
    let began = Instant::now();
    let crowd = Crowd::of(20, scene.served.address, |connection, index| async move {
        let (path, kind) = match index % 2 {
            0 => ("/plivo/hangup-url", "application/x-www-form-urlencoded"),
            _ => ("/v1/campaigns", "application/json"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {ADMIN_KEY}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let chunk = format!("2000\r\n{}\r\n", "a".repeat(0x2000));
        let answer = drip(connection, head.as_bytes(), chunk.as_bytes(), Duration::from_millis(1)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
    })
    .await;
    let resident = crowd.until_cut_off(&scene.served).await;
    let what = format!("20 endless floods, cut off within {:?}", began.elapsed());
    scene.finish(&what, resident).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads() {
    let scene = Scene::new("unread").await;
    let began = Instant::now();
    let crowd = Crowd::of(100, scene.served.address, |mut connection, _| async move {
        let request = "GET /api-docs/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
        // It asks for more than the system keeps for it, takes nothing, and ends when it is told that nobody listens.
        while connection.write_all(request.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    let resident = crowd.until_cut_off(&scene.served).await;
    let what = format!(
        "100 clients that do not read, cut off within {:?}",
        began.elapsed()
    );
    scene.finish(&what, resident).await;
}
