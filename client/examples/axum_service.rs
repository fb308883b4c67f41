//! A small axum service that is paid: an article at a fixed price, and a counter of letters that is metered.
//!
//! The same code stands in the guide, `client/README.md`, with the commands that start it and pay.
#![expect(clippy::print_stderr, reason = "it says where it listens")]

use axum::Router;
use axum::routing::{get, post};
use weir_client::gate::layer::{Paid, PriceTag, WeirLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Who is paid, and through which hub: what `weir id` says.
    let [payee, hub] = ["PAYEE", "HUB"].map(std::env::var);
    let (article, letter) = ("0.05".parse()?, "0.000001".parse()?);
    let layer = WeirLayer::builder(payee?.parse()?, hub?.parse()?, "shop.example")
        // The balances are in this folder, and are money: keep it.
        .build("shop-state", move |head| match head.uri.path() {
            "/article" => Some(PriceTag::fixed(article).title("An article")),
            "/letters" => Some(PriceTag::metered(letter, 1_000).title("Letters counted, each")),
            _ => None,
        })?;
    let app = Router::new()
        .route("/", get(async || "free\n"))
        .route("/article", get(read))
        .route("/letters", post(count))
        .layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8490").await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn read(Paid(charge): Paid) -> String {
    let payment = charge.payment().map(|payment| payment.payment_id);
    tracing::info!(?payment, "read");
    "What was paid for.\n".to_owned()
}

async fn count(Paid(charge): Paid, text: String) -> String {
    let letters = text.chars().filter(|letter| letter.is_alphabetic()).count();
    // So much is drawn when the answer has ended well; what was paid beyond it stays the payer's.
    charge.set_units(letters as u64);
    format!("{letters} letters\n")
}
