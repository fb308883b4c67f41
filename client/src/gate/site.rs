//! Who the gate is to those who pay: issues challenges, proves what is shown, and makes its own tokens. Keeps nothing but
//! its secret and the hub's certificates; the time and randomness are arguments.

use weir_protocol::amount::{Amount, Currency, Time};
use weir_protocol::http::challenge::{Details, NONCE_BYTES};
use weir_protocol::http::{
    Challenge, ChallengeError, ChargeRequest, Credential, CredentialError, Expected, Proven, Resource, SCALE, Secret,
    base64url, from_base64url,
};
use weir_protocol::id::{AccountId, PaymentId};

use super::trust::Trust;

/// Bytes of a MAC in a token.
const MAC_BYTES: usize = 16;
/// Bytes of a token before its MAC: payment, resource or zeros, end.
const TOKEN_BYTES: usize = 32 + 16 + 8;
/// Bytes of a claim's code before its target: nonce, issue, expiry, amount, flag.
const CODE_BYTES: usize = NONCE_BYTES + 8 + 8 + 8 + 1;
/// Most bytes of a claim's target: longer ones have no page that claims, only machine headers.
pub const MAX_TARGET_BYTES: usize = 512;

/// Who is paid, through which hub, and what proves that a demand is ours.
#[derive(Debug)]
pub struct Site {
    /// The protection space: by default the site's host name.
    pub realm: String,
    /// Who is paid.
    pub payee: AccountId,
    /// What everything costs.
    pub currency: Currency,
    /// The header for credentials, where it is not `Authorization`.
    pub header: Option<String>,
    /// How long a challenge can be paid.
    pub challenge_ttl_ms: u64,
    /// Whose receipts count.
    pub trust: Trust,
    /// What challenges and tokens are made with.
    pub secret: Secret,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How much must be there.
    pub amount: Amount,
    /// It is the most that the request can cost.
    pub metered: bool,
    /// For people; cut to its limit.
    pub description: Option<&'a str>,
    /// The request's method, in capitals.
    pub method: &'a str,
    /// The request's path and query, normalised.
    pub target: &'a str,
}

/// What a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The balance.
    pub payment_id: PaymentId,
    /// The resource that it opens; none: whatever the balance pays for.
    pub resource: Option<Resource>,
    /// Until when.
    pub until: Time,
}

impl Site {
    /// A demand.
    pub fn challenge(&self, ask: &Ask<'_>, now: Time, nonce: [u8; NONCE_BYTES]) -> Result<Challenge, ChallengeError> {
        self.issue(ask, now, now.plus_ms(self.challenge_ttl_ms), nonce)
    }

    /// The demand that a page shows a browser, with what takes the place of random bytes derived from the browser's own: all
    /// its tabs show the same one from `issued_at` on, and so does the page loaded again. Whichever of them is paid opens all.
    pub fn page_challenge(&self, ask: &Ask<'_>, issued_at: Time, browser: &str) -> Result<Challenge, ChallengeError> {
        let text = format!("{} {browser} {} {}", issued_at.0, ask.method, ask.target);
        self.issue(ask, issued_at, issued_at.plus_ms(self.challenge_ttl_ms), self.mac("nonce", text.as_bytes()))
    }

    fn issue(
        &self,
        ask: &Ask<'_>,
        issued_at: Time,
        expires: Time,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Challenge, ChallengeError> {
        let request = ChargeRequest {
            amount: ask.amount,
            currency: self.currency,
            description: ask.description.map(short),
            details: Details {
                hub: self.trust.hub(),
                issued_at: Some(issued_at),
                metered: ask.metered,
                resource: Some(Resource::of(ask.method, ask.target)),
                scale: SCALE,
            },
            recipient: self.payee,
        };
        Challenge::issue(&self.secret, &self.realm, &request, expires, nonce, self.header.as_deref())
    }

    /// What a credential proves.
    pub fn prove(&self, credential: &Credential) -> Result<Proven, CredentialError> {
        let expected =
            Expected { realm: &self.realm, hub: self.trust.hub(), payee: self.payee, currency: self.currency };
        credential.prove(&self.secret, &expected, |certificate, time| self.trust.trusts(certificate, time))
    }

    /// A token for a cookie: 96 characters.
    pub fn token(&self, token: &Token) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES + MAC_BYTES);
        bytes.extend_from_slice(token.payment_id.as_bytes());
        bytes.extend_from_slice(&token.resource.map_or([0; 16], |resource| resource.0));
        bytes.extend_from_slice(&token.until.0.to_le_bytes());
        let mac = self.mac("token", &bytes);
        bytes.extend_from_slice(&mac);
        base64url(&bytes)
    }

    /// What a token names, when it was made here and has not ended.
    pub fn read_token(&self, text: &str, now: Time) -> Option<Token> {
        if text.len() > 2 * (TOKEN_BYTES + MAC_BYTES) {
            return None;
        }
        let bytes = from_base64url(text)?;
        let (body, mac) = bytes.split_at_checked(TOKEN_BYTES)?;
        if mac.len() != MAC_BYTES || !self.is_mac("token", body, mac) {
            return None;
        }
        let (payment_id, rest) = body.split_first_chunk::<32>()?;
        let (resource, rest) = rest.split_first_chunk::<16>()?;
        let until = Time(u64::from_le_bytes(rest.try_into().ok()?));
        let resource = (*resource != [0; 16]).then_some(Resource(*resource));
        (now < until).then_some(Token { payment_id: PaymentId(*payment_id), resource, until })
    }

    /// What a claim's address carries, so that the demand can be made again from it: about 55 characters and the target.
    pub fn code(&self, challenge: &Challenge, ask: &Ask<'_>) -> Option<String> {
        let request = challenge.charge().ok()?;
        let nonce = from_base64url(challenge.opaque.as_deref()?)?;
        if nonce.len() != NONCE_BYTES || ask.target.len() > MAX_TARGET_BYTES || ask.method != "GET" {
            return None;
        }
        let mut bytes = nonce;
        bytes.extend_from_slice(&request.details.issued_at?.0.to_le_bytes());
        bytes.extend_from_slice(&challenge.expires_at().ok()?.0.to_le_bytes());
        bytes.extend_from_slice(&request.amount.nanos().to_le_bytes());
        bytes.push(u8::from(request.details.metered));
        bytes.extend_from_slice(ask.target.as_bytes());
        Some(base64url(&bytes))
    }

    /// The demand that an address with this id and code is about, and its target. `describe` says what the target is called
    /// now; an id that does not come out again, since a title or the secret changed, gives none.
    pub fn from_code(
        &self,
        id: &str,
        code: &str,
        describe: impl FnOnce(&str) -> Option<String>,
    ) -> Option<(Challenge, String)> {
        if code.len() > 2 * (CODE_BYTES + MAX_TARGET_BYTES) {
            return None;
        }
        let bytes = from_base64url(code)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let (issued_at, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (amount, rest) = rest.split_first_chunk::<8>()?;
        let (metered, target) = rest.split_first()?;
        let target = std::str::from_utf8(target).ok().filter(|target| target.len() <= MAX_TARGET_BYTES)?;
        let description = describe(target);
        let ask = Ask {
            amount: Amount::from_nanos(u64::from_le_bytes(*amount)),
            metered: *metered == 1,
            description: description.as_deref(),
            method: "GET",
            target,
        };
        let [issued_at, expires] = [issued_at, expires].map(|time| Time(u64::from_le_bytes(*time)));
        let challenge = self.issue(&ask, issued_at, expires, *nonce).ok()?;
        (challenge.id == id).then(|| (challenge, target.to_owned()))
    }

    /// What binds a claim to the browser that got the page: it has a random cookie, the page's address this.
    pub fn claim_key(&self, id: &str, browser: &str) -> String {
        base64url(&self.mac("claim", format!("{id} {browser}").as_bytes()))
    }

    /// Whether it is.
    pub fn is_claim_key(&self, id: &str, browser: &str, key: &str) -> bool {
        let mac = from_base64url(key).filter(|mac| mac.len() == MAC_BYTES);
        mac.is_some_and(|mac| self.is_mac("claim", format!("{id} {browser}").as_bytes(), &mac))
    }

    /// What is said of a payment to the upstream, so that it can tell who said it: text and MAC.
    pub fn mac(&self, word: &str, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mac = self.secret.mac(&worded(word, bytes));
        let mut short = [0; MAC_BYTES];
        short.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        short
    }

    fn is_mac(&self, word: &str, bytes: &[u8], mac: &[u8]) -> bool {
        self.secret.is_mac(&worded(word, bytes), mac)
    }
}

/// A MAC for one thing never passes for another: a zero byte ends the word, and no challenge has one.
fn worded(word: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = word.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(bytes);
    text
}

/// Cut to the limit of a description, at a character.
fn short(text: &str) -> String {
    let limit = weir_protocol::http::challenge::MAX_DESCRIPTION_BYTES;
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test should say where")]
mod tests {
    use super::*;
    use weir_protocol::id::HubId;
    use weir_protocol::keys::SecretKey;

    fn site() -> Site {
        let key = |seed: u8| SecretKey::from_bytes(&[seed; 32]).unwrap().public();
        Site {
            realm: "news.example".to_owned(),
            payee: AccountId(key(2)),
            currency: Currency::EUR,
            header: None,
            challenge_ttl_ms: 600_000,
            trust: Trust::new(HubId(key(1))),
            secret: Secret::from([7; 32]),
        }
    }

    const ASK: Ask<'static> = Ask {
        amount: Amount::from_nanos(50_000_000),
        metered: false,
        description: Some("Über Wehre"),
        method: "GET",
        target: "/articles/1?page=2",
    };

    #[test]
    fn claim_code_gives_the_same_challenge_again_and_nothing_else() {
        let site = site();
        let challenge = site.challenge(&ASK, Time(1_790_000_000_000), [5; 16]).unwrap();
        let code = site.code(&challenge, &ASK).unwrap();
        let again = site.from_code(&challenge.id, &code, |_| ASK.description.map(str::to_owned)).unwrap();
        assert_eq!(again, (challenge.clone(), ASK.target.to_owned()));
        assert!(site.from_code(&challenge.id, &code, |_| None).is_none(), "another title");
        assert!(site.from_code("AAAA", &code, |_| ASK.description.map(str::to_owned)).is_none());
        for at in 0..code.len() {
            let mut wrong = code.clone().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).unwrap();
            let found = site.from_code(&challenge.id, &wrong, |_| ASK.description.map(str::to_owned));
            assert!(found.is_none_or(|found| found.0 == challenge), "character {at}");
        }
        let long = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
        assert!(site.code(&challenge, &Ask { target: &long, ..ASK }).is_none());
        assert!(site.code(&challenge, &Ask { target: &long[1..], ..ASK }).is_some());
    }

    #[test]
    fn page_shows_a_browser_one_demand_and_others_another() {
        let site = site();
        let one = |at: u64, browser: &str| site.page_challenge(&ASK, Time(at), browser).unwrap();
        let first = one(1_790_000_000_000, "a");
        assert_eq!(first, one(1_790_000_000_000, "a"));
        let code = site.code(&first, &ASK).unwrap();
        assert_eq!(site.from_code(&first.id, &code, |_| ASK.description.map(str::to_owned)).unwrap().0, first);
        assert_ne!(first.opaque, one(1_790_000_000_000, "b").opaque);
        assert_ne!(first.opaque, one(1_790_000_300_000, "a").opaque);
        let other = Ask { target: "/articles/2", ..ASK };
        assert_ne!(first.opaque, site.page_challenge(&other, Time(1_790_000_000_000), "a").unwrap().opaque);
    }

    #[test]
    fn token_is_read_until_its_end_and_not_when_changed() {
        let site = site();
        for resource in [None, Some(Resource([3; 16]))] {
            let token = Token { payment_id: PaymentId([8; 32]), resource, until: Time(1_000) };
            let text = site.token(&token);
            assert_eq!(text.len(), 96);
            assert_eq!(site.read_token(&text, Time(999)), Some(token));
            assert_eq!(site.read_token(&text, Time(1_000)), None);
            for at in 0..text.len() {
                let mut wrong = text.clone().into_bytes();
                wrong[at] ^= 1;
                let wrong = String::from_utf8(wrong).unwrap();
                assert_eq!(site.read_token(&wrong, Time(0)), None, "character {at}");
            }
        }
        assert_eq!(site.read_token(&"A".repeat(1_000), Time(0)), None);
    }

    #[test]
    fn claim_key_is_of_one_challenge_and_one_browser() {
        let site = site();
        let key = site.claim_key("id", "browser");
        assert!(site.is_claim_key("id", "browser", &key));
        assert!(!site.is_claim_key("id2", "browser", &key));
        assert!(!site.is_claim_key("id", "browser2", &key));
        assert!(!site.is_claim_key("id", "browser", ""));
    }

    #[test]
    fn description_is_cut_at_a_character() {
        assert_eq!(short("a"), "a");
        assert_eq!(short(&"ü".repeat(100)).len(), 120);
        assert_eq!(short(&format!("a{}", "ü".repeat(100))).len(), 119);
    }
}
