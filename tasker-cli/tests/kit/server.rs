//! A running `tasker serve`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::Folder;

static SERVERS: AtomicUsize = AtomicUsize::new(0);

/// A running `tasker serve`; killed when the test lets go of it.
pub(crate) struct Server {
    pub(crate) child: Child,
    urls: HashMap<String, String>,
    pub(crate) client: Client,
    /// What it said on standard output.
    pub(crate) said: Value,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(folder: &Folder, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_with(folder, &["--port", "0"], args, variables)
    }

    /// With another base of ports.
    pub(crate) fn start_with(
        folder: &Folder,
        port: &[&str],
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let args: Vec<&str> = ["serve", "--json"]
            .iter()
            .chain(port)
            .chain(args)
            .copied()
            .collect();
        let log = folder
            .path()
            .join(format!("log-{}", SERVERS.fetch_add(1, Ordering::Relaxed)));
        let mut child = folder
            .command(&args)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!(
                "{line:?}: {error}: {}",
                std::fs::read_to_string(&log).unwrap()
            )
        });
        let urls = said["services"].as_array().unwrap().clone().into_iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let urls = urls
            .map(|entry| (text(&entry["name"]), text(&entry["url"])))
            .collect();
        let client = Client::builder()
            .timeout(Duration::from_mins(5))
            .no_proxy()
            .build()
            .unwrap();
        Self {
            child,
            urls,
            client,
            said,
            log,
        }
    }

    /// What it wrote to standard error so far, in whole lines: it may be writing one.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        let lines = &bytes[..end.map_or(0, |end| end + 1)];
        String::from_utf8(lines.to_owned()).unwrap()
    }

    /// A body sent as it is.
    pub(crate) async fn send(&self, service: &str, path: &str, body: &str) -> (u16, Value) {
        let request = self.client.post(self.url(service, path));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) fn url(&self, service: &str, path: &str) -> String {
        format!("{}{path}", self.urls[service])
    }

    pub(crate) async fn get(&self, service: &str, path: &str) -> (StatusCode, Value) {
        let answer = self
            .client
            .get(self.url(service, path))
            .send()
            .await
            .unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub(crate) async fn post(
        &self,
        service: &str,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let answer = self
            .client
            .post(self.url(service, path))
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = std::process::Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
