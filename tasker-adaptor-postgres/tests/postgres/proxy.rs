//! A small TCP proxy that cuts a connection at a chosen moment: the network at its worst.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// When to cut, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As these bytes come from the client: the server never gets them.
    Before(&'static [u8]),
    /// As these bytes come from the server: it did its work, and the client never hears of it.
    After(&'static [u8]),
}

#[derive(Clone, Default)]
struct Armed(Arc<Mutex<Option<Cut>>>);

pub(crate) struct Proxy {
    pub(crate) url: String,
    armed: Armed,
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
        let shared = armed.clone();
        let target = server.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.clone(), shared.clone()));
            }
        });
        assert!(url.contains(&server), "{server} is not in the URL as it is");
        Self {
            url: url.replace(&server, &own),
            armed,
        }
    }

    pub(crate) fn arm(&self, cut: Cut) {
        *self.armed.0.lock().unwrap() = Some(cut);
    }

    /// Whether the cut has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.armed.0.lock().unwrap().is_none()
    }
}

impl Armed {
    /// Whether the connection is cut here: then it is disarmed.
    fn fires(&self, from_client: bool, bytes: &[u8]) -> bool {
        let mut armed = self.0.lock().unwrap();
        let needle = match (&*armed, from_client) {
            (Some(Cut::Before(needle)), true) | (Some(Cut::After(needle)), false) => *needle,
            _ => return false,
        };
        let fires = bytes.windows(needle.len()).any(|window| window == needle);
        if fires {
            *armed = None;
        }
        fires
    }
}

async fn carry(client: TcpStream, server: String, armed: Armed) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    // Returning drops both sockets: that is the cut.
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => match read {
                Ok(count) if count > 0 && !armed.fires(true, &up[..count]) => {
                    if to_server.write_all(&up[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = from_server.read(&mut down) => match read {
                Ok(count) if count > 0 && !armed.fires(false, &down[..count]) => {
                    if to_client.write_all(&down[..count]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}
