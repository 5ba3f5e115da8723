//! A small TCP proxy that cuts a connection at a chosen moment, or falls silent: the network at its worst.
//!
//! The cluster test of `examples` uses this file too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// When to cut, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As these bytes come from the client: the server never gets them.
    Before(&'static [u8]),
    /// As these bytes come from the server: it did its work, and the client never hears of it.
    After(&'static [u8]),
    /// As these bytes come from the client: from then on nothing passes and nobody is told, on any connection.
    Silence(&'static [u8]),
}

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing passes, nothing is closed: as a cable that was pulled.
    Silent,
    /// Nothing ever passes on a connection that was open in the silence: as a router that forgot it. New ones pass.
    Forgotten {
        before: u64,
    },
}

#[derive(Clone, Default)]
struct Armed(Arc<Mutex<Option<Cut>>>);

/// A TCP proxy.
pub(crate) struct Proxy {
    /// The server's URL by this way.
    pub(crate) url: String,
    armed: Armed,
    way: Arc<watch::Sender<Way>>,
    accepted: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of the server of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
            panic!("the proxy needs a server with a TCP port");
        };
        let server = format!("{host}:{port}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let armed = Armed::default();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let accepted = Arc::new(AtomicU64::new(0));
        let accepting = {
            let (armed, way, accepted) = (armed.clone(), Arc::clone(&way), Arc::clone(&accepted));
            let target = server.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let carrier = Carrier {
                        armed: armed.clone(),
                        way: Arc::clone(&way),
                        number: accepted.fetch_add(1, Ordering::Relaxed),
                    };
                    tokio::spawn(carrier.carry(client, target.clone()));
                }
            }
        };
        tokio::spawn(accepting);
        assert!(url.contains(&server), "{server} is not in the URL as it is");
        Self {
            url: url.replace(&server, &own),
            armed,
            way,
            accepted,
        }
    }

    pub(crate) fn arm(&self, cut: Cut) {
        *self.armed.0.lock().unwrap() = Some(cut);
    }

    /// Whether the cut has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.armed.0.lock().unwrap().is_none()
    }

    /// From now on nothing passes, and nobody is told.
    pub(crate) fn silence(&self) {
        self.way.send_replace(Way::Silent);
    }

    /// What was held back passes, and all that follows.
    pub(crate) fn heal(&self) {
        self.way.send_replace(Way::Open);
    }

    /// New connections pass; those of before stay silent for ever, and still nobody is told.
    pub(crate) fn heal_for_new_connections(&self) {
        let before = self.accepted.load(Ordering::Relaxed);
        self.way.send_replace(Way::Forgotten { before });
    }
}

impl Armed {
    /// The cut that these bytes bring: then it is disarmed.
    fn fires(&self, from_client: bool, bytes: &[u8]) -> Option<Cut> {
        let mut armed = self.0.lock().unwrap();
        let needle = match (armed.as_ref()?, from_client) {
            (Cut::Before(needle) | Cut::Silence(needle), true) | (Cut::After(needle), false) => {
                *needle
            }
            _ => return None,
        };
        bytes
            .windows(needle.len())
            .any(|window| window == needle)
            .then(|| armed.take())
            .flatten()
    }
}

/// What carries one connection.
struct Carrier {
    armed: Armed,
    way: Arc<watch::Sender<Way>>,
    number: u64,
}

impl Carrier {
    async fn carry(self, client: TcpStream, server: String) {
        self.passable().await;
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        // Returning drops both sockets: that is the cut.
        loop {
            let (read, from_client) = tokio::select! {
                read = from_client.read(&mut up) => (read, true),
                read = from_server.read(&mut down) => (read, false),
            };
            let Ok(count) = read else { return };
            if count > 0 {
                let bytes = if from_client {
                    &up[..count]
                } else {
                    &down[..count]
                };
                match self.armed.fires(from_client, bytes) {
                    None => {}
                    Some(Cut::Silence(_)) => drop(self.way.send_replace(Way::Silent)),
                    Some(_) => return,
                }
            }
            // That somebody hung up is not heard in the silence either.
            self.passable().await;
            let passed = match (count, from_client) {
                (0, _) => return,
                (_, true) => to_server.write_all(&up[..count]).await,
                (_, false) => to_client.write_all(&down[..count]).await,
            };
            if passed.is_err() {
                return;
            }
        }
    }

    /// Waits until this connection may carry something.
    async fn passable(&self) {
        let mut way = self.way.subscribe();
        let is_passable = |way: &Way| match *way {
            Way::Open => true,
            Way::Silent => false,
            Way::Forgotten { before } => self.number >= before,
        };
        // An error says that the proxy is gone: then nothing passes any more.
        if way.wait_for(is_passable).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
