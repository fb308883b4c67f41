//! The charge of a request as an argument of axum's handlers.

use std::future::{Future, ready};

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::Charge;

/// Extracts the request's [`Charge`]: `async fn handler(Paid(charge): Paid)`. Behind the layer it is always there, of a
/// request that costs nothing too.
#[derive(Debug, Clone)]
pub struct Paid(pub Charge);

/// The route is not behind the layer: a mistake of the program, answered 500, since nobody was asked for money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this route takes a charge, and is not behind `WeirLayer`: add the layer to the router")]
pub struct MissingLayer;

impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Paid {
    type Rejection = MissingLayer;

    fn from_request_parts(parts: &mut Parts, _state: &S) -> impl Future<Output = Result<Self, MissingLayer>> + Send {
        ready(parts.extensions.get::<Charge>().cloned().map(Self).ok_or(MissingLayer))
    }
}
