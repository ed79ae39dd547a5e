use super::*;
use countersign_event::documents::Period;
use std::collections::BTreeSet;

const SECOND: u64 = 1_000_000;
const ALL: Hash = [0; 32];

fn plan(rate: Option<(u32, u32)>, quota: Option<(Option<u64>, Option<u64>)>) -> Plan {
    Plan {
        rate: rate.map(|(per_second, burst)| Rate {
            events_per_second: per_second.try_into().unwrap(),
            burst_events: Some(burst.try_into().unwrap()),
        }),
        quota: quota.map(|(events, bytes)| Quota {
            period: Period::Seconds(100.try_into().unwrap()),
            events,
            bytes,
        }),
        ..Plan::default()
    }
}

/// A log of events of these sizes, a ledger, and readers that a stop of the node makes forget everything but these two.
struct World {
    sizes: Vec<u64>,
    plan: Plan,
    allowance: Allowance,
    ledger: Vec<Allotment>,
    /// Not in the ledger yet.
    writing: Vec<Allotment>,
    now: Timestamp,
    /// By period, what was handed out.
    out: BTreeSet<(Timestamp, Hash, u64)>,
    /// Through which the reader looks whose turn it is.
    view: Hash,
    /// When each event was handed out, also again.
    sent: Vec<u64>,
}

impl World {
    fn new(plan: Plan, sizes: Vec<u64>) -> Self {
        let now = Timestamp(1_000 * SECOND);
        Self {
            allowance: Allowance::new(&plan, now).unwrap(),
            plan,
            sizes,
            ledger: Vec::new(),
            writing: Vec::new(),
            now,
            out: BTreeSet::new(),
            view: ALL,
            sent: Vec::new(),
        }
    }

    fn write(&mut self) {
        for allotment in std::mem::take(&mut self.writing) {
            self.ledger.push(allotment);
            self.allowance.answered(&allotment, true, self.now);
        }
    }

    fn crash(&mut self) {
        self.writing.clear();
        self.allowance = Allowance::new(&self.plan, self.now).unwrap();
        self.allowance.restore(&self.ledger);
    }

    /// As a session does when it is opened.
    fn open(&mut self) {
        let sizes = &self.sizes;
        let count = |(from, bound): (u64, u64), amount: Amount| {
            let (mut to, mut used) = (from, [0, 0]);
            while let Some(size) = sizes.get(to as usize).filter(|_| to < bound) {
                if used[0] + 1 > amount[0] || used[1] + size > amount[1] {
                    break;
                }
                used = [used[0] + 1, used[1] + size];
                to += 1;
            }
            Ok::<_, ()>((to, used))
        };
        self.allowance.resolve(self.view, count).unwrap();
    }

    /// One step of a reader; `false` where it is held up.
    fn step(&mut self, position: &mut u64, batch: u64) -> bool {
        let end = (self.sizes.len() as u64).min(*position + batch);
        if *position >= end {
            return false;
        }
        self.open();
        let next = self.sizes[*position as usize];
        match self
            .allowance
            .room(self.view, (*position, end), next, self.now)
        {
            Room::Go { end, amount } => {
                let (mut to, mut used) = (*position, [0, 0]);
                while to < end {
                    let size = self.sizes[to as usize];
                    if used[0] + 1 > amount[0] || used[1] + size > amount[1] {
                        break;
                    }
                    used = [used[0] + 1, used[1] + size];
                    self.out.insert((
                        self.allowance.period().unwrap_or(Timestamp(0)),
                        self.view,
                        to,
                    ));
                    self.sent.push(self.now.0);
                    to += 1;
                }
                assert!(to > *position, "room for nothing");
                self.writing
                    .extend(self.allowance.hand_out(self.view, (*position, to), used));
                *position = to;
                true
            }
            Room::Ask(allotments) => {
                self.writing.extend(allotments);
                true
            }
            Room::Pending => {
                self.write();
                true
            }
            Room::Held { .. } | Room::Others(_) => false,
        }
    }

    fn check_quota(&self) {
        let Some(quota) = self.plan.quota else { return };
        let mut periods = std::collections::BTreeMap::<Timestamp, Amount>::new();
        for (period, _, position) in &self.out {
            let sum = periods.entry(*period).or_default();
            *sum = [sum[0] + 1, sum[1] + self.sizes[*position as usize]];
        }
        for sum in periods.values() {
            assert!(sum[0] <= quota.events.unwrap_or(u64::MAX), "{sum:?}");
            assert!(sum[1] <= quota.bytes.unwrap_or(u64::MAX), "{sum:?}");
        }
    }
}

#[test]
fn one_reader_gets_the_quota_to_the_event_with_few_ledger_entries() {
    let mut world = World::new(plan(None, Some((Some(100_000), None))), vec![1; 200_000]);
    let mut position = 0;
    while world.step(&mut position, 1_000) {}
    assert_eq!(position, 100_000);
    assert!(world.ledger.len() < 120, "{}", world.ledger.len());
    let until = Timestamp(1_100 * SECOND);
    let limit = Limit::QuotaEvents;
    assert_eq!(
        world
            .allowance
            .room(ALL, (position, position + 1), 1, world.now),
        Room::Held { limit, until }
    );
    // What was sent may be sent again.
    let mut again = 10;
    assert!(world.step(&mut again, 50));
    assert_eq!(again, 60);
    world.now = until;
    while world.step(&mut position, 1_000) {}
    assert_eq!(position, 200_000);
    world.check_quota();
}

#[test]
fn bytes_stop_before_the_event_that_would_be_too_much() {
    let mut world = World::new(plan(None, Some((None, Some(1_000)))), vec![300; 10]);
    let mut position = 0;
    while world.step(&mut position, 100) {}
    assert_eq!(position, 3);
    let room = world.allowance.room(ALL, (3, 4), 300, world.now);
    assert!(
        matches!(
            room,
            Room::Held {
                limit: Limit::QuotaBytes,
                ..
            }
        ),
        "{room:?}"
    );
}

#[test]
fn readers_at_many_places_share_one_quota_and_use_all_of_it() {
    let mut world = World::new(plan(None, Some((Some(1_000), None))), vec![1; 100_000]);
    let mut positions: Vec<u64> = (0..50).map(|reader| reader * 1_500).collect();
    // Nobody rests: a second later what others have not used is theirs no more.
    for _ in 0..3 {
        let mut rounds = 0;
        loop {
            let mut moved = false;
            for position in &mut positions {
                moved |= world.step(position, 7);
            }
            rounds += 1;
            assert!(rounds < 1_000, "they take it from each other for ever");
            if !moved {
                break;
            }
        }
        world.now = Timestamp(world.now.0 + SECOND);
    }
    assert_eq!(world.out.len(), 1_000);
    world.check_quota();
}

#[test]
fn after_a_crash_a_reader_that_goes_on_gets_exactly_the_rest() {
    for crash_at in [0, 1, 2, 5, 9, 17, 40] {
        let mut world = World::new(plan(None, Some((Some(1_000), None))), vec![1; 5_000]);
        let (mut position, mut steps) = (0, 0);
        loop {
            if steps == crash_at {
                world.crash();
                // The last batches were lost on the way.
                position -= position.min(20);
            }
            if !world.step(&mut position, 10) {
                break;
            }
            steps += 1;
        }
        assert_eq!((position, world.out.len()), (1_000, 1_000), "{crash_at}");
    }
}

#[test]
fn whatever_readers_do_and_however_often_the_node_stops_no_period_gets_more() {
    let mut state: u64 = 11;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..60 {
        let events = (random(2) == 0).then(|| 1 + random(400));
        let bytes = (events.is_none() || random(2) == 0).then(|| 50 + random(20_000));
        let sizes = (0..3_000).map(|_| random(100)).collect();
        let mut world = World::new(plan(None, Some((events, bytes))), sizes);
        let mut positions = vec![0; 1 + random(6) as usize];
        for _ in 0..1_500 {
            let reader = random(positions.len() as u64) as usize;
            world.view = [u8::from(reader > 2); 32];
            match random(60) {
                0 => world.crash(),
                1 => world.now = Timestamp(world.now.0 + random(60) * SECOND),
                2 => world.now = Timestamp(world.now.0 - random(10) * SECOND),
                3 => positions[reader] = random(3_000),
                4 => {
                    let back = world.allowance.give_back(world.view, positions[reader]);
                    world.writing.extend(back);
                }
                5..15 => world.write(),
                _ => {
                    let batch = 1 + random(50);
                    world.step(&mut positions[reader], batch);
                }
            }
        }
        world.check_quota();
    }
}

#[test]
fn over_any_span_no_more_than_the_rate_leaves_and_no_less_where_there_is_more() {
    let (per_second, burst) = (200, 50);
    let mut world = World::new(plan(Some((per_second, burst)), None), vec![1; 100_000]);
    let mut positions = [0, 30_000];
    let begun = world.now.0;
    let mut steps = 0_u64;
    while world.now.0 < begun + 60 * SECOND {
        let [one, two] = &mut positions;
        while world.step(one, 30) || world.step(two, 30) {}
        steps += 1;
        if steps.is_multiple_of(300) {
            world.crash();
        }
        world.now = Timestamp(world.now.0 + 7_000);
    }
    for (at, first) in world.sent.iter().enumerate() {
        let within = world.sent[at..].partition_point(|time| time - first <= 10 * SECOND);
        let most = u64::from(burst) + u64::from(per_second) * 10;
        assert!(within as u64 <= most, "{within}");
    }
    // Each of the stops throws away what had gathered: at most a batch.
    let least = u64::from(per_second) * 58;
    assert!(world.sent.len() as u64 >= least, "{}", world.sent.len());
}

#[test]
fn a_rate_says_when_it_lifts() {
    let plan = plan(Some((2, 2)), None);
    let now = Timestamp(1_000 * SECOND);
    let mut allowance = Allowance::new(&plan, now).unwrap();
    let until = Timestamp(now.0 + SECOND / 2);
    let limit = Limit::Rate;
    assert_eq!(
        allowance.room(ALL, (0, 9), 1, now),
        Room::Held { limit, until }
    );
    let amount = [1, u64::MAX];
    assert_eq!(
        allowance.room(ALL, (0, 9), 1, until),
        Room::Go { end: 9, amount }
    );
    // After a long rest no more than a burst.
    let later = Timestamp(now.0 + 60 * SECOND);
    let amount = [2, u64::MAX];
    assert_eq!(
        allowance.room(ALL, (0, 9), 1, later),
        Room::Go { end: 9, amount }
    );
}
