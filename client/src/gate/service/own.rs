//! What the gate answers itself, under `/.weir/`.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::forward_auth::Asks;
use super::{
    CHECK_PATH, DEMAND_PATH, ENVOY_PREFIX, Gate, MAX_OWN_BODY_BYTES, NGINX_CHECK_PATH, OWN_PREFIX, Origin, refused,
};
use crate::gate::config::Mode;
use crate::gate::proxy::{GateBody, Peer};

impl Gate {
    pub(super) async fn own(&self, request: Request<Incoming>, peer: &Peer) -> Response<GateBody> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if self.settings.mode == Mode::ForwardAuth {
            match path {
                CHECK_PATH => return self.check(&head, peer, Asks::Forwarded).await,
                NGINX_CHECK_PATH => return self.check(&head, peer, Asks::Nginx).await,
                DEMAND_PATH => return self.demand_for(&head, peer).await,
                path if path.starts_with(ENVOY_PREFIX) => return self.check(&head, peer, Asks::Envoy).await,
                _ => {}
            }
        }
        let origin = Origin::of(&head, peer);
        let claim = path.strip_prefix(OWN_PREFIX).and_then(|rest| rest.strip_prefix("claim/"));
        match (claim, &head.method) {
            (Some(id), &Method::GET) => self.claim_asked(id, &head, &origin),
            (Some(id), &Method::POST) => match read(body).await {
                Some(body) => self.claim_posted(id, &body).await,
                None => refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format!("a credential of more than {MAX_OWN_BODY_BYTES} bytes, or one that broke off"),
                ),
            },
            (Some(_), _) => refused(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "GET or POST".to_owned()),
            (None, _) => refused(StatusCode::NOT_FOUND, "not-found", "the gate has nothing here".to_owned()),
        }
    }
}

async fn read(body: Incoming) -> Option<Bytes> {
    let body = Limited::new(body, MAX_OWN_BODY_BYTES).collect().await.ok()?;
    Some(body.to_bytes())
}
