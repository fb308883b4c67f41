//! What programs find out by themselves: `/.well-known/weir` and `/openapi.json` with `x-payment-info`.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use weir_protocol::http::{METHOD, SCALE};

use super::{Gate, Origin, json_response};
use crate::gate::price::{Price, Route};
use crate::gate::proxy::GateBody;

/// Who is paid, at which hub.
pub(super) const WELL_KNOWN: &str = "/.well-known/weir";
/// What things cost.
pub(super) const OPENAPI: &str = "/openapi.json";
/// What a route for all methods is listed under.
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

pub(super) fn well_known(gate: &Gate, origin: &Origin) -> Response<GateBody> {
    let settings = gate.settings();
    let mut dialects = Vec::new();
    let accept = settings.accept;
    for (on, name) in [(accept.payment, "payment"), (accept.x402, "x402"), (accept.crawler, "crawler")] {
        if on {
            dialects.push(name);
        }
    }
    json_response(
        StatusCode::OK,
        &json!({
            "payee": settings.payee,
            "hub": settings.hub,
            "hub_address": settings.hub_address,
            "currencies": [settings.currency],
            "realm": settings.realm,
            "method": METHOD,
            "scale": SCALE,
            "dialects": dialects,
            "openapi": origin.url(OPENAPI),
        }),
    )
}

pub(super) fn openapi(gate: &Gate, origin: &Origin) -> Response<GateBody> {
    let table = gate.table().table();
    let mut paths = Map::new();
    for route in table.routes() {
        let named: Vec<String> = route.methods.iter().map(|method| method.as_str().to_ascii_lowercase()).collect();
        let methods = if named.is_empty() { METHODS.map(str::to_owned).to_vec() } else { named };
        // OpenAPI has no rest of a path: its name stands for it.
        let path = route.pattern.as_str().replace("{*", "{");
        let entry = paths.entry(path.clone()).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(operations) = entry else { continue };
        for method in methods {
            operations.entry(method).or_insert_with(|| operation(gate, route, &path));
        }
    }
    json_response(
        StatusCode::OK,
        &json!({
            "openapi": "3.1.0",
            "info": { "title": gate.settings().realm, "version": "1" },
            "servers": [{ "url": origin.origin }],
            "paths": paths,
        }),
    )
}

fn operation(gate: &Gate, route: &Route, path: &str) -> Value {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut operation = Map::new();
    if let Some(title) = &route.title {
        operation.insert("summary".to_owned(), json!(title));
    }
    if let Some(description) = &route.description {
        operation.insert("description".to_owned(), json!(description));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), json!(parameters));
    }
    let mut responses = json!({ "200": { "description": "What was asked for." } });
    if let Some(price) = &route.price {
        operation.insert("x-payment-info".to_owned(), payment_info(gate, route, price));
        if let Value::Object(responses) = &mut responses {
            responses.insert("402".to_owned(), json!({ "description": "It must be paid for." }));
        }
    }
    operation.insert("responses".to_owned(), responses);
    Value::Object(operation)
}

fn payment_info(gate: &Gate, route: &Route, price: &Price) -> Value {
    let settings = gate.settings();
    json!({
        "method": METHOD,
        "intent": "charge",
        "amount": price.most().nanos().to_string(),
        "scale": SCALE,
        "currency": settings.currency,
        "recipient": settings.payee,
        "hub": settings.hub,
        "metered": price.is_metered(),
        "access_seconds": route.access_ms.map(|ms| ms / 1000),
    })
}
