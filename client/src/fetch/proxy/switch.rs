//! What is not one request and one answer: tunnels, switches to another protocol, and answers that are paid for at their end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use reqwest::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedSender;

use super::serve::Seat;
use super::{Served, lists, plain, said, strip};
use crate::fetch::pay::Paid;

/// Passes bytes until either side ends, or the proxy does.
pub(super) async fn both_ways(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    seat: Seat,
) {
    tokio::select! {
        // However it ended: it is over.
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = seat.closed() => {}
    }
}

/// The protocol that a request asks to switch to (RFC 9110 §7.8).
pub(super) fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::UPGRADE).filter(|_| lists(headers, header::CONNECTION, "upgrade")).cloned()
}

/// Asks for it, or says that it is made.
pub(super) fn switches(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// The server speaks another protocol from here on: so does the client, and what they say passes as it is.
pub(super) fn switched(mut answer: Response<Body>, client: Option<OnUpgrade>, seat: Seat) -> Response<Body> {
    let (Some(client), Some(protocol)) = (client, answer.headers().get(header::UPGRADE).cloned()) else {
        let detail = "the server switches to another protocol, and was not asked to".to_owned();
        return said(StatusCode::BAD_GATEWAY, &plain(StatusCode::BAD_GATEWAY, Some(detail)));
    };
    let server = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match tokio::try_join!(client, server) {
            Ok((client, server)) => both_ways(TokioIo::new(client), TokioIo::new(server), seat).await,
            Err(error) => tracing::debug!(%error, "a switch was not made"),
        }
    });
    let (mut parts, _) = answer.into_parts();
    strip(&mut parts.headers);
    switches(&mut parts.headers, protocol);
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(parts, Body::default())
}

/// A metered answer's body, without a length: it is read to its trailers, and told of at its end.
#[derive(Debug)]
pub(super) struct Metered {
    pub(super) rest: Body,
    pub(super) told: Option<UnboundedSender<Served>>,
    pub(super) served: Served,
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        Pin::new(&mut self.rest).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            let paid = self.served.paid.as_ref().map(Paid::at_end);
            // Nobody listens: nothing is lost.
            let _ = told.send(Served { paid, ..self.served.clone() });
        }
    }
}
