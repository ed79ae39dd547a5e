//! Paths of published logs, whatever is sent.

use countersign_exchange::{PublishedFile, PublishedPath};
use countersign_tlog::tile::{Tile, TileKind};
use proptest::prelude::*;

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("checkpoint".to_owned()),
        Just("tile".to_owned()),
        Just("entries".to_owned()),
        Just("..".to_owned()),
        Just(String::new()),
        "x[0-9]{2,4}",
        "[0-9]{1,4}(\\.p)?",
        "[a-z0-9._-]{1,8}",
        "[ -~]{0,6}",
        any::<String>(),
    ]
}

#[test]
fn a_second_spelling_is_none() {
    for (good, others) in [
        (
            "quakes/checkpoint",
            [
                "Quakes/checkpoint",
                "quakes//checkpoint",
                "quakes/checkpoint/",
                "./quakes/checkpoint",
            ],
        ),
        (
            "quakes/tile/0/000.p/1",
            [
                "quakes/tile/0/x000/000.p/1",
                "quakes/tile/00/000.p/1",
                "quakes/tile/0/000.p/01",
                "quakes/tile/0/0.p/1",
            ],
        ),
        (
            "quakes/tile/entries/x001/234",
            [
                "quakes/tile/entries/001/234",
                "quakes/tile/entries/x01/234",
                "quakes/tile/entries/x001/x234",
                "quakes/tile/entries/1234",
            ],
        ),
        (
            "quakes/tile/0/x018/x446/x744/x073/x709/x551/615",
            [
                "quakes/tile/0/x018/x446/x744/x073/x709/x551/616",
                "quakes/tile/0/x999/x999/x999/x999/x999/x999/999",
                "quakes/tile/0/-01",
                "quakes/tile/0/x018/../615",
            ],
        ),
    ] {
        assert!(good.parse::<PublishedPath>().is_ok(), "{good}");
        for other in others {
            assert!(other.parse::<PublishedPath>().is_err(), "{other}");
        }
    }
}

proptest! {
    #[test]
    fn one_thing_has_one_spelling(pieces in proptest::collection::vec(piece(), 1..8)) {
        let text = pieces.join("/");
        if let Ok(path) = text.parse::<PublishedPath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn every_tile_is_read_back_and_no_byte_may_be_changed_for_the_same(
        entries in any::<bool>(),
        level in 0u8..64,
        index in any::<u64>(),
        width in 1u16..=256,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        let tile = Tile::new(kind, index, width).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let text = format!("quakes/{tile}");
        let path = text.parse::<PublishedPath>().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(path.file(), PublishedFile::Tile(tile));
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Some(changed) = String::from_utf8(changed).ok().filter(|changed| *changed != text)
            && let Ok(other) = changed.parse::<PublishedPath>()
        {
            prop_assert_ne!(other, path);
        }
    }
}
