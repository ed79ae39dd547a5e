//! Joining by invitation, with an inviter that keeps to the rules and with one that does not; and the file that remembers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod node;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use countersign_client::join::{JoinError, check_done, check_terms};
use countersign_client::profile::{Profile, ProfileError};
use countersign_client::quic::Connection;
use countersign_client::session::handshake;
use countersign_client::subscriber::Cursor;
use countersign_crypto::PublicKey;
use countersign_event::documents::{Agreement, Document, KeyStatement, Offer, Plan, Role, Side};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;
use countersign_protocol::invitation::{EXPORTER_LABEL, Invitation, InvitationTerms, verify_proof};
use countersign_protocol::{
    CONTROL_FRAME_BYTES_MAX, Hello, JoinAccept, JoinDone, JoinQuery, JoinTerms, Message, Refused,
};
use node::{NOW, Org, clock, entropy};

fn offer(org: &Org, inviter: Side) -> Offer {
    Offer {
        inviter,
        organization: org.party(),
        stream: "orders".parse().unwrap(),
        title: None,
        plan: Plan::default(),
        made: NOW,
        until: None,
        expires: Timestamp(NOW.0 + 1_000_000_000),
        confirm: false,
    }
}

fn invitation(org: &Org, offer: &Offer, address: &str) -> Invitation {
    let terms = InvitationTerms {
        addresses: vec![address.to_owned()],
        organization: org.statement.organization.fingerprint(),
        node: org.node.public(),
        offer: Offer::digest(&offer.to_text()),
        expires: offer.expires.0 / 1_000_000,
    };
    Invitation::new(terms, &mut *entropy(9))
}

fn terms_for(invitation: &Invitation, offer: &Offer, joiner: &KeyStatement) -> JoinTerms {
    let id = Offer::agreement_id(&invitation.id, &joiner.organization);
    let agreement = offer.agreement(id, &countersign_client::join::party_of(joiner));
    JoinTerms {
        offer: offer.to_text(),
        agreement: agreement.to_payload(),
        done: Vec::new(),
    }
}

/// An inviter that drops its first connection after signing, where `is_shaky`.
#[derive(Clone)]
struct Inviter {
    org: Org,
    offer: Offer,
    invitation: Invitation,
    redeemed: Arc<Mutex<Option<Envelope>>>,
    is_shaky: bool,
}

impl Inviter {
    fn start(org: &Org, side: Side, is_shaky: bool) -> Self {
        let (endpoint, address) = org.listen();
        let offer = offer(org, side);
        let inviter = Self {
            invitation: invitation(org, &offer, &address),
            org: org.clone(),
            offer,
            redeemed: Arc::default(),
            is_shaky,
        };
        let one = inviter.clone();
        tokio::spawn(async move {
            let mut is_shaky = one.is_shaky;
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.handshake().await.unwrap();
                let judge = |hello: &Hello, _: &PublicKey| {
                    let envelope = Envelope::from_json(&hello.key_statement).unwrap();
                    Ok::<_, Refused>(KeyStatement::verify(&envelope).unwrap())
                };
                if let Ok(joiner) = handshake::accept(&connection, &one.org.hello(), judge).await {
                    one.session(&connection, &joiner, is_shaky).await;
                    is_shaky = false;
                }
            }
        });
        inviter
    }

    async fn session(
        &self,
        connection: &Connection,
        joiner: &KeyStatement,
        is_shaky: bool,
    ) -> Option<()> {
        let (mut writer, mut reader) = connection.accept_bi().await.ok()?;
        let frame = reader
            .next(CONTROL_FRAME_BYTES_MAX, 0, |_| false)
            .await
            .ok()??;
        let query = JoinQuery::read(frame.kind, &frame.body).unwrap();
        let label = std::str::from_utf8(EXPORTER_LABEL).unwrap();
        let exporter = connection.tls_exporter(label, &[]);
        let node = connection.peer_key();
        let is_proven = verify_proof(
            &self.invitation.secret_key(),
            &exporter,
            &query.invitation,
            &joiner.organization,
            &node,
            &query.proof,
        );
        assert!(is_proven);
        let mut terms = terms_for(&self.invitation, &self.offer, joiner);
        if let Some(done) = &*self.redeemed.lock().unwrap() {
            terms.done = done.to_json();
        }
        writer.write(JoinTerms::KIND, &terms.to_body()).await.ok()?;
        let frame = reader
            .next(CONTROL_FRAME_BYTES_MAX, 0, |_| false)
            .await
            .ok()??;
        let accept = JoinAccept::read(frame.kind, &frame.body).unwrap();
        let mut envelope = Envelope::from_json(&accept.envelope).unwrap();
        let _: Agreement = joiner.open_signed(Role::Agreement, &envelope).unwrap();
        envelope.add_signature(&self.org.agreement);
        *self.redeemed.lock().unwrap() = Some(envelope.clone());
        if is_shaky {
            connection.close(9, "the test breaks it");
            return None;
        }
        let done = JoinDone {
            envelope: envelope.to_json(),
        };
        writer.write(JoinDone::KIND, &done.to_body()).await.ok()?;
        connection.closed().await;
        Some(())
    }
}

fn create(path: &Path) -> Profile {
    Profile::create(path, "Reader", NOW, &mut *entropy(5)).unwrap()
}

#[tokio::test]
async fn joining_leaves_an_agreement_under_both_signatures_in_a_private_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let org = Org::new(1);
    let inviter = Inviter::start(&org, Side::Producer, false);
    let profile = create(&path);
    let mut shown = 0;
    let confirm = |terms: &countersign_client::join::Terms| {
        shown += 1;
        terms.offer.stream.as_str() == "orders"
    };
    let joined = profile
        .join(&inviter.invitation, clock(), confirm)
        .await
        .unwrap();
    assert_eq!(shown, 1);
    assert_eq!(joined.envelope.signatures().len(), 2);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(profile);

    let profile = Profile::open(&path).unwrap();
    let stored = profile.list().remove(0);
    assert_eq!(
        (&stored.agreement, &stored.envelope),
        (&joined.agreement, &joined.envelope)
    );
    assert_eq!(stored.producer, org.statement);
    // The same link once more: the same document, and no second question.
    let again = profile
        .join(&inviter.invitation, clock(), |_| panic!("asked again"))
        .await
        .unwrap();
    assert_eq!(again.envelope, joined.envelope);
    assert_eq!(profile.list().len(), 1);
}

#[tokio::test]
async fn a_crash_between_the_signatures_heals_without_a_second_question() {
    let directory = tempfile::tempdir().unwrap();
    let inviter = Inviter::start(&Org::new(1), Side::Producer, true);
    let profile = create(&directory.path().join("p"));
    let mut shown = 0;
    let joined = profile.join(&inviter.invitation, clock(), |_| {
        shown += 1;
        true
    });
    let joined = joined.await.unwrap();
    assert_eq!(shown, 1);
    assert_eq!(
        Some(joined.envelope),
        inviter.redeemed.lock().unwrap().clone()
    );
}

#[tokio::test]
async fn declining_and_publishing_sign_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let profile = create(&directory.path().join("p"));
    let inviter = Inviter::start(&Org::new(1), Side::Producer, false);
    let declined = profile.join(&inviter.invitation, clock(), |_| false).await;
    assert!(matches!(
        declined,
        Err(ProfileError::Join(JoinError::Declined))
    ));
    let reading = Inviter::start(&Org::new(1), Side::Consumer, false);
    let refused = profile.join(&reading.invitation, clock(), |_| true).await;
    assert!(matches!(refused, Err(ProfileError::WouldPublish { .. })));
    assert!(
        inviter.redeemed.lock().unwrap().is_none() && reading.redeemed.lock().unwrap().is_none()
    );
    assert!(profile.list().is_empty());
}

#[test]
fn terms_that_differ_from_link_offer_or_parties_are_not_signed() {
    let (org, joiner) = (Org::new(1), Org::new(2));
    let offer = offer(&org, Side::Producer);
    let invitation = invitation(&org, &offer, "h:1");
    let good = terms_for(&invitation, &offer, &joiner.statement);
    let check = |message: &JoinTerms, inviter: &Org, now| {
        check_terms(
            &invitation,
            message,
            &inviter.statement,
            &joiner.statement,
            now,
        )
    };
    check(&good, &org, NOW).unwrap();

    let dearer = Offer {
        plan: Plan {
            exposure_events: 1,
            ..Plan::default()
        },
        ..offer.clone()
    };
    let other = JoinTerms {
        offer: dearer.to_text(),
        ..good.clone()
    };
    assert!(matches!(
        check(&other, &org, NOW),
        Err(JoinError::OfferDiffers)
    ));

    let agreement: Agreement = serde_json::from_slice(&good.agreement).unwrap();
    let altered = [
        (
            "id",
            Agreement {
                id: countersign_event::documents::AgreementId([0; 16]),
                ..agreement.clone()
            },
        ),
        (
            "producer",
            Agreement {
                producer: Org::new(3).party(),
                ..agreement.clone()
            },
        ),
        (
            "consumer",
            Agreement {
                consumer: Org::new(3).party(),
                ..agreement.clone()
            },
        ),
        (
            "stream",
            Agreement {
                stream: "a.example/streams/x".parse().unwrap(),
                ..agreement.clone()
            },
        ),
        (
            "plan",
            Agreement {
                plan: dearer.plan,
                ..agreement.clone()
            },
        ),
        (
            "from",
            Agreement {
                from: Timestamp(0),
                ..agreement.clone()
            },
        ),
        (
            "until",
            Agreement {
                until: Some(NOW),
                ..agreement.clone()
            },
        ),
        (
            "made",
            Agreement {
                made: Timestamp(0),
                ..agreement
            },
        ),
    ];
    for (expected, agreement) in altered {
        let message = JoinTerms {
            agreement: agreement.to_payload(),
            ..good.clone()
        };
        let error = check(&message, &org, NOW).unwrap_err();
        assert!(
            matches!(error, JoinError::AgreementDiffers { field } if field == expected),
            "{expected}: {error}"
        );
    }

    assert!(matches!(
        check(&good, &Org::new(3), NOW),
        Err(JoinError::OfferInvalid { .. })
    ));
    assert!(matches!(
        check(&good, &org, offer.expires),
        Err(JoinError::Expired { .. })
    ));
}

#[test]
fn an_agreement_counts_only_with_both_signatures_over_the_same_bytes() {
    let (org, joiner) = (Org::new(1), Org::new(2));
    let offer = offer(&org, Side::Producer);
    let invitation = invitation(&org, &offer, "h:1");
    let message = terms_for(&invitation, &offer, &joiner.statement);
    let terms = check_terms(
        &invitation,
        &message,
        &org.statement,
        &joiner.statement,
        NOW,
    )
    .unwrap();
    let check = |envelope: &Envelope| {
        check_done(
            &terms,
            &envelope.to_json(),
            &org.statement,
            &joiner.statement,
        )
    };

    let ours = terms.sign(&joiner.agreement);
    assert!(matches!(
        check(&ours),
        Err(JoinError::NotSigned {
            side: "the inviter",
            ..
        })
    ));
    let theirs = terms.sign(&org.agreement);
    assert!(matches!(
        check(&theirs),
        Err(JoinError::NotSigned {
            side: "the joiner",
            ..
        })
    ));
    let mut wrong_role = ours.clone();
    wrong_role.add_signature(&org.receipt);
    assert!(check(&wrong_role).is_err());
    let spaced = [terms.payload.as_slice(), b" "].concat();
    let mut other = Envelope::sign(Agreement::PAYLOAD_TYPE, spaced, &joiner.agreement);
    other.add_signature(&org.agreement);
    assert!(matches!(
        check(&other),
        Err(JoinError::AgreementDiffers { .. })
    ));
    let mut both = ours;
    both.add_signature(&org.agreement);
    check(&both).unwrap();
    // Handed out again as done, it is checked the same way.
    let done = JoinTerms {
        done: both.to_json(),
        ..message.clone()
    };
    let again = check_terms(&invitation, &done, &org.statement, &joiner.statement, NOW).unwrap();
    assert_eq!(again.done, Some(both));
    let done = JoinTerms {
        done: theirs.to_json(),
        ..message
    };
    assert!(check_terms(&invitation, &done, &org.statement, &joiner.statement, NOW).is_err());
}

#[tokio::test]
async fn a_profile_keeps_the_reading_position_and_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p");
    let inviter = Inviter::start(&Org::new(1), Side::Producer, false);
    let profile = create(&path);
    let joined = profile
        .join(&inviter.invitation, clock(), |_| true)
        .await
        .unwrap();
    let stream = joined.agreement.stream;
    assert!(matches!(
        Profile::open(&path),
        Err(ProfileError::InUse { .. })
    ));
    let mut options = profile.subscriber(&stream, clock(), entropy(1)).unwrap();
    let mut state = options.state.clone();
    state.cursor = Some(Cursor {
        next: 7,
        leaf: [3; 32],
    });
    options.keep.keep(&state).unwrap();
    assert!(matches!(
        profile.subscriber(&"a.example/streams/x".parse().unwrap(), clock(), entropy(1)),
        Err(ProfileError::Unknown { .. })
    ));
    drop((profile, options));
    let profile = Profile::open(&path).unwrap();
    assert_eq!(
        profile
            .subscriber(&stream, clock(), entropy(1))
            .unwrap()
            .state,
        state
    );
}

#[test]
fn profiles_that_others_may_read_or_that_are_damaged_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p");
    drop(create(&path));
    let again = Profile::create(&path, "Reader", NOW, &mut *entropy(6));
    assert!(matches!(again, Err(ProfileError::Exists { .. })));
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in [
        &text[..text.len() / 2],
        "",
        "{}",
        &text.replace("\"version\": 1", "\"version\": 2"),
    ] {
        std::fs::write(&path, damaged).unwrap();
        assert!(
            matches!(Profile::open(&path), Err(ProfileError::Malformed { .. })),
            "{damaged}"
        );
    }
    std::fs::write(&path, &text).unwrap();
    drop(Profile::open(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Profile::open(&path),
        Err(ProfileError::WideMode { mode: 0o640, .. })
    ));
    assert!(matches!(
        Profile::open(&directory.path().join("none")),
        Err(ProfileError::Io { .. })
    ));
}
