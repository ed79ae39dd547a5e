//! What is measured: each measure is one call of `countersign bench`, and where a peer can do the same, what it is asked for.

use super::options::Options;

/// Data bytes of an event.
pub(super) const SIZES: [u32; 3] = [256, 1_024, 16_384];

/// Largest UDP payloads: Ethernet's, and one that loopback carries.
pub(super) const MTUS: [u32; 2] = [1_452, 6_000];

/// Bytes of our events beside their data that the peer's messages carry too: the values of five attributes.
pub(super) const ATTRIBUTE_BYTES: u32 = 148;

/// Bytes that our publisher has on the way; the peer's has as many messages as these are of our events.
const WINDOW_BYTES: u32 = 8 << 20;

/// Of one of our events in a publisher's window, beside its data: attributes in canonical form and two lengths.
const OVERHEAD_BYTES: u32 = 217 + 9;

/// One call of `countersign bench`.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    /// Verb, size or what else tells it apart, MTU where it is not Ethernet's.
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Not worth repeating: it takes long and hardly varies.
    pub(super) once: bool,
    pub(super) peer: Option<PeerTask>,
}

/// The same for a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PeerTask {
    pub(super) mode: Mode,
    /// Of a message, all in all.
    pub(super) bytes: u32,
    /// Messages on the way.
    pub(super) window: u32,
    pub(super) rate: Option<u32>,
    /// Of [`Mode::Consume`].
    pub(super) events: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Until acknowledged.
    Publish,
    /// Published and consumed at once.
    Deliver,
    /// Stored first, consumed then.
    Consume,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Deliver => "deliver",
            Self::Consume => "consume",
        }
    }
}

/// Everything, in the order in which it runs.
pub(super) fn measures(options: &Options) -> Vec<Measure> {
    let seconds = options.seconds.to_string();
    let window = ["--seconds", &seconds, "--warmup", "1"];
    let mut all = Vec::new();
    for mtu in MTUS {
        for size in SIZES {
            all.push(measure(
                "publish",
                size,
                mtu,
                &window,
                Some((Mode::Publish, None)),
            ));
            all.push(measure(
                "deliver",
                size,
                mtu,
                &window,
                Some((Mode::Deliver, None)),
            ));
            let events = catch_up_events(size, options.quick_look);
            let mut catch_up = measure(
                "catch-up",
                size,
                mtu,
                &["--events", &events.to_string()],
                Some((Mode::Consume, None)),
            );
            if let Some(peer) = &mut catch_up.peer {
                peer.events = events;
            }
            all.push(catch_up);
        }
        for verb in ["publish", "deliver"] {
            let mode = if verb == "publish" {
                Mode::Publish
            } else {
                Mode::Deliver
            };
            let more = [&window as &[&str], &["--rate", "1000"]].concat();
            let mut latency = measure(verb, 256, mtu, &more, Some((mode, Some(1_000))));
            latency.name = named(&format!("{verb} latency"), mtu);
            all.push(latency);
        }
        let more = [
            &window as &[&str],
            &[
                "--subscribers",
                if options.quick_look { "10" } else { "100" },
            ],
        ]
        .concat();
        let mut fan_out = measure("fan-out", 256, mtu, &more, None);
        fan_out.name = named("fan-out", mtu);
        all.push(fan_out);
    }
    for size in SIZES {
        let events = (catch_up_events(size, options.quick_look) / 5).to_string();
        all.push(measure_here(
            "verify",
            &format!("verify {size}"),
            &[
                "--size",
                &size.to_string(),
                "--events",
                &events,
                "--seconds",
                "2",
            ],
        ));
        all.push(measure_here(
            "raw",
            &format!("raw {size}"),
            &["--size", &size.to_string()],
        ));
    }
    all.push(measure_here(
        "raw",
        &named("raw", MTUS[1]),
        &["--sync-bytes", "1048576", "--mtu", &MTUS[1].to_string()],
    ));
    for streams in ["1", "1000"] {
        let more = [
            &window as &[&str],
            &["--streams", streams, "--rate", "100000"],
        ]
        .concat();
        all.push(measure_here(
            "publish",
            &format!("streams {streams}"),
            &more,
        ));
    }
    let idle = if options.quick_look { "1000" } else { "10000" };
    all.push(once(measure_here(
        "idle",
        "idle",
        &["--subscriptions", idle],
    )));
    let entries = if options.quick_look {
        "200000"
    } else {
        "10000000"
    };
    all.push(once(measure_here(
        "restart",
        "restart",
        &["--events", entries],
    )));
    all.retain(|measure| {
        options.only.is_empty()
            || options
                .only
                .iter()
                .any(|word| measure.name.contains(word.as_str()))
    });
    all
}

/// Some seconds' worth of each size.
fn catch_up_events(size: u32, quick_look: bool) -> u64 {
    let all = match size {
        0..=512 => 1_000_000,
        513..=4_096 => 500_000,
        _ => 50_000,
    };
    if quick_look { all / 5 } else { all }
}

/// A name with its MTU, where it is not Ethernet's.
pub(super) fn named(name: &str, mtu: u32) -> String {
    if mtu == MTUS[0] {
        name.to_owned()
    } else {
        format!("{name} mtu {mtu}")
    }
}

/// A measure of a size at an MTU, which a peer does too where the MTU is Ethernet's: it uses TCP, and once is enough.
fn measure(
    verb: &str,
    size: u32,
    mtu: u32,
    more: &[&str],
    peer: Option<(Mode, Option<u32>)>,
) -> Measure {
    let (size_text, mtu_text) = (size.to_string(), mtu.to_string());
    let arguments = [&["--size", &size_text, "--mtu", &mtu_text], more].concat();
    let peer = peer
        .filter(|_| mtu == MTUS[0])
        .map(|(mode, rate)| PeerTask {
            mode,
            bytes: size + ATTRIBUTE_BYTES,
            window: WINDOW_BYTES / (size + OVERHEAD_BYTES),
            rate,
            events: 0,
        });
    Measure {
        peer,
        ..measure_here(verb, &named(&format!("{verb} {size}"), mtu), &arguments)
    }
}

fn measure_here(verb: &str, name: &str, arguments: &[&str]) -> Measure {
    let arguments = [&[verb], arguments].concat();
    Measure {
        name: name.to_owned(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        once: false,
        peer: None,
    }
}

fn once(measure: Measure) -> Measure {
    Measure {
        once: true,
        ..measure
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::parse;
    use super::*;

    #[test]
    fn each_measure_has_a_name_of_its_own_and_the_peer_does_what_it_can() {
        let all = measures(&parse(&[]).unwrap());
        let mut names: Vec<&str> = all.iter().map(|measure| measure.name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let peers: Vec<&str> = all
            .iter()
            .filter(|measure| measure.peer.is_some())
            .map(|measure| measure.name.as_str())
            .collect();
        assert_eq!(peers.len(), 11, "{peers:?}");
        let publish = all
            .iter()
            .find(|measure| measure.name == "publish 256")
            .unwrap();
        let peer = publish.peer.as_ref().unwrap();
        assert_eq!(
            (peer.mode, peer.bytes, peer.window),
            (Mode::Publish, 404, 17_403)
        );
    }

    #[test]
    fn a_selection_is_by_words_of_the_name() {
        let all = measures(&parse(&["--only", "streams", "--only", "publish 256"]).unwrap());
        let names: Vec<&str> = all.iter().map(|measure| measure.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "publish 256",
                "publish 256 mtu 6000",
                "streams 1",
                "streams 1000"
            ]
        );
    }
}
