//! What is served, and where: names, ports, listeners.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tasker_core::Engine;
use tokio::net::TcpListener;

use crate::command::Here;
use crate::error::CliError;
use crate::folder::{Manifest, Place};
use crate::registry::PLACES;

pub(super) const PROCESSOR: &str = "simple-stack-processor";
pub(super) const TASKS: &str = "task-executor";
pub(super) const EXECUTOR: &str = "deno-executor";
pub(super) const ADMIN: &str = "admin-debug";
const KEYSTORE: &str = "keystore";

/// The built-in services to serve, in the order of their places.
pub(super) fn names(
    here: &Here,
    engine: &Engine,
    folder: &[Manifest],
    has_token: bool,
) -> Result<Vec<&'static str>, CliError> {
    let offered: Vec<&'static str> = PLACES
        .into_iter()
        .filter(|name| {
            [EXECUTOR, PROCESSOR, TASKS, ADMIN].contains(name) || engine.services().contains(name)
        })
        .collect();
    let asked = asked(here);
    if asked.is_empty() {
        // Secrets are not handed to whoever can reach a port of this machine.
        return Ok(offered
            .into_iter()
            .filter(|name| *name != KEYSTORE || has_token)
            .collect());
    }
    for name in &asked {
        let known = offered.contains(name) || folder.iter().any(|service| service.name == *name);
        if !known {
            let folder = folder.iter().map(|service| service.name.as_str());
            let all: Vec<&str> = offered.iter().copied().chain(folder).collect();
            let problem = match *name {
                "supabase" => {
                    "names supabase, which has no URL: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY"
                        .to_owned()
                }
                _ => format!(
                    "names {name:?}, which is not offered here; offered are {}",
                    all.join(", ")
                ),
            };
            return Err(here.config.wrong("serve.services", &problem));
        }
    }
    if asked.contains(&KEYSTORE) && !has_token {
        return Err(here.config.wrong(
            "serve.services",
            "names the keystore, which is served with a token only: set TASKER_TOKEN",
        ));
    }
    Ok(offered
        .into_iter()
        .filter(|name| asked.contains(name))
        .collect())
}

/// What `--services` names, in our spelling; empty: everything.
pub(super) fn asked(here: &Here) -> Vec<&str> {
    let asked = here.config.list("serve.services").into_iter();
    asked
        .map(|name| if name == "executor" { EXECUTOR } else { name })
        .collect()
}

/// The services of the folder to start, each with its port: after the places of the built-in ones, by name.
pub(super) fn places(
    here: &Here,
    folder: Vec<Manifest>,
) -> Result<Vec<(Manifest, Place)>, CliError> {
    let asked = asked(here);
    let mut places = Vec::new();
    for (index, manifest) in folder.into_iter().enumerate() {
        if !asked.is_empty() && !asked.contains(&manifest.name.as_str()) {
            continue;
        }
        let port = free(here, &manifest.name, PLACES.len() + index)?;
        let name = manifest.name.clone();
        places.push((manifest, Place { name, port }));
    }
    Ok(places)
}

/// A port of this machine that nobody listens on: that of the place, or any when the base is 0.
fn free(here: &Here, name: &str, place: usize) -> Result<u16, CliError> {
    let port = port(here, place)?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let listener = std::net::TcpListener::bind(address)
        .map_err(|error| cannot_listen(name, address, error))?;
    let local = listener.local_addr().map_err(CliError::io(format!(
        "the port of {name} could not be read"
    )))?;
    Ok(local.port())
}

fn port(here: &Here, place: usize) -> Result<u16, CliError> {
    match here.config.port()? {
        0 => Ok(0),
        base => base.checked_add(place as u16).ok_or_else(|| {
            here.config.wrong(
                "serve.port",
                "leaves no room for the ports after it; take one below 65500",
            )
        }),
    }
}

pub(super) fn bind_address(here: &Here) -> Result<IpAddr, CliError> {
    match here.config.text("serve.bind") {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().map_err(|_| {
            here.config.wrong(
                "serve.bind",
                "is no address; it looks like 127.0.0.1 or 0.0.0.0",
            )
        }),
    }
}

/// Listens on the service's port: its place after the base, or any free one when the base is 0.
pub(super) async fn listen(here: &Here, name: &str) -> Result<TcpListener, CliError> {
    let place = PLACES.iter().position(|place| *place == name);
    let port = port(here, place.unwrap_or_default())?;
    let address = SocketAddr::new(bind_address(here)?, port);
    TcpListener::bind(address)
        .await
        .map_err(|error| cannot_listen(name, address, error))
}

fn cannot_listen(name: &str, address: SocketAddr, source: std::io::Error) -> CliError {
    let what = match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "{name} cannot listen on {address}: the port is in use; stop what uses it, or choose another base with --port"
            )
        }
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{name} cannot listen on {address}: this user may not; choose a base above 1023 with --port"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!(
                "{name} cannot listen on {address}: this machine has no such address; choose another with --bind"
            )
        }
        _ => format!("{name} cannot listen on {address}"),
    };
    CliError::Io { what, source }
}

/// The address as others on this machine reach it.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
