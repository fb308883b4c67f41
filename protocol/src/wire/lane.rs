//! A lane's stream: frames one way, answers the other.

use serde::{Deserialize, Serialize};

use super::hello::Attach;
use super::{DecodeError, LENGTH_BYTES, decode, encode};
use crate::act::{Close, Void};
use crate::amount::Time;
use crate::commit::{ActProof, Answer};
use crate::hash::Hash;
use crate::keys::Signature;
use crate::merkle::{Path, PathParts};
use crate::payment::codec::{Input, encode_frame, put_varint};
use crate::payment::{Frame, Head, Run};
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
        frame_message(frame.previous_sequence, &frame.run, frame.valid_until, &frame.signature)
    }
}

/// The message of [`LaneRequest::Frame`] with its length in front, from the parts of a frame.
pub(crate) fn frame_message(previous: u64, run: &Run, valid_until: Time, signature: &Signature) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.push(FRAME);
    encode_frame(previous, run, valid_until, signature, &mut bytes);
    let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(prefix) = bytes.first_chunk_mut() {
        *prefix = length.to_le_bytes();
    }
    bytes
}

/// The number of [`LaneReply::Taken`] on the wire.
const TAKEN: u8 = 1;

/// The parts of an [`Answer`], for a hub that answers many groups of one commit.
#[derive(Debug, Clone, Copy)]
pub struct AnswerParts<'a> {
    /// The first payment's sequence.
    pub first_sequence: u64,
    /// The last payment's sequence.
    pub through_sequence: u64,
    /// How many payments.
    pub count: u32,
    /// Merkle root of the payments' leaves.
    pub leaves: &'a Hash,
    /// The encoded [`SignedCommit`](crate::commit::SignedCommit): the same for every group of the commit.
    pub commit: &'a [u8],
    /// The group's place in the commit.
    pub path: PathParts<'a>,
}

impl AnswerParts<'_> {
    /// Appends the message of [`LaneReply::Taken`] with its length in front.
    pub fn append(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        bytes.push(TAKEN);
        put_varint(self.first_sequence, bytes);
        put_varint(self.through_sequence, bytes);
        put_varint(u64::from(self.count), bytes);
        bytes.extend_from_slice(&self.leaves.0);
        bytes.extend_from_slice(self.commit);
        put_varint(u64::from(self.path.index), bytes);
        put_varint(u64::from(self.path.count), bytes);
        put_varint(self.path.siblings().count() as u64, bytes);
        for hash in self.path.siblings() {
            bytes.extend_from_slice(&hash.0);
        }
        let length = u32::try_from(bytes.len() - start - LENGTH_BYTES).unwrap_or(u32::MAX);
        if let Some(prefix) = bytes.get_mut(start..start + LENGTH_BYTES) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use crate::amount::Time;
    use crate::commit::{Commit, SignedCommit};
    use crate::id::HubId;
    use crate::keys::PublicKey;
    use crate::merkle::Tree;

    #[test]
    fn appended_answer_is_the_encoded_answer_at_every_place_of_a_tree() {
        let commit = Commit {
            hub: HubId(PublicKey([1; 32])),
            chain: 1 << 40,
            number: 300,
            time: Time(1 << 41),
            history: Hash([2; 32]),
            items: 5,
            root: Hash([3; 32]),
        };
        let commit = SignedCommit { commit, signature: Signature([4; 64]) };
        let tree = Tree::new((0..5).map(|at| Hash([at; 32])).collect());
        let encoded = postcard::to_stdvec(&commit).unwrap();
        for index in 0..5 {
            let answer = Answer {
                first_sequence: 200,
                through_sequence: 1 << 33,
                count: 130,
                leaves: Hash([9; 32]),
                commit,
                path: tree.path(index).unwrap(),
            };
            let parts = AnswerParts {
                first_sequence: answer.first_sequence,
                through_sequence: answer.through_sequence,
                count: answer.count,
                leaves: &answer.leaves,
                commit: &encoded,
                path: tree.path_parts(index).unwrap(),
            };
            let mut bytes = vec![7];
            parts.append(&mut bytes);
            assert_eq!(bytes.split_off(1), encode(&LaneReply::Taken(Box::new(answer))));
        }
    }
}
