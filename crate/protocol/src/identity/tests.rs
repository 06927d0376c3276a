use proptest::prelude::*;

use super::*;
use crate::ClientId;

/// Made by another program (Node and OpenSSL).
fn vector() -> Value {
    let text = include_str!("../../../../tests/vectors/v1/identity.json");
    serde_json::from_str(text).unwrap()
}

fn text<'a>(vector: &'a Value, path: &str) -> &'a str {
    vector.pointer(path).and_then(Value::as_str).unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn what_is_signed_has_the_bytes_of_the_vector() {
    let v = vector();
    let (relay, key) = (
        text(&v, "/relay").parse().unwrap(),
        text(&v, "/public_key").parse().unwrap(),
    );
    let invitation: Invitation = text(&v, "/invitation").parse().unwrap();
    assert_eq!(IdentityId::of(&key).to_string(), text(&v, "/identity"));
    assert_eq!(invitation.hash().to_string(), text(&v, "/invitation_hash"));
    let with = enrolment_bytes(&relay, &key, Some(&invitation));
    assert_eq!(with, from_hex(text(&v, "/enrolment/bytes")));
    let without = enrolment_bytes(&relay, &key, None);
    assert_eq!(without, from_hex(text(&v, "/enrolment_open/bytes")));
    let message: CheckIn = serde_json::from_str(text(&v, "/check_in/body")).unwrap();
    let time_ms = v["check_in"]["time_ms"].as_u64().unwrap();
    let bytes = check_in_bytes(&relay, &message, time_ms);
    assert_eq!(bytes, from_hex(text(&v, "/check_in/bytes")));
    let frame = from_hex(text(&v, "/update/frame"));
    let update = SignedUpdate::of(&UpdateFrame::decode(&frame).unwrap(), &frame);
    assert_eq!(update_bytes(&relay, &update), from_hex(text(&v, "/update/bytes")));
}

#[test]
fn a_credential_has_one_way_to_be_written() {
    let v = vector();
    for (path, time) in [
        ("/check_in", v["check_in"]["time_ms"].as_u64()),
        ("/update", None),
    ] {
        let header = text(&v, &format!("{path}/header"));
        let credential: Credential = header.parse().unwrap();
        assert_eq!(credential.key.to_string(), text(&v, "/public_key"));
        assert_eq!(
            credential.signature.to_string(),
            text(&v, &format!("{path}/signature"))
        );
        assert_eq!(
            (credential.time_ms, credential.to_string().as_str()),
            (time, header)
        );
    }
    let bad = v["bad"]["header"].as_object().unwrap();
    assert_eq!(bad.len(), 9);
    for (what, header) in bad {
        assert!(header.as_str().unwrap().parse::<Credential>().is_err(), "{what}");
    }
}

#[test]
fn names_are_an_identitys_own_and_lie_side_by_side() {
    let v = vector();
    let identity: IdentityId = text(&v, "/identity").parse().unwrap();
    let [least, greatest] = identity.owned();
    for (name, own) in v["names"].as_object().unwrap() {
        let name: ClientId = name.parse().unwrap();
        let found = identity.own(name.as_bytes());
        assert_eq!(ClientId::from_bytes(found).to_string(), own.as_str().unwrap());
        assert!((least..=greatest).contains(&found));
        let another = IdentityId::from_bytes([7; 32]);
        assert_ne!(another.own(name.as_bytes()), found);
        let [least, greatest] = another.owned();
        assert!(!(least..=greatest).contains(&found));
    }
}

#[test]
fn an_invitation_is_never_printed() {
    let invitation = Invitation::from_bytes([0xab; 16]);
    let enrol = Enrol {
        public_key: PublicKey::from_bytes([1; 32]),
        invitation: Some(invitation),
        signature: Signature::from_bytes([2; 64]),
    };
    assert!(!format!("{enrol:?}").contains("abab"));
    assert_eq!(
        serde_json::from_str::<Enrol>(&serde_json::to_string(&enrol).unwrap()).unwrap(),
        enrol
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_and_what_it_takes_it_writes_again(text in ".{0,220}") {
        if let Ok(credential) = text.parse::<Credential>() {
            prop_assert_eq!(credential.to_string(), text);
        }
    }

    #[test]
    fn every_credential_is_read_as_it_was_written(
        key in any::<[u8; 32]>(), halves in any::<[[u8; 32]; 2]>(), time_ms in any::<Option<u64>>()
    ) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&halves[0]);
        signature[32..].copy_from_slice(&halves[1]);
        let credential = Credential {
            key: PublicKey::from_bytes(key),
            signature: Signature::from_bytes(signature),
            time_ms,
        };
        prop_assert_eq!(credential.to_string().parse(), Ok(credential));
    }
}
