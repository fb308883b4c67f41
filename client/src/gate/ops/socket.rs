//! The admin socket of a running gate, `admin.sock` in its state: HTTP/1.1 and JSON over a Unix socket of mode 0600.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | [`Status`](super::shapes::Status) |
//! | `POST /balances` [`BalancesAsked`] | [`BalancePage`](super::shapes::BalancePage) |
//! | `POST /refund` [`RefundAsked`] | [`Refunded`](super::shapes::Refunded) |
//! | `POST /reload` | [`ReloadReport`](super::shapes::ReloadReport) |
//!
//! What makes no sense is answered with 400 or 404 and `{"error": TEXT}`. Only the user of the gate's process and root are
//! heard, whatever the folder's mode.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::shapes::{BalancesAsked, RefundAsked};

/// Most bytes of a question.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
/// Most bytes of an answer: a page of balances is about 500 KB.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Most connections at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// Longest wait for a question's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// The socket's place in a state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("admin.sock")
}

/// What answers.
pub trait Answers: Send + Sync + 'static {
    /// `GET /status`.
    fn status(&self) -> super::shapes::Status;
    /// `POST /balances`.
    fn balances(&self, asked: &BalancesAsked) -> Result<super::shapes::BalancePage, super::till::BadQuestion>;
    /// `POST /refund`.
    fn refund(&self, asked: RefundAsked) -> impl Future<Output = super::shapes::Refunded> + Send;
    /// `POST /reload`.
    fn reload(&self) -> super::shapes::ReloadReport;
}

/// A socket that is listened on; gone with it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Whose process this is.
    user: u32,
}

impl AdminSocket {
    /// Listens in a state folder. Only who holds the folder's store may call it: a socket that is there is a dead one's.
    pub fn bind(state: &Path) -> io::Result<Self> {
        let path = path(state);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(&path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has its name")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let user = std::fs::symlink_metadata(&path)?.uid();
        Ok(Self { listener, path, user })
    }

    /// Answers until `stopped` is true.
    pub async fn serve(self, answers: Arc<impl Answers>, mut stopped: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let accepted = tokio::select! {
                accepted = async {
                    let place = place.await;
                    (place, self.listener.accept().await)
                } => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let (Ok(place), Ok((stream, _))) = accepted else {
                // Out of descriptors, mostly: those who serve readers need them more.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // The mode says it already; between binding and its mode, or on systems that heed no mode, this does.
            if !stream.peer_cred().is_ok_and(|peer| peer.uid() == self.user || peer.uid() == 0) {
                tracing::warn!("another user asked at the admin socket, and was not heard");
                continue;
            }
            let answers = Arc::clone(&answers);
            let stopped = until(stopped.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answers = Arc::clone(&answers);
                    async move { Ok::<_, Infallible>(answer(&*answers, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = &mut connection => {}
                    () = stopped => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
                drop(place);
            });
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Dropped before the store is let go, so it is not yet another gate's.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(answers: &impl Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/status") => json(StatusCode::OK, &answers.status()),
        (&Method::POST, "/balances") => match read(body).await {
            Ok(asked) => match answers.balances(&asked) {
                Ok(page) => json(StatusCode::OK, &page),
                Err(error) => wrong(StatusCode::BAD_REQUEST, &error.to_string()),
            },
            Err(why) => wrong(StatusCode::BAD_REQUEST, &why),
        },
        (&Method::POST, "/refund") => match read(body).await {
            Ok(asked) => json(StatusCode::OK, &answers.refund(asked).await),
            Err(why) => wrong(StatusCode::BAD_REQUEST, &why),
        },
        (&Method::POST, "/reload") => json(StatusCode::OK, &answers.reload()),
        _ => wrong(StatusCode::NOT_FOUND, "`GET /status`, `POST /balances`, `/refund` or `/reload`"),
    }
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let body = Limited::new(body, MAX_QUESTION_BYTES).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

fn wrong(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

// ---- asking ---------------------------------------------------------------------------------------------------------

/// Why a running gate gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no gate listens on `{}`: {cause}", .path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The connection broke before the answer.
    #[error("the gate went away before its answer: {0}")]
    Lost(String),
    /// The gate refuses the question.
    #[error("the gate does not understand: {0}")]
    Refused(String),
}

/// A connection to a running gate.
#[derive(Debug)]
pub struct Asking {
    sender: SendRequest<Full<Bytes>>,
}

impl Asking {
    /// Connects to the gate that runs on a state folder.
    pub async fn connect(state: &Path) -> Result<Self, AskError> {
        let path = path(state);
        let stream = UnixStream::connect(&path).await.map_err(|cause| AskError::Absent { path, cause })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| AskError::Lost(error.to_string()))?;
        // Ends with the sender; what goes wrong is told where it is waited for.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    /// Asks.
    pub async fn get<A: DeserializeOwned>(&mut self, path: &str) -> Result<A, AskError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something to be done, or with words.
    pub async fn post<A: DeserializeOwned>(&mut self, path: &str, asked: &impl Serialize) -> Result<A, AskError> {
        let bytes = serde_json::to_vec(asked).map_err(|error| AskError::Refused(error.to_string()))?;
        self.ask(Method::POST, path, Bytes::from(bytes)).await
    }

    async fn ask<A: DeserializeOwned>(&mut self, method: Method, path: &str, body: Bytes) -> Result<A, AskError> {
        let lost = |error: String| AskError::Lost(error);
        let request = Request::builder().method(method).uri(path).header("host", "gate").body(Full::new(body));
        let request = request.map_err(|error| AskError::Refused(error.to_string()))?;
        self.sender.ready().await.map_err(|error| lost(error.to_string()))?;
        let response = self.sender.send_request(request).await.map_err(|error| lost(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| lost(error.to_string()))?.to_bytes();
        if !status.is_success() {
            let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let why = told.get("error").and_then(serde_json::Value::as_str).unwrap_or(status.as_str());
            return Err(AskError::Refused(why.to_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| AskError::Refused(error.to_string()))
    }
}
