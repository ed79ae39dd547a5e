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
