//! Length-prefixed messages on QUIC streams.

use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_protocol::wire::{DecodeError, LENGTH_BYTES, decode, decode_length};

use crate::error::InfraError;

/// Reads one message; `None` when the stream ended before it. Not cancel-safe: run it in a task of its own.
pub(crate) async fn read<T: Serialize + DeserializeOwned>(
    stream: &mut quinn::RecvStream,
    limit: usize,
) -> Result<Option<T>, InfraError> {
    let mut prefix = [0; LENGTH_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(quinn::ReadExactError::FinishedEarly(_)) => return Err(DecodeError::Malformed.into()),
        Err(quinn::ReadExactError::ReadError(_)) => return Err(InfraError::Lost),
    }
    let mut body = vec![0; decode_length(prefix, limit)?];
    stream.read_exact(&mut body).await.map_err(|_| InfraError::Lost)?;
    Ok(Some(decode(&body)?))
}
