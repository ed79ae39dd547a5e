//! The greeting: who is let through, and what happens to everybody else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod node;

use std::time::Duration;

use countersign_client::quic::{
    Accepting, ConnectError, Connection, Endpoint, QuicLimits, ServerPin,
};
use countersign_client::session::handshake::{self, AcceptError, HELLO_BYTES_MAX, Knock, Welcome};
use countersign_client::{Expected, IdentityFault, Session, SessionError};
use countersign_crypto::{PublicKey, SigningKey};
use countersign_event::documents::{Role, StatementError};
use countersign_protocol::{Hello, Message, Refused};
use node::{NOW, Org};

/// Both ends of a connection that nobody greeted on yet: dialed, accepted.
async fn meet(org: &Org) -> (Endpoint, Connection, Connection) {
    let (endpoint, address) = org.listen();
    let local = "127.0.0.1:0".parse().unwrap();
    let key = SigningKey::from_seed(&[90; 32]);
    let dialer = Endpoint::bind(local, key, QuicLimits::default(), Accepting::No).unwrap();
    let accepting = async { endpoint.accept().await.unwrap().handshake().await.unwrap() };
    let (dialed, accepted) = tokio::join!(dialer.connect(&address, ServerPin::Any), accepting);
    (endpoint, dialed.unwrap(), accepted)
}

fn anybody(_: &Hello, _: &PublicKey) -> Result<(), Refused> {
    Ok(())
}

/// Dials an organization that shows `hello`; what the dialer says, and what of it reached the acceptor's judge.
async fn dial(
    org: &Org,
    hello: Hello,
    expected: Expected,
) -> (Result<Session, SessionError>, bool) {
    let (endpoint, address) = org.listen();
    let options = countersign_client::SessionOptions {
        expected,
        ..org.app_session(&address)
    };
    let accepting = async {
        let Ok(connection) = endpoint.accept().await.unwrap().handshake().await else {
            return (false, None);
        };
        let mut was_asked = false;
        let judge = |_: &Hello, _: &PublicKey| {
            was_asked = true;
            Ok::<(), Refused>(())
        };
        let _ = handshake::accept(&connection, &hello, judge).await;
        (was_asked, Some(connection))
    };
    // An acceptor that let go of the connection would end it before its welcome arrives.
    let (session, (was_asked, _connection)) = tokio::join!(Session::connect(&options), accepting);
    (session, was_asked)
}

fn identity_fault(result: Result<Session, SessionError>) -> IdentityFault {
    match result.unwrap_err() {
        SessionError::Identity(fault) => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_expected_organization_is_met_and_known() {
    let org = Org::new(1);
    let (session, was_asked) = dial(&org, org.hello(), org.expected()).await;
    let session = session.unwrap();
    assert!(was_asked);
    assert_eq!(session.peer().statement, org.statement);
    assert_eq!(session.peer().node, org.node.public());
    assert_eq!(session.peer().software, "test");
}

#[tokio::test]
async fn another_organization_learns_nothing_of_the_dialer() {
    let org = Org::new(1);
    let (session, was_asked) = dial(&org, org.hello(), Org::new(2).expected()).await;
    assert!(matches!(
        identity_fault(session),
        IdentityFault::OtherOrganization { .. }
    ));
    assert!(!was_asked);
}

#[tokio::test]
async fn a_node_key_that_is_not_delegated_is_refused() {
    let delegated_otherwise = Org::with_node_role(1, Role::Witness);
    let expected = delegated_otherwise.expected();
    let (session, was_asked) =
        dial(&delegated_otherwise, delegated_otherwise.hello(), expected).await;
    let fault = identity_fault(session);
    assert!(matches!(
        fault,
        IdentityFault::Statement(StatementError::NotDelegated {
            role: Role::Node,
            ..
        })
    ));
    assert!(!was_asked);

    // Somebody else's true statement, shown under one's own key.
    let (thief, victim) = (Org::new(3), Org::new(1));
    let (session, _) = dial(&thief, victim.hello(), victim.expected()).await;
    assert!(matches!(
        identity_fault(session),
        IdentityFault::Statement(_)
    ));
}

#[tokio::test]
async fn a_node_without_a_statement_or_with_a_broken_one_is_refused() {
    let org = Org::new(1);
    let silent = Hello {
        key_statement: Vec::new(),
        ..org.hello()
    };
    let (session, _) = dial(&org, silent, Expected::node(org.node.public())).await;
    assert_eq!(identity_fault(session), IdentityFault::NoStatement);
    let mut broken = org.hello();
    let middle = broken.key_statement.len() / 2;
    broken.key_statement[middle] ^= 1;
    let (session, _) = dial(&org, broken, org.expected()).await;
    assert!(matches!(
        identity_fault(session),
        IdentityFault::Statement(_)
    ));
}

#[tokio::test]
async fn another_node_key_than_the_pinned_one_is_refused_in_tls() {
    let org = Org::new(1);
    let pinned = org.expected().with_node(Org::new(2).node.public());
    let (session, was_asked) = dial(&org, org.hello(), pinned).await;
    let error = session.unwrap_err();
    let SessionError::Connect(error) = &error else {
        panic!("{error}")
    };
    assert!(matches!(**error, ConnectError::PeerKey { .. }));
    assert!(!was_asked);
}

#[tokio::test]
async fn greetings_beyond_their_limits_are_refused_by_either_side() {
    let org = Org::new(1);
    let too_large = Hello {
        key_statement: vec![b' '; HELLO_BYTES_MAX + 1],
        ..org.hello()
    };
    let many = Hello {
        addresses: vec!["a:1".to_owned(); 9],
        ..org.hello()
    };
    let long = Hello {
        software: "x".repeat(101),
        ..org.hello()
    };
    for hello in [too_large, many, long] {
        let (session, _) = dial(&org, hello.clone(), org.expected()).await;
        assert!(session.unwrap_err().is_lasting());
        let (_endpoint, dialed, accepted) = meet(&org).await;
        let ours = org.hello();
        let expected = org.expected();
        let judge = |theirs: &Hello, key: &PublicKey| Ok(expected.check(theirs, key, NOW)?);
        let (_, judged) = tokio::join!(
            handshake::dial(&dialed, &hello, judge),
            handshake::accept(&accepted, &ours, anybody)
        );
        assert!(matches!(judged, Err(AcceptError::Session(_))), "{judged:?}");
    }
}

#[tokio::test]
async fn a_refused_dialer_reads_why() {
    let org = Org::new(1);
    let (_endpoint, dialed, accepted) = meet(&org).await;
    let hello = org.hello();
    let refuse = |_: &Hello, _: &PublicKey| {
        Err::<(), _>(Refused {
            refusal: Vec::new(),
            code: "wrong-identity".to_owned(),
            reason: "unknown\u{1b}[2J here".to_owned(),
            retry_after_ms: 0,
        })
    };
    let judge = |_: &Hello, _: &PublicKey| Ok(());
    let (dialed, accepted) = tokio::join!(
        handshake::dial(&dialed, &hello, judge),
        handshake::accept(&accepted, &hello, refuse)
    );
    let error = dialed.unwrap_err();
    assert!(error.is_lasting());
    let text = error.to_string();
    assert!(
        text.contains("wrong-identity") && !text.contains('\u{1b}'),
        "{text:?}"
    );
    assert!(matches!(accepted, Err(AcceptError::Refused(_))));
}

#[tokio::test]
async fn a_first_frame_other_than_a_knock_ends_the_connection() {
    let org = Org::new(1);
    for (kind, body) in [
        (Hello::KIND, org.hello().to_body()),
        (Knock::KIND, vec![0]),
        (Welcome::KIND, vec![]),
    ] {
        let (_endpoint, dialed, accepted) = meet(&org).await;
        let (mut writer, _reader) = dialed.open_bi().await.unwrap();
        writer.write(kind, &body).await.unwrap();
        let judged = handshake::accept(&accepted, &org.hello(), anybody).await;
        assert!(
            matches!(judged, Err(AcceptError::Session(SessionError::Message(_)))),
            "{judged:?}"
        );
        assert_eq!(
            dialed.closed().await.peer_code(),
            Some(handshake::CLOSE_GREETING)
        );
    }
}

#[tokio::test]
async fn silence_is_borne_for_ten_seconds_by_either_side() {
    let org = Org::new(1);
    let ends = (meet(&org).await, meet(&org).await);
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let (_endpoint, _dialed, accepted) = ends.0;
    let judged = handshake::accept(&accepted, &org.hello(), anybody).await;
    assert!(
        matches!(
            judged,
            Err(AcceptError::Session(SessionError::Budget { .. }))
        ),
        "{judged:?}"
    );
    let (_endpoint, dialed, _accepted) = ends.1;
    let judge = |_: &Hello, _: &PublicKey| Ok(());
    let greeted = handshake::dial(&dialed, &org.hello(), judge).await;
    assert!(
        matches!(greeted, Err(SessionError::Budget { .. })),
        "{greeted:?}"
    );
    assert_eq!(
        before.elapsed().as_secs(),
        2 * Duration::from_secs(10).as_secs()
    );
}
