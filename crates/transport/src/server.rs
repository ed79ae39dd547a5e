use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_client::IdentityFault;
use countersign_client::quic::{
    Accepting, ConnectError, Connection, Endpoint, FrameReader, FrameWriter, Incoming, QuicLimits,
};
use countersign_client::session::{Expected, Session, SessionOptions, handshake};
use countersign_event::documents::{RefusalCode, Role, StatementError};
use countersign_event::dsse::Envelope;
use countersign_event::names::Authority;
use countersign_exchange::{Exchange, ExchangeError, Peer};
use countersign_protocol::{
    AskPolicy, AskWitnessed, Hello, ListStreams, Message as _, Notice, NoticeAck, PROTOCOL_MINOR,
    Ping, PolicyAnswer, Pong, Refused, Request, StreamList, WitnessedState,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::frames::{FrameGone, gone, next};
use crate::{deliver, erasing, join, outside, partners, publish, witness};

/// How long a stream may be open before its first frame is whole.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// How long an organization that is no partner may stay connected without asking for anything.
const STRANGER_IDLE: Duration = Duration::from_secs(30);

/// How often it is looked whether time alone has ended what was allowed.
const CLOCK: Duration = Duration::from_millis(500);

/// Close code: the node is going down.
const CLOSE_SHUTDOWN: u32 = 1;

/// Close code: the peer is not, or no longer, who it was greeted as.
const CLOSE_IDENTITY: u32 = 3;

/// How long partners may take to hold a document about our keys.
const ANNOUNCE: Duration = Duration::from_secs(5);

/// How a node listens.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// UDP address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where others can dial us; empty where they cannot.
    pub advertise: Vec<String>,
    /// Limits of connections.
    pub limits: QuicLimits,
}

/// A listening node.
pub struct Server {
    shared: Arc<Shared>,
    local: SocketAddr,
    tasks: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) endpoint: Endpoint,
    pub(crate) advertise: Vec<String>,
    pub(crate) limits: QuicLimits,
    sessions: Mutex<HashMap<Authority, Connection>>,
    /// Moves whenever a partner comes or goes.
    pub(crate) sessions_moved: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// Begins to listen, and to dial partners with whom there is an agreement.
    ///
    /// # Errors
    /// [`ConnectError`] where the address cannot be had.
    pub fn start(exchange: &Arc<Exchange>, options: ServerOptions) -> Result<Self, ConnectError> {
        let key = exchange.identity().node_key.clone();
        let endpoint = Endpoint::bind(options.listen, key, options.limits.clone(), Accepting::Yes)?;
        let local = endpoint.local_addr().unwrap_or(options.listen);
        let shared = Arc::new(Shared {
            exchange: Arc::clone(exchange),
            endpoint,
            advertise: options.advertise,
            limits: options.limits,
            sessions: Mutex::new(HashMap::new()),
            sessions_moved: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        });
        let tasks = tokio::spawn(run(Arc::clone(&shared)));
        Ok(Self {
            shared,
            local,
            tasks: Mutex::new(Some(tasks)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Partners with a session now.
    #[must_use]
    pub fn connected(&self) -> Vec<Authority> {
        let sessions = self
            .shared
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut partners: Vec<_> = sessions.keys().cloned().collect();
        partners.sort();
        partners
    }

    /// Tells every partner that is connected of documents about our keys, and waits until each holds them. Who does not take them within five seconds is
    /// disconnected, and sees the newest statement when it comes again.
    pub async fn announce(&self, documents: &[Envelope]) {
        let sessions: Vec<Connection> = {
            let sessions = self.shared.sessions.lock();
            let sessions = sessions.unwrap_or_else(PoisonError::into_inner);
            sessions.values().cloned().collect()
        };
        let mut telling = JoinSet::new();
        for connection in sessions {
            let documents = documents.to_vec();
            telling.spawn(async move {
                let told = async {
                    for document in &documents {
                        partners::tell(&connection, &document.to_json()).await?;
                    }
                    Ok::<_, FrameGone>(())
                };
                if !matches!(timeout(ANNOUNCE, told).await, Ok(Ok(()))) {
                    connection.close(CLOSE_SHUTDOWN, "our keys have changed: come again");
                }
            });
        }
        while telling.join_next().await.is_some() {}
    }

    /// Speaks TLS with the node key in force, in sessions that begin from now on.
    pub fn renew_node_key(&self) {
        let key = self.shared.exchange.identity().node_key.clone();
        self.shared.endpoint.use_key(key);
    }

    /// Open connections of all kinds.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.endpoint.open_connections()
    }

    /// Connections refused since the start, because a limit was reached.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.endpoint.refused()
    }

    /// Ends all sessions.
    pub async fn shut_down(&self) {
        self.shared.stopping.send_replace(true);
        self.shared
            .endpoint
            .close(CLOSE_SHUTDOWN, "the node is going down");
        let tasks = self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(tasks) = tasks {
            let _ = tasks.await;
        }
        let _ = timeout(Duration::from_secs(1), self.shared.endpoint.wait_idle()).await;
    }
}

async fn run(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(partners::keep_connected(Arc::clone(&shared)));
    tasks.spawn(partners::keep_subscribed(Arc::clone(&shared)));
    tasks.spawn(watch_clock(Arc::clone(&shared)));
    tasks.spawn(erasing::work_on_erasures(Arc::clone(&shared)));
    for witness in shared.exchange.outside_witnesses() {
        let submitting = outside::submit_outside(Arc::clone(&shared.exchange), witness.clone());
        tasks.spawn(submitting);
    }
    let mut stopping = shared.stopping.subscribe();
    loop {
        tokio::select! {
            incoming = shared.endpoint.accept() => match incoming {
                Some(incoming) => {
                    tasks.spawn(accept(Arc::clone(&shared), incoming));
                }
                None => break,
            },
            _ = stopping.changed() => break,
            // A task that panicked has ended its own connection and nothing else.
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
}

/// One clock for all subscriptions: ten thousand of their own would wake the node 20,000 times a second to find that nothing has changed.
async fn watch_clock(shared: Arc<Shared>) {
    let mut tick = interval(CLOCK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.exchange.note_time();
    }
}

async fn accept(shared: Arc<Shared>, incoming: Incoming) {
    // Boxed: what the greeting needs is given back before the connection is served, perhaps for weeks.
    if let Some((connection, peer)) = Box::pin(greet(&shared, incoming)).await {
        serve_connection(shared, connection, peer).await;
    }
}

async fn greet(shared: &Shared, incoming: Incoming) -> Option<(Connection, Peer)> {
    let remote = incoming.remote_address();
    let connection = match incoming.handshake().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%remote, %error, "a handshake failed");
            return None;
        }
    };
    let exchange = &shared.exchange;
    let judge = |hello: &Hello, key: &countersign_crypto::PublicKey| {
        exchange.identify(hello, key).map_err(|error| Refused {
            refusal: Vec::new(),
            code: "wrong-identity".to_owned(),
            reason: error.to_string(),
            retry_after_ms: 0,
        })
    };
    match handshake::accept(&connection, &shared.hello(), judge).await {
        Ok(peer) => Some((connection, peer)),
        Err(error) => {
            tracing::debug!(%remote, %error, "a greeting failed");
            None
        }
    }
}

impl Shared {
    fn hello(&self) -> Hello {
        Hello {
            minor: PROTOCOL_MINOR,
            key_statement: self.exchange.identity().envelope.to_json(),
            software: concat!("countersign ", env!("CARGO_PKG_VERSION")).to_owned(),
            addresses: self.advertise.clone(),
        }
    }

    /// A session with a partner, if there is one.
    pub(crate) fn session(&self, partner: &Authority) -> Option<Connection> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .get(partner)
            .filter(|connection| connection.close_reason().is_none())
            .cloned()
    }

    /// Dials a partner and greets; the connection then serves both ways.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        partner: &Authority,
    ) -> Result<(), countersign_client::SessionError> {
        let (addresses, organization) = {
            let registry = self.exchange.registry();
            let Some(known) = registry.partners.get(partner) else {
                return Err(countersign_client::SessionError::NoAddress);
            };
            (
                known.addresses.clone(),
                known.statement.organization.fingerprint(),
            )
        };
        let identity = self.exchange.identity();
        let clock = Arc::clone(self.exchange.clock());
        let options = SessionOptions {
            addresses,
            expected: Expected::organization(organization),
            key: identity.node_key.clone(),
            statement: Some(identity.envelope.clone()),
            advertise: self.advertise.clone(),
            limits: self.limits.clone(),
            clock: Arc::new(move || clock.now()),
        };
        let session = Session::connect_over(&self.endpoint, &options).await?;
        let node = session.peer();
        // The right organization is not enough: a node key that a newer statement dropped shows the older one, and would be served here.
        let expected = node.statement.authority == *partner;
        if !expected || self.exchange.check_pinned(&node.statement).is_err() {
            session.close().await;
            let stale = StatementError::NotDelegated {
                authority: partner.clone(),
                role: Role::Node,
            };
            return Err(IdentityFault::from(stale).into());
        }
        let peer = Peer::Organization {
            statement: Arc::new(node.statement.clone()),
            envelope: Arc::new(node.envelope.clone()),
            node: node.node,
            addresses: node.addresses.clone(),
        };
        let connection = session.connection().clone();
        connection.admit();
        // Before anything is read from it: a newer statement may be what its heads are verified by.
        if let Err(error) = Box::pin(self.exchange.note_partner(&peer)).await {
            tracing::warn!(%error, "a partner's new key statement could not be stored");
        }
        self.adopt(partner, &connection);
        tokio::spawn(serve_connection(Arc::clone(self), connection, peer));
        Ok(())
    }

    fn adopt(&self, partner: &Authority, connection: &Connection) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(partner.clone(), connection.clone());
        drop(sessions);
        self.sessions_moved.send_modify(|moved| *moved += 1);
    }

    fn forget(&self, partner: &Authority, connection: &Connection) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions
            .get(partner)
            .is_some_and(|known| known.stable_id() == connection.stable_id())
        {
            sessions.remove(partner);
            drop(sessions);
            self.sessions_moved.send_modify(|moved| *moved += 1);
        }
    }
}

/// Serves a greeted connection until it ends.
async fn serve_connection(shared: Arc<Shared>, connection: Connection, peer: Peer) {
    let known =
        |authority: &&Authority| shared.exchange.registry().partners.contains_key(*authority);
    let partner = peer.authority().filter(known).cloned();
    if let Some(partner) = &partner {
        if let Err(error) = Box::pin(shared.exchange.note_partner(&peer)).await {
            tracing::warn!(%error, "a partner's new key statement could not be stored");
        }
        shared.adopt(partner, &connection);
        tokio::spawn(partners::tell_notices(
            Arc::clone(&shared.exchange),
            partner.clone(),
            connection.clone(),
        ));
        tokio::spawn(witness::follow_witnessed(
            Arc::clone(&shared.exchange),
            partner.clone(),
            connection.clone(),
        ));
        tokio::spawn(witness::compare_own(
            Arc::clone(&shared.exchange),
            partner.clone(),
            connection.clone(),
        ));
        tokio::spawn(witness::submit_to_partner(
            Arc::clone(&shared.exchange),
            partner.clone(),
            connection.clone(),
        ));
    }
    let mut streams = JoinSet::new();
    let mut access = shared.exchange.watch_access();
    loop {
        if shared.exchange.is_over(&peer) {
            connection.close(CLOSE_IDENTITY, "this node key was revoked");
            break;
        }
        tokio::select! {
            _ = access.changed() => {}
            stream = connection.accept_bi() => match stream {
                Ok((writer, reader)) => {
                    connection.grant_streams(streams.len() + 1);
                    let serve = serve_stream(Arc::clone(&shared), peer.clone(), connection.clone(), writer, reader);
                    streams.spawn(serve);
                }
                Err(error) => {
                    tracing::debug!(peer = peer.name(), %error, "a connection ended");
                    break;
                }
            },
            Some(_) = streams.join_next() => {}
            // A stranger may ask to join, and ask again; it may not stay for nothing.
            () = sleep(STRANGER_IDLE), if streams.is_empty() => {
                let stranger = peer.authority().is_some_and(|authority| !known(&authority));
                if stranger {
                    connection.close(CLOSE_SHUTDOWN, "nothing was asked for");
                    break;
                }
            }
        }
    }
    // Receipts on their way to the disk finish; streams see that the connection is gone by themselves.
    while streams.join_next().await.is_some() {}
    // Also one that became a partner on this connection.
    if let Some(authority) = peer.authority() {
        shared.forget(authority, &connection);
    }
}

async fn serve_stream(
    shared: Arc<Shared>,
    peer: Peer,
    connection: Connection,
    writer: FrameWriter,
    reader: FrameReader,
) {
    if let Err(error) = dispatch(shared, &peer, connection, writer, reader).await {
        tracing::debug!(peer = peer.name(), %error, "a stream ended early");
    }
}

async fn dispatch(
    shared: Arc<Shared>,
    peer: &Peer,
    connection: Connection,
    mut writer: FrameWriter,
    mut reader: FrameReader,
) -> Result<(), FrameGone> {
    let exchange = Arc::clone(&shared.exchange);
    let first = timeout(FIRST_FRAME, next(&mut reader))
        .await
        .map_err(gone)??;
    let Some(first) = first else { return Ok(()) };
    let (kind, body) = (first.kind, first.body);
    // Each in a box of its own size: in one piece, an idle subscription would hold what the largest of the others needs.
    let Some(request) = Request::of(kind) else {
        let reason = format!("no request has kind {kind}");
        let refused = exchange.refuse(peer, "request", "", RefusalCode::Malformed, reason);
        writer
            .write(Refused::KIND, &refused.message().to_body())
            .await
            .map_err(gone)?;
        return writer.finish().map_err(gone);
    };
    match request {
        Request::Publish => {
            let publish =
                publish::serve_publish(&exchange, peer, (kind, body), &mut reader, &mut writer);
            Box::pin(publish).await?;
            writer.finish().map_err(gone)
        }
        Request::Subscribe | Request::SubscribeFiltered => {
            let peer = peer.clone();
            Box::pin(deliver::serve(exchange, peer, (kind, body), writer, reader)).await
        }
        Request::Join => {
            let join = join::serve(
                exchange,
                peer.clone(),
                connection.clone(),
                (kind, body),
                writer,
                reader,
            );
            let served = Box::pin(join).await;
            // A joiner that was a stranger a moment ago is a partner now, on this very connection.
            let known = |authority: &&Authority| {
                shared.exchange.registry().partners.contains_key(*authority)
            };
            if let Some(partner) = peer.authority().filter(known) {
                shared.adopt(partner, &connection);
            }
            served
        }
        Request::AddCheckpoints => {
            let served =
                witness::serve_add_checkpoints(&exchange, peer, (kind, &body), &mut writer);
            Box::pin(served).await?;
            writer.finish().map_err(gone)
        }
        Request::FetchBack => {
            let served = witness::serve_fetch_back(&exchange, peer, (kind, &body), &mut writer);
            Box::pin(served).await?;
            writer.finish().map_err(gone)
        }
        Request::AskLog => {
            let served = witness::serve_ask_log(&exchange, peer, (kind, &body), &mut writer);
            Box::pin(served).await?;
            writer.finish().map_err(gone)
        }
        Request::AskWitnessed => {
            let ask = AskWitnessed::read(kind, &body).map_err(gone)?;
            let (kind, body) = match exchange.witnessed_state(peer, &ask) {
                Ok(state) => (WitnessedState::KIND, state.to_body()),
                Err(ExchangeError::Refused(refused)) => {
                    (Refused::KIND, refused.message().to_body())
                }
                Err(error) => return Err(gone(error)),
            };
            writer.write(kind, &body).await.map_err(gone)?;
            writer.finish().map_err(gone)
        }
        Request::AskPolicy => {
            let ask = AskPolicy::read(kind, &body).map_err(gone)?;
            let (kind, body) = match exchange.answer_policy(peer, &ask) {
                Ok(answer) => (PolicyAnswer::KIND, answer.to_body()),
                Err(refused) => (Refused::KIND, refused.message().to_body()),
            };
            writer.write(kind, &body).await.map_err(gone)?;
            writer.finish().map_err(gone)
        }
        Request::List => {
            let ask = ListStreams::read(kind, &body).map_err(gone)?;
            let (kind, body) = match exchange.list_streams(peer, &ask) {
                Ok(list) => (StreamList::KIND, list.to_body()),
                Err(refused) => (Refused::KIND, refused.message().to_body()),
            };
            writer.write(kind, &body).await.map_err(gone)?;
            writer.finish().map_err(gone)
        }
        Request::Notice => {
            let notice = Notice::read(kind, &body).map_err(gone)?;
            match Box::pin(exchange.take_notice(peer, &notice.envelope)).await {
                Ok(()) => writer
                    .write(NoticeAck::KIND, &NoticeAck {}.to_body())
                    .await
                    .map_err(gone)?,
                Err(ExchangeError::Refused(refused)) => {
                    writer
                        .write(Refused::KIND, &refused.message().to_body())
                        .await
                        .map_err(gone)?;
                }
                Err(error) => return Err(gone(error)),
            }
            writer.finish().map_err(gone)
        }
        Request::Ping => {
            let ping = Ping::read(kind, &body).map_err(gone)?;
            writer
                .write(Pong::KIND, &Pong { nonce: ping.nonce }.to_body())
                .await
                .map_err(gone)?;
            writer.finish().map_err(gone)
        }
    }
}

/// Measures the round trip to a partner's node, on a session of its own.
///
/// # Errors
/// [`countersign_client::SessionError`] where it cannot be reached or is somebody else.
pub async fn ping(
    exchange: &Arc<Exchange>,
    partner: &Authority,
) -> Result<Duration, countersign_client::SessionError> {
    let session = session_with(exchange, partner).await?;
    let begun = Instant::now();
    let mut stream = session.request(&Ping { nonce: 1 }).await?;
    let _pong: Pong = stream.answer("the answer to the ping").await?;
    let took = begun.elapsed();
    session.close().await;
    Ok(took)
}

/// Asks a partner's node how it would decide about us, on a session of its own.
///
/// # Errors
/// [`countersign_client::SessionError`] where it cannot be reached, is somebody else, or refuses to say.
pub async fn ask_policy(
    exchange: &Arc<Exchange>,
    partner: &Authority,
    ask: &AskPolicy,
) -> Result<PolicyAnswer, countersign_client::SessionError> {
    let session = session_with(exchange, partner).await?;
    let mut stream = session.request(ask).await?;
    let answer = stream.answer("the answer about the policies").await;
    session.close().await;
    answer
}

/// Asks a partner's node which streams we may know of, on a session of its own.
///
/// # Errors
/// [`countersign_client::SessionError`] where it cannot be reached, is somebody else, or refuses to say.
pub async fn list_streams(
    exchange: &Arc<Exchange>,
    partner: &Authority,
) -> Result<StreamList, countersign_client::SessionError> {
    let session = session_with(exchange, partner).await?;
    let mut stream = session.request(&ListStreams {}).await?;
    let answer = stream.answer("the list of streams").await;
    session.close().await;
    answer
}

/// A session with a partner's node for one request.
async fn session_with(
    exchange: &Arc<Exchange>,
    partner: &Authority,
) -> Result<Session, countersign_client::SessionError> {
    let (addresses, organization) = {
        let registry = exchange.registry();
        let known = registry
            .partners
            .get(partner)
            .ok_or(countersign_client::SessionError::NoAddress)?;
        (
            known.addresses.clone(),
            known.statement.organization.fingerprint(),
        )
    };
    let clock = Arc::clone(exchange.clock());
    let identity = exchange.identity();
    let expected = Expected::organization(organization);
    let mut options = SessionOptions::new(
        addresses,
        expected,
        identity.node_key.clone(),
        Arc::new(move || clock.now()),
    );
    options.statement = Some(identity.envelope.clone());
    Session::connect(&options).await
}
