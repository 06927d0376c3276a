//! Selection by chance: who is let in to a round is drawn, each participant apart, by a secret of the relay.
//!
//! A participant is drawn where HMAC-SHA-256 (RFC 2104) of its id, under a key that is drawn afresh for every span of a round, is
//! among the least part of all values. So asking again, at whichever relay, gives the same answer until the span has ended, nobody can
//! look for ids that will be drawn, and what one span drew says nothing of the next.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use unsaid_protocol::{ClientId, IdentityId};

use super::{Rounds, check_in::part};

/// A client that was not drawn comes back within this part of a span after its span has ended: late enough to spread a crowd, and
/// early enough to be drawn for the next one and to train in it.
const SPREAD: u64 = 4;

/// The probability with which a participant is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    /// The greatest draw that is let in.
    pub(super) most: u64,
}

impl Chance {
    /// The least probability that is taken: below it a round of any size would wait for a million clients.
    pub const LEAST: f64 = 1e-6;

    /// A chance of `probability`, from [`Self::LEAST`] to 1, rounded down to a multiple of 2⁻⁶⁴; none for any other number.
    pub fn new(probability: f64) -> Option<Self> {
        let values = (Self::LEAST..=1.0)
            .contains(&probability)
            .then(|| (probability * 2_f64.powi(64)) as u128)?;
        let most = u64::try_from(values.checked_sub(1)?).ok()?;
        Some(Self { most })
    }
}

/// The secret by which a span of a round draws. It is kept with the round's head, is never shown, and is forgotten with its span.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DrawKey([u8; 32]);

impl std::fmt::Debug for DrawKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrawKey") // never its bytes
    }
}

/// What was drawn for one participant: two numbers, each even over all of `u64`, that say nothing of one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    lot: u64,
    place: u64,
}

impl DrawKey {
    /// A key of random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To look for where it must not be.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn draw(&self, participant: &ClientId) -> Draw {
        let mut block = [0; 64]; // HMAC fills a key up with zeros itself
        block[..32].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(participant.as_bytes());
        let code: [u8; 32] = mac.finalize().into_bytes().into();
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&code[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Draw {
            lot: number(0),
            place: number(8),
        }
    }
}

impl Draw {
    pub(super) const fn is_let_in(self, chance: Chance) -> bool {
        self.lot <= chance.most
    }
}

impl Rounds {
    /// Whether a key has to be drawn before anyone can be: see [`Self::draw_by`].
    pub const fn wants_key(&self) -> bool {
        self.rules.chance.is_some() && self.draw_key.is_none()
    }

    /// Draws by `key` until the span ends. Until there is one, nobody is let in.
    pub fn draw_by(&mut self, key: DrawKey) {
        self.draw_key = Some(key);
    }

    /// Under which name a client is drawn: all clients of an identity together.
    pub(super) fn drawn_as(&self, client: &ClientId) -> ClientId {
        if self.rules.by_identity {
            ClientId::from_bytes(IdentityId::least_of(client.as_bytes()))
        } else {
            *client
        }
    }

    /// How long a client that was not drawn is to wait, where its span ends in `left_ms`: until then, and a part of a [`SPREAD`]th of a
    /// span more.
    pub(super) fn until_next_draw(&self, draw: Draw, left_ms: u64) -> u64 {
        let window = self.rules.policy.deadline_ms / SPREAD;
        left_ms.saturating_add(part(draw.place, window))
    }
}
