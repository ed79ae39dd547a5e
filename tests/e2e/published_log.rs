//! The published log of a running node, read as any tlog client reads it: over HTTP, with the log's verifier key and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::fs;

use countersign_tlog::checkpoint::open_checkpoint;
use countersign_tlog::tile::{Tile, TileKind, decode_entry_bundle, tiles, width_at};
use countersign_tlog::{Checkpoint, Hash, MemoryTree, NodeSource as _, Vkey, leaf_hash};
use serde_json::Value;
use support::{Fetched, Node, Root, wait_until};

const STREAM: &str = "quakes";
const OPEN_TILE: &str = "public, max-age=31536000, immutable";

/// A node with `events` events in an open or closed stream.
fn publisher(root: &Root, events: u32, access: &str) -> Node {
    let mut node = Node::init(root.path(), "Producer", &[]);
    node.serve();
    node.json(&["stream", "create", STREAM]);
    hand_in(root, &node, 0, events);
    node.json(&["stream", "access", STREAM, access]);
    node
}

fn hand_in(root: &Root, node: &Node, from: u32, to: u32) {
    let file = root.path().join(format!("{from}.ndjson"));
    let lines = (from..to).fold(String::new(), |mut lines, n| {
        writeln!(lines, "{{\"id\":\"{n}\",\"secret\":\"payload-{n}\"}}").unwrap();
        lines
    });
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let wrap = ["--type", "test.made", "--id-from", "id"];
    node.json(&[&["publish", STREAM, file][..], &wrap].concat());
}

fn vkey(node: &Node) -> Vkey {
    let info = node.json(&["stream", "info", STREAM]);
    Vkey::parse(info["log_vkey"].as_str().unwrap()).unwrap()
}

fn checkpoint(node: &Node) -> Checkpoint {
    let note = get(node, "checkpoint");
    assert_eq!(note.status, 200);
    open_checkpoint(&note.body, &vkey(node)).unwrap()
}

fn get(node: &Node, path: &str) -> Fetched {
    node.fetch(&format!("/logs/{STREAM}/{path}"), &[])
}

fn with_token(node: &Node, path: &str, token: &str) -> Fetched {
    node.fetch(path, &[("Authorization", &format!("Bearer {token}"))])
}

/// The tree over the entries of all entry bundles, and the bundles' bytes in one.
fn rebuilt(node: &Node, size: u64) -> (MemoryTree, Vec<u8>) {
    let (mut tree, mut bytes) = (MemoryTree::new(), Vec::new());
    for bundle in tiles(size).filter(|tile| tile.kind() == TileKind::Entries) {
        let got = get(node, &bundle.to_string());
        assert_eq!(got.status, 200, "{bundle}");
        for entry in decode_entry_bundle(&got.body).unwrap() {
            assert_eq!(entry.len(), 118);
            tree.append(leaf_hash(entry));
        }
        bytes.extend(got.body);
    }
    (tree, bytes)
}

fn hashes_of(tree: &MemoryTree, tile: Tile) -> Vec<u8> {
    let TileKind::Hashes(level) = tile.kind() else {
        panic!("{tile}");
    };
    let first = tile.index() * 256;
    let hashes = (first..first + u64::from(tile.width()))
        .map(|index| tree.node(8 * level, index).unwrap())
        .collect::<Vec<Hash>>();
    hashes.concat()
}

/// 1. An open stream of more than two tiles. 2. Checkpoint, entries and tiles are fetched. 3. The entries give the signed root and every byte of every
///    tile; types and caching are those of tlog-tiles; no payload is in any answer.
#[test]
fn anybody_rebuilds_an_open_log_from_what_is_served() {
    let root = Root::new();
    let node = publisher(&root, 700, "open");
    let note = get(&node, "checkpoint");
    assert_eq!(note.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(note.header("cache-control"), "public, no-cache");
    let checkpoint = checkpoint(&node);
    assert_eq!(checkpoint.size, 701);
    let (tree, entries) = rebuilt(&node, checkpoint.size);
    assert_eq!(tree.compact_range().root(), checkpoint.root);
    let hash_tiles = tiles(checkpoint.size).filter(|tile| tile.kind() != TileKind::Entries);
    let mut compared = 0;
    for tile in hash_tiles {
        let got = get(&node, &tile.to_string());
        assert_eq!(got.status, 200, "{tile}");
        assert_eq!(got.body, hashes_of(&tree, tile), "{tile}");
        assert_eq!(got.header("content-type"), "application/octet-stream");
        assert_eq!(got.header("cache-control"), OPEN_TILE);
        compared += 1;
    }
    assert_eq!(compared, 4, "three tiles of leaves and one above");
    let payload = b"payload-".as_slice();
    let shown = entries.windows(payload.len()).any(|bytes| bytes == payload);
    assert!(!shown, "content is not part of a published log");
}

/// Every width that the tree has or has had is served, whole tiles only where they are full, and nothing beyond the newest checkpoint; what was fetched
/// once stays what it was when the log has grown.
#[test]
fn partial_tiles_are_served_at_every_width_and_nothing_beyond_the_checkpoint() {
    let root = Root::new();
    let node = publisher(&root, 300, "open");
    let size = checkpoint(&node).size;
    let (tree, _) = rebuilt(&node, size);
    let kinds = [
        TileKind::Entries,
        TileKind::Hashes(0),
        TileKind::Hashes(1),
        TileKind::Hashes(2),
        TileKind::Hashes(63),
    ];
    let mut before = Vec::new();
    for kind in kinds {
        for index in 0..3 {
            for width in [1, 2, 44, 45, 46, 255, 256] {
                let tile = Tile::new(kind, index, width).unwrap();
                let got = get(&node, &tile.to_string());
                let there = width <= width_at(kind, index, size);
                assert_eq!(got.status, if there { 200 } else { 404 }, "{tile}");
                if there && kind != TileKind::Entries {
                    assert_eq!(got.body, hashes_of(&tree, tile), "{tile}");
                }
                if there {
                    before.push((tile, got.body));
                }
            }
        }
    }
    hand_in(&root, &node, 300, 600);
    wait_until("the checkpoint covers them", || {
        (checkpoint(&node).size == 601).then_some(())
    });
    for (tile, body) in before {
        assert_eq!(get(&node, &tile.to_string()).body, body, "{tile}");
    }
    assert_eq!(get(&node, "tile/0/001").status, 200);
}

/// Paths that name nothing get 404 and cost nothing, whoever asks; and the door is still there afterwards.
#[test]
fn hostile_paths_are_not_found() {
    let root = Root::new();
    let node = publisher(&root, 3, "open");
    let long = "x000/".repeat(2_000);
    let paths = [
        "",
        "/",
        "checkpoint/",
        "checkpoint%00",
        "Checkpoint",
        "../quakes/checkpoint",
        "..%2fquakes/checkpoint",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/04",
        "tile/0/000.p/99999999999999999999",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/000",
        "tile/0/x001x/000",
        "tile/0/x001/x234",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/entries/x072/x057/x594/x037/x927/936",
        "tile/0/../0/000",
        "tile/0/%30%30%30",
        "tile/data/000",
        "tile/8/0/000",
        "tile//000",
        long.as_str(),
    ];
    for path in paths {
        let got = get(&node, path);
        assert_eq!(got.status, 404, "{path}");
        assert_eq!(got.header("cache-control"), "no-store", "{path}");
    }
    for path in [
        "/logs",
        "/logs/",
        "/logs//checkpoint",
        "/logs/QUAKES/checkpoint",
        "/logs/%71uakes/checkpoint",
    ] {
        assert_eq!(node.fetch(path, &[]).status, 404, "{path}");
    }
    assert_eq!(get(&node, "checkpoint").status, 200);
    assert_eq!(get(&node, "checkpoint?query").status, 200);
    // HEAD is GET without the body; nothing else is taken, whatever the path.
    let path = format!("/logs/{STREAM}/checkpoint");
    let head = node.request("HEAD", &path, &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), "text/plain; charset=utf-8");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(node.request(method, &path, &[]).status, 405, "{method}");
        assert_eq!(
            node.request(method, "/logs/x/y", &[]).status,
            405,
            "{method}"
        );
    }
}

/// 1. A closed stream. 2. Nobody reads it without a token, and the answer is that of a stream that does not exist. 3. A partner's token reads it while the
///    policies permit. 4. It ends with the agreement, with its withdrawal, and with the access of the partner.
#[test]
fn a_closed_log_is_read_with_a_partners_token_and_the_policies_leave() {
    let root = Root::new();
    let mut node = publisher(&root, 10, "closed");
    let mut partner = Node::init(root.path(), "Partner", &[]);
    partner.serve();
    let path = format!("/logs/{STREAM}/checkpoint");
    let nowhere = "/logs/nowhere/checkpoint";
    // Without a token.
    let closed = node.fetch(&path, &[]);
    assert_eq!(closed.status, 401);
    assert!(closed.header("www-authenticate").starts_with("Bearer"));
    let same = |a: &Fetched, b: &Fetched| {
        assert_eq!((a.status, &a.body), (b.status, &b.body));
        let plain = |got: &Fetched| {
            let headers = got.headers.iter().filter(|(name, _)| name != "date");
            headers.cloned().collect::<Vec<_>>()
        };
        assert_eq!(plain(a), plain(b));
    };
    same(&closed, &node.fetch(nowhere, &[]));
    let wrong = format!("cst1_{}", "0".repeat(64));
    for bad in [&wrong, "", "cst1_", "x"] {
        same(&closed, &with_token(&node, &path, bad));
        same(&closed, &with_token(&node, nowhere, bad));
    }
    // With one.
    node.share(STREAM, &partner);
    let made = node.json(&["partner", "token", "partner"]);
    let token = made["token"].as_str().unwrap().to_owned();
    let got = with_token(&node, &path, &token);
    assert_eq!(got.status, 200);
    assert_eq!(got.header("cache-control"), "private, no-cache");
    assert_eq!(open_checkpoint(&got.body, &vkey(&node)).unwrap().size, 11);
    for tile in ["tile/0/000.p/11", "tile/entries/000.p/11"] {
        let tile = format!("/logs/{STREAM}/{tile}");
        assert_eq!(with_token(&node, &tile, &token).status, 200);
        assert_eq!(node.fetch(&tile, &[]).status, 401);
    }
    assert_eq!(with_token(&node, nowhere, &token).status, 404);
    // The decision is kept, once; the token is not.
    let decided = |node: &Node| {
        let lines = node.lines(&["ledger", "ls", "--kind", "decision"]);
        let of_token = |line: &&String| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let facts = entry["record"]["facts"].as_str().unwrap();
            let facts: Value = serde_json::from_str(facts).unwrap();
            facts["principal"]["organization"]["partner"] == true
        };
        lines.iter().filter(of_token).count()
    };
    assert_eq!(decided(&node), 1);
    let entries = node.lines(&["ledger", "ls"]).concat();
    assert!(!entries.contains(&token) && entries.contains("\"token\""));
    // A restart changes nothing.
    assert!(node.terminate().success());
    node.serve();
    assert_eq!(with_token(&node, &path, &token).status, 200);
    // The agreement ends: the partner may know of the stream, and may not read it.
    let agreements = node.json(&["agreement", "ls"]);
    let agreement = agreements[0]["id"].as_str().unwrap();
    node.json(&["agreement", "terminate", agreement, "--yes"]);
    let refused = with_token(&node, &path, &token);
    assert_eq!(refused.status, 403);
    assert!(
        String::from_utf8(refused.body)
            .unwrap()
            .contains("not permitted")
    );
    assert_eq!(with_token(&node, nowhere, &token).status, 404);
    // A second agreement, a second token; one of them is withdrawn.
    node.share(STREAM, &partner);
    assert_eq!(with_token(&node, &path, &token).status, 200);
    let id = made["id"].as_str().unwrap();
    node.json(&["partner", "token", "partner", "--withdraw", id]);
    same(&closed, &with_token(&node, &path, &token));
    let again = node.run(&["partner", "token", "partner", "--withdraw", id]);
    assert_eq!(again.status.code(), Some(5));
    let short = node.json(&["partner", "token", "partner", "--expires", "1s"]);
    let short = short["token"].as_str().unwrap();
    wait_until("the token has expired", || {
        (with_token(&node, &path, short).status == 401).then_some(())
    });
    let other = node.json(&["partner", "token", "partner"]);
    let other = other["token"].as_str().unwrap();
    assert_eq!(with_token(&node, &path, other).status, 200);
    let listed = node.json(&["partner", "info", "partner"])["tokens"].clone();
    let states = |state: &str| {
        let tokens = listed.as_array().unwrap().iter();
        tokens.filter(|token| token["state"] == state).count()
    };
    assert_eq!(
        (states("good"), states("withdrawn"), states("expired")),
        (1, 1, 1)
    );
    // With its partner a token is revoked, for good: a later agreement does not bring it back.
    node.json(&["partner", "revoke", "partner", "--yes"]);
    same(&closed, &with_token(&node, &path, other));
    node.share(STREAM, &partner);
    same(&closed, &with_token(&node, &path, other));
    let later = node.json(&["partner", "token", "partner"]);
    let later = later["token"].as_str().unwrap();
    assert_eq!(with_token(&node, &path, later).status, 200);
    // Open, and closed again.
    node.json(&["stream", "access", STREAM, "open"]);
    assert_eq!(node.fetch(&path, &[]).status, 200);
    assert_eq!(with_token(&node, &path, "x").status, 200);
    assert!(node.terminate().success());
    node.serve();
    assert_eq!(node.fetch(&path, &[]).status, 200);
    node.json(&["stream", "access", STREAM, "closed"]);
    same(&closed, &node.fetch(&path, &[]));
    node.json(&["ledger", "verify"]);
}

/// A partner's copy and the ledgers are nobody's to fetch, under any name.
#[test]
fn copies_and_ledgers_are_not_published() {
    let root = Root::new();
    let mut node = publisher(&root, 5, "open");
    let mut partner = Node::init(root.path(), "Partner", &[]);
    partner.serve();
    node.share(STREAM, &partner);
    wait_until("the partner has a copy", || {
        (partner.entries(STREAM) == Some(6)).then_some(())
    });
    for path in [
        format!("/logs/{STREAM}/checkpoint"),
        "/logs/node/checkpoint".to_owned(),
        "/logs/ledger/node/checkpoint".to_owned(),
    ] {
        let status = partner.fetch(&path, &[]).status;
        assert!([401, 404].contains(&status), "{path}: {status}");
    }
    // Not even to the producer itself, whose log it is: to it, there is no such log here.
    let token = partner.json(&["partner", "token", "producer"]);
    let token = token["token"].as_str().unwrap();
    let path = format!("/logs/{STREAM}/checkpoint");
    assert_eq!(with_token(&partner, &path, token).status, 404);
    let open = partner.run(&["stream", "access", STREAM, "open"]);
    assert_eq!(open.status.code(), Some(5));
    assert!(node.terminate().success());
}
