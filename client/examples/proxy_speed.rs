//! The plain proxy path for a load generator: `proxy_speed upstream ADDRESS` answers `hello`, and
//! `proxy_speed proxy ADDRESS TARGET` forwards to it. Then, for instance, `wrk -t1 -c64 -d10 http://ADDRESS/`.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use weir_client::gate::proxy::{
    GateBody, Handler, Listener, ListenerSettings, NoHooks, Peer, Target, Upstream, UpstreamSettings, forward,
};

struct Hello;

impl Handler for Hello {
    async fn handle(&self, _request: Request<Incoming>, _peer: Peer) -> Response<GateBody> {
        Response::new(GateBody::full("hello"))
    }
}

struct Plain(Upstream);

impl Handler for Plain {
    async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<GateBody> {
        forward(request, &self.0, &peer, Box::new(NoHooks)).await
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let usage = "usage: proxy_speed upstream ADDRESS | proxy_speed proxy ADDRESS TARGET";
    let address = arguments.get(2).ok_or(usage)?.parse()?;
    let listener = Listener::bind(ListenerSettings::new(address)).await?;
    match (arguments[1].as_str(), arguments.get(3)) {
        ("upstream", None) => listener.serve(Arc::new(Hello), std::future::pending()).await,
        ("proxy", Some(target)) => {
            let upstream = Upstream::new(UpstreamSettings::new(target.parse::<Target>()?))?;
            listener.serve(Arc::new(Plain(upstream)), std::future::pending()).await;
        }
        _ => return Err(usage.into()),
    }
    Ok(())
}
