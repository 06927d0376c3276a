//! Identities: enrolment, signed requests, replay, quotas, revocation, and the relay's own ledger.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use ed25519_dalek::{Signer as _, SigningKey};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use unsaid_privacy::{Adjacency, Cost, Encoding, LocalNoise};
use unsaid_protocol::{
    CheckIn, CheckInReply, ContentHash, Credential, Enrolled, Enrolment, IdentityId, Invitation, ProblemKind,
    PublicKey, RelayIdentity, RoundState, Signature, SignedUpdate, UpdateFrame, UpdateReply,
    identity::{CHECK_IN_WINDOW_MS, IDENTITY_HEADER, check_in_bytes, enrolment_bytes, update_bytes},
};
use unsaid_relay::{
    Relay, RelayOptions, StartError,
    clock::{Clock, SystemClock},
    http::{admin::AdminToken, identities::EnrolmentLimits},
    key::RelayKey,
    store::{RedbStore, Store},
};

use crate::{harness::*, program::*};

const TOKEN: &str = "operator-0123456789";
const OPEN: &str = "identity.required=open";
const INVITED: &str = "identity.required=invitation";

/// A relay's key, the operator's token, and the usual limits.
fn options(folder: &Path) -> RelayOptions {
    let path = folder.join("relay.key");
    let key = RelayKey::read(&path).or_else(|_| RelayKey::create(&path));
    RelayOptions {
        key: Some(key.unwrap()),
        admin_token: AdminToken::new(TOKEN),
        ..RelayOptions::default()
    }
}

/// A relay over the file of `folder`.
async fn relay_in(folder: &Path, overrides: &[&str]) -> TestRelay {
    let store = RedbStore::open(&folder.join("relay.redb")).unwrap();
    TestRelay::over(Arc::new(store), overrides, options(folder)).await
}

/// Somebody with a key.
#[derive(Clone)]
pub struct Person {
    key: SigningKey,
    relay: PublicKey,
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

    fn check_in_header(&self, message: &CheckIn, time_ms: u64) -> String {
        self.credential(&check_in_bytes(&self.relay, message, time_ms), Some(time_ms))
    }

    fn update_header(&self, frame: &UpdateFrame) -> String {
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

async fn check_in(api: &Api, message: &CheckIn, header: &str) -> reqwest::Result<Answer<CheckInReply>> {
    let request = api.http.post(api.url("/v1/tasks/tiny/check-in")).json(message);
    answer(request.header(IDENTITY_HEADER, header).send().await?).await
}

async fn send(api: &Api, frame: &UpdateFrame, header: &str) -> reqwest::Result<Answer<UpdateReply>> {
    let request = api.update_request(frame.encode()).header(IDENTITY_HEADER, header);
    answer(request.send().await?).await
}

async fn operate(api: &Api, path: &str, body: Value) -> Answer<Value> {
    let request = api
        .http
        .post(api.url(&format!("/v1/admin/{path}")))
        .bearer_auth(TOKEN);
    answer(request.json(&body).send().await.unwrap()).await.unwrap()
}

async fn invitations(api: &Api, count: usize) -> Vec<Invitation> {
    let made = operate(api, "invitations", json!({ "count": count }))
        .await
        .unwrap();
    let made: Vec<Invitation> = serde_json::from_value(made["invitations"].clone()).unwrap();
    assert_eq!(made.len(), count);
    made
}

/// The operator's list.
async fn listed(api: &Api) -> Vec<Value> {
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

async fn entry(api: &Api, id: IdentityId) -> Value {
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
        person.take_part(api, 1).await;
        person.take_part(api, 2).await;
        assert_eq!(person.send(api, &unasked).await, Err(spent));
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

/// What `updates` of the tiny task with this noise cost, by the client's own way of counting.
fn local_cost(noise_multiplier: f64, updates: u64) -> Cost {
    let encoding = Encoding::new(1.0, GRID_STEP, PARAMETERS).unwrap();
    let noise = LocalNoise::new(&encoding, noise_multiplier).unwrap();
    Cost::from(noise.rho(Adjacency::ReplaceOne)).times(updates)
}

#[tokio::test]
async fn the_relay_counts_what_updates_cost_and_takes_no_more_than_its_budget() {
    let folder = tempfile::TempDir::new().unwrap();
    let epsilon = |updates| local_cost(8.0, updates).epsilon(1e-6).unwrap();
    let max = format!("identity.max_epsilon={}", f64::midpoint(epsilon(2), epsilon(3)));
    let overrides = [
        OPEN,
        "privacy.mode=local",
        "privacy.noise_multiplier=8",
        &max,
        "identity.delta=1e-6",
        "rounds.min_clients=1",
        "rounds.target_clients=1",
    ];
    let relay = relay_in(folder.path(), &overrides).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    person.enrol(api, None).await.unwrap();
    assert_eq!(entry(api, person.id()).await["tasks"], json!([]));
    for updates in 1..=2_u64 {
        person.take_part(api, 1).await;
        let part = &entry(api, person.id()).await["tasks"][0];
        assert_eq!(part["updates"], updates);
        assert_eq!(
            part["epsilon"].as_f64(),
            Some(epsilon(updates)),
            "the client's own ledger says the same"
        );
        assert_eq!(part["delta"].as_f64(), Some(1e-6));
        let total = &entry(api, person.id()).await["total"];
        assert_eq!(total["updates"], updates);
        assert_eq!(
            total["epsilon"].as_f64(),
            local_cost(8.0, updates).epsilon(1e-5).ok()
        );
    }
    assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::RelayBudgetSpent));
    relay.stop().await;
    let relay = relay_in(folder.path(), &overrides).await;
    assert_eq!(
        person.check_in(&relay.api, 1).await,
        Err(ProblemKind::RelayBudgetSpent)
    );
    let other = Person::of(2, &relay.api).await;
    other.enrol(&relay.api, None).await.unwrap();
    other.take_part(&relay.api, 1).await;
    let figures = relay.api.http.get(relay.api.url("/metrics")).bearer_auth(TOKEN);
    let figures = figures.send().await.unwrap().text().await.unwrap();
    for line in [
        "unsaid_identities_enrolled 2".to_owned(),
        "unsaid_identities_revoked 0".to_owned(),
        "unsaid_invitations_unused 0".to_owned(),
        format!("unsaid_task_identity_epsilon_max{{task=\"tiny\"}} {}", epsilon(1)),
    ] {
        assert!(figures.lines().any(|found| found == line), "{line} in {figures}");
    }
    assert!(!figures.contains(&person.id().to_string()));
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

/// Nothing is acknowledged whose cost is not in the account, and an account that cannot be read is not taken for an empty one.
#[tokio::test]
async fn a_failed_commit_is_in_no_account() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = FaultyStore::new();
    let relay = TestRelay::over(store.clone(), &[OPEN], options(folder.path())).await;
    let api = &relay.api;
    let person = Person::of(1, api).await;
    person.enrol(api, None).await.unwrap();
    person.check_in(api, 1).await.unwrap();
    let frame = api.frame(1).await;
    store.set(Fault::BeforeCommit);
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::Unavailable));
    store.set(Fault::AfterCommit);
    assert_eq!(person.send(api, &frame).await, Err(ProblemKind::Unavailable));
    store.set(Fault::None);
    until("it is counted", async || {
        person.send(api, &frame).await == Ok(duplicate(&frame))
    })
    .await;
    assert_eq!(entry(api, person.id()).await["tasks"][0]["updates"], 1);
}

/// Two relays of one database: what one was told the other knows at once, and a revocation reaches a client between its check-in and its
/// update.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_of_one_database_know_the_same_identities() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let overrides = [
        INVITED,
        "privacy.mode=local",
        "privacy.noise_multiplier=8",
        "identity.updates_per_day=2",
        "rounds.min_clients=1",
        "rounds.target_clients=1",
    ];
    let start = async || {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        TestRelay::over(store, &overrides, options(folder.path())).await
    };
    let (here, there) = (start().await, start().await);
    let (person, another) = (Person::of(1, &here.api).await, Person::of(2, &there.api).await);
    let made = invitations(&here.api, 2).await;
    person.enrol(&there.api, Some(made[0])).await.unwrap();
    assert_eq!(
        person.enrol(&here.api, Some(made[0])).await,
        Ok(person.enrol(&there.api, None).await.unwrap())
    );
    assert_eq!(
        another.enrol(&here.api, Some(made[0])).await,
        Err(ProblemKind::BadInvitation)
    );
    another.enrol(&here.api, Some(made[1])).await.unwrap();
    let unknown = Invitation::from_bytes([9; 16]);
    assert_eq!(
        Person::of(3, &here.api)
            .await
            .enrol(&here.api, Some(unknown))
            .await,
        Err(ProblemKind::BadInvitation)
    );

    // One account, whichever relay counts.
    let first = person.take_part(&here.api, 1).await;
    until("the other opens the round", async || {
        there.api.state().await.round == 2
    })
    .await;
    let second = person.take_part(&there.api, 1).await;
    for relay in [&here, &there] {
        let api = &relay.api;
        until("the round opens", async || api.state().await.round == 3).await;
        assert_eq!(person.check_in(api, 1).await, Err(ProblemKind::QuotaSpent));
        for frame in [&first, &second] {
            assert_eq!(person.send(api, frame).await, Ok(duplicate(frame)));
        }
        let part = &entry(api, person.id()).await["tasks"][0];
        assert_eq!(part["updates"], 2);
        assert_eq!(part["epsilon"].as_f64(), local_cost(8.0, 2).epsilon(1e-5).ok());
    }

    // It checks in here, is revoked there, and reports here.
    another.check_in(&here.api, 2).await.unwrap();
    let frame = here.api.frame(2).await;
    let path = format!("identities/{}/revoke", another.id());
    let revoked = operate(&there.api, &path, json!({})).await.unwrap();
    assert_eq!(operate(&here.api, &path, json!({})).await.unwrap(), revoked);
    assert_eq!(
        another.send(&here.api, &frame).await,
        Err(ProblemKind::IdentityRevoked)
    );
    assert_eq!(
        another.check_in(&there.api, 2).await,
        Err(ProblemKind::IdentityRevoked)
    );
    assert_eq!(
        another.enrol(&there.api, None).await,
        Err(ProblemKind::IdentityRevoked)
    );
    let all = listed(&there.api).await;
    assert_eq!((all.len(), &all), (2, &listed(&here.api).await));
    let client = database.connect().await;
    let census = client.query_one(
        "SELECT enrolled, revoked, uninvited, invitations FROM unsaid.census",
        &[],
    );
    let census = census.await.unwrap();
    let counts: Vec<i64> = (0..4).map(|column| census.get(column)).collect();
    assert_eq!(counts, [2, 1, 0, 0]);
}

/// The manifest does not say what a task takes of one identity, and relays that share it must agree all the same.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_other_shares_of_identities_stops_where_another_was_started_with_new_ones() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let start = async |share: &str| {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        TestRelay::over(store, &[OPEN, share], options(folder.path())).await
    };
    let old = start("identity.updates_per_day=5").await;
    let person = Person::of(1, &old.api).await;
    person.enrol(&old.api, None).await.unwrap();
    let same = start("identity.updates_per_day=5").await;
    person.check_in(&same.api, 1).await.unwrap();
    person.check_in(&old.api, 1).await.unwrap();
    let new = start("identity.updates_per_day=1").await;
    assert_eq!(new.api.state().await.manifest, old.api.state().await.manifest);
    for outdated in [&old, &same] {
        assert_eq!(
            person.check_in(&outdated.api, 1).await,
            Err(ProblemKind::Unavailable)
        );
    }
    person.check_in(&new.api, 1).await.unwrap();
    let agreeing = start("identity.updates_per_day=1").await;
    person.check_in(&agreeing.api, 1).await.unwrap();
    person.check_in(&new.api, 1).await.unwrap();
}

/// Open enrolments that come at the same time through two relays do not pass their bound.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_layout_before_goes_on_and_its_bounds_hold_for_all_relays() {
    let Some(database) = crate::database::Database::start() else {
        return;
    };
    let before = include_str!("../../src/store/postgres/layout.sql");
    let client = database.connect().await;
    client.batch_execute(before).await.unwrap();
    client
        .batch_execute("INSERT INTO unsaid.meta (layout) VALUES (2)")
        .await
        .unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let mut relays = Vec::new();
    for _ in 0..2 {
        let store = crate::postgres::open(database.address(), None).await.unwrap();
        let bounded = RelayOptions {
            enrolment: EnrolmentLimits {
                per_address_and_day: None,
                most: 5,
            },
            ..options(folder.path())
        };
        relays.push(TestRelay::over(store, &[OPEN], bounded).await);
    }
    let layout: i64 = client
        .query_one("SELECT layout FROM unsaid.meta", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(layout, 3);
    let person = Person::of(0, &relays[0].api).await;
    let asking = (1..=12_u8).map(|seed| {
        let (api, relay) = (relays[usize::from(seed % 2)].api.clone(), person.relay);
        let key = SigningKey::from_bytes(&[seed; 32]);
        tokio::spawn(async move {
            let person = Person { key, relay };
            loop {
                // More may want to use the database at a time than it lets.
                match person.enrol(&api, None).await {
                    Err(ProblemKind::Unavailable) => tokio::time::sleep(Duration::from_millis(20)).await,
                    answer => return answer,
                }
            }
        })
    });
    let mut enrolled = 0;
    for one in asking.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => enrolled += 1,
            Err(kind) => assert_eq!(kind, ProblemKind::EnrolmentLimited),
        }
    }
    assert_eq!((enrolled, listed(&relays[0].api).await.len()), (5, 5));
}

const KILLS: u32 = 30;

/// The program is killed while identities take part: every account holds exactly the updates that were acknowledged, or that were
/// counted in the commit whose answer was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_never_counts_less_than_was_acknowledged_whenever_the_relay_is_killed() {
    let folder = folder_with_task();
    RelayKey::create(&folder.path().join("relay.key")).unwrap();
    std::fs::write(folder.path().join("token"), TOKEN).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (store, key, token) = (path("relay.redb"), path("relay.key"), path("token"));
    let arguments = [
        "--store",
        &store,
        "--key",
        &key,
        "--admin-token-file",
        &token,
        "--set",
        OPEN,
        "--set",
        "privacy.mode=local",
        "--set",
        "privacy.noise_multiplier=8",
        "--set",
        "rounds.min_clients=3",
        "--set",
        "rounds.target_clients=3",
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut program = Program::start(folder.path(), &arguments);
    let base = Arc::new(Mutex::new(program.base.clone()));
    let manifest = program.api().state().await.manifest;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut people = Vec::new();
    for seed in 1..=3 {
        let person = Person::of(seed, &program.api()).await;
        person.enrol(&program.api(), None).await.unwrap();
        let acknowledged = tokio::spawn(report(person.clone(), seed, base.clone(), manifest, stop.clone()));
        people.push((person, acknowledged));
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.next_u64() % 40)).await;
        drop(program);
        program = Program::start(folder.path(), &arguments);
        *base.lock().unwrap() = program.base.clone();
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    for (person, acknowledged) in people {
        let acknowledged = acknowledged.await.unwrap();
        assert!(acknowledged > 3, "{acknowledged}");
        let part = &entry(&program.api(), person.id()).await["tasks"][0];
        assert_eq!(part["updates"].as_u64(), Some(acknowledged));
        let expected = local_cost(8.0, 1);
        let expected = (0..acknowledged).fold(Cost::NOTHING, |sum, _| sum + expected);
        assert_eq!(part["epsilon"].as_f64(), expected.epsilon(1e-5).ok());
    }
}

/// Takes part until it is told to stop, and tries each update until it is acknowledged. How many were.
async fn report(
    person: Person,
    client: u8,
    base: Arc<Mutex<String>>,
    manifest: ContentHash,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> u64 {
    let mut acknowledged = 0;
    let message = CheckIn {
        client: client_id(client),
        manifest,
    };
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let api = || Api::new(&base.lock().unwrap());
        let header = person.check_in_header(&message, SystemClock.now_ms());
        let (round, model) = match check_in(&api(), &message, &header).await {
            Ok(Ok(CheckInReply::Train { round, model, .. })) => (round, model),
            Ok(Ok(CheckInReply::Wait { .. }) | Err(ProblemKind::Unavailable)) | Err(_) => continue,
            Ok(other) => panic!("client {client}: {other:?}"),
        };
        let state = RoundState {
            round,
            model,
            ..idle_state(manifest)
        };
        let frame = frame(&state, client);
        let header = person.update_header(&frame);
        loop {
            match send(&api(), &frame, &header).await {
                Ok(Ok(_)) => break acknowledged += 1,
                Ok(Err(ProblemKind::Unavailable)) | Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Ok(Err(refused)) => panic!("client {client}, round {round}: {refused:?}"),
            }
        }
    }
    acknowledged
}
