//! An address in front of a server, for faults of the network between the service and its database.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of connections, old and new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They go to the server.
    Through(SocketAddr),
    /// They are closed.
    Closed,
    /// They stay open, and nothing that is sent arrives anywhere. Nothing ever will on these connections.
    Swallowed,
}

/// The address. It ends with the test's runtime.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Proxy {
    pub(crate) async fn start(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, seen) = watch::channel(way);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, seen.clone()));
            }
        });
        Self { address, way }
    }

    /// Sends all connections this way from now on; those that were swallowed are lost.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// A connection string for the one-member replica set behind it: without asking where the server itself thinks it is.
    pub(crate) fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address)
    }
}

async fn pass(mut client: TcpStream, mut seen: watch::Receiver<Way>) {
    let way = *seen.borrow_and_update();
    if let Way::Through(server) = way
        && let Ok(mut server) = TcpStream::connect(server).await
    {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
    if *seen.borrow() == Way::Swallowed {
        // The client's end stays open until the test is over.
        std::future::pending::<()>().await;
    }
}
