//! Identities: enrolment, signed requests, replay, quotas, and revocation.

use std::{path::Path, sync::Arc};

use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use unsaid_protocol::{
    CheckIn, CheckInReply, Credential, Enrolled, Enrolment, IdentityId, Invitation, ProblemKind, PublicKey,
    RelayIdentity, Signature, SignedUpdate, UpdateFrame, UpdateReply,
    identity::{CHECK_IN_WINDOW_MS, IDENTITY_HEADER, check_in_bytes, enrolment_bytes, update_bytes},
};
use unsaid_relay::{
    Relay, RelayOptions, StartError,
    clock::{Clock, SystemClock},
    http::{admin::AdminToken, identities::EnrolmentLimits},
    key::RelayKey,
    store::{RedbStore, Store},
};

use crate::harness::*;

pub const TOKEN: &str = "operator-0123456789";
pub const OPEN: &str = "identity.required=open";
pub const INVITED: &str = "identity.required=invitation";

/// A relay's key, the operator's token, and the usual limits.
pub fn options(folder: &Path) -> RelayOptions {
    let path = folder.join("relay.key");
    let key = RelayKey::read(&path).or_else(|_| RelayKey::create(&path));
    RelayOptions {
        key: Some(key.unwrap()),
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    }
}

/// A relay over the file of `folder`.
pub async fn relay_in(folder: &Path, overrides: &[&str]) -> TestRelay {
    let store = RedbStore::open(&folder.join("relay.redb")).unwrap();
    TestRelay::over(Arc::new(store), overrides, options(folder)).await
}

/// Somebody with a key.
#[derive(Clone)]
pub struct Person {
    pub key: SigningKey,
    pub relay: PublicKey,
}

impl Person {
    pub async fn of(seed: u8, api: &Api) -> Self {
        let answer = api.get("/v1/identities").await;
        let relay: RelayIdentity = answer.json().await.unwrap();
        Self {
            key: SigningKey::from_bytes(&[seed; 32]),
            relay: relay.relay,
        }
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    pub fn id(&self) -> IdentityId {
        IdentityId::of(&self.public())
    }

    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(self.key.sign(bytes).to_bytes())
    }

    fn credential(&self, signed: &[u8], time_ms: Option<u64>) -> String {
        let (key, signature) = (self.public(), self.sign(signed));
        let credential = Credential {
            key,
            signature,
            time_ms,
        };
        credential.to_string()
    }

    pub async fn enrol(&self, api: &Api, invitation: Option<Invitation>) -> Answer<Enrolled> {
        let signed = enrolment_bytes(&self.relay, &self.public(), invitation.as_ref());
        let body = json!({
            "public_key": self.public(), "invitation": invitation, "signature": self.sign(&signed),
        });
        let request = api.http.post(api.url("/v1/identities")).json(&body);
        answer(request.send().await.unwrap()).await.unwrap()
    }

    pub fn check_in_header(&self, message: &CheckIn, time_ms: u64) -> String {
        self.credential(&check_in_bytes(&self.relay, message, time_ms), Some(time_ms))
    }

    pub fn update_header(&self, frame: &UpdateFrame) -> String {
        let bytes = frame.encode();
        self.credential(&update_bytes(&self.relay, &SignedUpdate::of(frame, &bytes)), None)
    }

    pub async fn check_in(&self, api: &Api, client: u8) -> Answer<CheckInReply> {
        let message = CheckIn {
            client: client_id(client),
            manifest: api.state().await.manifest,
        };
        let header = self.check_in_header(&message, SystemClock.now_ms());
        check_in(api, &message, &header).await.unwrap()
    }

    pub async fn send(&self, api: &Api, frame: &UpdateFrame) -> Answer<UpdateReply> {
        send(api, frame, &self.update_header(frame)).await.unwrap()
    }

    /// Check-in and update.
    pub async fn take_part(&self, api: &Api, client: u8) -> UpdateFrame {
        let reply = self.check_in(api, client).await;
        assert!(
            matches!(reply, Ok(CheckInReply::Train { .. })),
            "{client}: {reply:?}"
        );
        let frame = api.frame(client).await;
        assert_eq!(
            self.send(api, &frame).await,
            Ok(accepted(&frame)),
            "client {client}"
        );
        frame
    }
}

pub async fn check_in(api: &Api, message: &CheckIn, header: &str) -> reqwest::Result<Answer<CheckInReply>> {
    let request = api.http.post(api.url("/v1/tasks/tiny/check-in")).json(message);
    answer(request.header(IDENTITY_HEADER, header).send().await?).await
}

pub async fn send(api: &Api, frame: &UpdateFrame, header: &str) -> reqwest::Result<Answer<UpdateReply>> {
    let request = api.update_request(frame.encode()).header(IDENTITY_HEADER, header);
    answer(request.send().await?).await
}

pub async fn operate(api: &Api, path: &str, body: Value) -> Answer<Value> {
    let request = api
        .http
        .post(api.url(&format!("/v1/admin/{path}")))
        .bearer_auth(TOKEN);
    answer(request.json(&body).send().await.unwrap()).await.unwrap()
}

pub async fn invitations(api: &Api, count: usize) -> Vec<Invitation> {
    let made = operate(api, "invitations", json!({ "count": count }))
        .await
        .unwrap();
    let made: Vec<Invitation> = serde_json::from_value(made["invitations"].clone()).unwrap();
    assert_eq!(made.len(), count);
    made
}

/// The operator's list.
pub async fn listed(api: &Api) -> Vec<Value> {
    let (mut all, mut query) = (Vec::new(), String::new());
    loop {
        let url = api.url(&format!("/v1/admin/identities{query}"));
        let response = api.http.get(url).bearer_auth(TOKEN).send().await.unwrap();
        let page: Value = response.json().await.unwrap();
        all.extend(page["identities"].as_array().unwrap().clone());
        match page["after"].as_str() {
            Some(after) => query = format!("?after={after}"),
            None => return all,
        }
    }
}

pub async fn entry(api: &Api, id: IdentityId) -> Value {
    let all = listed(api).await;
    let found = all.into_iter().find(|it| it["identity"] == id.to_string());
    found.unwrap()
}

#[tokio::test]
async fn a_task_that_asks_for_an_identity_takes_nothing_without_one() {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = relay_in(folder.path(), &[OPEN]).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    assert_eq!(api.check_in(1).await, Err(ProblemKind::IdentityRequired));
    let frame = api.frame(1).await;
    assert_eq!(api.send(&frame).await, Err(ProblemKind::IdentityRequired));
    assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::IdentityUnknown));
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::IdentityUnknown));
    for (bytes, expected) in [
        (frame.encode(), ProblemKind::BadSignature),
        (vec![1; 40], ProblemKind::Malformed),
    ] {
        let unreadable = api.update_request(bytes).header(IDENTITY_HEADER, "none");
        let said: Answer<UpdateReply> = answer(unreadable.send().await.unwrap()).await.unwrap();
        assert_eq!(said, Err(expected), "what is no frame is not looked at further");
    }
    let enrolled = Enrolled {
        identity: person.id(),
        enrolment: Enrolment::Open,
    };
    assert_eq!(person.enrol(api, None).await, Ok(enrolled.clone()));
    assert_eq!(
        person.enrol(api, None).await,
        Ok(enrolled),
        "asking again changes nothing"
    );
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::NotCheckedIn));
    let frame = person.take_part(api, 1).await;
    assert_eq!(person.send(api, &frame).await, Ok(duplicate(&frame)));
    assert!(matches!(
        person.check_in(api, 1).await,
        Ok(CheckInReply::Wait { .. })
    ));
    assert_eq!(api.state().await.received, 1);
    let first = api.model(api.rounds().await[0].model).await;
    for client in 2..=3 {
        let another = Person::of(client, api).await;
        another.enrol(api, None).await.unwrap();
        another.take_part(api, client).await;
    }
    assert_eq!(api.rounds().await[1].model, expected_model(&first, &[1, 2, 3]));
}

/// A message that was made for older terms is told so, whatever is missing besides.
#[tokio::test]
async fn whoever_knows_other_terms_is_told_that_first() {
    let folder = tempfile::TempDir::new().unwrap();
    let before = relay_in(folder.path(), &[]).await;
    let frame = before.api.take_part(1).await;
    let manifest = before.api.state().await.manifest;
    before.stop().await;
    let relay = relay_in(folder.path(), &[OPEN]).await;
    let old_terms = relay.api.try_check_in(2, manifest).await.unwrap();
    assert_eq!(old_terms, Err(ProblemKind::WrongManifest));
    assert_eq!(
        relay.api.send(&frame).await,
        Ok(duplicate(&frame)),
        "it was counted"
    );
    let mut late = frame.clone();
    late.update = update_id(9, 9);
    assert_eq!(relay.api.send(&late).await, Err(ProblemKind::WrongManifest));
}

#[tokio::test]
async fn whoever_overhears_requests_gains_nothing_by_sending_them_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = relay_in(folder.path(), &[OPEN]).await;
    let api = &relay.api;
    let (victim, thief) = (Person::of(1, api).await, Person::of(2, api).await);
    victim.enrol(api, None).await.unwrap();
    thief.enrol(api, None).await.unwrap();

    // A check-in: again within minutes it says what it said; later it says nothing.
    let message = CheckIn {
        client: client_id(1),
        manifest: api.state().await.manifest,
    };
    let now_ms = SystemClock.now_ms();
    let header = victim.check_in_header(&message, now_ms);
    let first = check_in(api, &message, &header).await.unwrap();
    assert!(matches!(first, Ok(CheckInReply::Train { .. })));
    check_in(api, &message, &header).await.unwrap().unwrap();
    assert_eq!(api.state().await.checked_in, 1);
    for time_ms in [
        now_ms - CHECK_IN_WINDOW_MS - 10_000,
        now_ms + CHECK_IN_WINDOW_MS + 10_000,
    ] {
        let header = victim.check_in_header(&message, time_ms);
        assert_eq!(
            check_in(api, &message, &header).await.unwrap(),
            Err(ProblemKind::BadSignature)
        );
    }
    // Nor can its time, client or signer be exchanged.
    let later = header.replace(&now_ms.to_string(), &(now_ms + 1).to_string());
    let mut another = message.clone();
    another.client = client_id(7);
    let as_thief = header.replace(&victim.public().to_string(), &thief.public().to_string());
    let untimed = header.rsplit_once('.').unwrap().0.to_owned();
    for (message, header) in [
        (&message, &later),
        (&another, &header),
        (&message, &as_thief),
        (&message, &untimed),
    ] {
        let answer = check_in(api, message, header).await.unwrap();
        assert_eq!(answer, Err(ProblemKind::BadSignature));
    }

    // An update: the thief has heard all of it before the relay has.
    let frame = api.frame(1).await;
    let header = victim.update_header(&frame);
    let mut changed = frame.clone();
    changed.coordinates[0] += 1;
    let mut renamed = frame.clone();
    renamed.update = update_id(5, 5);
    for (frame, header) in [
        (&changed, &header),
        (&renamed, &header),
        (
            &frame,
            &header.replace(&victim.public().to_string(), &thief.public().to_string()),
        ),
        (&frame, &victim.check_in_header(&message, now_ms)),
        (&frame, &"not a credential".to_owned()),
    ] {
        assert_eq!(
            send(api, frame, header).await.unwrap(),
            Err(ProblemKind::BadSignature)
        );
    }
    assert_eq!(
        thief.send(api, &frame).await,
        Err(ProblemKind::NotCheckedIn),
        "signed by another"
    );
    // With a check-in of the same client id the thief has a client of its own, which touches nobody's.
    thief.check_in(api, 1).await.unwrap();
    assert_eq!(thief.send(api, &frame).await, Ok(accepted(&frame)));
    assert_eq!(
        victim.send(api, &frame).await,
        Ok(accepted(&frame)),
        "the victim's counts, too"
    );
    for _ in 0..2 {
        assert_eq!(send(api, &frame, &header).await.unwrap(), Ok(duplicate(&frame)));
    }
    assert_eq!(api.state().await.received, 2);
    assert_eq!(entry(api, victim.id()).await["tasks"][0]["updates"], 1);

    // What was said to one relay is nothing to another, of the same task and with the same people.
    let elsewhere = tempfile::TempDir::new().unwrap();
    let other = relay_in(elsewhere.path(), &[OPEN]).await;
    let there = Person::of(1, &other.api).await;
    there.enrol(&other.api, None).await.unwrap();
    assert_eq!(api.state().await.manifest, other.api.state().await.manifest);
    let captured = victim.check_in_header(&message, now_ms);
    let answer = check_in(&other.api, &message, &captured).await.unwrap();
    assert_eq!(answer, Err(ProblemKind::BadSignature));
    there.check_in(&other.api, 1).await.unwrap();
    assert_eq!(
        send(&other.api, &frame, &header).await.unwrap(),
        Err(ProblemKind::BadSignature)
    );
    let stranger = Person {
        key: SigningKey::from_bytes(&[3; 32]),
        relay: victim.relay,
    };
    assert_eq!(
        stranger.enrol(&other.api, None).await,
        Err(ProblemKind::BadSignature)
    );
}

#[tokio::test]
async fn an_invitation_is_good_for_one_key_and_only_its_hash_is_kept() {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = relay_in(folder.path(), &[INVITED]).await;
    let api = &relay.api;
    let [one, two, three] = [
        Person::of(1, api).await,
        Person::of(2, api).await,
        Person::of(3, api).await,
    ];
    assert_eq!(one.enrol(api, None).await, Err(ProblemKind::EnrolmentClosed));
    let made = invitations(api, 2).await;
    let (first, second) = (made[0], made[1]);
    assert_ne!(first, second);
    let invented = Invitation::from_bytes([9; 16]);
    assert_eq!(
        one.enrol(api, Some(invented)).await,
        Err(ProblemKind::BadInvitation)
    );
    let enrolled = Enrolled {
        identity: one.id(),
        enrolment: Enrolment::Invitation,
    };
    assert_eq!(one.enrol(api, Some(first)).await, Ok(enrolled.clone()));
    assert_eq!(one.enrol(api, Some(first)).await, Ok(enrolled.clone()));
    assert_eq!(
        one.enrol(api, None).await,
        Ok(enrolled.clone()),
        "who is known needs none"
    );
    assert_eq!(one.enrol(api, Some(second)).await, Ok(enrolled), "and uses none");
    assert_eq!(two.enrol(api, Some(first)).await, Err(ProblemKind::BadInvitation));
    // A signature is for one invitation: who hears it cannot use it with another.
    let signed = enrolment_bytes(&two.relay, &two.public(), Some(&first));
    let body = json!({ "public_key": two.public(), "invitation": second, "signature": two.sign(&signed) });
    let request = api.http.post(api.url("/v1/identities")).json(&body);
    let exchanged: Answer<Enrolled> = answer(request.send().await.unwrap()).await.unwrap();
    assert_eq!(exchanged, Err(ProblemKind::BadSignature));
    two.enrol(api, Some(second)).await.unwrap();
    one.take_part(api, 1).await;
    two.take_part(api, 2).await;
    assert_eq!(three.check_in(api, 3).await, Err(ProblemKind::IdentityUnknown));
    let unauthorized = api
        .http
        .post(api.url("/v1/admin/invitations"))
        .json(&json!({ "count": 1 }));
    assert_eq!(unauthorized.send().await.unwrap().status().as_u16(), 401);
    for count in [0, 1_001] {
        let refused = operate(api, "invitations", json!({ "count": count })).await;
        assert_eq!(refused, Err(ProblemKind::Malformed));
    }
    relay.stop().await;
    let file = std::fs::read(folder.path().join("relay.redb")).unwrap();
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(holds(first.hash().as_bytes()), "the control");
    assert!(!holds(first.as_bytes()) && !holds(String::from(first).as_bytes()));
}

#[tokio::test]
async fn an_open_identity_is_none_where_invitations_are_asked_for_until_it_brings_one() {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = relay_in(folder.path(), &[OPEN]).await;
    let person = Person::of(1, &relay.api).await;
    person.enrol(&relay.api, None).await.unwrap();
    relay.stop().await;
    let relay = relay_in(folder.path(), &[INVITED]).await;
    let api = &relay.api;
    assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::EnrolmentClosed));
    let invitation = invitations(api, 1).await[0];
    let enrolled = person.enrol(api, Some(invitation)).await.unwrap();
    assert_eq!(enrolled.enrolment, Enrolment::Invitation);
    person.take_part(api, 1).await;
}

#[tokio::test]
async fn a_revoked_identity_counts_no_more_at_once_and_after_a_restart_and_what_was_counted_stays() {
    let folder = tempfile::TempDir::new().unwrap();
    let relay = relay_in(folder.path(), &[OPEN, "rounds.target_clients=9"]).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    person.enrol(api, None).await.unwrap();
    let frame = person.take_part(api, 1).await;
    let another = Person::of(2, api).await;
    another.enrol(api, None).await.unwrap();
    another.check_in(api, 2).await.unwrap();
    let late = api.frame(2).await;
    for who in [&person, &another] {
        let path = format!("identities/{}/revoke", who.id());
        let first = operate(api, &path, json!({})).await.unwrap();
        assert_eq!(
            operate(api, &path, json!({})).await.unwrap(),
            first,
            "revoked once"
        );
    }
    let unknown = operate(api, &format!("identities/{}/revoke", "0".repeat(64)), json!({})).await;
    assert_eq!(unknown, Err(ProblemKind::NotFound));
    let revoked = ProblemKind::IdentityRevoked;
    for _ in 0..2 {
        assert_eq!(person.check_in(api, 1).await, Err(revoked));
        assert_eq!(another.send(api, &late).await, Err(revoked), "it had checked in");
    }
    assert_eq!(person.enrol(api, None).await, Err(revoked));
    let invitation = invitations(api, 1).await[0];
    assert_eq!(person.enrol(api, Some(invitation)).await, Err(revoked));
    relay.stop().await;
    let relay = relay_in(folder.path(), &[OPEN, "rounds.target_clients=9"]).await;
    let api = &relay.api;
    assert_eq!(person.check_in(api, 1).await, Err(revoked));
    assert_eq!(another.send(api, &late).await, Err(revoked));
    assert_eq!(
        api.state().await.received,
        1,
        "what was acknowledged stays counted"
    );
    assert_eq!(person.send(api, &frame).await, Ok(duplicate(&frame)));
    let entry = entry(api, person.id()).await;
    assert!(
        entry["revoked_ms"].is_u64() && entry["tasks"][0]["updates"] == 1,
        "{entry}"
    );
}

#[tokio::test]
async fn an_identity_has_its_share_of_a_round_and_of_a_day() {
    let folder = tempfile::TempDir::new().unwrap();
    let overrides = [
        OPEN,
        "identity.updates_per_round=2",
        "identity.updates_per_day=5",
        "rounds.min_clients=2",
        "rounds.target_clients=3",
    ];
    let relay = relay_in(folder.path(), &overrides).await;
    let api = &relay.api;
    let (person, others) = (Person::of(1, api).await, Person::of(2, api).await);
    person.enrol(api, None).await.unwrap();
    others.enrol(api, None).await.unwrap();
    let spent = ProblemKind::QuotaSpent;
    for round in 1..=2 {
        // Several tabs of one browser, up to its share of the round.
        person.check_in(api, 1).await.unwrap();
        person.check_in(api, 2).await.unwrap();
        assert_eq!(person.check_in(api, 3).await, Err(spent), "round {round}");
        person.check_in(api, 1).await.unwrap();
        let unasked = api.frame(3).await;
        assert_eq!(person.send(api, &unasked).await, Err(ProblemKind::NotCheckedIn));
        let counted = person.take_part(api, 1).await;
        person.take_part(api, 2).await;
        assert_eq!(person.send(api, &unasked).await, Err(spent));
        let mut other_bytes = counted.clone();
        other_bytes.coordinates[0] += 1;
        assert_eq!(
            person.send(api, &other_bytes).await,
            Err(ProblemKind::UpdateConflict),
            "an id that is known is looked at before the share"
        );
        others.take_part(api, 1).await;
        assert_eq!(api.state().await.round, round + 1);
    }
    // One is left of the day, and two cannot be under way for it.
    person.check_in(api, 1).await.unwrap();
    assert_eq!(person.check_in(api, 2).await, Err(spent));
    let frame = person.take_part(api, 1).await;
    assert_eq!(person.send(api, &frame).await, Ok(duplicate(&frame)));
    assert_eq!(person.check_in(api, 2).await, Err(spent));
    relay.stop().await;
    let relay = relay_in(folder.path(), &overrides).await;
    assert_eq!(
        person.check_in(&relay.api, 2).await,
        Err(spent),
        "after a restart, too"
    );
    assert_eq!(entry(&relay.api, person.id()).await["tasks"][0]["updates"], 5);
}

#[tokio::test]
async fn enrolment_without_invitations_is_bounded_by_address_and_in_all() {
    let folder = tempfile::TempDir::new().unwrap();
    let limited = |per_address_and_day, most| RelayOptions {
        enrolment: EnrolmentLimits {
            per_address_and_day,
            most,
        },
        ..options(folder.path())
    };
    let relay = TestRelay::over(FaultyStore::new(), &[OPEN], limited(Some(2), 100)).await;
    let api = &relay.api;
    for seed in 1..=2 {
        let person = Person::of(seed, api).await;
        for _ in 0..3 {
            person.enrol(api, None).await.unwrap();
        }
    }
    let third = Person::of(3, api).await;
    assert_eq!(third.enrol(api, None).await, Err(ProblemKind::EnrolmentLimited));
    Person::of(1, api).await.enrol(api, None).await.unwrap();
    let invitation = invitations(api, 1).await[0];
    third.enrol(api, Some(invitation)).await.unwrap();

    let relay = TestRelay::over(FaultyStore::new(), &[OPEN], limited(None, 2)).await;
    let api = &relay.api;
    for seed in 1..=2 {
        Person::of(seed, api).await.enrol(api, None).await.unwrap();
    }
    let third = Person::of(3, api).await;
    assert_eq!(third.enrol(api, None).await, Err(ProblemKind::EnrolmentLimited));
    // Whoever is invited gives its place to another.
    let first = Person::of(1, api).await;
    let invitation = invitations(api, 1).await[0];
    first.enrol(api, Some(invitation)).await.unwrap();
    third.enrol(api, None).await.unwrap();
}

#[tokio::test]
async fn a_relay_without_a_key_starts_no_task_that_asks_for_identities() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store: Arc<dyn Store> = FaultyStore::new();
    let opened = Relay::open(vec![task(&[OPEN])], &store, &clock, RelayOptions::default());
    let error = opened.err().unwrap();
    assert!(matches!(error, StartError::NoKey(_)));
    assert!(error.to_string().contains("--key"), "{error}");
    let relay = TestRelay::start(&[]).await;
    assert_eq!(relay.api.get("/v1/identities").await.status().as_u16(), 404);
}
