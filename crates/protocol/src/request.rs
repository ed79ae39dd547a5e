use crate::Message as _;
use crate::messages::{
    AddCheckpoints, AskLog, AskPolicy, AskWitnessed, FetchBack, JoinQuery, ListStreams, Notice,
    Ping, PublishOpen, Subscribe, SubscribeFiltered,
};

/// Each request by its name here and the message that begins it. What is dispatched and what is tried at every door is made from this one list, so that a
/// request which nobody has thought about does not compile.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $message:ty,)*) => {
        /// What a stream between nodes may begin with: every way into a node over QUIC.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Request {
            $($(#[$doc])* $name,)*
        }

        impl Request {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind of the frame that begins it.
            #[must_use]
            pub const fn kind(self) -> u8 {
                match self {
                    $(Self::$name => <$message>::KIND,)*
                }
            }

            /// The request that a frame of this kind begins.
            #[must_use]
            pub fn of(kind: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|request| request.kind() == kind)
            }
        }
    };
}

requests! {
    /// Heads to be cosigned.
    AddCheckpoints = AddCheckpoints,
    /// What is known of a log?
    AskLog = AskLog,
    /// How would be decided?
    AskPolicy = AskPolicy,
    /// Up to where is a log witnessed?
    AskWitnessed = AskWitnessed,
    /// Entries that their producer has lost.
    FetchBack = FetchBack,
    /// To redeem an invitation.
    Join = JoinQuery,
    /// Which streams are there?
    List = ListStreams,
    /// A signed document.
    Notice = Notice,
    /// Are you there?
    Ping = Ping,
    /// To hand in events.
    Publish = PublishOpen,
    /// To be sent events.
    Subscribe = Subscribe,
    /// To be sent events that pass a filter.
    SubscribeFiltered = SubscribeFiltered,
}
