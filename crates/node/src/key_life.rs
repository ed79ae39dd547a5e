//! What the organization key signs when keys change: the next key statement, a succession, a revocation. Pure: who asks brings keys and time.

use std::time::Duration;

use countersign_crypto::{PublicKey, SigningKey};
use countersign_event::documents::{
    KeyRevocation, KeyStatement, KeySuccession, RevokedHead, Role, RoleKey, SUCCESSIONS_MAX,
};
use countersign_event::dsse::Envelope;
use countersign_event::time::Timestamp;

/// What a key that is followed has at least: the time to tell partners of the one that follows.
pub const OVERLAP_MIN: Duration = Duration::from_secs(60);

/// How long before its end a key is warned of.
pub const WARN_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Keys that one statement has room for.
const KEYS_MAX: usize = 64;

/// Why there is no next statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyLifeError {
    /// All keys of a full statement are still in force.
    #[error(
        "the key statement has {KEYS_MAX} keys that are in force: rotate once some of them have ended"
    )]
    Full,
    /// The organization key was succeeded too often.
    #[error(
        "the organization key has given its place away {SUCCESSIONS_MAX} times, more are not carried"
    )]
    Successions,
}

/// How the state of a key is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyState {
    /// In use.
    Current,
    /// Another one has followed; it counts until its end.
    Overlapping,
    /// Its period is over.
    Retired,
    /// The organization has taken it back.
    Revoked,
    /// Its period has not begun.
    Waiting,
}

impl KeyState {
    /// The word that is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Overlapping => "overlapping",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
            Self::Waiting => "waiting",
        }
    }
}

/// The state of a key of a statement.
#[must_use]
pub fn state_of(
    statement: &KeyStatement,
    key: &RoleKey,
    is_revoked: bool,
    now: Timestamp,
) -> KeyState {
    if is_revoked {
        return KeyState::Revoked;
    }
    if key.until.is_some_and(|until| until <= now) {
        return KeyState::Retired;
    }
    if now < key.from {
        return KeyState::Waiting;
    }
    let of_role = statement.keys_for(key.role);
    let newest = of_role
        .filter(|other| other.from <= now)
        .max_by_key(|other| other.from);
    match newest {
        Some(newest) if newest.key == key.key => KeyState::Current,
        _ => KeyState::Overlapping,
    }
}

/// The statement after `current`: `key` takes the role over, and the keys before end after `overlap`.
///
/// # Errors
/// [`KeyLifeError::Full`].
pub fn with_key(
    current: &KeyStatement,
    (role, key): (Role, PublicKey),
    now: Timestamp,
    overlap: Duration,
    period: Option<Duration>,
) -> Result<KeyStatement, KeyLifeError> {
    let mut next = after(current, now);
    let made = next.made;
    let end = later(made, overlap.max(OVERLAP_MIN));
    for before in next.keys.iter_mut().filter(|before| before.role == role) {
        before.until = Some(before.until.map_or(end, |until| until.min(end)));
    }
    make_room(&mut next)?;
    next.keys.push(RoleKey {
        role,
        key,
        from: made,
        until: period.map(|period| later(made, period)),
    });
    Ok(next)
}

/// The statement after `current`, by an organization key that takes the place of `from`. To be signed by both.
///
/// # Errors
/// [`KeyLifeError::Successions`].
pub fn with_organization(
    current: &KeyStatement,
    (from, to): (&SigningKey, &SigningKey),
    now: Timestamp,
) -> Result<KeyStatement, KeyLifeError> {
    let mut next = after(current, now);
    if next.succession.len() >= SUCCESSIONS_MAX {
        return Err(KeyLifeError::Successions);
    }
    let succession = KeySuccession {
        authority: next.authority.clone(),
        from: from.public(),
        to: to.public(),
        made: next.made,
    };
    next.succession.push(succession.sign_with(from, to));
    next.organization = to.public();
    Ok(next)
}

/// The revocation of a key, signed.
#[must_use]
pub fn revocation(
    statement: &KeyStatement,
    (role, key): (Role, PublicKey),
    reason: &str,
    heads: Vec<RevokedHead>,
    now: Timestamp,
    organization: &SigningKey,
) -> Envelope {
    let revocation = KeyRevocation {
        authority: statement.authority.clone(),
        organization: statement.organization,
        key,
        role,
        reason: reason
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect(),
        made: now,
        heads,
        succession: statement.succession.clone(),
    };
    revocation.sign_with(organization)
}

fn after(current: &KeyStatement, now: Timestamp) -> KeyStatement {
    KeyStatement {
        number: current.number + 1,
        // A clock that fell back dates no statement before the one that it follows.
        made: now.max(Timestamp(current.made.0 + 1)),
        ..current.clone()
    }
}

/// Forgets the key that ended first; never the first node key, by which publishers on this machine are recognised.
fn make_room(next: &mut KeyStatement) -> Result<(), KeyLifeError> {
    let first_node = next
        .keys_for(Role::Node)
        .min_by_key(|key| key.from)
        .map(|key| key.key);
    while next.keys.len() >= KEYS_MAX {
        let over = next.keys.iter().enumerate().filter(|(_, key)| {
            key.until.is_some_and(|until| until <= next.made)
                && !(key.role == Role::Node && Some(key.key) == first_node)
        });
        let oldest = over.min_by_key(|(_, key)| key.until).map(|(at, _)| at);
        next.keys.remove(oldest.ok_or(KeyLifeError::Full)?);
    }
    Ok(())
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
    Timestamp(time.0.saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_event::names::Authority;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn first() -> KeyStatement {
        let of = |role, seed| RoleKey {
            role,
            key: key(seed).public(),
            from: Timestamp(1_000),
            until: None,
        };
        KeyStatement {
            authority: Authority::of_key(&key(1).public()),
            name: "Org".to_owned(),
            organization: key(1).public(),
            number: 1,
            made: Timestamp(1_000),
            keys: vec![of(Role::Node, 2), of(Role::Log, 3)],
            succession: Vec::new(),
        }
    }

    #[test]
    fn a_rotation_ends_the_key_before_after_the_overlap_and_not_sooner_than_partners_can_know() {
        let day = Duration::from_secs(86_400);
        let new = (Role::Log, key(4).public());
        let next = with_key(&first(), new, Timestamp(5_000), day, None).unwrap();
        assert_eq!((next.number, next.made), (2, Timestamp(5_000)));
        let until = |next: &KeyStatement, seed| {
            let mut keys = next.keys.iter();
            keys.find(|one| one.key == key(seed).public())
                .unwrap()
                .until
        };
        assert_eq!(until(&next, 3), Some(Timestamp(5_000 + 86_400_000_000)));
        assert_eq!((until(&next, 2), until(&next, 4)), (None, None));
        // The next one does not give the first a longer life.
        let third = with_key(
            &next,
            (Role::Log, key(5).public()),
            Timestamp(6_000),
            9 * day,
            Some(day),
        );
        let third = third.unwrap();
        assert_eq!(until(&third, 3), until(&next, 3));
        assert_eq!(until(&third, 5), Some(Timestamp(6_000 + 86_400_000_000)));
        let at_once = with_key(&first(), new, Timestamp(0), Duration::ZERO, None).unwrap();
        assert_eq!(at_once.made, Timestamp(1_001), "a clock that fell back");
        assert_eq!(until(&at_once, 3), Some(Timestamp(1_001 + 60_000_000)));
        let state = |statement: &KeyStatement, seed, now| {
            let mut keys = statement.keys.iter();
            let one = keys.find(|one| one.key == key(seed).public()).unwrap();
            state_of(statement, one, false, Timestamp(now))
        };
        assert_eq!(state(&next, 3, 5_000), KeyState::Overlapping);
        assert_eq!(state(&next, 4, 5_000), KeyState::Current);
        assert_eq!(state(&next, 3, 5_000 + 86_400_000_000), KeyState::Retired);
        assert_eq!(state(&next, 4, 4_999), KeyState::Waiting);
        assert_eq!(state(&next, 3, 4_999), KeyState::Current);
    }

    #[test]
    fn a_full_statement_forgets_what_ended_first_but_not_the_first_node_key() {
        let mut statement = first();
        let mut now = 10_000;
        for seed in 10..200_u8 {
            let role = if seed % 2 == 0 { Role::Node } else { Role::Log };
            let new = (role, key(seed).public());
            statement = with_key(&statement, new, Timestamp(now), Duration::ZERO, None).unwrap();
            assert!(statement.keys.len() <= 64);
            now += 100_000_000;
        }
        let has = |seed| {
            statement
                .keys
                .iter()
                .any(|one| one.key == key(seed).public())
        };
        assert!(has(2) && has(199) && has(198) && !has(3) && !has(10));
        KeyStatement::verify(&statement.sign_with(&key(1))).unwrap();
        let mut full = first();
        for seed in 10..72_u8 {
            full.keys.push(RoleKey {
                role: Role::Receipt,
                key: key(seed).public(),
                from: Timestamp(0),
                until: None,
            });
        }
        let new = (Role::Log, key(4).public());
        let refused = with_key(&full, new, Timestamp(5_000), OVERLAP_MIN, None);
        assert_eq!(refused, Err(KeyLifeError::Full));
    }

    #[test]
    fn an_organization_key_gives_its_place_away_and_the_name_stays() {
        let second = with_organization(&first(), (&key(1), &key(8)), Timestamp(5_000)).unwrap();
        let third = with_organization(&second, (&key(8), &key(9)), Timestamp(6_000)).unwrap();
        let shown = KeyStatement::verify(&third.sign_with(&key(9))).unwrap();
        assert_eq!(shown.authority, first().authority);
        assert!(
            [1, 8, 9]
                .iter()
                .all(|seed| shown.descends_from(&key(*seed).public()))
        );
        KeyStatement::verify(&third.sign_with(&key(8))).unwrap_err();
        let log = (Role::Log, key(3).public());
        let envelope = revocation(&shown, log, "lost\n", Vec::new(), Timestamp(7_000), &key(9));
        assert_eq!(KeyRevocation::verify(&envelope).unwrap().reason, "lost");
    }
}
