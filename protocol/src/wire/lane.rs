//! A lane's stream: frames one way, answers the other.

use serde::{Deserialize, Serialize};

use super::hello::Attach;
use super::{DecodeError, LENGTH_BYTES, decode, encode};
use crate::act::{Close, Void};
use crate::commit::{ActProof, Answer};
use crate::keys::Signature;
use crate::merkle::Path;
use crate::payment::codec::Input;
use crate::payment::{Frame, Head};
use crate::reject::Reject;

/// What a client sends on a lane's stream, after the opening [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneRequest {
    /// Payments.
    Frame(Frame),
    /// Again after a refusal; the same lane.
    Attach(Attach),
}

/// The number of [`LaneRequest::Frame`] on the wire.
const FRAME: u8 = 0;

impl LaneRequest {
    /// Decodes a body: what [`decode`] gives, at less cost for a frame.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let Some((&FRAME, frame)) = body.split_first() else { return decode(body) };
        let mut input = Input(frame);
        let frame = Frame::decode(&mut input)?;
        if input.0.is_empty() { Ok(Self::Frame(frame)) } else { Err(DecodeError::Malformed) }
    }

    /// Encodes the message with its length in front: what [`encode`] gives, at less cost for a frame.
    pub fn encode(&self) -> Vec<u8> {
        let Self::Frame(frame) = self else { return encode(self) };
        let mut bytes = vec![0; LENGTH_BYTES];
        bytes.push(FRAME);
        frame.encode_into(&mut bytes);
        let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        if let Some(prefix) = bytes.first_chunk_mut() {
            *prefix = length.to_le_bytes();
        }
        bytes
    }
}

/// What the hub sends on a lane's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneReply {
    /// The attach is done and durable.
    Attached(Box<Attached>),
    /// A group was taken and is durable.
    Taken(Box<Answer>),
    /// A hint that leaves no trace: nothing from `fault` on was taken from what this stream sent. The hub hears only an
    /// attach on this stream from now on.
    Refused {
        /// Why.
        reject: Reject,
        /// The sequence at fault, or 0.
        fault: u64,
    },
    /// The channel is closed: nothing more is ever taken.
    Closed(Box<ClosedLane>),
}

/// The hub's word on a lane, from one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// What is given up for ever.
    pub void: Void,
    /// The lane's head.
    pub head: Head,
    /// The lane key's own signature over the head; none before the first payment.
    pub signature: Option<Signature>,
    /// The void's place in its commit.
    pub proof: ActProof,
}

/// The answer to an attach when the channel is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedLane {
    /// The close.
    pub close: Close,
    /// Its place in its commit.
    pub proof: ActProof,
    /// The lane's last head.
    pub head: Head,
    /// The lane key's own signature over the head; none before the first payment.
    pub signature: Option<Signature>,
    /// From that head to the close's root of heads; its index is the lane's number.
    pub path: Path,
}
