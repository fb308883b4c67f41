//! A site behind `weir gate`, as a process that can be killed and started again; a server that answers everything; and
//! requests by hand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use weir_protocol::http::Challenge;
use weir_protocol::id::{AccountId, HubAddress};
use weir_tests::harness::place::{Place, stderr, stdout};

/// The binary, built once.
fn weir() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = crate::tour::path_with_binaries();
        std::env::split_paths(&path).map(|folder| folder.join("weir")).find(|file| file.is_file()).unwrap()
    })
}

/// Answers every request with 200.
pub(super) struct Upstream(SocketAddr);

impl Upstream {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Self(address)
    }
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nread")?;
        }
    }
}

/// A site, its gate and the gate's configuration.
pub(super) struct Site {
    folder: PathBuf,
    gate: Option<(Child, SocketAddr, SocketAddr)>,
    _upstream: Upstream,
}

impl Site {
    pub(super) fn new(place: &Place, name: &str, hub: &HubAddress, payee: AccountId, upstream: Upstream) -> Self {
        let folder = place.path(name);
        std::fs::create_dir(&folder).unwrap();
        let home = place.path("payee");
        let config = format!(
            "listen = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\nupstream = \"http://{}\"\nrealm = \"news.example\"\n\
             payee = \"{payee}\"\nhub = \"{hub}\"\nhome = \"{}\"\n\
             [[route]]\nmatch = \"GET /a/{{id}}\"\nprice = \"0.05\"\n",
            upstream.0,
            home.display()
        );
        std::fs::write(folder.join("gate.toml"), config).unwrap();
        Self { folder, gate: None, _upstream: upstream }
    }

    /// The folder of the balances.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("gate-state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(weir());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.arg("--json").arg("gate").args(args).arg("--config").arg(self.folder.join("gate.toml"));
        command.stdin(Stdio::null());
        command
    }

    /// A verb, to its end.
    pub(super) fn verb(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A verb that goes on.
    pub(super) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What a verb that succeeds prints.
    pub(super) fn json(&self, args: &[&str]) -> Value {
        let output = self.verb(args);
        assert!(output.status.success(), "{args:?}: {}{}", stdout(&output), stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the gate, and waits until it is ready.
    pub(super) fn start(&mut self) {
        let mut child = self.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        self.gate = Some((child, address("address"), address("metrics")));
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        let (mut child, ..) = self.gate.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for the clean end.
    pub(super) fn stop(&mut self) {
        let (mut child, ..) = self.gate.take().unwrap();
        let told = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
        assert!(told.success());
        assert!(child.wait().unwrap().success(), "a gate that is told to stop ends well");
    }

    /// Status, the challenge's header if there is one, and the body.
    pub(super) fn get(&self, path: &str, credential: Option<&str>) -> (u16, Option<String>, String) {
        let (_, address, _) = self.gate.as_ref().unwrap();
        get(*address, path, credential)
    }

    /// The demand for a path.
    pub(super) fn challenge(&self, path: &str) -> Challenge {
        let (status, challenge, body) = self.get(path, None);
        assert_eq!(status, 402, "{body}");
        Challenge::from_header(&challenge.unwrap()).unwrap()
    }

    /// The gate's metrics.
    pub(super) fn metrics(&self) -> String {
        let (_, _, metrics) = self.gate.as_ref().unwrap();
        get(*metrics, "/metrics", None).2
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some((mut child, ..)) = self.gate.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn get(address: SocketAddr, path: &str, credential: Option<&str>) -> (u16, Option<String>, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let shown = credential.map_or_else(String::new, |credential| format!("authorization: {credential}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nhost: news.example\r\nconnection: close\r\n{shown}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let challenge = head.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
    (status, challenge.map(str::to_owned), body.to_owned())
}
